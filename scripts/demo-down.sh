#!/bin/sh
# Takes down what demo.sh left running. Nothing of it stays.
set -eu
cd "$(dirname "$0")/.."
exec target/release/fleet-sandbox down --name "${1:-demo}"
