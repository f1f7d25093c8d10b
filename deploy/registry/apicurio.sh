#!/usr/bin/env bash
# A real schema registry with the Confluent API for tests, without a container
# engine: Apicurio's program comes from Maven Central, its schemas are in
# memory. Compatibility is checked BACKWARD, as Confluent's registry does.
set -euo pipefail

usage() {
	cat <<-'TEXT'
		usage: apicurio.sh up            start the registry unless it runs; print its address
		       apicurio.sh down          stop it
		       apicurio.sh status        print its address; exit 1 when it is down
		       apicurio.sh run CMD...    run CMD with CHURNSTREAM_TEST_REGISTRY set; start the
		                                 registry for it if none runs, and stop what was started

		REGISTRY_VERSION  2.6.13.Final (default; runs on Java 17) or another
		REGISTRY_PORT     port (18081); the next but 1000 is for management
		REGISTRY_DIR      where program and log go (.build/registry)
	TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=${REGISTRY_VERSION:-2.6.13.Final}
root=${REGISTRY_DIR:-$here/../../.build/registry}
port=${REGISTRY_PORT:-18081}
program=$root/$version
state=$root/running-$port
address=http://127.0.0.1:$port/apis/ccompat/v7

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

fail() {
	echo "apicurio.sh: $*" >&2
	exit 1
}

need() { command -v "$1" >/dev/null || fail "$1 is not installed; $2"; }

answers() { curl -fsS -o /dev/null "$address/subjects" 2>/dev/null; }

running() { [[ -f $state ]] && kill -0 "$(cat "$state")" 2>/dev/null; }

prepare() {
	need java "Java 17 or newer, e.g. apt-get install openjdk-17-jre-headless"
	need curl "e.g. apt-get install curl"
	mkdir -p "$root"
	[[ -d $program ]] && return
	need mvn "e.g. apt-get install maven"
	mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
		"-Dartifact=io.apicurio:apicurio-registry-app:$version:tar.gz:all" "-DoutputDirectory=$root/download"
	rm -rf "$program.new" && mkdir "$program.new"
	tar xzf "$root/download/apicurio-registry-app-$version-all.tar.gz" -C "$program.new"
	mv "$program.new" "$program"
	rm -rf "$root/download"
}

up() {
	if running; then
		await
		echo "$address"
		return
	fi
	answers && fail "something else answers at $address; stop it or set REGISTRY_PORT"
	prepare
	local start=(-cp "$program/*:$program/lib/*" io.quarkus.runner.GeneratedMain)
	[[ -f $program/quarkus-run.jar ]] && start=(-jar "$program/quarkus-run.jar")
	setsid nohup java -Xmx384m -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$port" \
		-Dquarkus.management.host=127.0.0.1 "-Dquarkus.management.port=$((port + 1000))" \
		"${start[@]}" >"$root/registry-$port.log" 2>&1 </dev/null &
	echo $! >"$state"
	await
	curl -fsS -o /dev/null -X PUT -H 'Content-Type: application/json' -d '{"compatibility":"BACKWARD"}' "$address/config"
	echo "$address"
}

await() {
	for _ in $(seq 600); do
		answers && return
		running || break
		sleep 0.2
	done
	tail -20 "$root/registry-$port.log" >&2
	fail "the registry does not answer at $address"
}

down() {
	if running; then
		kill "$(cat "$state")"
		for _ in $(seq 100); do
			running || break
			sleep 0.1
		done
	fi
	rm -f "$state"
}

status() {
	answers || exit 1
	echo "$address"
}

run() {
	local own=
	running || own=yes
	up >/dev/null
	local code=0
	CHURNSTREAM_TEST_REGISTRY=$address "$@" || code=$?
	[[ -z $own ]] || down
	exit "$code"
}

main "$@"
