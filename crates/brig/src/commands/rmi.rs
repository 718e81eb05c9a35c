//! `brig rmi`: remove names of images, and images without a name.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output;
use crate::report::{self, Outcome};
use brig_engine::Kind;
use brig_engine::containers;
use brig_engine::images::Images;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The images, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove one with several names or used by a container; one that does not exist is no error
    #[arg(short, long)]
    force: bool,
}

pub const ENTRY: Entry = Entry::new(
    "rmi",
    || parser::<Flags>("rmi", "Remove images"),
    |context, matches| execute(context, &flags(matches)?),
);

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&[])?);
    let users = || containers::in_use(&context.config).map_err(Into::into);
    let mut status = 0;
    for name in &flags.images {
        match images.remove(name, &users, flags.force) {
            Ok(removed) => {
                for name in &removed.untagged {
                    output::line(&format!("Untagged: {}", name.familiar()));
                }
                if let Some(id) = &removed.deleted {
                    output::line(&format!("Deleted: {id}"));
                }
            }
            Err(error) if flags.force && error.kind == Kind::NotFound => {}
            Err(error) => {
                report::print(&error);
                status = 1;
            }
        }
    }
    brig_engine::layers::sweep(&context.config)?;
    Ok(status)
}
