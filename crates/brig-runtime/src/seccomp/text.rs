//! Reads the text form of a profile: blocks of names below a line that says what is done with them, and when.

use crate::error::Error;
use brig_spec::runtime::{LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

/// The rule of one block, or of all that allow their calls without a condition: that keeps the filter small.
#[derive(Debug)]
pub(super) struct Rule<'t> {
    /// What becomes of the calls.
    pub action: LinuxSeccompAction,
    /// The error that it gives.
    pub errno: Option<u32>,
    /// Tests of arguments that decide whether the rule is meant.
    pub tests: Vec<LinuxSeccompArg>,
    /// The lines with their names.
    lines: Vec<&'t str>,
}

impl<'t> Rule<'t> {
    /// The names of the calls.
    pub fn names(&self) -> impl Iterator<Item = &'t str> {
        self.lines.iter().flat_map(|line| line.split_ascii_whitespace())
    }

    fn is_plain(&self) -> bool {
        self.tests.is_empty() && self.errno.is_none()
    }
}

/// Reads the rules of a profile that hold for a container with these capabilities, on a processor with these names.
pub(super) fn read<'t>(
    text: &'t str,
    has_capability: impl Fn(&str) -> bool,
    arches: &[&str],
) -> Result<Vec<Rule<'t>>, Error> {
    let mut rules: Vec<Rule<'t>> = Vec::with_capacity(64);
    // Where the names that come belong; nowhere when their block does not hold.
    let mut place = None;
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            if let Some(at) = place.ok_or_else(|| bad(line))? {
                let rule: &mut Rule<'t> = &mut rules[at];
                rule.lines.push(line);
            }
            continue;
        }
        let (rule, holds) = read_head(line, &has_capability, arches)?;
        place = Some(None);
        if holds {
            let same =
                rules.iter().position(|other| other.is_plain() && rule.is_plain() && other.action == rule.action);
            place = Some(Some(same.unwrap_or(rules.len())));
            if same.is_none() {
                rules.push(rule);
            }
        }
    }
    Ok(rules)
}

fn bad(line: &str) -> Error {
    Error::invalid("read a seccomp profile", format!("`{line}` is no line of one"))
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// Reads the line above the names, and says whether its conditions hold.
fn read_head<'t>(
    line: &str,
    has_capability: &impl Fn(&str) -> bool,
    arches: &[&str],
) -> Result<(Rule<'t>, bool), Error> {
    let new = |action, errno| Rule { action, errno, tests: Vec::new(), lines: Vec::new() };
    let wrong = || bad(line);
    let mut words = line.split_ascii_whitespace().peekable();
    let mut holds = true;
    let mut head = match words.next() {
        Some("allow") => new(LinuxSeccompAction::Allow, None),
        Some("errno") => {
            let errno = words.next().and_then(|w| w.parse().ok()).ok_or_else(wrong)?;
            new(LinuxSeccompAction::Errno, Some(errno))
        }
        _ => return Err(wrong()),
    };
    while let Some(word) = words.next() {
        if word == "when" {
            let index = words
                .next()
                .and_then(|w| w.strip_prefix("arg"))
                .and_then(|w| w.parse::<usize>().ok())
                .ok_or_else(wrong)?;
            let operator = words.next().ok_or_else(wrong)?;
            let value = words.next().and_then(number).ok_or_else(wrong)?;
            let (op, value_two) = match operator {
                "==" => (LinuxSeccompOperator::Eq, None),
                "<" => (LinuxSeccompOperator::Lt, None),
                "&" => {
                    let equal = words.next() == Some("==");
                    let wanted = words.next().and_then(number).filter(|_| equal).ok_or_else(wrong)?;
                    (LinuxSeccompOperator::MaskedEq, Some(wanted))
                }
                _ => return Err(wrong()),
            };
            head.tests.push(LinuxSeccompArg { index, value, value_two, op });
            continue;
        }
        let kind = words.next().ok_or_else(wrong)?;
        let mut found = false;
        while let Some(name) = words.next_if(|w| !matches!(*w, "when" | "if" | "unless")) {
            found |= match kind {
                "cap" => has_capability(name),
                "arch" => arches.contains(&name),
                _ => return Err(wrong()),
            };
        }
        match word {
            "if" => holds &= found,
            "unless" => holds &= !found,
            _ => return Err(wrong()),
        }
    }
    Ok((head, holds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'t>(rule: &Rule<'t>) -> Vec<&'t str> {
        rule.names().collect()
    }

    #[test]
    fn blocks_are_read_with_their_conditions() {
        let text = "allow\n    read\nallow\n    write\n    pipe dup\nerrno 38 unless cap CAP_A\n    x\nallow when arg1 & 0xf == 2 if arch arm\n    y\n";
        let rules = read(text, |_| false, &["arm"]).unwrap();
        assert_eq!(names(&rules[0]), ["read", "write", "pipe", "dup"]);
        assert_eq!((rules[1].errno, names(&rules[1])), (Some(38), vec!["x"]));
        assert_eq!((rules[2].tests[0].value_two, names(&rules[2])), (Some(2), vec!["y"]));
        assert_eq!(read(text, |name| name == "CAP_A", &[]).unwrap().len(), 1);
    }

    #[test]
    fn a_malformed_line_is_named() {
        for text in [
            "    read",
            "deny\n",
            "allow when\n",
            "allow if\n",
            "errno x\n",
            "allow when arg0 ? 1\n",
            "allow if moon a\n",
        ] {
            let error = read(text, |_| false, &[]).unwrap_err();
            assert!(error.to_string().contains("seccomp profile"), "{error}");
        }
    }
}
