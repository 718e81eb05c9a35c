//! The rules of the house, as a check: which crate may use which, and what a source file must look like.
//!
//! Each finding is one line, `path:line: what, why, what to do`. The same check runs as a test of this package.

mod layers;
mod scrub;
mod source;

use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::{Path, PathBuf};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: PathBuf,
    line: usize,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path.display(), self.line, self.text)
    }
}

/// Checks the workspace at `root` and prints what it finds. Errors: something was found, or could not be read.
pub fn run(root: &Path) -> Result<()> {
    let (findings, packages, files) = check(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} finding(s) in {files} files of {packages} packages", findings.len());
    }
    println!("tidy: {files} files of {packages} packages are in order");
    Ok(())
}

fn check(root: &Path) -> Result<(Vec<Finding>, usize, usize)> {
    let packages = layers::read(root)?;
    let mut findings = layers::check(&packages);
    let mut files = Vec::new();
    for directory in ["crates", "xtask", "tools"] {
        collect(&root.join(directory), &mut files)?;
    }
    for path in &files {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        source::check(path.strip_prefix(root).unwrap_or(path), &text, &mut findings);
    }
    findings.sort();
    Ok((findings, packages.len(), files.len()))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_workspace_is_tidy() {
        let (findings, packages, files) = super::check(&crate::root()).unwrap();
        assert!(packages > 5 && files > 50, "only {files} files of {packages} packages were looked at");
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "\n{}", text.join("\n"));
    }
}
