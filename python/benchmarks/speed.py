"""Times churnstream beside scikit-learn, one thread each, on the same models and rows.

    python python/benchmarks/speed.py            # needs go; --quick leaves the large forest out

scikit-learn's figure is that of predict_proba on a pipeline that is called with a numpy array; the time of a row is the
best of several repeats. churnstream's are those of BenchmarkArtefacts in scoring.
"""

from __future__ import annotations

import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import argparse
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


def best(call: Any, rows: int, seconds: float) -> float:
    """Nanoseconds a row of the fastest call."""
    fastest = float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest / rows * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
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
        models["forest-500-deep"] = RandomForestClassifier(500, random_state=0)
    repository = Path(__file__).resolve().parents[2]
    print(f"scikit-learn {sklearn.__version__}, numpy {np.__version__}, {ROWS} rows of 20 numbers")
    with tempfile.TemporaryDirectory() as place:
        for name, model in models.items():
            model.fit(X, y)
            export(model, X, Path(place) / name, label="made up", horizon="30d")
            for n in (1, 64, ROWS):
                if n == 1 and name == "forest-500-deep":
                    continue
                rows = X[:n]
                print(f"scikit-learn {name}, batch {n}: {best(lambda: model.predict_proba(rows), n, options.seconds):.0f} ns/row")
        subprocess.run(
            ["go", "test", "-run", "^$", "-bench", "BenchmarkArtefacts", f"-benchtime={options.seconds}s", "./scoring"],
            cwd=repository, env={**os.environ, "CHURNSTREAM_BENCH_MODELS": place, "GOMAXPROCS": "1"}, check=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
