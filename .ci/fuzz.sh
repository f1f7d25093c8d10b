#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other. What one finds is
# kept by go test under testdata/fuzz and fails the ordinary tests from then on.
set -euo pipefail

usage() {
	cat <<-'TEXT'
		usage: fuzz.sh [PATTERN]   the targets whose package or name matches (default: all)

		FUZZTIME   of each target (30s), or a number of inputs (300x)
		FUZZJOBS   processes of each target (the number of cores)
	TEXT
}

case ${1:-} in -h | --help) usage && exit ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=()
while read -r package target; do
	echo "==> $package $target, ${FUZZTIME:=30s}"
	log=$(mktemp)
	# A target that is stopped by its time can end with "context deadline exceeded" (golang.org/issue/48591): no finding.
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 5s -parallel "${FUZZJOBS:-$(nproc)}" "$package" 2>&1 |
		tee "$log" || grep -q '^    context deadline exceeded$' "$log" || failed+=("$package $target")
	rm -f "$log"
done < <(git ls-files '*_test.go' | xargs grep -H '^func Fuzz' | sed -E 's#^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(.*#./\1 \2#' | grep -E -- "${1:-.}" | sort)

if ((${#failed[@]} > 0)); then
	printf 'FAILED: %s\n' "${failed[@]}" >&2
	exit 1
fi
