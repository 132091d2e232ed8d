#!/bin/sh
# Every test there is: formatting, lints, unit and property tests, conformance, sessions of the
# command line, and the promises on real hosts. Needs root for the hosts.
set -eu
cd "$(dirname "$0")/.."
# One commit gets one verdict: random histories begin at fixed seeds here.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"
step() { printf '\n== %s\n' "$*"; }

step "formatting"
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
step "binaries for the hosts"
cargo build --release --locked --bins
step "simulator, fixed seeds"
scripts/sim.sh --skip fresh_seeds_hold
# What nobody has seen yet is news about all commits, not a verdict on this one. `make soak` has more.
step "simulator, fresh seeds"
FLEET_SIM_SECONDS="${FLEET_SIM_SECONDS:-15}" scripts/sim.sh fresh_seeds_hold ||
    step "FRESH SEEDS HAVE FOUND A BUG: the command above replays it, its seed goes into seeds.txt"
step "tests"
# One failure hides no other one.
cargo test --workspace --locked --no-fail-fast
