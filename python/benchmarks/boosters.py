"""Times the predictors of XGBoost, LightGBM and scikit-learn on one thread, and writes the models and rows
so that this program can be timed on them in the same run (boosters.sh).

Times are processor time of the process for one call, the least of several, by the row: on a machine that does
other work they say more than a clock.
"""

import argparse
import itertools
import json
import pathlib
import time

import numpy as np

BATCHES = (1, 64, 1000)


def data(rows, features, seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, features))
    y = (np.sin(x).sum(axis=1) + 0.5 * x[:, 0] * x[:, 1] + random.normal(size=rows) > 0).astype(int)
    return x.astype(np.float32).astype(float), y


def best(call, calls, least=0.4):
    """Least processor time of one call."""
    results = []
    end = time.process_time() + least
    while len(results) < 3 or time.process_time() < end:
        start = time.process_time()
        for _ in range(calls):
            call()
        results.append((time.process_time() - start) / calls)
    return min(results)


def measure(name, predict, x, results):
    """Times batches that go round the first thousand rows: one row again and again would stay in the caches."""
    for batch in BATCHES:
        rows = itertools.cycle([np.ascontiguousarray(x[at : at + batch]) for at in range(0, 1000 - batch + 1, batch)])
        calls = max(1, 400 // batch)
        ns = best(lambda rows=rows: predict(next(rows)), calls) / batch * 1e9
        results.append({"model": name, "batch": batch, "ns_per_row": round(ns)})
        print(f"{name:24} batch {batch:5}  {ns:12.0f} ns/row", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("directory", type=pathlib.Path)
    a = p.parse_args()
    a.directory.mkdir(parents=True, exist_ok=True)
    import lightgbm
    import sklearn
    import xgboost
    from sklearn.ensemble import RandomForestClassifier

    print(f"xgboost {xgboost.__version__}, lightgbm {lightgbm.__version__}, scikit-learn {sklearn.__version__}")
    x, y = data(20000, 20, 1)
    x[:1000].astype("<f8").tofile(a.directory / "rows.f64")
    results = []

    for name, count, size in (
        ("100x6", 100, {"max_depth": 6}),
        ("500x8", 500, {"max_depth": 8}),
        ("1000x31", 1000, {"max_depth": 0, "max_leaves": 31, "grow_policy": "lossguide", "tree_method": "hist"}),
    ):
        model = xgboost.train(
            {"objective": "binary:logistic", "eta": 0.05, "nthread": 1, "min_child_weight": 0, **size}, xgboost.DMatrix(x, y), count)
        name = f"xgboost-{name}"
        model.save_model(a.directory / f"{name}.ubj")
        measure(name, lambda rows, m=model: m.inplace_predict(rows, predict_type="margin"), x, results)
        if count == 100:
            matrix = xgboost.DMatrix(x[:1000])
            ns = best(lambda m=model: m.predict(matrix, pred_contribs=True), 1) / 1000 * 1e9
            results.append({"model": name + "-contributions", "batch": 1000, "ns_per_row": round(ns)})
            print(f"{name + '-contributions':24} batch  1000  {ns:12.0f} ns/row")

    for name, count, size in (
        ("100x6", 100, {"max_depth": 6, "num_leaves": 64}),
        ("500x8", 500, {"max_depth": 8, "num_leaves": 256}),
        ("1000x31", 1000, {"num_leaves": 31}),
    ):
        model = lightgbm.train(
            {"objective": "binary", "learning_rate": 0.05, "num_threads": 1, "verbosity": -1, **size}, lightgbm.Dataset(x, y), count)
        name = f"lightgbm-{name}"
        model.save_model(a.directory / f"{name}.txt")
        measure(name, lambda rows, m=model: m.predict(rows, raw_score=True, num_threads=1), x, results)

    mixed = x.copy()
    mixed[:, :5] = np.floor(np.abs(mixed[:, :5]) * 10)
    mixed[:1000].astype("<f8").tofile(a.directory / "rows-category.f64")
    model = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 6, "eta": 0.05, "nthread": 1, "tree_method": "hist"},
        xgboost.DMatrix(mixed, y, feature_types=["c"] * 5 + ["q"] * 15, enable_categorical=True), 100)
    model.save_model(a.directory / "xgboost-100x6-category.ubj")
    measure("xgboost-100x6-category", lambda rows: model.inplace_predict(rows, predict_type="margin", validate_features=False), mixed, results)

    forest = RandomForestClassifier(500, n_jobs=1, random_state=1).fit(x[:5000], y[:5000])
    depth = max(t.tree_.max_depth for t in forest.estimators_)
    nodes = sum(t.tree_.node_count for t in forest.estimators_)
    print(f"forest: 500 trees, {nodes} nodes, up to {depth} deep")
    with open(a.directory / "forest.trees", "wb") as f:
        for e in forest.estimators_:
            t = e.tree_
            value = t.value[:, 0, :] / t.value[:, 0, :].sum(axis=1, keepdims=True)
            np.array([t.node_count], dtype="<i4").tofile(f)
            for column, kind in ((t.children_left, "<i4"), (t.children_right, "<i4"), (t.feature, "<i4"), (t.threshold, "<f8"), (value[:, 1], "<f8")):
                column.astype(kind).tofile(f)
    measure("forest-500", forest.predict_proba, x, results)
    (a.directory / "libraries.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
