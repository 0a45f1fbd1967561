//! The `cerebellum` command: what a workstation does with models. See `cerebellum --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
