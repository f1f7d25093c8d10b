"""Computes telco_golden.json: what scikit-learn makes of the Telco table.

    pip install -r requirements.txt
    python golden.py > telco_golden.json

Columns, kinds and the split are those of internal/telco/specification.yaml.
"""

import gzip
import hashlib
import io
import json
import pathlib
import warnings

import numpy as np
import pandas as pd
import scipy
import sklearn
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE.parent.parent / "telco" / "Telco-Customer-Churn.csv.gz"

NUMBERS = ["tenure", "MonthlyCharges", "TotalCharges"]
BOOLEANS = ["SeniorCitizen", "Partner", "Dependents", "PhoneService", "PaperlessBilling"]
CATEGORIES = [
    "gender", "MultipleLines", "InternetService", "OnlineSecurity", "OnlineBackup", "DeviceProtection",
    "TechSupport", "StreamingTV", "StreamingMovies", "Contract", "PaymentMethod",
]
SPLIT_SEED, TEST_FRACTION, THRESHOLD = 1, 0.5, 0.5


def table():
    raw = gzip.decompress(TABLE.read_bytes())
    frame = pd.read_csv(io.BytesIO(raw), keep_default_na=False)
    frame["TotalCharges"] = pd.to_numeric(frame["TotalCharges"].str.strip())
    for name in BOOLEANS:
        frame[name] = frame[name].map({"Yes": 1.0, "No": 0.0, 1: 1.0, 0: 0.0})
    return frame, (frame["Churn"] == "Yes").astype(int).to_numpy()


def held_out(customer):
    digest = hashlib.sha256(SPLIT_SEED.to_bytes(8, "big") + customer.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53 < TEST_FRACTION


def pipeline(class_weight):
    number = Pipeline([("impute", SimpleImputer(strategy="mean")), ("scale", StandardScaler())])
    columns = ColumnTransformer([
        ("number", number, NUMBERS),
        ("boolean", "passthrough", BOOLEANS),
        ("category", OneHotEncoder(handle_unknown="ignore"), CATEGORIES),
    ], sparse_threshold=0)
    model = LogisticRegression(C=1.0, class_weight=class_weight, solver="newton-cholesky", tol=1e-14, max_iter=1000)
    return Pipeline([("columns", columns), ("model", model)])


def fitted(frame, labels, class_weight):
    p = pipeline(class_weight)
    with warnings.catch_warnings():
        # Newton stops where its line search can gain no more: the gradient below shows how good that is.
        warnings.simplefilter("ignore")
        p.fit(frame, labels)
    model, columns = p.named_steps["model"], p.named_steps["columns"]
    x = columns.transform(frame)
    weights = np.ones(len(labels))
    if class_weight == "balanced":
        weights = (len(labels) / (2 * np.bincount(labels)))[labels]
    residual = weights * (p.predict_proba(frame)[:, 1] - labels)
    gradient = np.append(x.T @ residual + model.coef_[0], residual.sum())
    return p, {
        "coefficients": model.coef_[0].tolist(),
        "intercept": float(model.intercept_[0]),
        "largest_gradient": float(np.abs(gradient).max()),
    }


def shape(p):
    columns = p.named_steps["columns"]
    number = columns.named_transformers_["number"]
    return {
        "impute": number.named_steps["impute"].statistics_.tolist(),
        "mean": number.named_steps["scale"].mean_.tolist(),
        "scale": number.named_steps["scale"].scale_.tolist(),
        "categories": [list(c) for c in columns.named_transformers_["category"].categories_],
    }


def main():
    frame, labels = table()
    out = {
        "versions": {
            "scikit-learn": sklearn.__version__, "scipy": scipy.__version__,
            "numpy": np.__version__, "pandas": pd.__version__,
        },
        "numbers": NUMBERS, "booleans": BOOLEANS, "categories": CATEGORIES,
        "split": {"seed": SPLIT_SEED, "test_fraction": TEST_FRACTION, "threshold": THRESHOLD},
        "all": {}, "split_fit": {},
    }
    test = np.array([held_out(c) for c in frame["customerID"]])
    for name, weight in (("none", None), ("balanced", "balanced")):
        p, fit = fitted(frame, labels, weight)
        fit["rows"] = list(range(0, len(frame), 100)) + frame.index[frame["TotalCharges"].isna()].tolist()
        at = frame.iloc[fit["rows"]]
        fit["margins"] = p.decision_function(at).tolist()
        fit["probabilities"] = p.predict_proba(at)[:, 1].tolist()
        out["all"][name] = fit
        out["all"]["shape"] = shape(p)

        p, fit = fitted(frame[~test], labels[~test], weight)
        y, q = labels[test], p.predict_proba(frame[test])[:, 1]
        fit.update({
            "train_rows": int((~test).sum()), "test_rows": int(test.sum()),
            "auc": float(roc_auc_score(y, q)), "brier": float(brier_score_loss(y, q)),
            "log_loss": float(log_loss(y, q)), "accuracy": float(accuracy_score(y, q >= THRESHOLD)),
        })
        out["split_fit"][name] = fit
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
