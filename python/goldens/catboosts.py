"""Writes models of CatBoost with what it makes of 300 rows each, in the form of boosters.py.

Run by catboosts.sh once for each version. A column of kind 'c' holds the place of a text in the
list of that column's texts, which is in the golden's first line.
"""

import argparse
import json
import pathlib
import tempfile

import catboost
import numpy as np
import pandas as pd
from boosters import EXPLAINED, ROWS, write

PLANS = ["basic", "plus", "premium", "Größe XXL"]


def table(seed, kinds, classes, rows=600):
    """A frame of numbers ('q'), some of them missing, and texts ('c'), with a target."""
    random = np.random.default_rng(seed)
    columns, score = {}, np.zeros(rows)
    for i, kind in enumerate(kinds):
        if kind == "q":
            x = (random.normal(size=rows) * 10.0 ** random.integers(-2, 3)).astype(np.float16).astype(float)
            score += np.sin(x / x.std() * (i + 1))
            x[random.random(rows) < 0.1] = np.nan
            columns[f"number {i}"] = x
        elif i % 2:
            code = random.integers(0, len(PLANS), rows)
            score += code * 0.4
            columns[f"text {i}"] = np.array(PLANS, dtype=object)[code]
        else:
            code = random.integers(0, 40, rows)
            score += np.cos(code * 1.7)
            columns[f"text {i}"] = np.array([f"town-{c}" + "x" * (c * 3 % 37) for c in code], dtype=object)
    score += random.normal(size=rows) * 0.3
    target = np.searchsorted(np.quantile(score, np.linspace(0, 1, max(classes, 2) + 1)[1:-1]), score) if classes else score
    return pd.DataFrame(columns), target


def probes(seed, frame, kinds, model):
    """300 rows: from the data, on every side of borders, missing, infinite, unseen."""
    random = np.random.default_rng(seed + 1)
    rows = frame.iloc[random.integers(0, len(frame), ROWS)].reset_index(drop=True)
    borders = [(f["flat_feature_index"], b) for f in model["features_info"].get("float_features") or [] for b in f["borders"] or []]
    random.shuffle(borders)
    at = 100
    for feature, border in borders[:33]:
        with np.errstate(over="ignore"):  # the largest float32 is a border
            beside_it = np.nextafter(np.float32(border), np.float32([np.inf, -np.inf]))
        for beside in (np.float32(border), *beside_it):
            rows.iat[at, feature] = float(beside)
            at += 1
    numbers = [np.nan, 0.0, -0.0, 1e30, -1e30, 1e-45, np.inf, -np.inf, 1e300]
    for i in range(200, ROWS):
        feature = int(random.integers(0, len(kinds)))
        texts = ["", "unseen", "Basic", "basic ", "é", "x" * (i - 190), "plus" * (i % 40)]
        rows.iat[i, feature] = (numbers if kinds[feature] == "q" else texts)[int(random.integers(0, 7))]
    return rows


def models():
    """Name, kinds of the columns, classes, parameters."""
    q, mixed, texts = "qqqqqq", "qcqcqqc", "ccqcc"
    base = {"iterations": 20, "depth": 4, "learning_rate": 0.3, "random_seed": 7}
    yield "logloss", q, 2, base
    yield "nan-max", q, 2, {**base, "nan_mode": "Max"}
    yield "depth-9", q, 2, {**base, "depth": 9, "iterations": 4}
    yield "stump", q, 2, {**base, "iterations": 3, "depth": 1}
    yield "cross-entropy", q, -1, {**base, "loss_function": "CrossEntropy"}
    yield "multiclass", q, 3, {**base, "loss_function": "MultiClass"}
    yield "one-vs-all", q, 4, {**base, "loss_function": "MultiClassOneVsAll"}
    yield "rmse", q, 0, {**base, "loss_function": "RMSE"}
    yield "mae", q, 0, {**base, "loss_function": "MAE"}
    yield "poisson", q, -2, {**base, "loss_function": "Poisson"}
    yield "borders-1000", q, 0, {**base, "loss_function": "RMSE", "border_count": 1000, "depth": 6}
    yield "scaled", q, 2, {**base, "scale": 0.25}
    yield "weights", q, 2, {**base, "auto_class_weights": "Balanced"}
    for policy in ("Depthwise", "Lossguide"):
        yield policy.lower(), q, 2, {**base, "grow_policy": policy, "depth": 6}
        yield f"{policy.lower()}-multiclass", q, 3, {**base, "grow_policy": policy, "loss_function": "MultiClass"}
        yield f"{policy.lower()}-category", mixed, 2, {**base, "grow_policy": policy, "one_hot_max_size": 4}
    yield "one-hot", mixed, 2, {**base, "one_hot_max_size": 255}
    yield "counters", mixed, 2, {**base, "one_hot_max_size": 2, "max_ctr_complexity": 1}
    yield "combinations", texts, 2, {**base, "one_hot_max_size": 4, "max_ctr_complexity": 4, "iterations": 30, "depth": 6}
    yield "counters-multiclass", mixed, 3, {**base, "loss_function": "MultiClass", "one_hot_max_size": 2}
    yield "counters-rmse", mixed, 0, {**base, "loss_function": "RMSE", "one_hot_max_size": 2}
    for kind in ("Borders:TargetBorderCount=3", "Buckets:TargetBorderCount=2", "BinarizedTargetMeanValue", "Counter"):
        name = "counter-" + kind.split(":")[0].lower()
        yield name, texts, 0, {**base, "loss_function": "RMSE", "one_hot_max_size": 1, "simple_ctr": [kind], "combinations_ctr": [kind]}


def write_models(directory):
    for number, (name, kinds, classes, parameters) in enumerate(models()):
        frame, target = table(number, kinds, max(classes, 0))
        if classes == -1:
            target = 1 / (1 + np.exp(-target))
        elif classes == -2:
            target = np.floor(np.exp(target - target.mean()))
        scale = parameters.pop("scale", None)
        texts = [i for i, k in enumerate(kinds) if k == "c"]
        trained = catboost.CatBoost({"thread_count": 1, "logging_level": "Silent", "allow_writing_files": False, "loss_function": "Logloss", **parameters})
        pool = catboost.Pool(frame, target, cat_features=texts)
        trained.fit(pool)
        if scale:
            trained.set_scale_and_bias(scale, 0.75)
        with tempfile.TemporaryDirectory() as temporary:
            path = pathlib.Path(temporary) / "model.json"
            trained.save_model(str(path), format="json", pool=pool)
            model = path.read_bytes()
        rows = probes(number, frame, kinds, json.loads(model))
        asked = catboost.Pool(rows, cat_features=texts)
        margins = trained.predict(asked, prediction_type="RawFormulaVal", thread_count=1)
        loss = parameters.get("loss_function", "Logloss")
        kind = "Probability" if classes > 0 or classes == -1 else "Exponent" if loss == "Poisson" else "RawFormulaVal"
        predictions = trained.predict(asked, prediction_type=kind, thread_count=1)
        if classes in (2, -1):
            predictions = predictions[:, 1]
        head = {"library": "catboost", "version": catboost.__version__, "model": name, "kinds": kinds, "categories": {}}
        coded = rows.copy()
        for i in texts:
            listed = sorted(set(rows.iloc[:, i]))
            head["categories"][str(i)] = listed
            coded[coded.columns[i]] = [float(listed.index(t)) for t in rows.iloc[:, i]]
        arrays = {"rows": coded.astype(float).to_numpy(), "margins": margins.reshape(ROWS, -1), "predictions": predictions.reshape(ROWS, -1)}
        if not scale:  # CatBoost explains no scaled model
            contributions = trained.get_feature_importance(asked, type="ShapValues", thread_count=1).reshape(ROWS, -1)
            # Of trees that are not symmetric, its values make another sum than the raw value where a row
            # reaches a node without training rows. Such rows come last and are not compared.
            sums = contributions.reshape(ROWS, margins.reshape(ROWS, -1).shape[1], -1).sum(axis=2)
            right = np.abs(sums - margins.reshape(ROWS, -1)).max(axis=1) < 1e-10
            order = np.argsort(~right, kind="stable")
            arrays = {name: a[order] for name, a in arrays.items()}
            arrays["contributions"] = contributions[order][: min(EXPLAINED, right.sum())]
        write(directory, f"catboost-{catboost.__version__}-{name}", ".json", model, head, arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    write_models(arguments.directory)
