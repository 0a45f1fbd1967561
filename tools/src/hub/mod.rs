//! Models from the Hugging Face hub: `hf:ORG/NAME` becomes a directory or a GGUF file in the hub's own cache, which
//! the readers of checkpoints then open as any other.
//!
//! ```no_run
//! use cerebellum_tools::checkpoint::Checkpoint;
//! use cerebellum_tools::hub::{Hub, Name, Places};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::new(Places::from_environment()?);
//! if let Some(name) = Name::of("hf:HuggingFaceTB/SmolLM2-135M-Instruct".as_ref()) {
//!     let found = hub.locate(&name?, &())?;
//!     println!("commit {} in {}", found.commit, found.path.display());
//!     let checkpoint = Checkpoint::open(&found.path)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Why no client of the hub's own
//!
//! The crate `hf-hub` was looked at first (versions 0.5 and 1.0). Version 1.0 does not resume (its issue 196), brings
//! an asynchronous runtime and a second protocol, some 140 packages more. Version 0.5 with `ureq` resumes, but
//! appends whatever comes to what is there without looking at `Content-Range`, compares no digest, and knows neither
//! `HF_TOKEN`, `HF_HUB_CACHE` nor a way to stay offline. What is left of a client without these is two requests and
//! a folder, so it is here, above `ureq`: blocking, small, TLS by `rustls`. `ring`, of which `rustls` is made,
//! computes the digests. The protocol and the folder are those of Python's `huggingface_hub` 1.x and 2.x.

mod cache;
mod choice;
mod client;
mod content;
mod error;
mod name;
mod places;

use std::cell::Cell;
use std::path::PathBuf;
use std::thread;

pub use error::{Error, Result};
pub use name::Name;
pub use places::{Places, Token};

use cache::Cache;
use choice::{Choice, choose};
use client::{Client, Listing, Metadata};
use content::{Wanted, load};
use name::is_relative;

use crate::checkpoint::listed_shards;
use crate::quantize::Observer;

/// Attempts to get an answer.
const MOST_ATTEMPTS: u32 = 4;

/// A hub and its cache.
#[derive(Debug)]
pub struct Hub {
    places: Places,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The directory, or the GGUF file.
    pub path: PathBuf,
    /// The commit of the repository, to be named as revision when the same is wanted again.
    pub commit: String,
    /// Bytes that came over the network.
    pub received: u64,
}

impl Hub {
    /// The hub at this place.
    pub fn new(places: Places) -> Self {
        Self { places }
    }

    /// Where the hub and its cache are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Makes a model be in the cache: asks the hub for the revision's commit, and loads those files of it that are
    /// needed and not there. `observer` is told of bytes instead of weights.
    ///
    /// Files are loaded one after the other, and named only when they are complete and have the digest that the
    /// hub says. What an interruption leaves is where the next call goes on.
    ///
    /// Offline, the cache is all that is asked. The revision is then what it was when it was last loaded.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn locate(&self, name: &Name, observer: &dyn Observer) -> Result<Found> {
        let cache = Cache::new(&self.places.cache, name);
        if self.places.offline {
            return self.locate_offline(name, &cache);
        }
        let client = Client::new(&self.places)?;
        observer.turn_to("asking the hub");
        let listing = self.list(&client, name, &cache)?;
        let choice = choose(name, &listing.files)?;
        let (commit, announced) = (listing.commit.as_str(), Cell::new(0));
        let session = Session { hub: self, client, cache, name, commit, announced };
        let mut received = session.load_all(&choice.files, observer)?;
        if let Some(index) = &choice.index {
            let directory = session.cache.snapshot(&listing.commit);
            let shards = listed_shards(&directory.join(index))?;
            if let Some(file) = shards.iter().find(|shard| !listing.files.contains(shard)) {
                let (name, file) = (name.to_string(), file.clone());
                return Err(Error::File { name, file, alternatives: Vec::new() });
            }
            received += session.load_all(&shards.into_iter().collect::<Vec<_>>(), observer)?;
        }
        session.cache.set_commit(name, &listing.commit)?;
        let path = path(&session.cache, &listing.commit, &choice);
        Ok(Found { path, commit: listing.commit, received })
    }

    /// The files of the revision. A hub that cannot be reached at all is not asked again.
    fn list(&self, client: &Client, name: &Name, cache: &Cache) -> Result<Listing> {
        let listed = self.repeated(
            || client.list(name),
            |error| error.is_temporary() && !matches!(error, Error::Network { .. }),
        );
        listed.map_err(|mut error| {
            if let Error::Network { cached, .. } = &mut error {
                *cached = self.locate_offline(name, cache).is_ok();
            }
            error
        })
    }

    fn locate_offline(&self, name: &Name, cache: &Cache) -> Result<Found> {
        let missing = |detail: String| {
            let (name, cache) = (name.to_string(), self.places.cache.clone());
            Error::NotCached { name, cache, detail }
        };
        let commit = cache.commit(name).ok_or_else(|| missing(String::new()))?;
        let files = cache.files(&commit);
        let choice = match choose(name, &files) {
            Err(Error::NoWeights { .. } | Error::File { .. }) => {
                return Err(missing("its weights are missing".to_owned()));
            }
            choice => choice?,
        };
        if let Some(index) = &choice.index {
            let shards = listed_shards(&cache.snapshot(&commit).join(index))?;
            if let Some(shard) = shards.iter().find(|shard| !files.contains(shard)) {
                return Err(missing(format!("{shard} is missing")));
            }
        }
        Ok(Found { path: path(cache, &commit, &choice), commit, received: 0 })
    }

    /// Tries again what failed for a reason that passes.
    fn repeated<T>(
        &self,
        mut ask: impl FnMut() -> Result<T>,
        is_temporary: impl Fn(&Error) -> bool,
    ) -> Result<T> {
        let mut attempt = 0;
        loop {
            match ask() {
                Err(error) if attempt + 1 < MOST_ATTEMPTS && is_temporary(&error) => {
                    thread::sleep(self.places.pause * 2u32.pow(attempt));
                    attempt += 1;
                }
                result => return result,
            }
        }
    }
}

/// What a chosen model is opened by.
fn path(cache: &Cache, commit: &str, choice: &Choice) -> PathBuf {
    let directory = cache.snapshot(commit);
    if choice.is_file { directory.join(&choice.files[0]) } else { directory }
}

/// The loading of one commit.
struct Session<'a> {
    hub: &'a Hub,
    client: Client<'a>,
    cache: Cache,
    name: &'a Name,
    commit: &'a str,
    /// Bytes that the observer was told of.
    announced: Cell<u64>,
}

impl Session<'_> {
    /// Loads those of the files that are not there. Says how many bytes came.
    fn load_all(&self, files: &[String], observer: &dyn Observer) -> Result<u64> {
        let snapshot = self.cache.snapshot(self.commit);
        let mut missing: Vec<(&str, Metadata)> = Vec::new();
        for file in files {
            // The hub said these names.
            if !is_relative(file) {
                let (url, detail) =
                    (self.hub.places.endpoint.clone(), format!("{file:?} is no file"));
                return Err(Error::Answer { url, detail });
            }
            if !snapshot.join(file).exists() {
                let ask = || self.client.metadata(self.name, self.commit, file);
                let metadata = self.hub.repeated(ask, Error::is_temporary)?;
                missing.push((file, metadata));
            }
        }
        let bytes: u64 = missing.iter().map(|(_, metadata)| metadata.size).sum();
        self.announced.set(self.announced.get() + bytes);
        observer.begin(self.announced.get());
        let mut received = 0;
        for (file, metadata) in &missing {
            let wanted = Wanted { name: self.name, commit: self.commit, file, metadata };
            let places = (&self.client, &self.cache, &self.hub.places);
            received += load(&wanted, places, observer)?;
            self.cache.link(&metadata.etag, self.commit, file)?;
        }
        Ok(received)
    }
}
