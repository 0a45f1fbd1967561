#!/usr/bin/env bash
# Makes an XCFramework of the static library for iOS and macOS: DIRECTORY/cerebellum.xcframework. It can be made
# on any system; Xcode is not needed.
#
#     packaging/xcframework.sh DIRECTORY [--with-chat] [--with-constraints] [--without-text] [--small]
#
# The options are those of packaging/install.sh. A target of Apple's is left out, with a message, if this Rust
# toolchain has no standard library for it (`rustup target add`). Needs `lipo`, or `llvm-lipo` of LLVM 19 or later.
set -euo pipefail
[ $# -gt 0 ] && [[ "$1" != -* ]] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '/^set/d' >&2; exit 2; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

mkdir -p "$1"
framework="$(cd "$1" && pwd)/cerebellum.xcframework"
shift
cd "$(dirname "$0")/.."
lipo=$(command -v lipo || compgen -c llvm-lipo- | sort -V | tail -n 1)
[ -n "$lipo" ] || fail "lipo is missing: apt-get install llvm-19"

# Each library of the framework: its name, Apple's platform and variant, and Rust's targets, one for each processor.
LIBRARIES=(
    "ios ios - aarch64-apple-ios"
    "ios-simulator ios simulator aarch64-apple-ios-sim x86_64-apple-ios"
    "macos macos - aarch64-apple-darwin x86_64-apple-darwin"
)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$framework"
mkdir "$framework"
entries='' made=()

for library in "${LIBRARIES[@]}"; do
    read -r name platform variant targets <<< "$library"
    archives=() processors=''
    for target in $targets; do
        if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
            printf '*** left out: rustup target add %s ***\n' "$target" >&2
            continue
        fi
        packaging/install.sh --prefix "$work/$target" --target "$target" --without-shared "$@" > /dev/null
        # Without the bitcode of rustc's LLVM, at which an older LLVM fails.
        [[ "$lipo" != llvm-lipo* ]] || "${lipo/lipo/objcopy}" --remove-section=__LLVM,__bitcode \
            --remove-section=__LLVM,__cmdline "$work/$target/lib/libcerebellum.a"
        archives+=("$work/$target/lib/libcerebellum.a")
        case "$target" in
            aarch64*) processors+="<string>arm64</string>" ;;
            *) processors+="<string>x86_64</string>" ;;
        esac
        include="$work/$target"
    done
    [ ${#archives[@]} -gt 0 ] || continue
    mkdir -p "$framework/$name/Headers"
    "$lipo" -create "${archives[@]}" -output "$framework/$name/libcerebellum.a"
    cp "$include/include/cerebellum.h" "$framework/$name/Headers"
    printf 'module Cerebellum {\n    header "cerebellum.h"\n    export *\n}\n' > "$framework/$name/Headers/module.modulemap"
    entries+="<dict>
<key>LibraryIdentifier</key><string>$name</string>
<key>LibraryPath</key><string>libcerebellum.a</string>
<key>HeadersPath</key><string>Headers</string>
<key>SupportedArchitectures</key><array>$processors</array>
<key>SupportedPlatform</key><string>$platform</string>
$([ "$variant" = - ] || echo "<key>SupportedPlatformVariant</key><string>$variant</string>")
</dict>
"
    made+=("$name")
done
[ ${#made[@]} -gt 0 ] || fail "this toolchain has no target of Apple's"

cp -r "$include/share/licenses/cerebellum" "$framework/licences"
cat > "$framework/Info.plist" << PLIST
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
<key>AvailableLibraries</key>
<array>
$entries</array>
<key>CFBundlePackageType</key><string>XFWK</string>
<key>XCFrameworkFormatVersion</key><string>1.0</string>
</dict>
</plist>
PLIST
echo "$framework: ${made[*]}"
