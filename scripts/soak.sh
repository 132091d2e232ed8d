#!/bin/sh
# Random histories from seeds that nobody has seen: the simulator, then the planner, for
# FLEET_SIM_SECONDS and FLEET_SOAK_ROUNDS. What fails prints the seed that replays it.
set -eu
cd "$(dirname "$0")/.."
unset PROPTEST_RNG_SEED FLEET_SIM_FROM
FLEET_SIM_SECONDS="${FLEET_SIM_SECONDS:-300}" scripts/sim.sh fresh_seeds_hold
round=0
while [ "$round" -lt "${FLEET_SOAK_ROUNDS:-50}" ]; do
    cargo test --quiet --locked -p fleet-core --lib plan::properties
    round=$((round + 1))
done
