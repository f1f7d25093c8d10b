# shellcheck shell=bash
# What the scripts beside it share; they source it. It goes to the root of the repository and gives them
#
#   $port, $url        of the service; PORT (default 18080)
#   $work              a directory for whatever a run leaves; it is removed at the end
#   serve COMMAND...   starts a service; its process is $server
#   await PATH         waits until the service answers there with 200; the answer is the file $work/answer
#   stop               ends the service
#
# At the end it stops what was started.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
port=${PORT:-18080}
url=http://127.0.0.1:$port
work=$(mktemp -d)
server=
trap 'stop; rm -rf "$work"' EXIT

serve() {
	"$@" &
	server=$!
}

await() {
	for _ in $(seq 600); do
		curl -sf -o "$work/answer" "$url$1" && return
		sleep 0.1
	done
	echo "$url$1 does not answer" >&2
	exit 1
}

stop() {
	[ -z "$server" ] || { kill "$server" && wait "$server" || true; }
	server=
}
