#!/usr/bin/env bash
# Checks and tests the Prometheus rules, the Alertmanager configuration and the
# dashboard's queries. Needs promtool, amtool and Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in promtool amtool python3; do
	command -v "$tool" >/dev/null || {
		echo "$tool is not installed, e.g. apt-get install prometheus prometheus-alertmanager" >&2
		exit 1
	}
done

promtool check rules deploy/prometheus/rules.yml
tests=$(git ls-files 'deploy/prometheus/*test*.yml')
[[ -n $tests ]] || {
	echo "deploy/prometheus has no rule tests (*test*.yml)" >&2
	exit 1
}
# shellcheck disable=SC2086 # one argument a file
promtool test rules $tests
amtool check-config deploy/prometheus/alertmanager.yml

queries=$(mktemp --suffix=.yml)
trap 'rm -f "$queries"' EXIT
for dashboard in deploy/grafana/dashboards/*.json; do
	python3 .ci/dashboard_rules.py "$dashboard" >"$queries"
	promtool check rules "$queries"
done
