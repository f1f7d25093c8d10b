"""The first reference system on free data: IBM's Telco customers (see internal/telco/SOURCE.txt for the licence).

    python python/examples/telco.py internal/telco/Telco-Customer-Churn.csv.gz models/telco-sklearn

A logistic regression with balanced weights on scaled numbers and one-hot encoded categories, the columns of the
Telco table standing for tenure_days, monthly_spend, support_tickets_30d, plan_tier, country and last_login_hours.
The metrics are those of held-out customers, with 95% intervals by 1,000 resamples of them.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from churnstream_export import export


def interval(measure: Callable[[Any, Any], float], truth: Any, probability: Any, groups: Any) -> dict[str, Any]:
    """95% of 1,000 resamples of whole groups."""
    rng = np.random.default_rng(1)
    rows = pd.Series(np.arange(len(truth))).groupby(np.asarray(groups)).apply(np.asarray)
    found = []
    while len(found) < 1000:
        drawn = np.concatenate(rows.iloc[rng.integers(0, len(rows), len(rows))].to_list())
        if 0 < truth[drawn].sum() < len(drawn):
            found.append(measure(truth[drawn], probability[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return {"low": float(low), "high": float(high), "level": 0.95, "method": "bootstrap of customers"}


def evaluate(truth: Any, probability: Any, groups: Any, threshold: float) -> list[dict[str, Any]]:
    measures: dict[str, Callable[[Any, Any], float]] = {
        "auc": roc_auc_score,
        "brier": brier_score_loss,
        "log_loss": lambda t, p: log_loss(t, p, labels=[0, 1]),
        "accuracy": lambda t, p: accuracy_score(t, p >= threshold),
    }
    truth, probability = np.asarray(truth), np.asarray(probability)
    return [
        {"name": n, "value": float(m(truth, probability)), "interval": interval(m, truth, probability, groups)}
        for n, m in measures.items()
    ]


def show(title: str, metrics: list[dict[str, Any]]) -> None:
    print(title)
    for m in metrics:
        print(f"  {m['name']:9} {m['value']:.4f}  [{m['interval']['low']:.4f}, {m['interval']['high']:.4f}]")


def customers(path: Any) -> tuple[pd.DataFrame, Any, pd.Series]:
    """Inputs, whether the customer left, and who it is."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    churn = (table["Churn"] == "Yes").to_numpy().astype(int)
    frame = pd.DataFrame({
        "tenure_days": table["tenure"] * 30.0,
        "monthly_spend": table["MonthlyCharges"].astype(float),
        "plan_tier": table["Contract"].astype(object),
        "internet": table["InternetService"].astype(object),
        "payment": table["PaymentMethod"].astype(object),
    })
    return frame, churn, table["customerID"]


def pipeline() -> Any:
    columns = ColumnTransformer([
        ("numbers", StandardScaler(), ["tenure_days", "monthly_spend"]),
        ("categories", OneHotEncoder(handle_unknown="ignore"), ["plan_tier", "internet", "payment"]),
    ])
    return make_pipeline(columns, LogisticRegression(class_weight="balanced", max_iter=1000))


def main() -> None:
    frame, churn, who = customers(sys.argv[1])
    training, test = next(GroupShuffleSplit(1, test_size=0.2, random_state=1).split(frame, churn, who))
    model = pipeline()
    model.fit(frame.iloc[training], churn[training])
    metrics = evaluate(churn[test], model.predict_proba(frame.iloc[test])[:, 1], who.iloc[test], 0.5)
    show(f"{len(training)} customers fitted, {len(test)} held out", metrics)
    digest = export(
        model, frame.iloc[training], sys.argv[2], label={"column": "Churn", "positive": "1", "definition": "the customer left in the month before the table was made"},
        horizon="30d", metrics=metrics, held_out_rows=len(test), name="telco-sklearn",
    )  # fmt: skip
    print(f"{sys.argv[2]}: {digest}")


if __name__ == "__main__":
    main()
