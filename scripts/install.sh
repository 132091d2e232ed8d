#!/bin/bash
# Installs fleet, or with --uninstall removes what was installed. The Makefile says what the
# variables are. One list of files serves both.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

BIN=${BIN:-target/dist}
PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
SYSCONFDIR=${SYSCONFDIR:-/etc}
share=$PREFIX/share
# polkit and zsh look below /usr only in places of the distribution's.
if [ "$PREFIX" = /usr ]; then polkit=$share; else polkit=$SYSCONFDIR; fi
ZSHDIR=${ZSHDIR:-$share/zsh/site-functions}
systemd=$PREFIX/lib/systemd/system

# mode, source, target. Text that names /usr/bin/fleetd names the installed one.
files() {
    cat <<LIST
0755 $BIN/fleetd $PREFIX/bin/fleetd
0755 $BIN/fleetctl $PREFIX/bin/fleetctl
0644 contrib/systemd/fleet.service $systemd/fleet.service
0644 contrib/systemd/fleet.socket $systemd/fleet.socket
0644 contrib/systemd/fleet.sysusers $PREFIX/lib/sysusers.d/fleet.conf
0644 contrib/systemd/fleet.tmpfiles $PREFIX/lib/tmpfiles.d/fleet.conf
0644 contrib/systemd/run-as-fleet.conf $share/fleet/run-as-fleet.conf
0644 contrib/polkit/50-fleet.rules $polkit/polkit-1/rules.d/50-fleet.rules
0644 contrib/completions/fleetctl.bash $share/bash-completion/completions/fleetctl
0644 contrib/completions/fleetctl.zsh $ZSHDIR/_fleetctl
0644 contrib/completions/fleetctl.fish $share/fish/vendor_completions.d/fleetctl.fish
LIST
    for page in "${pages[@]}"; do
        echo "0644 $page $share/man/man${page##*.}/${page##*/}"
    done
}

conf=$DESTDIR$SYSCONFDIR/fleet/fleet.conf
if [ "${1:-}" = --uninstall ]; then
    shopt -s nullglob
    man=$DESTDIR$share/man
    pages=("$man"/man1/fleetctl*.1 "$man"/man5/fleet.{access,conf,unit}.5 "$man"/man7/fleet.7 "$man"/man8/fleetd.8)
    files | while read -r _ _ target; do
        rm -f "$DESTDIR$target"
    done
    rmdir "$DESTDIR$share/fleet" 2>/dev/null || true
    if cmp -s "$conf" contrib/fleet.conf.sample; then
        rm "$conf"
        rmdir "${conf%/*}" 2>/dev/null || echo "${conf%/*} has more files and stays"
    elif [ -e "$conf" ]; then
        echo "$conf was changed and stays"
    fi
    exit 0
fi

for binary in fleetd fleetctl; do
    if [ ! -x "$BIN/$binary" ]; then
        echo "$BIN has no $binary: build it (make dist), or say where it is with BIN=" >&2
        exit 1
    fi
done
written=$(mktemp -d)
trap 'rm -rf "$written"' EXIT
scripts/man.sh "$BIN" "$written"
pages=("$written"/*)

files | while read -r mode source target; do
    install -D -m "$mode" "$source" "$DESTDIR$target"
    case $target in
        "$systemd"/*) sed -i "s|/usr/bin/fleetd|$PREFIX/bin/fleetd|" "$DESTDIR$target" ;;
        */run-as-fleet.conf) sed -i "s|/usr/share/|$share/|" "$DESTDIR$target" ;;
    esac
done
# What somebody has configured stays.
[ -e "$conf" ] || install -D -m 0644 contrib/fleet.conf.sample "$conf"

[ -n "$DESTDIR" ] || cat <<NEXT
fleet is installed below $PREFIX; $conf has the configuration. Next, as root:
  systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload
  systemctl enable --now fleet.socket fleet.service
NEXT
