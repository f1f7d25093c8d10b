"""The artefact: a directory with manifest, model, profile and reference rows."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Union

import numpy as np
import pandas as pd
import sklearn

from .errors import ExportError
from .estimators import Scored, _LazyForest, classify, full
from .profile import Classed, divided
from .profile import profile as build_profile
from .program import Column, Program
from .single import SinglePrecisionError, doubled, rounded
from .transformers import Kinds

FORMAT_VERSION = 2
KINDS = ("number", "category", "boolean", "date", "timestamp")
REFERENCE_ROWS = 300
BACKGROUND_ROWS = 32


@dataclass
class Input:
    """A declared input of the model: one value of an event.

    kind is number, category, boolean, date or timestamp; None: found out from the reference rows. nullable None: the
    input may be missing if the pipeline takes a row in which it is. path is its place in the event, Avro names joined
    by dots; by default its name, with what no Avro name may hold replaced by "_".
    """

    name: str
    kind: str | None = None
    nullable: bool | None = None
    min: float | None = None
    max: float | None = None
    path: str | None = None


Inputs = Union[None, Sequence[Union[str, Mapping[str, Any], Input]], Mapping[str, Any]]


def export(
    pipeline: Any,
    reference_rows: Any,
    path: str | os.PathLike[str],
    *,
    inputs: Inputs = None,
    label: str | Mapping[str, Any] | None = None,
    horizon: str | None = None,
    name: str | None = None,
    version: str = "1.0.0",
    threshold: float | None = None,
    metrics: Iterable[Mapping[str, Any]] | Mapping[str, float] = (),
    training_rows: int | None = None,
    held_out_rows: int | None = None,
    git_commit: str | None = None,
    annotations: Mapping[str, str] | None = None,
    customers: Sequence[Any] | None = None,
    times: Sequence[Any] | None = None,
    classes: str | None = None,
    zone: str = "UTC",
) -> str:
    """Write a fitted scikit-learn classifier or pipeline as a model artefact and return its digest.

    reference_rows are rows of the training population as the pipeline takes them, best all of them: profile and
    background are theirs, and up to 300 of them, with their probabilities by scikit-learn, become the reference rows
    that churnstream scores when it loads the model. path is a directory that does not exist yet or is empty.

    customers holds the key of each reference row's customer, if one has several rows: they count once in the profile.

    classes, such as weekend/6h, divides the times of the reference rows (datetimes, texts or milliseconds since 1970; what
    has no zone is UTC) by weekday and hour of a time zone, so that drift compares an hour with the reference rows of such
    hours: weekdays or weekend, a width of 1h, 2h, 3h, 4h, 6h, 8h or 12h, or both.

    label says what the probability is about: a sentence, or a mapping with column, positive (the class that means
    churn; by default the last of classes_), definition and horizon.

    Raises UnsupportedEstimatorError, with the class name, for a step that churnstream has no equal of, and ExportError
    for anything else that stands in the way. Nothing is written then.
    """
    directory = Path(path)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ExportError(f"{directory} is not empty, and artefacts never change: name a new directory, or remove it")
    meaning = _label(label, horizon)
    pipeline, tuned = _unwrapped(pipeline)
    rows = _Rows(pipeline, reference_rows, inputs)
    program, output, positive = _in_its_precision(pipeline, rows, meaning.get("positive"))
    rows.check_gaps()
    if meaning.get("positive") is None and "column" in meaning:
        meaning["positive"] = str(positive)
    if threshold is None:
        threshold = 0.5 if tuned is None else tuned
    library = rows.score(positive)
    files = {
        "model.json": _json(_model(program, output, rows)),
        "profile.json": _json(rows.profile(library, float(threshold), customers, positive, divided(classes, zone, times, len(library))), indent=1),
        "reference.jsonl": rows.reference(library, positive),
    }
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": name or _default_name(directory),
        "version": version,
        "created_at": datetime.now(timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z"),
        "files": {f: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for f, data in files.items()},
        "training": {
            "library": "scikit-learn",
            "library_version": sklearn.__version__,
            "rows": len(library) if training_rows is None else int(training_rows),
            "parameters": _parameters(pipeline),
        },
        "metrics": _metrics(metrics),
        "threshold": float(threshold),
        "label": meaning,
        "inputs": rows.declared(),
    }
    if held_out_rows:
        manifest["training"]["held_out_rows"] = int(held_out_rows)
    if git_commit:
        manifest["training"]["git_commit"] = git_commit
    if annotations:
        manifest["annotations"] = dict(annotations)
    files["manifest.json"] = _json(manifest, indent=2)
    _write(directory, files)
    return hashlib.sha256(files["manifest.json"]).hexdigest()


def _model(program: Program, output: dict[str, Any], rows: _Rows) -> dict[str, Any]:
    """model.json: with rows to explain the model by, unless its parts have contributions of their own."""
    model: dict[str, Any] = {"steps": program.steps, "output": output}
    explained: set[str] = set()
    modelled: set[str] = set()  # made of what a model gives
    for step in program.steps:
        of_model = not modelled.isdisjoint(step["columns"])
        by_itself = not of_model and (step["type"] == "trees" or "background" in step.get("parameters", {}))
        if by_itself or (step["type"] in ("linear", "mean") and explained.issuperset(step["columns"])):
            explained.update(step["outputs"])
        if of_model or by_itself or step["type"] in ("linear", "kernel_machine"):
            modelled.update(step["outputs"])
    if not explained.issuperset(output["margin"]):
        model["background"] = rows.background()
    return model


def _in_its_precision(pipeline: Any, rows: _Rows, positive: Any) -> tuple[Program, dict[str, Any], Any]:
    """The program; of the rows as float64 where a step's arithmetic in float32 cannot be reproduced."""
    try:
        return _program(pipeline, rows, positive)
    except SinglePrecisionError as cause:
        single = np.asarray(rows.call(rows.frame))
        rows.frame = doubled(rows.frame)
        double = np.asarray(rows.call(rows.frame))
        far = float(np.max(np.abs(single - double))) if single.dtype.kind == "f" else float(np.mean(single != double))
        warnings.warn(
            f"{cause.step} computes in less than float64, as its columns are float32 or short integers, and its last bits cannot "
            f"be reproduced: the artefact gives predict_proba of the rows as float64, up to {far:.1g} from that of the rows as they are",
            stacklevel=3,
        )
        return _program(pipeline, rows, positive)


def _unwrapped(pipeline: Any) -> tuple[Any, float | None]:
    """The classifier below a wrapper that only moves the threshold."""
    kind = type(pipeline).__name__
    if type(pipeline).__module__.startswith("sklearn."):
        if kind == "TunedThresholdClassifierCV":
            return pipeline.estimator_, float(pipeline.best_threshold_)
        if kind == "FixedThresholdClassifier":
            inner = pipeline.estimator_ if hasattr(pipeline, "estimator_") else pipeline.estimator
            return inner, None if pipeline.threshold == "auto" else float(pipeline.threshold)
    return pipeline, None


def _label(label: str | Mapping[str, Any] | None, horizon: str | None) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if isinstance(label, Mapping):
        unknown = set(label) - {"column", "positive", "definition", "horizon"}
        if unknown:
            raise ExportError(f"label: {sorted(unknown)} are not among column, positive, definition, horizon")
        out = {k: v for k, v in label.items() if v is not None}
    elif label is not None:
        out = {"definition": str(label)}
    out["horizon"] = str(horizon if horizon is not None else out.get("horizon", ""))
    out.setdefault("definition", str(out.get("column", "")))
    return out


def _default_name(directory: Path) -> str:
    text = re.sub(r"[^A-Za-z0-9._+-]", "-", directory.resolve().name).lstrip(".")
    return text[:128] or "model"


def _parameters(pipeline: Any) -> dict[str, str]:
    last = pipeline
    while hasattr(last, "steps"):
        last = last.steps[-1][1]
    out = {"estimator": type(last).__name__}
    if hasattr(last, "get_params"):
        for key, value in sorted(last.get_params(deep=False).items()):
            if isinstance(value, (str, int, float, bool)):
                out[key] = str(value)
    return out


def _metrics(metrics: Any) -> list[dict[str, Any]]:
    if isinstance(metrics, Mapping):
        return [{"name": str(k), "value": float(v)} for k, v in metrics.items()]
    return [dict(m) for m in metrics]


class _Rows:
    """The reference rows, as the pipeline takes them and as churnstream will see them."""

    def __init__(self, pipeline: Any, rows: Any, inputs: Inputs) -> None:
        self.pipeline = pipeline
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(np.asarray(rows))
        if len(frame) == 0:
            raise ExportError("there are no reference rows")
        self.by_name = getattr(pipeline, "feature_names_in_", None) is not None
        if self.by_name:
            self.features = [str(c) for c in pipeline.feature_names_in_]
            absent = [c for c in self.features if c not in frame.columns]
            if absent:
                raise ExportError(f"the reference rows lack the columns {absent} that the pipeline was trained on")
        else:
            wanted = getattr(pipeline, "n_features_in_", frame.shape[1])
            declared = _specified(inputs)
            if frame.shape[1] != wanted and declared and len(declared) == wanted:
                frame = frame[[d.name for d in declared]]
            if frame.shape[1] != wanted:
                raise ExportError(f"the reference rows have {frame.shape[1]} columns, the pipeline was trained on {wanted}")
            if not all(isinstance(c, str) for c in frame.columns):
                names = [d.name for d in declared] if declared and len(declared) == wanted else [f"f{i}" for i in range(wanted)]
                frame = frame.set_axis(names, axis=1)
            self.features = [str(c) for c in frame.columns]
        self.frame = frame.reset_index(drop=True)
        self.single = [str(c) for c, d in self.frame.dtypes.items() if str(d).lower() == "float32"]
        half = [str(c) for c, d in self.frame.dtypes.items() if str(d) == "float16"]
        if half:
            raise ExportError(f"the columns {half} are float16; give them as float64: rows.astype({{{half[0]!r}: 'float64'}})")
        self.inputs = self._inputs(_specified(inputs))
        self.names = [i.name for i in self.inputs]
        self.kinds = [str(i.kind) for i in self.inputs]
        self.missing = [_missing_form(self.frame[n]) for n in self.names]
        for spec, kind in zip(self.inputs, self.kinds):
            _check_values(self.frame[spec.name], spec.name, kind)
        self._nullable()

    def _inputs(self, declared: list[Input] | None) -> list[Input]:
        if declared is None:
            declared = [Input(c) for c in self.features]
        names = [d.name for d in declared]
        for name in self.features:
            if name not in names:
                declared.append(Input(name))
        for d in declared:
            if d.name not in self.frame.columns:
                raise ExportError(f"inputs: {d.name!r} is no column of the reference rows")
            if d.kind is None:
                d.kind = _kind(self.frame[d.name], d.name)
            if d.kind not in KINDS:
                raise ExportError(f"inputs: {d.name!r} has the kind {d.kind!r}; use one of {', '.join(KINDS)}")
        return declared

    def data(self, frame: pd.DataFrame) -> Any:
        """Rows in the form that the pipeline was trained on."""
        taken = frame[self.features]
        return taken if self.by_name else taken.to_numpy()

    def call(self, frame: pd.DataFrame) -> Any:
        """What the pipeline makes of rows."""
        ask = getattr(self.pipeline, "predict_proba", None) or self.pipeline.predict
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return ask(self.data(frame))

    def _nullable(self) -> None:
        """An input may be missing if it is in the reference rows, or if the pipeline takes that."""
        open_ones = []
        for i, spec in enumerate(self.inputs):
            if spec.nullable is None:
                spec.nullable = bool(self.frame[spec.name].isna().any())
                if not spec.nullable:
                    open_ones.append(i)
        rows = [self.altered(0, {i: self.missing[i]}) for i in open_ones]
        for i, taken in zip(open_ones, self.taken(rows)):
            self.inputs[i].nullable = taken

    def check_gaps(self) -> None:
        """None and NaN are one missing value on the stream; refuse a pipeline that takes them apart where rows have both."""
        for name, kind in zip(self.names, self.kinds):
            column = self.frame[name]
            if kind != "category" or column.dtype != object or name not in self.features:
                continue
            gaps = self.frame.index[column.isna()]
            if len({v is None for v in column[gaps]}) < 2:
                continue
            answers = []
            for gap in (None, math.nan):
                asked = self.frame.loc[gaps[:50]].copy()
                asked[name] = pd.Series([gap] * len(asked), index=asked.index, dtype=object)
                answers.append(np.asarray(self.call(asked)) if self.takes(asked) else None)
            one, other = answers
            if one is None or other is None or not np.array_equal(one, other):
                raise ExportError(
                    f"column {name!r} holds None and NaN, which the pipeline takes apart and an event cannot; make them one "
                    f"in the reference rows: rows[{name!r}] = rows[{name!r}].where(rows[{name!r}].notna(), None)"
                )

    def altered(self, row: int, values: Mapping[int, Any]) -> pd.DataFrame:
        """A copy of one row with other values."""
        one = self.frame.iloc[[row]].copy()
        for i, value in values.items():
            one[self.names[i]] = _like(self.frame[self.names[i]], self.kinds[i], value).set_axis(one.index)
        return one

    def takes(self, frame: pd.DataFrame) -> bool:
        try:
            out = np.asarray(self.call(frame))
        except Exception:  # whatever the library raises: it refuses the row
            return False
        return out.dtype.kind != "f" or bool(np.isfinite(out).all())

    def taken(self, rows: Sequence[pd.DataFrame]) -> list[bool]:
        """For each row whether the pipeline takes it; it is asked for all at once as long as it takes all."""
        if not rows:
            return []
        if self.takes(pd.concat(rows, ignore_index=True)):
            return [True] * len(rows)
        if len(rows) == 1:
            return [False]
        half = len(rows) // 2
        return self.taken(rows[:half]) + self.taken(rows[half:])

    def score(self, positive: Any) -> list[float]:
        return self.probabilities(self.frame, positive)

    def probabilities(self, frame: pd.DataFrame, positive: Any) -> list[float]:
        classes = [str(c) for c in self.pipeline.classes_]
        out = self.call(frame)
        if hasattr(self.pipeline, "predict_proba"):
            return [float(p) for p in out[:, classes.index(str(positive))]]
        return [1.0 if str(p) == str(positive) else 0.0 for p in out]

    def profile(
        self, scores: list[float], threshold: float, customers: Sequence[Any] | None, positive: Any, classes: Classed | None
    ) -> dict[str, Any]:
        if customers is not None and len(customers) != len(scores):
            raise ExportError(f"customers: {len(customers)} keys for {len(scores)} reference rows")
        parts = self.contributions(positive)
        return build_profile(self.names, self.kinds, self.columns(), scores, threshold, customers, parts, classes)

    def contributions(self, positive: Any) -> list[list[float]] | None:
        """What each input adds to each row's margin, about its mean; None unless the margin is a sum over the inputs."""
        if self.parts(self.frame.head(64), positive) is None:  # most are no sum: soon seen
            return None
        parts = self.parts(self.frame, positive)
        return None if parts is None else [[float(p) for p in row] for row in parts]

    def parts(self, frame: pd.DataFrame, positive: Any) -> Any:
        """For a sum, an input's part in a row is the row's margin less the one with another row's value of the input, up
        to a constant; whether the parts add up to the margins again shows whether it is one."""
        margin = self.margins(frame, positive)
        parts = []
        for name in self.names if margin is not None else []:
            other = frame.copy()
            other[name] = frame[name].iloc[[0]].repeat(len(other)).set_axis(other.index)
            try:
                moved = self.margins(other, positive)
            except Exception:  # whatever the library raises: it refuses the combination
                return None
            if moved is None:
                return None
            parts.append(margin - moved - (margin - moved).mean())
        if not parts:
            return None
        together = np.column_stack(parts)
        off = np.abs(together.sum(axis=1) + margin.mean() - margin).max()
        return together if off <= 1e-8 * (1 + np.abs(margin).max()) else None

    def margins(self, frame: pd.DataFrame, positive: Any) -> Any:
        """Log-odds of churn, one a row; None if there are more than two classes or a probability is 0 or 1."""
        classes = [str(c) for c in self.pipeline.classes_]
        if len(classes) != 2:
            return None
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            p = np.asarray(self.probabilities(frame, positive))
            margin = np.log(p) - np.log1p(-p)
        return margin if np.isfinite(margin).all() else None

    def columns(self) -> list[list[Any]]:
        return [_values(self.frame[n], k) for n, k in zip(self.names, self.kinds)]

    def declared(self) -> list[dict[str, Any]]:
        out = []
        taken: set[str] = set()
        for spec in self.inputs:
            entry: dict[str, Any] = {"name": spec.name}
            place = spec.path or _avro_name(spec.name)
            while place in taken:
                place += "_"
            taken.add(place)
            if place != spec.name:
                entry["path"] = place
            entry["kind"] = spec.kind
            if spec.nullable:
                entry["nullable"] = True
            for key, bound in (("min", spec.min), ("max", spec.max)):
                if bound is not None:
                    entry[key] = float(bound)
            out.append(entry)
        return out

    def reference(self, scores: list[float], positive: Any) -> bytes:
        """Rows spread over all, then rows with something missing or unseen."""
        n = len(self.frame)
        chosen = sorted({i * n // min(REFERENCE_ROWS, n) for i in range(min(REFERENCE_ROWS, n))})
        lines = []
        for i in chosen:
            lines.append(self._line(self.frame.iloc[[i]], scores[i]))
        odd = []
        nullable = [i for i, spec in enumerate(self.inputs) if spec.nullable]
        categories = [i for i, kind in enumerate(self.kinds) if kind == "category"]
        for k, i in enumerate(nullable[:200]):
            odd.append(self.altered(k % n, {i: self.missing[i]}))
        for k, i in enumerate(categories[:200]):
            odd.append(self.altered(k % n, {i: self._unseen(i)}))
        odd.append(self.altered(0, {i: self.missing[i] for i in nullable}))
        odd.append(self.altered(0, {i: self._unseen(i) for i in categories}))
        odd = [frame for frame, taken in zip(odd, self.taken(odd)) if taken]
        if odd:
            together = pd.concat(odd, ignore_index=True)
            for i, p in enumerate(self.probabilities(together, positive)):
                lines.append(self._line(together.iloc[[i]], p))
        return "".join(line for line in lines if line is not None).encode()

    def background(self) -> list[dict[str, Any]]:
        """Rows spread over all."""
        n = len(self.frame)
        chosen = sorted({i * n // min(BACKGROUND_ROWS, n) for i in range(min(BACKGROUND_ROWS, n))})
        listed = (self._inputs_of(self.frame.iloc[[i]]) for i in chosen)
        return [values for values in listed if values is not None]

    def _unseen(self, i: int) -> str:
        known = set(self.frame[self.names[i]].dropna())
        value = "not in training"
        while value in known:
            value += "!"
        return value

    def _line(self, frame: pd.DataFrame, probability: float) -> str | None:
        values = self._inputs_of(frame)
        if values is None:
            return None
        return json.dumps({"inputs": values, "probability": probability}, ensure_ascii=False, allow_nan=False) + "\n"

    def _inputs_of(self, frame: pd.DataFrame) -> dict[str, Any] | None:
        """The inputs of one row as JSON has them."""
        values: dict[str, Any] = {}
        for name, kind in zip(self.names, self.kinds):
            value = _values(frame[name], kind)[0]
            if isinstance(value, float) and not math.isfinite(value):
                return None  # JSON has no infinity, and the stream refuses it ahead of the model
            if value is not None and kind == "date":
                value = pd.Timestamp(value, unit="D").strftime("%Y-%m-%d")
            elif value is not None and kind == "timestamp":
                value = pd.Timestamp(value, unit="ms", tz="UTC").isoformat().replace("+00:00", "Z")
            values[name] = value
        return values


def _specified(inputs: Inputs) -> list[Input] | None:
    if inputs is None:
        return None
    out = []
    if isinstance(inputs, Mapping):
        for name, given in inputs.items():
            fields: dict[str, Any] = {"kind": given} if given is None or isinstance(given, str) else dict(given)
            out.append(Input(name=str(name), **fields))
        return out
    for given in inputs:
        if isinstance(given, Input):
            out.append(Input(**vars(given)))
        elif isinstance(given, Mapping):
            out.append(Input(**given))
        else:
            out.append(Input(str(given)))
    return out


def _missing_form(column: pd.Series) -> Any:
    """How a column writes a missing value: None if it holds None and no NaN, else NaN; nullable texts have their own."""
    if isinstance(column.dtype, pd.StringDtype):
        return getattr(column.dtype, "na_value", pd.NA)
    if column.dtype != object:
        return math.nan
    absent = [v for v in column if v is None or (isinstance(v, float) and math.isnan(v))]
    return None if absent and all(v is None for v in absent) else math.nan


def _kind(column: pd.Series, name: str) -> str:
    if pd.api.types.is_bool_dtype(column.dtype):
        return "boolean"
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        present = column.dropna()
        return "date" if (present == present.dt.normalize()).all() else "timestamp"
    present = [v for v in column if not _absent(v)]
    if all(isinstance(v, (bool, np.bool_)) for v in present) and present:
        return "boolean"
    if all(isinstance(v, str) for v in present):
        return "category"
    if all(isinstance(v, (int, float, np.number, bool)) for v in present):
        return "number"
    if all(isinstance(v, (pd.Timestamp, datetime)) for v in present):
        return "timestamp"
    odd = next(v for v in present if not isinstance(v, str))
    raise ExportError(f"column {name!r} holds texts and {odd!r}; make it one kind")


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _check_values(column: pd.Series, name: str, kind: str) -> None:
    if kind == "category":
        for v in column:
            if not _absent(v) and not isinstance(v, str):
                raise ExportError(f"column {name!r} is declared as a category and holds {v!r}, which is no text")
    elif kind in ("number", "boolean"):
        for v in column:
            if isinstance(v, str):
                raise ExportError(f"column {name!r} is declared as a {kind} and holds the text {v!r}")


def _values(column: pd.Series, kind: str) -> list[Any]:
    """Values in churnstream's units; None is missing."""
    out: list[Any] = []
    if kind in ("date", "timestamp"):
        for v in column:
            if _absent(v):
                out.append(None)
                continue
            at = pd.Timestamp(v)
            at = at.tz_convert("UTC").tz_localize(None) if at.tzinfo else at
            milliseconds = (at - pd.Timestamp(0)) // pd.Timedelta(milliseconds=1)
            out.append(float(milliseconds // 86_400_000 if kind == "date" else milliseconds))
        return out
    for v in column:
        if _absent(v):
            out.append(None)
        elif kind == "category":
            out.append(str(v))
        elif kind == "boolean":
            out.append(bool(v))
        else:
            out.append(float(v))
    return out


def _like(column: pd.Series, kind: str, value: Any) -> pd.Series:
    """One value as a column of the kind that another column is."""
    if kind == "category":
        if isinstance(column.dtype, pd.CategoricalDtype):
            known = column.dtype.categories
            extended = known if _absent(value) or value in known else known.append(pd.Index([value]))
            return pd.Series([value], dtype=pd.CategoricalDtype(extended))
        return pd.Series([value], dtype=column.dtype if isinstance(column.dtype, pd.StringDtype) else object)
    if kind in ("date", "timestamp"):
        return pd.Series([pd.NaT])
    if pd.api.types.is_extension_array_dtype(column.dtype):
        return pd.Series([pd.NA], dtype=column.dtype)
    if column.dtype == np.float32:
        return pd.Series([math.nan], dtype=np.float32)
    return pd.Series([math.nan], dtype=np.float64)


def _avro_name(name: str) -> str:
    text = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return text if text and not text[0].isdigit() else "_" + text


def _program(pipeline: Any, rows: _Rows, positive: Any) -> tuple[Program, dict[str, Any], Any]:
    program = Program()
    columns: dict[str, Column] = {}
    for i, (name, kind) in enumerate(zip(rows.names, rows.kinds)):
        columns[name] = program.declare(name, kind == "category", i)
        if name in rows.single and kind == "number":
            columns[name] = rounded(program, [columns[name]])[0]
    kinds = Kinds(rows.kinds, rows.missing)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        read = [columns[name] for name in rows.features]
        scored = classify(program, pipeline, read, rows.data(rows.frame), kinds)
        output, chosen = _output(program, scored, positive)
    return program, output, chosen


def _output(program: Program, scored: Scored, positive: Any) -> tuple[dict[str, Any], Any]:
    names = [str(c) for c in scored.classes]
    at = len(names) - 1
    if positive is not None:
        if str(positive) not in names:
            raise ExportError(f"label: the positive class {positive!r} is none of {names}")
        at = names.index(str(positive))
    if scored.probability is None:
        _certain(program, scored)
    assert scored.probability is not None
    margin = scored.margin or scored.decision or scored.probability
    if len(names) > 2:
        if len(margin) != len(names):
            margin = scored.probability
        return {
            "margin": [c.name for c in margin],
            "probability": [c.name for c in scored.probability],
            "classes": names,
            "positive": at,
        }, scored.classes[at]
    probability = scored.probability
    if at == 0:
        same = margin == probability
        probability = [full(program, scored)[0]] if not isinstance(scored, _LazyForest) else _first(program, scored)
        margin = probability if same else program.add("linear", margin, ["margin for churn"], {
            "coefficients": [[-1.0]], "intercepts": [0.0],
        })  # fmt: skip
    return {"margin": [margin[0].name], "probability": [probability[0].name]}, scored.classes[at]


def _first(program: Program, scored: _LazyForest) -> list[Column]:
    return [full(program, scored)[0]]


def _certain(program: Program, scored: Scored) -> None:
    """A classifier without predict_proba: what it predicts has the probability 1."""
    from .estimators import predicted_of

    k = len(scored.classes)
    chosen = predicted_of(program, scored)
    names = [f"probability {i}" for i in range(k)]
    certain = program.add("votes", [chosen], names, {"hit": [1.0], "miss": [0.0]})
    scored.probability = certain[1:] if k == 2 else certain
    scored.both = certain if k == 2 else None


def _json(value: Any, indent: int | None = None) -> bytes:
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    return (text + "\n").encode()


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    """The directory appears whole or not at all."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.writing-", dir=directory.parent))
    try:
        for name, data in files.items():
            with open(temporary / name, "xb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        temporary.chmod(0o755)
        os.replace(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
