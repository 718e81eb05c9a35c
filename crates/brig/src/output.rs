//! Listings: tables, `--format` templates, `-q`, and times and sizes in words.
//!
//! A listing is a list of JSON objects whose keys are the words that Docker's templates use, and a default table of columns.

use brig_engine::{Error, Result};
use gotmpl::Value as Go;
use serde_json::{Map, Value};
use std::io::Write;

/// One row of a listing: its fields by name.
pub type Row = Map<String, Value>;

/// A column of a table: its heading, and the field that it shows.
pub type Column = (&'static str, &'static str);

/// Writes text to standard output; a reader that went away ends the program's output, not the program.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a line to standard output.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Prints a listing as `--format` says, or as a table of `columns`.
pub fn listing(rows: &[Row], columns: &[Column], headings: &[Column], format: Option<&str>) -> Result<()> {
    print(&render(rows, columns, headings, format)?);
    Ok(())
}

/// Makes the text of a listing. `headings` are the headings of fields that only templates show.
fn render(rows: &[Row], columns: &[Column], headings: &[Column], format: Option<&str>) -> Result<String> {
    match format {
        None | Some("" | "table") => {
            let mut cells = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect::<Vec<_>>()];
            cells.extend(rows.iter().map(|row| columns.iter().map(|(_, field)| text(row.get(*field))).collect()));
            Ok(align(&cells))
        }
        Some("json") => rows.iter().map(|row| Ok(format!("{}\n", Value::Object(row.clone())))).collect(),
        Some(template) => {
            let (template, table) = template.strip_prefix("table ").map_or((template, false), |t| (t, true));
            let template = unescape(template);
            let mut lines = Vec::with_capacity(rows.len() + 1);
            if table {
                let heads = columns.iter().chain(headings);
                let heads: Row = heads.map(|(heading, field)| ((*field).to_owned(), Value::from(*heading))).collect();
                lines.push(execute(&template, &Value::Object(heads))?);
            }
            for row in rows {
                lines.push(execute(&template, &Value::Object(row.clone()))?);
            }
            if !table {
                return Ok(lines.into_iter().map(|line| line + "\n").collect());
            }
            let cells: Vec<Vec<String>> = lines.iter().map(|l| l.split('\t').map(str::to_owned).collect()).collect();
            Ok(align(&cells))
        }
    }
}

/// The two escapes that people write in a shell.
fn unescape(template: &str) -> String {
    template.replace("\\t", "\t").replace("\\n", "\n")
}

/// The text of a table's cell; what a container has named does not drive the reader's terminal.
fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => crate::report::clean(text),
        Some(other) => other.to_string(),
    }
}

/// Prints cells as a table, the first row being the headings.
pub fn table(rows: &[Vec<String>]) {
    print(&align(rows));
}

/// Puts cells into columns three blanks apart, as Docker does.
fn align(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (n, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(n) {
                Some(known) => *known = (*known).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (n, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if n + 1 < row.len() {
                let pad = widths[n] + 3 - cell.chars().count();
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Executes a Go template on a value, with the functions that Docker adds.
pub fn execute(template: &str, data: &Value) -> Result<String> {
    let failed = |error: gotmpl::TemplateError| {
        Error::invalid("cannot use the template of `--format`")
            .because(error)
            .hint("`--format json` shows what fields there are")
    };
    let string = |args: &[Go], n: usize| args.get(n).map(go_text).unwrap_or_default();
    let parsed = gotmpl::Template::new("format")
        .missing_key(gotmpl::MissingKey::Error)
        .func("json", |args| Ok(Go::String(args.first().map(to_json).unwrap_or_default().to_string().into())))
        .func("upper", move |args| Ok(Go::String(string(args, 0).to_uppercase().into())))
        .func("lower", move |args| Ok(Go::String(string(args, 0).to_lowercase().into())))
        .func("title", move |args| {
            let text = string(args, 0);
            let mut chars = text.chars();
            let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
            Ok(Go::String((first + chars.as_str()).into()))
        })
        .func("split", move |args| {
            let (text, by) = (string(args, 0), string(args, 1));
            Ok(Go::List(text.split(by.as_str()).map(|p| Go::String(p.into())).collect::<Vec<_>>().into()))
        })
        .func("join", move |args| {
            let by = string(args, 1);
            let parts: Vec<String> = match args.first() {
                Some(Go::List(list)) => list.iter().map(go_text).collect(),
                _ => Vec::new(),
            };
            Ok(Go::String(parts.join(&by).into()))
        })
        .func("truncate", move |args| {
            let length = args.get(1).and_then(Go::as_int).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            Ok(Go::String(string(args, 0).chars().take(length).collect::<String>().into()))
        })
        .parse(template)
        .map_err(failed)?;
    let data = gotmpl::to_value(data).map_err(failed)?;
    parsed.execute_to_string(&data).map_err(failed)
}

fn go_text(value: &Go) -> String {
    match value {
        Go::String(text) => text.to_string(),
        other => to_json(other).to_string(),
    }
}

fn to_json(value: &Go) -> Value {
    match value {
        Go::Bool(b) => Value::from(*b),
        Go::Int(n) => Value::from(*n),
        Go::Uint(n) => Value::from(*n),
        Go::Float(n) => Value::from(*n),
        Go::String(s) => Value::from(s.to_string()),
        Go::List(list) => Value::Array(list.iter().map(to_json).collect()),
        Go::Map(map) => Value::Object(map.iter().map(|(k, v)| (k.to_string(), to_json(v))).collect()),
        _ => Value::Null,
    }
}

/// A time span in words, as Docker says it: `About a minute`, `3 hours`.
pub fn span(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours <= 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago a time (nanoseconds since 1970) was, in words.
pub fn ago(ns: u64) -> String {
    if ns == 0 {
        return "N/A".into();
    }
    format!("{} ago", span(since(ns)))
}

/// Seconds from a time (nanoseconds since 1970) until now.
pub fn since(ns: u64) -> u64 {
    brig_monitor::state::now_ns().saturating_sub(ns) / 1_000_000_000
}

/// A size in powers of 1000 with three digits: `77.9MB`, as listings of images show it.
pub fn decimal_size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], 3)
}

/// A size in powers of 1024 with four digits: `63.45MiB`, as memory is shown.
pub fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    // As Go's %.3g and %.4g: so many digits in all, no zeros at the end.
    let whole = if value < 10.0 {
        1
    } else if value < 100.0 {
        2
    } else if value < 1000.0 {
        3
    } else {
        4
    };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// Cuts a text to a width, with an ellipsis.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Filters as `--filter key=value` writes them.
#[derive(Debug, Default)]
pub struct Filters(Vec<(String, String)>);

impl Filters {
    /// Reads filters, of which only `known` keys are accepted.
    pub fn parse(list: &[String], known: &[&str]) -> Result<Self> {
        let mut all = Vec::new();
        for text in list {
            let (key, value) =
                text.split_once('=').ok_or_else(|| Error::invalid(format!("`{text}` is not of the form KEY=VALUE")))?;
            if !known.contains(&key) {
                return Err(
                    Error::invalid(format!("`{key}` is not a filter")).hint(format!("known are {}", known.join(", ")))
                );
            }
            all.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self(all))
    }

    /// The pairs of key and value; `KEY!=VALUE` has the key `KEY!`.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Says whether an object passes: for each key that is named, one of its values must fit.
    pub fn pass(&self, fits: impl Fn(&str, &str) -> bool) -> bool {
        self.0.iter().all(|(key, _)| self.0.iter().any(|(k, v)| k == key && fits(k, v)))
    }

    /// Says whether a key is named.
    pub fn names(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }
}

/// Says whether labels fit a filter `KEY` or `KEY=VALUE`.
pub fn label_fits(labels: &std::collections::BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows() -> Vec<Row> {
        let row = |name: &str, id: &str| match json!({"Names": name, "ID": id}) {
            Value::Object(map) => map,
            _ => unreachable!(),
        };
        vec![row("web", "1"), row("database", "22")]
    }

    const COLUMNS: [Column; 2] = [("CONTAINER ID", "ID"), ("NAMES", "Names")];

    #[test]
    fn tables_and_templates() {
        let of = |format| render(&rows(), &COLUMNS, &[], format).unwrap();
        assert_eq!(of(None), "CONTAINER ID   NAMES\n1              web\n22             database\n");
        assert_eq!(of(Some("{{.Names}}:{{.ID}}")), "web:1\ndatabase:22\n");
        assert_eq!(of(Some("table {{.Names}}\\t{{.ID}}")), "NAMES      CONTAINER ID\nweb        1\ndatabase   22\n");
        assert_eq!(of(Some("{{json .Names}}")), "\"web\"\n\"database\"\n");
        assert_eq!(of(Some("json")).lines().count(), 2);
        assert!(render(&rows(), &COLUMNS, &[], Some("{{.Nope}}")).is_err());
        assert!(render(&rows(), &COLUMNS, &[], Some("{{")).is_err());
    }

    #[test]
    fn templates_have_dockers_functions() {
        let data = json!({"A": {"B": [1, 2]}, "S": "a,b", "L": ["x", "y"], "N": null});
        for (template, expected) in [
            ("{{json .A}}", r#"{"B":[1,2]}"#),
            ("{{range .A.B}}<{{.}}>{{end}}", "<1><2>"),
            ("{{join .L \"-\"}}", "x-y"),
            ("{{index (split .S \",\") 1}}", "b"),
            ("{{upper .S}} {{title .S}}", "A,B A,b"),
            ("{{with .N}}x{{else}}y{{end}}", "y"),
            ("{{truncate .S 1}}", "a"),
        ] {
            assert_eq!(execute(template, &data).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn spans_in_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (600, "10 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (200_000, "2 days"),
            (2_000_000, "3 weeks"),
            (9_000_000, "3 months"),
            (99_000_000, "3 years"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn sizes_in_words() {
        assert_eq!(decimal_size(77_900_000), "77.9MB");
        assert_eq!(decimal_size(0), "0B");
        assert_eq!(decimal_size(1_240_000), "1.24MB");
        assert_eq!(binary_size(64 << 20), "64MiB");
        assert_eq!(binary_size(1536), "1.5KiB");
    }

    #[test]
    fn filters_of_one_key_are_alternatives() {
        let filters =
            Filters::parse(&["name=a".into(), "name=b".into(), "status=up".into()], &["name", "status"]).unwrap();
        assert!(filters.pass(|k, v| k == "status" || v == "b"));
        assert!(!filters.pass(|k, v| k == "name" && v == "a"));
        assert!(Filters::parse(&["moon=a".into()], &["name"]).is_err());
        assert!(Filters::parse(&["name".into()], &["name"]).is_err());
    }
}
