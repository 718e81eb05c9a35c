//! `brig logs`: what a container has written, and what it writes.

use super::{Entry, flags, parser};
use crate::Context;
use crate::report::Outcome;
use brig_engine::Error;
use brig_engine::containers::{self, LogLine, LogOptions};
use brig_engine::time::parse_moment;
use clap::Args;
use std::io::Write;
use std::ops::ControlFlow;

#[derive(Debug, Args)]
struct Flags {
    /// The container
    container: String,
    /// Go on while the container runs
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines from the end, or `all`
    #[arg(short = 'n', long, default_value = "all", value_name = "N")]
    tail: String,
    /// Only what is newer: a time, or so long ago (`10m`)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what is older: a time, or so long ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
}

pub const ENTRY: Entry = Entry::new(
    "logs",
    || parser::<Flags>("logs", "Show what a container has written"),
    |context, matches| execute(context, &flags(matches)?),
);

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let now = brig_monitor::state::now_ns();
    let moment = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => parse_moment(text, now).map(Some).ok_or_else(|| {
            Error::invalid(format!("`{text}` is not a time"))
                .hint("write `10m`, `2026-11-22T01:02:03Z` or seconds since 1970")
        }),
    };
    let tail = match flags.tail.as_str() {
        "all" | "-1" => None,
        digits => Some(digits.parse().map_err(|_| Error::invalid(format!("`{digits}` is not a number of lines")))?),
    };
    let options =
        LogOptions { follow: flags.follow, tail, since_ns: moment(&flags.since)?, until_ns: moment(&flags.until)? };
    let record = containers::find(&context.config, &flags.container)?;
    // The beginning of a line shows its time; its further parts do not.
    let mut line_open = [false, false];
    let mut emit = |line: LogLine<'_>| {
        let stream = usize::from(line.stderr);
        let mut text = Vec::with_capacity(line.text.len() + 40);
        if flags.timestamps && !line_open[stream] {
            text.extend_from_slice(line.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
        line_open[stream] = line.partial;
        let written = if line.stderr {
            std::io::stderr().lock().write_all(&text)
        } else {
            let mut out = std::io::stdout().lock();
            out.write_all(&text).and_then(|()| if flags.follow { out.flush() } else { Ok(()) })
        };
        if written.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    containers::logs(&context.config, &record, &options, &mut emit)?;
    let _ = std::io::stdout().lock().flush();
    Ok(0)
}
