"""profile.json: the population of the reference rows, which drift on the stream is measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

from .errors import ExportError

BINS = 10
CATEGORIES = 20
MAX_REST = 10_000
MAX_CATEGORY_BYTES = 256


def profile(names: Sequence[str], kinds: Sequence[str], columns: Sequence[list[Any]], scores: list[float]) -> dict[str, Any]:
    """Places and counts of every input, then of the score. Missing values are None."""
    features = []
    for name, kind, values in zip(names, kinds, columns):
        if name == "score":
            raise ExportError('an input is called "score", which is the name of the model\'s probability; rename it')
        if kind == "category":
            features.append(_category(name, values))
        elif kind == "boolean":
            yes = sum(1 for v in values if v)
            missing = sum(1 for v in values if v is None)
            counts = [len(values) - yes - missing, yes, missing]
            features.append({"name": name, "kind": kind, "places": ["false", "true", "missing"], "counts": counts})
        else:
            features.append(_number(name, kind, values))
    features.append(_number("score", "number", list(scores)))
    return {"format": 1, "events": len(scores), "features": features}


def _category(name: str, values: list[Any]) -> dict[str, Any]:
    frequency: dict[str, int] = {}
    for v in values:
        if v is not None:
            if len(v.encode()) > MAX_CATEGORY_BYTES:
                raise ExportError(f"input {name!r}: a category of more than {MAX_CATEGORY_BYTES} bytes; free text is no category")
            frequency[v] = frequency.get(v, 0) + 1
    ordered = sorted(frequency, key=lambda v: (-frequency[v], v.encode()))
    top, rest = ordered[:CATEGORIES], ordered[CATEGORIES : CATEGORIES + MAX_REST]
    unseen = sum(frequency[v] for v in ordered[CATEGORIES + MAX_REST :])
    counts = [frequency[v] for v in top]
    places = [_quoted(v) for v in top]
    if rest:
        counts.append(sum(frequency[v] for v in rest))
        places.append("other")
    counts += [unseen, sum(1 for v in values if v is None)]
    places += ["unseen", "missing"]
    out: dict[str, Any] = {"name": name, "kind": "category"}
    if top:
        out["categories"] = top
    if rest:
        out["rest"] = rest
    return {**out, "places": places, "counts": counts}


def _quoted(value: str) -> str:
    return f'"{value}"' if value in ("missing", "unseen", "other", "") or value.startswith('"') else value


def _number(name: str, kind: str, values: list[Any]) -> dict[str, Any]:
    finite = sorted(v + 0.0 for v in values if v is not None and math.isfinite(v))
    low, high = (finite[0], finite[-1]) if finite else (0.0, 0.0)
    edges = _edges(finite, high)
    counts = [0] * (len(edges) + 4)  # under, bins, over, missing
    for v in values:
        if v is None or math.isnan(v):
            counts[-1] += 1
        elif v < low:
            counts[0] += 1
        elif v > high:
            counts[-2] += 1
        else:
            counts[1 + _bin(edges, v)] += 1
    bounds = [_shown(kind, b) for b in (low, *edges, high)]
    places = [f"< {bounds[0]}"]
    places += [f"{'[' if i == 0 else '('}{bounds[i]}, {bounds[i + 1]}]" for i in range(len(edges) + 1)]
    places += [f"> {bounds[-1]}", "missing"]
    out: dict[str, Any] = {"name": name, "kind": kind}
    if low:
        out["minimum"] = low
    if high:
        out["maximum"] = high
    if edges:
        out["edges"] = edges
    return {**out, "places": places, "counts": counts}


def _edges(finite: list[float], high: float) -> list[float]:
    distinct = sorted(set(finite))
    if len(distinct) <= BINS:
        return distinct[:-1]
    edges: list[float] = []
    for i in range(1, BINS):
        edge = finite[(i * len(finite) + BINS - 1) // BINS - 1]
        if edge < high and (not edges or edge > edges[-1]):
            edges.append(edge)
    return edges


def _bin(edges: list[float], v: float) -> int:
    """The first bin whose upper end is not below v."""
    low, high = 0, len(edges)
    while low < high:
        middle = (low + high) // 2
        if edges[middle] < v:
            low = middle + 1
        else:
            high = middle
    return low


def _shown(kind: str, v: float) -> str:
    try:
        if kind == "date":
            return (date(1970, 1, 1) + timedelta(days=v)).isoformat()
        if kind == "timestamp":
            return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=v)).isoformat()
    except OverflowError:
        pass
    return f"{v:.12g}"
