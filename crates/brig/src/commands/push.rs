//! `brig push`: send an image to a registry.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output;
use crate::progress::Reporter;
use crate::report::Outcome;
use brig_engine::images::Images;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The image, by name or id; with `--all-tags`, a name without tag
    image: String,
    /// The name that it gets; by default its own
    destination: Option<String>,
    /// Send every platform of the list that the image came from
    #[arg(long)]
    all_platforms: bool,
    /// Send every tag of the repository that is here
    #[arg(short, long, conflicts_with = "destination")]
    all_tags: bool,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
    /// Print the digest only
    #[arg(short, long)]
    quiet: bool,
}

pub const ENTRY: Entry = Entry::new(
    "push",
    || parser::<Flags>("push", "Send an image to a registry"),
    |context, matches| execute(context, &flags(matches)?),
);

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&flags.insecure)?);
    let names = if flags.all_tags { images.tags_of(&flags.image)? } else { vec![flags.image.clone()] };
    for name in names {
        let reporter = Reporter::sending(flags.quiet);
        let pushed = images.push(&name, flags.destination.as_deref(), flags.all_platforms, &reporter)?;
        if flags.quiet {
            output::line(&pushed.digest.to_string());
        } else {
            let tag = pushed.reference.tag().unwrap_or("latest");
            output::line(&format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
        }
    }
    Ok(0)
}
