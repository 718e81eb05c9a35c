//! `brig create`: make a container without starting it; and what `run` shares with it.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::flags::ContainerFlags;
use crate::flags::modes::platform;
use crate::output;
use crate::progress::Reporter;
use crate::report::{self, Outcome};
use brig_engine::config::{ContainerConfig, Pull};
use brig_engine::containers::{self, Created, Source};
use brig_engine::images::{Images, PullPolicy};
use brig_engine::record::Record;
use brig_engine::{Error, Result};
use clap::Command;
use std::io::Write;

pub const ENTRY: Entry =
    Entry::new("create", command, |context, matches| execute(context, &flags(matches)?)).starting();

fn command() -> Command {
    parser::<ContainerFlags>("create", "Make a container without starting it")
        .disable_help_flag(true)
        .override_usage("brig create [OPTIONS] IMAGE [COMMAND] [ARG]...")
}

fn execute(context: &Context, flags: &ContainerFlags) -> Outcome {
    let config = flags.config()?;
    let source = image(context, &config, flags)?;
    let created = make(context, config, &source, flags)?;
    write_cidfile(flags, &created.record)?;
    output::line(created.record.id.as_str());
    Ok(0)
}

/// Has the image that a container is made of.
pub(super) fn image(context: &Context, config: &ContainerConfig, flags: &ContainerFlags) -> Result<Source> {
    if config.image == "host:" {
        brig_engine::disk::make_directory(&context.config.root)?;
        return Ok(Source::Host);
    }
    let store = store(context)?;
    let policy = match config.pull {
        Pull::Missing => PullPolicy::Missing,
        Pull::Always => PullPolicy::Always,
        Pull::Never => PullPolicy::Never,
    };
    let images = Images::new(&store, registry_options(&flags.insecure)?);
    let platform = platform(config.platform.as_deref())?;
    let image = images.ensure(&config.image, policy, platform.as_ref(), &Reporter::new(flags.quiet))?;
    Ok(Source::Image(Box::new(image)))
}

/// Makes the container, and prints what its user should know.
pub(super) fn make(
    context: &Context,
    config: ContainerConfig,
    source: &Source,
    flags: &ContainerFlags,
) -> Result<Created> {
    if let Some(path) = &flags.cidfile
        && std::path::Path::new(path).exists()
    {
        return Err(Error::conflict(format!("the file {path} for the container's id exists already"))
            .hint("remove it: another container may still be meant by it"));
    }
    let created = containers::create(&context.config, config, source)?;
    for warning in &created.warnings {
        report::warn(warning);
    }
    Ok(created)
}

/// Writes `--cidfile`.
pub(super) fn write_cidfile(flags: &ContainerFlags, record: &Record) -> Result<()> {
    let Some(path) = &flags.cidfile else { return Ok(()) };
    let written = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    written
        .and_then(|mut file| file.write_all(record.id.as_str().as_bytes()))
        .map_err(|error| Error::io(format!("cannot write the container's id to {path}"), error))
}
