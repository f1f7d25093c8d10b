"""Writes ONNX models of skl2onnx and onnxmltools with what ONNX Runtime makes of 300 rows each.

The form is that of boosters.py, without margins: the predictions are the scores as ONNX Runtime
gives them, on one thread, all rows in one batch. A column of kind 'c' holds the place of a text in the
list of that column's texts, one of kind 'i' is an integer.
"""

import argparse
import pathlib
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import skl2onnx
import sklearn
from boosters import ROWS, write
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn import (
    calibration,
    compose,
    decomposition,
    discriminant_analysis,
    ensemble,
    impute,
    linear_model,
    naive_bayes,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.multiclass import OneVsRestClassifier

# What both versions write alike is kept once. Powers from 4 on are those of ONNX Runtime 1.31, which multiplies where 1.16 called powf.
OLD_VECTORS = ("svm-linear-3", "svm-rbf-2", "svm-rbf-calibrated", "svm-rbf-regression", "svm-vote")
PLANS = ["basic", "plus", "premium", "Größe XXL"]


def numbers(seed, classes, missing=False, rows=500, columns=8):
    random = np.random.default_rng(seed)
    x = np.column_stack([random.normal(size=rows) * 10.0 ** random.integers(-1, 2) for _ in range(columns)]).astype(np.float16).astype(np.float32)
    score = sum(np.sin(c / c.std() * (i + 1)) for i, c in enumerate(x.T)) + random.normal(size=rows) * 0.3
    y = np.searchsorted(np.quantile(score, np.linspace(0, 1, max(classes, 2) + 1)[1:-1]), score) if classes else score
    if missing:
        x[random.random(x.shape) < 0.1] = np.nan
    return x, y


def flags(seed, classes, rows=500, columns=150):
    """Many columns of 0 and 1: products so long that ONNX Runtime adds them up in parts."""
    random = np.random.default_rng(seed)
    x = (random.random((rows, columns)) < 0.2).astype(np.float32)
    score = x @ random.normal(size=columns)
    return x, np.searchsorted(np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]), score)


def probes(seed, x, thresholds, missing):
    random = np.random.default_rng(seed + 1)
    rows = x[random.integers(0, len(x), ROWS)].copy()
    at = 100
    for feature, value in thresholds[:33]:
        for beside in (value, np.nextafter(value, np.float32(np.inf)), np.nextafter(value, np.float32(-np.inf))):
            rows[at, feature] = beside
            at += 1
    for i in range(200, ROWS):
        odd = [0.0, -0.0, 1e-30, 1e9, -1e9, 100.0, -100.0] + ([np.nan, np.inf, -np.inf] if missing else [])
        rows[i, int(random.integers(0, x.shape[1]))] = odd[int(random.integers(0, len(odd)))]
    return rows


def thresholds_of(model, estimator, seed):
    """The values that trees and bins compare with."""
    out = []
    for step in getattr(estimator, "named_steps", {}).values():
        if hasattr(step, "quantiles_"):
            out += [(f, np.float32(v)) for f, column in enumerate(step.quantiles_.T) for v in column]
    for node in model.graph.node:
        a = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if "nodes_modes" in a and "nodes_values" in a:
            out += [(f, np.float32(v)) for f, v, m in zip(a["nodes_featureids"], a["nodes_values"], a["nodes_modes"]) if m != b"LEAF"]
    np.random.default_rng(seed).shuffle(out)
    return out


def models():
    """Name, classes, estimator, and whether it takes missing numbers."""
    logistic = lambda: linear_model.LogisticRegression(max_iter=1000)  # noqa: E731
    trees = lambda n=5: ensemble.RandomForestClassifier(n, max_depth=4, random_state=1)  # noqa: E731
    yield "logistic", 2, logistic(), False
    yield "logistic-3", 3, logistic(), False
    yield "sgd", 2, linear_model.SGDClassifier(loss="log_loss", random_state=1), False
    yield "one-vs-rest", 3, OneVsRestClassifier(logistic()), False
    yield "linear", 0, linear_model.LinearRegression(), False
    yield "ridge", 0, linear_model.Ridge(), False
    yield "network", 2, neural_network.MLPClassifier((8,), max_iter=100, random_state=1), False
    yield "tree", 2, tree.DecisionTreeClassifier(max_depth=6, random_state=1), True
    yield "tree-3", 3, tree.DecisionTreeClassifier(max_depth=6, random_state=1), True
    yield "tree-regression", 0, tree.DecisionTreeRegressor(max_depth=5, random_state=1), False
    yield "forest", 2, trees(20), True
    yield "forest-3", 3, trees(20), True
    yield "forest-regression", 0, ensemble.RandomForestRegressor(20, max_depth=5, random_state=1), False
    yield "extra-trees", 2, ensemble.ExtraTreesClassifier(20, max_depth=5, random_state=1), False
    yield "boosting", 2, ensemble.GradientBoostingClassifier(n_estimators=20, random_state=1), False
    yield "boosting-3", 3, ensemble.GradientBoostingClassifier(n_estimators=6, random_state=1), False
    yield "boosting-regression", 0, ensemble.GradientBoostingRegressor(n_estimators=20, random_state=1), False
    yield "histogram", 2, ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=1), True
    yield "histogram-3", 3, ensemble.HistGradientBoostingClassifier(max_iter=6, random_state=1), True
    yield "histogram-regression", 0, ensemble.HistGradientBoostingRegressor(max_iter=20, random_state=1), True
    yield "adaboost", 2, ensemble.AdaBoostClassifier(n_estimators=10, random_state=1), False
    yield "adaboost-3", 3, ensemble.AdaBoostClassifier(tree.DecisionTreeClassifier(max_depth=3), n_estimators=10, random_state=1), False
    yield "bagging", 2, ensemble.BaggingClassifier(n_estimators=4, random_state=1), False
    yield "calibrated-sigmoid", 2, calibration.CalibratedClassifierCV(trees(), cv=2), False
    yield "calibrated-sigmoid-3", 3, calibration.CalibratedClassifierCV(trees(), cv=2), False
    yield "calibrated-isotonic", 2, calibration.CalibratedClassifierCV(trees(), method="isotonic", cv=2), False
    yield "calibrated-svm", 2, calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2), False
    yield "vote", 2, ensemble.VotingClassifier([("a", logistic()), ("b", trees())], voting="soft", flatten_transform=False), False
    yield "vote-weights", 2, ensemble.VotingClassifier([("a", logistic()), ("b", trees())], voting="soft", weights=np.array([1.0, 2.5]), flatten_transform=False), False
    yield "vote-hard", 2, ensemble.VotingClassifier([("a", logistic()), ("b", trees())], voting="hard", flatten_transform=False), False
    yield "stack", 2, ensemble.StackingClassifier([("a", logistic()), ("b", trees())], cv=2), False
    for name, step in (
        ("standard", preprocessing.StandardScaler()),
        ("minmax", preprocessing.MinMaxScaler()),
        ("maxabs", preprocessing.MaxAbsScaler()),
        ("robust", preprocessing.RobustScaler()),
        ("l1", preprocessing.Normalizer("l1")),
        ("l2", preprocessing.Normalizer("l2")),
        ("max", preprocessing.Normalizer("max")),
        ("binarizer", preprocessing.Binarizer()),
        ("polynomial", preprocessing.PolynomialFeatures(2)),
        ("bins", preprocessing.KBinsDiscretizer(4, encode="onehot-dense")),
    ):
        yield "scale-" + name, 2, pipeline.make_pipeline(step, logistic()), False
    yield "impute", 2, pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler(), logistic()), True
    yield "impute-median-forest", 2, pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), trees(10)), True
    yield "network-3", 3, neural_network.MLPClassifier((8,), max_iter=100, random_state=1), False
    yield "bayes", 2, naive_bayes.GaussianNB(), False
    yield "bayes-3", 3, naive_bayes.GaussianNB(), False
    yield "calibrated-bayes", 2, calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=2), False
    yield "vote-bayes", 2, ensemble.VotingClassifier([("a", logistic()), ("b", trees()), ("c", naive_bayes.GaussianNB())], voting="soft", flatten_transform=False), False
    yield "adaboost-regression", 0, ensemble.AdaBoostRegressor(n_estimators=10, random_state=1), False
    yield "vote-regression", 0, ensemble.VotingRegressor([("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=3, random_state=1))]), False
    yield "discriminant", 2, discriminant_analysis.LinearDiscriminantAnalysis(), False
    yield "components", 2, pipeline.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(3, random_state=1), logistic()), False
    yield from vector_models()


def vector_models():
    """Support vector machines, whose kernels need numbers of one size."""
    scaled = lambda last: pipeline.make_pipeline(preprocessing.StandardScaler(), last)  # noqa: E731
    logistic = lambda: linear_model.LogisticRegression(max_iter=1000)  # noqa: E731
    for name, kernel in (
        ("linear", {"kernel": "linear"}),
        ("rbf", {"kernel": "rbf"}),
        ("poly", {"kernel": "poly", "coef0": 0.5}),
        ("poly-2", {"kernel": "poly", "degree": 2, "gamma": 0.1}),
        ("poly-4", {"kernel": "poly", "degree": 4, "coef0": 1.0, "gamma": 0.05}),
        ("sigmoid", {"kernel": "sigmoid", "gamma": 0.05}),
    ):
        for classes in (2, 3):
            yield f"svm-{name}-{classes}", classes, scaled(svm.SVC(probability=True, random_state=1, **kernel)), False
        yield f"svm-{name}-calibrated", 2, calibration.CalibratedClassifierCV(scaled(svm.SVC(**kernel)), cv=2), False
        yield f"svm-{name}-regression", 0, scaled(svm.SVR(**kernel)), False
    yield "svm-unscaled", 2, svm.SVC(probability=True, random_state=1), False
    yield "svm-4", 4, scaled(svm.SVC(probability=True, random_state=1)), False
    yield "svm-nu", 2, scaled(svm.NuSVC(nu=0.3, probability=True, random_state=1)), False
    yield "svm-nu-regression", 0, scaled(svm.NuSVR()), False
    yield "svm-calibrated-3", 3, calibration.CalibratedClassifierCV(scaled(svm.SVC()), cv=2), False
    yield "svm-vote", 2, ensemble.VotingClassifier([("a", svm.SVC(probability=True, random_state=1)), ("b", logistic())], voting="soft", flatten_transform=False), False
    yield "svm-vote-hard", 2, ensemble.VotingClassifier([("a", svm.SVC()), ("b", logistic()), ("c", svm.SVC(kernel="linear"))], voting="hard", flatten_transform=False), False
    yield "svm-stack", 2, ensemble.StackingClassifier([("a", svm.SVC(probability=True, random_state=1)), ("b", logistic())], cv=2), False
    yield "svm-bagging", 2, ensemble.BaggingClassifier(svm.SVC(probability=True, random_state=1), n_estimators=3, random_state=1), False
    yield "network-tanh", 2, neural_network.MLPClassifier((8,), activation="tanh", max_iter=100, random_state=1), False
    yield "network-logistic-3", 3, neural_network.MLPClassifier((8, 4), activation="logistic", max_iter=100, random_state=1), False
    yield "quantile", 2, pipeline.make_pipeline(preprocessing.QuantileTransformer(n_quantiles=40), logistic()), False
    yield "quantile-missing", 2, pipeline.make_pipeline(preprocessing.QuantileTransformer(n_quantiles=33), impute.SimpleImputer(), logistic()), True
    yield "discriminant-quadratic", 2, discriminant_analysis.QuadraticDiscriminantAnalysis(reg_param=0.3), False
    yield "discriminant-quadratic-3", 3, discriminant_analysis.QuadraticDiscriminantAnalysis(reg_param=0.3), False
    yield "bernoulli-3", 3, naive_bayes.BernoulliNB(), False
    yield "bayes-six-columns", 2, naive_bayes.GaussianNB(), False
    yield "scale-power", 2, pipeline.make_pipeline(preprocessing.PowerTransformer(), logistic()), False
    for name, classes, last in (("four", 2, logistic()), ("five-3", 3, ensemble.RandomForestClassifier(8, max_depth=4, random_state=1))):
        steps = impute.KNNImputer(n_neighbors=4 if name == "four" else 5), preprocessing.StandardScaler(), last
        yield f"impute-neighbours-{name}", classes, pipeline.make_pipeline(*steps), True
    yield "wide-logistic", 2, logistic(), False
    yield "wide-network", 2, neural_network.MLPClassifier((40, 70), max_iter=20, random_state=1), False


def run(model, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    out = session.run(None, inputs)
    scores = out[-1]
    if isinstance(scores, list):
        scores = np.array([[row[k] for k in row] for row in scores])
    scores = np.asarray(scores, dtype=float).reshape(ROWS, -1)
    return scores[:, 1:] if len(out) > 1 and scores.shape[1] == 2 else scores


def save(directory, name, model, kinds, rows, inputs, categories=None):
    raw = model.SerializeToString() if not isinstance(model, bytes) else model
    head = {"library": "onnx", "version": onnxruntime.__version__, "model": name, "kinds": kinds, "categories": categories or {}}
    write(directory, f"onnx-skl{skl2onnx.__version__}-{name}", ".onnx", raw, head, {"rows": rows, "predictions": run(raw, inputs)})


def customers(seed, rows=500):
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "tenure": random.normal(size=rows).astype(np.float16).astype(np.float32),
        "plan": np.array(PLANS, dtype=object)[random.integers(0, 4, rows)],
        "visits": random.integers(0, 6, rows),
        "charge": random.normal(size=rows).astype(np.float16).astype(np.float32) * 100,
    })
    return frame, ((frame.tenure > 0) ^ (frame.plan == "plus") ^ (frame.visits > 3)).astype(int)


def write_frames(directory):
    """Data frames: every column is an input of the graph."""
    frame, y = customers(5)
    types = [("tenure", FloatTensorType([None, 1])), ("plan", StringTensorType([None, 1])), ("visits", Int64TensorType([None, 1])), ("charge", FloatTensorType([None, 1]))]
    for name, text in (("one-hot", preprocessing.OneHotEncoder(handle_unknown="ignore")), ("ordinal", preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1))):
        for last_name, last in (("logistic", linear_model.LogisticRegression(max_iter=1000)), ("forest", ensemble.RandomForestClassifier(8, max_depth=4, random_state=1))):
            model = pipeline.make_pipeline(
                compose.ColumnTransformer([("n", preprocessing.StandardScaler(), ["tenure", "charge"]), ("c", text, ["plan"]), ("v", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["visits"])]),
                last,
            ).fit(frame, y)
            try:
                converted = convert_sklearn(model, initial_types=types)
            except Exception as e:
                print(f"  {name}-{last_name}: not converted: {str(e).splitlines()[0][:100]}")
                continue
            rows = customers(6, ROWS)[0]
            rows.loc[250:259, "plan"] = "unseen"
            rows.loc[260:269, "plan"] = ""
            rows.loc[270:279, "visits"] = 77
            inputs = {n: rows[[n]].to_numpy().astype(np.float32 if n in ("tenure", "charge") else np.int64 if n == "visits" else object) for n, _ in types}
            listed = sorted(set(rows["plan"]))
            coded = rows.assign(plan=[float(listed.index(t)) for t in rows["plan"]]).astype(float).to_numpy()
            save(directory, f"frame-{name}-{last_name}", converted, "qciq", coded, inputs, {"1": listed})


def write_boosters(directory):
    """What onnxmltools writes of XGBoost and LightGBM."""
    try:
        import lightgbm
        import onnxmltools
        import xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType as Float
    except ImportError as e:
        print("  no boosters:", e)
        return
    for number, (name, classes, model) in enumerate((
        ("lightgbm", 2, lightgbm.LGBMClassifier(n_estimators=10, num_leaves=15, verbosity=-1, random_state=1)),
        ("lightgbm-3", 3, lightgbm.LGBMClassifier(n_estimators=4, num_leaves=15, verbosity=-1, random_state=1)),
        ("lightgbm-regression", 0, lightgbm.LGBMRegressor(n_estimators=10, num_leaves=15, verbosity=-1, random_state=1)),
        ("xgboost", 2, xgboost.XGBClassifier(n_estimators=10, max_depth=4)),
        ("xgboost-3", 3, xgboost.XGBClassifier(n_estimators=4, max_depth=4)),
        ("xgboost-regression", 0, xgboost.XGBRegressor(n_estimators=10, max_depth=4)),
    )):
        x, y = numbers(100 + number, classes, True)
        convert = onnxmltools.convert_lightgbm if name.startswith("light") else onnxmltools.convert_xgboost
        extra = {"zipmap": number % 2 == 0} if name.startswith("light") else {}
        try:
            model.fit(x, y)
            converted = convert(model, initial_types=[("input", Float([None, x.shape[1]]))], target_opset=15, **extra)
        except Exception as e:
            print(f"  {name}: not converted: {str(e).splitlines()[0][:100]}")
            continue
        rows = probes(number, x, thresholds_of(converted, model, number), True)
        save(directory, name, converted, "q" * rows.shape[1], rows.astype(float), {"input": rows.astype(np.float32)})


def write_catboosts(directory):
    """What CatBoost writes itself."""
    try:
        import catboost
    except ImportError as e:
        print("  no CatBoost:", e)
        return
    options = {"iterations": 6, "depth": 4, "verbose": 0, "thread_count": 1, "random_seed": 1, "allow_writing_files": False}
    for number, (name, classes) in enumerate((("catboost", 2), ("catboost-3", 3), ("catboost-regression", 0))):
        x, y = numbers(200 + number, classes, True)
        model = (catboost.CatBoostClassifier if classes else catboost.CatBoostRegressor)(**options).fit(x, y)
        with tempfile.TemporaryDirectory() as folder:
            model.save_model(f"{folder}/model.onnx", format="onnx")
            converted = onnx.load(f"{folder}/model.onnx")
        rows = probes(number, x, thresholds_of(converted, model, number), True)
        save(directory, name, converted, "q" * rows.shape[1], rows.astype(float), {converted.graph.input[0].name: rows})


def write_ensembles(directory):
    """TreeEnsemble of ai.onnx.ml 5, which no converter writes of itself yet."""
    random = np.random.default_rng(3)
    features, depth, trees = 6, 4, 7
    ids, values, modes, yes, no, yes_leaf, no_leaf, missing, roots, targets, weights = ([] for _ in range(11))
    for _ in range(trees):
        roots.append(len(ids))

        def grow(level):
            at = len(ids)
            for column, x in ((ids, int(random.integers(features))), (values, float(np.float32(random.normal()))), (modes, int(random.integers(6)))):
                column.append(x)
            missing.append(int(random.integers(2)))
            for column in (yes, no, yes_leaf, no_leaf):
                column.append(0)
            for child, leaf in ((yes, yes_leaf), (no, no_leaf)):
                if level == 0 or random.random() < 0.2:
                    child[at], leaf[at] = len(weights), 1
                    weights.append(float(np.float32(random.normal())))
                    targets.append(int(random.integers(2)))
                else:
                    child[at] = grow(level - 1)
            return at

        grow(depth)
    floats = lambda name, list_: onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [len(list_)], list_)  # noqa: E731
    for name, aggregate in (("sum", 1), ("average", 0)):
        node = onnx.helper.make_node(
            "TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml", n_targets=2, aggregate_function=aggregate, post_transform=0, tree_roots=roots,
            nodes_featureids=ids, nodes_splits=floats("s", values), nodes_modes=onnx.helper.make_tensor("m", onnx.TensorProto.UINT8, [len(modes)], modes),
            nodes_truenodeids=yes, nodes_falsenodeids=no, nodes_trueleafs=yes_leaf, nodes_falseleafs=no_leaf, nodes_missing_value_tracks_true=missing,
            leaf_targetids=targets, leaf_weights=floats("w", weights),
        )
        graph = onnx.helper.make_graph([node], "g", [onnx.helper.make_tensor_value_info("x", 1, [None, features])], [onnx.helper.make_tensor_value_info("y", 1, [None, 2])])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("ai.onnx.ml", 5)], ir_version=10)
        rows = random.normal(size=(ROWS, features)).astype(np.float32)
        for r in range(100, ROWS):
            k = int(random.integers(len(ids)))
            v = np.float32(values[k])
            rows[r, ids[k]] = [v, np.nextafter(v, np.float32(9)), np.nextafter(v, np.float32(-9)), np.nan, np.inf, -np.inf][r % 6]
        save(directory, "ensemble-" + name, model, "q" * features, rows.astype(float), {"x": rows})


def take_truths():
    """skl2onnx 1.20 hands truths of histogram boosting to onnx as integers, which onnx 1.23 refuses: here they become integers."""
    make = onnx.helper.make_attribute

    def made(key, value, *more, **named):
        if isinstance(value, list) and any(isinstance(v, (bool, np.bool_)) for v in value):
            value = [int(v) for v in value]
        return make(key, value, *more, **named)

    onnx.helper.make_attribute = made


def main(directory):
    take_truths()
    opset = {"": min(21, skl2onnx.__max_supported_opset__), "ai.onnx.ml": 3}
    old = tuple(int(p) for p in sklearn.__version__.split(".")[:2]) < (1, 4)  # trees take no missing numbers
    for number, (name, classes, estimator, missing) in enumerate(models()):
        missing = missing and not (old and name.startswith(("tree", "forest")))
        if old and name.startswith("svm") and name not in OLD_VECTORS:
            continue
        x, y = flags(number, classes) if name.startswith("wide") else numbers(number, classes, missing, columns=6 if name.endswith("six-columns") else 8)
        if name.startswith(("svm", "impute-neighbours")) and name != "svm-linear-regression":  # whose files hold their training rows
            x, y = x[:150], y[:150]
        for double in (False, True) if name in ("logistic", "logistic-3", "ridge") else (False,):
            try:
                estimator.fit(x, y)
                kind = (DoubleTensorType if double else FloatTensorType)([None, x.shape[1]])
                options = {"zipmap": number % 2 == 0 and not double} if classes and not name.startswith("vote") else None
                converted = convert_sklearn(estimator, initial_types=[("input", kind)], options={id(estimator): options} if options else None, target_opset=opset)
            except Exception as e:
                print(f"  {name}: not converted: {str(e).splitlines()[0][:100]}")
                continue
            rows = probes(number, x, thresholds_of(converted, estimator, number), missing)
            if name.startswith("impute-neighbours"):  # ONNX Runtime ends at rows that have no finite distance to a donor
                rows[np.isinf(rows)] = np.nan
            try:
                save(directory, name + ("-double" if double else ""), converted, "q" * rows.shape[1], rows.astype(float), {"input": rows.astype(np.float64 if double else np.float32)})
            except Exception as e:
                print(f"  {name}: not run: {str(e).splitlines()[0][:200]}")
    write_frames(directory)
    write_boosters(directory)
    write_catboosts(directory)
    if onnx.defs.onnx_opset_version() >= 21:
        write_ensembles(directory)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    print("scikit-learn", sklearn.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
    main(arguments.directory)
