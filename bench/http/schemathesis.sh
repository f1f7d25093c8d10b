#!/usr/bin/env bash
# Runs schemathesis over the OpenAPI document of the HTTP API.
#
#   bench/http/schemathesis.sh MODEL_DIRECTORY [further arguments of schemathesis run]
#
# SCHEMATHESIS (default schemathesis) is its command, from PyPI; 4.x. PORT (18080) is the API's.
set -euo pipefail
cd "$(dirname "$0")/../.."
model=${1:?give the directory of a model artefact, such as churnstream train --telco writes}
shift
port=${PORT:-18080}
work=$(mktemp -d)
go build -o "$work/churnstream" ./cmd/churnstream
CHURNSTREAM_HTTP_DATA_DIR="$work/data" CHURNSTREAM_LOG_LEVEL=error "$work/churnstream" serve --offline --model "$model" --listen "127.0.0.1:$port" &
server=$!
trap 'kill $server; wait $server || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do
	curl -s -o "$work/openapi.json" "http://127.0.0.1:$port/openapi.json" && break
	sleep 0.1
done
"${SCHEMATHESIS:-schemathesis}" --config-file bench/http/schemathesis.toml run "http://127.0.0.1:$port/openapi.json" --workers 1 "$@"
