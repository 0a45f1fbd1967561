//! Loads the content of one file into the cache: goes on where an earlier run stopped, and checks what came.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;

use ring::digest::{self, Algorithm, Digest};

use super::cache::{Cache, create_parent};
use super::client::{Client, Metadata, network};
use super::error::{Error, Result};
use super::name::{Name, is_hexadecimal};
use super::places::Places;
use crate::quantize::Observer;

/// Attempts one after the other that bring no byte.
const MOST_ATTEMPTS: u32 = 5;
const BUFFER_BYTES: usize = 256 << 10;

/// A file to be loaded.
pub(super) struct Wanted<'a> {
    pub name: &'a Name,
    pub commit: &'a str,
    pub file: &'a str,
    pub metadata: &'a Metadata,
}

/// Makes the content of a file be in the cache. Says how many bytes came over the network.
pub(super) fn load(
    wanted: &Wanted,
    (client, cache, places): (&Client, &Cache, &Places),
    observer: &dyn Observer,
) -> Result<u64> {
    let Metadata { etag, size } = wanted.metadata;
    let (blob, partial) = (cache.blob(etag), cache.partial(etag));
    create_parent(&blob)?;
    observer.turn_to(wanted.file);
    let lock = cache.lock(etag, || {
        observer.turn_to(&format!("waiting for another process that loads {}", wanted.file));
    })?;
    // Another process, or a file of the same content, may have brought it.
    if fs::metadata(&blob).is_ok_and(|metadata| metadata.len() == *size) {
        observer.advance(*size);
        return Ok(0);
    }
    observer.turn_to(wanted.file);
    let url = client.file_url(wanted.name, wanted.commit, wanted.file);
    let mut came = 0;
    let mut whole = false;
    loop {
        let mut content = Content::open(&partial, wanted.metadata)?;
        let continued = content.length > 0;
        observer.advance(content.length);
        came += receive(&mut content, wanted, client, places, observer)?;
        let (expected, found) = content.finish(&partial)?;
        if expected == found {
            break;
        }
        fs::remove_file(&partial).map_err(Error::io("remove", &partial))?;
        // What an earlier run, or another program, left may be to blame. Once more from the beginning.
        if !continued || whole {
            return Err(Error::Checksum { url, found, expected });
        }
        whole = true;
    }
    fs::rename(&partial, &blob).map_err(Error::io("write", &blob))?;
    drop(lock);
    Ok(came)
}

/// Receives what is missing, in as many attempts as bring something.
fn receive(
    content: &mut Content,
    wanted: &Wanted,
    client: &Client,
    places: &Places,
    observer: &dyn Observer,
) -> Result<u64> {
    let (mut failures, mut came) = (0, 0);
    while content.length < content.size {
        let before = came;
        let result = attempt(content, wanted, client, &mut came, observer);
        let Err(mut error) = result else { continue };
        if !error.is_temporary() {
            return Err(error);
        }
        if matches!(error, Error::Status { status: 416, .. }) {
            // The store has less than what is here: another file's beginning.
            content.restart()?;
        }
        failures = if came > before { 1 } else { failures + 1 };
        if failures == MOST_ATTEMPTS {
            if let Error::Network { loaded, .. } = &mut error {
                *loaded = content.length;
            }
            return Err(error);
        }
        thread::sleep(places.pause * 2u32.pow(failures - 1));
    }
    Ok(came)
}

/// One connection's part.
fn attempt(
    content: &mut Content,
    wanted: &Wanted,
    client: &Client,
    came: &mut u64,
    observer: &dyn Observer,
) -> Result<()> {
    let url = || client.file_url(wanted.name, wanted.commit, wanted.file);
    let mut part = client.part(wanted.name, wanted.commit, wanted.file, content.length)?;
    if part.first != content.length {
        content.restart()?;
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes = part.body.read(&mut buffer).map_err(|error| network(&url(), &error))?;
        if bytes == 0 && content.length < content.size {
            return Err(network(&url(), &"the connection ended too early"));
        }
        if bytes == 0 {
            return Ok(());
        }
        if content.length + bytes as u64 > content.size {
            let detail = format!("it sends more than the {} bytes that it announced", content.size);
            return Err(Error::Answer { url: url(), detail });
        }
        content.push(&buffer[..bytes])?;
        *came += bytes as u64;
        observer.advance(bytes as u64);
    }
}

/// The beginning of a file, and its digest.
struct Content<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    size: u64,
    check: Check,
}

impl<'a> Content<'a> {
    /// Goes on with what is there.
    fn open(path: &'a Path, metadata: &Metadata) -> Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(Error::io("write", path))?;
        let check = Check::new(metadata);
        let mut content = Self { path, file, length: 0, size: metadata.size, check };
        let length = content.file.metadata().map_err(Error::io("read", path))?.len();
        if length > content.size {
            content.restart()?;
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let bytes = content.file.read(&mut buffer).map_err(Error::io("read", path))?;
            if bytes == 0 {
                return Ok(content);
            }
            content.check.update(&buffer[..bytes]);
            content.length += bytes as u64;
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", self.path))?;
        self.check.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// From the beginning again.
    fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(Error::io("write", self.path))?;
        self.length = 0;
        self.check.restart();
        Ok(())
    }

    /// Makes it durable. The digest that it should have, and the one that it has.
    fn finish(self, path: &Path) -> Result<(String, String)> {
        self.file.sync_all().map_err(Error::io("write", path))?;
        Ok(self.check.finish())
    }
}

/// Compares what comes with the digest that the hub names a file by: the SHA-256 of what it has in its store of large
/// files, git's name (SHA-1) of what it has in the repository. A hub that names files otherwise is believed.
struct Check {
    expected: String,
    algorithm: Option<&'static Algorithm>,
    /// What goes before the content.
    head: String,
    context: Option<digest::Context>,
}

impl Check {
    fn new(metadata: &Metadata) -> Self {
        let Metadata { etag, size } = metadata;
        let (algorithm, head) = match etag.len() {
            64 if is_hexadecimal(etag) => (Some(&digest::SHA256), String::new()),
            40 if is_hexadecimal(etag) => {
                (Some(&digest::SHA1_FOR_LEGACY_USE_ONLY), format!("blob {size}\0"))
            }
            _ => (None, String::new()),
        };
        let mut check = Self { expected: etag.clone(), algorithm, head, context: None };
        check.restart();
        check
    }

    fn restart(&mut self) {
        self.context = self.algorithm.map(digest::Context::new);
        let context = self.context.as_mut();
        context.into_iter().for_each(|context| context.update(self.head.as_bytes()));
    }

    fn update(&mut self, bytes: &[u8]) {
        self.context.iter_mut().for_each(|context| context.update(bytes));
    }

    /// The digest that is expected, and the one that was found.
    fn finish(self) -> (String, String) {
        match self.context {
            Some(context) => (self.expected, hexadecimal(&context.finish())),
            None => (self.expected.clone(), self.expected),
        }
    }
}

fn hexadecimal(digest: &Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(etag: &str, content: &[u8]) -> (String, String) {
        let mut check = Check::new(&Metadata { etag: etag.to_owned(), size: content.len() as u64 });
        check.update(b"of another file");
        check.restart();
        content.chunks(3).for_each(|bytes| check.update(bytes));
        check.finish()
    }

    #[test]
    fn digests_are_those_of_sha256sum_and_git() {
        // `printf 'hello\n' | sha256sum`, `printf 'hello\n' | git hash-object --stdin`.
        for etag in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let (expected, found) = digest_of(etag, b"hello\n");
            assert_eq!(expected, found);
            let (expected, found) = digest_of(etag, b"hellO\n");
            assert_ne!(expected, found);
        }
    }
}
