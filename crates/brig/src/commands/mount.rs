//! `brig image mount` and `brig image unmount`: an image's files at a place of the machine.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output;
use crate::report::{self, Outcome};
use brig_engine::images::{Images, mount};
use brig_engine::{Error, Result, layers};
use brig_spec::reference::Reference;
use clap::Args;

#[derive(Debug, Args)]
struct MountFlags {
    /// The images; none: list those that are mounted
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

pub const MOUNT: Entry = Entry::new(
    "mount",
    || parser::<MountFlags>("mount", "Mount images read-only and print where, or list what is mounted"),
    |context, matches| {
        let flags: MountFlags = flags(matches)?;
        if flags.images.is_empty() {
            return list(context);
        }
        each(context, &flags.images, |images, name| {
            output::line(&images.mount(&context.config, name)?.display().to_string());
            Ok(())
        })
    },
);

#[derive(Debug, Args)]
struct UnmountFlags {
    /// The images
    #[arg(value_name = "IMAGE", required_unless_present = "all")]
    images: Vec<String>,
    /// All that are mounted, and the layers that no container runs on
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
}

pub const UNMOUNT: Entry = Entry::new(
    "unmount",
    || parser::<UnmountFlags>("unmount", "Unmount images"),
    |context, matches| {
        let flags: UnmountFlags = flags(matches)?;
        let all = mount::mounts(&context.config).into_iter().map(|mount| mount.id.to_string());
        let names = if flags.all { all.collect() } else { flags.images };
        let outcome = each(context, &names, |images, name| {
            output::line(&images.unmount(&context.config, name)?.to_string());
            Ok(())
        });
        if flags.all {
            layers::unmount_unused(&context.config)?;
        }
        outcome
    },
)
.aliases(&["umount"]);

fn list(context: &Context) -> Outcome {
    let store = store(context)?;
    let listing =
        store.images().map_err(|error| Error::internal("cannot tell the names of what is mounted").because(error))?;
    for mount in mount::mounts(&context.config) {
        let image = listing.images.iter().find(|image| image.id == mount.id);
        let name = image.and_then(|image| image.names.first()).map(Reference::familiar);
        let name = name.unwrap_or_else(|| mount.id.short().to_owned());
        output::line(&format!("{name} {}", mount.path.display()));
    }
    Ok(0)
}

/// Does something for each image, and goes on after a failure.
fn each(context: &Context, names: &[String], act: impl Fn(&Images<'_>, &str) -> Result<()>) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&[])?);
    let mut status = 0;
    for name in names {
        if let Err(error) = act(&images, name) {
            report::print(&error);
            status = 1;
        }
    }
    Ok(status)
}
