//! The files that a command writes, beside those that it reads.
//!
//! [`cerebellum::output`] makes files that are complete or not there. Added here is what matters to a
//! command line: an output is none of the command's inputs, no other output of the process, and not standard
//! output. Since a signal runs no destructors, unfinished files are also listed for
//! [`exit_without_leftovers`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cerebellum::output::{Existing, OutputError, OutputFile, Readers};

/// Why an output could not be created or finished. Nothing is left behind in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The target is one of the files that are read.
    #[error(
        "{} is an input of this command{}; choose another output", path.display(), also_as(path, input)
    )]
    IsInput {
        /// The target.
        path: PathBuf,
        /// The input, as it was given.
        input: PathBuf,
    },
    /// The target is that of another output.
    #[error("{} is to be written twice; give each output a path of its own", path.display())]
    IsOutput {
        /// The target.
        path: PathBuf,
    },
    /// The target is `-`.
    #[error(
        "this cannot go to standard output, since a file gets its name only when it is complete; give the \
         path of a file (./- for one that is called -)"
    )]
    StandardOutput,
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] OutputError),
}

/// The path that an input was given by, if it is another one.
fn also_as(path: &Path, input: &Path) -> String {
    if path == input { String::new() } else { format!(", which has it as {}", input.display()) }
}

/// A result of writing an output.
pub type Result<T> = std::result::Result<T, Error>;

/// A file being written, which appears under its name when it is committed.
#[derive(Debug)]
pub struct Output {
    /// `None` once committed.
    file: Option<OutputFile>,
}

impl Output {
    /// Creates the temporary file for `target`.
    ///
    /// A target that is a symbolic link stands for the file it points to. A target that exists must
    /// be a regular file, may not be one of `inputs`, and is replaced only if `overwrite` is set; it
    /// then hands its permissions on. No other output of this process may have the same target. Files are
    /// told apart by what they are, whatever path or link leads to them.
    ///
    /// # Errors
    /// See [`Error`]: all that can be known before writing is checked here.
    pub fn create<P: AsRef<Path>>(target: &Path, overwrite: bool, inputs: &[P]) -> Result<Self> {
        refuse_inputs(target, inputs)?;
        let place = place_of(target);
        let mut unfinished = unfinished();
        if place.is_some() && unfinished.iter().any(|other| other.place == place) {
            return Err(Error::IsOutput { path: target.to_owned() });
        }
        let existing = if overwrite { Existing::Replace } else { Existing::Keep };
        let file = OutputFile::create(target, existing, Readers::AsUsual)?;
        unfinished.push(Unfinished { temporary: file.temporary().to_owned(), place });
        Ok(Self { file: Some(file) })
    }

    /// Where the file will be.
    pub fn target(&self) -> &Path {
        self.file.as_ref().expect(UNCOMMITTED).target()
    }

    /// Where the temporary file is.
    pub fn temporary(&self) -> &Path {
        self.file.as_ref().expect(UNCOMMITTED).temporary()
    }

    /// The temporary file, open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        self.file.as_mut().expect(UNCOMMITTED).file()
    }

    /// An error of writing to [`Output::file`], named after the target.
    pub fn error(&self, action: &'static str, source: io::Error) -> Error {
        self.file.as_ref().expect(UNCOMMITTED).error(action, source).into()
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`OutputError::Exists`] if a target has appeared meanwhile that may not be overwritten, and
    /// [`OutputError::Io`].
    pub fn commit(mut self) -> Result<()> {
        // This may take long, and is not to hold up who waits for the list.
        self.file.as_mut().expect(UNCOMMITTED).sync()?;
        let file = self.file.take().expect(UNCOMMITTED);
        let mut unfinished = unfinished();
        unfinished.retain(|other| other.temporary != file.temporary());
        Ok(file.rename()?)
    }
}

const UNCOMMITTED: &str = "present until committed";

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            unfinished().retain(|other| other.temporary != file.temporary());
        }
    }
}

/// Refuses a target that is one of `inputs`, or standard output.
///
/// # Errors
/// [`Error::IsInput`] and [`Error::StandardOutput`].
pub fn refuse_inputs<P: AsRef<Path>>(target: &Path, inputs: &[P]) -> Result<()> {
    if target == Path::new("-") {
        return Err(Error::StandardOutput);
    }
    let Some(place) = place_of(target) else { return Ok(()) };
    let mut inputs = inputs.iter().map(AsRef::as_ref);
    match inputs.find(|input| place_of(input).is_some_and(|input| input == place)) {
        Some(input) => Err(Error::IsInput { path: target.to_owned(), input: input.to_owned() }),
        None => Ok(()),
    }
}

/// Removes all unfinished outputs of this process and ends it: for signal handlers.
///
/// An output is renamed or not by then, never half: renaming takes the same lock.
pub fn exit_without_leftovers(code: i32) -> ! {
    let unfinished = unfinished();
    for output in unfinished.iter() {
        let _ = fs::remove_file(&output.temporary);
    }
    std::process::exit(code)
}

/// An output that has not got its name yet.
struct Unfinished {
    temporary: PathBuf,
    /// Of the target.
    place: Option<Place>,
}

fn unfinished() -> MutexGuard<'static, Vec<Unfinished>> {
    static UNFINISHED: Mutex<Vec<Unfinished>> = Mutex::new(Vec::new());
    // The list is valid after every single operation on it.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What tells files apart, whatever paths and links lead to them: device and number of the file, or of its
/// directory together with the name if there is no such file yet.
#[cfg(unix)]
type Place = (u64, u64, Option<std::ffi::OsString>);

/// `None` if there is not even such a directory.
#[cfg(unix)]
fn place_of(path: &Path) -> Option<Place> {
    use std::os::unix::fs::MetadataExt;
    if let Ok(metadata) = fs::metadata(path) {
        return Some((metadata.dev(), metadata.ino(), None));
    }
    let directory = fs::metadata(cerebellum::output::directory_of(path).ok()?).ok()?;
    Some((directory.dev(), directory.ino(), path.file_name().map(ToOwned::to_owned)))
}

/// The path without detours and links.
#[cfg(not(unix))]
type Place = PathBuf;

#[cfg(not(unix))]
fn place_of(path: &Path) -> Option<Place> {
    let directory = || fs::canonicalize(cerebellum::output::directory_of(path).ok()?).ok();
    fs::canonicalize(path).ok().or_else(|| Some(directory()?.join(path.file_name()?)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const NO_INPUTS: [&Path; 0] = [];

    fn write(target: &Path, overwrite: bool, content: &[u8]) -> Result<()> {
        let mut output = Output::create(target, overwrite, &NO_INPUTS)?;
        output.file().write_all(content).unwrap();
        output.commit()
    }

    fn entries(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_file_appears_when_committed_and_overwriting_must_be_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        drop(Output::create(&target, false, &NO_INPUTS).unwrap());
        assert_eq!(entries(directory.path()), 0);
        write(&target, false, b"old").unwrap();
        let kept = write(&target, false, b"new");
        assert!(matches!(kept, Err(Error::File(OutputError::Exists { .. }))));
        assert_eq!(fs::read(&target).unwrap(), b"old");
        write(&target, true, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn an_input_is_no_output_by_any_path() {
        let directory = tempfile::tempdir().unwrap();
        let [file, hard, other] = ["file", "hard", "other"].map(|n| directory.path().join(n));
        fs::write(&file, b"old").unwrap();
        fs::write(&other, b"old").unwrap();
        fs::hard_link(&file, &hard).unwrap();
        fs::create_dir(directory.path().join("q")).unwrap();
        let mut targets = vec![file.clone(), hard, directory.path().join("q/../file")];
        #[cfg(unix)]
        {
            let soft = directory.path().join("soft");
            std::os::unix::fs::symlink(&file, &soft).unwrap();
            targets.push(soft);
        }
        for target in targets {
            for (input, overwrite) in [(&file, true), (&file, false)] {
                let error = Output::create(&target, overwrite, &[&other, input]).unwrap_err();
                assert!(matches!(error, Error::IsInput { .. }), "{target:?}: {error}");
            }
        }
        // One that is not there yet, too.
        let later = directory.path().join("later");
        let detour = directory.path().join("q/../later");
        let error = Output::create(&detour, true, &[later]).unwrap_err();
        assert!(matches!(error, Error::IsInput { .. }), "{error}");
    }

    #[test]
    fn two_outputs_have_two_targets() {
        let directory = tempfile::tempdir().unwrap();
        let [target, detour] = ["out", "q/../out"].map(|name| directory.path().join(name));
        fs::create_dir(directory.path().join("q")).unwrap();
        for exists in [false, true] {
            let first = Output::create(&target, true, &NO_INPUTS).unwrap();
            for path in [&target, &detour] {
                let error = Output::create(path, true, &NO_INPUTS).unwrap_err();
                assert!(matches!(error, Error::IsOutput { .. }), "{exists}: {error}");
            }
            first.commit().unwrap();
            // One after the other is no conflict.
            write(&detour, true, b"new").unwrap();
        }
        assert_eq!(entries(directory.path()), 2);
    }

    #[test]
    fn standard_output_is_no_file() {
        let error = Output::create(Path::new("-"), true, &NO_INPUTS).unwrap_err();
        assert!(matches!(error, Error::StandardOutput), "{error}");
    }
}
