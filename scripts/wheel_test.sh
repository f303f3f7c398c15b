#!/bin/sh
# The wheel as people use it: built from this checkout, installed with its private servers into an empty environment, and
# started in an empty folder, twice. Everything is in a temporary folder and goes with it. Needs what ./dev needs, and curl.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
port=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
server=

say() { printf '\n== %s\n' "$*"; }
fail() {
    echo "FAILED: $*" >&2
    tail -n 20 "$work/log" >&2 2>/dev/null || true
    exit 1
}
clean() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" || true
    fi
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

# Nothing of the caller's settings, and the folder as its place.
jobflow() { (cd "$work/run" && env -i PATH="$PATH" HOME="$work" PORT="$port" "$work/venv/bin/jobflow" "$@"); }

# A process group of its own, as a terminal gives it to a command: Ctrl-C reaches all of it.
start() {
    cd "$work/run"
    env -i PATH="$PATH" HOME="$work" PORT="$port" "$python" -c 'import os, signal, sys
os.setsid()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
os.execv(sys.argv[1], sys.argv[1:])' "$work/venv/bin/jobflow" dev >"$work/log" 2>&1 &
    server=$!
    cd - >/dev/null
    for _ in $(seq 240); do
        if curl -fsS -o /dev/null "$url/readyz" 2>/dev/null; then return; fi
        kill -0 "$server" 2>/dev/null || fail "it ended before it was ready"
        sleep 0.25
    done
    fail "it is not ready after a minute"
}

stop() {
    kill -s INT -- "-$server"
    status=0
    wait "$server" || status=$?
    server=
    [ "$status" = 0 ] || fail "Ctrl-C ended it with $status"
    # Its servers have the folder in their command lines.
    if ps -eo args | grep -F "$work/run" | grep -v grep; then fail "these were left behind"; fi
}

# page PATH WORDS: the page is there and says so.
page() { curl -fsS -H 'Accept: text/html' "$url$1" >"$work/page" && grep -q "$2" "$work/page" || fail "$1 does not say '$2'"; }

say "build, and install into an empty environment"
"$python" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$work/dist" .
"$python" -m venv --without-pip "$work/venv"
"$python" -m pip --python "$work/venv" --disable-pip-version-check install --quiet "$(ls "$work"/dist/*.whl)[embedded]"
mkdir "$work/run"
jobflow --version

say "start"
start
cat "$work/log"

say "pages, files, documentation"
page / Jobflow
page /docs 'POST'
page /dashboard 'Jobflow'
curl -fsS "$url/openapi.json" | "$python" -c 'import json, sys; print(len(json.load(sys.stdin)["paths"]), "paths are described")'
files=$(grep -o '/static/[^"]*' "$work/page" | sort -u)
[ -n "$files" ] || fail "the dashboard names no static files"
for file in $files; do curl -fsS -o /dev/null "$url$file" && echo "$file" || fail "$file is not there"; done

say "jobs"
id=$(jobflow enqueue email.send '{"to": "user@example.com"}')
jobflow enqueue email.send --wait >"$work/job" || fail "email.send did not succeed"
jobflow enqueue report.generate --wait >"$work/job" || fail "report.generate failed five times"
if jobflow enqueue image.process --max-attempts 1 --wait >"$work/job"; then fail "image.process succeeded"; fi
grep -q dead_letter "$work/job" || fail "image.process is not in the dead-letter queue"

say "Ctrl-C, and a second start that finds everything"
stop
start
[ "$(jobflow jobs --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["total"])')" = 4 ] || fail "jobs were lost"
jobflow jobs "$id" | grep -q completed || fail "the first job is not completed"
stop

say "all is well"
