#!/bin/bash
# Makes target/fleet_VERSION_ARCHITECTURE.deb of the files that `make install` installs, and prints
# its path. Needs dpkg-deb and readelf (binutils), and no root.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

export BIN=${BIN:-target/dist}
OUT=${OUT:-target}
VERSION=${VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
architecture=$(dpkg --print-architecture)
# Who answers for this build, as Debian's tools are told.
maintainer="${DEBFULLNAME:-The fleet developers} <${DEBEMAIL:-root@localhost}>"

# Which packages have the libraries that the binaries are linked with.
depends() {
    local library glibc
    for library in $(readelf -d "$BIN/fleetd" "$BIN/fleetctl" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u); do
        case $library in
            libc.so.*|libm.so.*|ld-linux*) ;;
            libgcc_s.so.1) echo "libgcc-s1" ;;
            *)
                echo "fleet is linked with $library: say in scripts/deb.sh which package has it" >&2
                return 1
                ;;
        esac
    done
    glibc=$(readelf -V "$BIN/fleetd" "$BIN/fleetctl" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    echo "libc6 (>= ${glibc#GLIBC_})"
}
depends=$(depends | paste -sd, | sed 's/,/, /g')

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 0755 "$tree"
DESTDIR=$tree PREFIX=/usr ZSHDIR=/usr/share/zsh/vendor-completions scripts/install.sh
find "$tree/usr/share/man" -type f -exec gzip -9n {} +
doc=$tree/usr/share/doc/fleet
mkdir -p "$doc"
install -m 0644 README.md "$doc/README.md"
gzip -9nc CHANGELOG.md > "$doc/CHANGELOG.md.gz"
gzip -9nc > "$doc/changelog.gz" <<CHANGELOG
fleet ($VERSION) unstable; urgency=medium

  * See CHANGELOG.md.

 -- $maintainer  $(date -u -R -r CHANGELOG.md)
CHANGELOG
install -m 0644 contrib/debian/copyright "$doc/copyright"

mkdir "$tree/DEBIAN"
size=$(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f 1)
sed -e "s|@VERSION@|$VERSION|" -e "s|@ARCHITECTURE@|$architecture|" \
    -e "s|@MAINTAINER@|$maintainer|" -e "s|@DEPENDS@|$depends|" -e "s|@SIZE@|$size|" contrib/debian/control > "$tree/DEBIAN/control"
install -m 0644 contrib/debian/conffiles "$tree/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 0755 "contrib/debian/$script" "$tree/DEBIAN/$script"
done
(cd "$tree" && find usr -type f -exec md5sum {} + | LC_ALL=C sort -k 2 > DEBIAN/md5sums)

package=$OUT/fleet_${VERSION}_$architecture.deb
mkdir -p "$OUT"
dpkg-deb --root-owner-group --build "$tree" "$package" >/dev/null
echo "$package"
