"""Transformers of dates, for use in scikit-learn pipelines that are to be exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

PARTS = ("year", "quarter", "month", "day", "weekday", "day_of_year", "hour", "days")


def _dates(column: Any, digits: bool) -> pd.Series:
    series = pd.Series(np.asarray(column)) if not isinstance(column, pd.Series) else column.reset_index(drop=True)
    if not digits:
        return pd.to_datetime(series)
    number = pd.to_numeric(series)
    text = number.astype("Int64").astype("string")
    return pd.to_datetime(text, format="%Y%m%d", errors="coerce")


def _frame(X: Any) -> pd.DataFrame:
    return X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))


class DateParts(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Makes numbers of dates: year, quarter, month, day, weekday (Monday is 0), day_of_year, hour, days (since 1970).

    ``digits=True`` reads numbers such as 20170131, the form of the KKBox tables. What is missing or no date
    gives NaN in all parts.
    """

    def __init__(self, parts: Sequence[str] = ("year", "month", "weekday"), digits: bool = False) -> None:
        self.parts = parts
        self.digits = digits

    def fit(self, X: Any, y: Any = None) -> DateParts:
        frame = _frame(X)
        unknown = [p for p in self.parts if p not in PARTS]
        if unknown:
            raise ValueError(f"parts: {unknown} are not among {PARTS}")
        self.n_features_in_ = frame.shape[1]
        if all(isinstance(c, str) for c in frame.columns):
            self.feature_names_in_ = np.asarray(frame.columns, dtype=object)
        return self

    def transform(self, X: Any) -> Any:
        frame = _frame(X)
        out = []
        for i in range(frame.shape[1]):
            dates = _dates(frame.iloc[:, i], self.digits)
            for part in self.parts:
                out.append(_part(dates, part))
        return np.column_stack(out)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        names = input_features if input_features is not None else getattr(self, "feature_names_in_", None)
        if names is None:
            names = [f"x{i}" for i in range(self.n_features_in_)]
        return np.asarray([f"{name}_{part}" for name in names for part in self.parts], dtype=object)


def _part(dates: pd.Series, part: str) -> Any:
    if part == "days":
        value = (dates - pd.Timestamp(0)) / pd.Timedelta(days=1)
    elif part == "day_of_year":
        value = dates.dt.day_of_year
    else:
        value = getattr(dates.dt, part)
    return np.asarray(value, dtype=np.float64)


class DaysBetween(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Makes one number of two columns of dates: the days from the first to the second.

    ``digits=True`` reads numbers such as 20170131. NaN where one of them is missing or no date.
    """

    def __init__(self, digits: bool = False) -> None:
        self.digits = digits

    def fit(self, X: Any, y: Any = None) -> DaysBetween:
        frame = _frame(X)
        if frame.shape[1] != 2:
            raise ValueError(f"DaysBetween takes two columns, not {frame.shape[1]}")
        self.n_features_in_ = 2
        if all(isinstance(c, str) for c in frame.columns):
            self.feature_names_in_ = np.asarray(frame.columns, dtype=object)
        return self

    def transform(self, X: Any) -> Any:
        frame = _frame(X)
        start, end = (_dates(frame.iloc[:, i], self.digits) for i in range(2))
        epoch, day = pd.Timestamp(0), pd.Timedelta(days=1)
        days = np.asarray((end - epoch) / day, dtype=np.float64) - np.asarray((start - epoch) / day, dtype=np.float64)
        return days.reshape(-1, 1)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        names = input_features if input_features is not None else getattr(self, "feature_names_in_", ("x0", "x1"))
        return np.asarray([f"days from {names[0]} to {names[1]}"], dtype=object)
