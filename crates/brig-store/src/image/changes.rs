//! The commit lock, and what is done to records and names while it is held.
//!
//! ```text
//!   lock ──> change ──> change ──> ... ──> [listing of before + changes] ──> unlock
//!               │ each: begun, done on the disk, noted           │
//!               └ killed or failed in between: not noted ────────┴─> the listing stays of another time: made anew when asked for
//! ```
//!
//! Who changes one image of many writes one file anew, instead of leaving it to the next listing to read them all.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;

use brig_spec::digest::Digest;
use brig_spec::reference::Reference;

use super::lines::{self, Line, title};
use crate::error::Result;
use crate::observe::Observer;
use crate::{Silent, Store, disk};

/// After more changes than this under one lock, the next listing reads everything.
const CHANGES_MAX: usize = 64;

/// One thing that has been done.
#[derive(Debug)]
pub(crate) enum Change {
    /// A record is there, with this line.
    Recorded(Line),
    /// A record is gone.
    Gone(Digest),
    /// A name means this image.
    Named(Reference, Digest),
    /// A name is gone.
    Unnamed(Reference),
}

/// The commit lock, held until this is dropped.
#[derive(Debug)]
pub(crate) struct CommitLock<'a> {
    store: &'a Store,
    /// Records and names as the lock found them; none if nobody knows.
    before: Option<String>,
    changes: RefCell<Changes>,
    _lock: File,
}

#[derive(Debug, Default)]
struct Changes {
    /// Changes that were begun.
    begun: usize,
    /// Those that came to their end, up to [`CHANGES_MAX`].
    done: Vec<Change>,
}

impl Store {
    /// Takes the commit lock, which is held for moments only.
    pub(crate) fn commit_lock(&self, observer: &dyn Observer) -> Result<CommitLock<'_>> {
        let lock = disk::lock_file(&self.root.join("images/.lock"), self.limits.lock_wait, observer, || {})?;
        Ok(CommitLock { store: self, before: self.stamp().ok(), changes: RefCell::default(), _lock: lock })
    }

    /// Takes the commit lock if nobody holds it.
    pub(super) fn commit_lock_now(&self) -> Option<File> {
        disk::lock_file(&self.root.join("images/.lock"), std::time::Duration::ZERO, &Silent, || {}).ok()
    }
}

impl CommitLock<'_> {
    /// Does something to a record or a name, and notes what that was.
    pub(super) fn change<T>(&self, act: impl FnOnce() -> Result<(T, Change)>) -> Result<T> {
        self.changes.borrow_mut().begun += 1;
        let (result, change) = act()?;
        let mut changes = self.changes.borrow_mut();
        if changes.done.len() < CHANGES_MAX {
            changes.done.push(change);
        }
        Ok(result)
    }

    /// Does something of which the listing cannot tell what it means.
    pub(super) fn unknown<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.changes.borrow_mut().begun += 1;
        act()
    }
}

impl Drop for CommitLock<'_> {
    fn drop(&mut self) {
        let changes = self.changes.take();
        if changes.begun == 0 || changes.begun != changes.done.len() {
            return;
        }
        let before = self.before.as_deref().and_then(|stamp| self.store.kept_lines(stamp));
        if let Some(lines) = before.and_then(|lines| apply(lines, &changes.done))
            && let Some(stamp) = self.store.new_stamp()
        {
            self.store.keep_lines(&lines, &stamp);
        }
    }
}

/// Brings a listing up to date; none if names would be left that mean no image.
fn apply(mut lines: Vec<Line>, changes: &[Change]) -> Option<Vec<Line>> {
    let mut dangling: HashSet<(String, String)> = HashSet::new();
    for change in changes {
        match change {
            Change::Recorded(new) => {
                let mut known = false;
                for line in lines.iter_mut().filter(|line| line.id == new.id) {
                    (line.size, line.created) = (new.size, new.created.clone());
                    known = true;
                }
                if !known {
                    lines.push(new.clone());
                }
            }
            Change::Gone(id) => {
                let gone = lines.extract_if(.., |line| line.id == id.hex());
                dangling.extend(gone.filter(|l| !l.repository.is_empty()).map(|l| (l.repository, l.tag)));
            }
            Change::Named(name, id) => {
                unname(&mut lines, &mut dangling, name);
                let at = lines.iter().position(|line| line.id == id.hex())?;
                let line = lines[at].named(name);
                if lines[at].repository.is_empty() { lines[at] = line } else { lines.push(line) }
            }
            Change::Unnamed(name) => unname(&mut lines, &mut dangling, name),
        }
    }
    lines::sort(&mut lines);
    dangling.is_empty().then_some(lines)
}

/// Takes a name away, and leaves an image without a name when it was the last.
fn unname(lines: &mut Vec<Line>, dangling: &mut HashSet<(String, String)>, name: &Reference) {
    let named = title(name);
    if let Some(at) = lines.iter().position(|line| line.repository == named.0 && line.tag == named.1) {
        let line = lines.swap_remove(at);
        if !lines.iter().any(|other| other.id == line.id) {
            lines.push(Line { repository: String::new(), tag: String::new(), ..line });
        }
    }
    dangling.remove(&named);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> Digest {
        Digest::from_sha256_hex(&digit.to_string().repeat(64)).unwrap()
    }

    fn recorded(digit: char) -> Change {
        Change::Recorded(Line::nameless(&id(digit), 7, Some("2026-01-01T00:00:00Z")))
    }

    fn named(name: &str, digit: char) -> Change {
        Change::Named(name.parse().unwrap(), id(digit))
    }

    fn unnamed(name: &str) -> Change {
        Change::Unnamed(name.parse().unwrap())
    }

    fn told(changes: &[Change]) -> Option<Vec<String>> {
        let lines = apply(Vec::new(), changes)?;
        Some(lines.iter().map(|line| format!("{}:{} {}", line.repository, line.tag, &line.id[..1])).collect())
    }

    #[test]
    fn changes_make_the_lines_that_a_reader_would() {
        for (changes, wanted) in [
            (vec![recorded('a')], Some(vec![": a"])),
            (vec![recorded('a'), named("x", 'a')], Some(vec!["x:latest a"])),
            (vec![recorded('a'), named("x", 'a'), named("b:1", 'a')], Some(vec!["b:1 a", "x:latest a"])),
            (vec![recorded('a'), named("x", 'a'), unnamed("x")], Some(vec![": a"])),
            (vec![recorded('a'), named("x", 'a'), unnamed("y")], Some(vec!["x:latest a"])),
            (vec![recorded('a'), recorded('b'), named("x", 'a'), named("x", 'b')], Some(vec![": a", "x:latest b"])),
            (vec![recorded('a'), named("x", 'a'), Change::Gone(id('a')), unnamed("x")], Some(vec![])),
            // A name that is left behind, or points nowhere, may mean something again one day.
            (vec![recorded('a'), named("x", 'a'), Change::Gone(id('a'))], None),
            (vec![named("x", 'a')], None),
        ] {
            let wanted = wanted.map(|lines| lines.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(told(&changes), wanted, "{changes:?}");
        }
    }
}
