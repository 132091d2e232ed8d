#!/bin/sh
# What fleet adds to systemd, measured on real hosts, with systemd's own time in the same run.
set -eu
cd "$(dirname "$0")/.."
exec cargo bench --locked -p fleetd --bench hosts
