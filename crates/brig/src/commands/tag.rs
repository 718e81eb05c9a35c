//! `brig tag`: give an image one more name.

use super::{Entry, flags, parser, registry_options, store};
use crate::output;
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

#[derive(Debug, Args)]
struct UntagFlags {
    /// The image, by name or id
    image: String,
    /// The names to take away; none: all that it has
    names: Vec<String>,
}

pub const UNTAG: Entry = Entry::new(
    "untag",
    || parser::<UntagFlags>("untag", "Take names away from an image, which stays"),
    |context, matches| {
        let flags: UntagFlags = flags(matches)?;
        let store = store(context)?;
        for name in Images::new(&store, registry_options(&[])?).untag(&flags.image, &flags.names)? {
            output::line(&format!("Untagged: {}", name.familiar()));
        }
        Ok(0)
    },
);
