//! Files that are either complete or not there.
//!
//! An [`OutputFile`] is a temporary file beside its target. [`OutputFile::commit`] syncs it, renames it
//! over the target and syncs the directory; dropping it removes it. A reader finds the old file or the
//! new one, whole, however many writers there are.
//!
//! The temporary file of `model.cbl` is called `.model.cbl.<16 digits>.cbl-tmp`. The digits are random and
//! the file is created, never opened, so nobody can put a link in its place. Its writer keeps it locked.
//! So a process that is killed leaves a file that nobody has locked, and the next writer of the same
//! target removes it. (Where file systems know no locks, such files stay. Where machines share a directory
//! and not its locks, one may remove what another one writes, whose commit then fails.)

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::path::{MAIN_SEPARATOR_STR, Path, PathBuf, is_separator};

/// How the name of a temporary file ends.
const SUFFIX: &str = ".cbl-tmp";
/// Hexadecimal digits before that.
const DIGITS: usize = 16;
/// Names of targets that are longer do not appear in their temporary files' names: those would be too long
/// for some file systems.
const LONGEST_NAME: usize = 100;
/// How many names are tried. The random ones are taken only if somebody means to stand in the way.
const ATTEMPTS: usize = 100;

/// Why a file could not be created or finished. Nothing is left behind in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The target exists, and replacing it was not asked for.
    #[error("{} exists; choose another name", path.display())]
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
    /// The target is a symbolic link that leads nowhere.
    #[error("{} is a link to a file that does not exist; remove the link, or give another path", path.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
    },
    /// The directory of the target does not exist.
    #[error("there is no directory {}; create it, or give another path", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// There is no memory for the name of the temporary file.
    #[error("cannot allocate {bytes} bytes")]
    OutOfMemory {
        /// Size of the allocation.
        bytes: usize,
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

/// A result of writing a file.
pub type Result<T> = std::result::Result<T, OutputError>;

/// What becomes of a file that has the target's name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The new file takes its place.
    Replace,
    /// It stays, and there is no new file.
    Keep,
}

/// Who may read the new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone (mode 0600), whoever could read the file that it replaces.
    Owner,
    /// Those who could read the file that it replaces, which hands on its mode and, as far as this process
    /// may give them, its group and owner. If it replaces none, those whom the umask allows.
    AsUsual,
}

/// A file being written, which appears under its name when it is committed.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    /// `None` once it has its name.
    temporary: Option<PathBuf>,
    target: PathBuf,
    existing: Existing,
    /// The file whose mode is handed on.
    replaced: Option<Metadata>,
}

impl OutputFile {
    /// Creates the temporary file for `target`, and removes those that killed processes left for it.
    ///
    /// A target that is a symbolic link stands for the file that the link leads to, which must exist: the
    /// link stays. A target that exists must be a regular file.
    ///
    /// # Errors
    /// See [`OutputError`]: all that can be known before writing is checked here.
    pub fn create(target: &Path, existing: Existing, readers: Readers) -> Result<Self> {
        let target = follow(target)?;
        let replaced = check_existing(&target, existing)?;
        let directory = directory_of(&target)?;
        let prefix = prefix_of(target.file_name().unwrap_or_default())?;
        leftovers::remove(directory, &prefix);
        // A file that replaces another gets its mode in the end: nobody else may read it until then.
        let is_open = readers == Readers::AsUsual && replaced.is_none();
        let (temporary, file) = create_temporary(directory, &prefix, is_open)?;
        let replaced = replaced.filter(|_| readers == Readers::AsUsual);
        Ok(Self { file, temporary: Some(temporary), target, existing, replaced })
    }

    /// Where the file will be, links followed.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where the file is until then.
    pub fn temporary(&self) -> &Path {
        self.temporary.as_deref().expect("it has its name only when `rename` has taken it")
    }

    /// The temporary file, open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// An error of writing to [`OutputFile::file`], named after the target.
    pub fn error(&self, action: &'static str, source: io::Error) -> OutputError {
        OutputError::Io { action, path: self.target.clone(), source }
    }

    /// Makes the file durable and gives it its name: [`sync`](Self::sync), then [`rename`](Self::rename).
    ///
    /// # Errors
    /// Those of the two.
    pub fn commit(mut self) -> Result<()> {
        self.sync()?;
        self.rename()
    }

    /// Gives the file the mode that it will have, and writes it to the disk.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    pub fn sync(&mut self) -> Result<()> {
        let kept = self.replaced.take().map_or(Ok(()), |replaced| hand_on(&replaced, &self.file));
        kept.and_then(|()| self.file.sync_all()).map_err(|source| self.error("write", source))
    }

    /// Gives the file its name, and writes that to the disk.
    ///
    /// # Errors
    /// [`OutputError::Exists`] if a target has appeared meanwhile that is to be kept, and
    /// [`OutputError::Io`].
    pub fn rename(mut self) -> Result<()> {
        let renamed = match self.existing {
            Existing::Replace => fs::rename(self.temporary(), &self.target),
            Existing::Keep => rename_new(self.temporary(), &self.target),
        };
        match renamed {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && self.existing == Existing::Keep => {
                Err(OutputError::Exists { path: self.target.clone() })
            }
            Err(source) => Err(self.error("write", source)),
            Ok(()) => {
                self.temporary = None;
                sync_directory(directory_of(&self.target)?)
                    .map_err(|source| self.error("sync the directory of", source))
            }
        }
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // A file that cannot be removed is no reason to hide the error that led here.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// What `target` stands for: the end of a link, or itself.
fn follow(target: &Path) -> Result<PathBuf> {
    if !fs::symlink_metadata(target).is_ok_and(|metadata| metadata.is_symlink()) {
        return join(&[target.as_os_str()]);
    }
    let fail = |source| OutputError::Io { action: "follow", path: target.to_owned(), source };
    match fs::metadata(target) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(OutputError::BrokenLink { path: target.to_owned() })
        }
        // As opening would, this asks the system whether it allows to follow the link: one that somebody else
        // has put into a directory for all, such as /tmp, it does not.
        Err(source) => Err(fail(source)),
        Ok(_) => fs::canonicalize(target).map_err(fail),
    }
}

/// Refuses a target that may not be replaced; what is known of one that may.
fn check_existing(target: &Path, existing: Existing) -> Result<Option<Metadata>> {
    let path = || target.to_owned();
    if target.as_os_str().as_encoded_bytes().last().is_some_and(|&end| is_separator(end.into())) {
        return Err(OutputError::IsDirectory { path: path() });
    }
    let metadata = match fs::metadata(target) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OutputError::Io { action: "write", path: path(), source }),
        Ok(metadata) => metadata,
    };
    if metadata.is_dir() {
        return Err(OutputError::IsDirectory { path: path() });
    }
    if !metadata.is_file() {
        return Err(OutputError::NotAFile { path: path() });
    }
    match existing {
        Existing::Replace => Ok(Some(metadata)),
        Existing::Keep => Err(OutputError::Exists { path: path() }),
    }
}

/// The directory that a file is in.
///
/// # Errors
/// [`OutputError::IsDirectory`] if the path does not end in a name; [`OutputError::NoDirectory`].
pub fn directory_of(target: &Path) -> Result<&Path> {
    let directory = match (target.parent(), target.file_name()) {
        (Some(parent), Some(_)) if parent.as_os_str().is_empty() => Path::new("."),
        (Some(parent), Some(_)) => parent,
        _ => return Err(OutputError::IsDirectory { path: target.to_owned() }),
    };
    match directory.is_dir() {
        true => Ok(directory),
        false => Err(OutputError::NoDirectory { path: directory.to_owned() }),
    }
}

/// How the names of the temporary files for `name` begin.
fn prefix_of(name: &OsStr) -> Result<OsString> {
    let mut digits = [0; 8];
    let name = match name.len() {
        0..=LONGEST_NAME => name,
        _ => {
            let sum = crc32fast::hash(name.as_encoded_bytes());
            OsStr::new(hexadecimal(sum.into(), &mut digits))
        }
    };
    Ok(join(&[".".as_ref(), name, ".".as_ref()])?.into_os_string())
}

/// The last digits of a number.
fn hexadecimal(number: u64, digits: &mut [u8]) -> &str {
    let width = digits.len();
    write!(&mut *digits, "{number:0width$x}").expect("there is room for all digits");
    std::str::from_utf8(digits).expect("digits are ASCII")
}

/// A new file with a random name, locked. Only its owner may read it unless it `is_open`.
fn create_temporary(directory: &Path, prefix: &OsStr, is_open: bool) -> Result<(PathBuf, File)> {
    let fail = |source| OutputError::Io { action: "write in", path: directory.to_owned(), source };
    let mut options = OpenOptions::new();
    // Never a file that is there, never what a link leads to.
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // The umask takes its share.
        options.mode(if is_open { 0o666 } else { 0o600 });
    }
    #[cfg(not(unix))]
    let _ = is_open;
    for _ in 0..ATTEMPTS {
        let mut digits = [0; DIGITS];
        let digits = hexadecimal(random(), &mut digits);
        let separator = MAIN_SEPARATOR_STR.as_ref();
        let parts = [directory.as_os_str(), separator, prefix, digits.as_ref(), SUFFIX.as_ref()];
        let path = join(&parts)?;
        let file = match options.open(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
            file => file.map_err(fail)?,
        };
        // Before the lock, whoever removes leftovers may take the file for one.
        if lock(&file) != Lock::Theirs && is_at(&path, &file) {
            return Ok((path, file));
        }
        let _ = fs::remove_file(&path);
    }
    Err(fail(ErrorKind::AlreadyExists.into()))
}

/// A number that nobody can guess.
fn random() -> u64 {
    // Its keys come from the system. A forked child has those of its parent, but its own number.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// One path or name of several parts, one after another. A lack of memory is an error.
fn join(parts: &[&OsStr]) -> Result<PathBuf> {
    let bytes = parts.iter().map(|part| part.len()).sum();
    let mut path = OsString::new();
    path.try_reserve_exact(bytes).map_err(|_| OutputError::OutOfMemory { bytes })?;
    parts.iter().for_each(|part| path.push(part));
    Ok(path.into())
}

/// Whose lock a file carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    /// Ours, as long as the file is open.
    Ours,
    /// Somebody else's.
    Theirs,
    /// The file system knows no locks.
    Unknown,
}

#[cfg(unix)]
fn lock(file: &File) -> Lock {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open. Not `File::try_lock`, which Android does not have.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Lock::Ours,
        _ if io::Error::last_os_error().kind() == ErrorKind::WouldBlock => Lock::Theirs,
        _ => Lock::Unknown,
    }
}

#[cfg(not(unix))]
fn lock(file: &File) -> Lock {
    match file.try_lock() {
        Ok(()) => Lock::Ours,
        Err(fs::TryLockError::WouldBlock) => Lock::Theirs,
        Err(fs::TryLockError::Error(_)) => Lock::Unknown,
    }
}

/// Whether `path` is still the name of the file.
#[cfg(unix)]
fn is_at(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let (there, ours) = (fs::symlink_metadata(path), file.metadata());
    there.is_ok_and(|there| ours.is_ok_and(|ours| identity(there) == identity(ours)))
}

/// Elsewhere a file that is open keeps its name, or is gone.
#[cfg(not(unix))]
fn is_at(path: &Path, _: &File) -> bool {
    path.exists()
}

/// What killed processes left.
mod leftovers {
    use super::{DIGITS, Lock, OpenOptions, OsStr, Path, SUFFIX, fs, is_at, join, lock};

    /// Removes the temporary files in a directory whose names begin with `prefix` and that no process has
    /// locked. What fails stays: it is in nobody's way.
    pub fn remove(directory: &Path, prefix: &OsStr) {
        for_each_name(directory, &mut |name| {
            if is_temporary(name, prefix)
                && let Ok(path) = join(&[directory.as_os_str(), "/".as_ref(), name])
            {
                remove_if_left(&path);
            }
        });
    }

    fn is_temporary(name: &OsStr, prefix: &OsStr) -> bool {
        let digits = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let digits = digits.and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
        digits.is_some_and(|it| it.len() == DIGITS && it.iter().all(u8::is_ascii_hexdigit))
    }

    fn remove_if_left(path: &Path) {
        // Not a pipe, which opening would wait for, nor a link.
        if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
            return;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        }
        let Ok(file) = options.open(path) else { return };
        // A writer may have given it another name since it was listed, or may have made it just now: that one
        // finds this lock, and takes another name.
        if lock(&file) == Lock::Ours && is_at(path, &file) {
            let _ = fs::remove_file(path);
        }
    }

    /// Calls `visit` with the name of each file in a directory. Not `fs::read_dir`, which aborts the process
    /// if there is no memory.
    #[cfg(unix)]
    fn for_each_name(directory: &Path, visit: &mut dyn FnMut(&OsStr)) {
        use std::ffi::CStr;
        use std::os::unix::ffi::OsStrExt;
        let Ok(path) = join(&[directory.as_os_str(), "\0".as_ref()]) else { return };
        let Ok(path) = CStr::from_bytes_with_nul(path.as_os_str().as_bytes()) else { return };
        // SAFETY: the path ends with a zero.
        let stream = unsafe { libc::opendir(path.as_ptr()) };
        if stream.is_null() {
            return;
        }
        loop {
            // SAFETY: the stream is open, and this thread alone uses it.
            let entry = unsafe { libc::readdir(stream) };
            if entry.is_null() {
                break;
            }
            // SAFETY: until the next `readdir` the entry is valid and its name ends with a zero. Only the name
            // is borrowed: an entry may be shorter than its type.
            let name = unsafe { CStr::from_ptr((&raw const (*entry).d_name).cast()) };
            visit(OsStr::from_bytes(name.to_bytes()));
        }
        // SAFETY: the stream is open, and not used any more.
        unsafe { libc::closedir(stream) };
    }

    #[cfg(not(unix))]
    fn for_each_name(directory: &Path, visit: &mut dyn FnMut(&OsStr)) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        entries.flatten().for_each(|entry| visit(&entry.file_name()));
    }
}

/// Gives `file` the mode of another one, and its group and owner as far as that is allowed. The group's part
/// of the mode goes only to that group.
#[cfg(unix)]
fn hand_on(replaced: &Metadata, file: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let own = file.metadata()?;
    let mut mode = replaced.mode() & 0o777;
    if own.gid() != replaced.gid() && fchown(file, None, Some(replaced.gid())).is_err() {
        mode &= !0o070;
    }
    // Only root may give a file away.
    if own.uid() != replaced.uid() {
        let _ = fchown(file, Some(replaced.uid()), None);
    }
    // Some file systems have one mode for all files, and refuse any change.
    if own.mode() & 0o777 == mode {
        return Ok(());
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn hand_on(replaced: &Metadata, file: &File) -> io::Result<()> {
    file.set_permissions(replaced.permissions())
}

/// Renames a file to a name that is free.
#[cfg(target_os = "linux")]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let (from_c, to_c) =
        (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    // SAFETY: both paths end with a zero. By number, as old C libraries have no function for it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            from_c.as_ptr(),
            libc::AT_FDCWD,
            to_c.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Old systems, and file systems that cannot.
        Some(libc::ENOSYS | libc::EINVAL) => link_new(from, to),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    link_new(from, to)
}

/// As [`rename_new`], by a second name, or where there are no second names, by looking first.
fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(e),
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// A rename is safe on the disk once its directory is.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        // A directory that may be written and not read, and file systems that cannot sync one.
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EACCES | libc::EINVAL | libc::ENOTSUP | libc::ENOSYS)
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Elsewhere a directory cannot be opened for syncing.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path, existing: Existing, content: &[u8]) -> Result<()> {
        let mut output = OutputFile::create(target, existing, Readers::AsUsual)?;
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
        let mut output = OutputFile::create(&target, Existing::Keep, Readers::AsUsual).unwrap();
        output.file().write_all(b"content").unwrap();
        assert!(!target.exists());
        output.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"content");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn a_dropped_output_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        drop(OutputFile::create(&target, Existing::Keep, Readers::AsUsual).unwrap());
        assert_eq!(entries(directory.path()), 0);
    }

    #[test]
    fn replacing_must_be_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        write(&target, Existing::Keep, b"old").unwrap();
        let kept = write(&target, Existing::Keep, b"new");
        assert!(matches!(kept, Err(OutputError::Exists { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"old");
        write(&target, Existing::Replace, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_kept() {
        for rename in [rename_new, link_new] {
            let directory = tempfile::tempdir().unwrap();
            let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
            fs::write(&from, b"ours").unwrap();
            rename(&from, &to).unwrap();
            assert_eq!((fs::read(&to).unwrap(), entries(directory.path())), (b"ours".to_vec(), 1));
            fs::write(&from, b"theirs").unwrap();
            assert_eq!(rename(&from, &to).unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let output = OutputFile::create(&target, Existing::Keep, Readers::AsUsual).unwrap();
        fs::write(&target, b"theirs").unwrap();
        assert!(matches!(output.commit(), Err(OutputError::Exists { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn directories_and_missing_directories_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let create =
            |path: &Path| OutputFile::create(path, Existing::Replace, Readers::Owner).unwrap_err();
        for path in
            [directory.path(), Path::new("/"), &directory.path().join("new/"), Path::new("..")]
        {
            let error = create(path);
            assert!(matches!(error, OutputError::IsDirectory { .. }), "{path:?}: {error}");
        }
        let missing = directory.path().join("no/out");
        assert!(matches!(create(&missing), OutputError::NoDirectory { .. }));
        let below_a_file = directory.path().join("file/out");
        fs::write(directory.path().join("file"), b"").unwrap();
        assert!(create(&below_a_file).to_string().contains("file/out"));
    }

    #[test]
    fn names_may_be_as_long_as_the_system_allows() {
        let directory = tempfile::tempdir().unwrap();
        for length in [1, LONGEST_NAME, LONGEST_NAME + 1, 255] {
            let target = directory.path().join("n".repeat(length));
            write(&target, Existing::Keep, b"content").unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"content");
        }
        assert_eq!(entries(directory.path()), 4);
    }

    #[test]
    fn temporary_files_have_names_that_nobody_guesses() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let names: std::collections::BTreeSet<_> = (0..50)
            .map(|_| {
                let output = OutputFile::create(&target, Existing::Keep, Readers::AsUsual).unwrap();
                let name = output.temporary().file_name().unwrap().to_str().unwrap().to_owned();
                assert!(name.starts_with(".out.") && name.ends_with(".cbl-tmp"), "{name}");
                assert_eq!(name.len(), ".out.".len() + 16 + ".cbl-tmp".len());
                name
            })
            .collect();
        assert_eq!(names.len(), 50);
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{PermissionsExt, symlink};

        use super::*;

        fn mode(path: &Path) -> u32 {
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        }

        #[test]
        fn a_replaced_file_hands_its_mode_on() {
            let directory = tempfile::tempdir().unwrap();
            let target = directory.path().join("out");
            for old in [0o640, 0o444, 0o777, 0o600, 0o4755] {
                fs::write(&target, b"old").unwrap();
                fs::set_permissions(&target, fs::Permissions::from_mode(old)).unwrap();
                let output =
                    OutputFile::create(&target, Existing::Replace, Readers::AsUsual).unwrap();
                assert_eq!(mode(output.temporary()), 0o600, "others could read it already");
                output.commit().unwrap();
                let found = fs::metadata(&target).unwrap().permissions().mode() & 0o7777;
                assert_eq!(found, old & 0o777, "{found:o}");
                fs::remove_file(&target).unwrap();
            }
        }

        #[test]
        fn what_only_the_owner_may_read_stays_so() {
            let directory = tempfile::tempdir().unwrap();
            let target = directory.path().join("out");
            for old in [None, Some(0o600), Some(0o644)] {
                if let Some(old) = old {
                    fs::write(&target, b"old").unwrap();
                    fs::set_permissions(&target, fs::Permissions::from_mode(old)).unwrap();
                }
                let output =
                    OutputFile::create(&target, Existing::Replace, Readers::Owner).unwrap();
                assert_eq!(mode(output.temporary()), 0o600);
                output.commit().unwrap();
                assert_eq!(mode(&target), 0o600);
            }
        }

        #[test]
        fn a_new_file_is_as_readable_as_any() {
            let directory = tempfile::tempdir().unwrap();
            let [ours, theirs] = ["ours", "theirs"].map(|name| directory.path().join(name));
            write(&ours, Existing::Keep, b"").unwrap();
            fs::write(&theirs, b"").unwrap();
            assert_eq!(mode(&ours), mode(&theirs));
        }

        #[test]
        fn links_are_followed() {
            let directory = tempfile::tempdir().unwrap();
            let [file, link, chain, broken] =
                ["file", "link", "chain", "broken"].map(|name| directory.path().join(name));
            fs::write(&file, b"old").unwrap();
            symlink("file", &link).unwrap();
            symlink(&link, &chain).unwrap();
            for (path, content) in [(&link, b"one"), (&chain, b"two")] {
                write(path, Existing::Replace, content).unwrap();
                assert_eq!(fs::read(&file).unwrap(), content);
                assert!(path.is_symlink());
            }
            symlink("nowhere", &broken).unwrap();
            let error = write(&broken, Existing::Replace, b"new").unwrap_err();
            assert!(matches!(error, OutputError::BrokenLink { .. }), "{error}");
            assert!(broken.is_symlink() && !directory.path().join("nowhere").exists());
        }

        #[test]
        fn what_is_no_regular_file_is_not_replaced() {
            let directory = tempfile::tempdir().unwrap();
            let pipe = directory.path().join("pipe");
            let name = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).unwrap();
            // SAFETY: the path ends with a zero.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
            let socket = directory.path().join("socket");
            let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            for path in [Path::new("/dev/null"), Path::new("/dev/full"), &pipe, &socket] {
                let error = write(path, Existing::Replace, b"new").unwrap_err();
                assert!(matches!(error, OutputError::NotAFile { .. }), "{path:?}: {error}");
                assert!(!fs::metadata(path).unwrap().is_file());
            }
        }

        #[test]
        fn leftovers_of_the_same_target_are_removed_and_nothing_else() {
            let directory = tempfile::tempdir().unwrap();
            let path = |name: &str| directory.path().join(name);
            let removed = [".out.0123456789abcdef.cbl-tmp", ".out.ffffffffffffffff.cbl-tmp"];
            let kept = [
                "out.tmp",
                ".out.cbl-tmp",
                ".out.0123456789abcde.cbl-tmp",
                ".out.0123456789abcdeg.cbl-tmp",
                ".other.0123456789abcdef.cbl-tmp",
                ".out.0123456789abcdef.cbl-tmp~",
            ];
            for name in removed.iter().chain(&kept) {
                fs::write(path(name), b"").unwrap();
            }
            // What only has such a name: a link, a pipe, a directory.
            let (link, pipe, folder) = (
                path(".out.1111111111111111.cbl-tmp"),
                path(".out.2222222222222222.cbl-tmp"),
                path(".out.3333333333333333.cbl-tmp"),
            );
            symlink("out.tmp", &link).unwrap();
            let name = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).unwrap();
            // SAFETY: the path ends with a zero.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
            fs::create_dir(&folder).unwrap();
            // One that is being written.
            let target = path("out");
            let other = OutputFile::create(&target, Existing::Replace, Readers::Owner).unwrap();
            assert!(removed.iter().all(|name| !path(name).exists()));
            write(&target, Existing::Replace, b"content").unwrap();
            assert!(other.temporary().exists());
            assert!(kept.iter().all(|name| path(name).exists()));
            assert!(link.is_symlink() && pipe.exists() && folder.exists());
            other.commit().unwrap();
            assert_eq!(entries(directory.path()), kept.len() + 3 + 1);
        }
    }

    /// Writers that begin, end and clean up in each other's way: all succeed, and readers always find one
    /// whole file.
    #[test]
    fn many_writers_of_one_file_do_not_disturb_each_other() {
        const ROUNDS: u8 = 100;
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let content = |writer: u8, round: u8| [writer, round].repeat(2000);
        write(&target, Existing::Keep, &content(9, 0)).unwrap();
        let writing = std::sync::atomic::AtomicUsize::new(4);
        let reads = std::thread::scope(|scope| {
            for writer in 0..4 {
                let (target, writing) = (&target, &writing);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        write(target, Existing::Replace, &content(writer, round)).unwrap();
                    }
                    writing.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                });
            }
            let mut reads = 0;
            while writing.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                let found = fs::read(&target).unwrap();
                assert_eq!(found, content(found[0], found[1]));
                reads += 1;
            }
            reads
        });
        println!("| reads while 4 threads write {ROUNDS} times each | {reads}, all whole |");
        assert_eq!(entries(directory.path()), 1);
    }
}
