//! `list`: prints all containers below the root.

use super::state::{State, describe};
use super::{Command, say};
use crate::arguments::{Ends, Opt, Parsed, flag, value};
use crate::container::Container;
use crate::failure::{Failure, Step};
use crate::global::Global;
use std::fmt::Write;

const OPTIONS: [Opt; 2] =
    [value("format", 'f', "table or json (default: table)"), flag("quiet", 'q', "print the ids alone")];

pub(crate) const COMMAND: Command = Command {
    name: "list",
    operands: "",
    about: "list the containers below the root",
    options: &OPTIONS,
    ends: Ends::Never,
    enters: false,
    run,
};

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let states = states(global)?;
    if parsed.has("quiet") {
        return say(states.into_iter().map(|state| state.id + "\n").collect::<String>());
    }
    match parsed.filled("format") {
        None | Some("table") => {
            let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            rows.extend(states.into_iter().map(|s| {
                [s.id, s.pid.to_string(), s.status.into(), s.bundle.display().to_string(), s.created, s.owner]
            }));
            say(table(&rows))
        }
        Some("json") if states.is_empty() => say("null\n"),
        Some("json") => say(serde_json::to_string(&states).unwrap_or_default() + "\n"),
        Some(other) => Err(Failure::new(format!("invalid format option: {other:?}"))),
    }
}

/// The states of all containers, by name. One that goes away meanwhile is left out.
fn states(global: &Global) -> Result<Vec<State>, Failure> {
    let entries = match std::fs::read_dir(&global.root) {
        // A directory that nobody asked for by name may not be there yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !global.root_given => return Ok(Vec::new()),
        entries => entries.step(|| format!("list {}", global.root.display()))?,
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    let mut states = Vec::new();
    for name in names {
        match Container::load(&global.root, &name) {
            Ok(container) => states.push(describe(&container)),
            Err(failure) => global.log.debug(&failure.to_string()),
        }
    }
    Ok(states)
}

/// Columns at least 12 wide, three spaces apart.
fn table(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row[..5].iter().zip(&widths) {
            let _ = write!(text, "{cell:<width$}");
        }
        text += &row[5];
        text.push('\n');
    }
    text
}
