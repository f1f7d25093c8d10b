"""Fitted classifiers as steps of a program."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
import sklearn
from sklearn.linear_model._base import LinearClassifierMixin

from .errors import ExportError, UnsupportedEstimatorError
from .probing import refusals
from .program import Column, Program, floats, numbers
from .single import check_sums, head, transformed
from .transformers import Kinds, lower

VERSION = tuple(int("".join(ch for ch in part if ch.isdigit()) or 0) for part in sklearn.__version__.split(".")[:2])


@dataclass
class Scored:
    """What a classifier gives: columns, in the order of its classes."""

    classes: list[Any]
    # decision_function: one column for two classes, else one a class (or a pair of classes); None without one.
    decision: list[Column] | None
    # predict_proba: the column of the second of two classes, else one a class; None without one.
    probability: list[Column] | None
    # Both columns of two classes, where the library computes the first on its own.
    both: list[Column] | None = None
    # predict, where it is not the largest probability or the sign of the decision.
    predicted: Column | None = None
    # What contributions explain: decision, or something better.
    margin: list[Column] | None = None
    # One column a class whose largest is predicted, where it is neither decision nor probability.
    votes: list[Column] | None = None


Classify = Callable[[Program, Any, Sequence[Column], Any, Kinds], Scored]


def classify(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    """Append the steps of a fitted classifier over columns. rows are the reference rows as it gets them."""
    if type(est).__module__.startswith("sklearn."):
        found = _CLASSIFIERS.get(type(est).__name__)
        if found is not None:
            classes = getattr(est, "classes_", None)
            if isinstance(classes, list):
                raise UnsupportedEstimatorError(est, "it predicts several outputs at once")
            if classes is not None and len(classes) < 2:
                raise UnsupportedEstimatorError(est, "it was trained on one class only")
            scored = found(program, est, columns, rows, kinds)
            if not hasattr(est, "steps"):
                check_sums(est, head(rows))
            return scored
    raise UnsupportedEstimatorError(est)


def both(program: Program, scored: Scored) -> list[Column]:
    """A probability column for every class."""
    assert scored.probability is not None
    if len(scored.classes) > 2:
        return scored.probability
    if scored.both is None:
        parameters = {"coefficients": [[-1.0]], "intercepts": [1.0]}
        first = program.add("linear", scored.probability, ["1 - probability"], parameters)
        scored.both = [first[0], scored.probability[0]]
    return scored.both


def predicted(program: Program, scored: Scored) -> Column:
    """A column with the position of the predicted class."""
    if scored.predicted is None:
        if scored.votes is not None:
            read = scored.votes
        elif scored.decision is not None and (len(scored.decision) == len(scored.classes) or len(scored.classes) == 2):
            read = scored.decision
        else:
            read = both(program, scored)
        scored.predicted = program.add("argmax", read, ["predicted class"])[0]
    return scored.predicted


def _require(program: Program, est: Any, columns: Sequence[Column]) -> None:
    numbers(columns, est)
    program.require(columns, *refusals(est.predict, len(columns)))


def _means(rows: Any) -> list[float]:
    if hasattr(rows, "toarray"):  # a sparse matrix
        return floats(np.asarray(rows.mean(axis=0, dtype=np.float64)))
    return floats(np.asarray(rows, dtype=np.float64).mean(axis=0))


def _numbers(rows: Any) -> Any:
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float64)


def _labels(est: Any) -> list[str]:
    return [str(c) for c in est.classes_]


def _linear(
    program: Program, columns: Sequence[Column], coefficients: Any, intercepts: Any, rows: Any, names: Sequence[str]
) -> list[Column]:
    parameters = {
        "coefficients": [floats(row) for row in np.atleast_2d(coefficients)],
        "intercepts": floats(np.broadcast_to(intercepts, (len(np.atleast_2d(coefficients)),))),
    }
    if rows is not None:
        parameters["background"] = _means(rows)
    return program.add("linear", columns, names, parameters)


def _combined(
    program: Program, columns: Sequence[Column], coefficients: Any, intercepts: Any, names: Sequence[str]
) -> list[Column]:
    return _linear(program, columns, coefficients, intercepts, None, names)


def _softmax(program: Program, columns: Sequence[Column], logarithm: bool = False) -> list[Column]:
    names = [f"probability {k}" for k in range(len(columns))]
    return program.add("softmax", columns, names, {"logarithm": True} if logarithm else None)


def _shares(program: Program, columns: Sequence[Column], of_zeros: bool = True) -> list[Column]:
    """Divide by the sum; without of_zeros a row of zeros has no probabilities."""
    names = [f"probability {k}" for k in range(len(columns))]
    return program.add("share", columns, names, {"empty": 1.0 / len(columns)} if of_zeros else None)


class _Hopeless:
    """A classifier that is sure of no class."""

    @staticmethod
    def decision_function(X: Any) -> Any:
        return np.full((1, 3), -1e9)


def _shares_zeros() -> bool:
    """Whether this release makes probabilities of a row in which every class has the probability 0."""
    with np.errstate(all="ignore"):
        out = LinearClassifierMixin._predict_proba_lr(_Hopeless(), np.zeros((1, 1)))
    return bool(np.isfinite(out).all())


def _logistic(program: Program, columns: Sequence[Column]) -> list[Column]:
    return program.add("logistic", columns, ["probability"] * len(columns))


def _margin_names(est: Any, n: int) -> list[str]:
    return ["margin"] if n == 1 else [f"margin {k}" for k in range(n)]


def _decide(program: Program, est: Any, columns: Sequence[Column], rows: Any) -> list[Column]:
    _require(program, est, columns)
    coefficients = est.coef_
    if hasattr(coefficients, "toarray"):
        coefficients = coefficients.toarray()
    coefficients = np.atleast_2d(coefficients)
    return _linear(program, columns, coefficients, est.intercept_, rows, _margin_names(est, len(coefficients)))


def _logistic_regression(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    decision = _decide(program, est, columns, rows)
    classes = list(est.classes_)
    multi = getattr(est, "multi_class", "auto")
    if multi in ("ovr", "warn"):
        separate = True
    elif multi == "multinomial":
        separate = False
    else:
        solvers = ("liblinear", "newton-cholesky") if VERSION < (1, 6) else ("liblinear",)
        separate = len(classes) <= 2 or est.solver in solvers
    if separate:
        probability = _logistic(program, decision)
        if len(classes) > 2:
            probability = _shares(program, probability, _shares_zeros())
        return Scored(classes, decision, probability)
    if len(classes) == 2:
        pair = _combined(program, decision, [[-1.0], [1.0]], [0.0, 0.0], ["-margin", "margin again"])
        columns_of_both = _softmax(program, pair)
        return Scored(classes, decision, columns_of_both[1:], columns_of_both)
    return Scored(classes, decision, _softmax(program, decision))


def _sgd(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    decision = _decide(program, est, columns, rows)
    classes = list(est.classes_)
    loss = getattr(est, "loss", None)
    if loss in ("log_loss", "log"):
        probability = _logistic(program, decision)
        if len(classes) > 2:
            probability = _shares(program, probability, _shares_zeros())
        return Scored(classes, decision, probability)
    if loss == "modified_huber":
        clipped = program.add("clip", decision, ["clipped"] * len(decision), {"range": [-1.0, 1.0]})
        raised = program.add("scale", clipped, ["raised"] * len(decision), {
            "mean": [-1.0] * len(decision), "scale": [2.0] * len(decision),
        })  # fmt: skip
        return Scored(classes, decision, raised if len(classes) == 2 else _shares(program, raised))
    return Scored(classes, decision, None)


def _margins_only(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    return Scored(list(est.classes_), _decide(program, est, columns, rows), None)


def _bayes(
    program: Program, est: Any, columns: Sequence[Column], likelihood: list[Column]
) -> Scored:
    probability = _softmax(program, likelihood, logarithm=True)
    classes = list(est.classes_)
    if len(classes) > 2:
        return Scored(classes, None, probability, margin=likelihood, votes=likelihood)
    margin = _combined(program, likelihood, [[-1.0, 1.0]], [0.0], ["margin"])
    return Scored(classes, None, probability[1:], probability, margin=margin, votes=likelihood)


def _gaussian_bayes(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    _require(program, est, columns)
    parameters = {
        "log_prior": floats(np.log(est.class_prior_)),
        "means": [floats(row) for row in est.theta_],
        "variances": [floats(row) for row in est.var_],
    }
    values = _numbers(rows)
    parameters["background"] = [floats(((values - mean) ** 2 / var).mean(axis=0)) for mean, var in zip(est.theta_, est.var_)]
    names = [f"likelihood {k}" for k in range(len(est.classes_))]
    return _bayes(program, est, columns, program.add("gaussian_likelihood", columns, names, parameters))


def _linear_bayes(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    _require(program, est, columns)
    logarithm, prior = est.feature_log_prob_, est.class_log_prior_
    kind = type(est).__name__
    read = list(columns)
    if kind == "BernoulliNB":
        if est.binarize is not None:
            read = [
                program.add("argmax", [c], [f"{c.name} > {est.binarize}"], {"above": float(est.binarize)})[0]
                for c in columns
            ]
        absent = np.log(1 - np.exp(logarithm))
        coefficients, intercepts = logarithm - absent, prior + absent.sum(axis=1)
        held = _numbers(rows)
        held = held if est.binarize is None else (held > est.binarize).astype(np.float64)
        return _bayes(program, est, columns, _linear_of(program, est, read, coefficients, intercepts, held))
    if kind == "ComplementNB":
        prior = np.zeros(len(est.classes_))
    return _bayes(program, est, columns, _linear_of(program, est, read, logarithm, prior, rows))


def _linear_of(
    program: Program, est: Any, columns: Sequence[Column], coefficients: Any, intercepts: Any, rows: Any
) -> list[Column]:
    names = [f"likelihood {k}" for k in range(len(est.classes_))]
    return _linear(program, columns, coefficients, intercepts, rows, names)


def _categorical_bayes(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    _require(program, est, columns)
    parameters = {
        "log_prior": floats(est.class_log_prior_),
        "log_probability": [[floats(row) for row in table] for table in est.feature_log_prob_],
    }
    codes = _numbers(rows).astype(int)
    means = [table[:, codes[:, i]].mean(axis=1) for i, table in enumerate(est.feature_log_prob_)]
    parameters["background"] = [floats([mean[k] for mean in means]) for k in range(len(est.classes_))]
    names = [f"likelihood {k}" for k in range(len(est.classes_))]
    return _bayes(program, est, columns, program.add("categorical_likelihood", columns, names, parameters))


_LARGEST = float(np.finfo(np.float64).max)


def _nodes(tree: Any) -> dict[str, Any]:
    """The lists of a sklearn.tree Tree but for its values."""
    left, right = tree.children_left, tree.children_right
    leaf = left < 0
    out = {
        "left": left.tolist(),
        "right": right.tolist(),
        "column": np.where(leaf, 0, tree.feature).tolist(),
        # An infinite threshold parts what is missing from what is not; no number is above the largest one.
        "threshold": floats(np.clip(np.where(leaf, 0.0, tree.threshold), -_LARGEST, _LARGEST)),
        "cover": floats(tree.weighted_n_node_samples),
    }
    if hasattr(tree, "missing_go_to_left"):
        to_left = np.flatnonzero(np.asarray(tree.missing_go_to_left, dtype=bool) & ~leaf)
        if len(to_left):
            out["missing_left"] = [int(i) for i in to_left]
    return out


def _node_probability(tree: Any) -> Any:
    """The probability of each class in each node, as DecisionTreeClassifier.predict_proba makes it."""
    value = tree.value[:, 0, :]
    if VERSION >= (1, 3):
        return value  # fractions already
    total = value.sum(axis=1)[:, np.newaxis]
    total[total == 0.0] = 1.0
    return value / total


def _forest(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    _require(program, est, columns)
    members = [est] if hasattr(est, "tree_") else list(est.estimators_)
    if members[0].n_outputs_ != 1:
        raise UnsupportedEstimatorError(est, "it predicts several outputs at once")
    probability = [_node_probability(m.tree_) for m in members]
    classes = list(est.classes_)

    def ensemble(values: list[dict[str, Any]], names: list[str]) -> list[Column]:
        trees = [{**_nodes(m.tree_), **v} for m, v in zip(members, values)]
        parameters: dict[str, Any] = {"single": True, "trees": trees}
        if len(members) > 1 or not hasattr(est, "tree_"):
            parameters["divisor"] = float(len(members))
        return program.add("trees", columns, names, parameters)

    if len(classes) > 2:
        names = [f"probability {k}" for k in range(len(classes))]
        out = ensemble([{"vectors": floats(p)} for p in probability], names)
        return Scored(classes, None, out, margin=out)
    second = ensemble([{"values": floats(p[:, 1])} for p in probability], ["probability"])
    scored = _LazyForest(classes, None, second, margin=second)
    scored.make = lambda: ensemble([{"vectors": floats(p)} for p in probability], ["probability 0", "probability 1"])
    return scored


class _LazyForest(Scored):
    """Two classes, of which the first is seldom asked for."""

    make: Callable[[], list[Column]]

    def ready(self) -> None:
        if self.both is None:
            self.both = self.make()


def _gradient_boosting(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    _require(program, est, columns)
    if not isinstance(est.init_, str) and type(est.init_).__name__ != "DummyClassifier":
        raise UnsupportedEstimatorError(est, f"it starts from a {type(est.init_).__name__}, not from a constant")
    classes = list(est.classes_)
    base = np.asarray(est._raw_predict_init(np.zeros((1, len(columns)), dtype=np.float32)))[0]
    trees = []
    for stage in est.estimators_:
        for k, member in enumerate(stage):
            values = est.learning_rate * member.tree_.value[:, 0, 0]
            trees.append({"output": k, **_nodes(member.tree_), "values": floats(values)})
    parameters = {"single": True, "base": floats(base), "trees": trees}
    margins = program.add("trees", columns, _margin_names(est, len(base)), parameters)
    if len(classes) > 2:
        return Scored(classes, margins, _softmax(program, margins, logarithm=True))
    before_link = margins
    if est.loss == "exponential":
        before_link = _combined(program, margins, [[2.0]], [0.0], ["2 margin"])
    return Scored(classes, margins, _logistic(program, before_link))


def _hist_gradient_boosting(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    read = list(columns)
    preprocessor = getattr(est, "_preprocessor", None)
    if preprocessor is not None:
        read = lower_hist_preprocessor(program, preprocessor, columns, kinds)
    numbers(read, est)
    classes = list(est.classes_)
    categorical = getattr(est, "_is_categorical_remapped", None)
    if categorical is None:
        categorical = est.is_categorical_
    read = _known_codes(program, est, read, categorical)
    base = np.ravel(est._baseline_prediction)
    trees = []
    for stage in est._predictors:
        for k, predictor in enumerate(stage):
            trees.append(_hist_tree(predictor, k))
    parameters = {"base": floats(base), "trees": trees}
    margins = program.add("trees", read, _margin_names(est, len(base)), parameters)
    if len(classes) > 2:
        return Scored(classes, margins, _softmax(program, margins))
    return Scored(classes, margins, _logistic(program, margins))


def lower_hist_preprocessor(program: Program, step: Any, columns: Sequence[Column], kinds: Kinds) -> list[Column]:
    """The encoder that histogram boosting puts before its trees; its other columns go through as they are."""
    from .transformers import select_columns

    out: list[Column] = []
    for _, part, chosen in step.transformers_:
        picked = select_columns(step, chosen, columns)
        if picked and type(part).__name__ == "OrdinalEncoder":
            out += lower(program, part, picked, None, kinds)
        else:
            out += picked
    return out


def _known_codes(program: Program, est: Any, columns: list[Column], categorical: Any) -> list[Column]:
    """Make a number of what is no known category missing, as the library's predictor treats it.

    Categories are cut to whole numbers below 256 as a C cast does it.
    """
    if categorical is None or not np.any(categorical):
        return columns
    bitsets, index = est._bin_mapper.make_known_categories_bitsets()
    out = list(columns)
    for f in np.flatnonzero(categorical):
        row = bitsets[int(index[f])]
        known = [c for c in range(256) if (int(row[c // 32]) >> (c % 32)) & 1]
        parameters = {"known": known}
        out[int(f)] = program.add("category_code", [columns[int(f)]], [f"category({columns[int(f)].name})"], parameters)[0]
    return out


def _hist_tree(predictor: Any, output: int) -> dict[str, Any]:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    threshold = np.where(leaf | nodes["is_categorical"].astype(bool), 0.0, nodes["num_threshold"])
    threshold = np.clip(threshold, -_LARGEST, _LARGEST)
    tree: dict[str, Any] = {
        "output": output,
        "left": np.where(leaf, -1, nodes["left"].astype(np.int64)).tolist(),
        "right": np.where(leaf, -1, nodes["right"].astype(np.int64)).tolist(),
        "column": np.where(leaf, 0, nodes["feature_idx"].astype(np.int64)).tolist(),
        "threshold": floats(threshold),
        "values": floats(np.where(leaf, nodes["value"], 0.0)),
        "cover": floats(nodes["count"]),
    }
    to_left = np.flatnonzero(nodes["missing_go_to_left"].astype(bool) & ~leaf)
    if len(to_left):
        tree["missing_left"] = [int(i) for i in to_left]
    sets = []
    for i in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
        bits = predictor.raw_left_cat_bitsets[int(nodes["bitset_idx"][i])]
        sets.append({"node": int(i), "left": [c for c in range(256) if (int(bits[c // 32]) >> (c % 32)) & 1]})
    if sets:
        tree["sets"] = sets
    return tree


def _ada_boost(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    _require(program, est, columns)
    classes = list(est.classes_)
    k = len(classes)
    by_probability = getattr(est, "algorithm", "SAMME") == "SAMME.R"
    members, weights = list(est.estimators_), [float(w) for w in est.estimator_weights_[: len(est.estimators_)]]
    total = float(np.sum(est.estimator_weights_))
    # Until 1.3 a member voted 0 against the other classes, since then -1/(k-1).
    miss = [0.0 if VERSION < (1, 3) else -1.0 / (k - 1) * w for w in weights]
    names = [f"votes {i}" for i in range(k)]
    if all(type(m).__name__ in ("DecisionTreeClassifier", "ExtraTreeClassifier") for m in members):
        trees = []
        for member, hit, other in zip(members, weights, miss):
            probability = _node_probability(member.tree_)
            if by_probability:
                value = _log_votes(probability)
            else:
                chosen = np.argmax(probability, axis=1)[:, np.newaxis] == np.arange(k)
                value = np.where(chosen, hit, other)
            trees.append({**_nodes(member.tree_), "vectors": floats(value)})
        parameters = {"single": True, "divisor": total, "trees": trees}
        votes = program.add("trees", columns, names, parameters)
    elif by_probability:
        each = []
        for member in members:
            probability = full(program, classify(program, member, columns, rows, kinds))
            each += program.add("log_votes", probability, ["log vote"] * k)
        # The weights are 1, their sum is what the library divides by.
        sums = program.add("linear", each, ["sum of votes"] * k, {
            "coefficients": [[1.0 if i % k == c else 0.0 for i in range(len(each))] for c in range(k)],
            "intercepts": [0.0] * k,
        })  # fmt: skip
        votes = program.add("scale", sums, names, {"mean": [0.0] * k, "scale": [total] * k})
    else:
        chosen_columns = [predicted_of(program, classify(program, m, columns, rows, kinds)) for m in members]
        sums = program.add("votes", chosen_columns, ["sum of votes"] * k, {"hit": floats(weights), "miss": floats(miss)})
        votes = program.add("scale", sums, names, {"mean": [0.0] * k, "scale": [total] * k})
    if k == 2:
        margin = _combined(program, votes, [[-1.0, 1.0]], [0.0], ["margin"])
        halves = _combined(program, margin, [[-0.5], [0.5]], [0.0, 0.0], ["-margin/2", "margin/2"])
        probability_columns = _softmax(program, halves)
        return Scored(classes, margin, probability_columns[1:], probability_columns)
    scaled = program.add("scale", votes, ["scaled votes"] * k, {"mean": [0.0] * k, "scale": [float(k - 1)] * k})
    return Scored(classes, votes, _softmax(program, scaled))


def _log_votes(probability: Any) -> Any:
    k = probability.shape[1]
    logarithm = np.log(np.clip(probability, np.finfo(np.float64).eps, None))
    return (k - 1) * (logarithm - (1.0 / k) * logarithm.sum(axis=1)[:, np.newaxis])


def full(program: Program, scored: Scored) -> list[Column]:
    """A probability column for every class, each as the library computes it."""
    if scored.probability is None:
        raise ExportError("a member of the ensemble has no predict_proba")
    if isinstance(scored, _LazyForest):
        scored.ready()
    return both(program, scored)


def predicted_of(program: Program, scored: Scored) -> Column:
    """A column with the position of the predicted class."""
    if isinstance(scored, _LazyForest):
        scored.ready()
    return predicted(program, scored)


def _in_order(scored: Scored, columns: list[Column], classes: Sequence[Any]) -> list[Column]:
    if [str(c) for c in scored.classes] != [str(c) for c in classes]:
        raise ExportError("the members of an ensemble were trained on different classes")
    return columns


def _voting(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    classes = list(est.classes_)
    weights = est._weights_not_none
    weights = [1.0] * len(est.estimators_) if weights is None else floats(weights)
    members = [classify(program, m, columns, rows, kinds) for m in est.estimators_]
    k = len(classes)
    if est.voting == "hard":
        chosen = [predicted_of(program, m) for m in members]
        names = [f"votes {i}" for i in range(k)]
        votes = program.add("votes", chosen, names, {"hit": weights, "miss": [0.0] * len(weights)})
        winner = program.add("argmax", votes, ["predicted class"])
        one = {"hit": [1.0], "miss": [0.0]}
        certain = program.add("votes", winner, [f"probability {i}" for i in range(k)], one)
        total = float(np.sum(weights))
        shares = program.add("scale", votes, [f"share of votes {i}" for i in range(k)], {
            "mean": [0.0] * k, "scale": [total] * k,
        })  # fmt: skip
        if k == 2:
            return Scored(classes, None, certain[1:], certain, winner[0], margin=shares[1:])
        return Scored(classes, None, certain, None, winner[0], margin=shares)
    for member, inner in zip(members, est.estimators_):
        if member.probability is None:
            raise UnsupportedEstimatorError(est, f"its member {type(inner).__name__} has no predict_proba")
    if k > 2:
        read = [c for m in members for c in (m.probability or [])]
        out = program.add("mean", read, [f"probability {i}" for i in range(k)], {"weights": weights})
        return Scored(classes, None, out, margin=out)
    second = program.add("mean", [m.probability[0] for m in members if m.probability], ["probability"], {"weights": weights})
    scored = _LazyForest(classes, None, second, margin=second)

    def make() -> list[Column]:
        firsts = [full(program, m)[0] for m in members]
        return [*program.add("mean", firsts, ["probability 0"], {"weights": weights}), second[0]]

    scored.make = make
    return scored


def _stacking(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    meta: list[Column] = []
    for member, method in zip(est.estimators_, est.stack_method_):
        scored = classify(program, member, columns, rows, kinds)
        if method == "predict_proba":
            if len(est.classes_) == 2:
                assert scored.probability is not None
                meta += scored.probability
            else:
                meta += full(program, scored)
        elif method == "decision_function":
            meta += scored.decision or []
        else:
            meta.append(predicted_of(program, scored))
    if est.passthrough:
        meta += columns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meta_rows = est.transform(rows)
    final = classify(program, est.final_estimator_, meta, meta_rows, kinds)
    # The members' classes are encoded; the final estimator's are in the same order.
    final.classes = list(est.classes_)
    return final


def _pipeline(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    out, data = list(columns), rows
    for _, step in est.steps[:-1]:
        out = lower(program, step, out, head(data), kinds)
        data = transformed(step, data)
    last = est.steps[-1][1]
    if last is None or isinstance(last, str):
        raise ExportError("the pipeline ends without a classifier")
    return classify(program, last, out, data, kinds)


def _inner(attribute: str) -> Classify:
    def unwrap(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
        return classify(program, getattr(est, attribute), columns, rows, kinds)

    return unwrap


def _calibrated(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    classes = list(est.classes_)
    k = len(classes)
    each: list[list[Column]] = []
    affine: list[Column] | None = None
    for fold in est.calibrated_classifiers_:
        inner = getattr(fold, "estimator", None)
        if inner is None:
            inner = fold.base_estimator
        scored = classify(program, inner, columns, rows, kinds)
        if scored.decision is not None:
            read, is_decision = scored.decision, True
        else:
            if scored.probability is None:
                raise UnsupportedEstimatorError(inner, "it has neither decision_function nor predict_proba")
            read, is_decision = scored.probability, False
        if est.method == "temperature" or type(fold.calibrators[0]).__name__ == "_TemperatureScaling":
            each.append(_tempered(program, float(fold.calibrators[0].beta_), read, is_decision, scored, k))
            continue
        out = []
        for column, calibrator in zip(read, fold.calibrators):
            if type(calibrator).__name__ == "_SigmoidCalibration":
                affine = _combined(program, [column], [[-calibrator.a_]], [-calibrator.b_], ["margin"])
                out += _logistic(program, affine)
            else:
                out += _isotonic(program, calibrator, column)
        each.append(out if k == 2 else _shares(program, out))
    folds = len(each)
    names = ["probability"] if k == 2 else [f"probability {i}" for i in range(k)]
    mean = program.add("mean", [c for out in each for c in out], names, {"weights": [1.0] * folds})
    if k == 2 and folds == 1 and affine is not None:
        return Scored(classes, None, mean, margin=affine)
    return Scored(classes, None, mean, margin=mean)


def _isotonic(program: Program, calibrator: Any, column: Column) -> list[Column]:
    x, y = floats(calibrator.X_thresholds_), floats(calibrator.y_thresholds_)
    if calibrator.out_of_bounds != "clip":
        raise UnsupportedEstimatorError(calibrator, f"out_of_bounds={calibrator.out_of_bounds!r}")
    return program.add("interpolate", [column], ["probability"], {"x": x, "y": y})


def _tempered(
    program: Program, beta: float, read: list[Column], is_decision: bool, scored: Scored, k: int
) -> list[Column]:
    if is_decision:
        logits = read
        if k == 2:
            logits = _combined(program, read, [[-1.0], [1.0]], [0.0, 0.0], ["-margin", "margin"])
    else:
        parts = read
        if k == 2:
            parameters = {"coefficients": [[-1.0]], "intercepts": [1.0]}
            parts = [*program.add("linear", read, ["1 - probability"], parameters), *read]
        raised = program.add("min_max_scale", parts, ["probability + eps"] * k, {"scale": [1.0] * k, "offset": [1e-12] * k})
        logits = program.add("function", raised, ["logit"] * k, {"name": "log"})
    scaled = program.add("min_max_scale", logits, ["scaled logit"] * k, {"scale": [beta] * k, "offset": [0.0] * k})
    out = _softmax(program, scaled)
    return out[1:] if k == 2 else out


def _network(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    _require(program, est, columns)
    hidden = list(columns)
    last = len(est.coefs_) - 1
    for i, (weights, biases) in enumerate(zip(est.coefs_, est.intercepts_)):
        n = weights.shape[1]
        names = [f"layer {i + 1}, {j}" for j in range(n)] if i < last else _margin_names(est, n)
        hidden = _combined(program, hidden, weights.T, biases, names)
        if i < last and est.activation != "identity":
            hidden = program.add("function", hidden, [f"{est.activation} {j}" for j in range(n)], {"name": est.activation})
    classes = list(est.classes_)
    if est.out_activation_ == "logistic" and len(classes) == 2:
        return Scored(classes, None, _logistic(program, hidden), margin=hidden)
    if est.out_activation_ == "softmax":
        return Scored(classes, None, _softmax(program, hidden), margin=hidden)
    raise UnsupportedEstimatorError(est, f"its output is {est.out_activation_}")


def _kernel_machine(program: Program, est: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> Scored:
    _require(program, est, columns)
    if est.kernel not in ("linear", "poly", "rbf", "sigmoid"):
        raise UnsupportedEstimatorError(est, f"the kernel {est.kernel!r} is a function of its own")
    classes = list(est.classes_)
    k = len(classes)
    counts = np.asarray(est._n_support)
    starts = np.cumsum([0, *counts])
    coefficients, intercepts = [], []
    dual, vectors = (m.toarray() if hasattr(m, "toarray") else m for m in (est._dual_coef_, est.support_vectors_))
    pair = 0
    for i in range(k):
        for j in range(i + 1, k):
            row = np.zeros(int(counts.sum()))
            row[starts[i] : starts[i + 1]] = dual[j - 1, starts[i] : starts[i + 1]]
            row[starts[j] : starts[j + 1]] = dual[i, starts[j] : starts[j + 1]]
            coefficients.append(floats(row))
            intercepts.append(float(est._intercept_[pair]))
            pair += 1
    parameters = {
        "kernel": est.kernel,
        "gamma": float(est._gamma),
        "offset": float(est.coef0),
        "degree": int(est.degree),
        "vectors": [floats(v) for v in vectors],
        "coefficients": coefficients,
        "intercepts": intercepts,
    }
    raw = program.add("kernel_machine", columns, [f"pair {p}" for p in range(pair)], parameters)
    probability = None
    if len(getattr(est, "probA_", ())) > 0:
        pairs = {"a": floats(est.probA_), "b": floats(est.probB_)}
        probability = program.add("pairwise_probability", raw, [f"probability {c}" for c in range(k)], pairs)
    if k == 2:
        # libsvm's decision is for the first class, scikit-learn's for the second.
        decision = _combined(program, raw, [[-1.0]], [0.0], ["margin"])
        if probability is None:
            return Scored(classes, decision, None)
        chosen = program.add("argmax", decision, ["predicted class"])[0]
        return Scored(classes, decision, probability[1:], probability, chosen)
    # predict counts the votes of the pairs.
    winners = []
    pair = 0
    for i in range(k):
        for j in range(i + 1, k):
            negative = _combined(program, [raw[pair]], [[-1.0]], [0.0], ["for the second"])
            second = program.add("argmax", negative, ["second wins"], {"above": -0.0})
            winners += _combined(program, second, [[float(j - i)]], [float(i)], ["winner"])
            pair += 1
    ones = {"hit": [1.0] * pair, "miss": [0.0] * pair}
    votes = program.add("votes", winners, [f"votes {c}" for c in range(k)], ones)
    chosen = program.add("argmax", votes, ["predicted class"])[0]
    if est.decision_function_shape == "ovr":
        decision = margin = _one_against_rest(program, raw, votes, k)
    else:
        decision, margin = raw, votes
    return Scored(classes, decision, probability, None, chosen, margin=margin)


def _one_against_rest(program: Program, raw: list[Column], votes: list[Column], k: int) -> list[Column]:
    """scikit-learn's _ovr_decision_function: votes and a part of the confidences that cannot turn them."""
    sums: list[list[float]] = [[0.0] * len(raw) for _ in range(k)]
    pair = 0
    for i in range(k):
        for j in range(i + 1, k):
            sums[i][pair] = 1.0
            sums[j][pair] = -1.0
            pair += 1
    confidence = _combined(program, raw, sums, [0.0] * k, [f"confidence {c}" for c in range(k)])
    out = []
    for c in range(k):
        size = program.add("function", [confidence[c]], ["size"], {"name": "abs"})
        above = program.add("min_max_scale", size, ["3 (size + 1)"], {"scale": [3.0], "offset": [3.0]})
        inverse = program.add("function", above, ["inverse"], {"name": "reciprocal"})
        part = program.add("polynomial", [confidence[c], inverse[0]], ["part"], {"powers": [[1, 1]]})
        out += _combined(program, [votes[c], part[0]], [[1.0, 1.0]], [0.0], [f"margin {c}"])
    return out


_CLASSIFIERS: dict[str, Classify] = {
    "Pipeline": _pipeline,
    "GridSearchCV": _inner("best_estimator_"),
    "RandomizedSearchCV": _inner("best_estimator_"),
    "HalvingGridSearchCV": _inner("best_estimator_"),
    "HalvingRandomSearchCV": _inner("best_estimator_"),
    "FrozenEstimator": _inner("estimator"),
    "LogisticRegression": _logistic_regression,
    "LogisticRegressionCV": _logistic_regression,
    "SGDClassifier": _sgd,
    "Perceptron": _margins_only,
    "PassiveAggressiveClassifier": _margins_only,
    "RidgeClassifier": _margins_only,
    "RidgeClassifierCV": _margins_only,
    "LinearSVC": _margins_only,
    "GaussianNB": _gaussian_bayes,
    "BernoulliNB": _linear_bayes,
    "MultinomialNB": _linear_bayes,
    "ComplementNB": _linear_bayes,
    "CategoricalNB": _categorical_bayes,
    "DecisionTreeClassifier": _forest,
    "ExtraTreeClassifier": _forest,
    "RandomForestClassifier": _forest,
    "ExtraTreesClassifier": _forest,
    "GradientBoostingClassifier": _gradient_boosting,
    "HistGradientBoostingClassifier": _hist_gradient_boosting,
    "AdaBoostClassifier": _ada_boost,
    "VotingClassifier": _voting,
    "StackingClassifier": _stacking,
    "CalibratedClassifierCV": _calibrated,
    "MLPClassifier": _network,
    "SVC": _kernel_machine,
    "NuSVC": _kernel_machine,
}
