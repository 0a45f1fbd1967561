//! `cerebellum doctor`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use cerebellum::Access;
use cerebellum::kernels::Isa;
use serde::Serialize;

use super::context::{Context, Outcome};
use super::session::open;
use super::table::bytes;

/// Show what this machine supports, and whether a model file can run on it.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// A model file to open
    file: Option<PathBuf>,
    #[arg(short, long, value_name = "FILE", hide = true, conflicts_with = "file")]
    model: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum doctor
  cerebellum doctor 111m.cbl --json";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    version: &'static str,
    isa: &'static str,
    isa_available: Vec<&'static str>,
    threads: usize,
    page_size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileReport>,
}

#[derive(Serialize)]
struct FileReport {
    path: String,
    file_bytes: usize,
    open_milliseconds: f64,
    has_tokenizer: bool,
    /// In the page cache, as far as the system tells, before the file was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_bytes: Option<usize>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let file = args.file.as_ref().or(args.model.as_ref()).map(
        |path| -> Result<_, super::context::Failure> {
            let cached_bytes = cached_bytes(path);
            let start = Instant::now();
            let model = open(path, Access::Map)?;
            Ok(FileReport {
                path: path.display().to_string(),
                file_bytes: model.file_bytes(),
                open_milliseconds: start.elapsed().as_secs_f64() * 1e3,
                has_tokenizer: model.tokenizer().is_ok(),
                cached_bytes,
            })
        },
    );
    let report = Report {
        ok: true,
        version: env!("CARGO_PKG_VERSION"),
        isa: cerebellum::isa_from_environment()?.unwrap_or_else(Isa::best).name(),
        isa_available: Isa::available().map(Isa::name).collect(),
        threads: context.session_threads(),
        page_size: page_size(),
        file: file.transpose()?,
    };
    context.print(describe(&report), &report)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(report: &Report) -> String {
    let mut text = format!(
        "version          {}\ninstruction set  {} (of {})\nthreads          {}\npage size        {}",
        report.version,
        report.isa,
        report.isa_available.join(", "),
        report.threads,
        report.page_size,
    );
    if let Some(file) = &report.file {
        let tokenizer = if file.has_tokenizer { "with" } else { "without" };
        let size = bytes(file.file_bytes as u64);
        let opened = file.open_milliseconds;
        write!(text, "\n{}: {size}, {tokenizer} a tokenizer, opened in {opened:.2} ms", file.path)
            .expect("strings can grow");
        if let Some(cached) = file.cached_bytes {
            let percent = 100.0 * cached as f64 / file.file_bytes as f64;
            write!(text, "\nthe page cache held {percent:.0} % of the file")
                .expect("strings can grow");
        }
    }
    text
}

/// How much of a file lies in memory, in the system's page cache.
///
/// Linux keeps this from those who neither own the file nor may write it, and says all of it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn cached_bytes(path: &Path) -> Option<usize> {
    let file = std::fs::File::open(path).ok()?;
    // SAFETY: nobody reads through this mapping, so what becomes of the file does not matter.
    let map = unsafe { memmap2::Mmap::map(&file) }.ok()?;
    let page = page_size();
    let mut pages = vec![0_u8; map.len().div_ceil(page)];
    // SAFETY: a mapping begins on a page's boundary, and `pages` has a byte for each of its pages.
    let code =
        unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), pages.as_mut_ptr()) };
    let cached = pages.iter().filter(|&page| page & 1 != 0).count() * page;
    (code == 0).then(|| cached.min(map.len()))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn cached_bytes(_: &Path) -> Option<usize> {
    None
}

#[cfg(unix)]
fn page_size() -> usize {
    // SAFETY: `sysconf` only returns a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

#[cfg(not(unix))]
fn page_size() -> usize {
    4096
}
