#!/usr/bin/env bash
# Makes a release: raises the version, cuts the changelog, checks and builds all packages, and records what this
# version computes, weighs and how fast it is.
#
#     packaging/release.sh VERSION             the release, with its commit and tag
#     packaging/release.sh VERSION --dry-run   the same, but neither commit nor tag stays
#
# It works in a copy of HEAD below target/release-VERSION, so that a failure leaves nothing behind in the tree.
# What it makes lies in target/release-VERSION/files. It sends nothing: it prints the commands that do.
#
# QUICK=1 leaves out the checks of `.ci/run` and the speed, for trying this script.
set -euo pipefail
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '/^set/d' >&2; exit 2; }
fail() { printf '%s\n' "$*" >&2; exit 1; }
step() { printf '\n== %s\n' "$*"; }
left_out=()
skip() { printf '*** left out: %s ***\n' "$*" >&2; left_out+=("$*"); }

cd "$(dirname "$0")/.."
version="${1:-}" dry_run=false
[[ "$version" =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || usage
case "${2:-}" in
    '') ;;
    --dry-run) dry_run=true ;;
    *) usage ;;
esac

old=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ -z "$(git status --porcelain)" ] || fail "commit or stash what is changed: a release is of a commit"
! git rev-parse --quiet --verify "v$version" > /dev/null || fail "v$version is tagged already"
[ "$(printf '%s\n' "$old" "$version" | sort -V | tail -n 1)" = "$version" ] ||
    fail "$version is older than the version of this tree, $old"
[ -n "$(sed -n '/^## \[Unreleased\]/,/^## \[[0-9]/p' CHANGELOG.md | grep '^- ')" ] ||
    fail "CHANGELOG.md has nothing below Unreleased"

root="$PWD" work="$PWD/target/release-$version" branch=$(git rev-parse --abbrev-ref HEAD)
tree="$work/tree" files="$work/files"
git worktree remove --force "$tree" 2> /dev/null || true
rm -rf "$work"
mkdir -p "$files"
git worktree add --quiet --detach "$tree"
trap 'git -C "$root" worktree remove --force "$tree"' EXIT
# Compiled once, for this release and the next.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
cd "$tree"

step "version $version, changelog"
# Every place that states it; the header's macros and the lock files follow.
sed -i "s/^version = \"$old\"$/version = \"$version\"/; s/\(version = \"=\)$old\"/\1$version\"/" Cargo.toml
sed -i "s/^version = \"$old\"$/version = \"$version\"/" bindings/python/pyproject.toml
[ ! -f bindings/web/package.json ] ||
    sed -i "s/^\(  \"version\": \"\)$old\"/\1$version\"/" bindings/web/package.json
IFS=. read -r major minor patch <<< "$version"
for part in "MAJOR $major" "MINOR $minor" "PATCH $patch"; do
    sed -i "s/^\(pub const CBL_VERSION_${part% *}: u32 = \)[0-9]*;/\1${part#* };/" src/ffi/version.rs
done
sed -i "s/find_package(cerebellum ${old%.*} /find_package(cerebellum ${version%.*} /" \
    packaging/check.sh examples/c/CMakeLists.txt docs/embedding.md
sed -i "s/^## \[Unreleased\]$/## [Unreleased]\n\n## [$version] - $(date +%F)/" CHANGELOG.md
cargo update --workspace --quiet
cargo update --workspace --quiet --manifest-path fuzz/Cargo.toml
UPDATE_HEADER=1 cargo test --quiet --locked --test c_header > /dev/null
git commit --quiet --all --message "Release $version"
git show --stat --format=%s

if [ -z "${QUICK:-}" ]; then
    step "checks"
    .ci/run
fi

step "packages"
.ci/packages verify
cp "$CARGO_TARGET_DIR"/package/*-"$version".crate "$files"
packaging/check.sh | tee "$work/check.log"
packaging/deb.sh "$files" --with-chat --with-constraints
python3 -m pip wheel --quiet --no-deps --wheel-dir "$files" ./bindings/python
for target in $(rustc -vV | sed -n 's/^host: //p') aarch64-unknown-linux-gnu; do
    name="cerebellum-$version-$target"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc packaging/install.sh --with-chat \
        --target "$target" --destdir "$work" --prefix "/$name" || { skip "library for $target"; continue; }
    tar -C "$work" -czf "$files/$name.tar.gz" "$name"
done
for archive in aar xcframework; do
    packaging/$archive.sh "$files" --with-chat || skip "$archive"
done
if [ -d "$files/cerebellum.xcframework" ]; then
    (cd "$files" && zip -qXr "cerebellum-$version.xcframework.zip" cerebellum.xcframework)
    rm -r "$files/cerebellum.xcframework"
fi
if [ -f bindings/web/package.json ] && command -v npm > /dev/null; then
    (cd bindings/web && npm pack --silent --pack-destination "$files") || skip "the package for browsers"
fi
HOSTILE_EXPORT="$work/hostile" cargo test --quiet --locked --test hostile > /dev/null
cp tests/data/hostile/README.md "$work/hostile"
tar -C "$work" -cJf "$files/hostile-files-$version.tar.xz" hostile

step "records"
.ci/equality | tee "$files/equality.md"
{
    printf '# Sizes of %s\n\n| file | bytes |\n|---|---|\n' "$version"
    (cd "$files" && find . -type f ! -name '*.md' -printf '| %P | %s |\n' | LC_ALL=C sort)
    printf '\nLibraries, and what each may have:\n\n'
    grep ' bytes of ' "$work/check.log"
} > "$files/sizes.md"
if [ -z "${QUICK:-}" ]; then
    cargo bench --locked --bench passes > "$files/speed.txt"
fi
(cd "$files" && find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs sha256sum > SHA256SUMS && cat SHA256SUMS)

commit=$(git rev-parse HEAD)
cd "$root"
if $dry_run; then
    printf '\nThis was a dry run of %s: no commit, no tag.' "$version"
else
    git merge --quiet --ff-only "$commit"
    git tag --annotate "v$version" --message "Cerebellum $version" "$commit"
    printf '\nCommitted on %s and tagged v%s.' "$branch" "$version"
fi
printf ' The files are in %s.\n' "${files#"$root"/}"
[ ${#left_out[@]} -eq 0 ] || printf 'Left out: %s\n' "${left_out[*]}"
cat << NEXT

To send it:
    git push origin $branch v$version
    cargo publish --workspace
    twine upload ${files#"$root"/}/*.whl
    npm publish ${files#"$root"/}/*.tgz
NEXT
