#!/usr/bin/env bash
# A rollout from its plan to a rollback, told by a running node: ./story (about three minutes)
#
# Two nodes run real canisters under load. The sandbox is rolled out step by step and promoted; then the next candidate
# is slow (its workers may run a quarter of the time), and is rolled back by a guard, without a person. The verdict is
# recomputed from what is stored. Everything is in a temporary directory, which goes at the end.
set -euo pipefail
cd "$(dirname "$0")"
cargo build --release --workspace --locked --quiet
bulkhead=$PWD/target/release/bulkhead
cd "$(mktemp -d)"
folder=$PWD
limiter= node=
finish() {
    [ -z "$limiter" ] || kill "$limiter" 2>/dev/null || true
    [ -z "$node" ] || { kill "$node" 2>/dev/null; wait "$node" || true; }
    rm -rf "$folder"
}
trap finish EXIT

cat > policy.toml <<'TOML'
schema = 1
[meta]
owner = "the story"
review_by = 2099-01-01
reason_required = true
[default]
mode = "in-process"
[measure]                 # a story is short: in production a block is a minute, a bake hours
interval = "1s"
block = "1s"
warmup_discard = "1s"
[guard_defaults]
looks = "5s"

[rollouts.sandbox]
candidate = "sandboxed"
control = "in-process"
retry_cooldown = "1s"
[[rollouts.sandbox.steps]]
name = "aa"               # control against control: does the measurement find what isn't there?
scope = { subnets = ["local"] }
design = "aa"
bake = "25s"
max_bake = "5m"
[[rollouts.sandbox.steps]]
name = "shadow"           # the candidate runs beside the control, and only the control counts
scope = { subnets = ["local"] }
mode = "shadow"
bake = "8s"
max_bake = "5m"
require = { min_comparisons = 1_000 }
[[rollouts.sandbox.steps]]
name = "one-node"         # the same messages on both nodes, one of them sandboxed
scope = { subnets = ["local"], nodes_per_subnet = 1 }
bake = "15s"
max_bake = "5m"
[[rollouts.sandbox.steps]]
name = "half"
scope = { subnets = ["local"] }
percent = 50
design = "percent"
bake = "5s"
[[rollouts.sandbox.steps]]
name = "all"
scope = { subnets = ["local"] }
bake = "5s"

[[guards]]
name = "p90"
type = "latency-ratio"
quantile = 0.9
limit = 4
kinds = ["update"]
[[guards]]
name = "crash"
type = "fuse"
event = "sandbox-crash"
max = 3
window = "10m"
[[guards]]
name = "divergence"
type = "fuse"
event = "confirmed-divergence"
TOML

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ bulkhead %s\n' "$*"; "$bulkhead" "$@"; }
admin=(--admin state/admin.sock)

say "The plan: what the policy file would do, without a node"
run config check policy.toml
run plan --config policy.toml --nodes 2

say "Two nodes with real canisters under load"
printf '$ bulkhead serve --config policy.toml --state state --nodes 2 --load steady --rate 200 --http 127.0.0.1:0\n'
"$bulkhead" serve --config policy.toml --state state --nodes 2 --load steady --rate 200 --http 127.0.0.1:0 > node.log 2>&1 &
node=$!
until grep -qx serving node.log; do
    kill -0 "$node" 2>/dev/null || { cat node.log; exit 1; }
    sleep 0.2
done
page=$(grep -m1 '^http' node.log)
printf 'dashboard at %s\n' "$page"

# Shows the phases as they come, until it has ended. Where a guard holds it, somebody looks and lets it go on: equal arms
# look unequal at one look in twenty.
follow() {
    printf '$ bulkhead status sandbox --admin state/admin.sock --wait\n'
    while code=0; "$bulkhead" status sandbox "${admin[@]}" --wait --timeout 10m > followed || code=$?; do
        grep -v 'BAKING' followed || true
        [ "$code" = 5 ] || return 0
        run status sandbox "${admin[@]}"
        run resume sandbox "${admin[@]}" --reason "looked at, goes on"
    done
}

say "Started by a person, then step by step on evidence"
run start sandbox "${admin[@]}" --reason "the story begins"
follow
[ "$code" = 0 ]
run status sandbox "${admin[@]}"

say "Promoted. The next candidate is slow: its workers may run a quarter of the time"
run abort sandbox "${admin[@]}" --reason "make room for the next candidate"
"$bulkhead" status sandbox "${admin[@]}" --wait > /dev/null || [ $? = 4 ]
run ack sandbox "${admin[@]}" --reason "seen"
until "$bulkhead" retry sandbox "${admin[@]}" --reason "the next candidate" 2> /dev/null; do
    sleep 0.5
done
workers() { "$bulkhead" status "${admin[@]}" --json | grep -o '"pid":[0-9]*' | cut -d: -f2; }
(
    while pids=$(workers); do
        for _ in {1..40}; do
            kill -STOP $pids 2> /dev/null || true
            sleep 0.015
            kill -CONT $pids 2> /dev/null || true
            sleep 0.005
        done
    done
) &
limiter=$!
run start sandbox "${admin[@]}" --reason "the next candidate"
follow
printf '(exit code %s: rolled back)\n' "$code"
kill "$limiter" 2> /dev/null; limiter=
kill -CONT $(workers) 2> /dev/null || true
[ "$code" = 4 ]

say "Why: by the command line, in the audit log, in the metrics"
run status sandbox "${admin[@]}"
run audit tail --state state -n 3
exec 3<> "/dev/tcp/127.0.0.1/$(sed 's/.*:\([0-9]*\).*/\1/' <<< "$page")"
printf 'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
grep -a 'latch_active{\|guard_value{.*p90\|guard_verdict{.*FAIL.*1$\|rollouts_ended' <&3 || true
exec 3>&-

say "The verdict again, from what is stored"
record=$(ls state/verdicts/sandbox/*FAIL* | tail -1)
run verdict --recompute "$record" | tail -12
run audit verify --state state

say "Nothing was lost"
kill "$node"
wait "$node" || true
node=
grep -a 'load\|state root' node.log
run replay state/input.log --mode in-process | tail -3
