//! What criu's log says about a failure: its errors, each with the lines before it.

use crate::failure::Failure;
use crate::log::Log;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of the end of a log is looked at, bytes.
const MOST: u64 = 1 << 20;
/// How many lines before an error are shown.
const BEFORE: usize = 5;
/// How many lines are shown at most: the last ones say what it came to.
const LINES: usize = 40;
/// How many errors the failure itself repeats.
const SAID: usize = 3;

/// Adds to a failure of criu what its log has to say.
pub(crate) fn explain(log: &Log, path: &Path, failure: Failure) -> Failure {
    match errors(log, path) {
        Some(errors) => Failure::new(format!("{failure}: {errors} (log file: {})", path.display())),
        None => failure,
    }
}

/// Repeats the errors of criu's log as warnings, and returns the last few of them in one line.
fn errors(log: &Log, path: &Path) -> Option<String> {
    let text = match tail(path) {
        Ok(text) => text,
        Err(error) => {
            log.warning(&format!("criu's log {}: {error}", path.display()));
            return None;
        }
    };
    let (shown, errors) = pick(&text);
    if !shown.is_empty() {
        log.warning(&format!("from criu's log {}:", path.display()));
        shown.iter().for_each(|line| log.warning(line));
    }
    let few = errors.len().saturating_sub(SAID);
    (!errors.is_empty()).then(|| errors[few..].join("; "))
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the lines that are shown, and the errors among them.
fn pick(text: &str) -> (Vec<String>, Vec<&str>) {
    let lines: Vec<&str> = text.lines().collect();
    let (mut shown, mut next, mut errors) = (Vec::new(), 0, Vec::new());
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("Error")) {
        // In front stand seconds in parentheses.
        errors.push(line.split_once(") ").filter(|(time, _)| time.starts_with('(')).map_or(*line, |(_, rest)| rest));
        let from = next.max(at.saturating_sub(BEFORE));
        if next > 0 && from > next {
            shown.push("...".to_owned());
        }
        shown.extend(lines[from..=at].iter().map(|line| (*line).to_owned()));
        next = at + 1;
    }
    // Without any error the end has to say it.
    if errors.is_empty() {
        shown.extend(lines[lines.len().saturating_sub(BEFORE)..].iter().map(|line| (*line).to_owned()));
    }
    let cut = shown.len().saturating_sub(LINES);
    shown.drain(..cut);
    (shown, errors)
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn errors_come_with_what_led_to_them() {
        let mut text: Vec<String> = (0..30).map(|n| format!("line {n}")).collect();
        text[8] = "(00.001) Error (a.c:1): first".into();
        text[10] = "Error (a.c:2): second".into();
        text[29] = "Error (b.c:3): third".into();
        let joined = text.join("\n");
        let (shown, errors) = pick(&joined);
        assert_eq!(errors, ["Error (a.c:1): first", "Error (a.c:2): second", "Error (b.c:3): third"]);
        let expected: Vec<&str> = text[3..=10].iter().map(String::as_str).chain(["..."]).collect();
        assert_eq!(shown[..9], expected);
        assert_eq!(shown[9..], text[24..30]);
    }

    #[test]
    fn a_log_without_errors_shows_its_end() {
        let (shown, errors) = pick("a\nb\nc\nd\ne\nf\n");
        assert_eq!((shown.join(""), errors.len()), ("bcdef".to_owned(), 0));
        assert_eq!(pick(""), (Vec::new(), Vec::new()));
        assert_eq!(pick(&"Error\n".repeat(500)).0.len(), 40);
    }
}
