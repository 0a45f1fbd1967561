#!/usr/bin/env bash
# Builds the C library and installs it: shared and static, its header, C++ header, files for pkg-config and
# CMake, and the licences of all that is in it.
#
#     packaging/install.sh [--prefix DIR] [--libdir DIR] [--destdir DIR] [--target TRIPLE] [--bare TRIPLE]
#                          [--without-text] [--without-shared] [--with-chat] [--with-constraints] [--small]
#                          [--rebuild-std]
#
# --prefix            where it will live (/usr/local); a relative one starts where you are
# --libdir            where its libraries will live (lib): absolute, or below the prefix
# --destdir           put in front of every path, for packagers
# --target            for another system, by the name rustc has for it. The linker that cargo has for it
#                     (CARGO_TARGET_TRIPLE_LINKER), or CC, also names the target's `ar` and `objcopy`, unless
#                     AR and OBJCOPY do
# --bare              the static library for a target without an operating system, such as thumbv7em-none-eabihf:
#                     docs/bare-metal.md. Needs `rustup target add` of that target, and no other tool for it
# --without-text      token ids only: a sixth smaller
# --without-shared    the static library alone, which takes no linker of the target's system
# --with-chat         with the engine for the chat templates of all models; without it, of those whose template
#                     has a simple form
# --with-constraints  with choices, regular expressions and JSON schemas for generated texts
#
# For small devices, one by one or together (docs/embedding.md, "Size"):
# --small             without the kernels for processors with VNNI (AVX-512, AVX-VNNI), and without scalar ones
#                     with FMA, for x86-64 processors that have neither; all but kernels compiled for the least
#                     size, which takes a fifth longer to tokenize; short tables of characters, which takes up to
#                     two thirds longer still for texts in other than Latin letters
# --rebuild-std       with a standard library that is small too, and cannot print backtraces or the places of
#                     panics, which nothing asks of it. Needs `rustup component add rust-src`, options of cargo
#                     and rustc that may change, and on Linux a C library of 2022 or later (glibc 2.36)
set -euo pipefail
here="$PWD"
cd "$(dirname "$0")/.."

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' packaging/install.sh >&2
    exit 2
}
fail() { printf '%s\n' "$*" >&2; exit 1; }

# ---- What was asked for ----

prefix=/usr/local libdir=lib destdir='' features=capi,std,text,scalar-fma,vnni,tables triple='' crates=staticlib,cdylib
# None of the lists here is ever empty, which the bash of macOS would call unset.
small=false bare=''
rustc=(rustc) cargo=(cargo rustc --quiet --lib --profile device --locked --no-default-features)
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix | --libdir | --destdir | --target | --bare) [ -n "${2:-}" ] || fail "$1 needs a value" ;;
    esac
    case "$1" in
        --prefix) prefix="$2"; shift 2 ;;
        --libdir) libdir="$2"; shift 2 ;;
        --destdir) destdir="$2"; shift 2 ;;
        --without-text) features="${features/,text/}"; shift ;;
        --without-shared) crates=staticlib; shift ;;
        --with-chat) features="$features,chat"; shift ;;
        --with-constraints) features="$features,constraints"; shift ;;
        --small)
            small=true features="${features/,scalar-fma,vnni/}" features="${features/,tables/}"
            cargo+=(--config profile.device.package.cerebellum-kernels.opt-level=2)
            cargo+=(--config 'profile.device.opt-level="z"')
            shift ;;
        --rebuild-std)
            cargo+=(-Z "build-std=std,panic_unwind" -Z "build-std-features=optimize_for_size"); shift ;;
        --target) triple="$2"; shift 2 ;;
        --bare)
            triple="$2" bare="$2" features="${features/,std/}" crates=staticlib
            features="${features/,scalar-fma,vnni/}"
            cargo+=(--config 'profile.device.panic="abort"')
            shift 2 ;;
        --help | -h) usage ;;
        *) fail "there is no option $1: packaging/install.sh --help lists them" ;;
    esac
done

[[ "$prefix" = /* ]] || prefix="$here/$prefix"
[[ -z "$destdir" || "$destdir" = /* ]] || destdir="$here/$destdir"
prefix="${prefix%/}" libdir="${libdir%/}" destdir="${destdir%/}"
[[ "$libdir" = /* ]] || libdir="$prefix/$libdir"
case "$libdir/" in
    "$prefix"/*/../* | "$prefix/../"*) fail "--libdir is absolute or below the prefix: write it without '..'" ;;
esac
case "$prefix$libdir" in
    *[\"\$\\]*) fail "files of pkg-config and CMake cannot hold a path with one of \" \$ \\: $prefix, $libdir" ;;
esac

command -v cargo > /dev/null || fail 'cargo is missing: install Rust, https://rustup.rs'

# ---- The system it is for ----

# The standard library is only rebuilt for a system that is named, by a cargo that is told to allow it.
if [[ "${cargo[*]}" = *build-std* ]]; then
    export RUSTC_BOOTSTRAP=1 RUSTFLAGS="${RUSTFLAGS:-} -Zlocation-detail=none"
    # What `Debug` prints is in messages of bugs only; without it they lack some values.
    [ -z "$bare" ] || RUSTFLAGS+=" -Zfmt-debug=none"
    [ -n "$triple" ] || triple=$(rustc -vV | sed -n 's/^host: //p')
fi
if [ -n "$triple" ]; then
    rustc+=(--target "$triple")
    cargo+=(--target "$triple")
fi

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
abi=$(sed -n 's/^#define CBL_ABI_VERSION //p' include/cerebellum.h)
configuration=$("${rustc[@]}" --print cfg)
system=$(sed -n 's/^target_os="\(.*\)"/\1/p' <<< "$configuration")
pointer=$(($(sed -n 's/^target_pointer_width="\(.*\)"/\1/p' <<< "$configuration") / 8))

# Less inlining and unrolling where the source does not ask for it: a tenth smaller, and as fast, because
# kernels ask (docs/embedding.md, "Size").
link=(-C llvm-args=-inline-threshold=10 -C llvm-args=-unroll-runtime=0)
# Level `z`, which has a threshold of its own, gains by inlining a little more.
! $small || link[1]=llvm-args=-inline-threshold=30

# With frame pointers the tables for unwinding need not say where each `push` moves the stack. Kernels, which
# are a package of their own, stay without.
! $small || link+=(-C force-frame-pointers=yes)

# The name that programs record, so that they find a library of the same interface.
case "$system" in
    linux | freebsd | netbsd | openbsd)
        shared=libcerebellum.so
        soname="$shared.$abi"
        link+=(-C "link-arg=-Wl,-soname,$soname") ;;
    android)
        # An application's package holds libraries by names that end in .so, and nothing else.
        shared=libcerebellum.so
        soname="$shared"
        link+=(-C "link-arg=-Wl,-soname,$soname") ;;
    macos | ios)
        shared=libcerebellum.dylib
        soname="libcerebellum.$abi.dylib"
        link+=(-C "link-arg=-Wl,-install_name,$libdir/$soname") ;;
    none)
        [[ ",$features," != *,std,* ]] || fail "$triple has no operating system: give it as --bare $triple"
        cargo=("${cargo[@]/build-std=std,panic_unwind/build-std=core,alloc,compiler_builtins}")
        cargo=("${cargo[@]/build-std-features=optimize_for_size/build-std-features=compiler-builtins-mem,optimize_for_size}")
        # What nobody calls is left out of the program, function by function.
        link=(-C llvm-args=-inline-threshold=10) ;;
    *) fail "no install rules for $system yet: copy the library by hand" ;;
esac
# rustc's targets for musl are of static programs, which load no library.
! grep -q '^target_feature="crt-static"' <<< "$configuration" || crates=staticlib
[[ $crates = *cdylib* ]] || shared='' soname=''

# rustc links with lld there: functions that are the same are there once, relocations are a bit each.
if [[ "${cargo[*]}" = *build-std* && "$triple" = x86_64-unknown-linux-gnu ]]; then
    link+=(-C link-arg=-Wl,--icf=all,-z,pack-relative-relocs)
fi

# ---- Build ----

# rustc says in a note what static programs have to link.
output=$("${cargo[@]}" --features "$features" --crate-type "$crates" -- "${link[@]}" \
    --print native-static-libs 2>&1) || fail "$output"
private=$(sed -n 's/^note: native-static-libs: //p' <<< "$output" | tail -n 1)
[ -n "$private" ] || [ "$system" = none ] || fail "rustc did not say what to link:"$'\n'"$output"
built="${CARGO_TARGET_DIR:-target}/$triple/device"

# Compilers link the unwinder that fits by themselves: libgcc_s, and libgcc_eh into static programs, for which
# there is no libgcc_s.
private=" $private "
private="${private/ -lgcc_s / }"

# musl's systems do not always have the unwinder that rustc means; it brings its own.
archives=("$built/libcerebellum.a")
unwinder="$(rustc --print sysroot)/lib/rustlib/$triple/lib/self-contained/libunwind.a"
if [[ "$private" = *' -lunwind '* && -f "$unwinder" ]]; then
    private="${private/ -lunwind / }"
    archives+=("$unwinder")
fi
private=$(sed 's/^ *//; s/ *$//' <<< "$private")

# The compiler that links for the target; it knows where its `ar` and `objcopy` are.
variable=CARGO_TARGET_$(tr 'a-z.-' 'A-Z__' <<< "$triple")_LINKER
compiler="${!variable:-${CC:-cc}}"
tool() { "$compiler" -print-prog-name="$1"; }

# Writes the static library to $1 with no symbols but those of the interface. As rustc makes it, it cannot
# be linked with a second library of Rust's: both define rust_eh_personality and others of the standard library.
# Without groups, because the linker would drop the second library's group with the reference to that
# function. And without the bitcode of rustc's LLVM, at which the LLVM of other tools fails.
hide_symbols() {
    local work="$built/static"
    rm -rf "$work" && mkdir -p "$work"
    "$compiler" -r -nostdlib -o "$work/all.o" -Wl,-u,cbl_abi_version,--force-group-allocation \
        "${archives[@]}" &&
        "${OBJCOPY:-$(tool objcopy)}" --wildcard --keep-global-symbol='cbl_*' --strip-unneeded \
            --remove-section=.llvmbc --remove-section=.llvmcmd "$work/all.o" "$work/cerebellum.o" &&
        "${AR:-$(tool ar)}" rcs "$work/libcerebellum.a" "$work/cerebellum.o" ||
        fail "cannot hide the symbols of the static library: name the target's tools in CC, AR and OBJCOPY"
    install -m 644 "$work/libcerebellum.a" "$1"
}

# ---- Install ----

lib="$destdir$libdir" include="$destdir$prefix/include" licences="$destdir$prefix/share/licenses/cerebellum"
mkdir -p "$lib/pkgconfig" "$lib/cmake/cerebellum" "$include" "$licences"
install -m 644 include/cerebellum.h include/cerebellum.hpp "$include"
case "$system" in
    # Apple's linker has other options for that; a firmware has no second library, and its linker takes what it needs.
    macos | ios | none) install -m 644 "$built/libcerebellum.a" "$lib" ;;
    *) hide_symbols "$lib" ;;
esac
if [ -n "$shared" ]; then
    install -m 755 "$built/$shared" "$lib/$soname"
    [ "$soname" = "$shared" ] || ln -sf "$soname" "$lib/$shared"
fi

install -m 644 LICENSE-APACHE LICENSE-MIT packaging/THIRD-PARTY.txt "$licences"
# What the toolchain says of its standard library, a part of which is in ours. Not every toolchain has it.
notice="$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html"
[ ! -f "$notice" ] || install -m 644 "$notice" "$licences/rust-standard-library.html"

# Paths below the prefix are written relative to it: CMake's files may be moved with the rest.
pkgconfig_libdir="$libdir" cmake_include="$prefix/include"
case "$libdir/" in
    "$prefix"/*)
        below="${libdir#"$prefix"}"
        pkgconfig_libdir="\${prefix}$below"
        cmake_include="\${_cerebellum_lib}$(sed 's|[^/][^/]*|..|g' <<< "$below")/include" ;;
esac

# Replaces @NAME@ in file $1 of this directory for every further argument NAME=value, where `&` is no sign.
shopt -u patsub_replacement 2> /dev/null || true
fill() {
    local text pair value
    text=$(cat "packaging/$1")
    shift
    for pair in "$@"; do
        value="${pair#*=}"
        text=${text//@${pair%%=*}@/$value}
    done
    printf '%s\n' "$text"
}

# The words of a file of pkg-config are separated by blanks.
pkgconfig() {
    fill cerebellum.pc.in "PREFIX=${prefix// /\\ }" "LIBDIR=${pkgconfig_libdir// /\\ }" "VERSION=$version" \
        "NAME=$1" "LIBS=$2" "PRIVATE=$3"
}

# Where there are both, `-lcerebellum` takes the shared library, whatever follows.
case "$system" in
    macos | ios) archive='${libdir}/libcerebellum.a' ;;
    *) archive='-L${libdir} -l:libcerebellum.a' ;;
esac
pkgconfig cerebellum-static "$archive $private" '' > "$lib/pkgconfig/cerebellum-static.pc"
if [ -n "$shared" ]; then
    pkgconfig cerebellum '-L${libdir} -lcerebellum' "$private" > "$lib/pkgconfig/cerebellum.pc"
else
    pkgconfig cerebellum "$archive $private" '' > "$lib/pkgconfig/cerebellum.pc"
fi
fill cerebellum-config.cmake.in "INCLUDE=$cmake_include" "SHARED=$soname" "PRIVATE=$private" \
    > "$lib/cmake/cerebellum/cerebellum-config.cmake"
fill cerebellum-config-version.cmake.in "VERSION=$version" "POINTER=$pointer" \
    > "$lib/cmake/cerebellum/cerebellum-config-version.cmake"
echo "installed cerebellum $version (interface $abi) in $destdir$prefix"
# pkg-config searches the usual prefixes only.
if [ -z "$destdir" ] && [ "$prefix" != /usr ] && [ "$prefix" != /usr/local ]; then
    echo "pkg-config finds it by PKG_CONFIG_PATH=$libdir/pkgconfig, CMake by -DCMAKE_PREFIX_PATH=$prefix"
fi
