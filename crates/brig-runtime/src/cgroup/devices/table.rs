//! The device table of a v1 cgroup, as the kernel keeps it: what counts by default, and exceptions from it.
//!
//! The kernel shows the exceptions of a table that refuses by default, and nothing of one that allows by default. From the
//! table in force and the wanted one follow the fewest writes: a device that both allow stays allowed throughout.

use super::{MKNOD, READ, Rule, WRITE};
use crate::error::Error;
use std::collections::BTreeMap;

/// The devices that an exception is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    block: bool,
    major: Option<u32>,
    minor: Option<u32>,
}

/// A table of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    allow: bool,
    exceptions: BTreeMap<Key, u8>,
    /// Whether exceptions may be in force that were not told.
    hidden: bool,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Into `devices.allow`, or `devices.deny`.
    pub(super) allow: bool,
    /// What is written.
    pub(super) line: String,
}

impl Table {
    /// A table of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self { allow: true, exceptions: BTreeMap::new(), hidden: true }
    }

    /// Whether what no exception is about is allowed.
    pub(super) fn allows_by_default(&self) -> bool {
        self.allow
    }

    /// Builds the table that rules make, one after the other, from a table that refuses everything. Errors: a rule takes
    /// back a part of what one before allowed as a whole, which the kernel cannot express and would silently not do.
    pub(super) fn of(rules: &[Rule]) -> Result<Self, Error> {
        let mut table = Self { allow: false, exceptions: BTreeMap::new(), hidden: false };
        for rule in rules {
            if rule.is_whole() {
                table = Self { allow: rule.allow, exceptions: BTreeMap::new(), hidden: false };
                continue;
            }
            let kinds: &[bool] = rule.block.as_ref().map_or(&[false, true], std::slice::from_ref);
            for block in kinds {
                table.apply(Key { block: *block, major: rule.major, minor: rule.minor }, rule)?;
            }
        }
        Ok(table)
    }

    fn apply(&mut self, key: Key, rule: &Rule) -> Result<(), Error> {
        if rule.allow != self.allow {
            *self.exceptions.entry(key).or_default() |= rule.access;
            return Ok(());
        }
        for wider in [Key { major: None, ..key }, Key { minor: None, ..key }, Key { major: None, minor: None, ..key }] {
            if wider != key && self.exceptions.get(&wider).is_some_and(|access| access & rule.access != 0) {
                let (rule, wider) = (line(key, rule.access), line(wider, self.exceptions[&wider]));
                return Err(Error::invalid(
                    "control the devices",
                    format!("the rule `{rule}` makes a hole in the rule `{wider}`, which cgroup v1 cannot express"),
                ));
            }
        }
        if let Some(access) = self.exceptions.get_mut(&key) {
            *access &= !rule.access;
            if *access == 0 {
                self.exceptions.remove(&key);
            }
        }
        Ok(())
    }

    /// Reads `devices.list`.
    pub(super) fn parse(list: &str) -> Self {
        let mut table = Self { allow: false, exceptions: BTreeMap::new(), hidden: false };
        for text in list.lines() {
            let mut words = text.split([' ', ':']);
            let (Some(kind), Some(major), Some(minor), Some(access)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Self::unknown();
            };
            let number = |text: &str| if text == "*" { Ok(None) } else { text.parse().map(Some) };
            let (block, Ok(major), Ok(minor)) = (kind == "b", number(major), number(minor)) else {
                return Self::unknown();
            };
            if !matches!(kind, "b" | "c") {
                return Self::unknown();
            }
            let bit = |letter, bit| if access.contains(letter) { bit } else { 0 };
            let access = bit('r', READ) | bit('w', WRITE) | bit('m', MKNOD);
            *table.exceptions.entry(Key { block, major, minor }).or_default() |= access;
        }
        table
    }

    /// Lists the exceptions as the pairs of systemd's `DeviceAllow`; devices of any major number it has no word for.
    pub(super) fn units(&self) -> Vec<(String, String)> {
        let pair = |(key, access): (&Key, &u8)| {
            let kind = if key.block { "block" } else { "char" };
            let name = match (key.major, key.minor) {
                (None, None) => format!("{kind}-*"),
                (Some(major), None) => format!("{kind}-{major}"),
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (None, Some(_)) => return None,
            };
            Some((name, letters(*access)))
        };
        self.exceptions.iter().filter_map(pair).collect()
    }

    /// Lists the writes that turn this table into `target`.
    pub(super) fn changes_to(&self, target: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let none = BTreeMap::new();
        let present = if self.hidden || self.allow != target.allow {
            changes.push(Change { allow: target.allow, line: "a".into() });
            &none
        } else {
            &self.exceptions
        };
        let missing = |from: &BTreeMap<Key, u8>, key: &Key, access: u8| access & !from.get(key).copied().unwrap_or(0);
        // First what goes, so that at no time both tables' exceptions count together.
        for (key, access) in present {
            let gone = missing(&target.exceptions, key, *access);
            if gone != 0 {
                changes.push(Change { allow: target.allow, line: line(*key, gone) });
            }
        }
        for (key, access) in &target.exceptions {
            let come = missing(present, key, *access);
            if come != 0 {
                changes.push(Change { allow: !target.allow, line: line(*key, come) });
            }
        }
        changes
    }
}

fn letters(access: u8) -> String {
    [('r', READ), ('w', WRITE), ('m', MKNOD)].iter().filter(|(_, bit)| access & bit != 0).map(|(l, _)| l).collect()
}

/// Writes an exception as the kernel reads it: `c 1:3 rwm`.
fn line(key: Key, access: u8) -> String {
    let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
    let kind = if key.block { 'b' } else { 'c' };
    format!("{kind} {}:{} {}", number(key.major), number(key.minor), letters(access))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(json: &str) -> Result<Table, String> {
        let rules: Vec<brig_spec::runtime::LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let rules: Vec<Rule> = rules.iter().map(|r| Rule::parse(r).unwrap()).collect();
        Table::of(&rules).map_err(|error| error.source.to_string())
    }

    fn changes(from: &Table, to: &str) -> Vec<String> {
        let changes = from.changes_to(&table(to).unwrap());
        changes.into_iter().map(|c| format!("{} {}", if c.allow { "allow" } else { "deny" }, c.line)).collect()
    }

    const DENY: &str = r#"{"allow":false,"access":"rwm"}"#;

    #[test]
    fn a_new_cgroup_is_closed_and_then_opened_for_each_device() {
        let rules = format!(
            r#"[{DENY},{{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}},
               {{"allow":true,"type":"b","major":8}},{{"allow":true,"type":"c","major":1,"minor":3,"access":"m"}}]"#
        );
        assert_eq!(changes(&Table::unknown(), &rules), ["deny a", "allow c 1:3 rwm", "allow b 8:* rwm"]);
        assert_eq!(changes(&Table::unknown(), r#"[{"allow":true,"access":"rwm"}]"#), ["allow a"]);
        let but = r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":10,"minor":200,"access":"w"}]"#;
        assert_eq!(changes(&Table::unknown(), but), ["allow a", "deny c 10:200 w"]);
        assert_eq!(
            changes(&Table::unknown(), r#"[{"allow":true,"major":7,"minor":1,"access":"r"}]"#),
            ["deny a", "allow c 7:1 r", "allow b 7:1 r"]
        );
    }

    #[test]
    fn systemd_has_words_for_most_exceptions() {
        let rules = r#"[{"allow":true,"type":"c","access":"m"},{"allow":true,"type":"c","major":136,"access":"rw"},
            {"allow":true,"type":"b","major":8,"minor":1},{"allow":true,"type":"b","minor":1,"access":"r"}]"#;
        let units = table(rules).unwrap().units();
        let words: Vec<String> = units.into_iter().map(|(device, access)| format!("{device} {access}")).collect();
        assert_eq!(words, ["char-* m", "char-136 rw", "/dev/block/8:1 rwm"]);
    }

    #[test]
    fn only_differences_are_written() {
        let present = Table::parse("c 1:3 rwm\nc 136:* rw\nb 8:0 r\n");
        let same = r#"[{"allow":true,"type":"c","major":1,"minor":3},{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},
            {"allow":true,"type":"c","major":136,"access":"rw"}]"#;
        assert_eq!(changes(&present, same), [""; 0]);
        let less = r#"[{"allow":true,"type":"c","major":1,"minor":3,"access":"r"},{"allow":true,"type":"c","major":5,"minor":0}]"#;
        assert_eq!(changes(&present, less), ["deny c 1:3 wm", "deny c 136:* rw", "deny b 8:0 r", "allow c 5:0 rwm"]);
        // What a table that allows by default excepts is not shown, so it begins anew.
        assert_eq!(
            changes(&Table::parse("a *:* rwm\n"), r#"[{"allow":true,"type":"c","major":1,"minor":3}]"#),
            ["deny a", "allow c 1:3 rwm"]
        );
    }

    #[test]
    fn a_hole_in_a_wider_rule_is_an_error() {
        let holes =
            r#"[{"allow":true,"type":"c","major":136},{"allow":false,"type":"c","major":136,"minor":7,"access":"w"}]"#;
        let error = table(holes).unwrap_err();
        assert!(error.contains("`c 136:7 w`") && error.contains("`c 136:* rwm`"), "{error}");
        let other_access = r#"[{"allow":true,"type":"c","access":"m"},{"allow":true,"type":"c","major":1,"minor":3},
            {"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]"#;
        assert_eq!(changes(&Table::unknown(), other_access), ["deny a", "allow c *:* m", "allow c 1:3 rm"]);
    }
}
