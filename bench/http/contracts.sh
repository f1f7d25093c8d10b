#!/usr/bin/env bash
# Serves the artefacts of both reference contracts, as the Python examples export them, and holds every answer to
# scikit-learn's: the Telco customers, and subscriptions with dates (a table that is made up) by AdaBoost, a forest, a tree
# and the vote of the three.
#
#   bench/http/contracts.sh [PYTHON]
#
# PYTHON (default python3) must have what bench/http/requirements.txt lists. PORT (18080) is the API's.
set -euo pipefail
python=${1:-python3}
# shellcheck source=bench/http/service.sh
. "$(dirname "$0")/service.sh"

go build -o "$work/churnstream" ./cmd/churnstream
export PYTHONPATH=python
"$python" python/examples/telco.py internal/telco/Telco-Customer-Churn.csv.gz "$work/models/telco" >"$work/log"
"$python" python/examples/subscriptions.py "$work/models" >>"$work/log"
for model in "$work"/models/*; do
	CHURNSTREAM_HTTP_DATA_DIR="$work/data" CHURNSTREAM_LOG_LEVEL=warn serve "$work/churnstream" serve --offline --model "$model" --listen "127.0.0.1:$port"
	await /readyz
	"$python" bench/http/reference.py check "$model" "$url"
	stop
done
