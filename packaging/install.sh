#!/usr/bin/env bash
# Builds the C library and installs it with its header, C++ header, pkg-config and CMake files.
#
#     packaging/install.sh [--prefix DIR] [--destdir DIR] [--target TRIPLE] [--without-text]
#                          [--with-constraints] [--small] [--rebuild-std]
#
# --prefix            where it will live (/usr/local)
# --destdir           put in front of every path, for packagers
# --target            for another system, by the name rustc has for it
# --without-text      token ids only: a third of the size
# --with-constraints  with choices, regular expressions and JSON schemas for generated texts
#
# For small devices, one by one or together (docs/embedding.md, "Size"):
# --small             without the kernels for processors with VNNI (AVX-512, AVX-VNNI), and without scalar ones
#                     with FMA, for x86-64 processors that have neither
# --rebuild-std       with a standard library that is small too, and cannot print backtraces or the places of
#                     panics, which nothing asks of it. Needs `rustup component add rust-src`, options of cargo
#                     and rustc that may change, and on Linux a C library of 2022 or later (glibc 2.36)
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=/usr/local destdir='' features=capi,text,scalar-fma,vnni target=() cargo=()
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix) prefix="$2"; shift 2 ;;
        --destdir) destdir="$2"; shift 2 ;;
        --without-text) features="${features/,text/}"; shift ;;
        --with-constraints) features="$features,constraints"; shift ;;
        --small)
            features="${features/,scalar-fma,vnni/}"
            cargo+=(--config profile.device.package.cerebellum-kernels.opt-level=2)
            shift ;;
        --rebuild-std)
            cargo+=(-Z "build-std=std,panic_unwind" -Z "build-std-features=optimize_for_size"); shift ;;
        --target) target=(--target "$2"); shift 2 ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

# The standard library is only rebuilt for a system that is named, by a cargo that is told to allow it.
if [[ "${cargo[*]}" = *build-std* ]]; then
    export RUSTC_BOOTSTRAP=1 RUSTFLAGS="${RUSTFLAGS:-} -Zlocation-detail=none"
    [ ${#target[@]} -gt 0 ] || target=(--target "$(rustc -vV | sed -n 's/^host: //p')")
fi

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
abi=$(sed -n 's/^#define CBL_ABI_VERSION //p' include/cerebellum.h)
system=$(rustc "${target[@]}" --print cfg | sed -n 's/^target_os="\(.*\)"/\1/p')

# The name that programs record, so that they find a library of the same interface.
link=()
case "$system" in
    linux | android | freebsd | netbsd | openbsd)
        shared=libcerebellum.so
        soname="$shared.$abi"
        link=(-C "link-arg=-Wl,-soname,$soname") ;;
    macos | ios)
        shared=libcerebellum.dylib
        soname="libcerebellum.$abi.dylib"
        link=(-C "link-arg=-Wl,-install_name,$prefix/lib/$soname") ;;
    *) echo "no install rules for $system yet: copy the library by hand" >&2; exit 1 ;;
esac

# rustc links with lld there: functions that are the same are there once, relocations are a bit each.
if [[ "${cargo[*]}" = *build-std* && "${target[1]}" = x86_64-unknown-linux-gnu ]]; then
    link+=(-C link-arg=-Wl,--icf=all,-z,pack-relative-relocs)
fi

# Less inlining and unrolling where the source does not ask for it: a tenth smaller, and as fast, because
# kernels ask (docs/embedding.md, "Size"). rustc says in a note what static programs have to link.
output=$(cargo rustc --quiet --lib --profile device --locked --no-default-features --features "$features" \
    "${target[@]}" "${cargo[@]}" --crate-type staticlib,cdylib -- "${link[@]}" --print native-static-libs \
    -C llvm-args=-inline-threshold=10 -C llvm-args=-unroll-runtime=0 2>&1) || { echo "$output" >&2; exit 1; }
private=$(sed -n 's/^note: native-static-libs: //p' <<< "$output" | tail -n 1)
[ -n "$private" ] || { printf 'rustc did not say what to link:\n%s\n' "$output" >&2; exit 1; }
built="${CARGO_TARGET_DIR:-target}/${target[1]:-}/device"

lib="$destdir$prefix/lib" include="$destdir$prefix/include"
mkdir -p "$lib/pkgconfig" "$lib/cmake/cerebellum" "$include"
install -m 644 include/cerebellum.h include/cerebellum.hpp "$include"
install -m 644 "$built/libcerebellum.a" "$lib"
install -m 755 "$built/$shared" "$lib/$soname"
ln -sf "$soname" "$lib/$shared"

fill() {
    sed -e "s|@PREFIX@|$prefix|g" -e "s|@VERSION@|$version|g" -e "s|@PRIVATE@|$private|g" \
        -e "s|@SHARED@|$soname|g" "packaging/$1" > "$2"
}
fill cerebellum.pc.in "$lib/pkgconfig/cerebellum.pc"
fill cerebellum-config.cmake.in "$lib/cmake/cerebellum/cerebellum-config.cmake"
fill cerebellum-config-version.cmake.in "$lib/cmake/cerebellum/cerebellum-config-version.cmake"
echo "installed cerebellum $version (interface $abi) in $destdir$prefix"
