//! `brig history`: how an image came to be.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output::{self, Column, Row, ago, decimal_size, ellipsis};
use crate::report::Outcome;
use brig_engine::images::{Images, Step};
use brig_engine::time::{parse_rfc3339, rfc3339};
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
struct Flags {
    /// The image
    image: String,
    /// Cut nothing
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Sizes and times in words
    #[arg(short = 'H', long, value_name = "BOOL", default_value = "true", num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    human: bool,
    /// Format it by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "history",
    || parser::<Flags>("history", "Show how an image came to be"),
    |context, matches| execute(context, &flags(matches)?),
);

const COLUMNS: [Column; 5] = [
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

const HEADINGS: [Column; 2] = [("CREATED AT", "CreatedAt"), ("AUTHOR", "Author")];

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let store = store(context)?;
    let steps = Images::new(&store, registry_options(&[])?).history(&flags.image)?;
    if flags.quiet {
        steps.iter().for_each(|step| output::line(&id(step, flags.no_trunc)));
        return Ok(0);
    }
    let rows: Vec<Row> = steps.iter().map(|step| row(step, flags)).collect();
    let mut columns = COLUMNS.to_vec();
    if !flags.human {
        columns[1] = ("CREATED AT", "CreatedAt");
    }
    output::listing(&rows, &columns, &HEADINGS, flags.format.as_deref())?;
    Ok(0)
}

fn id(step: &Step, whole: bool) -> String {
    match step.id.as_deref() {
        None => "<missing>".to_owned(),
        Some(id) if whole => id.to_owned(),
        Some(id) => id.trim_start_matches("sha256:").chars().take(12).collect(),
    }
}

fn row(step: &Step, flags: &Flags) -> Row {
    let told = &step.step;
    // One line each, whatever a builder has written.
    let command = told.created_by.as_deref().unwrap_or_default().replace(['\n', '\t'], " ");
    let created = told.created.as_deref().and_then(parse_rfc3339).unwrap_or(0);
    let fields = [
        ("ID", Value::from(id(step, flags.no_trunc))),
        ("CreatedSince", Value::from(ago(created))),
        ("CreatedAt", Value::from(if created == 0 { String::new() } else { rfc3339(created) })),
        ("CreatedBy", Value::from(if flags.no_trunc { command } else { ellipsis(&command, 45) })),
        ("Size", Value::from(if flags.human { decimal_size(step.size) } else { step.size.to_string() })),
        ("Comment", Value::from(told.comment.clone().unwrap_or_default())),
        ("Author", Value::from(told.author.clone().unwrap_or_default())),
    ];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
