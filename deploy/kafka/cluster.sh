#!/usr/bin/env bash
# Three real Kafka brokers on this machine, each its own controller, to lose one
# of: what kafka.sh is for one broker. Their jars are those of kafka.sh. With
# KAFKA_NODES=1 it is one broker that can be killed and started with its data.
set -euo pipefail

usage() {
	cat <<-'TEXT'
		usage: cluster.sh up               start empty brokers; print their addresses
		       cluster.sh down             stop them
		       cluster.sh kill N [SIGNAL]  kill -9 broker N, or send it another signal
		       cluster.sh start N          start broker N again with its data
		       cluster.sh run CMD...       run CMD with CHURNSTREAM_TEST_BROKERS set, then stop

		KAFKA_VERSION, KAFKA_DIR  as for kafka.sh
		KAFKA_NODES    how many brokers (3)
		KAFKA_PORT     first port (19192); every broker takes two
		KAFKA_HEAP     heap of a broker (512m)
		KAFKA_SESSION  broker.session.timeout.ms (3000): when the cluster notices a dead broker
		KAFKA_FETCH_BACKOFF  replica.fetch.backoff.ms (1000, as Kafka has it): how long a replica waits that asked
		               a new leader too early, and acks=all with it
	TEXT
}

# The offsets topic is rolled early, so that it is compacted and a broker loads
# it in a moment: Kafka 4.3 may answer for a group before it has loaded it.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${KAFKA_DIR:-$here/../../.build/kafka}
port=${KAFKA_PORT:-19192}
nodes=$(seq "${KAFKA_NODES:-3}")
copies=$((${KAFKA_NODES:-3} < 3 ? 1 : 3)) # of everything: with two brokers the loss of one would stop writing
case ${KAFKA_VERSION:-4.3} in
4.3) version=4.3.0 ;;
4.1) version=4.1.0 ;;
3.9) version=3.9.1 ;;
*) version=$KAFKA_VERSION ;;
esac

main() {
	mkdir -p "$root"
	root=$(cd "$root" && pwd)
	state=$root/cluster-$port
	lib=$root/lib-$version
	case ${1:-} in
	up) up ;;
	down) down ;;
	kill) kill -"${3:-9}" "$(cat "$state/${2:?number of the broker}.pid")" ;;
	start) start "${2:?number of the broker}" && await "$2" ;;
	run)
		shift
		(($# > 0)) || { usage >&2 && exit 2; }
		trap down EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM
		up >/dev/null
		CHURNSTREAM_TEST_BROKERS=$(addresses) "$@"
		;;
	-h | --help | help) usage ;;
	*) usage >&2 && exit 2 ;;
	esac
}

up() {
	for n in $nodes; do
		! running "$n" || fail "broker $n is running already; stop it first: cluster.sh down"
		! occupied "$n" || fail "something else listens on port $(client_port "$n"); set KAFKA_PORT"
	done
	# kafka.sh fetches the jars when it starts its own broker.
	[[ -f $lib/.complete ]] || KAFKA_VERSION=$version KAFKA_DIR=$root KAFKA_PORT=$port "$here/kafka.sh" run true
	mkdir -p "$state"
	for n in $nodes; do
		rm -rf "$state/$n.data"
		configure "$n" >"$state/$n.properties"
		java -XX:TieredStopAtLevel=1 -cp "$lib/*" kafka.tools.StorageTool format \
			--cluster-id Y2h1cm5zdHJlYW0ta2Fmaw --config "$state/$n.properties" >"$state/format.log" 2>&1 ||
			fail "broker $n could not be formatted: $(cat "$state/format.log")"
	done
	for n in $nodes; do start "$n"; done
	for n in $nodes; do await "$n"; done
	addresses
}

down() {
	for n in $nodes; do
		! running "$n" || kill "$(cat "$state/$n.pid")"
	done
	for ((i = 0; i < 100; i++)); do
		any_running || break
		sleep 0.2
	done
	for n in $nodes; do
		! running "$n" || kill -9 "$(cat "$state/$n.pid")"
		rm -rf "$state/$n.pid" "$state/$n.data"
	done
}

client_port() { echo $((port + ($1 - 1) * 2)); }

addresses() {
	local all="" n
	for n in $nodes; do all+=",127.0.0.1:$(client_port "$n")"; done
	echo "${all#,}"
}

configure() {
	local voters="" n
	for n in $nodes; do voters+=",$n@127.0.0.1:$(($(client_port "$n") + 1))"; done
	cat <<-TEXT
		process.roles=broker,controller
		node.id=$1
		controller.quorum.voters=${voters#,}
		listeners=PLAINTEXT://127.0.0.1:$(client_port "$1"),CONTROLLER://127.0.0.1:$(($(client_port "$1") + 1))
		advertised.listeners=PLAINTEXT://127.0.0.1:$(client_port "$1")
		controller.listener.names=CONTROLLER
		listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
		log.dirs=$state/$1.data
		auto.create.topics.enable=false
		default.replication.factor=$copies
		min.insync.replicas=$(((copies + 1) / 2))
		offsets.topic.replication.factor=$copies
		offsets.topic.num.partitions=6
		offsets.topic.segment.bytes=1048576
		transaction.state.log.replication.factor=$copies
		transaction.state.log.min.isr=$(((copies + 1) / 2))
		transaction.state.log.num.partitions=6
		share.coordinator.state.topic.replication.factor=$copies
		share.coordinator.state.topic.min.isr=$(((copies + 1) / 2))
		group.initial.rebalance.delay.ms=0
		broker.session.timeout.ms=${KAFKA_SESSION:-3000}
		broker.heartbeat.interval.ms=500
		replica.lag.time.max.ms=4000
		replica.fetch.backoff.ms=${KAFKA_FETCH_BACKOFF:-1000}
	TEXT
}

start() {
	nohup java -Xms128m "-Xmx${KAFKA_HEAP:-512m}" -XX:+UseSerialGC "-Dlog4j2.configurationFile=$here/log4j2.yaml" \
		"-Dlog4j.configuration=file:$here/log4j.properties" -cp "$lib/*" \
		kafka.Kafka "$state/$1.properties" >>"$state/$1.log" 2>&1 </dev/null &
	echo $! >"$state/$1.pid"
}

await() {
	for ((i = 0; i < 600; i++)); do
		occupied "$1" && return
		running "$1" || fail "broker $1 stopped while starting; its log is $state/$1.log"
		sleep 0.2
	done
	fail "broker $1 does not answer after 2 minutes; its log is $state/$1.log"
}

# running: the process we started lives, and the number was not given to another.
running() {
	[[ -f $state/$1.pid ]] && ps -p "$(cat "$state/$1.pid")" -o args= 2>/dev/null | grep -qF "$state/$1.properties"
}

any_running() {
	for n in $nodes; do
		if running "$n"; then return; fi
	done
	return 1
}

occupied() {
	(exec 3<>"/dev/tcp/127.0.0.1/$(client_port "$1")") 2>/dev/null
}

fail() {
	echo "cluster: $*" >&2
	exit 1
}

main "$@"
