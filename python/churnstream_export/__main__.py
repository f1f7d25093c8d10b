"""python -m churnstream_export PIPELINE.joblib --reference rows.csv --output DIR"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from .artefact import export
from .errors import ExportError


def main(arguments: list[str] | None = None) -> int:
    """0: written; 1: the pipeline or the rows cannot be exported; 2: wrong usage."""
    parser = argparse.ArgumentParser(
        prog="churnstream_export",
        description="Write a saved scikit-learn pipeline as a churnstream model artefact.",
        epilog="Example: python -m churnstream_export churn.joblib --reference rows.csv --output models/churn-1.0.0. "
        "A saved pipeline is a pickle: loading it runs code, so load only what you trust.",
    )
    parser.add_argument("pipeline", metavar="PIPELINE.joblib", help="fitted pipeline, saved by joblib.dump or pickle")
    parser.add_argument("--reference", required=True, metavar="ROWS.csv", help="rows of the training population (CSV; an empty cell is missing) or .parquet, .jsonl")
    parser.add_argument("--output", required=True, metavar="DIR", help="directory to write; absent or empty")
    parser.add_argument("--inputs", metavar="FILE.json", help="declared inputs: a list or an object as export() takes it")
    parser.add_argument("--label", default=None, help="what the probability is about, in words")
    parser.add_argument("--positive", default=None, help="the class that means churn (default: the last)")
    parser.add_argument("--horizon", default=None, help="how far the label looks ahead, such as 30d")
    parser.add_argument("--name", default=None, help="name of the model (default: that of the directory)")
    parser.add_argument("--version", default="1.0.0", help="version of the model (default: 1.0.0)")
    parser.add_argument("--customer", default=None, metavar="COLUMN", help="column with the customer's key: rows of one customer count once in the drift reference")
    parser.add_argument("--time", default=None, metavar="COLUMN", help="column with the time of a row, for --classes; without a zone it is UTC")
    parser.add_argument("--classes", default=None, help="divide time, such as weekend/6h: each class is a drift reference of its own")
    parser.add_argument("--zone", default="UTC", help="time zone of the classes, such as Europe/Berlin (default: UTC)")
    parser.add_argument("--threshold", type=float, default=None, help="least probability that decides for churn (default: 0.5)")
    options = parser.parse_args(arguments)
    if (options.time is None) != (options.classes is None):
        parser.error("--classes and --time go together")

    import joblib

    try:
        pipeline = joblib.load(options.pipeline)
        inputs: Any = None
        if options.inputs:
            inputs = json.loads(Path(options.inputs).read_text(encoding="utf-8"))
        beside = [c for c in (options.customer, options.time) if c is not None]
        rows, aside = _rows(Path(options.reference), pipeline, _kinds(inputs), beside)
        digest = export(
            pipeline, rows, options.output, inputs=inputs,
            label={"definition": options.label or "", "positive": options.positive}, horizon=options.horizon,
            name=options.name, version=options.version, threshold=options.threshold,
            customers=aside.get(options.customer), times=aside.get(options.time), classes=options.classes, zone=options.zone,
        )  # fmt: skip
    except (ExportError, OSError, ImportError, AttributeError, ValueError) as fault:
        print(f"churnstream_export: {fault}", file=sys.stderr)
        return 1
    print(f"{options.output}: {digest}")
    return 0


def _kinds(inputs: Any) -> dict[str, str]:
    """The kinds that a file of inputs declares."""
    if isinstance(inputs, dict):
        given = [(name, v if isinstance(v, str) else (v or {}).get("kind")) for name, v in inputs.items()]
    else:
        given = [(v.get("name"), v.get("kind")) for v in inputs or [] if isinstance(v, dict)]
    return {str(name): str(kind) for name, kind in given if kind}


def _rows(path: Path, pipeline: Any, kinds: dict[str, str], beside: list[str]) -> tuple[pd.DataFrame, dict[str, list[Any]]]:
    """Rows of a file, and the columns beside the inputs; only an empty cell is missing, so that the text NA stays one.

    A column that is declared as a category is read as text, one that is declared as a date or timestamp as such.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        frame = pd.read_parquet(path)
    elif suffix in (".jsonl", ".ndjson"):
        frame = pd.read_json(path, lines=True, convert_dates=False)
    else:
        texts = {name: "str" for name, kind in kinds.items() if kind == "category"}
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=texts)
        for name, kind in kinds.items():
            if kind in ("date", "timestamp") and name in frame.columns:
                frame[name] = pd.to_datetime(frame[name])
    aside = {}
    for column in beside:
        if column not in frame.columns:
            raise ExportError(f"{path} has no column {column!r}")
        if frame[column].isna().any():
            row = int(frame[column].isna().to_numpy().argmax())
            raise ExportError(f"{path}: row {row} has no {column!r}")
        aside[column] = frame[column].tolist()
    names = getattr(pipeline, "feature_names_in_", None)
    if names is None:  # what is left is the inputs
        frame = frame.drop(columns=[c for c in beside if c not in kinds])
    if names is None and frame.shape[1] > (wanted := getattr(pipeline, "n_features_in_", frame.shape[1])):
        raise ExportError(f"{path} has {frame.shape[1]} columns, the pipeline was trained on {wanted} without names")
    return frame, aside


if __name__ == "__main__":
    sys.exit(main())
