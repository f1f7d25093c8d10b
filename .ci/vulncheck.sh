#!/usr/bin/env bash
# Checks the module for known vulnerabilities. The database is on the network:
# where it cannot be reached the check says that it did not happen and lets the
# other checks go on, unless REQUIRE_VULNDB=1.
#
# usage: vulncheck.sh GOVULNCHECK
set -euo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT

status=0
timeout 300 "$1" ./... >"$log" 2>&1 || status=$?
cat "$log"
if ((status == 0)); then
	exit 0
fi
# 3 is a finding. 124 is our own limit: a connection that is never answered.
if ((status == 124)) || { ((status != 3)) && grep -qE 'fetching vulnerabilities|vuln\.go\.dev' "$log"; }; then
	echo "govulncheck: NOT CHECKED: the vulnerability database https://vuln.go.dev cannot be reached" >&2
	[[ ${REQUIRE_VULNDB:-0} != 1 ]] || exit 1
	exit 0
fi
echo "govulncheck: failed with status $status" >&2
exit "$status"
