#!/usr/bin/env bash
# A real Apache Kafka for tests and for trying things, without a container
# engine: its jars come from Maven Central, its data stay in .build/kafka.
# It starts empty each time.
set -euo pipefail

usage() {
	cat <<-'TEXT'
		usage: kafka.sh up            start the broker unless it runs; print its address
		       kafka.sh down          stop it
		       kafka.sh status        print its address; exit 1 when it is down
		       kafka.sh run CMD...    run CMD with CHURNSTREAM_TEST_BROKERS set; start the
		                              broker for it if none runs, and stop what was started

		KAFKA_VERSION  4.3 (default), 4.1, 3.9 or an exact version
		KAFKA_PORT     port of the broker (19092); its controller takes the next one
		KAFKA_DIR      where jars, data and logs go (.build/kafka)
		KAFKA_HEAP     heap of the broker (1g)
		KAFKA_SECURED  1: TLS, mutual TLS, SASL and ACLs (secured.properties) on six
		               ports; CHURNSTREAM_TEST_SECURED is the address of the first,
		               CHURNSTREAM_TEST_CERTS the folder of the certificates, and
		               CHURNSTREAM_TEST_BROKERS one without a login; needs openssl
	TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${KAFKA_DIR:-$here/../../.build/kafka}
host=127.0.0.1
port=${KAFKA_PORT:-19092}
address=$host:$port
secured=${KAFKA_SECURED:-}
# Where ApiVersions is answered without TLS.
open_port=$port
[[ -z $secured ]] || open_port=$((port + 3))

case ${KAFKA_VERSION:-4.3} in
4.3) version=4.3.0 ;;
4.1) version=4.1.0 ;;
3.9) version=3.9.1 ;;
*) version=$KAFKA_VERSION ;;
esac

main() {
	case ${1:-} in
	up) up ;;
	down) down ;;
	status) status ;;
	run) shift && run "$@" ;;
	-h | --help | help) usage ;;
	*) usage >&2 && exit 2 ;;
	esac
}

up() {
	prepare
	if running; then
		local other
		other=$(cat "$state/version")
		[[ $other == "$version" ]] || fail "Kafka $other is running on $address; stop it first: make kafka-down"
		await # it may still be starting
		echo "$address"
		return
	fi
	if answers || occupied; then
		fail "something else listens on $address; stop it or set KAFKA_PORT"
	fi
	need java "Java 17 or newer, e.g. apt-get install openjdk-17-jre-headless"
	local major
	major=$(java_major)
	((major >= 17)) || fail "java is version $major; Kafka $version needs Java 17 or newer"
	fetch
	format
	start
	await
	echo "$address"
}

down() {
	prepare
	if ! running; then
		rm -f "$state/pid"
		say "Kafka is not running on $address"
		return
	fi
	local pid
	pid=$(cat "$state/pid")
	kill "$pid" 2>/dev/null || true
	for ((i = 0; i < 150; i++)); do
		running || break
		sleep 0.2
	done
	if running; then
		say "Kafka did not stop within 30 s; killing it"
		kill -9 "$pid" 2>/dev/null || true
	fi
	rm -rf "$state/pid" "$state/data"
	say "Kafka on $address is stopped"
}

status() {
	prepare
	if running && answers; then
		echo "$address (Kafka $(cat "$state/version"), process $(cat "$state/pid"))"
	else
		say "Kafka is not running on $address"
		exit 1
	fi
}

run() {
	(($# > 0)) || fail "run: a command is missing"
	prepare
	if ! running; then
		trap down EXIT # also when the start fails half way
		trap 'exit 130' INT
		trap 'exit 143' TERM
	fi
	up >/dev/null
	say "Kafka $version on $address"
	if [[ -n $secured ]]; then
		CHURNSTREAM_TEST_SECURED=$address CHURNSTREAM_TEST_CERTS=$state/certs CHURNSTREAM_TEST_BROKERS=$host:$open_port "$@"
		return
	fi
	CHURNSTREAM_TEST_BROKERS=$address "$@"
}

prepare() {
	mkdir -p "$root"
	root=$(cd "$root" && pwd)
	state=$root/run-$port
	lib=$root/lib-$version
	mkdir -p "$state"
}

fetch() {
	[[ -f $lib/.complete ]] && return
	need mvn "Maven, e.g. apt-get install maven"
	say "fetching Kafka $version from Maven Central"
	rm -rf "$lib"
	local logging=log4j2
	[[ $version == 3.* ]] && logging=reload4j
	mvn --quiet --batch-mode -f "$here/pom.xml" "-P$logging" "-Dkafka.version=$version" \
		dependency:copy-dependencies -DoutputDirectory="$lib" -DincludeScope=runtime >"$root/maven.log" 2>&1 || {
		tail -n 20 "$root/maven.log" >&2
		fail "Maven could not fetch Kafka $version; the whole log is in $root/maven.log"
	}
	touch "$lib/.complete"
}

format() {
	rm -rf "$state/data"
	local template=server.properties users=()
	if [[ -n $secured ]]; then
		template=secured.properties
		certificates
		for mechanism in SCRAM-SHA-512 SCRAM-SHA-256; do
			users+=(--add-scram "$mechanism=[name=scorer,password=scorer-scram]" --add-scram "$mechanism=[name=intruder,password=intruder-scram]")
		done
	fi
	sed -e "s|@SSL_PORT@|$((port + 2))|g" -e "s|@OPEN_PORT@|$((port + 3))|g" -e "s|@EXPIRED_PORT@|$((port + 4))|g" -e "s|@SASL_PORT@|$((port + 5))|g" -e "s|@CERTS@|$state/certs|g" \
		-e "s|@HOST@|$host|g" -e "s|@PORT@|$port|g" -e "s|@CONTROLLER_PORT@|$((port + 1))|g" \
		-e "s|@DATA@|$state/data|g" "$here/$template" >"$state/server.properties"
	# The cluster id is a base64 UUID; any will do for a cluster of one.
	java -XX:TieredStopAtLevel=1 -cp "$lib/*" kafka.tools.StorageTool format \
		--cluster-id Y2h1cm5zdHJlYW0ta2Fmaw --config "$state/server.properties" "${users[@]}" >"$state/format.log" 2>&1 || {
		cat "$state/format.log" >&2
		fail "Kafka could not format $state/data"
	}
}

# certificates makes an authority, what it signed for the broker (one of it expired) and for a client, and an authority
# that nobody trusts.
certificates() {
	need openssl "the command openssl for the certificates"
	local dir=$state/certs
	rm -rf "$dir"
	mkdir -p "$dir"
	(
		cd "$dir"
		authority() {
			openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" -keyout "$1.key" -out "$1.crt"
		}
		signed() { # name, subject, names, days
			openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr"
			openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days "$4" -out "$1.crt" -extfile <(echo "subjectAltName=$3")
			cat "$1.key" "$1.crt" >"$1.pem"
		}
		authority ca
		authority stranger
		signed broker /CN=broker "IP:$host,DNS:localhost" 30
		signed expired /CN=broker "IP:$host,DNS:localhost" -1
		signed client /CN=scorer DNS:scorer 30
	) >"$state/certificates.log" 2>&1 || {
		cat "$state/certificates.log" >&2
		fail "openssl could not make the certificates"
	}
}

start() {
	nohup java -Xms256m "-Xmx${KAFKA_HEAP:-1g}" "-Dlog4j2.configurationFile=$here/log4j2.yaml" \
		"-Dlog4j.configuration=file:$here/log4j.properties" -cp "$lib/*" \
		kafka.Kafka "$state/server.properties" >"$state/broker.log" 2>&1 </dev/null &
	echo $! >"$state/pid"
	echo "$version" >"$state/version"
}

await() {
	for ((i = 0; i < 600; i++)); do
		answers && return
		running || {
			tail -n 20 "$state/broker.log" >&2
			fail "Kafka stopped while starting; the whole log is in $state/broker.log"
		}
		sleep 0.2
	done
	fail "Kafka does not answer on $address after 2 minutes; its log is in $state/broker.log"
}

# running: the process we started lives, and the number was not given to another.
running() {
	[[ -f $state/pid ]] && ps -p "$(cat "$state/pid")" -o args= 2>/dev/null | grep -qF "$state/server.properties"
}

# answers: an ApiVersions request gets its response. The port alone opens earlier.
answers() {
	(
		exec 3<>"/dev/tcp/$host/$open_port" || exit 1
		printf '\0\0\0\12\0\22\0\0\0\0\0\1\377\377' >&3
		[[ $(timeout 5 head -c 8 <&3 | od -An -tu1 | awk '{print $5 $6 $7 $8}') == 0001 ]]
	) 2>/dev/null
}

occupied() {
	(exec 3<>"/dev/tcp/$host/$port") 2>/dev/null
}

need() {
	command -v "$1" >/dev/null || fail "$1 is not installed; Kafka needs $2"
}

java_major() {
	java -version 2>&1 | sed -nE 's/.*version "(1\.)?([0-9]+).*/\2/p' | head -n 1
}

say() { echo "$*" >&2; }

fail() {
	echo "kafka: $*" >&2
	exit 1
}

main "$@"
