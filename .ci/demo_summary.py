"""Reads the demo's output and fails when its summary, the last line, is not whole or not good."""

import json
import sys

NUMBERS = ["events", "scores", "dead_letters", "auc", "drift_alerts", "alerts_before_shift", "shift_to_alert_seconds", "first_score_seconds"]


def faults(summary):
    missing = [key for key in NUMBERS if not isinstance(summary.get(key), (int, float))]
    latency = summary.get("latency_ms") or {}
    missing += [f"latency_ms.{key}" for key in ("p50", "p95", "p99") if not isinstance(latency.get(key), (int, float))]
    if missing:
        yield "no number in " + ", ".join(missing)
        return
    if summary["events"] != 20000 or summary["scores"] + summary["dead_letters"] != summary["events"]:
        yield "20000 events must be scores + dead letters"
    if summary["auc"] < 0.82:
        yield "AUC below 0.82"
    if summary["drift_alerts"] < 1 or summary["alerts_before_shift"] != 0:
        yield "the shift must raise an alert, and nothing before it"


def main():
    lines = sys.stdin.read().strip().splitlines()
    if not lines:
        sys.exit("the demo printed nothing")
    print(lines[-1])
    try:
        found = list(faults(json.loads(lines[-1])))
    except (ValueError, AttributeError) as error:
        sys.exit(f"the demo's last line is no JSON object: {error}")
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
