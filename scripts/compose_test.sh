#!/usr/bin/env bash
# Docker Compose as people use it: 200 jobs, two replicas more, one of the three killed in the middle, a stop in the
# middle of work. Leaves everything stopped; `docker compose down -v` removes it. Needs Docker and python3 with httpx and
# rich, or a .venv (./dev install).
set -euo pipefail
cd "$(dirname "$0")/.."
export PORT=${PORT:-8000}
# High enough for the jobs, and slow enough that there is a middle.
export RATE_LIMIT_MAX=100000 WORKER_CONCURRENCY=4
url=http://127.0.0.1:$PORT
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '\n== %s\n' "$*"; }
fail() {
    echo "FAILED: $*" >&2
    docker compose logs --tail 20 >&2
    exit 1
}
submit() { python3 scripts/load_test.py --url "$url" --type email.send "$@"; }
# number FILTERS: how many jobs match.
number() { curl -fsS "$url/jobs?limit=1&$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["total"])'; }
# workers EXPRESSION: something about the live processes.
workers() {
    curl -fsS "$url/workers" | python3 -c "import json, sys
alive = [worker for worker in json.load(sys.stdin)['items'] if worker['state'] == 'alive']
print($1)"
}
# code NAME: the exit code of a container.
code() { docker inspect --format '{{.State.ExitCode}}' "$1"; }

say "one process"
docker compose up -d --build --wait || fail "it does not become healthy"
before=$(number status=completed)

say "200 jobs; meanwhile two replicas come and one of them is killed"
submit --count 200 --poll --timeout 120 >"$work/load" 2>&1 &
load=$!
docker compose up -d --scale replica=2 --wait || fail "the replicas do not become healthy"
[ "$(workers 'len(alive)')" = 3 ] || fail "there are not three processes"
victim=$(docker compose ps -q replica | sed -n 1p)
busy="sum(worker['running'] for worker in alive if '$victim'.startswith(worker['host']))"
for _ in $(seq 40); do
    [ "$(workers "$busy")" = 0 ] || break
    sleep 0.5
done
echo "killing a replica that runs $(workers "$busy") jobs"
docker kill "$victim"
wait "$load" || { cat "$work/load"; fail "not all jobs are final"; }
cat "$work/load"
[ "$(number status=completed)" = $((before + 200)) ] || fail "not all jobs are completed"
rescued=$(curl -fsS "$url/jobs?status=completed&limit=200" |
    python3 -c 'import json, sys; print(sum(job["rescues"] > 0 for job in json.load(sys.stdin)["items"]))')
echo "$rescued jobs of the killed process ran again"
[ "$rescued" -gt 0 ] || fail "the killed process ran nothing"

say "stop in the middle of work"
submit --count 60
begin=$SECONDS
docker compose stop
echo "stopped after $((SECONDS - begin)) s"
docker compose ps -a
for container in $(docker compose ps -aq app replica); do
    [ "$container" = "$victim" ] || [ "$(code "$container")" = 0 ] || fail "$container ended with $(code "$container")"
done

say "what was left is done after the next start, without a second attempt"
docker compose up -d --wait || fail "it does not start again"
for _ in $(seq 120); do
    [ "$(number status=completed)" = $((before + 260)) ] && break
    sleep 0.5
done
[ "$(number status=completed)" = $((before + 260)) ] || fail "jobs were lost or failed"
curl -fsS "$url/jobs?limit=60" | python3 -c '
import json, sys
sys.exit(any(job["attempt"] != 1 for job in json.load(sys.stdin)["items"]))' || fail "the stop used up attempts"
docker compose stop
say "all is well"
