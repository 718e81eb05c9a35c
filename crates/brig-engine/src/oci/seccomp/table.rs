//! Reads the text form of a profile: blocks of names below a line that says what is done with them, and when.

use crate::error::{Error, Result};
use brig_spec::runtime::{LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use std::collections::BTreeSet;

/// One block before its names.
struct Head {
    action: LinuxSeccompAction,
    errno: Option<u32>,
    tests: Vec<LinuxSeccompArg>,
    applies: bool,
}

/// Reads a profile for a container with these capabilities, on a processor with these names.
pub fn read(text: &str, capabilities: &BTreeSet<String>, arches: &[&str]) -> Result<Vec<LinuxSyscall>> {
    let mut rules: Vec<LinuxSyscall> = Vec::with_capacity(64);
    let mut head: Option<(Head, Vec<String>)> = None;
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            let (_, names) = head.as_mut().ok_or_else(|| bad(line))?;
            names.extend(line.split_ascii_whitespace().map(str::to_owned));
        } else {
            finish(head.take(), &mut rules);
            head = Some((read_head(line, capabilities, arches)?, Vec::new()));
        }
    }
    finish(head, &mut rules);
    Ok(rules)
}

/// Adds a block's rule; consecutive unconditional ones become one, which keeps the filter small.
fn finish(block: Option<(Head, Vec<String>)>, rules: &mut Vec<LinuxSyscall>) {
    let Some((head, names)) = block else { return };
    if !head.applies || names.is_empty() {
        return;
    }
    if head.tests.is_empty() && head.errno.is_none() {
        let plain = |r: &&mut LinuxSyscall| r.args.is_empty() && r.action == head.action && r.errno_ret.is_none();
        if let Some(rule) = rules.iter_mut().find(plain) {
            rule.names.extend(names);
            return;
        }
    }
    rules.push(LinuxSyscall { names, action: head.action, errno_ret: head.errno, args: head.tests });
}

fn bad(line: &str) -> Error {
    Error::invalid(format!("`{line}` is not a line of a seccomp profile"))
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn read_head(line: &str, capabilities: &BTreeSet<String>, arches: &[&str]) -> Result<Head> {
    let wrong = || bad(line);
    let mut words = line.split_ascii_whitespace().peekable();
    let mut head = match words.next() {
        Some("allow") => Head { action: LinuxSeccompAction::Allow, errno: None, tests: Vec::new(), applies: true },
        Some("errno") => {
            let errno = words.next().and_then(|w| w.parse().ok()).ok_or_else(wrong)?;
            Head { action: LinuxSeccompAction::Errno, errno: Some(errno), tests: Vec::new(), applies: true }
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
                "cap" => capabilities.contains(name),
                "arch" => arches.contains(&name),
                _ => return Err(wrong()),
            };
        }
        match word {
            "if" => head.applies &= found,
            "unless" => head.applies &= !found,
            _ => return Err(wrong()),
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_with_their_conditions() {
        let text = "allow\n    read\nallow\n    write\nerrno 38 unless cap CAP_A\n    x\nallow when arg1 & 0xf == 2 if arch arm\n    y\n";
        let rules = read(text, &BTreeSet::new(), &["arm"]).unwrap();
        assert_eq!(rules[0].names, ["read", "write"]);
        assert_eq!(rules[1].errno_ret, Some(38));
        assert_eq!(rules[2].args[0].value_two, Some(2));
        assert_eq!(read(text, &BTreeSet::from(["CAP_A".to_owned()]), &[]).unwrap().len(), 1);
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
            assert!(read(text, &BTreeSet::new(), &[]).is_err(), "{text}");
        }
    }
}
