#!/bin/sh
# Every test there is: formatting, lints, unit and property tests, conformance, sessions of the
# command line, and the promises on real hosts. Needs root for the hosts.
set -eu
cd "$(dirname "$0")/.."
# One commit gets one verdict: random histories begin at fixed seeds here. `make soak` has fresh ones.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}" FLEET_SIM_FROM="${FLEET_SIM_FROM:-1}"
step() { printf '\n== %s\n' "$*"; }

step "formatting"
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
step "binaries for the hosts"
cargo build --release --locked --bins
step "simulator"
scripts/sim.sh
step "tests"
cargo test --workspace --locked
