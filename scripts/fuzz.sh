#!/bin/sh
# Looks for bytes that break what reads the outside world: each target of fuzz/ for
# FLEET_FUZZ_SECONDS, guided by coverage. Needs a nightly toolchain and cargo-fuzz
# (cargo install cargo-fuzz --locked).
#
#   scripts/fuzz.sh                 all targets
#   scripts/fuzz.sh http dbus       these
#
# What is found is put into fuzz/corpus/TARGET, where `make test` replays it for ever. New inputs
# that only reach more code stay in fuzz/target/corpus.
set -eu
cd "$(dirname "$0")/.."
cargo +nightly fuzz --version >/dev/null 2>&1 || {
    echo "make fuzz needs a nightly toolchain and cargo-fuzz: rustup toolchain install nightly &&" \
        "cargo install cargo-fuzz --locked" >&2
    exit 1
}
[ "$#" -gt 0 ] || set -- $(cargo +nightly fuzz list)
for target in "$@"; do
    mkdir -p "fuzz/target/corpus/$target"
    cargo +nightly fuzz run "$target" "fuzz/target/corpus/$target" "fuzz/corpus/$target" -- \
        -max_total_time="${FLEET_FUZZ_SECONDS:-60}" -rss_limit_mb=2048 -malloc_limit_mb=512 \
        -timeout=20 -print_final_stats=1
done
