"""What a pipeline computes in float32, as it does where all columns of a step are float32."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_array

from .errors import ExportError
from .program import Column, Program

SAMPLE = 300
# Their results are whole numbers or looked up: nothing to round.
_WHOLE = ("OneHotEncoder", "OrdinalEncoder", "KBinsDiscretizer", "MissingIndicator", "TargetEncoder")


class SinglePrecisionError(ExportError):
    """A step computes in float32 in an order or by functions of its own, so that its last bits cannot be reproduced."""

    def __init__(self, step: Any) -> None:
        self.step = type(step).__name__
        super().__init__(
            f"{self.step} computes in less than float64 here, whose last bits cannot be reproduced; "
            'give the reference rows as float64: rows.astype({column: "float64"})'
        )


def head(rows: Any) -> Any:
    """As many rows as questions are asked by."""
    return rows.iloc[:SAMPLE] if hasattr(rows, "iloc") else rows[:SAMPLE]


def transformed(step: Any, rows: Any) -> Any:
    """What a fitted transformer makes of rows."""
    if rows is None or step is None or isinstance(step, str):
        return rows
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return step.transform(rows)


def in_single(rows: Any) -> bool:
    """Whether scikit-learn takes these rows as float32 where it takes float32 and float64."""
    if rows is None:
        return False
    if hasattr(rows, "dtype"):
        return bool(rows.dtype in (np.float32, np.float16))
    dtypes = list(getattr(rows, "dtypes", []))
    if not any(str(d).lower() in ("float32", "float16") for d in dtypes):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            taken = check_array(rows.iloc[:1].fillna(0), dtype=[np.float64, np.float32, np.float16])
        except (ValueError, TypeError):
            return False
    return bool(taken.dtype != np.float64)


# numpy's functions make less than float64 of them.
_SHORT = ("float16", "float32", "int8", "int16", "uint8", "uint16")


def doubled(rows: Any) -> Any:
    """The same values as float64."""
    if hasattr(rows, "dtypes") and hasattr(rows, "iloc"):
        if not hasattr(rows, "columns"):
            return rows.astype(np.float64)
        return rows.astype({c: "float64" for c, d in rows.dtypes.items() if str(d).lower() in _SHORT})
    return rows.astype(np.float64) if rows.dtype != object else rows


def _dense(values: Any) -> Any:
    if hasattr(values, "toarray"):
        return values.toarray()
    return values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)


def _same(got: Any, want: Any) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.array_equal(np.asarray(got, dtype=np.float32), np.asarray(want, dtype=np.float32), equal_nan=True))


def rounded(program: Program, columns: Sequence[Column]) -> list[Column]:
    """Round columns to float32, but for those that are."""
    out = []
    for column in columns:
        known = program.checked.setdefault(column.name, set())
        if column.category or "float32" in known:
            out.append(column)
            continue
        made = program.add("function", [column], [f"float32({column.name})"], {"name": "float32"})[0]
        made = Column(made.name, False, column.source)
        program.inherit([made], [column], "present", "finite", "single")
        program.checked[made.name].add("float32")
        out.append(made)
    return out


def singly(program: Program, step: Any, rows: Any, build: Callable[[], list[Column]]) -> list[Column]:
    """Append a step and round what it makes, if it computes in float32.

    That is right where the library's result in float32 is that in float64 rounded; otherwise SinglePrecisionError.
    """
    made = build()
    if not in_single(rows):
        return made
    want = _dense(transformed(step, rows))
    if want.dtype == np.float64 or type(step).__name__ in _WHOLE:
        if _same_values(step, rows, want):
            return made
        raise SinglePrecisionError(step)
    if isinstance(step, SelectorMixin) or all("float32" in program.checked.get(c.name, ()) for c in made):
        return made
    if want.dtype != np.float32 or not _same_values(step, rows, want):
        raise SinglePrecisionError(step)
    return rounded(program, made)


def _same_values(step: Any, rows: Any, want: Any) -> bool:
    """Whether the same step on the same values in float64 gives the same, but for the rounding."""
    try:
        got = _dense(transformed(step, doubled(rows)))
    except (ValueError, TypeError):
        return False
    if want.dtype == np.float64:
        return bool(np.allclose(got, want, rtol=1e-15, atol=0, equal_nan=True))
    return _same(got, want)


@dataclass
class Stage:
    """One operation with two lists of parameters: (x - first) / second, or x * first + second."""

    kind: str
    first: list[float]
    second: list[float]

    def of(self, values: Any, single: bool) -> Any:
        first, second = (np.asarray(p, dtype=np.float64) for p in (self.first, self.second))
        if single:
            first, second = (p.astype(np.float32).astype(np.float64) for p in (first, second))
        out = (values - first) / second if self.kind == "scale" else values * first + second
        return out.astype(np.float32).astype(np.float64)


def by_stages(program: Program, step: Any, columns: Sequence[Column], rows: Any, stages: Sequence[Stage]) -> list[Column]:
    """Append operations of which each is rounded to float32.

    Whether their parameters are, too, has changed from release to release, and shows in the result.
    """
    clip = {"MinMaxScaler": getattr(step, "feature_range", None), "MaxAbsScaler": (-1.0, 1.0)}.get(type(step).__name__)
    want = _dense(transformed(step, rows))
    start = np.asarray(_dense(rows), dtype=np.float32).astype(np.float64)
    for single in (True, False):
        values = start
        with np.errstate(all="ignore"):
            for stage in stages:
                values = stage.of(values, single)
            if clip is not None and getattr(step, "clip", False):
                values = np.clip(values, *clip)
        if want.dtype == np.float32 and _same(values, want):
            break
    else:
        raise SinglePrecisionError(step)
    out = list(columns)
    for stage in stages:
        first, second = (np.asarray(p, dtype=np.float32 if single else np.float64) for p in (stage.first, stage.second))
        names = ("mean", "scale") if stage.kind == "scale" else ("scale", "offset")
        parameters = {names[0]: first.astype(np.float64).tolist(), names[1]: second.astype(np.float64).tolist()}
        out = rounded(program, program.add(stage.kind, out, [f"scaled({c.name})" for c in columns], parameters))
    return out


def check_sums(est: Any, rows: Any) -> None:
    """Refuse a classifier whose sums are in float32: their order is that of the machine."""
    if not in_single(rows):
        return
    for name in ("decision_function", "predict_proba"):
        ask = getattr(est, name, None)
        if ask is None:
            continue
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            single, double = np.asarray(ask(rows)), np.asarray(ask(doubled(rows)))
        if not np.allclose(single, double, rtol=1e-13, atol=1e-15, equal_nan=True):
            raise SinglePrecisionError(est)
