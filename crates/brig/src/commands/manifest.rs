//! `brig manifest`: lists of platforms, made here and pushed whole.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output;
use crate::progress::Reporter;
use crate::report::Outcome;
use brig_engine::images::{Images, PlatformChange};
use clap::Args;

#[derive(Debug, Args)]
struct Create {
    /// The name of the list
    list: String,
    /// Images that are here, or in registries
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Add to a list that exists
    #[arg(short, long)]
    amend: bool,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct Annotate {
    /// The name of the list
    list: String,
    /// An image of it, by name or by the digest of its manifest
    image: String,
    /// The operating system
    #[arg(long)]
    os: Option<String>,
    /// The processor
    #[arg(long)]
    arch: Option<String>,
    /// The processor's variant
    #[arg(long)]
    variant: Option<String>,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct Inspect {
    /// A list that was made here, or a name in a registry
    name: String,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct Push {
    /// The name of the list
    list: String,
    /// The name that it gets; by default its own
    destination: Option<String>,
    /// Remove the list here when it is there
    #[arg(short, long)]
    purge: bool,
    /// Print nothing but the digest
    #[arg(short, long)]
    quiet: bool,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct Remove {
    /// The names of the lists
    #[arg(required = true, value_name = "LIST")]
    lists: Vec<String>,
}

pub const CREATE: Entry = Entry::new(
    "create",
    || parser::<Create>("create", "Make a list of images for several platforms"),
    |context, matches| {
        let flags: Create = flags(matches)?;
        let store = store(context)?;
        let images = Images::new(&store, registry_options(&flags.insecure)?);
        let name = images.create_list(&flags.list, &flags.images, flags.amend)?;
        output::line(&format!("Created manifest list {}", name.familiar()));
        Ok(0)
    },
);

pub const ANNOTATE: Entry = Entry::new(
    "annotate",
    || parser::<Annotate>("annotate", "Change what a list says of an image's platform"),
    |context, matches| {
        let flags: Annotate = flags(matches)?;
        let store = store(context)?;
        let images = Images::new(&store, registry_options(&flags.insecure)?);
        let change = PlatformChange { os: flags.os, architecture: flags.arch, variant: flags.variant };
        images.annotate_list(&flags.list, &flags.image, &change)?;
        Ok(0)
    },
);

pub const INSPECT: Entry = Entry::new(
    "inspect",
    || parser::<Inspect>("inspect", "Show a list, or what a registry has under a name"),
    |context, matches| {
        let flags: Inspect = flags(matches)?;
        let store = store(context)?;
        let images = Images::new(&store, registry_options(&flags.insecure)?);
        let bytes = images.inspect_manifest(&flags.name)?;
        output::line(&crate::report::clean_lines(&String::from_utf8_lossy(&bytes)));
        Ok(0)
    },
);

pub const PUSH: Entry = Entry::new(
    "push",
    || parser::<Push>("push", "Send a list and its images to a registry"),
    |context, matches| push(context, &flags(matches)?),
);

pub const REMOVE: Entry = Entry::new(
    "rm",
    || parser::<Remove>("rm", "Remove lists; their images stay"),
    |context, matches| {
        let flags: Remove = flags(matches)?;
        let store = store(context)?;
        let images = Images::new(&store, registry_options(&[])?);
        super::each(&flags.lists, |name| images.remove_list(name))
    },
)
.aliases(&["remove"]);

fn push(context: &Context, flags: &Push) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&flags.insecure)?);
    let pushed = images.push_list(&flags.list, flags.destination.as_deref(), &Reporter::sending(flags.quiet))?;
    output::line(&pushed.digest.to_string());
    if flags.purge {
        images.remove_list(&flags.list)?;
    }
    Ok(0)
}
