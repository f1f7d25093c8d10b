"""Fitted transformers as steps of a program."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.feature_selection import SelectorMixin

from .dates import DateParts, DaysBetween
from .errors import ExportError, UnsupportedEstimatorError
from .probing import refusals
from .program import Column, Program, floats, gaps, numbers
from .single import SinglePrecisionError, Stage, by_stages, doubled, in_single, rounded, singly, transformed

Lower = Callable[[Program, Any, Sequence[Column], Any, "Kinds"], "list[Column]"]


class Kinds:
    """What is known of the declared inputs, by position."""

    def __init__(self, kinds: Sequence[str], missing: Sequence[Any]) -> None:
        self.kinds = kinds
        self.missing = missing  # how the reference rows write a missing value: NaN or None


def lower(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    """Append the steps that do what a fitted transformer does; returns its output columns.

    rows are some reference rows as the transformer gets them; their dtype is what it computes in.
    """
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return list(columns)
    if isinstance(step, str) and step == "drop":
        return []
    if type(step) in (DateParts, DaysBetween):
        return (_date_parts if type(step) is DateParts else _days_between)(program, step, columns, rows, kinds)
    module, name = type(step).__module__, type(step).__name__
    if module.startswith("sklearn."):
        found = _LOWERED.get(name)
        if name in _BY_THEMSELVES and found is not None:
            return found(program, step, columns, rows, kinds)
        if found is not None:
            return singly(program, step, rows, lambda: found(program, step, columns, rows, kinds))
        if isinstance(step, SelectorMixin):
            return _select(program, step, columns, rows, kinds)
    raise UnsupportedEstimatorError(step)


def _require(program: Program, step: Any, columns: Sequence[Column]) -> None:
    numbers(columns, step)
    program.require(columns, *[r for r in refusals(step.transform, len(columns)) if r != "single"])


def _named(columns: Sequence[Column], how: str) -> list[str]:
    return [f"{how}({c.name})" for c in columns]


def _pipeline(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    out = list(columns)
    for i, (_, part) in enumerate(step.steps):
        out = lower(program, part, out, rows, kinds)
        if i < len(step.steps) - 1:
            rows = transformed(part, rows)
    return out


def select_columns(step: Any, chosen: Any, columns: Sequence[Column]) -> list[Column]:
    """The columns that a ColumnTransformer means by a name, a position, a slice, a mask or a list of them."""
    return [columns[i] for i in _positions(step, chosen, columns)]


def _positions(step: Any, chosen: Any, columns: Sequence[Column]) -> list[int]:
    names = getattr(step, "feature_names_in_", None)
    if names is None:
        names = [c.name for c in columns]
    names = list(names)

    def position(key: Any) -> int:
        if isinstance(key, str):
            if key not in names:
                raise ExportError(f"ColumnTransformer reads a column {key!r}, which the rows do not have")
            return names.index(key)
        return int(key)

    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = 0 if chosen.start is None else position(chosen.start)
            stop = len(columns) if chosen.stop is None else position(chosen.stop) + 1
            return list(range(len(columns))[start : stop : chosen.step])
        return list(range(len(columns))[chosen])
    if isinstance(chosen, (str, int, np.integer)) and not isinstance(chosen, (bool, np.bool_)):
        return [position(chosen) % len(columns)]
    keys = list(chosen)
    if keys and all(isinstance(k, (bool, np.bool_)) for k in keys):
        return [i for i, keep in enumerate(keys) if keep]
    return [position(k) % len(columns) for k in keys]


def _column_transformer(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    out: list[Column] = []
    weights = step.transformer_weights or {}
    for name, part, chosen in step.transformers_:
        at = _positions(step, chosen, columns)
        if not at:
            continue
        read: Any = None if rows is None else rows.iloc[:, at] if hasattr(rows, "iloc") else rows[:, at]
        if isinstance(chosen, str) and hasattr(read, "iloc"):
            read = read.iloc[:, 0]  # a single name is a column, not a table
        made = lower(program, part, [columns[i] for i in at], read, kinds)
        out += _weighted(program, made, weights.get(name), part, read, step)
    return out


def _feature_union(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    out: list[Column] = []
    weights = step.transformer_weights or {}
    for name, part in step.transformer_list:
        out += _weighted(program, lower(program, part, columns, rows, kinds), weights.get(name), part, rows, step)
    return out


def _weighted(
    program: Program, columns: list[Column], weight: float | None, part: Any, rows: Any, who: Any
) -> list[Column]:
    if weight is None or not columns:
        return columns
    numbers(columns, who)
    if getattr(transformed(part, rows), "dtype", None) == np.float32:
        raise SinglePrecisionError(who)
    n = len(columns)
    parameters = {"scale": floats([weight] * n), "offset": [0.0] * n}
    made = program.add("min_max_scale", columns, _named(columns, "weighted"), parameters)
    return program.inherit(made, columns, "present", "finite")


def _scale(program: Program, step: Any, columns: Sequence[Column], rows: Any, mean: Any, scale: Any) -> list[Column]:
    _require(program, step, columns)
    n = len(columns)
    if mean is None and scale is None:
        return list(columns)
    means = [0.0] * n if mean is None else floats(mean)
    scales = [1.0] * n if scale is None else floats(scale)
    if in_single(rows):
        stages = [] if mean is None else [Stage("scale", means, [1.0] * n)]
        stages += [] if scale is None else [Stage("scale", [0.0] * n, scales)]
        made = by_stages(program, step, columns, rows, stages)
    else:
        made = program.add("scale", columns, _named(columns, "scaled"), {"mean": means, "scale": scales})
    return program.inherit(made, columns, "present", "finite")


def _standard(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    mean = step.mean_ if step.with_mean else None
    scale = step.scale_ if step.with_std else None
    return _scale(program, step, columns, rows, mean, scale)


def _robust(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    mean = step.center_ if step.with_centering else None
    scale = step.scale_ if step.with_scaling else None
    return _scale(program, step, columns, rows, mean, scale)


def _max_abs(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    out = _scale(program, step, columns, rows, None, step.scale_)
    return _clip(program, out, (-1.0, 1.0)) if getattr(step, "clip", False) else out


def _min_max(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    _require(program, step, columns)
    scales, offsets, n = floats(step.scale_), floats(step.min_), len(columns)
    if in_single(rows):
        stages = [Stage("min_max_scale", scales, [0.0] * n), Stage("min_max_scale", [1.0] * n, offsets)]
        made = by_stages(program, step, columns, rows, stages)
    else:
        made = program.add("min_max_scale", columns, _named(columns, "scaled"), {"scale": scales, "offset": offsets})
    program.inherit(made, columns, "present", "finite")
    return _clip(program, made, step.feature_range) if step.clip else made


def _clip(program: Program, columns: Sequence[Column], bounds: Sequence[float]) -> list[Column]:
    made = program.add("clip", columns, _named(columns, "clipped"), {"range": floats(bounds)})
    program.inherit(made, columns, "present", "finite")
    single = all("float32" in program.checked.get(c.name, ()) for c in columns)
    return rounded(program, made) if single else made


def _normalize(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    _require(program, step, columns)
    made = program.add("normalize", columns, _named(columns, "normalized"), {"norm": step.norm})
    return program.inherit(made, columns, "present", "finite")


def _plain(value: Any) -> Any:
    """A value of a category list as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


class _Encoded:
    """The values that an encoder knows of one of its columns, and a row of the encoder's input for each."""

    def __init__(self, column: Column, categories: Any, missing: Any) -> None:
        self.column = column
        self.known = [v for v in (_plain(c) for c in categories) if not _missing(v)]
        self.boolean = bool(self.known) and all(isinstance(v, bool) for v in self.known)
        if column.category and not all(isinstance(v, str) for v in self.known):
            odd = next(v for v in self.known if not isinstance(v, str))
            raise ExportError(
                f"column {column.name!r} is a category, but the encoder knows {odd!r}, which is no text; "
                "declare the input as a number or a boolean"
            )
        if not column.category:
            if any(isinstance(v, str) for v in self.known):
                raise ExportError(
                    f"column {column.name!r} is a number, but the encoder knows texts; declare the input as a category"
                )
            self.known = sorted(float(v) for v in self.known)
        self.missing = missing

    def unknown(self) -> Any:
        if self.column.category:
            text = "unknown to the model"
            while text in self.known:
                text += "!"
            return text
        return max(self.known, default=0.0) + 1.0

    def series(self, values: Sequence[Any]) -> pd.Series:
        if self.column.category:
            return pd.Series(list(values), dtype=object)
        if self.boolean and all(v in (0.0, 1.0) for v in values):
            return pd.Series([bool(v) for v in values])
        return pd.Series([math.nan if _missing(v) else float(v) for v in values], dtype=np.float64)

    def base(self) -> Any:
        return self.known[0] if self.known else self.missing


def _ask(step: Any, encoded: Sequence[_Encoded], which: int, values: Sequence[Any]) -> Any:
    """What the encoder makes of rows that differ in one column; None if it refuses one of them."""
    names = getattr(step, "feature_names_in_", None)
    data = {}
    for i, e in enumerate(encoded):
        row = list(values) if i == which else [e.base()] * len(values)
        data[names[i] if names is not None else i] = e.series(row)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            out = step.transform(pd.DataFrame(data))
        except (ValueError, TypeError):
            return None
    if hasattr(out, "toarray"):
        out = out.toarray()
    return np.asarray(out, dtype=np.float64)


def _answers(step: Any, encoded: Sequence[_Encoded], which: int) -> tuple[Any, Any, Any]:
    """The output rows for the known values of a column, for a missing and for an unknown one (or None)."""
    e = encoded[which]
    known = _ask(step, encoded, which, e.known) if e.known else None
    if known is None and e.known:
        raise ExportError(f"{type(step).__name__} refuses its own categories of {e.column.name!r}")
    missing = _ask(step, encoded, which, [e.missing])
    unknown = _ask(step, encoded, which, [e.unknown()])
    return known, missing, unknown


def _listed(e: _Encoded, missing: int | None, unknown: int | None) -> dict[str, Any]:
    listed: dict[str, Any] = {"texts": e.known} if e.column.category else {"numbers": floats(e.known)}
    if missing is not None:
        listed["missing"] = missing
    if unknown is not None:
        listed["unknown"] = unknown
    return listed


def _encoder_columns(program: Program, step: Any, columns: Sequence[Column], kinds: Kinds) -> list[_Encoded]:
    program.require([c for c in columns if not c.category], "finite")
    out = []
    for column, categories in zip(columns, step.categories_):
        missing = kinds.missing[column.source] if column.source is not None else math.nan
        out.append(_Encoded(column, categories, missing))
    return out


def _one_hot(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    encoded = _encoder_columns(program, step, columns, kinds)
    widths = [int(n) for n in step._n_features_outs]
    starts = np.cumsum([0, *widths])
    encodings, positions, names = [], [], []
    made_names = _one_hot_names(step, columns, widths)
    for i, e in enumerate(encoded):
        window = slice(int(starts[i]), int(starts[i + 1]))
        known, missing, unknown = _answers(step, encoded, i)
        table = [] if known is None else [_hot(row[window]) for row in known]
        codes: list[int | None] = []
        for answer in (missing, unknown):
            if answer is None:
                codes.append(None)
            else:
                codes.append(len(table))
                table.append(_hot(answer[0][window]))
        if not table:
            raise ExportError(f"OneHotEncoder knows no value of {e.column.name!r}")
        encodings.append(_listed(e, codes[0] if missing is not None else None, codes[1]))
        if missing is None and unknown is not None:
            program.require([e.column], "present")
        positions.append(table)
        names += made_names[window]
    parameters = {"encodings": encodings, "positions": positions, "widths": widths}
    return program.sound(program.add("one_hot", columns, names, parameters))


def _hot(row: Any) -> int:
    at = np.flatnonzero(row)
    return int(at[0]) if len(at) else -1


def _one_hot_names(step: Any, columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    try:
        names = [str(n) for n in step.get_feature_names_out()]
    except (ValueError, TypeError, AttributeError):
        names = []
    if len(names) == sum(widths):
        return names
    return [f"{c.name}_{k}" for c, width in zip(columns, widths) for k in range(width)]


def _looked_up(
    program: Program, step: Any, columns: Sequence[Column], kinds: Kinds, per_column: int, how: str, by_feature: bool
) -> list[Column]:
    """Encoders whose output is a number for each value: per_column outputs for each column."""
    encoded = _encoder_columns(program, step, columns, kinds)
    read, encodings, results, names = [], [], [], []
    for i, e in enumerate(encoded):
        known, missing, unknown = _answers(step, encoded, i)
        for k in range(per_column):
            at = i * per_column + k if by_feature else i
            table = [] if known is None else [float(row[at]) for row in known]
            codes: list[int | None] = []
            for answer in (missing, unknown):
                if answer is None:
                    codes.append(None)
                else:
                    codes.append(len(table))
                    table.append(float(answer[0][at]))
            if not table:
                raise ExportError(f"{type(step).__name__} knows no value of {e.column.name!r}")
            if missing is None and unknown is not None:
                program.require([e.column], "present")
            read.append(e.column)
            encodings.append(_listed(e, codes[0], codes[1]))
            results.append(gaps(table))
            names.append(f"{how}({e.column.name})" if per_column == 1 else f"{how}({e.column.name}, {k})")
    made = program.add("lookup", read, names, {"encodings": encodings, "results": results})
    for column, looked_up in zip(made, results):
        if None not in looked_up:
            program.sound([column])
        else:
            program.checked.setdefault(column.name, set()).update(("finite", "single"))
    return made


def _ordinal(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    return _looked_up(program, step, columns, kinds, 1, "ordinal", True)


def _target(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    multi = len(step.classes_) if step.target_type_ == "multiclass" else 1
    return _looked_up(program, step, columns, kinds, multi, "target", True)


def _fill(column: Column, value: Any, step: Any) -> Any:
    value = _plain(value)
    if column.category:
        if not isinstance(value, str):
            raise ExportError(f"{type(step).__name__} puts {value!r} into the category {column.name!r}, which is no text")
        return value
    return floats([value])[0]


def _impute(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    marker = step.missing_values
    absent = _missing(marker)
    if not absent:
        program.require(columns, "present")
    numeric = [c for c in columns if not c.category]
    gapless = _gaps_left(program, step, columns, rows, kinds) if absent else set()
    program.require(numeric, "finite")
    groups: dict[bool, list[int]] = {}
    keep = []
    for i, (column, value) in enumerate(zip(columns, step.statistics_)):
        value = _plain(value)
        if _missing(value) and step.strategy != "constant" and not getattr(step, "keep_empty_features", False):
            continue  # a column that was empty in training is left out
        if _missing(value):
            raise ExportError(f"SimpleImputer has no value for {column.name!r}, which was empty in training")
        keep.append(i)
        groups.setdefault(column.category, []).append(i)
    made: dict[int, Column] = {i: columns[i] for i in gapless}
    for category, all_of_them in groups.items():
        at = [i for i in all_of_them if i not in gapless]
        read = [columns[i] for i in at]
        if not at:
            continue
        if not absent and category != isinstance(marker, str):
            for i in at:  # the marker cannot occur among values of this kind
                made[i] = columns[i]
            continue
        parameters: dict[str, Any] = {"values": [_fill(columns[i], step.statistics_[i], step) for i in at]}
        if not absent:
            parameters["missing"] = marker if category else floats([marker])[0]
        step_columns = program.add("impute", read, _named(read, "imputed"), parameters)
        for i, column in zip(at, step_columns):
            made[i] = Column(column.name, category, columns[i].source)
            program.inherit([made[i]], [columns[i]], "finite", "single")
            program.checked[column.name].add("present")
    out = [made[i] for i in keep]
    if step.add_indicator:
        out += _missing_indicator(program, step.indicator_, columns, rows, kinds)
    return out


def _gaps_left(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> set[int]:
    """Positions of the categories whose missing values the imputer does not fill: it takes None, NaN and pd.NA apart.

    Where it raises for one, the column must not have any.
    """
    left: set[int] = set()
    for i, column in enumerate(columns):
        if not column.category or column.source is None or rows is None or len(rows) == 0:
            continue
        row: Any = rows.iloc[:1].astype(object) if hasattr(rows, "iloc") else np.array(rows[:1], dtype=object)
        gap = kinds.missing[column.source]
        if hasattr(row, "iloc"):
            row.isetitem(i, pd.Series([gap], index=row.index, dtype=object))
        else:
            row[0, i] = gap
        try:
            out = transformed(step, row)
        except (ValueError, TypeError):
            program.require([column], "present")
            continue
        kept = [k for k, v in enumerate(step.statistics_) if not _missing(_plain(v)) or getattr(step, "keep_empty_features", False)]
        if i in kept:
            value = out.iloc[0, kept.index(i)] if hasattr(out, "iloc") else out[0, kept.index(i)]
            if _missing(value):
                left.add(i)
    return left


def _missing_indicator(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    marker = step.missing_values
    picked = [columns[i] for i in step.features_]
    if step.features == "missing-only" and step.error_on_new:
        program.require([c for i, c in enumerate(columns) if i not in set(step.features_)], "present")
    parameters: dict[str, Any] = {}
    if not _missing(marker):
        program.require(columns, "present")
        parameters["missing"] = _plain(marker)
    program.require([c for c in columns if not c.category], "finite")
    if not picked:
        return []
    return program.sound(program.add("missing_indicator", picked, _named(picked, "missing"), parameters))


def _bins(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    _require(program, step, columns)
    edges = [floats(e[1:-1]) for e in step.bin_edges_]
    binned = program.sound(program.add("bin", columns, _named(columns, "bin"), {"edges": edges}))
    if step.encode == "ordinal":
        return binned
    encodings, positions, widths, names = [], [], [], []
    for column, n in zip(columns, step.n_bins_):
        encodings.append({"numbers": [float(k) for k in range(int(n))]})
        positions.append(list(range(int(n))))
        widths.append(int(n))
        names += [f"{column.name} in bin {k}" for k in range(int(n))]
    parameters = {"encodings": encodings, "positions": positions, "widths": widths}
    return program.sound(program.add("one_hot", binned, names, parameters))


def _power(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    _require(program, step, columns)
    if step.method == "box-cox":
        method = "box_cox"
    else:
        # Which of two forms this release computes shows where they differ most: beside 0.
        x, exponent = 1e-9, 0.3
        alone = copy.copy(step)
        alone.lambdas_, alone.standardize, alone.n_features_in_ = np.array([exponent]), False, 1
        alone.set_output(transform="default")
        vars(alone).pop("feature_names_in_", None)
        got = float(alone.transform(np.array([[x]]))[0, 0])
        by_logarithm = math.expm1(exponent * math.log1p(x)) / exponent
        method = "yeo_johnson_log" if abs(got - by_logarithm) <= 1e-12 * by_logarithm else "yeo_johnson"
    parameters = {"method": method, "lambdas": floats(step.lambdas_)}
    made = program.add("power", columns, _named(columns, "power"), parameters)
    program.inherit(made, columns, "present")
    if not step.standardize:
        return made
    scaler = step._scaler
    parameters = {"mean": floats(scaler.mean_), "scale": floats(scaler.scale_)}
    out = program.add("scale", made, _named(made, "scaled"), parameters)
    return program.inherit(out, made, "present")


def _quantile(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    _require(program, step, columns)
    parameters = {
        "quantiles": [floats(step.quantiles_[:, i]) for i in range(len(columns))],
        "references": floats(step.references_),
    }
    if step.output_distribution == "normal":
        border = 1e-7 - np.spacing(1)  # scikit-learn's BOUNDS_THRESHOLD
        parameters["normal"] = True
        parameters["range"] = floats([stats.norm.ppf(border), stats.norm.ppf(1 - border)])
    made = program.add("quantile", columns, _named(columns, "quantile"), parameters)
    return program.inherit(made, columns, "present", "finite", "single")


def _polynomial(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    _require(program, step, columns)
    powers = [[int(p) for p in row] for row in step.powers_]
    names = []
    for row in powers:
        factors = [c.name if p == 1 else f"{c.name}^{p}" for c, p in zip(columns, row) if p]
        names.append(" * ".join(factors) or "1")
    made = program.add("polynomial", columns, names, {"powers": powers})
    if all(program.checked.get(c.name, set()) >= {"present"} for c in columns):
        for column in made:
            program.checked.setdefault(column.name, set()).add("present")
    return made


_FUNCTIONS = {
    "log": "log", "log1p": "log1p", "log2": "log2", "log10": "log10", "exp": "exp", "expm1": "expm1",
    "sqrt": "sqrt", "cbrt": "cbrt", "absolute": "abs", "abs": "abs", "fabs": "abs", "tanh": "tanh",
    "sin": "sin", "cos": "cos", "square": "square", "reciprocal": "reciprocal", "negative": "negative",
    "sign": "sign", "expit": "logistic",
}  # fmt: skip


def _function(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    if step.func is None:
        if step.validate:
            _require(program, step, columns)
        return list(columns)
    name = _FUNCTIONS.get(getattr(step.func, "__name__", ""))
    if not isinstance(step.func, np.ufunc) or name is None or step.kw_args:
        func = getattr(step.func, "__name__", repr(step.func))
        reason = f"the function {func!r} is none of numpy's {', '.join(sorted(_FUNCTIONS))}"
        raise UnsupportedEstimatorError(step, reason)
    numbers(columns, step)
    if step.validate:
        _require(program, step, columns)
    made = program.add("function", columns, _named(columns, name), {"name": name})
    return _in_own_precision(program, step, name, made, rows)


# Rounding their result in float64 gives their result in float32.
_ROUNDED = ("sqrt", "abs", "square", "reciprocal", "negative", "sign")


def _in_own_precision(program: Program, step: Any, name: str, made: list[Column], rows: Any) -> list[Column]:
    """Round what numpy computes in float32; it takes bytes and short integers to smaller floats, too."""
    if rows is None:
        return made
    want, got = (np.asarray(transformed(step, r)) for r in (rows, doubled(rows)))
    frame = transformed(step, rows)
    out = []
    for i, column in enumerate(made):
        dtype = frame.dtypes.iloc[i] if hasattr(frame, "dtypes") else want.dtype
        single = str(dtype).lower() == "float32"
        wanted, given = want[:, i].astype(np.float64), got[:, i].astype(np.float64)
        if single and name in _ROUNDED:
            given = given.astype(np.float32).astype(np.float64)
        if not np.array_equal(wanted, given, equal_nan=True) or (single and name not in _ROUNDED):
            raise SinglePrecisionError(step)
        out += rounded(program, [column]) if single else [column]
    return out


def _select(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    if not any(c.category for c in columns):
        call = step.transform
        if hasattr(rows, "iloc"):  # with set_output("pandas") a selector looks at no value of a data frame

            def call(X: Any) -> Any:
                return step.transform(pd.DataFrame(X, columns=rows.columns))

        program.require(columns, *[r for r in refusals(call, len(columns)) if r != "single"])
    return [c for c, keep in zip(columns, step.get_support()) if keep]


_UNITS = {"date": "days", "timestamp": "milliseconds"}


def _unit(column: Column, digits: bool, kinds: Kinds) -> str:
    kind = kinds.kinds[column.source] if column.source is not None else ""
    if digits and kind == "number":
        return "yyyymmdd"
    if not digits and kind in _UNITS:
        return _UNITS[kind]
    raise ExportError(f"{column.name!r} is no date here; DateParts and DaysBetween read dates, or numbers with digits=True")


def _date_parts(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    out = []
    for column in columns:
        parameters = {"unit": _unit(column, step.digits, kinds), "parts": list(step.parts)}
        out += program.add("date_part", [column], [f"{part}({column.name})" for part in step.parts], parameters)
    return out


def _days_between(program: Program, step: Any, columns: Sequence[Column], rows: Any, kinds: Kinds) -> list[Column]:
    units = [_unit(c, step.digits, kinds) for c in columns]
    name = f"days from {columns[0].name} to {columns[1].name}"
    return program.add("days_between", columns, [name], {"units": units})


# Their precision is seen to by their parts or by themselves.
_BY_THEMSELVES = ("Pipeline", "ColumnTransformer", "FeatureUnion", "FunctionTransformer")

_LOWERED: dict[str, Lower] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _feature_union,
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "Normalizer": _normalize,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "TargetEncoder": _target,
    "SimpleImputer": _impute,
    "MissingIndicator": _missing_indicator,
    "KBinsDiscretizer": _bins,
    "PowerTransformer": _power,
    "QuantileTransformer": _quantile,
    "PolynomialFeatures": _polynomial,
    "FunctionTransformer": _function,
}
