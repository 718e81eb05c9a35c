//! `brig tag`: give an image one more name.

use super::{Entry, flags, parser, registry_options, store};
use brig_engine::images::Images;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The image, by name or id
    image: String,
    /// The further name
    name: String,
}

pub const ENTRY: Entry = Entry::new(
    "tag",
    || parser::<Flags>("tag", "Give an image one more name"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        let store = store(context)?;
        Images::new(&store, registry_options(&[])?).tag(&flags.image, &flags.name)?;
        Ok(0)
    },
);
