//! A path is walked part by part through symbolic links: the rules, without knowing where the links are read.
//!
//! ```text
//!   pending: a / b / c     next() -> a     the caller looks: a directory        enter  -> resolved: a
//!            b / c         next() -> a/b   a link to ../x                       follow -> pending: .. / x / c
//!            x / c         next() -> x ...
//! ```
//!
//! A link climbs no higher than the root, and a path leads through no more than [`LINKS_MAX`] of them.

use std::collections::VecDeque;

use super::{Fault, join, split};

/// The most symbolic links that one path may lead through, as the kernel has it.
const LINKS_MAX: usize = 40;

/// A walk along one path.
pub(super) struct Walk<'p> {
    path: &'p [u8],
    resolved: Vec<u8>,
    pending: VecDeque<Vec<u8>>,
    links: usize,
}

/// Where a walk comes to next.
pub(super) struct Step {
    /// The directory in which the name lies, resolved.
    pub(super) parent: Vec<u8>,
    /// The name.
    pub(super) name: Vec<u8>,
    /// Both of them as one path.
    pub(super) path: Vec<u8>,
}

impl<'p> Walk<'p> {
    pub(super) fn new(path: &'p [u8]) -> Self {
        Self { path, resolved: Vec::new(), pending: parts(path).collect(), links: 0 }
    }

    /// Returns the next place to look at; `None` at the end. Answer with [`Self::enter`] or [`Self::follow`].
    pub(super) fn next(&mut self) -> Result<Option<Step>, Fault> {
        while let Some(name) = self.pending.pop_front() {
            match name.as_slice() {
                b"" | b"." => {}
                b".." if self.resolved.is_empty() => {
                    return Err(Fault::path(self.path, "a symbolic link on the way climbs above the root"));
                }
                b".." => self.resolved = split(&self.resolved).0.to_vec(),
                _ => {
                    let path = join(&self.resolved, &name);
                    return Ok(Some(Step { parent: self.resolved.clone(), name, path }));
                }
            }
        }
        Ok(None)
    }

    /// The place is no link: the walk goes on below it.
    pub(super) fn enter(&mut self, step: Step) {
        self.resolved = step.path;
    }

    /// The place is a link with this target.
    pub(super) fn follow(&mut self, target: &[u8]) -> Result<(), Fault> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Fault::path(self.path, "it leads through too many symbolic links"));
        }
        if target.starts_with(b"/") {
            self.resolved.clear();
        }
        for part in parts(target).rev() {
            self.pending.push_front(part);
        }
        Ok(())
    }

    /// Returns where the walk has come to: a path without links.
    pub(super) fn end(self) -> Vec<u8> {
        self.resolved
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|b| *b == b'/').map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Walks where the links are those of a table.
    fn walk(path: &str, links: &[(&str, &str)]) -> Result<String, Fault> {
        let links: BTreeMap<&[u8], &[u8]> = links.iter().map(|(a, b)| (a.as_bytes(), b.as_bytes())).collect();
        let mut walk = Walk::new(path.as_bytes());
        while let Some(step) = walk.next()? {
            assert_eq!(step.path, join(&step.parent, &step.name));
            match links.get(step.path.as_slice()) {
                Some(target) => walk.follow(target)?,
                None => walk.enter(step),
            }
        }
        Ok(String::from_utf8(walk.end()).unwrap())
    }

    #[test]
    fn links_lead_where_the_kernel_would_go() {
        let links = [("lib", "usr/lib"), ("a/up", "../b/./c"), ("abs", "/usr//lib"), ("b/c/deep", "../..")];
        for (path, end) in [
            ("lib/x", "usr/lib/x"),
            ("a/up/z", "b/c/z"),
            ("b/abs", "b/abs"),
            ("abs/y", "usr/lib/y"),
            ("a/up/deep/lib", "usr/lib"),
            ("", ""),
        ] {
            assert_eq!(walk(path, &links).unwrap(), end, "{path}");
        }
    }

    #[test]
    fn climbing_and_loops_are_refused() {
        assert!(walk("x/y", &[("x", "..")]).is_err());
        assert!(walk("x", &[("x", "a/../../b")]).is_err());
        assert!(walk("x", &[("x", "y"), ("y", "x")]).is_err());
        let chain: Vec<(String, String)> = (0..41).map(|n| (format!("l{n}"), format!("l{}", n + 1))).collect();
        let chain: Vec<(&str, &str)> = chain.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(walk("l1", &chain).unwrap(), "l41");
        assert!(walk("l0", &chain).is_err());
    }
}
