//! The C interface as C programs see it: compiled from `include/cerebellum.h` by the system's
//! compilers, linked with the shared library of this build, run on the demo model.
//!
//! gcc must be there. clang and valgrind are used if they are; what was left out is said.

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod prototypes;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use cerebellum::quant::Scheme;

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where this run's programs and files go.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c").join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// The demo model, quantized once.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = scratch("model").join("demo.cbl");
        common::quantize_with_chat_to(&path, &common::demo(), Scheme::Int4, 64);
        path
    })
}

/// The demo model with a chat template for the engine, quantized once.
fn model_with_template() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = scratch("model").join("template.cbl");
        common::quantize_with_template_to(&path, &common::demo(), Scheme::Int4, 64);
        path
    })
}

/// The directory with the shared library that cargo made for this test.
fn library_directory() -> PathBuf {
    let directory = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    assert!(directory.join("libcerebellum.so").exists(), "no library in {}", directory.display());
    directory
}

/// The library whose functions panic on demand, without text: a build of its own, of which only the
/// kernels are optimized, because it takes longer to build than to run.
fn panicking_library_directory() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let target = root().join("target/c-panics");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["rustc", "--lib", "--crate-type", "cdylib", "--locked", "--target-dir"]);
        cargo.arg(&target).args(["--no-default-features", "--features", "capi-test-panics"]);
        for profile in [
            "opt-level=0",
            "package.cerebellum-kernels.opt-level=1",
            "package.cerebellum-kernels.codegen-units=16",
            "package.'*'.opt-level=0",
        ] {
            cargo.args(["--config", &format!("profile.dev.{profile}")]);
        }
        // The wrapper of `.ci/run` would lint and document it.
        cargo.env_remove("RUSTC_WORKSPACE_WRAPPER");
        succeed(cargo.current_dir(root()));
        target.join("debug")
    });
    built.clone()
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("left out, not installed: {program}");
    }
    found
}

/// Whichever clang there is.
fn clang() -> Option<&'static str> {
    ["clang", "clang-19"].into_iter().find(|name| has(name))
}

fn succeed(command: &mut Command) -> Output {
    // Panics are provoked by the thousand, and to find the lines of one takes milliseconds.
    command.env("RUST_BACKTRACE", "0");
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output
}

/// Compiles a program of `tests/c` or of elsewhere against a library.
fn compile(source: &Path, name: &str, library: &Path, flags: &[&str]) -> PathBuf {
    let program = scratch("bin").join(name);
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-D_GNU_SOURCE", "-g"]).args(STRICT).args(flags);
    gcc.arg("-I").arg(root().join("include")).arg("-I").arg(root().join("tests/c"));
    gcc.arg(source).arg("-o").arg(&program).arg("-L").arg(library);
    gcc.args(["-lcerebellum", "-lm", "-ldl", "-lpthread"]);
    succeed(gcc.arg(format!("-Wl,-rpath,{}", library.display())));
    program
}

fn test_program(name: &str, flags: &[&str]) -> PathBuf {
    let source = root().join("tests/c").join(name).with_extension("c");
    let variant: String = flags.concat().chars().filter(|c| c.is_alphanumeric()).collect();
    compile(&source, &format!("{name}{variant}"), &library_directory(), flags)
}

/// Runs a program that must be silent.
fn run_silently(program: &Path, arguments: &[&Path]) {
    // Cargo's own setting would win over the program's.
    let output = succeed(Command::new(program).args(arguments).env_remove("LD_LIBRARY_PATH"));
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{program:?} wrote: {output:?}");
}

const SANITIZERS: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

#[test]
fn header_is_strict_c_and_cpp() {
    let mut compilers = vec![("gcc", "g++")];
    compilers.extend(clang().map(|clang| (clang, clang)));
    let header = root().join("include/cerebellum.h");
    for (c, cpp) in compilers {
        let check = |compiler, language, standard: &str| {
            let mut command = Command::new(compiler);
            command.arg(format!("-std={standard}")).args(STRICT);
            succeed(command.args(["-fsyntax-only", "-x", language]).arg(&header));
        };
        ["c99", "c11", "c17"].into_iter().for_each(|standard| check(c, "c", standard));
        ["c++11", "c++20"].into_iter().for_each(|standard| check(cpp, "c++", standard));
    }
}

#[test]
fn promises_are_kept() {
    run_silently(&test_program("behaviour", &[]), &[model(), &scratch("files")]);
}

#[test]
fn promises_are_kept_under_sanitizers() {
    let program = test_program("behaviour", &SANITIZERS);
    let symbols = succeed(Command::new("nm").arg(&program)).stdout;
    assert!(String::from_utf8_lossy(&symbols).contains("__asan_init"), "not sanitized");
    run_silently(&program, &[model(), &scratch("sanitized")]);
}

#[test]
fn scores_classes_and_batches_are_as_promised() {
    run_silently(&test_program("tasks", &SANITIZERS), &[model(), &scratch("files")]);
    // Without sanitizers, as valgrind needs it (`.ci/nightly`).
    run_silently(&test_program("tasks", &[]), &[model(), &scratch("files")]);
}

#[test]
fn biases_probabilities_constraints_and_templates_are_as_promised() {
    run_silently(&test_program("steps", &SANITIZERS), &[model(), &scratch("files")]);
    run_silently(&test_program("steps", &[]), &[model(), &scratch("files")]);
}

#[test]
fn generation_on_demand_is_as_promised() {
    run_silently(&test_program("pull", &SANITIZERS), &[model(), &scratch("sanitized")]);
    run_silently(&test_program("pull", &[]), &[model(), &scratch("files")]);
}

#[test]
fn batches_on_demand_are_as_promised() {
    run_silently(&test_program("batch_pull", &SANITIZERS), &[model(), &scratch("sanitized")]);
    run_silently(&test_program("batch_pull", &[]), &[model(), &scratch("files")]);
}

#[test]
fn models_are_opened_in_parts_with_progress_and_kept_in_memory() {
    run_silently(&test_program("opening", &SANITIZERS), &[model(), &scratch("sanitized")]);
    run_silently(&test_program("opening", &[]), &[model(), &scratch("files")]);
}

#[test]
fn hard_hosts_are_served() {
    let library = library_directory().join("libcerebellum.so");
    run_silently(&test_program("host", &[]), &[model(), &library]);
}

#[test]
fn lack_of_memory_is_an_error_and_tokens_allocate_nothing() {
    run_silently(&test_program("oom", &[]), &[model(), &scratch("oom")]);
}

/// Also where text and constraints are, as far as the libraries for them let it be one. `OOM_MANY=1` tries many
/// more allocations and prints what became of them.
#[test]
fn lack_of_memory_for_texts_is_an_error_or_an_abort() {
    let mut program = Command::new(test_program("oom_text", &[]));
    program.args([model(), model_with_template()]).env_remove("LD_LIBRARY_PATH");
    let many = std::env::var_os("OOM_MANY").is_some();
    if many {
        program.arg("many");
    }
    let output = succeed(&mut program);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stderr.is_empty() && output.stdout.is_empty() != many, "{output:?}");
}

/// Everything at random, for `SOAK_SECONDS` (.ci/nightly: some minutes), with memory, descriptors and threads
/// as they were.
#[test]
fn nothing_grows_in_the_long_run() {
    let seconds = std::env::var("SOAK_SECONDS").unwrap_or_else(|_| "5".to_owned());
    let mut soak = Command::new(test_program("soak", &[]));
    soak.arg(model()).arg(scratch("soak")).arg(seconds).env_remove("LD_LIBRARY_PATH");
    let output = succeed(&mut soak);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// As `compile`, in C++11.
fn compile_cpp(source: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let (program, library) = (scratch("bin").join(name), library_directory());
    let mut compiler = Command::new("g++");
    compiler
        .args(["-std=c++11", "-g"])
        .args(STRICT)
        .args(flags)
        .arg("-I")
        .arg(root().join("include"));
    compiler.arg(source).arg("-o").arg(&program).arg("-L").arg(&library).args(["-lcerebellum"]);
    succeed(compiler.arg("-lpthread").arg(format!("-Wl,-rpath,{}", library.display())));
    program
}

#[test]
fn cpp_wrapper_frees_moves_and_throws() {
    let source = root().join("tests/c/wrapper.cpp");
    run_silently(&compile_cpp(&source, "wrapper", &SANITIZERS), &[model()]);
}

#[test]
fn examples_run() {
    let (sources, include) = (root().join("examples"), root().join("include"));
    let chat = compile(&sources.join("c/chat.c"), "chat", &library_directory(), &SANITIZERS);
    let input = scratch("files").join("chat.txt");
    fs::write(&input, "Once upon a time\nThe cat\n").unwrap();
    let mut chat = Command::new(chat);
    let chat = chat.arg(model()).stdin(fs::File::open(input).unwrap());
    let output = succeed(chat.env_remove("LD_LIBRARY_PATH"));
    assert!(output.stdout.len() > 80, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("tokens evaluated"), "{output:?}");

    let source = sources.join("c/conversation.c");
    let lines = fs::read_to_string(&source).unwrap().lines().count();
    assert!(lines < 60, "a short program, it has {lines} lines");
    let conversation = compile(&source, "conversation", &library_directory(), &SANITIZERS);
    let input = fs::File::open(scratch("files").join("chat.txt")).unwrap();
    let mut conversation = Command::new(conversation);
    let conversation = conversation.arg(model()).arg("Be brief.").stdin(input);
    let output = succeed(conversation.env_remove("LD_LIBRARY_PATH"));
    assert!(output.stdout.len() > 20, "{output:?}");
    // The second turn goes on from the first.
    let said = String::from_utf8_lossy(&output.stderr);
    let known: Vec<_> = said.lines().filter_map(|line| line.split(' ').nth(3)).collect();
    assert!(known.len() == 2 && known[0] == "0" && known[1] != "0", "{said}");

    let flags = [SANITIZERS[0], SANITIZERS[1], "-isystem", include.to_str().unwrap()];
    let stories = compile_cpp(&sources.join("cpp/stories.cpp"), "stories", &flags);
    let output = succeed(Command::new(stories).arg(model()).env_remove("LD_LIBRARY_PATH"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("Once upon a time, there was").count(), 3, "{text}");

    let files = fs::read_dir(sources.join("python")).unwrap().map(|file| file.unwrap().path());
    for example in files.filter(|path| path.extension().is_some_and(|it| it == "py")) {
        let output = succeed(python().arg(example).arg(model()));
        assert!(output.stdout.len() > 80, "{output:?}");
    }
}

/// Python with the module of the repository and the library of this build.
fn python() -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", root().join("bindings/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    python.env("CEREBELLUM_LIBRARY", library_directory().join("libcerebellum.so"));
    python
}

#[test]
fn python_module_keeps_its_promises() {
    let mut unittest = python();
    unittest.args([
        "-X",
        "faulthandler",
        "-W",
        "error",
        "-m",
        "unittest",
        "discover",
        "--start-directory",
    ]);
    succeed(unittest.arg(root().join("tests/python")).env("CEREBELLUM_MODEL", model()));
}

/// Programs of the first header go on working with every later library of the same interface.
#[test]
fn programs_of_the_first_header_work() {
    let frozen = root().join("tests/c/abi-0");
    let include = format!("-I{}", frozen.display());
    let source = frozen.join("program.c");
    let program = compile(&source, "frozen", &library_directory(), &[&include]);
    run_silently(&program, &[model()]);
    // The longer programs go through valgrind in `.ci/nightly`.
    if has("valgrind") {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
        succeed(valgrind.arg(program).arg(model()).env_remove("LD_LIBRARY_PATH"));
    }
}

fn generated(name: &str, text: &str) -> PathBuf {
    let source = scratch("source").join(name).with_extension("c");
    fs::write(&source, text).unwrap();
    source
}

/// Every function in every rounding direction, with subnormals flushed, with exceptions that trap.
#[test]
fn every_function_gives_the_same_in_any_floating_point_environment() {
    let functions = prototypes::read(&root().join("include/cerebellum.h"));
    let source = generated("environments", &calls::environments_program(&functions));
    let program = compile(&source, "environments", &library_directory(), &[]);
    run_silently(&program, &[model(), &scratch("environments")]);
}

/// Every function after the model's file was cut off, overwritten, or replaced as it should be.
#[test]
fn every_function_survives_a_changed_file() {
    let functions = prototypes::read(&root().join("include/cerebellum.h"));
    let source = generated("changed", &calls::changed_program(&functions));
    let program = compile(&source, "changed", &library_directory(), &[]);
    run_silently(&program, &[model(), &scratch("changed")]);
}

/// Every pointer of every function, and a panic in each.
#[test]
fn every_function_survives_misuse_and_panics() {
    let functions = prototypes::read(&root().join("include/cerebellum.h"));
    let (text, cases) = calls::misuse_program(&functions);
    assert!(cases >= 200, "only {cases} cases");
    let source = generated("calls", &text);
    let files = scratch("calls");
    let plain = compile(&source, "calls", &library_directory(), &[]);
    run_silently(&plain, &[model(), &files]);
    let library = panicking_library_directory();
    let flags: Vec<&str> = SANITIZERS.into_iter().chain(["-DPANICS_ARMED"]).collect();
    let panicking = compile(&source, "calls-panicking", &library, &flags);
    run_silently(&panicking, &[model(), &files]);
}

/// The library exports what the header declares and nothing else, and no signature that was ever
/// recorded changes or goes. New ones: `UPDATE_ABI=1 cargo test --test c_interface symbols`.
#[test]
fn symbols_and_signatures_are_recorded() {
    let functions = prototypes::read(&root().join("include/cerebellum.h"));
    let library = library_directory().join("libcerebellum.so");
    let mut nm = Command::new("nm");
    let listed = succeed(nm.args(["-D", "--defined-only", "--format=posix"]).arg(library)).stdout;
    let listed = String::from_utf8(listed).unwrap();
    let exported: BTreeSet<_> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let declared: BTreeSet<_> = functions.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(exported, declared);

    let signatures: Vec<_> = functions.iter().map(prototypes::Prototype::signature).collect();
    let path = root().join("tests/c/abi-0/signatures.txt");
    if std::env::var_os("UPDATE_ABI").is_some() {
        fs::write(&path, signatures.join("\n") + "\n").unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap();
    let recorded: BTreeSet<_> = recorded.lines().collect();
    for signature in &recorded {
        assert!(signatures.iter().any(|s| s == signature), "gone or changed: {signature}");
    }
    for signature in &signatures {
        assert!(recorded.contains(signature.as_str()), "not recorded: {signature}");
    }
}
