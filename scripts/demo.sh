#!/bin/bash
# The main job, shown: three real systemd machines, etcd, fleetd on each; the examples started and
# listed; a container; a template in three copies; the power cut of one machine.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:-demo}
bin=$PWD/target/release
sandbox=$bin/fleet-sandbox

bold=""; plain=""
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m'; plain=$'\e[0m'; fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
# Shows a command as its user would type it, and runs it against the first machine's socket.
run() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; eval "$*"; }

if [ "$(id -u)" != 0 ]; then
    echo "make demo boots machines and needs root: sudo make demo" >&2
    exit 1
fi
"$sandbox" down --name "$name" >/dev/null 2>&1 || true

say "Three machines with their own systemd, one etcd, fleetd on each"
"$sandbox" up --name "$name" --hosts 3 --etcd 1 --bin-dir "$bin" \
    --listen /srv/fleet.sock \
    --metadata region=us-west --metadata region=us-east --metadata region=us-east
# The first machine's API, reached from outside: its disk is a directory of this computer.
export FLEETCTL_ENDPOINT=unix:///var/lib/fleet-sandbox/$name/$name-1/srv/fleet.sock
PATH=$bin:$PATH
for _ in $(seq 150); do
    [ "$(fleetctl list-machines --no-legend 2>/dev/null | wc -l)" = 3 ] && break
    sleep 0.2
done

say "The cluster, and the examples"
run "fleetctl list-machines"
run "fleetctl submit examples/*"
run "fleetctl start hello.service"
run "fleetctl list-units"

say "pong follows ping to its machine (MachineOf)"
run "fleetctl start ping pong"
run "fleetctl list-units"

say "A container, run by podman from an image built here from busybox"
scripts/demo-image.sh "$name-1" "$name-2" "$name-3"
run "fleetctl start recipes/container@1"
run "fleetctl list-units"

say "A template, three copies"
run "fleetctl submit recipes/worker@.service"
run "fleetctl start worker@1 worker@2 worker@3"
run "fleetctl list-units"

victim=$name-3
id=$("$sandbox" exec "$victim" -- cat /etc/machine-id)
say "The power of one machine is cut: $victim, $id"
run "fleet-sandbox kill $victim"
say "Its units are started elsewhere as soon as it is lost"
scripts/demo-wait.sh "$id"
run "fleetctl list-machines"
run "fleetctl list-units"

cat <<TALK

The cluster stays up. Talk to it:
  export PATH=$bin:\$PATH FLEETCTL_ENDPOINT=$FLEETCTL_ENDPOINT
  fleetctl list-units
  fleet-sandbox exec $name-1 -- systemctl status hello.service
  fleet-sandbox boot $victim          # the lost machine comes back
Take it down:
  make demo-down
TALK
