#!/usr/bin/env bash
# Installs the C library and uses it as a stranger would: examples by make and CMake, the program of
# docs/embedding.md, Python by pip; and checks sizes against their budgets. Needs cargo, gcc, pkg-config;
# cmake and python3 with pip if they are there.
#
#     packaging/check.sh         everything
#     packaging/check.sh small   only the size of the small library without text: it builds fastest, and what
#                                makes it larger makes all of them larger
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

# The budgets are for x86-64 Linux, the only system whose sizes were measured.
[ "$(uname -sm)" = "Linux x86_64" ] || budget() { printf '%s: %s bytes\n' "$1" "$(stat -L -c %s "$1")"; }

case "${1:-}" in
    '' | small) ;;
    *) echo "unknown part $1" >&2; exit 2 ;;
esac

step "small library without text"
packaging/install.sh --prefix "$work/small" --without-text --small
budget "$work/small/lib/libcerebellum.so" 940000
linked "$work/small/lib/libcerebellum.so"
[ "${1:-}" != small ] || exit 0

step "library without text"
packaging/install.sh --prefix "$work/ids" --without-text
budget "$work/ids/lib/libcerebellum.so" 1250000
linked "$work/ids/lib/libcerebellum.so"

step "library with text, and with constraints"
packaging/install.sh --prefix "$work/text"
packaging/install.sh --prefix "$work/constraints" --with-constraints
cargo build --quiet --locked --profile device --bin cerebellum-run
budget "$work/text/lib/libcerebellum.so" 3500000
budget "${CARGO_TARGET_DIR:-target}/device/cerebellum-run" 3500000
budget "$work/constraints/lib/libcerebellum.so" 4400000
linked "$work/constraints/lib/libcerebellum.so"
objdump -p "$work/text/lib/libcerebellum.so" | grep -q 'SONAME.*libcerebellum\.so\.0' || { echo "no SONAME" >&2; exit 1; }

step "smallest library"
if [ -d "$(rustc --print sysroot)/lib/rustlib/src" ]; then
    packaging/install.sh --prefix "$work/smallest" --without-text --small --rebuild-std
    budget "$work/smallest/lib/libcerebellum.so" 600000
else
    skip "rustup has no rust-src, which the smallest library is built from"
fi

step "model"
cargo run --quiet --locked -p cerebellum-tools --bin cerebellum -- quantize tools/demo -o "$work/demo.cbl" --quiet

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
make -C "$work/make" --quiet chat chat-static
speaks "$work/make/chat" "$work/demo.cbl"
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
    speaks "$work/cmake/stories" "$work/demo.cbl"
else
    skip "CMake is not installed"
fi

step "Python"
if python3 -m venv "$work/venv" 2> /dev/null && "$work/venv/bin/pip" download --quiet --no-deps --dest "$work" 'setuptools>=64' 2> /dev/null; then
    # pip leaves its own files beside what it builds: from a copy, as deep in the repository.
    rm -rf target/python && cp -r bindings/python target/python
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check target/python
    rm -rf target/python
    cmp "$work"/venv/lib/python3*/site-packages/cerebellum/libcerebellum.so "$work/constraints/lib/libcerebellum.so"
    for example in story batch classify score similar translate; do
        (cd "$work" && speaks venv/bin/python "$OLDPWD/examples/python/$example.py" demo.cbl)
    done
else
    skip "Python has no venv, or pip no network"
fi

printf '\ninstalled and used\n'
