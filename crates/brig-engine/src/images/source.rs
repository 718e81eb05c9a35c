//! Where an image comes from, as people write it.

use std::path::PathBuf;

use brig_spec::reference::Reference;

use crate::error::{Error, Result};

/// A place that an image can be pulled from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A registry, or an image that is here already.
    Registry(Reference),
    /// `oci:DIR[:TAG]`: an OCI layout.
    Layout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME]`: one tar; which kind it is shows inside.
    Archive(PathBuf, Option<String>),
}

impl Source {
    /// Parses what a user typed.
    pub fn parse(text: &str) -> Result<Self> {
        let path_and_tag = |rest: &str| -> Result<(PathBuf, Option<String>)> {
            // A path may have colons; what exists as it stands is meant as it stands.
            let (path, tag) = match rest.split_once(':') {
                Some((path, tag)) if !std::path::Path::new(rest).exists() => (path, Some(tag.to_owned())),
                _ => (rest, None),
            };
            if path.is_empty() {
                return Err(Error::invalid(format!("image source `{text}` has no path")));
            }
            Ok((PathBuf::from(path), tag))
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = path_and_tag(rest)?;
            return Ok(Self::Layout(path, tag));
        }
        if let Some(rest) = text.strip_prefix("oci-archive:").or(text.strip_prefix("docker-archive:")) {
            let (path, tag) = path_and_tag(rest)?;
            return Ok(Self::Archive(path, tag));
        }
        let bare = text.strip_prefix("docker://").unwrap_or(text);
        let reference = bare
            .parse::<Reference>()
            .map_err(|error| Error::invalid(format!("`{text}` is not an image name")).because(error))?;
        Ok(Self::Registry(reference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_told_by_its_prefix() {
        assert_eq!(Source::parse("oci:/a/b").unwrap(), Source::Layout("/a/b".into(), None));
        assert_eq!(Source::parse("oci:/a/b:v1").unwrap(), Source::Layout("/a/b".into(), Some("v1".into())));
        assert_eq!(Source::parse("docker-archive:x.tar").unwrap(), Source::Archive("x.tar".into(), None));
        assert_eq!(
            Source::parse("oci-archive:x.tar:a/b:1").unwrap(),
            Source::Archive("x.tar".into(), Some("a/b:1".into()))
        );
        assert!(matches!(Source::parse("debian").unwrap(), Source::Registry(_)));
        assert!(Source::parse("oci:").is_err());
        assert!(Source::parse("Debian").is_err());
    }
}
