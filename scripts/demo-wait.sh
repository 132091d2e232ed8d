#!/bin/bash
# Waits until fleetctl places no unit on a machine any more, at most a minute.
set -euo pipefail
machine=$1
for _ in $(seq 300); do
    if ! fleetctl list-units --no-legend | grep -q "$machine" && ! fleetctl list-machines --no-legend | grep -q "$machine"; then
        exit 0
    fi
    sleep 0.2
done
echo "machine $machine still has units after a minute:" >&2
fleetctl list-units >&2
exit 1
