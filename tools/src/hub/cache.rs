//! The cache, laid out as Python's `huggingface_hub` has it, so that both find what the other loaded:
//!
//! ```text
//! models--ORG--NAME/refs/REVISION             the commit that a branch or tag was at
//! models--ORG--NAME/blobs/ETAG                a file's content
//! models--ORG--NAME/blobs/ETAG.incomplete     the beginning of one
//! models--ORG--NAME/snapshots/COMMIT/FILE     a link to the content
//! .locks/models--ORG--NAME/ETAG.lock          locked by whoever loads it
//! ```

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::name::{Name, is_commit};

/// How deep in a repository files are looked for.
const MAX_DEPTH: usize = 4;

/// The part of the cache that belongs to one repository.
pub(super) struct Cache {
    /// `models--ORG--NAME`.
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub fn new(root: &Path, name: &Name) -> Self {
        let locks = root.join(".locks").join(name.folder());
        Self { folder: root.join(name.folder()), locks }
    }

    /// The commit that a revision is, as far as the cache knows.
    pub fn commit(&self, name: &Name) -> Option<String> {
        if name.is_commit() {
            return Some(name.revision.clone());
        }
        let commit = fs::read_to_string(self.reference(&name.revision)).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Notes the commit that a revision is.
    pub fn set_commit(&self, name: &Name, commit: &str) -> Result<()> {
        if name.is_commit() || self.commit(name).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(&name.revision);
        create_parent(&path)?;
        fs::write(&path, commit).map_err(Error::io("write", &path))
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// The directory with a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Paths of all files of a commit that are there, with slashes.
    pub fn files(&self, commit: &str) -> Vec<String> {
        let mut files = Vec::new();
        collect(&self.snapshot(commit), "", MAX_DEPTH, &mut files);
        files.sort();
        files
    }

    /// Where a content is.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where the beginning of a content is.
    pub fn partial(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Waits until no other process loads this content; then none does while the result lives. On file systems
    /// without locks it is up to the digest to find what two processes made of one file.
    pub fn lock(&self, etag: &str, waiting: impl FnOnce()) -> Result<Option<File>> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(Error::io("write", &path))?;
        let locked = match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock()
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        Ok(locked.is_ok().then_some(file))
    }

    /// Makes a content a file of a commit.
    pub fn link(&self, etag: &str, commit: &str, file: &str) -> Result<()> {
        let (path, blob) = (self.snapshot(commit).join(file), self.blob(etag));
        create_parent(&path)?;
        // Relative, so that the cache may be moved: out of the file's folders, the commit's, and `snapshots`.
        let up = file.split('/').count() + 1;
        let target: PathBuf = [".."].into_iter().cycle().take(up).collect();
        match symlink(target.join("blobs").join(etag), &path) {
            Ok(()) => Ok(()),
            // Of another process, or of a content that was deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.exists() => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(&path).map_err(Error::io("replace", &path))?;
                symlink(target.join("blobs").join(etag), &path).map_err(Error::io("write", &path))
            }
            // Where links are not to be had (Windows without its developer mode), Python moves the file, too.
            Err(_) => fs::rename(&blob, &path).map_err(Error::io("write", &path)),
        }
    }
}

#[cfg(unix)]
use std::os::unix::fs::symlink;

#[cfg(windows)]
use std::os::windows::fs::symlink_file as symlink;

#[cfg(not(any(unix, windows)))]
fn symlink(_target: impl AsRef<Path>, _path: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Creates the directory that a file is to be in.
pub(super) fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().expect("files of the cache are in a directory");
    fs::create_dir_all(parent).map_err(Error::io("create", parent))
}

fn collect(directory: &Path, before: &str, depth: usize, files: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{before}{name}");
        if entry.path().is_file() {
            files.push(name);
        } else if depth > 1 && entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), depth - 1, files);
        }
    }
}
