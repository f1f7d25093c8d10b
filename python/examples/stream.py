"""The whole path: fit, export, verify, stream, and the scores of the stream beside predict_proba.

    python python/examples/stream.py --command ./churnstream                          # broker and registry of churnstream dev
    python python/examples/stream.py --command ./churnstream --brokers kafka:9092     # a broker of yours

Both reference systems (telco.py, subscriptions.py) are fitted and exported. For each, the rows of the test set become
events by `churnstream produce`, a worker scores them by `churnstream run`, and the scores are read over its HTTP API. Every
probability must be that of predict_proba, to 1e-12 of itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import subscriptions
import telco
from sklearn.pipeline import make_pipeline

from churnstream_export import export

REPOSITORY = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-12


def systems(rows: int) -> Iterator[tuple[str, Any, pd.DataFrame, pd.DataFrame]]:
    """Name, fitted pipeline, its training rows and rows to score."""
    frame, churn, _ = telco.customers(REPOSITORY / "internal/telco/Telco-Customer-Churn.csv.gz")
    training, test = frame.iloc[rows:], frame.iloc[:rows]
    yield "telco", telco.pipeline().fit(training, churn[rows:]), training, test
    table = subscriptions.made_up(3000)
    inputs = [*subscriptions.NUMBERS, "gender", *subscriptions.DATES]
    vote = make_pipeline(subscriptions.columns(), subscriptions.models()["vote"])
    yield "subscriptions", vote.fit(table[inputs].iloc[rows:], table.is_churn.iloc[rows:]), table[inputs].iloc[rows:], table[inputs].iloc[:rows]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[None]:
    """A command that runs as long as the block."""
    with open(log, "wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield
    except BaseException:
        print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
        raise
    finally:
        started.terminate()
        started.wait(30)


def answer(url: str) -> Any:
    """What the API says; None while it has nothing to say."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return json.load(response)
    except urllib.error.HTTPError as refusal:
        if refusal.code in (404, 503):
            return None
        raise
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def wait(what: str, seconds: float, ready: Any) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = ready()
        if found is not None:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {seconds:.0f} s")


def stream(command: str, name: str, brokers: str, registry: str, model: Path, rows: pd.DataFrame, place: Path) -> list[float]:
    """The probabilities of rows, by way of the stream."""
    api, run = f"127.0.0.1:{free_port()}", f"{name}-{uuid.uuid4().hex[:8]}"
    configuration = {
        "brokers": brokers.split(","), "registry": {"urls": [registry]}, "model": str(model), "group": {"id": run},
        "topics": {"events": f"{run}-events", "scores": f"{run}-scores", "dead_letters": f"{run}-dead-letters",
                   "drift_state": f"{run}-drift-state", "drift_alerts": f"{run}-drift-alerts"},
        "create_topics": {"enabled": True, "partitions": 2, "replication_factor": 1},
        "admin": {"listen": "127.0.0.1:0"}, "http": {"listen": api, "data_dir": str(place / f"{name}-http")},
    }  # fmt: skip
    path = place / f"{name}.yaml"
    path.write_text(json.dumps(configuration))  # JSON is YAML
    customers = [f"customer-{i}" for i in range(len(rows))]
    rows.assign(customer=customers).to_csv(place / f"{name}.csv", index=False)
    with process([command, "run", "-c", str(path)], place / f"{name}.log"):
        wait("the worker's API", 60, lambda: answer(f"http://{api}/v1/metadata"))
        subprocess.run([command, "produce", "-c", str(path), "--input", str(place / f"{name}.csv"), "--key", "customer"], check=True, stdout=subprocess.DEVNULL)
        probabilities = []
        for customer in customers:
            url = f"http://{api}/v1/customers/{urllib.parse.quote(customer)}/score"
            score = wait(f"the score of {customer}", 60, lambda: answer(url))
            probabilities.append(float(score["churn_probability"]))
    return probabilities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", default="churnstream", help="the churnstream command")
    parser.add_argument("--brokers", default=os.environ.get("CHURNSTREAM_TEST_BROKERS"), help="addresses (default: an embedded broker)")
    parser.add_argument("--registry", help="URL of a schema registry (default: an embedded one)")
    parser.add_argument("--rows", type=int, default=300, help="to score for each model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as embedded:
        place = Path(directory)
        brokers, registry = options.brokers, options.registry
        if not (brokers and registry):
            own, own_registry = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
            embedded.enter_context(process([options.command, "dev", "--listen", own, "--registry", own_registry], place / "dev.log"))
            brokers, registry = brokers or own, registry or f"http://{own_registry}"
            wait("the embedded registry", 30, lambda: answer(f"{registry}/subjects"))
        for name, pipeline, training, test in systems(options.rows):
            model = place / "models" / name
            export(pipeline, training, model, label="the customer leaves", horizon="30d")
            subprocess.run([options.command, "model", "verify", str(model)], check=True)
            got = np.array(stream(options.command, name, brokers, registry, model, test, place))
            want = pipeline.predict_proba(test)[:, 1]
            worst = float(np.max(np.abs(got - want) / want))
            print(f"{name}: {len(got)} scores from {brokers}, {int((got == want).sum())} to the bit, at most {worst:.1e} off predict_proba")
            if not worst <= TOLERANCE:
                raise SystemExit(f"{name}: more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
