"""Draws pipelines at random: any transforms over any columns before any classifier. Writes each as goldens.py does.

    python drawn.py DIRECTORY FIRST LAST && CHURNSTREAM_GOLDENS=DIRECTORY go test ./scoring -run ScikitLearn

A number is the seed of one pipeline. What scikit-learn cannot fit is drawn again. Columns are of every dtype that data
frames have: float32, nullable, categories, texts with None and NaN, booleans, dates, constants.
"""

import gzip
import json
import math
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
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
from sklearn.feature_selection import SelectKBest, SelectPercentile, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
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
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from churnstream_export import DateParts, DaysBetween, ExportError, export
from goldens import VERSION, answers, number

warnings.filterwarnings("ignore")
SPARSE = "sparse_output" if VERSION >= (1, 2) else "sparse"


def table(n, seed):
    """Columns of every dtype; those of NUMBERS are numbers, TEXTS categories, DATES dates."""
    rng = np.random.default_rng(seed)

    def gaps(values, share, gap):
        values = pd.Series(values, dtype=object)
        values[rng.random(n) < share] = gap
        return values

    texts = np.array(["free", "basic", "größer", "日本", "NA"], dtype=object)
    country = gaps(rng.choice(np.array(["DE", "FR", "", "Côte d’Ivoire", "rare"], dtype=object), n, p=[0.4, 0.3, 0.1, 0.17, 0.03]), 0.1, None)
    frame = pd.DataFrame({
        "tenure days": np.round(rng.exponential(400, n)) + 1,
        "Umsatz €": np.round(rng.gamma(3, 15, n) + 0.1, 2).astype(np.float32),
        "rate%": rng.normal(0.2, 0.05, n).astype(np.float32),
        "tickets": rng.poisson(1.2, n),
        "small": rng.integers(0, 100, n).astype(np.int16),
        "byte": rng.integers(1, 9, n).astype(np.uint8),
        "visits": pd.array(gaps(rng.integers(0, 30, n), 0.1, pd.NA), dtype="Int64"),
        "hours": gaps(np.round(rng.exponential(60, n), 1), 0.1, np.nan).astype(float),
        "float nullable": pd.array(gaps(np.round(rng.normal(3, 2, n), 3), 0.08, pd.NA), dtype="Float64"),
        "autopay": rng.random(n) < 0.4,
        "bool nullable": pd.array(gaps(rng.random(n) < 0.5, 0.1, pd.NA), dtype="boolean"),
        "constant": np.full(n, 3.5),
        "city": rng.integers(1, 6, n),
        "x#1": rng.normal(size=n),
        "plan": pd.Categorical(gaps(rng.choice(texts, n), 0.08, np.nan), categories=sorted(texts)),
        "country": country,
        "device": pd.array(rng.choice(["phone", "web", "tv"], n), dtype="string"),
        "gaps": gaps(rng.choice(np.array(["a", "b", "c"], dtype=object), n), 0.08, np.nan),
        "mixed gaps": gaps(gaps(rng.choice(np.array(["a", "b", "c"], dtype=object), n), 0.05, None), 0.05, np.nan),
        "only": np.array(["one"] * n, dtype=object),
        "joined": pd.Timestamp("2021-01-01") + pd.to_timedelta(rng.integers(0, 1000, n), unit="D"),
        "seen": pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 9_000_000, n), unit="s")).mask(rng.random(n) < 0.05),
    })
    z = -frame["tenure days"] / 500 + frame.tickets / 2 + (frame.plan == "free") + frame["x#1"] + (frame.city == 3) + frame["rate%"] * 3
    return frame, np.asarray(z + rng.normal(0, 0.7, n), dtype=float)


GAPLESS = ["tenure days", "Umsatz €", "rate%", "tickets", "small", "byte", "autopay", "constant", "city", "x#1"]
POSITIVE = ["tenure days", "Umsatz €", "byte", "city"]
GAPPED = ["visits", "hours", "float nullable", "bool nullable"]
TEXTS = ["plan", "country", "device", "gaps", "only"]
DATES = ["joined", "seen"]


class Draw:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def one(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]

    def some(self, choices, least=1, most=4):
        n = int(self.rng.integers(least, min(most, len(choices)) + 1))
        return [choices[int(i)] for i in sorted(self.rng.choice(len(choices), n, replace=False))]

    def chance(self, p):
        return bool(self.rng.random() < p)

    def scaler(self):
        return self.one(
            StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False), MinMaxScaler(), MinMaxScaler((-1, 3), clip=True),
            RobustScaler(), RobustScaler(with_centering=False, quantile_range=(10, 80)), MaxAbsScaler(),
        )  # fmt: skip

    def shape(self, positive):
        """A transformer of numbers without gaps."""
        kinds = [
            self.scaler(), Normalizer(self.one("l1", "l2", "max")), self.scaler(),
            KBinsDiscretizer(self.one(2, 4, 6), encode=self.one("onehot", "onehot-dense", "ordinal"), strategy=self.one("uniform", "quantile", "kmeans")),
            PowerTransformer(standardize=self.chance(0.5)), QuantileTransformer(n_quantiles=self.one(10, 50), output_distribution=self.one("uniform", "normal")),
            PolynomialFeatures(2, interaction_only=self.chance(0.5), include_bias=self.chance(0.5)), "passthrough", FunctionTransformer(),
        ]  # fmt: skip
        if positive:
            kinds += [PowerTransformer("box-cox"), FunctionTransformer(self.one(np.log1p, np.log, np.sqrt, np.cbrt, np.reciprocal, np.square)), FunctionTransformer(np.log1p, validate=True)]
        return self.one(*kinds)

    def numbers(self):
        if self.chance(0.5):
            positive = self.chance(0.5)
            chosen = self.some(POSITIVE if positive else GAPLESS)
            step = self.shape(positive)
            return (make_pipeline(step, self.scaler()) if self.chance(0.3) else step), chosen
        chosen = self.some(GAPPED + GAPLESS[:4])
        fill = SimpleImputer(strategy=self.one("mean", "median", "most_frequent"), add_indicator=self.chance(0.3))
        if self.chance(0.2):
            fill = SimpleImputer(strategy="constant", fill_value=-1.0)
        if self.chance(0.25):
            return make_pipeline(self.scaler(), fill), chosen
        return make_pipeline(fill, *[self.shape(False) for _ in range(self.one(0, 1, 1, 2))]), chosen

    def encoder(self):
        first = [
            OneHotEncoder(handle_unknown="ignore"), OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.1),
            OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=3, drop=self.one(None, "first")), OneHotEncoder(drop="first"),
            OneHotEncoder(drop="if_binary", handle_unknown="ignore", **{SPARSE: False}), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), OneHotEncoder(dtype=np.float32, handle_unknown="ignore"),
            OneHotEncoder(dtype=np.int8, handle_unknown="ignore"), OrdinalEncoder(dtype=np.float32, handle_unknown="use_encoded_value", unknown_value=99, encoded_missing_value=50),
        ]  # fmt: skip
        if VERSION >= (1, 3):
            from sklearn.preprocessing import TargetEncoder

            first += [TargetEncoder(cv=3, random_state=0), TargetEncoder(smooth=5.0, cv=3, random_state=0)]
        return self.one(*first)

    def texts(self):
        chosen = self.some(TEXTS if self.chance(0.7) else [*TEXTS, "city", "autopay", "byte", *(["mixed gaps"] if self.chance(0.2) else [])], most=3)
        if self.chance(0.4) and not {"city", "autopay", "byte"} & set(chosen):
            # None is no missing value to an imputer, NaN is.
            fill = SimpleImputer(strategy=self.one("constant", "most_frequent"), fill_value="no", missing_values=self.one(np.nan, None))
            return make_pipeline(fill, self.encoder()), chosen
        return self.encoder(), chosen

    def dates(self):
        if self.chance(0.3):
            return make_pipeline(DaysBetween(), SimpleImputer()), DATES
        return make_pipeline(DateParts(self.some(["year", "quarter", "month", "day", "weekday", "day_of_year", "hour", "days"])), SimpleImputer(), self.scaler()), self.some(DATES)

    def columns(self, kind):
        parts = [self.numbers() for _ in range(self.one(1, 1, 2, 3))]
        parts += [self.texts() for _ in range(self.one(0, 1, 1, 2))]
        parts += [self.dates()] if self.chance(0.25) else []
        taken, listed = set(), []
        for i, (step, chosen) in enumerate(parts):
            if self.chance(0.1) and not isinstance(step, str):
                step = FeatureUnion([("a", step), ("b", self.one(step, "drop"))], transformer_weights=self.one(None, {"a": 0.5}))
            listed.append((f"{self.one('t', 'weiß ', 'p')}{i}", step, chosen))
            taken |= set(chosen)
        remainder, extra = "drop", []
        if self.chance(0.3):
            remainder = self.one("passthrough", StandardScaler())
            extra = [c for c in GAPLESS[:3] + GAPLESS[-2:] if c not in taken and self.chance(0.5)]
        out = ColumnTransformer(
            listed, remainder=remainder, sparse_threshold=self.one(0, 0.3, 1.0), verbose_feature_names_out=True,
            transformer_weights={listed[0][0]: 2.5} if self.chance(0.1) else None,
        )  # fmt: skip
        order = sorted(taken | set(extra), key=lambda c: hash_of(c, kind))
        return out, order

    def leaf(self):
        seed = 0
        trees = self.one(
            DecisionTreeClassifier(max_depth=self.one(2, 4), random_state=seed), ExtraTreeClassifier(max_depth=3, random_state=seed),
            RandomForestClassifier(6, max_depth=4, random_state=seed, class_weight=self.one(None, "balanced")), ExtraTreesClassifier(6, max_depth=4, random_state=seed, bootstrap=True),
            GradientBoostingClassifier(n_estimators=8, max_depth=2, random_state=seed, subsample=self.one(1.0, 0.7)),
            HistGradientBoostingClassifier(max_iter=6, max_leaf_nodes=7, random_state=seed, l2_regularization=self.one(0, 1.0)),
        )  # fmt: skip
        linear = self.one(
            LogisticRegression(max_iter=300), LogisticRegression(class_weight="balanced", C=0.1, solver=self.one("lbfgs", "newton-cg", "saga"), max_iter=200),
            SGDClassifier(loss=self.one("log_loss", "modified_huber"), random_state=seed), LogisticRegressionCV(Cs=2, cv=2, max_iter=100),
        )  # fmt: skip
        bayes = self.one(GaussianNB(), GaussianNB(var_smoothing=1e-3), BernoulliNB(), MultinomialNB(), ComplementNB())
        other = self.one(
            MLPClassifier(self.one((5,), (4, 3), ()), activation=self.one("relu", "tanh", "logistic", "identity"), max_iter=40, random_state=seed),
            SVC(kernel=self.one("rbf", "linear", "poly", "sigmoid"), probability=True, random_state=seed),
        )  # fmt: skip
        return self.one(trees, trees, trees, linear, linear, linear, bayes, other)

    def classifier(self, kind):
        how = self.one("leaf", "leaf", "leaf", "vote", "stack", "calibrated", "ada", "hard", "grid", "margin")
        if kind == "leaf":
            how = "leaf"
        if how == "vote":
            members = [(f"m{i}", self.leaf()) for i in range(self.one(2, 3))]
            return VotingClassifier(members, voting="soft", weights=self.one(None, [1.5, 1, 2][: len(members)]))
        if how == "hard":
            members = [(f"m{i}", self.leaf()) for i in range(3)]
            return VotingClassifier(members, weights=self.one(None, [1, 2, 1.5]))
        if how == "stack":
            members = [(f"m{i}", self.one(self.leaf(), RidgeClassifier(), LinearSVC(dual=False))) for i in range(2)]
            return StackingClassifier(members, self.one(LogisticRegression(), GradientBoostingClassifier(n_estimators=4)), cv=2, passthrough=self.chance(0.4))
        if how == "calibrated":
            method = self.one("sigmoid", "isotonic", *(["temperature"] if VERSION >= (1, 8) else []))
            return CalibratedClassifierCV(self.one(self.leaf(), LinearSVC(dual=False), RidgeClassifier()), method=method, cv=self.one(2, 3), ensemble=self.chance(0.6))
        if how == "ada":
            base = self.one(DecisionTreeClassifier(max_depth=self.one(1, 3), random_state=0), RandomForestClassifier(3, max_depth=2, random_state=0), LogisticRegression(), None)
            options = {"algorithm": self.one("SAMME", "SAMME.R")} if VERSION < (1, 6) else {}
            return AdaBoostClassifier(base, n_estimators=5, learning_rate=self.one(1.0, 0.4), random_state=0, **options)
        if how == "grid":
            return GridSearchCV(LogisticRegression(max_iter=200), {"C": [0.1, 1.0]}, cv=2)
        if how == "margin":
            return self.one(RidgeClassifier(), LinearSVC(dual=False), SVC(), SGDClassifier(random_state=0))
        return self.leaf()


def hash_of(text, salt):
    return sum(ord(c) * (i + 3) for i, c in enumerate(text)) * (7 + len(str(salt))) % 101


def drawn(seed):
    """One fitted pipeline with its rows; whatever scikit-learn cannot fit is drawn again."""
    train, z = table(260, seed)
    for attempt in range(200):
        draw = Draw([seed, attempt])
        kind = draw.one("plain", "plain", "nested", "leaf", "vote of pipelines", "plain")
        columns, order = draw.columns(kind)
        classes = draw.one([0, 1], ["no", "yes"], [False, True], ["bleibt", "kündigt"], [-1.0, 1.0], ["a", "b", "c"], [1, 2, 3])
        level = np.digitize(z, [np.median(z)] if len(classes) == 2 else np.quantile(z, [0.4, 0.8]))
        target = np.asarray(classes, dtype=object if isinstance(classes[0], str) else None)[level]
        middle = [m for m in (draw.one(None, None, VarianceThreshold(), SelectKBest(k=3), SelectPercentile(percentile=70)), draw.one(None, None, None, draw.scaler())) if m is not None]
        model = make_pipeline(columns, *middle, draw.classifier(kind))
        if kind == "nested":
            model = Pipeline([("outer", Pipeline([("in ner", columns)])), ("rest", make_pipeline(*middle, "passthrough", draw.classifier(kind)))])
        elif kind == "vote of pipelines":
            model = VotingClassifier([("a", model), ("b", make_pipeline(columns, draw.leaf()))], voting="soft")
        rows = train[order]
        fit = {}
        try:
            if draw.chance(0.25):
                model.set_output(transform="pandas")
            if draw.chance(0.2) and kind == "plain":
                fit = {f"{model.steps[-1][0]}__sample_weight": np.linspace(0.5, 2, len(rows))}
            model.fit(rows, target, **fit)
            (getattr(model, "predict_proba", None) or model.predict)(rows.iloc[:5])
        except Exception:  # a pipeline that the library itself does not take
            continue
        return model, rows, f"{kind}, attempt {attempt}"
    raise RuntimeError(f"seed {seed}: nothing could be fitted")


def odd_rows(rows, seed):
    """300 rows of the same dtypes, a third of them with something missing, unseen, infinite or large."""
    full, _ = table(300, 1000 + seed)
    out = full[list(rows.columns)].copy()
    rng = np.random.default_rng(seed)
    for c in out.columns:
        dtype = rows[c].dtype
        for i in range(180, 300):
            if rng.random() > 1.5 / len(out.columns):
                continue
            if isinstance(dtype, pd.CategoricalDtype):
                if rng.random() < 0.5:
                    out.loc[i, c] = np.nan
                continue
            values = None
            if dtype == object or str(dtype) in ("string", "str"):
                values = ["unseen", "größer ", "", "DE", rows[c].dropna().iloc[0], pd.NA if dtype != object else None if c == "country" else np.nan]
            elif dtype.kind == "f" and str(dtype)[0] == "f":
                values = [np.nan, np.nan, np.inf, -np.inf, 0.0, -0.0, -3.0, 1e-9, 0.1 + 0.2, 1e20, *([1e39, 1e300] if dtype == np.float64 else [])]
            elif str(dtype) in ("Float64", "Int64", "boolean"):
                values = [pd.NA, pd.NA, *([True] if str(dtype) == "boolean" else [0, 1])]
            elif dtype.kind in "iu":
                values = [0, 1, 7, 99]
            elif dtype.kind == "M":
                values = [pd.NaT, pd.Timestamp("1969-12-31"), pd.Timestamp("2030-02-28")]
            if values is not None:
                out.loc[i, c] = values[int(rng.integers(len(values)))]
        if dtype == np.float32:
            out[c] = out[c].astype(dtype)
    return out


def cell(value, kind):
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return None
    if kind == "category":
        return str(value)
    if kind == "date":
        return float((pd.Timestamp(value) - pd.Timestamp(0)).days)
    if kind == "timestamp":
        return float((pd.Timestamp(value) - pd.Timestamp(0)) // pd.Timedelta(milliseconds=1))
    # What a file holds: the shortest text of a float32, which is another number as a float64.
    return number(float(str(value))) if isinstance(value, np.float32) else number(value)


def main():
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    for seed in range(int(sys.argv[2]), int(sys.argv[3]) + 1):
        path = place / f"drawn-{seed}.json.gz"
        path.unlink(missing_ok=True)
        model, rows, how = drawn(seed)
        with tempfile.TemporaryDirectory() as parent:
            directory = Path(parent) / "model"
            try:
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    export(model, rows, directory, label="left", horizon="30d")
            except ExportError as refusal:
                print(f"{seed} ({how}): refused: {refusal}", flush=True)
                continue
            except Exception:
                print(f"{seed} ({how}): CRASH", flush=True)
                traceback.print_exc()
                print(model)
                continue
            manifest = json.loads((directory / "manifest.json").read_text())
            program = json.loads((directory / "model.json").read_text())
        asked = odd_rows(rows, seed)
        told = [str(w.message) for w in said if "as float64" in str(w.message)]
        if told:
            how += f"; {told[0]}"
            asked = asked.astype({c: "float64" for c, d in asked.dtypes.items() if str(d) in ("float32", "int16", "uint8")})
        probabilities, margins = answers(model, asked)
        inputs = manifest["inputs"]
        lines = [[cell(asked[i["name"]].iloc[r], i["kind"]) for i in inputs] for r in range(len(asked))]
        case = {"numpy": np.__version__, "inputs": inputs, "model": program, "rows": lines, "probabilities": probabilities, "margins": margins}
        with open(path, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=9) as f:
            f.write(json.dumps(case, separators=(",", ":")).encode())
        print(f"{seed} ({how}): {path.stat().st_size} bytes, {probabilities.count(None)} rows refused", flush=True)


if __name__ == "__main__":
    main()
