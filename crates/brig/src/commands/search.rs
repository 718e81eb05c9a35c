//! `brig search`: look for images in a registry.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output::{self, Column, Row};
use crate::report::Outcome;
use brig_engine::Error;
use brig_engine::images::Images;
use clap::Args;
use serde_json::json;

/// How much of a description is shown.
const DESCRIPTION_WIDTH: usize = 45;

#[derive(Debug, Args)]
struct Flags {
    /// What to look for, with or without a registry before it
    #[arg(value_name = "[REGISTRY/]WORD")]
    term: String,
    /// The most lines
    #[arg(long, default_value_t = 25, value_name = "COUNT")]
    limit: usize,
    /// `is-official=true|false` or `stars=COUNT`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show descriptions whole
    #[arg(long)]
    no_trunc: bool,
    /// A Go template, `json`, or `table TEMPLATE`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

pub const ENTRY: Entry = Entry::new(
    "search",
    || parser::<Flags>("search", "Look for images in a registry"),
    |context, matches| execute(context, &flags(matches)?),
);

const COLUMNS: &[Column] =
    &[("NAME", "Name"), ("DESCRIPTION", "Description"), ("STARS", "StarCount"), ("OFFICIAL", "IsOfficial")];

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let (mut official, mut stars) = (None, 0);
    for filter in &flags.filter {
        match filter.split_once('=') {
            Some(("is-official", "true" | "1")) => official = Some(true),
            Some(("is-official", "false" | "0")) => official = Some(false),
            Some(("stars", count)) if count.parse::<u64>().is_ok() => stars = count.parse().unwrap_or(0),
            _ => {
                return Err(Error::invalid(format!("`{filter}` is not a filter of searches"))
                    .hint("known are `is-official=true` and `stars=COUNT`"));
            }
        }
    }
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&flags.insecure)?);
    let mut found = images.search(&flags.term, flags.limit)?;
    found.retain(|one| one.stars >= stars && official.is_none_or(|wanted| one.official == wanted));
    let rows: Vec<Row> = found
        .into_iter()
        .map(|one| {
            let description = one.description.replace('\n', " ");
            let shown = if flags.no_trunc { description } else { output::ellipsis(&description, DESCRIPTION_WIDTH) };
            let official = if one.official { "[OK]" } else { "" };
            let row = json!({
                "Name": one.name, "Description": shown, "StarCount": one.stars.to_string(), "IsOfficial": official,
                "IsAutomated": "",
            });
            row.as_object().cloned().unwrap_or_default()
        })
        .collect();
    output::listing(&rows, COLUMNS, &[], flags.format.as_deref())?;
    Ok(0)
}
