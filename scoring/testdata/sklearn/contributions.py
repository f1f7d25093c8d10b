"""Makes contributions/NAME.json.gz: what the shap package says of fitted pipelines, folded back into the inputs.

    pip install -r requirements-now.txt -e ../../../python && python contributions.py
"""

import gzip
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import shap
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from churnstream_export import export
from goldens import CHURN, GAPS, LEVEL, NUMBERS, TEXTS, cells, columns, logistic, one_hot, table, tree

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


def asked():
    """Models without contributions of their own, with the margin that churnstream gives."""
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    chance = lambda m, X: m.predict_proba(X)[:, 1]  # noqa: E731
    logs = lambda m, X: np.diff(m[-1].predict_joint_log_proba(m[0].transform(X)), axis=1)[:, 0]  # noqa: E731
    odds = lambda m, X: np.log(m.predict_proba(X)[:, 1]) - np.log1p(-m.predict_proba(X)[:, 1])  # noqa: E731
    yield "network", make_pipeline(encoded(scaled), MLPClassifier((6, 3), max_iter=150, random_state=0)), odds
    yield "kernel-vote", make_pipeline(encoded(scaled), VotingClassifier([("s", SVC(probability=True, random_state=0)), ("l", logistic())], voting="soft")), chance
    yield "stack", make_pipeline(encoded(scaled), StackingClassifier([("l", logistic()), ("f", RandomForestClassifier(5, max_depth=4, random_state=0))], logistic(), cv=3)), lambda m, X: m.decision_function(X)
    yield "isotonic", make_pipeline(encoded(scaled), CalibratedClassifierCV(tree(), method="isotonic", cv=3)), chance
    yield "gaussian-bayes", make_pipeline(encoded(scaled), GaussianNB(var_smoothing=0.01)), logs
    yield "bernoulli-bayes", make_pipeline(encoded(scaled), BernoulliNB(binarize=0.2)), logs


def by_all_mixtures(name, model, margin):
    """shap's ExactExplainer over the inputs, each cell of a row being the position of its value in a list."""
    model.fit(GAPS, CHURN)
    with tempfile.TemporaryDirectory() as parent:
        export(model, GAPS, Path(parent) / name, label="left", horizon="30d")
        manifest = json.loads((Path(parent) / name / "manifest.json").read_text())
        program = json.loads((Path(parent) / name / "model.json").read_text())
    names = list(model.feature_names_in_)
    inputs = [i["name"] for i in manifest["inputs"]]
    rows, _, _ = table(12, 9)
    rows = rows.astype({c: object for c in TEXTS})
    rows.loc[::3, "plan_tier"] = "unseen"
    rows.loc[::4, "last_login_hours"] = np.nan
    if "background" in program:
        background = pd.DataFrame(program["background"])[names].astype({c: object for c in TEXTS})
        background[TEXTS] = background[TEXTS].where(background[TEXTS].notna(), np.nan)
    else:
        background = GAPS[names]
    values = pd.concat([rows[names], background[names]], ignore_index=True)
    places = np.tile(np.arange(len(values), dtype=float)[:, np.newaxis], (1, len(names)))

    def ask(at):
        frame = pd.DataFrame({c: values[c].to_numpy()[at[:, i].astype(int)] for i, c in enumerate(names)})
        return margin(model, frame)

    masker = shap.maskers.Independent(places[len(rows) :], max_samples=len(background))
    found = shap.explainers.Exact(ask, masker)(places[: len(rows)])
    folded = np.zeros((len(rows), 1, len(inputs)))
    for i, c in enumerate(names):
        folded[:, 0, inputs.index(c)] = found.values[:, i]
    return {
        "scikit_learn": sklearn.__version__, "shap": shap.__version__, "inputs": manifest["inputs"], "model": program,
        "rows": cells(rows, manifest["inputs"]), "contributions": folded.tolist(), "expected": np.atleast_1d(found.base_values[0]).tolist(),
    }  # fmt: skip


def main():
    PLACE.mkdir(exist_ok=True)
    for name, model, margin in asked():
        with open(PLACE / f"{name}.json.gz", "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as f:
            f.write(json.dumps(by_all_mixtures(name, model, margin), separators=(",", ":")).encode())
        print(name, flush=True)
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
