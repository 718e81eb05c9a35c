//! `brig artifact`: files in a registry that are no image, and what is about an image.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output::{self, Column, Row};
use crate::report::Outcome;
use brig_engine::images::{ArtifactPlan, Images};
use brig_engine::{Error, Result};
use brig_registry::artifact::{ArtifactFile, FILE_TYPE};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, Args)]
struct Push {
    /// The name in a registry; without a tag it is known by its digest, if it has a subject
    name: String,
    /// The files, each with its media type if need be
    #[arg(value_name = "FILE[:MEDIATYPE]")]
    files: Vec<String>,
    /// What kind of artifact it is, as a media type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// What it is about: an image or an artifact in the same repository
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// An annotation
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct Pull {
    /// The name in a registry
    name: String,
    /// Where the files go
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    output: PathBuf,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct List {
    /// The name of an image or an artifact in a registry
    name: String,
    /// Only those of this kind
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// A Go template, `json`, or `table TEMPLATE`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print digests only
    #[arg(short, long)]
    quiet: bool,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

pub const PUSH: Entry = Entry::new(
    "push",
    || parser::<Push>("push", "Send files to a registry as one artifact"),
    |context, matches| push(context, &flags(matches)?),
);

pub const PULL: Entry = Entry::new(
    "pull",
    || parser::<Pull>("pull", "Fetch the files of an artifact"),
    |context, matches| pull(context, &flags(matches)?),
);

pub const LIST: Entry = Entry::new(
    "ls",
    || parser::<List>("ls", "List the artifacts that are about an image"),
    |context, matches| list(context, &flags(matches)?),
)
.aliases(&["list"]);

const COLUMNS: &[Column] = &[("DIGEST", "Digest"), ("TYPE", "ArtifactType"), ("SIZE", "Size")];

/// Reads `FILE[:MEDIATYPE]`; what exists as it stands is meant as it stands.
fn file(text: &str) -> Result<ArtifactFile> {
    let (path, media_type) = match text.rsplit_once(':') {
        Some((path, media_type)) if media_type.contains('/') && !std::path::Path::new(text).exists() => {
            (path, media_type)
        }
        _ => (text, FILE_TYPE),
    };
    let path = PathBuf::from(path);
    if !path.is_file() {
        return Err(Error::not_found(format!("there is no file `{}`", path.display())));
    }
    Ok(ArtifactFile { path, media_type: media_type.to_owned() })
}

fn push(context: &Context, flags: &Push) -> Outcome {
    let files = flags.files.iter().map(|text| file(text)).collect::<Result<Vec<_>>>()?;
    let mut annotations = BTreeMap::new();
    for text in &flags.annotation {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| Error::invalid(format!("`{text}` is not of the form KEY=VALUE")))?;
        annotations.insert(key.to_owned(), value.to_owned());
    }
    let plan =
        ArtifactPlan { files, artifact_type: flags.artifact_type.clone(), subject: flags.subject.clone(), annotations };
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&flags.insecure)?);
    let (reference, digest) = images.push_artifact(&flags.name, &plan)?;
    output::line(&format!("{}: digest: {digest}", reference.familiar()));
    Ok(0)
}

fn pull(context: &Context, flags: &Pull) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&flags.insecure)?);
    for path in images.pull_artifact(&flags.name, &flags.output)? {
        output::line(&path.display().to_string());
    }
    Ok(0)
}

fn list(context: &Context, flags: &List) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&flags.insecure)?);
    let (_, mut list) = images.artifacts(&flags.name)?;
    if let Some(wanted) = &flags.artifact_type {
        list.retain(|one| one.artifact_type.as_ref() == Some(wanted));
    }
    if flags.quiet {
        list.iter().for_each(|one| output::line(&one.descriptor.digest.to_string()));
        return Ok(0);
    }
    let rows: Vec<Row> = list
        .into_iter()
        .map(|one| {
            let row = json!({
                "Digest": one.descriptor.digest,
                "ArtifactType": one.artifact_type.unwrap_or_default(),
                "Size": output::decimal_size(one.descriptor.size),
                "Annotations": one.descriptor.annotations,
            });
            row.as_object().cloned().unwrap_or_default()
        })
        .collect();
    output::listing(&rows, COLUMNS, &[("ANNOTATIONS", "Annotations")], flags.format.as_deref())?;
    Ok(0)
}
