#!/bin/sh
# Installs, by name, the Debian packages that fleet's build, demo and tests need and that are
# missing. Services in them are kept from starting: the sandbox starts its own.
set -eu

PACKAGES="gcc libc6-dev protobuf-compiler libprotobuf-dev
systemd-container dbus iproute2 etcd-server etcd-client
busybox-static podman crun conmon curl
openssh-client openssh-server
polkitd mandoc zsh fish
chromium chromium-driver fonts-dejavu-core"

if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is missing: fleet is built with the Rust toolchain named in rust-toolchain.toml" >&2
    echo "(Debian's own is too old). Install it with rustup, then run make again." >&2
    exit 1
fi

missing=""
for package in $PACKAGES; do
    state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case $state in
        ii*) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "these packages are missing:$missing" >&2
    echo "run as root, or install them: apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

echo "installing:$missing"
policy=/usr/sbin/policy-rc.d
made_policy=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    made_policy=yes
fi
trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
