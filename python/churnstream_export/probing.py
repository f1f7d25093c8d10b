"""What a fitted step does with odd values, found out by asking it."""

from __future__ import annotations

import warnings
from typing import Any, Callable

import numpy as np


def accepts(call: Callable[[Any], Any], features: int, value: float) -> bool:
    """Whether a fitted step takes a row with this value in its first column.

    A row that it does not take even without the value says nothing; then it counts as one that refuses.
    """
    if features == 0:
        return False
    for base in (0.0, 1.0):
        row = np.full((1, features), base)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                call(row)
            except Exception:  # the base itself does not suit
                continue
            row[0, 0] = value
            try:
                call(row)
            except Exception:
                return False
            return True
    return False


def refusals(call: Callable[[Any], Any], features: int) -> list[str]:
    """The rules of Program.require that a fitted step of numbers holds its columns to."""
    rules = []
    if not accepts(call, features, np.nan):
        rules.append("present")
    if not accepts(call, features, np.inf):
        rules.append("finite")
    if "finite" in rules and not accepts(call, features, 1e39):
        rules.append("single")
    return rules
