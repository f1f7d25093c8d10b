#!/usr/bin/env bash
# Runs schemathesis over the OpenAPI document of the HTTP API: predictions alone, or with a broker everything that the API
# has, each prediction published to scores and audit, and a customer c-1 who has a score.
#
#   bench/http/schemathesis.sh MODEL_DIRECTORY [further arguments of schemathesis run]
#   deploy/kafka/kafka.sh run bench/http/schemathesis.sh MODEL_DIRECTORY …
#
# SCHEMATHESIS (default schemathesis) is its command, from PyPI; 4.x. PORT (18080) is the API's, the next two are those of the
# schema registry and its broker, which is not used.
set -euo pipefail
model=${1:?give the directory of a model artefact, such as churnstream train --telco writes}
shift
# shellcheck source=bench/http/service.sh
. "$(dirname "$0")/service.sh"

go build -o "$work/churnstream" ./cmd/churnstream
cat >"$work/churnstream.yaml" <<TEXT
model: $model
log: {level: error}
http:
  listen: 127.0.0.1:$port
  data_dir: $work/data
TEXT
if [ -z "${CHURNSTREAM_TEST_BROKERS:-}" ]; then
	echo "  kafka: false" >>"$work/churnstream.yaml"
else
	"$work/churnstream" dev --registry "127.0.0.1:$((port + 1))" --listen "127.0.0.1:$((port + 2))" >"$work/registry" 2>&1 &
	registry=$!
	trap 'kill $registry; stop; wait $registry || true; rm -rf "$work"' EXIT
	topics=schemathesis-$$
	cat >>"$work/churnstream.yaml" <<-TEXT
		  publish_predictions: true
		brokers: [$CHURNSTREAM_TEST_BROKERS]
		registry: {urls: ["http://127.0.0.1:$((port + 1))"]}
		group: {id: $topics}
		topics: {events: $topics-events, scores: $topics-scores, dead_letters: $topics-dead, drift_state: $topics-state, drift_alerts: $topics-alerts, audit: $topics-audit}
		create_topics: {enabled: true, partitions: 3, replication_factor: 1}
	TEXT
fi
serve "$work/churnstream" serve -c "$work/churnstream.yaml"
await /readyz
if [ -n "${CHURNSTREAM_TEST_BROKERS:-}" ]; then
	await /openapi.json
	go run ./bench/http/load -example <"$work/answer" | sed '1s/{/{"customer_id":"c-1",/' >"$work/customer.json"
	curl -sf -o "$work/answer" -H 'Content-Type: application/json' -d "@$work/customer.json" "$url/v1/predict"
	await /v1/customers/c-1/score
fi
outcome=0
"${SCHEMATHESIS:-schemathesis}" --config-file bench/http/schemathesis.toml run "$url/openapi.json" --workers 1 "$@" || outcome=$?
echo "Answers by route, as the service counts them:"
curl -sf "$url/metrics" | sed -n 's/^churnstream_http_requests_total//p'
exit "$outcome"
