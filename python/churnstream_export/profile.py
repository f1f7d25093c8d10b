"""profile.json: the population of the reference rows, which drift on the stream is measured against."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd

from .errors import ExportError

BINS = 10
CATEGORIES = 20
MAX_REST = 10_000
MAX_CATEGORY_BYTES = 256


def profile(
    names: Sequence[str],
    kinds: Sequence[str],
    columns: Sequence[list[Any]],
    scores: list[float],
    threshold: float | None = None,
    customers: Sequence[Any] | None = None,
    contributions: Sequence[Sequence[float]] | None = None,
    classes: Classed | None = None,
) -> dict[str, Any]:
    """Places and counts of every input, then of the score, then of the decision. Missing values are None.

    customers holds the key of each row's customer: rows of one customer are no independent ones. contributions holds a
    list for each row with what each input adds to its margin. classes says in which class of time each row is.
    """
    features = []
    for i, (name, kind, values) in enumerate(zip(names, kinds, columns)):
        if name == "score":
            raise ExportError('an input is called "score", which is the name of the model\'s probability; rename it')
        if kind == "category":
            feature, places = _category(name, values)
        elif kind == "boolean":
            feature = {"name": name, "kind": kind, "places": ["false", "true", "missing"]}
            places = [2 if v is None else int(bool(v)) for v in values]
        else:
            feature, places = _number(name, kind, values)
        feature["counts"] = _counted(feature, places)
        _classed(feature, places, classes)
        if contributions is not None:
            feature["contributions"] = _means(feature, places, [row[i] for row in contributions])
        features.append(feature)
    feature, places = _number("score", "number", list(scores))
    feature["counts"] = _counted(feature, places)
    _classed(feature, places, classes)
    features.append(feature)
    out: dict[str, Any] = {"format": 1, "events": len(scores), "design_effect": _design_effect(customers)}
    if threshold is not None and 0 < threshold < 1 and "decision" not in names:
        out["threshold"] = float(threshold)
        feature = {"name": "decision", "kind": "boolean", "places": ["retain", "churn"]}
        places = [int(p >= threshold) for p in scores]
        feature["counts"] = _counted(feature, places)
        _classed(feature, places, classes)
        features.append(feature)
    if classes is not None:
        events = [classes.rows.count(i) for i in range(len(classes.labels))]
        out["classes"] = {"by": classes.by, "zone": classes.zone, "labels": classes.labels, "events": events}
        _tell_thin(classes.labels, features, out["design_effect"])
    return {**out, "features": features}


@dataclass
class Classed:
    """Rows by class of time."""

    by: str
    zone: str
    labels: list[str]
    rows: list[int]  # class of each row


def divided(by: str | None, zone: str, times: Sequence[Any] | None, rows: int) -> Classed | None:
    """The class of each row by its time: the one of the quarter of an hour, UTC, that it is in."""
    if (by is None) != (times is None):
        raise ExportError("classes and times go together: a division such as weekend/6h, and the time of each reference row")
    if by is None or times is None:
        return None
    if len(times) != rows:
        raise ExportError(f"times: {len(times)} for {rows} reference rows")
    form = re.fullmatch(r"(weekdays|weekend)?(?:(?:^|(?<=.)/)(1|2|3|4|6|8|12)h)?", by)
    if form is None or not by:
        raise ExportError(f"classes: {by!r} is not a division of time such as weekend/6h, weekdays or 1h")
    hours = int(form[2] or 24)
    names = {"weekdays": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], "weekend": ["Mon-Fri", "Sat-Sun"], None: [""]}[form[1]]
    labels = [f"{day} {h:02}-{h + hours:02}h".strip() if hours < 24 else day for day in names for h in range(0, 24, hours)]
    try:
        at = pd.DatetimeIndex([_moment(t) for t in times])
        local = at.floor("15min").tz_convert(zone)
    except Exception as cause:  # whatever pandas and its time zones raise
        raise ExportError(f"times: they cannot be read as times of the zone {zone!r}: {cause}") from cause
    if at.isna().any():
        raise ExportError(f"times: reference row {int(at.isna().argmax())} has none")
    group = {7: lambda d: d, 2: lambda d: d // 5, 1: lambda d: d * 0}[len(names)](local.day_of_week)
    return Classed(by, zone, labels, (group * (24 // hours) + local.hour // hours).tolist())


def _moment(value: Any) -> Any:
    """Numbers are milliseconds since 1970, what has no zone is UTC."""
    at = pd.Timestamp(value, unit="ms") if isinstance(value, (int, float, np.number)) else pd.Timestamp(value)
    return at.tz_localize("UTC") if at.tzinfo is None else at.tz_convert("UTC")


def _tell_thin(labels: list[str], features: list[dict[str, Any]], design_effect: float) -> None:
    """Names the classes of which there are fewer customers than drift asks of a reference: 200 a place but one."""
    thin = []
    for i, label in enumerate(labels):
        few = [f for f in features if sum(f["classes"][i]) / design_effect < 200 * (len(f["places"]) - 1)]
        if few:
            thin.append(f"{label!r} for {len(few)} of {len(features)} features")
    if thin:
        named = ", ".join(thin[:5]) + (f" and {len(thin) - 5} more" if len(thin) > 5 else "")
        warnings.warn(f"too few rows in the classes {named}: of windows within them nothing can be said", stacklevel=2)


def _classed(feature: dict[str, Any], places: list[int], classes: Classed | None) -> None:
    if classes is not None:
        counts = [[0] * len(feature["places"]) for _ in classes.labels]
        for place, row in zip(places, classes.rows):
            counts[row][place] += 1
        feature["classes"] = counts


def _counted(feature: dict[str, Any], places: list[int]) -> list[int]:
    counts = [0] * len(feature["places"])
    for place in places:
        counts[place] += 1
    return counts


def _means(feature: dict[str, Any], places: list[int], contributions: list[float]) -> list[float]:
    """The mean contribution of each place; 0 where no row is."""
    sums = [0.0] * len(feature["places"])
    for place, contribution in zip(places, contributions):
        sums[place] += contribution
    return [total / max(1, n) for total, n in zip(sums, feature["counts"])]


def _design_effect(customers: Sequence[Any] | None) -> float:
    """Rows that are worth one independent customer: L. Kish's sum of m*m over the sum of m, m rows a customer."""
    if customers is None:
        return 1.0
    rows: dict[Any, int] = {}
    for customer in customers:
        rows[customer] = rows.get(customer, 0) + 1
    return sum(m * m for m in rows.values()) / sum(rows.values())


def _category(name: str, values: list[Any]) -> tuple[dict[str, Any], list[int]]:
    frequency: dict[str, int] = {}
    for v in values:
        if v is not None:
            if len(v.encode()) > MAX_CATEGORY_BYTES:
                raise ExportError(f"input {name!r}: a category of more than {MAX_CATEGORY_BYTES} bytes; free text is no category")
            frequency[v] = frequency.get(v, 0) + 1
    ordered = sorted(frequency, key=lambda v: (-frequency[v], v.encode()))
    top, rest = ordered[:CATEGORIES], ordered[CATEGORIES : CATEGORIES + MAX_REST]
    place = {v: i for i, v in enumerate(top)}
    places = [_quoted(v) for v in top]
    if rest:
        place.update((v, len(top)) for v in rest)
        places.append("other")
    places += ["unseen", "missing"]
    missing = len(places) - 1
    out: dict[str, Any] = {"name": name, "kind": "category"}
    if top:
        out["categories"] = top
    if rest:
        out["rest"] = rest
    return {**out, "places": places}, [missing if v is None else place.get(v, missing - 1) for v in values]


def _quoted(value: str) -> str:
    return f'"{value}"' if value in ("missing", "unseen", "other", "") or value.startswith('"') else value


def _number(name: str, kind: str, values: list[Any]) -> tuple[dict[str, Any], list[int]]:
    finite = sorted(v + 0.0 for v in values if v is not None and math.isfinite(v))
    low, high = (finite[0], finite[-1]) if finite else (0.0, 0.0)
    edges = _edges(finite, high)
    missing = len(edges) + 3  # behind under, the bins, over
    taken = []
    for v in values:
        if v is None or math.isnan(v):
            taken.append(missing)
        elif v < low:
            taken.append(0)
        elif v > high:
            taken.append(missing - 1)
        else:
            taken.append(1 + _bin(edges, v))
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
    if finite and taken.count(missing) + len(finite) == len(values):  # an infinite value has no mean
        mean = math.fsum(finite) / len(finite)
        out["mean"] = mean
        out["deviation"] = math.sqrt(math.fsum((v - mean) ** 2 for v in finite) / max(1, len(finite) - 1))
    return {**out, "places": places}, taken


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
