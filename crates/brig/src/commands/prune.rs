//! `brig prune` and its parts: remove what nothing uses.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output::{self, Filters};
use crate::report::{self, Outcome};
use crate::terminal;
use brig_engine::images::{ImageFilter, Images, LabelFilter};
use brig_engine::time::parse_moment;
use brig_engine::{Error, Result, containers, networks, volumes};
use brig_monitor::state::now_ns;
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
    /// Only some containers and images: `label=`, `label!=`, `until=`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
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
struct ContainerFlags {
    /// Only some: `label=`, `label!=`, `until=`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
struct ImageFlags {
    /// Remove every image that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Only some: `dangling=`, `label=`, `label!=`, `until=`, `before=`, `since=`, `reference=`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
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
    || parser::<ContainerFlags>("prune", "Remove every container that does not run"),
    |context, matches| {
        let flags: ContainerFlags = flags(matches)?;
        let filters = Filters::parse(&flags.filter, &BOTH)?;
        ask(flags.force, "every container that does not run")?;
        prune_containers(context, &filters)
    },
);

pub const IMAGES: Entry = Entry::new(
    "prune",
    || parser::<ImageFlags>("prune", "Remove images that nothing uses"),
    |context, matches| {
        let flags: ImageFlags = flags(matches)?;
        let filters = Filters::parse(&flags.filter, &ImageFilter::KEYS)?;
        ask(flags.force, "images that no container uses")?;
        let (status, bytes) = prune_images(context, flags.all, &filters)?;
        output::line(&format!("Total reclaimed space: {}", output::decimal_size(bytes)));
        Ok(status)
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

/// The filters that both containers and images know.
const BOTH: [&str; 3] = ["label", "label!", "until"];

fn everything(context: &Context, flags: &Flags) -> Outcome {
    let filters = Filters::parse(&flags.filter, &BOTH)?;
    ask(flags.force, "containers that do not run, unused images and an unused bridge")?;
    let mut status = prune_containers(context, &filters)?;
    if flags.volumes {
        for name in volumes::prune(&context.config, false)? {
            output::line(&format!("Deleted volume: {name}"));
        }
    }
    let (failed, bytes) = prune_images(context, flags.all, &filters)?;
    status |= failed;
    status |= prune_networks(context)?;
    output::line(&format!("Total reclaimed space: {}", output::decimal_size(bytes)));
    Ok(status)
}

fn prune_containers(context: &Context, filters: &Filters) -> Outcome {
    let mut until = u64::MAX;
    let mut labels = Vec::new();
    for (key, value) in filters.pairs() {
        if key == "until" {
            let moment = parse_moment(value, now_ns()).ok_or_else(|| {
                Error::invalid(format!("`{value}` is not a value for the filter `until`"))
                    .hint("use a time, or a span such as 24h")
            })?;
            until = until.min(moment);
        } else {
            labels.push(LabelFilter::new(value, key == "label!"));
        }
    }
    let pick = |entry: &containers::Entry| {
        entry.record.created_ns < until && labels.iter().all(|label| label.fits(&entry.record.config.labels))
    };
    let (removed, failed) = containers::prune(&context.config, &pick)?;
    for id in &removed {
        output::line(&format!("Deleted container: {id}"));
    }
    failed.iter().for_each(report::print);
    Ok(u8::from(!failed.is_empty()))
}

/// Returns the status and the bytes that are free now.
fn prune_images(context: &Context, all: bool, filters: &Filters) -> Result<(u8, u64)> {
    let store = store(context)?;
    let filter = ImageFilter::new(filters.pairs(), &store, now_ns())?;
    let users = || containers::in_use(&context.config).map_err(Into::into);
    let (removed, collected) = Images::new(&store, registry_options(&[])?).prune(&users, all, &filter)?;
    brig_engine::images::mount::sweep(&context.config)?;
    brig_engine::layers::sweep(&context.config)?;
    for id in removed {
        output::line(&format!("Deleted image: {id}"));
    }
    Ok((0, collected.bytes))
}

fn prune_networks(context: &Context) -> Outcome {
    if networks::prune(&context.config)? {
        output::line(&format!("Deleted network: {}", context.config.bridge));
    }
    Ok(0)
}
