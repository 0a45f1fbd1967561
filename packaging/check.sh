#!/usr/bin/env bash
# Installs the C library and uses it as a stranger would: examples by make and CMake, the program of
# docs/embedding.md, Python by pip; and checks sizes against their budgets. Needs cargo, gcc, pkg-config;
# cmake and python3 with pip if they are there.
#
#     packaging/check.sh         everything
#     packaging/check.sh small   only the small library without text, its size and how it is installed and
#                                linked: it builds fastest, and what makes it larger makes all of them larger
set -euo pipefail
cd "$(dirname "$0")/.."
work="$PWD/target/packaging"
rm -rf "$work" && mkdir -p "$work"

step() { printf '\n-- %s\n' "$*"; }
skip() { printf '*** left out: %s ***\n' "$*" >&2; }

# A file may have so many bytes; the last measured sizes are in docs/embedding.md.
budget() {
    local bytes
    bytes=$(stat -L -c %s "$1")
    printf '%s: %s bytes of %s\n' "$(basename "$1")" "$bytes" "$2"
    [ "$bytes" -le "$2" ] || { echo "over its budget: make it smaller, or say in docs/embedding.md why not" >&2; exit 1; }
}

# Nothing but the C library, its mathematics, and the unwinder.
linked() {
    local surplus
    surplus=$(objdump -p "$1" | sed -n 's/^ *NEEDED *//p' | grep -Ev '^(libc|libm|libgcc_s|ld-linux[-a-z0-9_]*)\.so' || true)
    [ -z "$surplus" ] || { echo "$1 needs $surplus" >&2; exit 1; }
}

# The library in prefix $1 has what it must have beside code.
licensed() {
    local file
    for file in LICENSE-APACHE LICENSE-MIT THIRD-PARTY.txt; do
        cmp -s "$1/share/licenses/cerebellum/$file" "$file" ||
            cmp "$1/share/licenses/cerebellum/$file" "packaging/$file"
    done
}

# Links packaging/check/linked.c with compiler $1 and further arguments, and runs it where no shared library is
# found.
links() {
    "$1" packaging/check/linked.c "${@:2}" -o "$work/linked" 2> "$work/linker.log" &&
        [ "$(LD_LIBRARY_PATH='' "$work/linked" 2>> "$work/linker.log")" = linked ] ||
        { cat "$work/linker.log" >&2; echo "does not link: $*" >&2; exit 1; }
}

# All ways to link the static library of prefix $1.
static() {
    local -x PKG_CONFIG_PATH="$1/lib/pkgconfig"
    local flags compiler mode surplus
    surplus=$(nm --extern-only --defined-only --format=posix "$1/lib/libcerebellum.a" | grep -v '^cbl_\|:$' || true)
    [ -z "$surplus" ] || { printf 'the static library shows:\n%s\n' "$surplus" >&2; exit 1; }
    # Words, not one argument.
    # shellcheck disable=SC2207
    flags=($(pkg-config --cflags --libs cerebellum-static))
    rustc -O --crate-type staticlib packaging/check/other.rs --crate-name other -o "$work/libother.a"
    for compiler in gcc clang; do
        command -v "$compiler" > /dev/null || { skip "no $compiler"; continue; }
        for mode in -pie -no-pie -static -static-pie; do
            links "$compiler" $mode "${flags[@]}"
            # shellcheck disable=SC2046
            [[ $mode != -static* ]] || links "$compiler" $mode $(pkg-config --static --cflags --libs cerebellum)
            # Whichever comes first.
            links "$compiler" $mode -DOTHER "$work/libother.a" "${flags[@]}"
            links "$compiler" $mode -DOTHER "${flags[@]}" "$work/libother.a" -lm
        done
    done
    links g++ -x c++ "${flags[@]}"
    ! command -v ld.lld > /dev/null || links gcc -fuse-ld=lld -DOTHER "${flags[@]}" "$work/libother.a"
}

# The files of CMake below $1 find the library wherever it was moved, and for the right versions only.
cmake_finds() {
    if ! command -v cmake > /dev/null; then
        skip "CMake is not installed"
        return
    fi
    rm -rf "$work/versions" "$work/moved"
    cmake -S packaging/check -B "$work/versions" -DINSTALLED="$1/$2/cmake/cerebellum" > "$work/versions.log" 2>&1 ||
        { cat "$work/versions.log" >&2; exit 1; }
    cp -r "$1" "$work/moved"
    mkdir "$work/found"
    cp packaging/check/linked.c "$work/found"
    cat > "$work/found/CMakeLists.txt" << 'END'
cmake_minimum_required(VERSION 3.16)
project(found C)
find_package(cerebellum 0.1 REQUIRED)
add_executable(shared linked.c)
target_link_libraries(shared PRIVATE cerebellum::cerebellum)
add_executable(static linked.c)
target_link_libraries(static PRIVATE cerebellum::static -static)
END
    cmake -S "$work/found" -B "$work/found/build" -Dcerebellum_DIR="$work/moved/$2/cmake/cerebellum" \
        > "$work/found.log" 2>&1 && cmake --build "$work/found/build" >> "$work/found.log" 2>&1 ||
        { cat "$work/found.log" >&2; exit 1; }
    LD_LIBRARY_PATH='' "$work/found/build/shared" > /dev/null
    LD_LIBRARY_PATH='' "$work/found/build/static" > /dev/null
}

# Where it is installed: seen from where the caller is, in a directory of another name.
placed() {
    local elsewhere="$work/else where" install="$PWD/packaging/install.sh"
    mkdir "$elsewhere"
    (cd "$elsewhere" && "$install" --prefix here --libdir lib/multiarch "$@")
    licensed "$elsewhere/here"
    cmake_finds "$elsewhere/here" lib/multiarch
    local -x PKG_CONFIG_PATH="$elsewhere/here/lib/multiarch/pkgconfig"
    eval "links gcc $(pkg-config --cflags --libs cerebellum-static)"
    eval "links gcc $(pkg-config --cflags --libs cerebellum) '-Wl,-rpath,$elsewhere/here/lib/multiarch'"
    (cd "$elsewhere" && "$install" --prefix /opt/cerebellum --libdir /opt/lib64 --destdir staged "$@")
    test -e "$elsewhere/staged/opt/lib64/libcerebellum.so"
    grep -qx 'libdir=/opt/lib64' "$elsewhere/staged/opt/lib64/pkgconfig/cerebellum.pc"
    test -e "$elsewhere/staged/opt/cerebellum/include/cerebellum.h"
    ! "$install" --prefix /opt --libdir ../lib 2> /dev/null || { echo "took ../lib" >&2; exit 1; }
    ! "$install" --with-json 2> "$work/option" || { echo "took --with-json" >&2; exit 1; }
    grep -q -- 'no option --with-json' "$work/option"
}

# The budgets are for x86-64 Linux, the only system whose sizes were measured.
[ "$(uname -sm)" = "Linux x86_64" ] || budget() { printf '%s: %s bytes\n' "$1" "$(stat -L -c %s "$1")"; }

case "${1:-}" in
    '' | small) ;;
    *) echo "unknown part $1" >&2; exit 2 ;;
esac

step "small library without text"
packaging/install.sh --prefix "$work/small" --without-text --small
budget "$work/small/lib/libcerebellum.so" 880000
linked "$work/small/lib/libcerebellum.so"
licensed "$work/small"

step "static programs, a second library of Rust's, directories, CMake's versions"
if command -v pkg-config > /dev/null; then
    static "$work/small"
    placed --without-text --small
else
    skip "pkg-config is not installed"
fi
[ "${1:-}" != small ] || exit 0

# rustc's standard library for target $1.
has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

step "musl"
if has_target x86_64-unknown-linux-musl && command -v musl-gcc > /dev/null; then
    packaging/install.sh --prefix "$work/musl" --without-text --small --target x86_64-unknown-linux-musl
    for name in cerebellum cerebellum-static; do
        for mode in '' -static -static-pie; do
            # shellcheck disable=SC2046,SC2086
            links musl-gcc $mode $(PKG_CONFIG_PATH="$work/musl/lib/pkgconfig" pkg-config --cflags --libs "$name")
        done
    done
else
    skip "musl: rustup target add x86_64-unknown-linux-musl, apt-get install musl-tools"
fi

step "Android"
if has_target x86_64-linux-android; then
    # Not with Android's tools, which are large: this machine's linker makes the same segments, and of
    # libraries that only Android has there are empty ones. What comes out is looked at, not run.
    mkdir "$work/empty"
    ar rcs "$work/empty/liblog.a"
    ar rcs "$work/empty/libunwind.a"
    CARGO_TARGET_X86_64_LINUX_ANDROID_LINKER=gcc RUSTFLAGS="-L $work/empty" \
        packaging/install.sh --prefix "$work/android" --without-text --small --target x86_64-linux-android
    objdump -p "$work/android/lib/libcerebellum.so" > "$work/android.log"
    grep -q 'SONAME *libcerebellum\.so$' "$work/android.log" || { echo "another SONAME" >&2; exit 1; }
    [ ! -L "$work/android/lib/libcerebellum.so" ]
    ! grep LOAD "$work/android.log" | grep -v 'align 2\*\*14' || { echo "segments are not of 16 KiB" >&2; exit 1; }
else
    skip "Android: rustup target add x86_64-linux-android"
fi

step "archive for Android"
if has_target aarch64-linux-android && command -v clang > /dev/null && command -v llvm-ar > /dev/null; then
    packaging/aar.sh "$work/aar" --abi arm64-v8a --small
    unzip -q "$work/aar"/*.aar -d "$work/aar/content"
    for file in "$work"/aar/content/prefab/{prefab.json,modules/cerebellum/{module.json,libs/android.arm64-v8a/abi.json}}; do
        python3 -m json.tool "$file" > /dev/null
    done
    library="$work/aar/content/prefab/modules/cerebellum/libs/android.arm64-v8a/libcerebellum.a"
    llvm-nm --defined-only --extern-only "$library" | grep -q ' T cbl_model_open$'
    ! llvm-nm --defined-only --extern-only "$library" | grep ' [A-Z] ' | grep -v ' cbl_' ||
        { echo "the archive's library shows more than the interface" >&2; exit 1; }
else
    skip "archive for Android: rustup target add aarch64-linux-android, apt-get install clang llvm zip unzip"
fi

step "XCFramework"
if has_target aarch64-apple-darwin && compgen -c llvm-lipo- > /dev/null; then
    packaging/xcframework.sh "$work/apple" --small
    python3 -c 'import plistlib, sys; plistlib.load(open(sys.argv[1], "rb"))["AvailableLibraries"][0]["LibraryPath"]' \
        "$work/apple/cerebellum.xcframework/Info.plist"
else
    skip "XCFramework: rustup target add aarch64-apple-darwin, apt-get install llvm-19"
fi

step "library without text"
packaging/install.sh --prefix "$work/ids" --without-text
budget "$work/ids/lib/libcerebellum.so" 1180000
linked "$work/ids/lib/libcerebellum.so"

step "library with text, and with constraints"
packaging/install.sh --prefix "$work/text"
packaging/install.sh --prefix "$work/constraints" --with-constraints
cargo build --quiet --locked --profile device --bin cerebellum-run
budget "$work/text/lib/libcerebellum.so" 1390000
budget "${CARGO_TARGET_DIR:-target}/device/cerebellum-run" 1200000
budget "$work/constraints/lib/libcerebellum.so" 3400000
linked "$work/constraints/lib/libcerebellum.so"
objdump -p "$work/text/lib/libcerebellum.so" | grep -q 'SONAME.*libcerebellum\.so\.0' || { echo "no SONAME" >&2; exit 1; }

step "smallest libraries"
if [ -d "$(rustc --print sysroot)/lib/rustlib/src" ]; then
    packaging/install.sh --prefix "$work/smallest" --without-text --small --rebuild-std
    budget "$work/smallest/lib/libcerebellum.so" 590000
    packaging/install.sh --prefix "$work/smallest-text" --small --rebuild-std
    budget "$work/smallest-text/lib/libcerebellum.so" 750000
else
    skip "rustup has no rust-src, which the smallest library is built from"
fi

step "model"
cargo run --quiet --locked -p cerebellum-tools --bin cerebellum -- quantize --no-calibration tools/demo -o "$work/demo.cbl" --quiet

# The same with a chat template.
cp -r tools/demo "$work/talking"
cp tests/data/chat/zephyr.jinja "$work/talking/chat_template.jinja"
cargo run --quiet --locked -p cerebellum-tools --bin cerebellum -- quantize --no-calibration "$work/talking" -o "$work/talking.cbl" --quiet

step "a program of the first header, with every library"
for library in small ids text constraints smallest; do
    [ -d "$work/$library" ] || continue
    gcc -std=c99 -I tests/c/abi-0 tests/c/abi-0/program.c -L "$work/$library/lib" -lcerebellum -o "$work/program"
    LD_LIBRARY_PATH="$work/$library/lib" "$work/program" "$work/demo.cbl"
done

export PKG_CONFIG_PATH="$work/text/lib/pkgconfig" LD_LIBRARY_PATH="$work/text/lib"
speaks() { [ "$("$@" < "$work/input" 2> /dev/null | wc -c)" -gt 20 ] || { echo "silent: $*" >&2; exit 1; }; }
echo 'Once upon a time' > "$work/input"

step "make and pkg-config, shared and static"
cp -r examples/c "$work/make"
make -C "$work/make" --quiet chat conversation chat-static
LD_LIBRARY_PATH='' speaks "$work/make/chat" "$work/demo.cbl"
speaks "$work/make/conversation" "$work/talking.cbl"
LD_LIBRARY_PATH='' speaks "$work/make/chat-static" "$work/demo.cbl"

step "valgrind"
if command -v valgrind > /dev/null; then
    # valgrind knows AVX2 and not AVX-512. Definite leaks: the tokenizers library keeps two tables.
    valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
        "$work/make/chat" "$work/demo.cbl" < "$work/input" > "$work/valgrind.out" 2> "$work/valgrind.log" ||
        { cat "$work/valgrind.log" >&2; exit 1; }
    grep -q 'on avx2$' "$work/valgrind.log" || { echo "valgrind did not run the AVX2 kernels" >&2; exit 1; }
else
    skip "valgrind is not installed"
fi

step "the program of docs/embedding.md"
sed -n '/^```c$/,/^```$/p' docs/embedding.md | sed '/^```c$/d; /^```$/q' | sed '/^```$/d' > "$work/story.c"
gcc -std=c99 -Wall -Wextra -Wpedantic -Werror "$work/story.c" $(pkg-config --cflags --libs cerebellum) -o "$work/story"
speaks "$work/story" "$work/demo.cbl"

step "CMake"
if command -v cmake > /dev/null; then
    cmake -S examples/c -B "$work/cmake" -DCMAKE_PREFIX_PATH="$work/text" > "$work/cmake.log"
    cmake --build "$work/cmake" >> "$work/cmake.log"
    for program in chat chat-static; do
        LD_LIBRARY_PATH='' speaks "$work/cmake/$program" "$work/demo.cbl"
    done
    speaks "$work/cmake/conversation" "$work/talking.cbl"
    speaks "$work/cmake/stories" "$work/demo.cbl"
else
    skip "CMake is not installed"
fi

step "Debian packages"
if command -v dpkg-deb > /dev/null; then
    packaging/deb.sh "$work/debs" --with-chat --with-constraints
    for package in "$work"/debs/*.deb; do dpkg-deb --extract "$package" "$work/deb"; done
    libraries="$work/deb/usr/lib/$(gcc -print-multiarch)"
    gcc -std=c99 -I "$work/deb/usr/include" "$work/story.c" -L "$libraries" -lcerebellum -o "$work/debian"
    LD_LIBRARY_PATH="$libraries" speaks "$work/debian" "$work/demo.cbl"
else
    skip "dpkg-deb is not installed"
fi

step "Python"
if python3 -m venv "$work/venv" 2> /dev/null && "$work/venv/bin/pip" download --quiet --no-deps --dest "$work" 'setuptools>=64' 2> /dev/null; then
    # pip leaves its own files beside what it builds: from a copy, as deep in the repository.
    rm -rf target/python && cp -r bindings/python target/python
    # The command of the steps above: the release one takes as long to build as all of them.
    strip -o "$work/cerebellum" "${CARGO_TARGET_DIR:-target}/debug/cerebellum"
    CEREBELLUM_COMMAND="$work/cerebellum" "$work/venv/bin/pip" wheel --quiet --disable-pip-version-check --no-deps \
        --wheel-dir "$work/wheel" target/python
    rm -rf target/python
    # Tools that compile are not needed, and the tag says the newest version of glibc that is.
    env PATH="$work/venv/bin:/usr/bin:/bin" pip install --quiet --disable-pip-version-check "$work"/wheel/*.whl
    command=$(env PATH="$work/venv/bin:/usr/bin:/bin" cerebellum --version)
    [[ "$command" = "cerebellum "* ]] || { echo "the wheel's command says '$command'" >&2; exit 1; }
    speaks "$work/venv/bin/cerebellum" generate --model "$work/demo.cbl" --prompt "Once upon a time"
    grep -q '^clap ' "$work"/venv/lib/python3*/site-packages/cerebellum/licences/THIRD-PARTY-COMMAND.txt
    if [ "$(uname)" = Linux ]; then
        glibc=$(objdump -T "$work"/venv/lib/python3*/site-packages/cerebellum*/{libcerebellum.so,cerebellum} 2> /dev/null |
            grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
        tag="py3-none-manylinux_$(sed 's/GLIBC_//; s/[.]/_/' <<< "$glibc")_$(uname -m).whl"
        [[ "$(echo "$work"/wheel/*.whl)" = *"$tag" ]] || { echo "the wheel is not $tag: $(ls "$work/wheel")" >&2; exit 1; }
    fi
    # The same build, optimized for speed as bindings/python/setup.py asks for.
    CARGO_PROFILE_DEVICE_OPT_LEVEL=3 packaging/install.sh --prefix "$work/all" --with-chat --with-constraints
    cmp "$work"/venv/lib/python3*/site-packages/cerebellum/libcerebellum.so "$work/all/lib/libcerebellum.so"
    cmp "$work"/venv/lib/python3*/site-packages/cerebellum/licences/THIRD-PARTY.txt packaging/THIRD-PARTY.txt
    for example in examples/python/*.py; do
        (cd "$work" && speaks venv/bin/python "$OLDPWD/$example" demo.cbl)
    done
else
    skip "Python has no venv, or pip no network"
fi

printf '\ninstalled and used\n'
