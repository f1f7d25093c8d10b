"""Times churnstream beside scikit-learn, XGBoost and ONNX Runtime in one run, one thread each, on the same models and rows.

    python python/benchmarks/speed.py --markdown docs/speed.txt       # needs go; --quick leaves the large forest out

The libraries' figures are those of calls from Python with a matrix: predict_proba of the fitted pipeline, ONNX Runtime with
the same model by skl2onnx (float32), XGBoost with a model of its own of as many trees and leaves at most. A library that is
not installed is left out. The time of a row is that of the fastest call. churnstream's figures are those of
BenchmarkArtefacts in scoring, with its allocations; "shap" is exact contributions with the three largest as reasons.
"""

from __future__ import annotations

import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import argparse
import importlib
import platform
import re
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from churnstream_export import export

ROWS = 4096
BATCHES = (1, 64, 300, ROWS)
DEEP = "forest-500-deep"
LIBRARIES = ("scikit-learn", "ONNX Runtime", "XGBoost", "churnstream")
Times = dict[tuple[str, str, str], float]  # model, batch or "shap", library: ns a row


def best(call: Any, rows: int, seconds: float) -> float:
    """Nanoseconds a row of the fastest call."""
    fastest = float("inf")
    until = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
        if time.perf_counter() > until:
            return fastest / rows * 1e9


def installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: left out")
        return None


def time_onnx(name: str, model: Any, X: Any, seconds: float, times: Times) -> None:
    onnxruntime, skl2onnx = installed("onnxruntime"), installed("skl2onnx")
    if onnxruntime is None or skl2onnx is None:
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    single = X.astype(np.float32)
    try:
        graph = skl2onnx.to_onnx(model, single[:1], options={"zipmap": False}, target_opset={"": 21, "ai.onnx.ml": 3})
    except Exception as fault:  # whatever the converter stumbles over
        print(f"{name}: skl2onnx makes no graph of it: {type(fault).__name__}")
        return
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    for n in BATCHES:
        times[name, str(n), "ONNX Runtime"] = best(lambda n=n: session.run(None, {feed: single[:n]}), n, seconds)


def time_xgboost(name: str, X: Any, y: Any, seconds: float, times: Times) -> None:
    xgboost = installed("xgboost")
    if xgboost is None:
        return
    booster = xgboost.XGBClassifier(n_estimators=100, max_depth=6, n_jobs=1, random_state=0).fit(X, y).get_booster()
    booster.set_param({"nthread": 1})
    for n in BATCHES:
        times[name, str(n), "XGBoost"] = best(lambda n=n: booster.inplace_predict(X[:n]), n, seconds)
    rows = xgboost.DMatrix(X[:64])
    times[name, "shap", "XGBoost"] = best(lambda: booster.predict(rows, pred_contribs=True), 64, seconds)


def time_here(place: str, seconds: float, times: Times) -> None:
    repository = Path(__file__).resolve().parents[2]
    out = subprocess.run(
        ["go", "test", "-run", "^$", "-bench", "BenchmarkArtefacts", f"-benchtime={seconds}s", "./scoring"],
        cwd=repository, env={**os.environ, "CHURNSTREAM_BENCH_MODELS": place, "GOMAXPROCS": "1"}, check=True,
        stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    for line in out.splitlines():
        found = re.match(r"BenchmarkArtefacts/(\S+?)/batch=(\d+)(/reasons=3)?\s.*?([\d.]+) ns/row.*?(\d+) allocs/op", line)
        if found:
            name, batch, reasons, ns, allocations = found.groups()
            times[name, "shap" if reasons else batch, "churnstream"] = float(ns)
            if allocations != "0":
                print(f"{name}, batch {batch}: {allocations} allocations a batch")


def table(times: Times) -> str:
    lines = [f"| model, 20 inputs | rows at once | {' | '.join(LIBRARIES)} |", "|---|---|" + "---|" * len(LIBRARIES)]
    for name, batch in dict.fromkeys((name, batch) for name, batch, _ in times):
        cells = [f"{times[name, batch, k]:,.0f}" if (name, batch, k) in times else "–" for k in LIBRARIES]
        lines.append(f"| {name} | {'64, contributions' if batch == 'shap' else batch} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave the forest of 500 deep trees out")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--markdown", type=Path, help="write the table here, too")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rng = np.random.default_rng(0)
    X = np.round(rng.normal(size=(ROWS, 20)), 3)
    y = (X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=ROWS) > 0).astype(int)
    models = {
        "logistic-20": make_pipeline(StandardScaler(), LogisticRegression()),
        "boosting-100x6": GradientBoostingClassifier(max_depth=6, random_state=0),
        "histogram-100x6": HistGradientBoostingClassifier(max_depth=6, random_state=0),
        "forest-100x6": RandomForestClassifier(100, max_depth=6, random_state=0),
    }
    if not options.quick:
        models[DEEP] = RandomForestClassifier(500, random_state=0)
    versions = [f"{m} {v.__version__}" for m in ("onnxruntime", "skl2onnx", "xgboost") if (v := installed(m))]
    about = ", ".join([platform.platform(), f"scikit-learn {sklearn.__version__}", f"numpy {np.__version__}", *versions])
    print(f"{about}; {ROWS} rows of 20 numbers, ns a row", flush=True)
    times: Times = {}
    with tempfile.TemporaryDirectory() as place:
        for name, model in models.items():
            model.fit(X, y)
            export(model, X[:1000], Path(place) / name, label="made up", horizon="30d")
            for n in BATCHES:
                times[name, str(n), "scikit-learn"] = best(lambda m=model, n=n: m.predict_proba(X[:n]), n, options.seconds)
            if name != DEEP:
                time_onnx(name, model, X, options.seconds, times)
            if name == "boosting-100x6":
                time_xgboost(name, X, y, options.seconds, times)
            print(f"{name}: fitted, exported, timed", flush=True)
        time_here(place, options.seconds, times)
    order = {name: i for i, name in enumerate(models)}
    text = table(dict(sorted(times.items(), key=lambda t: (order[t[0][0]], t[0][1] == "shap", t[0][1].zfill(6)))))
    print(text)
    if options.markdown:
        options.markdown.write_text(f"{about}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
