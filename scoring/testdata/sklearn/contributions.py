"""Makes contributions/NAME.json.gz: what the shap package says of fitted pipelines, folded back into the inputs.

    pip install -r requirements-now.txt -e ../../../python && python contributions.py
"""

import gzip
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import shap
import sklearn
from goldens import CHURN, GAPS, LEVEL, NUMBERS, TEXTS, cells, columns, logistic, one_hot, table, tree
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from churnstream_export import export

warnings.filterwarnings("ignore")
PLACE = Path(__file__).parent / "contributions"


def encoded(numbers):
    return columns((numbers, NUMBERS), (one_hot(), TEXTS))


def cases():
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    filled = SimpleImputer()
    yield "logistic", make_pipeline(encoded(scaled), logistic()), CHURN
    yield "multinomial", make_pipeline(encoded(scaled), logistic()), LEVEL
    yield "tree", make_pipeline(encoded(filled), tree()), CHURN
    yield "tree-missing", make_pipeline(encoded("passthrough"), tree()), CHURN
    yield "forest", make_pipeline(encoded(filled), RandomForestClassifier(10, max_depth=5, random_state=0)), CHURN
    yield "forest-classes", make_pipeline(encoded(filled), RandomForestClassifier(6, max_depth=4, random_state=0)), LEVEL
    yield "extra-trees", make_pipeline(encoded(filled), ExtraTreesClassifier(8, max_depth=5, random_state=0)), CHURN
    yield "boosting", make_pipeline(encoded(filled), GradientBoostingClassifier(n_estimators=15, random_state=0)), CHURN
    yield "histogram", make_pipeline(encoded("passthrough"), HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=8, random_state=0)), CHURN


def main():
    PLACE.mkdir(exist_ok=True)
    rows, _, _ = table(60, 9)
    rows = rows.astype({c: object for c in TEXTS})
    rows.loc[::5, "last_login_hours"] = np.nan
    rows.loc[::7, "plan_tier"] = "unseen"
    rows.loc[::11, "country"] = np.nan
    for name, model, target in cases():
        model.fit(GAPS, target)
        X = np.asarray(model[:-1].transform(rows), dtype=float)
        background = np.asarray(model[:-1].transform(GAPS), dtype=float)
        last = model[-1]
        if hasattr(last, "coef_"):
            explainer = shap.LinearExplainer(last, shap.maskers.Independent(background, max_samples=len(background)))
        else:
            explainer = shap.TreeExplainer(last, feature_perturbation="tree_path_dependent")
        values = np.asarray(explainer.shap_values(X))
        if values.ndim == 2:
            values = values[:, :, np.newaxis]
        expected = np.atleast_1d(explainer.expected_value)
        if len(last.classes_) == 2 and values.shape[2] == 2:
            values, expected = values[:, :, 1:], expected[1:]
        with tempfile.TemporaryDirectory() as parent:
            export(model, GAPS, Path(parent) / name, label="left", horizon="30d")
            manifest = json.loads((Path(parent) / name / "manifest.json").read_text())
            program = json.loads((Path(parent) / name / "model.json").read_text())
        inputs = [i["name"] for i in manifest["inputs"]]
        widths = [1] * len(NUMBERS) + [len(c) for c in model[0].named_transformers_["t1"].categories_]
        owner = np.repeat([inputs.index(n) for n in NUMBERS + TEXTS], widths)
        folded = np.zeros((len(rows), values.shape[2], len(inputs)))
        for f, i in enumerate(owner):
            folded[:, :, i] += values[:, f, :]
        out = {
            "scikit_learn": sklearn.__version__, "shap": shap.__version__, "inputs": manifest["inputs"], "model": program,
            "rows": cells(rows, manifest["inputs"]), "contributions": folded.tolist(), "expected": expected.tolist(),
        }  # fmt: skip
        with open(PLACE / f"{name}.json.gz", "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as f:
            f.write(json.dumps(out, separators=(",", ":")).encode())
        print(name, flush=True)


if __name__ == "__main__":
    main()
