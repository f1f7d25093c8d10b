"""Makes VERSION/NAME.json.gz: a pipeline fitted by scikit-learn, 300 odd rows and what it makes of each.

    pip install -r requirements-1.2.txt -e ../../../python && python goldens.py
    pip install -r requirements-now.txt -e ../../../python && python goldens.py

A row that scikit-learn refuses (it raises) has the probability null: churnstream has to refuse it, too.
"""

import gzip
import json
import math
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from churnstream_export import DateParts, DaysBetween, export

warnings.filterwarnings("ignore")
VERSION = tuple(int(v) for v in sklearn.__version__.split(".")[:2])
NUMBERS = ["tenure_days", "monthly_spend", "support_tickets_30d", "last_login_hours"]
POSITIVE = ["tenure_days", "monthly_spend"]
CODES = ["city", "registered_via"]
TEXTS = ["plan_tier", "country"]
PLANS = ["free", "basic", "pro", "größer", "日本"]
COUNTRIES = ["DE", "FR", "NA", "", "Côte d’Ivoire", "US", "BR", "rare-1", "rare-2"]


def table(n, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "tenure_days": np.round(rng.exponential(400, n)) + 1,
        "monthly_spend": np.round(rng.gamma(3, 15, n) + 0.5, 2),
        "support_tickets_30d": rng.poisson(1.2, n).astype(float),
        "last_login_hours": np.round(rng.exponential(60, n), 1),
        "city": rng.integers(1, 8, n).astype(float),
        "registered_via": rng.choice([3.0, 4.0, 7.0, 9.0], n, p=[0.3, 0.1, 0.4, 0.2]),
        "plan_tier": rng.choice(PLANS, n, p=[0.2, 0.3, 0.3, 0.1, 0.1]),
        "country": rng.choice(COUNTRIES, n, p=[0.25, 0.2, 0.1, 0.05, 0.1, 0.15, 0.13, 0.01, 0.01]),
        "joined": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 2000, n), unit="D"),
        "transaction_date": rng.choice([20160131, 20160229, 20161231, 20170105, 20170228], n).astype(float),
        "membership_expire_date": rng.choice([20170301, 20170315, 20170331, 20171231], n).astype(float),
    })
    frame["plan_tier"] = frame["plan_tier"].astype(object)
    frame["country"] = frame["country"].astype(object)
    z = (
        -frame.tenure_days / 500 + frame.support_tickets_30d / 2 + (frame.plan_tier == "free") * 1.2
        + (frame.country == "NA") - frame.last_login_hours / 300 + (frame.city == 3) * 0.8
    )
    churn = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    level = np.digitize(z + rng.normal(0, 0.5, n), [-0.7, 0.6])
    return frame, churn, level


def with_gaps(frame, seed):
    rng = np.random.default_rng(seed)
    out = frame.copy()
    for c in NUMBERS + CODES + TEXTS:
        out.loc[rng.random(len(out)) < 0.08, c] = np.nan
    return out


TRAIN, CHURN, LEVEL = table(500, 1)
GAPS = with_gaps(TRAIN, 2)


def odd_rows():
    """300 rows: ordinary ones, then missing, unseen, non-ASCII, infinite, large and border values."""
    rows, _, _ = table(300, 3)
    rng = np.random.default_rng(4)
    rows = rows.astype({c: object for c in TEXTS})
    for i in range(180, 300):
        for _ in range(1 + (i > 280)):
            c = rng.choice(NUMBERS + CODES + TEXTS)
            if c in TEXTS:
                rows.loc[i, c] = rng.choice(np.array([None, "unseen", "größer ", "日本", "", "NA", "nan", "Pro"], dtype=object))
            elif c in CODES:
                rows.loc[i, c] = rng.choice([math.nan, -1, 99, 300, 2.5, 3, 7, 0])
            else:
                rows.loc[i, c] = rng.choice([
                    math.nan, math.nan, math.inf, -math.inf, 0, -0.0, -3, 1e-9, 1e20, 1e39, 1e300, 5e-324, 0.1 + 0.2,
                ])  # fmt: skip
    rows[TEXTS] = rows[TEXTS].where(rows[TEXTS].notna(), np.nan)
    # Values on the borders of splits: of every tree that a small forest over the numbers grows.
    forest = RandomForestClassifier(20, random_state=0).fit(TRAIN[NUMBERS].to_numpy(), CHURN)
    for k, tree in enumerate(forest.estimators_):
        t = tree.tree_
        inner = np.flatnonzero(t.children_left >= 0)
        for j, node in enumerate(inner[:3]):
            rows.loc[3 * k + j, NUMBERS[t.feature[node]]] = t.threshold[node]
    return rows


def columns(*parts, remainder="drop"):
    return ColumnTransformer([(f"t{i}", *p) for i, p in enumerate(parts)], remainder=remainder, sparse_threshold=0)


def one_hot(**options):
    options.setdefault("handle_unknown", "ignore")
    return OneHotEncoder(**options)


def logistic(**options):
    return LogisticRegression(max_iter=2000, **options)


def usual():
    return columns(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (one_hot(), TEXTS),
    )


def filled(step=None):
    parts = [SimpleImputer(strategy="median")] + ([step] if step is not None else [])
    return columns((make_pipeline(*parts), NUMBERS + CODES))


def tree(**options):
    return DecisionTreeClassifier(max_depth=3, random_state=0, **options)


def cases():
    binary, several = CHURN, LEVEL
    yield "logistic", make_pipeline(usual(), logistic(class_weight="balanced")), GAPS, binary
    yield "logistic-required", make_pipeline(columns((StandardScaler(), NUMBERS), (one_hot(handle_unknown="error"), TEXTS)), logistic()), TRAIN, binary
    yield "min-max", make_pipeline(columns((MinMaxScaler(clip=True, feature_range=(-1, 2)), NUMBERS[:2]), (MinMaxScaler(), NUMBERS[2:]), (one_hot(drop="first"), TEXTS), (one_hot(drop="if_binary"), CODES)), logistic()), TRAIN, binary
    yield "infrequent", make_pipeline(columns((RobustScaler(), NUMBERS), (one_hot(handle_unknown="infrequent_if_exist", min_frequency=0.12), TEXTS), (one_hot(handle_unknown="infrequent_if_exist", max_categories=3, drop="first"), CODES)), logistic()), GAPS.assign(**{c: TRAIN[c] for c in NUMBERS}), binary
    yield "ordinal", make_pipeline(columns((MaxAbsScaler(), NUMBERS), (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-2, encoded_missing_value=-1), TEXTS + CODES)), logistic()), GAPS.assign(**{c: TRAIN[c] for c in NUMBERS}), binary
    yield "ordinal-error", make_pipeline(columns((OrdinalEncoder(), ["city", "plan_tier"])), tree()), TRAIN, binary
    yield "normalizers", make_pipeline(columns((FeatureUnion([("l1", Normalizer("l1")), ("l2", Normalizer()), ("max", Normalizer("max"))], transformer_weights={"l1": 3.0}), NUMBERS)), logistic()), TRAIN, binary
    yield "indicator", make_pipeline(columns((make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), NUMBERS), (make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot()), TEXTS)), logistic()), GAPS, binary
    yield "constant", make_pipeline(columns((SimpleImputer(strategy="constant", fill_value=-5), NUMBERS), (make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), one_hot(handle_unknown="error")), TEXTS), (SimpleImputer(missing_values=-1, strategy="most_frequent"), CODES)), logistic()), GAPS.assign(city=TRAIN.city, registered_via=TRAIN.registered_via), binary
    yield "bins", make_pipeline(columns((KBinsDiscretizer(4, encode="onehot-dense"), NUMBERS[:2]), (KBinsDiscretizer(5, encode="ordinal", strategy="uniform"), NUMBERS[2:])), logistic()), TRAIN, binary
    yield "power", make_pipeline(columns((PowerTransformer(), NUMBERS), (PowerTransformer("box-cox", standardize=False), POSITIVE)), SimpleImputer(), logistic()), TRAIN, binary
    yield "quantiles", make_pipeline(columns((QuantileTransformer(n_quantiles=50), NUMBERS[:2]), (QuantileTransformer(n_quantiles=40, output_distribution="normal"), NUMBERS)), SimpleImputer(), logistic()), GAPS, binary
    yield "polynomial", make_pipeline(columns((make_pipeline(StandardScaler(), PolynomialFeatures(3, interaction_only=False)), NUMBERS[:3])), StandardScaler(with_mean=False), logistic(C=0.1)), TRAIN, binary
    yield "logarithm", make_pipeline(columns((FunctionTransformer(np.log1p), POSITIVE), (FunctionTransformer(np.sqrt), ["last_login_hours"]), (FunctionTransformer(), CODES)), SimpleImputer(), StandardScaler(), logistic()), TRAIN, binary
    yield "dates", make_pipeline(columns((DateParts(("year", "quarter", "month", "day", "weekday", "day_of_year", "days")), ["joined"]), (DateParts(("month", "weekday"), digits=True), ["transaction_date"]), (DaysBetween(digits=True), ["transaction_date", "membership_expire_date"])), SimpleImputer(), StandardScaler(), logistic()), TRAIN, binary
    yield "selection", make_pipeline(ColumnTransformer([("keep", "passthrough", slice(0, 3)), ("drop", "drop", ["last_login_hours"]), ("code", one_hot(handle_unknown="error"), ["registered_via"])], remainder="passthrough"), VarianceThreshold(), SelectKBest(k=5), logistic()), TRAIN[NUMBERS + CODES], binary
    yield "multinomial", make_pipeline(usual(), logistic()), GAPS, several
    yield "one-against-rest", make_pipeline(usual(), SGDClassifier(loss="log_loss", random_state=0)), GAPS, several
    yield "modified-huber", make_pipeline(usual(), SGDClassifier(loss="modified_huber", random_state=0)), GAPS, binary
    yield "ridge-sigmoid", make_pipeline(usual(), CalibratedClassifierCV(RidgeClassifier(), cv=3)), GAPS, binary
    yield "svc-isotonic", make_pipeline(usual(), CalibratedClassifierCV(LinearSVC(dual=False), cv=3, method="isotonic")), GAPS, binary
    yield "svc-sigmoid-classes", make_pipeline(usual(), CalibratedClassifierCV(LinearSVC(dual=False), cv=3)), GAPS, several
    yield "ridge-alone", make_pipeline(usual(), RidgeClassifier()), GAPS, binary
    yield "gaussian-bayes", make_pipeline(filled(), GaussianNB()), GAPS, binary
    yield "bernoulli-bayes", make_pipeline(filled(StandardScaler()), BernoulliNB(binarize=0.1)), GAPS, several
    yield "multinomial-bayes", make_pipeline(columns((one_hot(), TEXTS), (make_pipeline(SimpleImputer(), MinMaxScaler()), NUMBERS)), MultinomialNB()), GAPS, binary
    yield "complement-bayes", make_pipeline(columns((one_hot(), TEXTS), (make_pipeline(SimpleImputer(), MinMaxScaler()), NUMBERS)), ComplementNB(norm=True)), GAPS, several
    yield "categorical-bayes", make_pipeline(columns((OrdinalEncoder(), ["plan_tier", "city"]), (KBinsDiscretizer(4, encode="ordinal"), NUMBERS)), CategoricalNB()), TRAIN, binary
    yield "tree", make_pipeline(columns(("passthrough", NUMBERS + CODES)), tree()), TRAIN, binary
    yield "tree-classes", make_pipeline(columns(("passthrough", NUMBERS + CODES)), tree(class_weight="balanced")), TRAIN, several
    yield "forest", make_pipeline(columns(("passthrough", NUMBERS), (one_hot(), TEXTS)), RandomForestClassifier(12, max_depth=5, random_state=0)), TRAIN, binary
    yield "forest-classes", make_pipeline(usual(), RandomForestClassifier(8, max_depth=4, random_state=0)), GAPS, several
    yield "extra-trees", make_pipeline(filled(), ExtraTreesClassifier(12, max_depth=5, random_state=0)), GAPS, binary
    yield "boosting", make_pipeline(columns(("passthrough", NUMBERS), (one_hot(), TEXTS)), GradientBoostingClassifier(n_estimators=20, random_state=0)), TRAIN, binary
    yield "boosting-exponential", make_pipeline(filled(), GradientBoostingClassifier(n_estimators=10, loss="exponential", subsample=0.7, random_state=0)), GAPS, binary
    yield "boosting-classes", make_pipeline(filled(), GradientBoostingClassifier(n_estimators=6, init="zero", random_state=0)), GAPS, several
    yield "histogram", make_pipeline(columns(("passthrough", NUMBERS), (one_hot(), TEXTS)), HistGradientBoostingClassifier(max_iter=15, max_leaf_nodes=8, random_state=0)), GAPS, binary
    yield "histogram-codes", make_pipeline(columns(("passthrough", NUMBERS + CODES)), HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=8, min_samples_leaf=5, categorical_features=[4, 5], random_state=0)), GAPS.assign(city=GAPS.city - 1), binary
    yield "histogram-classes", make_pipeline(columns(("passthrough", NUMBERS)), HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=6, random_state=0)), GAPS, several
    samme = {"algorithm": "SAMME"} if VERSION < (1, 6) else {}
    base = "estimator"
    yield "ada", make_pipeline(filled(), AdaBoostClassifier(**{base: tree()}, n_estimators=15, random_state=0, **samme)), GAPS, binary
    yield "ada-classes", make_pipeline(filled(), AdaBoostClassifier(**{base: tree()}, n_estimators=8, random_state=0, **samme)), GAPS, several
    forest = RandomForestClassifier(4, max_depth=3, random_state=0)
    yield "ada-forest", make_pipeline(filled(), AdaBoostClassifier(**{base: forest}, n_estimators=5, random_state=0, **samme)), GAPS, binary
    if VERSION < (1, 6):
        yield "ada-real", make_pipeline(filled(), AdaBoostClassifier(n_estimators=12, random_state=0)), GAPS, binary
        yield "ada-real-classes", make_pipeline(filled(), AdaBoostClassifier(tree(), n_estimators=6, random_state=0)), GAPS, several
        yield "ada-real-forest", make_pipeline(filled(), AdaBoostClassifier(forest, n_estimators=4, random_state=0)), GAPS, binary
        yield "multinomial-of-two", make_pipeline(usual(), logistic(multi_class="multinomial")), GAPS, binary
        yield "liblinear-classes", make_pipeline(usual(), logistic(solver="liblinear")), GAPS, several
    members = [("l", logistic()), ("f", RandomForestClassifier(5, max_depth=4, random_state=0)), ("g", GradientBoostingClassifier(n_estimators=8, random_state=0)), ("a", AdaBoostClassifier(n_estimators=5, random_state=0, **samme))]
    yield "vote-hard", make_pipeline(usual(), VotingClassifier(members[:3], weights=[1, 2, 1.5])), GAPS, binary
    yield "vote-soft", make_pipeline(usual(), VotingClassifier(members, voting="soft", weights=[2, 1, 1, 0.5])), GAPS, binary
    yield "vote-classes", make_pipeline(filled(StandardScaler()), VotingClassifier(members, voting="soft")), GAPS, several
    yield "vote-hard-classes", make_pipeline(filled(StandardScaler()), VotingClassifier(members)), GAPS, several
    yield "vote-pipelines", VotingClassifier([("one", make_pipeline(usual(), logistic())), ("two", make_pipeline(filled(), GaussianNB()))], voting="soft"), GAPS, binary
    yield "stacking", make_pipeline(usual(), StackingClassifier(members[:2] + [("r", RidgeClassifier())], logistic(), cv=3)), GAPS, binary
    yield "stacking-passthrough", make_pipeline(filled(StandardScaler()), StackingClassifier(members[:2], GradientBoostingClassifier(n_estimators=5, random_state=0), cv=3, passthrough=True)), GAPS, several
    yield "network", make_pipeline(usual(), MLPClassifier((7, 4), max_iter=150, random_state=0)), GAPS, binary
    yield "network-classes", make_pipeline(usual(), MLPClassifier((6,), activation="tanh", max_iter=100, random_state=0)), GAPS, several
    machine = {"probability": True, "random_state": 0}
    yield "vote-kernel", make_pipeline(usual(), VotingClassifier([("s", SVC(C=2, **machine)), ("l", logistic())], voting="soft")), GAPS[:250], binary[:250]
    yield "kernel-classes", make_pipeline(usual(), SVC(kernel="poly", degree=2, coef0=1, **machine)), GAPS[:200], several[:200]
    yield "kernel-alone", make_pipeline(usual(), SVC(kernel="sigmoid", gamma=0.05)), GAPS[:200], binary[:200]
    yield "calibrated-forest", make_pipeline(usual(), CalibratedClassifierCV(RandomForestClassifier(5, max_depth=4, random_state=0), cv=3, method="isotonic")), GAPS, binary
    yield "calibrated-forest-classes", make_pipeline(usual(), CalibratedClassifierCV(RandomForestClassifier(4, max_depth=3, random_state=0), cv=2, method="isotonic")), GAPS, several
    yield "calibrated-once", make_pipeline(usual(), CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=8, random_state=0), cv=3, ensemble=False)), GAPS, binary
    if VERSION >= (1, 3):
        from sklearn.preprocessing import TargetEncoder

        yield "target", make_pipeline(columns((StandardScaler(), NUMBERS), (TargetEncoder(random_state=0), TEXTS + CODES)), logistic()), GAPS.assign(**{c: TRAIN[c] for c in NUMBERS}), binary
        yield "target-classes", make_pipeline(columns((StandardScaler(), NUMBERS), (TargetEncoder(random_state=0), TEXTS)), logistic()), GAPS.assign(**{c: TRAIN[c] for c in NUMBERS}), several
        yield "ordinal-infrequent", make_pipeline(columns((OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=4), TEXTS)), SimpleImputer(strategy="most_frequent"), tree()), GAPS, binary
        yield "tree-missing", make_pipeline(columns(("passthrough", NUMBERS + CODES)), tree()), GAPS, binary
    if VERSION >= (1, 4):
        yield "forest-missing", make_pipeline(columns(("passthrough", NUMBERS + CODES)), RandomForestClassifier(8, max_depth=4, random_state=0)), GAPS, binary
        typed = GAPS[NUMBERS + TEXTS].astype({c: "category" for c in TEXTS})
        yield "histogram-dtype", HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=8, min_samples_leaf=5, categorical_features="from_dtype", random_state=0), typed, binary
    if VERSION >= (1, 8):
        yield "temperature", make_pipeline(usual(), CalibratedClassifierCV(RandomForestClassifier(4, max_depth=3, random_state=0), cv=2, method="temperature")), GAPS, binary
        yield "temperature-margin", make_pipeline(usual(), CalibratedClassifierCV(LinearSVC(dual=False), cv=2, method="temperature")), GAPS, several


def number(x):
    x = float(x)
    if math.isnan(x):
        return None
    return x if math.isfinite(x) else ("inf" if x > 0 else "-inf")


def cells(rows, inputs):
    """Rows as churnstream keeps them: numbers (dates in days), texts, null for what is missing."""
    out = []
    for _, row in rows.iterrows():
        line = []
        for spec in inputs:
            v = row[spec["name"]]
            if spec["kind"] == "category":
                line.append(None if not isinstance(v, str) else v)
            elif spec["kind"] in ("date", "timestamp"):
                line.append(None if pd.isna(v) else float((pd.Timestamp(v) - pd.Timestamp(0)).days))
            else:
                line.append(number(v))
        out.append(line)
    return out


def refused(call, rows):
    """The positions of the rows that the library refuses."""
    try:
        out = np.asarray(call(rows))
        if out.dtype.kind != "f" or np.isfinite(out).all():
            return []
    except (ValueError, IndexError, TypeError):
        pass
    if len(rows) == 1:
        return [0]
    half = len(rows) // 2
    return refused(call, rows.iloc[:half]) + [half + i for i in refused(call, rows.iloc[half:])]


def answers(model, rows):
    """For each row the probabilities and margins, or None where the library refuses it."""
    bad = refused(getattr(model, "predict_proba", model.predict), rows)
    good = np.setdiff1d(np.arange(len(rows)), bad)
    asked = rows.iloc[good]
    if hasattr(model, "predict_proba"):
        p = model.predict_proba(asked)
    else:
        p = (np.asarray(model.classes_) == model.predict(asked)[:, np.newaxis]).astype(float)
    probabilities, margins = [None] * len(rows), [None] * len(rows)
    for i, row in zip(good, p):
        probabilities[i] = row.tolist()
    if hasattr(model, "decision_function"):
        for i, row in zip(good, model.decision_function(asked).reshape(len(good), -1)):
            margins[i] = row.tolist()
            if not np.isfinite(row).all():  # a score without a margin is none
                probabilities[i] = margins[i] = None
    return probabilities, margins


def main():
    odd = odd_rows()
    place = Path(__file__).parent / sklearn.__version__
    place.mkdir(exist_ok=True)
    wanted = set(sys.argv[1:])
    for name, model, rows, target in cases():
        if wanted and name not in wanted:
            continue
        model.fit(rows, target)
        with tempfile.TemporaryDirectory() as parent:
            directory = Path(parent) / name
            export(model, rows, directory, label="left", horizon="30d")
            manifest = json.loads((directory / "manifest.json").read_text())
            program = json.loads((directory / "model.json").read_text())
        asked = odd[list(model.feature_names_in_)]
        if name == "histogram-dtype":
            asked = asked.astype({c: pd.CategoricalDtype(sorted(set(odd[c].dropna()) | set(rows[c].cat.categories))) for c in TEXTS})
        probabilities, margins = answers(model, asked)
        inputs = manifest["inputs"]
        case = {
            "numpy": np.__version__, "inputs": inputs, "model": program, "rows": cells(odd, inputs),
            "probabilities": probabilities, "margins": margins,
        }  # fmt: skip
        path = place / f"{name}.json.gz"
        with open(path, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=9) as f:
            f.write(json.dumps(case, separators=(",", ":")).encode())
        print(f"{name}: {path.stat().st_size} bytes, {probabilities.count(None)} rows refused", flush=True)


if __name__ == "__main__":
    main()
