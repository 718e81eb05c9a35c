//! The lexer of the command line: options in any place, one or two dashes, `=` or a space before the value, as callers of OCI
//! runtimes have always written them.

use crate::failure::Failure;

/// One option that a command takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opt {
    /// The long name, without dashes.
    pub name: &'static str,
    /// The short name, or a NUL byte for none.
    pub short: char,
    /// Whether a value follows.
    pub value: bool,
    /// What it is for, in a line.
    pub help: &'static str,
}

/// An option without a value.
pub(crate) const fn flag(name: &'static str, short: char, help: &'static str) -> Opt {
    Opt { name, short, value: false, help }
}

/// An option with a value.
pub(crate) const fn value(name: &'static str, short: char, help: &'static str) -> Opt {
    Opt { name, short, value: true, help }
}

/// Where the options end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Only at `--`.
    Never,
    /// After this many operands: what follows belongs to another program.
    After(usize),
}

/// What was typed.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    options: Vec<(&'static str, String)>,
    /// What is no option, in order.
    pub operands: Vec<String>,
}

impl Parsed {
    /// The last value of an option.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// The last value of an option, unless it is empty.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.value(name).filter(|v| !v.is_empty())
    }

    /// All values of an option, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// Says whether a flag is set.
    pub fn has(&self, name: &str) -> bool {
        self.value(name) == Some("true")
    }

    /// The value of an option as a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.filled(name)
            .map(|v| v.parse().map_err(|_| Failure::new(format!("invalid value {v:?} for flag -{name}: not a number"))))
            .transpose()
    }
}

/// Sorts `words` into options and operands.
pub(crate) fn parse(words: &[String], options: &[Opt], ends: Ends) -> Result<Parsed, Failure> {
    let mut parsed = Parsed::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if matches!(ends, Ends::After(most) if parsed.operands.len() >= most) {
            parsed.operands.push(word.clone());
            parsed.operands.extend(words.cloned());
            break;
        }
        if word == "--" {
            parsed.operands.extend(words.cloned());
            break;
        }
        if word == "-" || !word.starts_with('-') {
            parsed.operands.push(word.clone());
            continue;
        }
        let body = word.trim_start_matches('-');
        let (name, given) = match body.split_once('=') {
            Some((name, given)) => (name, Some(given.to_owned())),
            None => (body, None),
        };
        if let Some(option) = find(options, name) {
            let given = match (option.value, given) {
                (true, Some(given)) => given,
                (true, None) => {
                    let next = words.next().cloned();
                    next.ok_or_else(|| Failure::new(format!("flag needs an argument: -{name}")))?
                }
                (false, given) => boolean(name, given.as_deref())?,
            };
            parsed.options.push((option.name, given));
            continue;
        }
        // `-td`: several flags in one word.
        let several: Option<Vec<_>> = (!word.starts_with("--") && given.is_none())
            .then(|| body.chars().map(|c| options.iter().find(|o| o.short == c && !o.value)).collect())
            .flatten();
        match several {
            Some(several) => parsed.options.extend(several.iter().map(|o| (o.name, "true".to_owned()))),
            None => return Err(Failure::new(format!("flag provided but not defined: -{name}"))),
        }
    }
    Ok(parsed)
}

fn find<'a>(options: &'a [Opt], name: &str) -> Option<&'a Opt> {
    let mut letters = name.chars();
    let short = letters.next().filter(|_| letters.next().is_none());
    options.iter().find(|o| o.name == name || (o.short != '\0' && Some(o.short) == short))
}

fn boolean(name: &str, given: Option<&str>) -> Result<String, Failure> {
    match given {
        None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok("true".into()),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok("false".into()),
        Some(other) => Err(Failure::new(format!("invalid boolean value {other:?} for -{name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [Opt; 3] = [value("bundle", 'b', ""), flag("detach", 'd', ""), flag("tty", 't', "")];

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_stand_anywhere_and_in_every_spelling() {
        for line in ["--bundle /x -d id", "id -b /x --detach", "-bundle=/x id -d=true", "--b=/x id --detach=1"] {
            let parsed = parse(&words(line), &OPTIONS, Ends::Never).unwrap();
            assert_eq!((parsed.value("bundle"), parsed.has("detach")), (Some("/x"), true), "{line}");
            assert_eq!(parsed.operands, ["id"], "{line}");
        }
        let parsed = parse(&words("-td id --detach=false"), &OPTIONS, Ends::Never).unwrap();
        assert!(parsed.has("tty") && !parsed.has("detach"));
    }

    #[test]
    fn what_belongs_to_another_program_is_left_alone() {
        let parsed = parse(&words("-t id ls -d --bundle"), &OPTIONS, Ends::After(2)).unwrap();
        assert_eq!(parsed.operands, ["id", "ls", "-d", "--bundle"]);
        let parsed = parse(&words("id -- -d"), &OPTIONS, Ends::Never).unwrap();
        assert_eq!(parsed.operands, ["id", "-d"]);
    }

    #[test]
    fn mistakes_are_named() {
        let fails = |line: &str| parse(&words(line), &OPTIONS, Ends::Never).unwrap_err().to_string();
        assert_eq!(fails("--nonsense id"), "flag provided but not defined: -nonsense");
        assert_eq!(fails("id --bundle"), "flag needs an argument: -bundle");
        assert_eq!(fails("--tty=perhaps"), "invalid boolean value \"perhaps\" for -tty");
    }
}
