from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC

from churnstream_export import DateParts, DaysBetween, ExportError, Input, UnsupportedEstimatorError, export

NUMBERS = ["tenure_days", "monthly_spend", "support_tickets_30d", "last_login_hours"]
TEXTS = ["plan_tier", "country"]


def usual(*steps: Any) -> Any:
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            ("texts", OneHotEncoder(handle_unknown="ignore"), TEXTS),
        ],
        sparse_threshold=0,
    )
    return make_pipeline(columns, *(steps or (LogisticRegression(class_weight="balanced"),)))


def read(directory: Path, name: str) -> Any:
    return json.loads((directory / name).read_text(encoding="utf-8"))


def test_the_artefact_is_whole(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    directory = tmp_path / "models" / "churn-1"
    model = usual().fit(frame, churn)
    digest = export(model, frame, directory, label="left within 30 days", horizon="30d", threshold=0.4)
    assert sorted(p.name for p in directory.iterdir()) == ["manifest.json", "model.json", "profile.json", "reference.jsonl"]
    assert digest == hashlib.sha256((directory / "manifest.json").read_bytes()).hexdigest()
    manifest = read(directory, "manifest.json")
    assert manifest["format_version"] == 2
    assert manifest["label"] == {"definition": "left within 30 days", "horizon": "30d"}
    assert manifest["threshold"] == 0.4
    for name, entry in manifest["files"].items():
        data = (directory / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    inputs = {i["name"]: i for i in manifest["inputs"]}
    assert list(inputs) == list(frame.columns)
    assert inputs["plan_tier"]["kind"] == "category" and inputs["tenure_days"]["kind"] == "number"
    assert all(i.get("nullable") for i in inputs.values())  # the imputer and the encoder take gaps
    references = (directory / "reference.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(references) > 300
    first = json.loads(references[0])
    assert math.isclose(first["probability"], model.predict_proba(frame.iloc[[0]])[0, 1], rel_tol=1e-12)


def test_the_background_is_the_mean_of_every_feature(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    model = usual().fit(frame, churn)
    export(model, frame, tmp_path / "m", label="left", horizon="30d")
    linear = next(s for s in read(tmp_path / "m", "model.json")["steps"] if s["type"] == "linear")
    means = np.asarray(model[:-1].transform(frame), dtype=float).mean(axis=0)
    assert linear["parameters"]["background"] == means.tolist()
    assert len(linear["columns"]) == len(means)


def test_an_input_is_nullable_as_the_pipeline_takes_gaps(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    whole = frame.dropna()
    columns = ColumnTransformer(
        [("n", StandardScaler(), NUMBERS[:3]), ("i", SimpleImputer(), NUMBERS[3:]), ("t", OneHotEncoder(), TEXTS)]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(whole, churn[whole.index])
    export(model, whole, tmp_path / "m", label="left", horizon="30d")
    nullable = {i["name"]: i.get("nullable", False) for i in read(tmp_path / "m", "manifest.json")["inputs"]}
    assert nullable == {**dict.fromkeys(frame.columns, False), "last_login_hours": True}


def test_the_profile_counts_every_row_once(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    export(usual().fit(frame, churn), frame, tmp_path / "m", label="left", horizon="30d")
    profile = read(tmp_path / "m", "profile.json")
    assert profile["events"] == len(frame)
    assert [f["name"] for f in profile["features"]] == [*frame.columns, "score", "decision"]
    for feature in profile["features"]:
        assert sum(feature["counts"]) == len(frame), feature["name"]
        assert len(feature["counts"]) == len(feature["places"]) == len(set(feature["places"]))
    country = profile["features"][4]
    assert country["counts"][-1] == int(frame.country.isna().sum())
    assert country["counts"][country["categories"].index("NA")] == int((frame.country == "NA").sum())


def test_the_profile_is_the_one_of_the_command(customers: Any, tmp_path: Path, churnstream: str) -> None:
    """Threshold, means and contributions, too: of a sum by its parts, of a forest none."""
    frame, churn = customers
    frame.to_csv(tmp_path / "rows.csv", index=False)
    for name, last in {"sum": LogisticRegression(), "forest": RandomForestClassifier(5, max_depth=3, random_state=1)}.items():
        export(usual(last).fit(frame, churn), frame, tmp_path / name, label="left", horizon="30d", threshold=0.4)
        ours = read(tmp_path / name, "profile.json")
        command = [churnstream, "drift", "profile", "--model", str(tmp_path / name), "--input", str(tmp_path / "rows.csv")]
        theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert ours["threshold"] == theirs["threshold"] == 0.4
        assert ours["design_effect"] == theirs["design_effect"] == 1
        for a, b in zip(ours["features"], theirs["features"], strict=True):
            assert (a["name"], a["counts"]) == (b["name"], b["counts"])
            for key in ("mean", "deviation"):
                assert (key in a) == (key in b), a["name"]
                if key in a:
                    assert a[key] == pytest.approx(b[key], rel=1e-12), a["name"]
            explained = name == "sum" and a["name"] not in ("score", "decision")
            assert ("contributions" in a) == explained
            if explained:
                assert a["contributions"] == pytest.approx(b["contributions"], abs=1e-8), a["name"]


def test_rows_of_one_customer_count_once(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    model = usual().fit(frame, churn)
    keys = [i // 4 for i in range(len(frame))]
    export(model, frame, tmp_path / "m", label="left", horizon="30d", customers=keys)
    assert read(tmp_path / "m", "profile.json")["design_effect"] == 4
    with pytest.raises(ExportError, match="customers: 3 keys for 400"):
        export(model, frame, tmp_path / "n", label="left", horizon="30d", customers=keys[:3])


def test_classes_of_time_are_those_of_the_command(customers: Any, tmp_path: Path, churnstream: str) -> None:
    frame, churn = customers
    model = usual().fit(frame, churn)
    times = pd.Timestamp("2026-03-27T00:07:00Z") + pd.to_timedelta(np.arange(len(frame)) * 37, unit="min")  # over a change of clocks
    texts = [t.isoformat() for t in times]
    frame.assign(at=texts).to_csv(tmp_path / "rows.csv", index=False)
    for i, (by, zone) in enumerate([("weekend/6h", "Europe/Berlin"), ("weekdays", "UTC"), ("3h", "Asia/Kolkata")]):
        with pytest.warns(UserWarning, match="too few rows in the classes '.*' for [0-9]+ of 8 features"):
            export(model, frame, tmp_path / f"m{i}", label="left", horizon="30d", times=texts if i else times, classes=by, zone=zone)
        ours = read(tmp_path / f"m{i}", "profile.json")
        command = [churnstream, "drift", "profile", "--model", str(tmp_path / f"m{i}"), "--input", str(tmp_path / "rows.csv")]
        command += ["--time", "at", "--classes", by, "--zone", zone]
        theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert ours["classes"] == theirs["classes"] and sum(ours["classes"]["events"]) == len(frame)
        for a, b in zip(ours["features"], theirs["features"], strict=True):
            assert a["classes"] == b["classes"], a["name"]
    for change, message in {
        "times": {"times": None}, "3 for 400": {"times": texts[:3]}, "weekend/6h": {"classes": "/6h"}, "division": {"classes": "5h"},
        "zone 'Mars'": {"zone": "Mars"}, "cannot be read": {"times": ["now and then"] * len(frame)},
    }.items():  # fmt: skip
        with pytest.raises(ExportError, match=change):
            export(model, frame, tmp_path / "n", **{"times": texts, "classes": "weekend/6h", **message})


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (PCA(2), "PCA"),
        (KNeighborsClassifier(3), "KNeighborsClassifier"),
        (FunctionTransformer(lambda x: x + 1), "FunctionTransformer"),
        (VotingClassifier([("l", LogisticRegression()), ("k", KNeighborsClassifier(3))], voting="soft"), "KNeighborsClassifier"),
    ],
)
def test_what_has_no_equal_is_refused_by_its_class_name(step: Any, name: str, customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    steps = (step,) if hasattr(step, "predict") else (step, LogisticRegression())
    model = usual(*steps).fit(frame, churn)
    with pytest.raises(UnsupportedEstimatorError, match=name) as refused:
        export(model, frame, tmp_path / "m", label="left", horizon="30d")
    assert refused.value.class_name.endswith(name)
    assert not (tmp_path / "m").exists() and not list(tmp_path.iterdir())


class Own(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any) -> Own:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> Any:
        return np.full((len(X), 2), 0.5)


class OwnForest(RandomForestClassifier):  # type: ignore[misc]
    """A subclass may compute anything."""


def test_classes_of_others_are_refused_even_below_known_ones(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    for step in (Own(), OwnForest(3)):
        with pytest.raises(UnsupportedEstimatorError, match=type(step).__name__):
            export(usual(step).fit(frame, churn), frame, tmp_path / "m", label="left", horizon="30d")


def test_what_stands_in_the_way_is_named(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    model = usual().fit(frame, churn)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    with pytest.raises(ExportError, match="not empty"):
        export(model, frame, tmp_path / "full", label="left", horizon="30d")
    with pytest.raises(ExportError, match="lack the columns"):
        export(model, frame.drop(columns="country"), tmp_path / "m", label="left", horizon="30d")
    with pytest.raises(ExportError, match="none of"):
        export(model, frame, tmp_path / "m", label={"positive": "maybe", "definition": "left"}, horizon="30d")
    with pytest.raises(ExportError, match="no reference rows"):
        export(model, frame.iloc[:0], tmp_path / "m", label="left", horizon="30d")
    renamed = frame.rename(columns={"tenure_days": "score"})
    with pytest.raises(ExportError, match="score"):
        numbers = make_pipeline(SimpleImputer(), LogisticRegression()).fit(renamed[["score", "monthly_spend"]], churn)
        export(numbers, renamed[["score", "monthly_spend"]], tmp_path / "m", label="left", horizon="30d")
    assert not (tmp_path / "m").exists()


def test_inputs_may_be_declared_in_every_form(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    model = usual().fit(frame, churn)
    forms: list[Any] = [
        list(frame.columns),
        {c: "category" if c in TEXTS else "number" for c in frame.columns},
        [{"name": c} for c in frame.columns],
        [Input("tenure_days", min=0, path="customer.tenure")],
    ]
    for i, inputs in enumerate(forms):
        export(model, frame, tmp_path / str(i), inputs=inputs, label="left", horizon="30d")
        declared = {d["name"]: d for d in read(tmp_path / str(i), "manifest.json")["inputs"]}
        assert set(declared) == set(frame.columns)
    assert declared["tenure_days"]["min"] == 0 and declared["tenure_days"]["path"] == "customer.tenure"


def scored(command: str, directory: Path, frame: pd.DataFrame, tmp_path: Path, *flags: str) -> list[dict[str, Any]]:
    rows = tmp_path / "rows.csv"
    frame.to_csv(rows, index=False)
    subprocess.run([command, "model", "verify", str(directory)], check=True, capture_output=True)
    out = subprocess.run(
        [command, "model", "score", "--model", str(directory), "--input", str(rows), *flags],
        check=True, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    return [json.loads(line) for line in out.stdout.splitlines()]


@pytest.mark.parametrize(
    "step",
    [
        LogisticRegression(class_weight="balanced"),
        RandomForestClassifier(10, max_depth=4, random_state=0),
        GradientBoostingClassifier(n_estimators=10, random_state=0),
    ],
)
def test_churnstream_gives_the_same_and_its_contributions_add_up(
    step: Any, customers: Any, tmp_path: Path, churnstream: str
) -> None:
    frame, churn = customers
    model = usual(step).fit(frame, churn)
    export(model, frame, tmp_path / "m", label="left", horizon="30d")
    lines = scored(churnstream, tmp_path / "m", frame, tmp_path, "--contributions")
    want = model.predict_proba(frame)[:, 1]
    assert len(lines) == len(frame)
    for line, p in zip(lines, want):
        assert math.isclose(line["probability"], p, rel_tol=1e-12)
        assert math.isclose(sum(line["contributions"].values()), line["margin"], rel_tol=0, abs_tol=1e-9)
        assert set(line["contributions"]) == {*frame.columns, "bias"}


def test_several_classes_give_lists(customers: Any, tmp_path: Path, churnstream: str) -> None:
    frame, churn = customers
    level = np.where(churn == 1, "gone", np.where(frame.tenure_days > 900, "loyal", "new"))
    model = usual(LogisticRegression()).fit(frame, level)
    export(model, frame, tmp_path / "m", label={"positive": "gone", "definition": "left"}, horizon="30d")
    lines = scored(churnstream, tmp_path / "m", frame, tmp_path)
    np.testing.assert_allclose([line["probabilities"] for line in lines], model.predict_proba(frame), rtol=1e-12)
    output = read(tmp_path / "m", "model.json")["output"]
    assert output["classes"] == ["gone", "loyal", "new"] and output["positive"] == 0


def test_without_predict_proba_the_prediction_is_certain(customers: Any, tmp_path: Path, churnstream: str) -> None:
    frame, churn = customers
    model = usual(LinearSVC(dual=False)).fit(frame, churn)
    export(model, frame, tmp_path / "m", label="left", horizon="30d")
    lines = scored(churnstream, tmp_path / "m", frame, tmp_path)
    assert [line["probability"] for line in lines] == [float(p) for p in model.predict(frame)]
    np.testing.assert_allclose([line["margin"] for line in lines], model.decision_function(frame), rtol=0, atol=1e-12)


def test_the_first_class_may_be_churn(customers: Any, tmp_path: Path, churnstream: str) -> None:
    frame, churn = customers
    model = usual().fit(frame, np.where(churn == 1, "gone", "stays"))
    export(model, frame, tmp_path / "m", label={"positive": "gone", "definition": "left"}, horizon="30d")
    lines = scored(churnstream, tmp_path / "m", frame, tmp_path)
    np.testing.assert_allclose([line["probability"] for line in lines], model.predict_proba(frame)[:, 0], rtol=1e-12)


def test_a_pipeline_of_arrays_gets_names(customers: Any, tmp_path: Path, churnstream: str) -> None:
    frame, churn = customers
    X = frame[NUMBERS[:3]].to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, churn)
    export(model, X, tmp_path / "m", label="left", horizon="30d")
    lines = scored(churnstream, tmp_path / "m", pd.DataFrame(X, columns=["f0", "f1", "f2"]), tmp_path)
    np.testing.assert_allclose([line["probability"] for line in lines], model.predict_proba(X)[:, 1], rtol=1e-12)


def test_dates_are_inputs(tmp_path: Path, churnstream: str) -> None:
    rng = np.random.default_rng(1)
    n = 200
    frame = pd.DataFrame(
        {
            "joined": pd.Timestamp("2019-12-30") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
            "expires": pd.Timestamp("2024-02-28") + pd.to_timedelta(rng.integers(0, 90, n), unit="D"),
        }
    )
    churn = rng.integers(0, 2, n)
    columns = ColumnTransformer(
        [("p", DateParts(("month", "weekday", "day_of_year")), ["joined"]), ("d", DaysBetween(), ["joined", "expires"])]
    )
    model = make_pipeline(columns, StandardScaler(), LogisticRegression()).fit(frame, churn)
    export(model, frame, tmp_path / "m", label="left", horizon="30d")
    assert [i["kind"] for i in read(tmp_path / "m", "manifest.json")["inputs"]] == ["date", "date"]
    lines = scored(churnstream, tmp_path / "m", frame, tmp_path)
    np.testing.assert_allclose([line["probability"] for line in lines], model.predict_proba(frame)[:, 1], rtol=1e-12)


def test_the_command_exports_a_saved_pipeline(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    model = usual().fit(frame, churn)
    joblib.dump(model, tmp_path / "churn.joblib")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    command = [sys.executable, "-m", "churnstream_export", str(tmp_path / "churn.joblib"), "--reference", str(tmp_path / "rows.csv")]
    done = subprocess.run([*command, "--output", str(tmp_path / "m"), "--horizon", "30d"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = read(tmp_path / "m", "manifest.json")
    assert hashlib.sha256((tmp_path / "m" / "manifest.json").read_bytes()).hexdigest() in done.stdout
    # The text NA is a country, an empty cell is missing.
    country = next(f for f in read(tmp_path / "m", "profile.json")["features"] if f["name"] == "country")
    assert "NA" in country["categories"] and country["counts"][-1] == int(frame.country.isna().sum())
    assert manifest["training"]["library"] == "scikit-learn"
    again = subprocess.run([*command, "--output", str(tmp_path / "m")], capture_output=True, text=True)
    assert again.returncode == 1 and "not empty" in again.stderr
    assert subprocess.run([*command[:-2]], capture_output=True).returncode == 2


def test_the_command_knows_customers_and_times(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    joblib.dump(usual().fit(frame, churn), tmp_path / "named.joblib")
    numbers = frame[["tenure_days", "monthly_spend"]]
    joblib.dump(LogisticRegression().fit(numbers.to_numpy(), churn), tmp_path / "arrays.joblib")
    beside = {"id": [f"c{i // 4}" for i in range(len(frame))], "seen": ["2026-01-15 22:30:00", "2026-01-17 11:59:59+01:00"] * (len(frame) // 2)}
    for name, columns in {"named": frame, "arrays": numbers}.items():
        columns.assign(**beside).to_csv(tmp_path / "rows.csv", index=False)
        command = [sys.executable, "-m", "churnstream_export", str(tmp_path / f"{name}.joblib"), "--reference", str(tmp_path / "rows.csv")]
        command += ["--output", str(tmp_path / name), "--customer", "id", "--time", "seen", "--classes", "weekend/12h", "--zone", "Europe/Berlin"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        profile = read(tmp_path / name, "profile.json")
        assert profile["design_effect"] == 4
        assert profile["classes"]["events"] == [0, len(frame) // 2, len(frame) // 2, 0]
        assert [f["name"] for f in profile["features"]][-2:] == ["score", "decision"]
    frame.assign(**{**beside, "id": [None, *beside["id"][1:]]}).to_csv(tmp_path / "gap.csv", index=False)
    command = [sys.executable, "-m", "churnstream_export", str(tmp_path / "named.joblib"), "--output", str(tmp_path / "x"), "--reference"]
    for rows, flags, code, message in [
        ("rows.csv", ["--customer", "key"], 1, "no column 'key'"),
        ("gap.csv", ["--customer", "id"], 1, "row 0 has no 'id'"),
        ("rows.csv", ["--classes", "weekend"], 2, "go together"),
    ]:
        done = subprocess.run([*command, str(tmp_path / rows), *flags], capture_output=True, text=True)
        assert done.returncode == code and message in done.stderr, done.stderr

def test_odd_kinds_of_columns(tmp_path: Path, churnstream: str) -> None:
    """Booleans and whole numbers as categories, a sparse matrix below a kernel machine, a polynomial's constant."""
    rng = np.random.default_rng(5)
    n = 160
    frame = pd.DataFrame(
        {
            "autopay": rng.integers(0, 2, n).astype(bool),
            "city": rng.integers(1, 30, n),
            "plan": pd.Series(rng.choice(["a", "b", "1"], n)).astype("category"),
            "spend": rng.gamma(2, 10, n),
        }
    )
    churn = ((frame.city % 3 == 0) ^ frame.autopay).astype(int)
    columns = ColumnTransformer(
        [
            ("one", OneHotEncoder(handle_unknown="ignore"), ["autopay", "city", "plan"]),
            ("powers", make_pipeline(StandardScaler(), PolynomialFeatures(2)), ["spend", "city"]),
        ]
    )
    for name, last in {"kernel": SVC(probability=True, random_state=0), "linear": LogisticRegression()}.items():
        model = make_pipeline(columns, last).fit(frame, churn)
        export(model, frame, tmp_path / name, label="left", horizon="30d")
        kinds = {i["name"]: i["kind"] for i in read(tmp_path / name, "manifest.json")["inputs"]}
        assert kinds == {"autopay": "boolean", "city": "number", "plan": "category", "spend": "number"}
        flags = ["--contributions"] if name == "linear" else []
        lines = scored(churnstream, tmp_path / name, frame, tmp_path, *flags)
        np.testing.assert_allclose([line["probability"] for line in lines], model.predict_proba(frame)[:, 1], rtol=1e-11)
    assert set(lines[0]["contributions"]) == {"autopay", "city", "plan", "spend", "city*spend", "bias"}


def test_unseen_values_are_among_the_reference_rows(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    export(usual().fit(frame, churn), frame, tmp_path / "m", label="left", horizon="30d")
    lines = [json.loads(line)["inputs"] for line in (tmp_path / "m" / "reference.jsonl").read_text("utf-8").splitlines()]
    for name in TEXTS:
        assert any(line[name] == "not in training" for line in lines), name
    for name in frame.columns:
        assert any(line[name] is None for line in lines), name


def test_float32_columns_are_scaled_as_the_library_does(customers: Any, tmp_path: Path, churnstream: str) -> None:
    frame, churn = customers
    frame = frame.astype({c: "float32" for c in NUMBERS})
    model = usual().fit(frame, churn)
    export(model, frame, tmp_path / "m", label="left", horizon="30d")
    got = scored(churnstream, tmp_path / "m", frame.astype({c: "float64" for c in NUMBERS}), tmp_path)
    np.testing.assert_allclose([line["probability"] for line in got], model.predict_proba(frame)[:, 1], rtol=1e-12)


def test_sums_in_float32_are_exported_as_of_float64_and_that_is_said(customers: Any, tmp_path: Path, churnstream: str) -> None:
    frame, churn = customers
    frame = frame[NUMBERS].fillna(0).astype("float32")
    model = make_pipeline(Normalizer(), LogisticRegression()).fit(frame, churn)
    with pytest.warns(UserWarning, match="Normalizer computes in less than float64"):
        export(model, frame, tmp_path / "m", label="left", horizon="30d")
    got = scored(churnstream, tmp_path / "m", frame.astype("float64"), tmp_path)
    np.testing.assert_allclose([line["probability"] for line in got], model.predict_proba(frame.astype("float64"))[:, 1], rtol=1e-12)


def test_none_and_nan_that_a_pipeline_takes_apart_are_refused(customers: Any, tmp_path: Path) -> None:
    frame, churn = customers
    frame = frame.astype({"country": object})
    frame["country"] = frame["country"].where(frame["country"].notna(), None)
    frame.loc[3, "country"] = np.nan
    assert {v is None for v in frame["country"][frame["country"].isna()]} == {True, False}
    model = usual().fit(frame, churn)
    with pytest.raises(ExportError, match="'country' holds None and NaN"):
        export(model, frame, tmp_path / "m", label="left", horizon="30d")
    one = frame.assign(country=frame["country"].where(frame["country"].notna(), None))
    export(model, one, tmp_path / "m", label="left", horizon="30d")
