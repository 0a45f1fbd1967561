#!/usr/bin/env bash
# Makes two Debian packages of the C library for this architecture: libcerebellum0, the shared library, and
# libcerebellum-dev, what programs are compiled with.
#
#     packaging/deb.sh DIRECTORY [--with-chat] [--with-constraints] [--without-text] [--small]
#
# The packages are written to DIRECTORY. The options are those of packaging/install.sh, by which the library is
# built. Needs dpkg-deb, objdump and what install.sh needs.
set -euo pipefail
[ $# -gt 0 ] && [[ "$1" != -* ]] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '/^set/d' >&2; exit 2; }
mkdir -p "$1"
directory=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# mktemp's mode would become that of the packages' root.
mkdir -m 755 "$work"/{all,run,dev}
architecture=$(dpkg --print-architecture)
libdir="lib/$(gcc -print-multiarch)"
packaging/install.sh --prefix /usr --libdir "$libdir" --destdir "$work/all" "$@"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
shared=$(basename "$(readlink "$work/all/usr/$libdir/libcerebellum.so")")
runtime="libcerebellum${shared##*.}"
# The newest version of glibc that one of its functions is from.
glibc=$(objdump -T "$work/all/usr/$libdir/$shared" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)

mkdir -p "$work/run/usr/$libdir" "$work/dev/usr/$libdir"
mv "$work/all/usr/$libdir/$shared" "$work/run/usr/$libdir"
mv "$work/all/usr/$libdir"/* "$work/dev/usr/$libdir"
mv "$work/all/usr/include" "$work/dev/usr"
# A library is not executed.
chmod 644 "$work/run/usr/$libdir/$shared"

# copyright has the licences by name, and the texts lie beside it, compressed as Debian's rules want.
for part in run:"$runtime" dev:libcerebellum-dev; do
    doc="$work/${part%%:*}/usr/share/doc/${part#*:}"
    mkdir -p "$doc"
    cp "$work/all/usr/share/licenses/cerebellum"/* "$doc"
    gzip -9n "$doc"/*
    cat > "$doc/copyright" << 'COPYRIGHT'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: cerebellum

Files: *
Copyright: The authors of Cerebellum
License: Apache-2.0 or MIT
Comment: The texts are in LICENSE-APACHE.gz and LICENSE-MIT.gz beside this file; THIRD-PARTY.txt.gz has the
 packages whose code is in the library, with their licences.
COPYRIGHT
done

# What other packages that link the library depend on, and what makes the linker see it.
mkdir "$work"/{run,dev}/DEBIAN
echo "libcerebellum ${shared##*.} $runtime (>= $version)" > "$work/run/DEBIAN/shlibs"
echo 'activate-noawait ldconfig' > "$work/run/DEBIAN/triggers"

# Makes the package $2, in section $3 and with dependencies $4, of the tree $1. The description follows, its
# first line and the rest.
package() {
    local file="$directory/${2}_${version}_$architecture.deb"
    cat > "$work/$1/DEBIAN/control" << CONTROL
Package: $2
Source: cerebellum
Version: $version
Architecture: $architecture
Multi-Arch: same
Section: $3
Priority: optional
Depends: $4
Installed-Size: $(du -sk --exclude=DEBIAN "$work/$1" | cut -f 1)
Maintainer: ${DEBFULLNAME:-The authors of Cerebellum} <${DEBEMAIL:-none@invalid}>
Description: $5
 $6
CONTROL
    (cd "$work/$1" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
    dpkg-deb --root-owner-group --build "$work/$1" "$file" > /dev/null
    echo "$file"
}

package run "$runtime" libs "libc6 (>= ${glibc#GLIBC_}), libgcc-s1" 'runs quantized GPT models from one mapped file' \
    'The shared library. It states its memory before it allocates any, and gives the same bits everywhere.'
package dev libcerebellum-dev libdevel "$runtime (= $version), libc6-dev" 'headers and static library of Cerebellum' \
    'Headers for C and C++, the static library, and files for pkg-config and CMake.'
