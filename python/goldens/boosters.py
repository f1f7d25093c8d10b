"""Writes models of XGBoost and LightGBM with what the libraries make of 300 rows each.

Run by boosters.sh once for each version of a library. For every model there are two files: the
model as the library saves it, and NAME.golden: a line of JSON, then little-endian float64: the
rows, their margins, the predictions, and for the first rows the contributions with the bias last,
output by output.
"""

import argparse
import gzip
import json
import pathlib
import re

import numpy as np

ROWS = 300
EXPLAINED = 40


def training(seed, kinds, classes=2, rows=600):
    """Rows of numbers ('q') and category codes ('c'), with missing cells, and labels."""
    random = np.random.default_rng(seed)
    columns = []
    for i, kind in enumerate(kinds):
        if kind == "c":
            columns.append(random.integers(0, 4 if i % 2 else 40, rows).astype(float))
        else:
            columns.append(random.normal(size=rows) * 10.0 ** random.integers(-2, 3))
    # Short numbers: the rows are committed, compressed.
    x = np.column_stack(columns).astype(np.float16).astype(float)
    score = sum(np.sin(c / (np.std(c) + 1e-9) * (i + 1)) for i, c in enumerate(columns))
    score = score + random.normal(size=rows) * 0.3
    y = np.searchsorted(np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]), score)
    x[random.random(x.shape) < 0.1] = np.nan
    return x, y.astype(float), score


def probes(seed, x, kinds, thresholds, step, infinite):
    """300 rows: from the data, on every side of splits, missing, unseen, negative, fractional."""
    random = np.random.default_rng(seed + 1)
    rows = x[random.integers(0, len(x), ROWS)].copy()
    at = 100
    for feature, value in thresholds[:100]:
        if at + 3 > 200:
            break
        for beside in (value, step(value, np.inf), step(value, -np.inf)):
            rows[at, feature] = beside
            at += 1
    for i in range(200, 300):
        feature = int(random.integers(0, x.shape[1]))
        odd = [np.nan, 0.0, -0.0, 1e-36, -1e-36, 1e-35, 1e30, -1e30, 1e-45]
        if infinite:
            odd += [np.inf, -np.inf]
        if kinds[feature] == "c":
            odd = [np.nan, -1.0, -0.5, 0.5, 2.75, 39.0, 40.0, 63.0, 64.0, 1000.0, 16777216.0, 3e9, -3e9]
        rows[i, feature] = odd[int(random.integers(0, len(odd)))]
    rows[298] = np.nan
    rows[299] = 0.0
    return rows


def write(directory, name, suffix, model, head, arrays):
    head["arrays"] = {k: list(v.shape) for k, v in arrays.items()}
    body = json.dumps(head).encode() + b"\n"
    for a in arrays.values():
        body += np.ascontiguousarray(a, dtype="<f8").tobytes()
    for path, data in ((directory / f"{name}{suffix}.gz", model), (directory / f"{name}.golden.gz", body)):
        with open(path, "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, compresslevel=9) as z:
            z.write(data)
    print(name, len(model))


# XGBoost


def xgboost_models(version):
    """Name, kinds of the columns, classes, parameters, rounds, and options."""
    q8, mixed = "q" * 8, "qcqcqq"
    common = {"max_depth": 4, "eta": 0.3, "nthread": 1, "seed": 7}
    yield "logistic", q8, 2, {"objective": "binary:logistic", **common}, 20, {}
    yield "logistic-ubj", q8, 2, {"objective": "binary:logistic", "base_score": 0.3, **common}, 10, {"ubj": True}
    yield "deep", q8, 2, {"objective": "binary:logistic", **common, "max_depth": 12, "min_child_weight": 0}, 5, {}
    yield "exact", q8, 2, {"objective": "binary:logistic", **common, "tree_method": "exact", "gamma": 1.0}, 10, {}
    yield "names", q8, 2, {"objective": "binary:logistic", **common}, 5, {"names": True}
    yield "logitraw", q8, 2, {"objective": "binary:logitraw", **common}, 5, {}
    yield "hinge", q8, 2, {"objective": "binary:hinge", **common}, 5, {}
    yield "softprob", q8, 3, {"objective": "multi:softprob", "num_class": 3, **common}, 6, {}
    yield "softmax-ubj", q8, 4, {"objective": "multi:softmax", "num_class": 4, **common}, 4, {"ubj": True}
    yield "dart", q8, 2, {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.3, "one_drop": 1, **common}, 12, {}
    yield "dart-ubj", q8, 3, {"objective": "multi:softprob", "num_class": 3, "booster": "dart", "rate_drop": 0.4, "one_drop": 1, **common}, 6, {"ubj": True}
    yield "gblinear", q8, 2, {"objective": "binary:logistic", "booster": "gblinear", "nthread": 1, "updater": "coord_descent"}, 10, {"complete": True}
    yield "gblinear-softprob", q8, 3, {"objective": "multi:softprob", "num_class": 3, "booster": "gblinear", "nthread": 1, "updater": "coord_descent"}, 10, {"complete": True, "ubj": True}
    yield "forest", q8, 2, {"objective": "binary:logistic", "num_parallel_tree": 5, "subsample": 0.7, "colsample_bynode": 0.7, **common, "eta": 1.0}, 1, {}
    yield "forest-rounds", q8, 3, {"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 3, "subsample": 0.7, **common}, 4, {"ubj": True}
    yield "stopped", q8, 2, {"objective": "binary:logistic", **common, "eta": 1.0}, 60, {"stop": True}
    yield "stopped-forest", q8, 3, {"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 2, "subsample": 0.7, **common, "eta": 1.0}, 60, {"stop": True}
    yield "category-onehot", mixed, 2, {"objective": "binary:logistic", "tree_method": "hist", "max_cat_to_onehot": 1000, **common}, 10, {}
    yield "category-partition", mixed, 2, {"objective": "binary:logistic", "tree_method": "hist", "max_cat_to_onehot": 1, **common}, 10, {"ubj": True}
    yield "poisson", q8, 2, {"objective": "count:poisson", **common}, 5, {}
    yield "gamma", q8, 2, {"objective": "reg:gamma", **common}, 5, {"positive": True}
    yield "tweedie", q8, 2, {"objective": "reg:tweedie", **common}, 5, {"positive": True}
    yield "squarederror", q8, 0, {"objective": "reg:squarederror", **common}, 5, {}
    yield "reg-logistic", q8, 2, {"objective": "reg:logistic", **common}, 5, {}
    yield "stump", q8, 2, {"objective": "binary:logistic", "gamma": 1e9, **common}, 3, {}
    if version >= (2, 0):
        yield "vector", q8, 3, {"objective": "multi:softprob", "num_class": 3, "tree_method": "hist", "multi_strategy": "multi_output_tree", **common}, 6, {}
        yield "vector-ubj", q8, -3, {"objective": "reg:squarederror", "tree_method": "hist", "multi_strategy": "multi_output_tree", **common}, 6, {"ubj": True}
        yield "multilabel", q8, -3, {"objective": "binary:logistic", "tree_method": "hist", **common}, 4, {}
    if version >= (3, 1):
        yield "category-names", mixed, 2, {"objective": "binary:logistic", "tree_method": "hist", **common}, 10, {"frame": True}
        yield "category-names-ubj", mixed, 2, {"objective": "binary:logistic", "tree_method": "hist", **common}, 10, {"frame": True, "ubj": True}


def write_xgboost(directory, only):
    import xgboost

    version = tuple(int(p) for p in xgboost.__version__.split(".")[:2])
    for number, (name, kinds, classes, parameters, rounds, options) in enumerate(xgboost_models(version)):
        if only and name not in only:
            continue
        seed = 1000 * version[0] + 10 * version[1] + number
        x, y, score = training(seed, kinds, abs(classes) or 2)
        if options.get("complete"):
            x = np.nan_to_num(x)
        if classes == 0:
            y = score
        if options.get("positive"):
            y = np.exp(score)
        if classes < 0:
            y = np.column_stack([(score > k / 2).astype(float) for k in range(-classes)])
        types = ["c" if k == "c" else "q" for k in kinds]
        names = [f"input {i}" if i else "größe" for i in range(len(kinds))] if options.get("names") else None

        def matrix(rows, label=None):
            if options.get("frame"):
                return xgboost.DMatrix(frame(rows, kinds), label, enable_categorical=True)
            return xgboost.DMatrix(rows, label, feature_types=types, feature_names=names, enable_categorical=True)

        stop = {}
        if options.get("stop"):
            stop = {"evals": [(matrix(*reversed((y[400:], x[400:]))), "held")], "early_stopping_rounds": 3, "verbose_eval": False}
            model = xgboost.train(parameters, matrix(x[:400], y[:400]), rounds, **stop)
        else:
            model = xgboost.train(parameters, matrix(x, y), rounds)
        # Without rounds that came after the best one, as XGBoost's scikit-learn interface predicts.
        iterations = (0, model.best_iteration + 1) if options.get("stop") else (0, 0)
        suffix = ".ubj" if options.get("ubj") else ".json"
        raw = bytes(model.save_raw(suffix[1:]))
        rows = probes(seed, x, kinds, xgboost_thresholds(model, kinds), lambda v, to: np.nextafter(np.float32(v), np.float32(to)), False)
        text = None
        if options.get("frame"):
            rows, text = known(rows, kinds)
        data = matrix(rows)
        margins = model.predict(data, output_margin=True, iteration_range=iterations).reshape(ROWS, -1)
        predictions = model.predict(data, iteration_range=iterations).reshape(ROWS, -1)
        if kinds == "q" * len(kinds) and parameters.get("booster", "gbtree") == "gbtree" and names is None:
            # A matrix refuses infinities, arrays that are predicted in place do not. (For dart that path
            # adds the base score last up to 3.2, so its last bit differs from what predict gives.)
            rows[280:290, number % len(kinds)], rows[290:297, 1] = np.inf, -np.inf
            for out, kind in ((margins, "margin"), (predictions, "value")):
                out[280:297] = model.inplace_predict(rows[280:297], predict_type=kind, iteration_range=iterations).reshape(17, -1)
        arrays = {"rows": rows, "margins": margins, "predictions": predictions}
        try:
            c = model.predict(matrix(rows[:EXPLAINED]), pred_contribs=True, iteration_range=iterations)
            arrays["contributions"] = c.reshape(EXPLAINED, -1, len(kinds) + 1)
        except Exception as e:  # vector leaves have none before 3.3
            print("  no contributions:", str(e).splitlines()[0][:100] if str(e) else type(e))
        full = f"xgboost-{xgboost.__version__}-{name}"
        head = {"library": "xgboost", "version": xgboost.__version__, "model": name, "kinds": kinds}
        if text is not None:
            head["categories"] = text
        write(directory, full, suffix, raw, head, arrays)


def xgboost_thresholds(model, kinds):
    out = []
    try:
        dump = model.get_dump(dump_format="json")
    except Exception:  # of vector leaves
        return out
    for tree in dump:
        for feature, value in re.findall(r'"split": "?([^",]+)"?, "split_condition": ([-+0-9.e]+)', tree):
            index = int((re.findall(r"\d+", feature) or ["0"])[0])
            if kinds[index] != "c":
                out.append((index, np.float32(value)))
    return out


def texts():
    """Names of categories. XGBoost 3.1 to 3.3 cannot save names that are not ASCII."""
    import sys

    xgboost = sys.modules.get("xgboost")
    plain = xgboost is not None and xgboost.__version__[:3] in ("3.1", "3.2", "3.3")
    return [f"v{k}" if plain else f"v{k} é" for k in range(41)]


def frame(rows, kinds):
    import pandas

    columns = {}
    for i, kind in enumerate(kinds):
        if kind == "c":
            codes = np.where(np.isnan(rows[:, i]), -1, rows[:, i]).astype(int)
            columns[f"c{i}"] = pandas.Categorical.from_codes(codes, categories=texts())
        else:
            columns[f"q{i}"] = rows[:, i]
    return pandas.DataFrame(columns)


def known(rows, kinds):
    """Categories that a data frame can hold."""
    for i, kind in enumerate(kinds):
        if kind == "c":
            bad = ~np.isnan(rows[:, i]) & ~np.isin(rows[:, i], np.arange(41.0))
            rows[bad, i] = np.nan
    return rows, {str(i): texts() for i, k in enumerate(kinds) if k == "c"}


# LightGBM


def lightgbm_models():
    q8, mixed = "q" * 8, "qcqcqq"
    common = {"num_leaves": 15, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1, "seed": 7, "deterministic": True}
    yield "binary", q8, 2, {"objective": "binary", **common}, 20, {}
    yield "binary-sigmoid", q8, 2, {"objective": "binary", "sigmoid": 0.7, **common}, 10, {}
    yield "deep", q8, 2, {"objective": "binary", **common, "num_leaves": 120, "min_data_in_leaf": 1}, 8, {}
    yield "zero", q8, 2, {"objective": "binary", "zero_as_missing": True, **common}, 10, {"zeros": True}
    yield "none", q8, 2, {"objective": "binary", "use_missing": False, **common}, 10, {}
    yield "complete", q8, 2, {"objective": "binary", **common}, 10, {"complete": True}
    yield "category", mixed, 2, {"objective": "binary", "min_data_per_group": 5, "cat_smooth": 1, **common}, 20, {"category": True}
    yield "category-onehot", mixed, 2, {"objective": "binary", "max_cat_to_onehot": 100, "cat_smooth": 1, **common}, 10, {"category": True}
    yield "category-frame", mixed, 2, {"objective": "binary", "min_data_per_group": 5, "cat_smooth": 1, **common}, 10, {"frame": True}
    yield "linear", q8, 2, {"objective": "binary", "linear_tree": True, **common}, 10, {"linear": True}
    yield "linear-regression", q8, 0, {"objective": "regression", "linear_tree": True, **common}, 10, {"linear": True}
    yield "rf", q8, 2, {"objective": "binary", "boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1, **common}, 10, {"averaged": True}
    yield "rf-multiclass", q8, 3, {"objective": "multiclass", "num_class": 3, "boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1, **common}, 5, {"averaged": True}
    yield "dart", q8, 2, {"objective": "binary", "boosting": "dart", "drop_rate": 0.4, **common}, 15, {}
    yield "goss", q8, 2, {"objective": "binary", "boosting": "goss", **common}, 15, {}
    yield "multiclass", q8, 3, {"objective": "multiclass", "num_class": 3, **common}, 6, {}
    yield "multiclassova", q8, 3, {"objective": "multiclassova", "num_class": 3, "sigmoid": 0.8, **common}, 6, {}
    yield "cross_entropy", q8, 2, {"objective": "cross_entropy", **common}, 10, {}
    yield "cross_entropy_lambda", q8, 2, {"objective": "cross_entropy_lambda", **common}, 10, {}
    yield "regression", q8, 0, {"objective": "regression", **common}, 10, {}
    yield "regression-sqrt", q8, 0, {"objective": "regression", "reg_sqrt": True, **common}, 10, {}
    yield "poisson", q8, 2, {"objective": "poisson", **common}, 10, {}
    yield "stump", q8, 2, {"objective": "binary", **common, "min_data_in_leaf": 10000}, 2, {}
    yield "stopped", q8, 2, {"objective": "binary", **common, "learning_rate": 0.9}, 60, {"stop": True}


def write_lightgbm(directory, only):
    import lightgbm

    version = tuple(int(p) for p in lightgbm.__version__.split(".")[:2])
    for number, (name, kinds, classes, parameters, rounds, options) in enumerate(lightgbm_models()):
        if only and name not in only:
            continue
        seed = 2000 * version[0] + 10 * version[1] + number
        x, y, score = training(seed, kinds, abs(classes) or 2)
        if options.get("complete"):
            x = np.nan_to_num(x)
        if options.get("zeros"):
            x = np.where(np.random.default_rng(seed).random(x.shape) < 0.2, 0.0, x)
        if classes == 0:
            y = score
        categorical = [i for i, k in enumerate(kinds) if k == "c"]

        def table(rows):
            return frame(rows, kinds) if options.get("frame") else rows

        extra = {"categorical_feature": categorical} if options.get("category") else {}
        if options.get("stop"):
            train = lightgbm.Dataset(table(x[:400]), y[:400], params=parameters, **extra)
            held = lightgbm.Dataset(table(x[400:]), y[400:], reference=train, params=parameters, **extra)
            model = lightgbm.train(parameters, train, rounds, valid_sets=[held], callbacks=[lightgbm.early_stopping(3, verbose=False)])
        else:
            model = lightgbm.train(parameters, lightgbm.Dataset(table(x), y, params=parameters, **extra), rounds)
        text = model.model_to_string()
        rows = probes(seed, x, kinds, lightgbm_thresholds(text, kinds), np.nextafter, not options.get("linear"))
        categories = None
        if options.get("frame"):
            rows, categories = known(rows, kinds)
        margins = model.predict(table(rows), raw_score=True).reshape(ROWS, -1)
        predictions = model.predict(table(rows)).reshape(ROWS, -1)
        if options.get("averaged"):  # raw_score leaves out the division that the prediction has
            margins = margins / (model.num_trees() // model.num_model_per_iteration())
        arrays = {"rows": rows, "margins": margins, "predictions": predictions}
        if not options.get("linear"):
            c = model.predict(table(rows[:EXPLAINED]), pred_contrib=True).reshape(EXPLAINED, -1, len(kinds) + 1)
            arrays["contributions"] = c
        head = {"library": "lightgbm", "version": lightgbm.__version__, "model": name, "kinds": kinds}
        if categories is not None:
            head["categories"] = categories
        if options.get("averaged"):
            head["averaged"] = True
        write(directory, f"lightgbm-{lightgbm.__version__}-{name}", ".txt", text.encode(), head, arrays)


def lightgbm_thresholds(text, kinds):
    out = []
    for tree in re.split(r"\nTree=", text)[1:]:
        features = re.search(r"split_feature=(.*)", tree)
        values = re.search(r"\nthreshold=(.*)", tree)
        if features is None or values is None:
            continue
        for f, v in zip(features.group(1).split(), values.group(1).split()):
            if kinds[int(f)] != "c":
                out.append((int(f), float(v)))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("library", choices=["xgboost", "lightgbm"])
    p.add_argument("directory", type=pathlib.Path)
    p.add_argument("--only", nargs="*", help="names of models; default all")
    a = p.parse_args()
    a.directory.mkdir(parents=True, exist_ok=True)
    {"xgboost": write_xgboost, "lightgbm": write_lightgbm}[a.library](a.directory, a.only)


if __name__ == "__main__":
    main()
