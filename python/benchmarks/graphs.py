"""Times CatBoost and ONNX Runtime on one thread, and writes their models beside those of boosters.py, which
has to run first (boosters.sh). ONNX Runtime has the trees of XGBoost, too: the same splits and leaves."""

import argparse
import json
import pathlib

import numpy as np
from boosters import data, measure


def graph_of(booster):
    """The trees of an XGBoost model as a graph whose output is the margin but for the base score."""
    from onnx import helper

    trees = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    nodes = {name: [] for name in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true")}
    leaves = {"treeids": [], "nodeids": [], "ids": [], "weights": []}
    for tree, t in enumerate(trees):
        for node, (left, right) in enumerate(zip(t["left_children"], t["right_children"])):
            leaf = left < 0
            for name, value in (
                ("treeids", tree), ("nodeids", node), ("featureids", 0 if leaf else t["split_indices"][node]), ("modes", "LEAF" if leaf else "BRANCH_LT"),
                ("values", 0.0 if leaf else t["split_conditions"][node]), ("truenodeids", max(0, left)), ("falsenodeids", max(0, right)),
                ("missing_value_tracks_true", 0 if leaf else int(t["default_left"][node])),
            ):
                nodes[name].append(value)
            if leaf:
                for name, value in (("treeids", tree), ("nodeids", node), ("ids", 0), ("weights", t["split_conditions"][node])):
                    leaves[name].append(value)
    attributes = {f"nodes_{k}": v for k, v in nodes.items()} | {f"target_{k}": v for k, v in leaves.items()}
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, **attributes)
    ends = [helper.make_tensor_value_info("x", 1, [None, booster.num_features()])], [helper.make_tensor_value_info("y", 1, [None, 1])]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(helper.make_graph([node], "trees", *ends), opset_imports=opsets, ir_version=10).SerializeToString()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("directory", type=pathlib.Path)
    a = p.parse_args()
    a.directory.mkdir(parents=True, exist_ok=True)
    import catboost
    import onnxruntime
    import xgboost
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    print(f"catboost {catboost.__version__}, onnxruntime {onnxruntime.__version__}")
    x, y = data(20000, 20, 1)
    narrow = x.astype(np.float32)
    x[:1000].astype("<f8").tofile(a.directory / "rows.f64")
    results = []
    for name, count, size in (
        ("100x6", 100, {"depth": 6}),
        ("500x8", 500, {"depth": 8}),
        ("1000x31", 1000, {"grow_policy": "Lossguide", "max_leaves": 31}),
    ):
        model = catboost.CatBoostClassifier(iterations=count, thread_count=1, verbose=0, random_seed=1, allow_writing_files=False, **size)
        model.fit(x[:5000], y[:5000])
        name = f"catboost-{name}"
        model.save_model(str(a.directory / f"{name}.json"), format="json")
        measure(name, lambda rows, m=model: m.predict(rows, prediction_type="RawFormulaVal", thread_count=1), narrow, results)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def measure_graph(name, raw):
        (a.directory / f"{name}.onnx").write_bytes(raw)
        session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0].name
        measure(name, lambda rows: session.run(None, {feed: rows}), narrow, results)

    for name, estimator in (
        ("onnx-logistic", make_pipeline(StandardScaler(), LogisticRegression())),
        ("onnx-forest-100x6", RandomForestClassifier(100, max_depth=6, n_jobs=1, random_state=1)),
    ):
        estimator.fit(x[:5000], y[:5000])
        measure_graph(name, to_onnx(estimator, narrow[:1], options={"zipmap": False}, target_opset={"": 21, "ai.onnx.ml": 3}).SerializeToString())
    for size in ("100x6", "500x8", "1000x31"):
        measure_graph(f"onnx-boosting-{size}", graph_of(xgboost.Booster(model_file=a.directory / f"xgboost-{size}.ubj")))
    (a.directory / "graphs.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
