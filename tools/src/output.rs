//! Output files that are either complete or not there.
//!
//! An [`Output`] is a temporary file beside its target. [`Output::commit`] syncs it, renames it over
//! the target and syncs the directory; dropping it removes it. Since a signal runs no destructors,
//! unfinished files are also listed for [`exit_without_leftovers`].

use std::fs::{self, File, Permissions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

/// Why an output could not be created or finished. Nothing is left behind in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The target exists, and overwriting was not asked for.
    #[error("{} exists; choose another name, or overwrite it with --force", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target is a directory.
    #[error("{} is a directory; give the path of a file", path.display())]
    IsDirectory {
        /// The target.
        path: PathBuf,
    },
    /// The target is a device, a pipe or a socket, which a rename would destroy.
    #[error("{} is not a regular file; give the path of a file", path.display())]
    NotAFile {
        /// The target.
        path: PathBuf,
    },
    /// The target is one of the files that are read.
    #[error("{} is an input of this command; choose another output", path.display())]
    IsInput {
        /// The target.
        path: PathBuf,
    },
    /// The directory of the target does not exist.
    #[error("there is no directory {}; create it, or choose another output", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as "write".
        action: &'static str,
        /// The target.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A result of writing an output.
pub type Result<T> = std::result::Result<T, Error>;

/// A file being written, which appears under its name when it is committed.
#[derive(Debug)]
pub struct Output {
    /// `None` once committed.
    temporary: Option<NamedTempFile>,
    target: PathBuf,
    /// Permissions of the file that is replaced.
    replaced: Option<Permissions>,
    overwrite: bool,
}

impl Output {
    /// Creates the temporary file for `target`.
    ///
    /// A target that is a symbolic link stands for the file it points to. A target that exists must
    /// be a regular file, may not be one of `inputs`, and is replaced only if `overwrite` is set; it
    /// then hands its permissions on.
    ///
    /// # Errors
    /// See [`Error`]: all that can be known before writing is checked here.
    pub fn create<P: AsRef<Path>>(target: &Path, overwrite: bool, inputs: &[P]) -> Result<Self> {
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let replaced = check_existing(&target, overwrite, inputs)?;
        let directory = directory_of(&target)?;
        let mut unfinished = unfinished();
        let temporary = temporary_in(&directory).map_err(|source| Error::Io {
            action: "write in",
            path: directory,
            source,
        })?;
        unfinished.push(temporary.path().to_owned());
        Ok(Self { temporary: Some(temporary), target, replaced, overwrite })
    }

    /// Where the file will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The temporary file, open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        self.temporary.as_mut().expect("present until committed").as_file_mut()
    }

    /// An error of writing to [`Output::file`], named after the target.
    pub fn error(&self, action: &'static str, source: io::Error) -> Error {
        Error::Io { action, path: self.target.clone(), source }
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`Error::Exists`] if a target has appeared meanwhile that may not be overwritten, and
    /// [`Error::Io`].
    pub fn commit(mut self) -> Result<()> {
        let replaced = self.replaced.take();
        let file = self.file();
        let permissions = replaced.map_or(Ok(()), |permissions| file.set_permissions(permissions));
        let synced = permissions.and_then(|()| file.sync_all());
        synced.map_err(|source| self.error("write", source))?;
        self.rename()?;
        sync_directory(&directory_of(&self.target)?)
            .map_err(|source| self.error("sync the directory of", source))
    }

    fn rename(&mut self) -> Result<()> {
        let mut unfinished = unfinished();
        let temporary = self.temporary.take().expect("committed once");
        unfinished.retain(|path| path != temporary.path());
        let renamed = match self.overwrite {
            true => temporary.persist(&self.target),
            false => temporary.persist_noclobber(&self.target),
        };
        match renamed.map_err(|e| e.error) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::Exists { path: self.target.clone() })
            }
            Err(source) => Err(self.error("write", source)),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            let mut unfinished = unfinished();
            unfinished.retain(|path| path != temporary.path());
            // A file that cannot be removed is no reason to hide the error that led here.
            let _ = temporary.close();
        }
    }
}

/// Removes all unfinished outputs of this process and ends it: for signal handlers.
///
/// An output is renamed or not by then, never half: renaming takes the same lock.
pub fn exit_without_leftovers(code: i32) -> ! {
    let unfinished = unfinished();
    for path in unfinished.iter() {
        let _ = fs::remove_file(path);
    }
    std::process::exit(code)
}

/// Paths of the temporary files that exist now.
fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    // The list is valid after every single operation on it.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_existing<P: AsRef<Path>>(
    target: &Path,
    overwrite: bool,
    inputs: &[P],
) -> Result<Option<Permissions>> {
    let path = target.to_owned();
    let metadata = match fs::metadata(target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => {
            other.map_err(|source| Error::Io { action: "write", path: path.clone(), source })?
        }
    };
    if metadata.is_dir() {
        return Err(Error::IsDirectory { path });
    }
    if inputs.iter().any(|input| same_file(input.as_ref(), target)) {
        return Err(Error::IsInput { path });
    }
    if !metadata.is_file() {
        return Err(Error::NotAFile { path });
    }
    if !overwrite {
        return Err(Error::Exists { path });
    }
    Ok(Some(metadata.permissions()))
}

/// Whether two paths lead to one file, by links of either kind.
#[cfg(unix)]
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path| fs::metadata(path).map(|m: fs::Metadata| (m.dev(), m.ino())).ok();
    identity(a).is_some_and(|a| Some(a) == identity(b))
}

#[cfg(not(unix))]
fn same_file(a: &Path, b: &Path) -> bool {
    fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

fn directory_of(target: &Path) -> Result<PathBuf> {
    let directory = match (target.parent(), target.file_name()) {
        (Some(parent), Some(_)) if parent.as_os_str().is_empty() => Path::new("."),
        (Some(parent), Some(_)) => parent,
        _ => return Err(Error::IsDirectory { path: target.to_owned() }),
    };
    match directory.is_dir() {
        true => Ok(directory.to_owned()),
        false => Err(Error::NoDirectory { path: directory.to_owned() }),
    }
}

fn temporary_in(directory: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".cerebellum-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What any new file gets; the umask takes its share.
        builder.permissions(Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory)
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere a directory cannot be opened for syncing.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
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
    fn a_file_appears_when_committed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let mut output = Output::create(&target, false, &NO_INPUTS).unwrap();
        output.file().write_all(b"content").unwrap();
        assert!(!target.exists());
        output.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"content");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn a_dropped_output_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        drop(Output::create(&directory.path().join("out"), false, &NO_INPUTS).unwrap());
        assert_eq!(entries(directory.path()), 0);
    }

    #[test]
    fn overwriting_must_be_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        write(&target, false, b"old").unwrap();
        assert!(matches!(write(&target, false, b"new"), Err(Error::Exists { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"old");
        write(&target, true, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let output = Output::create(&target, false, &NO_INPUTS).unwrap();
        fs::write(&target, b"theirs").unwrap();
        assert!(matches!(output.commit(), Err(Error::Exists { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn directories_and_missing_directories_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let create = |path: &Path| Output::create(path, true, &NO_INPUTS).unwrap_err();
        assert!(matches!(create(directory.path()), Error::IsDirectory { .. }));
        assert!(matches!(create(Path::new("/")), Error::IsDirectory { .. }));
        let missing = directory.path().join("no/out");
        assert!(matches!(create(&missing), Error::NoDirectory { .. }));
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{PermissionsExt, symlink};

        use super::*;

        #[test]
        fn a_replaced_file_hands_its_mode_on() {
            let directory = tempfile::tempdir().unwrap();
            let target = directory.path().join("out");
            for mode in [0o640, 0o444, 0o777] {
                fs::write(&target, b"old").unwrap();
                fs::set_permissions(&target, Permissions::from_mode(mode)).unwrap();
                write(&target, true, b"new").unwrap();
                let found = fs::metadata(&target).unwrap().permissions().mode() & 0o777;
                assert_eq!(found, mode);
                fs::remove_file(&target).unwrap();
            }
        }

        #[test]
        fn a_new_file_is_as_readable_as_any() {
            let directory = tempfile::tempdir().unwrap();
            let [ours, theirs] = ["ours", "theirs"].map(|name| directory.path().join(name));
            write(&ours, false, b"").unwrap();
            fs::write(&theirs, b"").unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&ours), mode(&theirs));
        }

        #[test]
        fn links_are_followed_and_inputs_recognized() {
            let directory = tempfile::tempdir().unwrap();
            let [file, soft, hard] = ["file", "soft", "hard"].map(|n| directory.path().join(n));
            fs::write(&file, b"old").unwrap();
            symlink(&file, &soft).unwrap();
            fs::hard_link(&file, &hard).unwrap();
            for target in [&file, &soft, &hard] {
                let error = Output::create(target, true, &[&file]).unwrap_err();
                assert!(matches!(error, Error::IsInput { .. }));
            }
            write(&soft, true, b"new").unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"new");
            assert!(soft.is_symlink());
        }

        #[test]
        fn devices_are_not_replaced() {
            let error = Output::create(Path::new("/dev/null"), true, &NO_INPUTS).unwrap_err();
            assert!(matches!(error, Error::NotAFile { .. }));
        }
    }
}
