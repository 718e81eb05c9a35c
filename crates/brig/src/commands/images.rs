//! `brig images`: list images.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output::{self, Column, Filters, Row, ago, decimal_size};
use crate::report::{self, Outcome};
use brig_engine::images::list_filter::is_named;
use brig_engine::images::{ImageFilter, Images};
use brig_engine::time::parse_rfc3339;
use brig_spec::reference::Reference;
use brig_store::{ImageSummary, Line};
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
    /// Only some: `dangling=true`, `reference=`, `label=`, `label!=`, `before=`, `since=`, `until=`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show which image lies on which
    #[arg(long, conflicts_with_all = ["quiet", "format", "digests"])]
    tree: bool,
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
    let simple = flags.filter.is_empty() && flags.repository.is_none() && flags.format.is_none();
    if simple && !flags.tree && !flags.digests {
        return plain(context, flags);
    }
    let filters = Filters::parse(&flags.filter, &ImageFilter::KEYS)?;
    let store = store(context)?;
    let filter = ImageFilter::new(filters.pairs(), &store, brig_monitor::state::now_ns())?;
    let listing = Images::new(&store, registry_options(&[])?).list()?;
    for error in &listing.unreadable {
        report::print(&brig_engine::Error::internal("an image cannot be listed").reason(error.to_string()));
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut printed = std::collections::BTreeSet::new();
    let mut shown = std::collections::BTreeSet::new();
    for image in &listing.images {
        let names: Vec<Option<&Reference>> =
            if image.names.is_empty() { vec![None] } else { image.names.iter().map(Some).collect() };
        for name in names {
            let asked = flags.repository.as_deref().is_none_or(|r| name.is_some_and(|n| is_named(n, r)));
            if !asked || !filter.passes(&store, image, name)? {
                continue;
            }
            if flags.tree {
                shown.insert(image.id.clone());
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
    if flags.tree {
        let picked: Vec<&ImageSummary> = listing.images.iter().filter(|image| shown.contains(&image.id)).collect();
        output::listing(&tree(&picked, flags.no_trunc), &TREE, &[], None)?;
    } else if !flags.quiet {
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

/// The listing without any choice, which is asked for most: nothing is read that is not shown.
fn plain(context: &Context, flags: &Flags) -> Outcome {
    let store = store(context)?;
    let (lines, unreadable) = Images::new(&store, registry_options(&[])?).lines()?;
    for error in &unreadable {
        report::print(&brig_engine::Error::internal("an image cannot be listed").reason(error.to_string()));
    }
    let id = |line: &Line| {
        if flags.no_trunc { format!("sha256:{}", line.id) } else { line.id.get(..12).unwrap_or(&line.id).to_owned() }
    };
    if flags.quiet {
        let mut printed = std::collections::BTreeSet::new();
        let mut text = String::new();
        for line in lines.iter().filter(|line| printed.insert(&line.id)) {
            text.push_str(&id(line));
            text.push('\n');
        }
        output::print(&text);
        return Ok(u8::from(!unreadable.is_empty()));
    }
    let none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
    let mut rows = Vec::with_capacity(lines.len() + 1);
    rows.push(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned).to_vec());
    for line in &lines {
        let created = ago(parse_rfc3339(&line.created).unwrap_or(0));
        rows.push(vec![none(&line.repository), none(&line.tag), id(line), created, decimal_size(line.size)]);
    }
    output::table(&rows);
    Ok(u8::from(!unreadable.is_empty()))
}

const TREE: [Column; 4] = [("IMAGE", "Image"), ("IMAGE ID", "ID"), ("SIZE", "Size"), ("ADDED", "Added")];

/// Puts each image below the one whose layers it begins with, the nearest of them.
fn tree(images: &[&ImageSummary], whole: bool) -> Vec<Row> {
    let names = |image: &ImageSummary| image.layers.iter().map(|layer| layer.name.clone()).collect::<Vec<_>>();
    let layers: Vec<Vec<String>> = images.iter().map(|image| names(image)).collect();
    let lies_on = |upper: usize, lower: usize| {
        let (long, short) = (&layers[upper], &layers[lower]);
        !short.is_empty() && (long.len() > short.len() || long == short && lower < upper) && long.starts_with(short)
    };
    let parent = |at: usize| {
        let below = (0..images.len()).filter(|other| *other != at && lies_on(at, *other));
        below.max_by_key(|other| (layers[*other].len(), *other))
    };
    let parents: Vec<Option<usize>> = (0..images.len()).map(parent).collect();
    let mut rows = Vec::new();
    let mut left: Vec<(usize, String, String)> = (0..images.len())
        .rev()
        .filter(|at| parents[*at].is_none())
        .map(|at| (at, String::new(), String::new()))
        .collect();
    while let Some((at, lead, inner)) = left.pop() {
        let image = images[at];
        let called: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        let called = if called.is_empty() { "<none>".to_owned() } else { called.join(", ") };
        let below: u64 = parents[at].map_or(0, |parent| images[parent].size);
        let id = if whole { image.id.to_string() } else { image.id.short().to_owned() };
        let fields = [
            ("Image", format!("{lead}{called}")),
            ("ID", id),
            ("Size", decimal_size(image.size)),
            ("Added", decimal_size(image.size.saturating_sub(below))),
        ];
        rows.push(fields.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect());
        let children: Vec<usize> = (0..images.len()).filter(|child| parents[*child] == Some(at)).collect();
        for (n, child) in children.iter().enumerate().rev() {
            let last = n + 1 == children.len();
            let (branch, deeper) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            left.push((*child, format!("{inner}{branch}"), format!("{inner}{deeper}")));
        }
    }
    rows
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
