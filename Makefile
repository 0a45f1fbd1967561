# What a change must pass, and what else a contributor runs. CONTRIBUTING.md says when.

# Beside what is compiled, the wrapper lints it as `cargo clippy -- -D warnings` does and documents it as
# `cargo doc --no-deps` does: those would check all dependencies first.
LINT = RUSTC_WORKSPACE_WRAPPER="$(CURDIR)/.ci/lint"

# Everything that can be had without other tools than Rust and gcc; `.ci/run` adds Arm and sizes.
check: format lint test

format:
	cargo fmt --all --check

# Lints, documentation, and the build of tests, examples and benchmarks; then the library without features,
# where tests/c_interface builds one of the same dependencies.
lint:
	$(LINT) cargo test --workspace --all-targets --locked --no-run
	cargo clippy --package cerebellum --no-default-features --features std --locked --target-dir target/c-panics -- -D warnings

# The wrapper is the same, or all would be compiled again.
test:
	$(LINT) cargo test --workspace --locked

# Speed of single kernels, of whole passes, and of text.
bench:
	cargo bench --bench kernels
	cargo bench --bench passes
	cargo bench --bench text

# The kernels and recorded logits on emulated Arm processors.
arm:
	.ci/arm quick

# Which instruction sets give the recorded logits, as a table.
equality:
	.ci/equality

# Fuzzing, Miri, sanitizers, soak, packages: hours.
nightly:
	.ci/nightly

.PHONY: check format lint test bench arm equality nightly
