#!/usr/bin/env bash
# Measures the HTTP API beside a FastAPI + scikit-learn service of the same pipeline, 100 trees of depth 6, on this machine,
# one after the other, in one run; and holds the answers to scikit-learn's. Each line says what it is to be.
#
#   bench/http/run.sh [PYTHON]
#
# PYTHON (default python3) must have what bench/http/requirements.txt lists. FOR (8s) is the length of each measurement, PORT
# (18080) the port of both services, ROUNDS (1) how often the API is measured.
set -euo pipefail
python=${1:-python3}
length=${FOR:-8s}
# shellcheck source=bench/http/service.sh
. "$(dirname "$0")/service.sh"

api() { # in front of the command of the service
	CHURNSTREAM_HTTP_DATA_DIR="$work/data" CHURNSTREAM_LOG_LEVEL=warn serve "$@" "$work/churnstream" serve --offline --model "$work/model" --listen "127.0.0.1:$port"
	await /openapi.json
}

go build -o "$work/churnstream" ./cmd/churnstream
go build -o "$work/load" ./bench/http/load
"$python" bench/http/reference.py train "$work"
PYTHONPATH=python "$python" -m churnstream_export "$work/pipeline.joblib" --reference "$work/rows.csv" --output "$work/model" --name trees >"$work/log"
uptime

api env
"$work/load" -example <"$work/answer" >"$work/example.json"
"$python" bench/http/reference.py check "$work/model" "$url"
for _ in $(seq "${ROUNDS:-1}"); do
	echo "== churnstream serve, three features named in each answer"
	"$work/load" -url "$url" -body "$work/example.json" -for "$length" -overload 3 -pid "$server" -save "$work/capacity"
	echo "== churnstream serve, no features named"
	"$work/load" -url "$url" -body "$work/example.json" -for "$length" -query explain=0 -batch 0 -pid "$server" -save "$work/capacity-plain"
done
stop

if command -v taskset >"$work/log"; then
	echo "== churnstream serve on one processor, the load on another: overload without a fight for processors"
	api taskset -c 0
	for _ in $(seq "${ROUNDS:-1}"); do
		taskset -c 1 "$work/load" -url "$url" -body "$work/example.json" -for "$length" -rate 0 -batch 0 -overload 3 -pid "$server"
	done
	stop
fi

CHURNSTREAM_BENCH_MODEL="$work/model" go test -run '^$' -bench 'Batch|Single|Shed|Refusal' -benchtime 1s ./internal/httpapi | grep -E '^(Benchmark|cpu)'

serve "$python" bench/http/reference.py serve "$work" "$port" 2
await /openapi.json
echo "== FastAPI + scikit-learn, 2 workers, no features named"
"$work/load" -url "$url" -body "$work/example.json" -for "$length" -rate 0 -beside "$work/capacity" -beside "$work/capacity-plain"
uptime
