#!/bin/sh
# The nemesis on real machines for FLEET_NEMESIS_SECONDS of faults (default: a quarter of an hour),
# from a seed that nobody has seen, or from FLEET_NEMESIS_SEED. It prints the seed; a failure prints
# what was done when, and the journals that convict. FLEET_NEMESIS_OTHER names a fleetd of another
# version to upgrade and downgrade between (otherwise: the release build and cargo's own). Needs root.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --locked --bins
export FLEET_NEMESIS_SECONDS="${FLEET_NEMESIS_SECONDS:-900}"
export FLEET_NEMESIS_SEED="${FLEET_NEMESIS_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}"
exec cargo test --locked -p fleetd --test nemesis -- --nocapture nothing_that_strikes
