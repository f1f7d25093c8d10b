"""The flat list of steps that model.json holds, while it is being built."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ExportError


@dataclass(frozen=True)
class Column:
    """One value of a row: a number, or the text of a category input."""

    name: str
    category: bool = False
    # The value as it came with the event: encoders of it know which values are missing.
    source: int | None = None


@dataclass
class Program:
    """Steps over named columns; every name is written once."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    checked: dict[str, set[str]] = field(default_factory=dict)

    def declare(self, name: str, category: bool, source: int) -> Column:
        """Add a declared input."""
        if name in self.taken:
            raise ExportError(f"two inputs are called {name!r}")
        self.taken.add(name)
        return Column(name, category, source)

    def fresh(self, name: str) -> str:
        """A name that no column has yet."""
        base, n = name, 1
        while name in self.taken:
            n += 1
            name = f"{base} #{n}"
        self.taken.add(name)
        return name

    def add(
        self,
        kind: str,
        columns: Sequence[Column],
        outputs: Iterable[str],
        parameters: dict[str, Any] | None = None,
    ) -> list[Column]:
        """Append a step; returns the columns that it makes."""
        made = [Column(self.fresh(name)) for name in outputs]
        step: dict[str, Any] = {
            "type": kind,
            "columns": [c.name for c in columns],
            "outputs": [c.name for c in made],
        }
        if parameters:
            step["parameters"] = parameters
        self.steps.append(step)
        return made

    def require(self, columns: Sequence[Column], *rules: str) -> None:
        """Refuse rows whose columns are missing ("present"), infinite ("finite") or beyond float32 ("single").

        What was required of a column before is not required again.
        """
        wanted: dict[tuple[str, ...], list[Column]] = {}
        for column in columns:
            done = self.checked.setdefault(column.name, set())
            missing = tuple(r for r in rules if r not in done and not (column.category and r != "present"))
            if missing:
                wanted.setdefault(missing, []).append(column)
                done.update(missing)
        for missing, group in wanted.items():
            self.add("require", group, [], {rule: True for rule in missing})

    def sound(self, columns: Sequence[Column]) -> list[Column]:
        """Note that columns can be neither missing nor infinite nor large."""
        for column in columns:
            self.checked.setdefault(column.name, set()).update(("present", "finite", "single"))
        return list(columns)

    def inherit(self, to: Sequence[Column], of: Sequence[Column], *rules: str) -> list[Column]:
        """Note that columns are as sound as those that they were made of, as far as the rules go."""
        for made, source in zip(to, of):
            known = self.checked.get(source.name, set())
            self.checked.setdefault(made.name, set()).update(r for r in rules if r in known)
        return list(to)


def floats(values: Any) -> list[float]:
    """Finite numbers as a list that JSON keeps to the bit."""
    array = np.asarray(values, dtype=np.float64).ravel()
    odd = array[~np.isfinite(array)]
    if len(odd):
        raise ExportError(f"a parameter of the pipeline is {odd[0]}")
    out: list[float] = array.tolist()
    return out


def gaps(values: Any) -> list[float | None]:
    """Numbers of which some are missing."""
    return [None if math.isnan(x) else x for x in (float(v) for v in values)]


def numbers(columns: Sequence[Column], who: object) -> None:
    """Refuse categories where the library takes numbers only."""
    for column in columns:
        if column.category:
            raise ExportError(
                f"{type(who).__name__} reads {column.name!r}, which is a category; encode it first, "
                "or declare the input as a number"
            )
