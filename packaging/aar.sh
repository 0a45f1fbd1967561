#!/usr/bin/env bash
# Makes an Android archive of the C library, which Gradle gives to native code as the package `cerebellum`
# (prefab): DIRECTORY/cerebellum-VERSION.aar.
#
#     packaging/aar.sh DIRECTORY [--abi NAME]... [--with-chat] [--with-constraints] [--without-text] [--small]
#
# --abi   arm64-v8a, armeabi-v7a, x86_64 or x86; all four, unless some are named
#
# The other options are those of packaging/install.sh. With ANDROID_NDK_HOME the archive has the shared
# library, linked by that NDK. Without it the archive has the static library, which needs clang, llvm, and the
# lld of the Rust toolchain. Needs `rustup target add` of each target, and zip.
set -euo pipefail
[ $# -gt 0 ] && [[ "$1" != -* ]] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '/^set/d' >&2; exit 2; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

mkdir -p "$1"
directory=$(cd "$1" && pwd)
shift
abis=() options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --abi) [ -n "${2:-}" ] || fail "--abi needs a value"; abis+=("$2"); shift 2 ;;
        *) options+=("$1"); shift ;;
    esac
done
[ ${#abis[@]} -gt 0 ] || abis=(arm64-v8a armeabi-v7a x86_64 x86)
cd "$(dirname "$0")/.."
command -v zip > /dev/null || fail "zip is missing: apt-get install zip"

# The oldest version of Android whose C library has all that Rust's standard library asks for.
API=21
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
aar="$work/aar" module="$work/aar/prefab/modules/cerebellum"
mkdir -p "$module/libs" "$aar/META-INF"
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

# Rust's name of ABI $1, by which clang knows it, too.
triple() {
    case "$1" in
        arm64-v8a) echo aarch64-linux-android ;;
        armeabi-v7a) echo armv7-linux-androideabi ;;
        x86_64) echo x86_64-linux-android ;;
        x86) echo i686-linux-android ;;
        *) fail "unknown ABI $1: arm64-v8a, armeabi-v7a, x86_64 and x86 are known" ;;
    esac
}

# Tools that link for Android: the NDK's, or this system's with the linker of Rust's toolchain, which is newer.
kind=static library=libcerebellum.a tools='' linking=(--without-shared)
linker="--ld-path=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/gcc-ld/ld.lld"
if [ -n "${ANDROID_NDK_HOME:-}" ]; then
    tools=$(compgen -G "$ANDROID_NDK_HOME/toolchains/llvm/prebuilt/*/bin/") ||
        fail "ANDROID_NDK_HOME names no NDK: $ANDROID_NDK_HOME"
    kind=shared library=libcerebellum.so linking=() linker=''
fi
export AR="${tools}llvm-ar" OBJCOPY="${tools}llvm-objcopy"

for abi in "${abis[@]}"; do
    target=$(triple "$abi")
    out="$module/libs/android.$abi"
    mkdir -p "$out"
    printf '#!/bin/sh\nexec "%sclang" --target=%s%s %s "$@"\n' "$tools" "$target" "$API" "$linker" > "$work/cc"
    chmod +x "$work/cc"
    export "CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<< "$target")_LINKER=$work/cc"
    packaging/install.sh --prefix "$work/$abi" --target "$target" "${linking[@]}" "${options[@]}" > /dev/null
    cp "$work/$abi/lib/$library" "$out"
    cat > "$out/abi.json" << JSON
{"abi": "$abi", "api": $API, "ndk": 27, "stl": "none", "static": $([ $kind = static ] && echo true || echo false)}
JSON
    if [ $kind = shared ]; then
        mkdir -p "$aar/jni/$abi"
        cp "$work/$abi/lib/$library" "$aar/jni/$abi"
    fi
    # What a program links beside the static library; all of it is Android's own.
    private=$(sed -n 's/^Libs: .*libcerebellum\.a *//p' "$work/$abi/lib/pkgconfig/cerebellum-static.pc")
done

cp -r "$work/${abis[0]}/include" "$module/include"
cp -r "$work/${abis[0]}/share/licenses/cerebellum" "$aar/META-INF/cerebellum"
cat > "$aar/prefab/prefab.json" << JSON
{"schema_version": 2, "name": "cerebellum", "version": "$version", "dependencies": []}
JSON
exported=''
for flag in $([ $kind = shared ] || echo "$private"); do
    # clang adds the unwinder by itself.
    [[ "$flag" != -l* || "$flag" = -lunwind || "$flag" = -lgcc* ]] || exported+="${exported:+, }\"$flag\""
done
cat > "$module/module.json" << JSON
{"export_libraries": [$exported], "library_name": "libcerebellum"}
JSON
cat > "$aar/AndroidManifest.xml" << XML
<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="cerebellum">
    <uses-sdk android:minSdkVersion="$API" />
</manifest>
XML
# An archive of Java's without a class, which Gradle expects in every AAR.
mkdir "$work/classes" && mkdir "$work/classes/META-INF"
printf 'Manifest-Version: 1.0\n\n' > "$work/classes/META-INF/MANIFEST.MF"
(cd "$work/classes" && zip -qXr "$aar/classes.jar" META-INF)
touch "$aar/R.txt"

file="$directory/cerebellum-$version.aar"
rm -f "$file"
(cd "$aar" && find . -type f | LC_ALL=C sort | zip -qX "$file" -@)
echo "$file: the $kind library for ${abis[*]}"
