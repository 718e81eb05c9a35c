//! `brig prune` and its parts: remove what nothing uses.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output;
use crate::report::{self, Outcome};
use crate::terminal;
use brig_engine::images::Images;
use brig_engine::{Error, Result, containers, networks, volumes};
use clap::Args;
use std::io::Write;

#[derive(Debug, Args)]
struct Flags {
    /// Remove every image that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Remove anonymous volumes that no container uses
    #[arg(long)]
    volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
struct Force {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
struct ImageFlags {
    /// Remove every image that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub const ENTRY: Entry = Entry::new(
    "prune",
    || parser::<Flags>("prune", "Remove everything that nothing uses"),
    |context, matches| everything(context, &flags(matches)?),
);

pub const CONTAINERS: Entry = Entry::new(
    "prune",
    || parser::<Force>("prune", "Remove every container that does not run"),
    |context, matches| {
        let flags: Force = flags(matches)?;
        ask(flags.force, "every container that does not run")?;
        prune_containers(context)
    },
);

pub const IMAGES: Entry = Entry::new(
    "prune",
    || parser::<ImageFlags>("prune", "Remove images that nothing uses"),
    |context, matches| {
        let flags: ImageFlags = flags(matches)?;
        ask(flags.force, "images that no container uses")?;
        prune_images(context, flags.all)
    },
);

pub const NETWORKS: Entry = Entry::new(
    "prune",
    || parser::<Force>("prune", "Remove the default bridge when no container uses it"),
    |context, matches| {
        let flags: Force = flags(matches)?;
        ask(flags.force, "the bridge, when no container uses it")?;
        prune_networks(context)
    },
);

/// Asks before something is removed; without a terminal to ask on, only `--force` will do.
pub(super) fn ask(force: bool, what: &str) -> Result<()> {
    if force {
        return Ok(());
    }
    if !terminal::stdin_is_terminal() {
        return Err(Error::invalid(format!("cannot ask whether to remove {what}"))
            .reason("standard input is not a terminal")
            .hint("add `--force`"));
    }
    let _ = write!(std::io::stderr().lock(), "This removes {what}. Go on? [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Error::new(brig_engine::Kind::Cancelled, "nothing was removed"))
    }
}

fn everything(context: &Context, flags: &Flags) -> Outcome {
    ask(flags.force, "containers that do not run, unused images and an unused bridge")?;
    let mut status = prune_containers(context)?;
    if flags.volumes {
        for name in volumes::prune(&context.config, false)? {
            output::line(&format!("Deleted volume: {name}"));
        }
    }
    status |= prune_images(context, flags.all)?;
    status |= prune_networks(context)?;
    Ok(status)
}

fn prune_containers(context: &Context) -> Outcome {
    let (removed, failed) = containers::prune(&context.config)?;
    for id in &removed {
        output::line(&format!("Deleted container: {id}"));
    }
    failed.iter().for_each(report::print);
    Ok(u8::from(!failed.is_empty()))
}

fn prune_images(context: &Context, all: bool) -> Outcome {
    let store = store(context)?;
    let users = || containers::in_use(&context.config).map_err(Into::into);
    let (removed, _) = Images::new(&store, registry_options(&[])?).prune(&users, all)?;
    brig_engine::layers::sweep(&context.config)?;
    for id in removed {
        output::line(&format!("Deleted image: {id}"));
    }
    Ok(0)
}

fn prune_networks(context: &Context) -> Outcome {
    if networks::prune(&context.config)? {
        output::line(&format!("Deleted network: {}", context.config.bridge));
    }
    Ok(0)
}
