//! Checkpoints named `hf:ORG/NAME`.

use std::path::PathBuf;

use super::context::{Context, Failure};

/// What commands that read checkpoints take besides.
#[derive(Debug, clap::Args)]
pub struct HubArgs {
    /// Read a checkpoint that is named hf:ORG/NAME from the cache only, and ask no hub
    #[arg(long)]
    offline: bool,
}

impl HubArgs {
    /// Puts paths in place of names on the hub, and loads what is not in the cache.
    #[cfg(feature = "hub")]
    pub fn locate(&self, paths: Vec<&mut PathBuf>, context: &Context) -> Result<(), Failure> {
        use super::progress::Progress;
        use super::table::bytes;
        use cerebellum_tools::hub::{Hub, Name, Places};

        let mut hub = None;
        for path in paths {
            let Some(name) = Name::of(path) else { continue };
            let name = name?;
            let hub = match &mut hub {
                Some(hub) => hub,
                empty => {
                    let mut places = Places::from_environment()?;
                    places.offline |= self.offline;
                    empty.insert(Hub::new(places))
                }
            };
            let progress = Progress::of_bytes(context);
            let found = hub.locate(&name, &progress)?;
            drop(progress);
            if found.received > 0 {
                let (received, cache) = (bytes(found.received), hub.places().cache.display());
                context.note(format_args!("{name}: loaded {received} into {cache}"));
            }
            *path = found.path;
        }
        Ok(())
    }

    /// Refuses names on the hub.
    #[cfg(not(feature = "hub"))]
    pub fn locate(&self, paths: Vec<&mut PathBuf>, _context: &Context) -> Result<(), Failure> {
        let named =
            paths.into_iter().find(|path| path.to_str().is_some_and(|it| it.starts_with("hf:")));
        match named {
            Some(path) => Err(format!(
                "{}: this program was built without the hub, as by `cargo demo`; `cargo install --locked --path tools` installs one with it, or give a directory",
                path.display()
            )
            .into()),
            None => Ok(()),
        }
    }
}
