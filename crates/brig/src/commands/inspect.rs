//! `brig inspect`: everything about containers, images and volumes, in the JSON that Docker's users know.

mod container;
mod image;

use super::{Entry, flags, names_of, parser, registry_options, store};
use crate::Context;
use crate::output;
use crate::report::{self, Outcome};
use brig_engine::images::Images;
use brig_engine::{Kind, Result, containers, volumes};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
struct Flags {
    /// Containers, images or volumes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Format it by a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Look only for `container`, `image` or `volume`
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "inspect",
    || parser::<Flags>("inspect", "Show all about containers, images or volumes"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        print(&flags.names, flags.format.as_deref(), |name| any(context, name, flags.kind.as_deref()))
    },
);

#[derive(Debug, Args)]
struct OneKind {
    /// What to show
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Format it by a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const CONTAINER: Entry = Entry::new(
    "inspect",
    || parser::<OneKind>("inspect", "Show all about containers"),
    |context, matches| {
        let flags: OneKind = flags(matches)?;
        print(&flags.names, flags.format.as_deref(), |name| any(context, name, Some("container")))
    },
);

pub const IMAGE: Entry = Entry::new(
    "inspect",
    || parser::<OneKind>("inspect", "Show all about images"),
    |context, matches| {
        let flags: OneKind = flags(matches)?;
        print(&flags.names, flags.format.as_deref(), |name| any(context, name, Some("image")))
    },
);

/// Prints what is found: one JSON list of all, or a template's text a line each. What is not found is told on the way.
pub(super) fn print(names: &[String], format: Option<&str>, find: impl Fn(&str) -> Result<Value>) -> Outcome {
    let mut found = Vec::new();
    let mut status = 0;
    for name in names {
        match find(name) {
            Ok(value) => match format {
                None | Some("json") => found.push(value),
                Some(template) => output::line(&output::execute(template, &value)?),
            },
            Err(error) => {
                report::print(&error);
                status = 1;
            }
        }
    }
    match format {
        None => output::line(&serde_json::to_string_pretty(&found).unwrap_or_default()),
        Some("json") => output::line(&json!(found).to_string()),
        Some(_) => {}
    }
    Ok(status)
}

/// Looks for a container, an image, a volume, in this order.
fn any(context: &Context, name: &str, kind: Option<&str>) -> Result<Value> {
    if kind.is_none_or(|k| k == "container") {
        match containers::find(&context.config, name) {
            Ok(record) => return Ok(container::describe(&context.config, &record)),
            Err(error) if error.kind != Kind::NotFound || kind.is_some() => return Err(error),
            Err(_) => {}
        }
    }
    if kind.is_none_or(|k| k == "image") {
        let store = store(context)?;
        match Images::new(&store, registry_options(&[])?).inspect(name) {
            Ok(image) => return Ok(image::describe(&image, &names_of(&store, &image)?)),
            Err(error) if error.kind != Kind::NotFound || kind.is_some() => return Err(error),
            Err(_) => {}
        }
    }
    match kind {
        None => {}
        Some("volume") => {
            let volume = volumes::inspect(&context.config, name)?;
            return Ok(
                json!({"Name": volume.name, "Mountpoint": volume.data(&context.config), "Labels": volume.labels}),
            );
        }
        Some(other) => {
            return Err(brig_engine::Error::invalid(format!("`{other}` is not a kind of object"))
                .hint("known are `container`, `image` and `volume`"));
        }
    }
    volumes::inspect(&context.config, name)
        .map(|volume| json!({"Name": volume.name, "Mountpoint": volume.data(&context.config), "Labels": volume.labels}))
        .map_err(|_| {
            brig_engine::Error::not_found(format!("no such object: {name}"))
                .hint("`brig ps -a`, `brig images` and `brig volume ls` list what there is")
        })
}
