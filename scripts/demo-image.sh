#!/bin/bash
# Builds a tiny image from Debian's busybox-static and gives it to podman on each machine of the
# sandbox. No registry is asked.
set -euo pipefail
cd "$(dirname "$0")/.."
sandbox=target/release/fleet-sandbox

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/root/bin" "$tree/root/tmp"
cp "$(command -v busybox)" "$tree/root/bin/busybox"
for applet in sh echo sleep; do
    ln -s busybox "$tree/root/bin/$applet"
done
tar -C "$tree/root" -cf "$tree/busybox.tar" .
for host in "$@"; do
    "$sandbox" exec "$host" -- sh -c \
        'cat > /tmp/busybox.tar && podman import -q /tmp/busybox.tar localhost/busybox >/dev/null' \
        < "$tree/busybox.tar" &
done
status=0
for job in $(jobs -p); do wait "$job" || status=1; done
exit $status
