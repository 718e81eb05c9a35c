//! `artifact`: files in a registry that are no image, and what is about an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brig_registry::artifact::{ArtifactFile, NewArtifact, Referrer, TITLE};
use brig_spec::digest::Digest;
use brig_spec::image::{Descriptor, Document};
use brig_spec::reference::Reference;

use super::{Images, failure};
use crate::error::{Error, Kind, Result};
use crate::registries;

/// What goes into an artifact, as people say it.
#[derive(Debug, Clone, Default)]
pub struct ArtifactPlan {
    /// Files with their media types.
    pub files: Vec<ArtifactFile>,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// What it is about: a name in the same repository.
    pub subject: Option<String>,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Images<'_> {
    /// Pushes files as one artifact. One that is about something needs no tag: without one it is known by its digest.
    pub fn push_artifact(&self, name: &str, plan: &ArtifactPlan) -> Result<(Reference, Digest)> {
        let reference = self.destination(name)?;
        let message = || format!("cannot push artifact `{}`", reference.familiar());
        let client = self.client()?;
        let subject = match &plan.subject {
            Some(typed) => {
                let about = self.remote(typed)?;
                if about.name() != reference.name() {
                    return Err(Error::invalid(message()).reason("what it is about is in another repository"));
                }
                let found = client.manifest(&about).map_err(|error| failure::registry(message(), error))?;
                Some(Descriptor {
                    media_type: found.media_type,
                    digest: found.digest,
                    size: found.bytes.len() as u64,
                    platform: None,
                    annotations: BTreeMap::new(),
                })
            }
            None => None,
        };
        if plan.files.is_empty() && plan.artifact_type.is_none() {
            return Err(Error::invalid(message())
                .reason("it has neither files nor a type")
                .hint("name files, or say `--artifact-type`"));
        }
        let mut names: Vec<_> = plan.files.iter().map(|file| file.path.file_name()).collect();
        names.sort();
        if names.windows(2).any(|pair| pair[0] == pair[1]) || names.contains(&None) {
            return Err(Error::invalid(message()).reason("each of its files needs a name of its own"));
        }
        let full = registries::expand(&self.options.policy, name);
        let untagged = full.rsplit('/').next().is_some_and(|last| !last.contains(':'));
        let by_digest = untagged && subject.is_some();
        let new = NewArtifact {
            files: plan.files.clone(),
            artifact_type: plan.artifact_type.clone(),
            subject,
            annotations: plan.annotations.clone(),
        };
        let pushed = client.push_artifact(&reference, &new, by_digest);
        let digest = pushed.map_err(|error| failure::registry(message(), error))?;
        let reference = if by_digest { reference.pinned(digest.clone()) } else { reference };
        Ok((reference, digest))
    }

    /// Fetches an artifact's files into a directory; returns where they are now.
    pub fn pull_artifact(&self, name: &str, directory: &Path) -> Result<Vec<PathBuf>> {
        let reference = self.remote(name)?;
        let message = || format!("cannot pull artifact `{}`", reference.familiar());
        let client = self.client()?;
        let found = client.manifest(&reference).map_err(|error| failure::registry(message(), error))?;
        client
            .check_signature(&reference, std::slice::from_ref(&found.digest))
            .map_err(|error| failure::registry(message(), error))?;
        let document = Document::parse(&found.bytes, Some(&found.media_type))
            .map_err(|error| Error::new(Kind::Unavailable, message()).because(error))?;
        let Document::Manifest(manifest) = document else {
            return Err(Error::invalid(message()).reason("it is a list of several"));
        };
        let files = manifest.layers.iter().filter(|l| l.media_type != brig_registry::artifact::EMPTY_TYPE);
        let mut paths: Vec<(PathBuf, &Descriptor)> = Vec::new();
        for layer in files {
            let own = layer.annotations.get(TITLE).map_or_else(|| layer.digest.hex(), String::as_str);
            let path = directory.join(file_name(own).ok_or_else(|| {
                Error::new(Kind::PermissionDenied, message()).reason(format!("`{own}` is not the name of a file"))
            })?);
            if paths.iter().any(|(other, _)| *other == path) {
                return Err(
                    Error::new(Kind::PermissionDenied, message()).reason(format!("two of its files are named `{own}`"))
                );
            }
            paths.push((path, layer));
        }
        for (path, layer) in &paths {
            client.blob_to_file(&reference, layer, path).map_err(|error| failure::registry(message(), error))?;
        }
        Ok(paths.into_iter().map(|(path, _)| path).collect())
    }

    /// Lists what is about an image or an artifact in its repository, and the digest that was asked about.
    pub fn artifacts(&self, name: &str) -> Result<(Digest, Vec<Referrer>)> {
        let reference = self.remote(name)?;
        let fail = |error| failure::registry(format!("cannot list what is about `{}`", reference.familiar()), error);
        let client = self.client()?;
        let digest = match reference.digest() {
            Some(digest) => digest.clone(),
            None => client.manifest(&reference).map_err(fail)?.digest,
        };
        let list = client.referrers(&reference, &digest).map_err(fail)?;
        Ok((digest, list))
    }

    /// Parses the name of something in a registry.
    pub(super) fn remote(&self, typed: &str) -> Result<Reference> {
        let full = registries::expand(&self.options.policy, typed);
        let bare = full.strip_prefix("docker://").unwrap_or(&full);
        bare.parse().map_err(|error: brig_spec::reference::ReferenceError| {
            Error::invalid(format!("`{typed}` is not a name in a registry")).because(error)
        })
    }
}

/// Takes a name for a file of this very directory, if it is one.
fn file_name(name: &str) -> Option<&str> {
    let fine = !name.is_empty() && name.len() <= 200 && name != "." && name != "..";
    (fine && !name.contains('/') && !name.contains(char::is_control)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        assert_eq!(file_name("report.json"), Some("report.json"));
        for bad in ["", ".", "..", "a/b", "/etc/passwd", "a\0b", "a\nb"] {
            assert_eq!(file_name(bad), None, "{bad:?}");
        }
    }
}
