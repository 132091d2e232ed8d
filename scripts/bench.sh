#!/bin/sh
# What fleet adds to systemd, measured on real hosts, with systemd's own time in the same run; then
# listings, of a thousand units and of a hundred thousand.
set -eu
cd "$(dirname "$0")/.."
cargo bench --locked -p fleetd --bench hosts
exec cargo bench --locked -p fleetd --bench listing
