#!/usr/bin/env bash
# Builds the contenders into .build/peers and runs the comparison on a Kafka of
# its own, which is stopped at the end. Arguments are those of cmd/peers.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
bin=$root/.build/peers

mkdir -p "$bin"
(cd "$here" && go build -o "$bin/" ./cmd/...)
mvn --quiet --batch-mode -f "$here/kstreams/pom.xml" package

export KAFKA_PORT=${KAFKA_PORT:-19492} KAFKA_HEAP=${KAFKA_HEAP:-2g}
pid=${KAFKA_DIR:-$root/.build/kafka}/run-$KAFKA_PORT/pid
"$root/deploy/kafka/kafka.sh" run "$bin/peers" --bin "$bin" --broker-pid-file "$pid" "$@" | tee "$bin/results.txt"
