//! `brig images`: list images.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output::{self, Column, Filters, Row, ago, decimal_size};
use crate::report::{self, Outcome};
use brig_engine::images::Images;
use brig_engine::time::parse_rfc3339;
use brig_spec::reference::Reference;
use brig_store::ImageSummary;
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
struct Flags {
    /// Only images of this name, `REPOSITORY[:TAG]`
    repository: Option<String>,
    /// For compatibility: there are no intermediate images
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Cut nothing
    #[arg(long)]
    no_trunc: bool,
    /// Show the digests of manifests
    #[arg(long)]
    digests: bool,
    /// Only some: `dangling=true`, `reference=`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format it by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "images",
    || parser::<Flags>("images", "List images"),
    |context, matches| execute(context, &flags(matches)?),
);

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let filters = Filters::parse(&flags.filter, &["dangling", "reference"])?;
    let store = store(context)?;
    let listing = Images::new(&store, registry_options(&[])?).list()?;
    for error in &listing.unreadable {
        report::print(&brig_engine::Error::internal("an image cannot be listed").reason(error.to_string()));
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut printed = std::collections::BTreeSet::new();
    for image in &listing.images {
        let names: Vec<Option<&Reference>> =
            if image.names.is_empty() { vec![None] } else { image.names.iter().map(Some).collect() };
        for name in names {
            let fits = |key: &str, value: &str| match key {
                "dangling" => name.is_none() == matches!(value, "true" | "1"),
                _ => name.is_some_and(|n| is_named(n, value)),
            };
            if !filters.pass(fits) || flags.repository.as_deref().is_some_and(|r| !name.is_some_and(|n| is_named(n, r)))
            {
                continue;
            }
            let id = if flags.no_trunc { image.id.to_string() } else { image.id.short().to_owned() };
            if !flags.quiet {
                rows.push(row(image, name, id));
            } else if printed.insert(id.clone()) {
                output::line(&id);
            }
        }
    }
    if !flags.quiet {
        let mut columns: Vec<Column> = vec![("REPOSITORY", "Repository"), ("TAG", "Tag")];
        if flags.digests {
            columns.push(("DIGEST", "Digest"));
        }
        columns.extend([("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")]);
        let headings = [("CREATED AT", "CreatedAt"), ("DIGEST", "Digest"), ("PLATFORM", "Platform")];
        output::listing(&rows, &columns, &headings, flags.format.as_deref())?;
    }
    Ok(u8::from(!listing.unreadable.is_empty()))
}

/// Says whether a reference is meant by `REPOSITORY[:TAG]`, short or whole; `*` stands for any letters.
fn is_named(name: &Reference, wanted: &str) -> bool {
    let (familiar, whole) = (name.familiar(), format!("{}:{}", name.name(), name.tag().unwrap_or_default()));
    [familiar.as_str(), whole.as_str(), &name.familiar_name(), &name.name()].iter().any(|n| matches(n, wanted))
}

fn matches(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((head, tail)) => text
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|n| rest.get(n..).is_some_and(|r| matches(r, tail)))),
    }
}

fn row(image: &ImageSummary, name: Option<&Reference>, id: String) -> Row {
    let none = || "<none>".to_owned();
    let fields = [
        ("Repository", Value::from(name.map_or_else(none, Reference::familiar_name))),
        ("Tag", Value::from(name.and_then(|n| n.tag()).map_or_else(none, str::to_owned))),
        ("Digest", Value::from(image.manifest.to_string())),
        ("ID", Value::from(id)),
        ("CreatedSince", Value::from(ago(image.created.as_deref().and_then(parse_rfc3339).unwrap_or(0)))),
        ("CreatedAt", Value::from(image.created.clone().unwrap_or_default())),
        ("Size", Value::from(decimal_size(image.size))),
        ("Platform", Value::from(image.platform.to_string())),
    ];
    fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_meant_short_or_whole() {
        let name: Reference = "debian:12".parse().unwrap();
        for good in
            ["debian", "debian:12", "docker.io/library/debian", "docker.io/library/debian:12", "deb*", "*:12", "*"]
        {
            assert!(is_named(&name, good), "{good}");
        }
        for bad in ["", "deb", "debian:11", "library/debian", "*:11"] {
            assert!(!is_named(&name, bad), "{bad}");
        }
    }
}
