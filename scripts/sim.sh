#!/bin/sh
# The simulator: the real engine, agent and API over a simulated store and systemd, from a seed.
#
#   scripts/sim.sh                                  all of it, in about a minute
#   FLEET_SIM_SEED=42 scripts/sim.sh replay         the story of one seed, as it happens
#   FLEET_SIM_SECONDS=600 scripts/sim.sh fresh      fresh seeds for longer (FLEET_SIM_FROM=1: from
#                                                   there on); each that fails is told at once
#
# It is built in a directory of its own: the seed of tokio's runtime needs --cfg tokio_unstable,
# and --cfg fleet_sim puts simulated clocks and the bugs planted on purpose into fleetd, which must
# never get into any other build.
set -eu
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg tokio_unstable --cfg fleet_sim"
exec cargo test --locked --profile sim --target-dir target/sim -p fleetd --test sim -- --nocapture "$@"
