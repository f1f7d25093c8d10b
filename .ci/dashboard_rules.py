"""Prints a Grafana dashboard's queries as Prometheus rules, for promtool to check."""

import json
import sys


def main(path):
    with open(path, encoding="utf-8") as file:
        dashboard = json.load(file)
    rules = []
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "1m").replace("$__interval", "1m")
            rules.append({"record": f"panel:{panel['id']}:{target['refId']}", "expr": expr})
    json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
