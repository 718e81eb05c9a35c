//! `ps`: lists the processes of a container.

use super::{Command, say};
use crate::arguments::{Ends, Opt, Parsed, value};
use crate::container::Container;
use crate::failure::{Failure, Step};
use crate::global::Global;

const OPTIONS: [Opt; 1] = [value("format", 'f', "table or json (default: table)")];

pub(crate) const COMMAND: Command = Command {
    name: "ps",
    operands: "CONTAINER [PS OPTIONS]",
    about: "list the processes of a container",
    options: &OPTIONS,
    ends: Ends::After(1),
    enters: false,
    run,
};

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let Some((id, words)) = parsed.operands.split_first() else {
        return Err(Failure::new("a container id is needed: at least 1 argument"));
    };
    let pids = Container::load(&global.root, id)?.cgroup()?.pids();
    match parsed.filled("format") {
        Some("json") => say(format!("{}\n", serde_json::json!(pids))),
        None | Some("table") => say(table(&pids, words)?),
        Some(other) => Err(Failure::new(format!("invalid format option: {other:?}"))),
    }
}

/// The lines of the machine's own ps(1) that are about these pids.
fn table(pids: &[i32], words: &[String]) -> Result<String, Failure> {
    let default = ["-ef".to_owned()];
    let words = if words.is_empty() { &default[..] } else { words };
    let output = std::process::Command::new("ps").args(words).output().step(|| "run ps")?;
    if !output.status.success() {
        return Err(Failure::new(format!("ps failed: {}", String::from_utf8_lossy(&output.stderr).trim_end())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading.split_ascii_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| Failure::new("couldn't find PID field in ps output"))?;
    let mut kept = vec![heading];
    kept.extend(lines.filter(|line| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    }));
    Ok(kept.join("\n") + "\n")
}
