//! `brig manifest`: lists of platforms, made here and pushed whole.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output;
use crate::progress::Reporter;
use crate::report::{self, Outcome};
use crate::terminal;
use brig_engine::images::{Images, ManifestOf, PlatformChange};
use brig_engine::{Error, Kind, Result};
use clap::Args;
use std::io::Write;

#[derive(Debug, Args)]
struct Create {
    /// The name of the list
    list: String,
    /// Images that are here, or in registries
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Add to a list that exists
    #[arg(short, long)]
    amend: bool,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct Annotate {
    /// The name of the list
    list: String,
    /// An image of it, by name or by the digest of its manifest
    image: String,
    /// The operating system
    #[arg(long)]
    os: Option<String>,
    /// The processor
    #[arg(long)]
    arch: Option<String>,
    /// The processor's variant
    #[arg(long)]
    variant: Option<String>,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct Inspect {
    /// A list that was made here, or a name in a registry
    name: String,
    /// Print the bytes as they are, which the digest is of
    #[arg(long, conflicts_with = "verbose")]
    raw: bool,
    /// Print the manifest of each image, with its name and what the list says of it
    #[arg(short, long)]
    verbose: bool,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct Push {
    /// The name of the list
    list: String,
    /// The name that it gets; by default its own
    destination: Option<String>,
    /// Remove the list here when it is there
    #[arg(short, long)]
    purge: bool,
    /// Print nothing but the digest
    #[arg(short, long)]
    quiet: bool,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

#[derive(Debug, Args)]
struct Remove {
    /// The names of the lists
    #[arg(required = true, value_name = "LIST")]
    lists: Vec<String>,
}

pub const CREATE: Entry = Entry::new(
    "create",
    || parser::<Create>("create", "Make a list of images for several platforms"),
    |context, matches| {
        let flags: Create = flags(matches)?;
        let store = store(context)?;
        let images = Images::new(&store, registry_options(&flags.insecure)?);
        let name = images.create_list(&flags.list, &flags.images, flags.amend)?;
        output::line(&format!("Created manifest list {}", name.familiar()));
        Ok(0)
    },
);

pub const ANNOTATE: Entry = Entry::new(
    "annotate",
    || parser::<Annotate>("annotate", "Change what a list says of an image's platform"),
    |context, matches| {
        let flags: Annotate = flags(matches)?;
        let store = store(context)?;
        let images = Images::new(&store, registry_options(&flags.insecure)?);
        let change = PlatformChange { os: flags.os, architecture: flags.arch, variant: flags.variant };
        images.annotate_list(&flags.list, &flags.image, &change)?;
        Ok(0)
    },
);

pub const INSPECT: Entry = Entry::new(
    "inspect",
    || parser::<Inspect>("inspect", "Show a list, or what a registry has under a name"),
    |context, matches| {
        let flags: Inspect = flags(matches)?;
        let store = store(context)?;
        let images = Images::new(&store, registry_options(&flags.insecure)?);
        if flags.verbose {
            return verbose(&images.describe_manifest(&flags.name)?);
        }
        let bytes = images.inspect_manifest(&flags.name)?;
        if flags.raw && !terminal::stdout_is_terminal() {
            let written = std::io::stdout().lock().write_all(&bytes);
            written.map_err(|error| Error::io("cannot write the manifest", error))?;
            return Ok(0);
        }
        let text = if flags.raw { String::from_utf8_lossy(&bytes).into_owned() } else { indented(&bytes)? };
        output::line(&report::clean_lines(&text));
        Ok(0)
    },
);

/// Prints images one after the other, in the form of `docker manifest inspect --verbose`.
fn verbose(images: &[ManifestOf]) -> Outcome {
    let describe = |image: &ManifestOf| {
        let kind = if image.descriptor.media_type.contains(".docker.") { "SchemaV2Manifest" } else { "OCIManifest" };
        let name = serde_json::to_string(&image.name.to_string()).map_err(no_json)?;
        let descriptor = serde_json::to_string(&image.descriptor).map_err(no_json)?;
        let manifest = indented(&image.bytes)?;
        Ok(format!(r#"{{"Ref":{name},"Descriptor":{descriptor},"{kind}":{manifest}}}"#))
    };
    let all = images.iter().map(describe).collect::<Result<Vec<_>>>()?;
    let text = if let [one] = &all[..] { one.clone() } else { format!("[{}]", all.join(",")) };
    output::line(&report::clean_lines(&indented(text.as_bytes())?));
    Ok(0)
}

fn no_json(error: serde_json::Error) -> Error {
    Error::new(Kind::Unavailable, "the manifest is not JSON").because(error)
}

/// Lays JSON out in lines, without changing anything else: neither the order of names nor a number.
fn indented(bytes: &[u8]) -> Result<String> {
    // With its bound on depth, so that the lines are not the square of the bytes.
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(no_json)?;
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut characters = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("   ", depth));
    };
    while let Some(c) = characters.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                out.push(c);
                while characters.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    Ok(out)
}

pub const PUSH: Entry = Entry::new(
    "push",
    || parser::<Push>("push", "Send a list and its images to a registry"),
    |context, matches| push(context, &flags(matches)?),
);

pub const REMOVE: Entry = Entry::new(
    "rm",
    || parser::<Remove>("rm", "Remove lists; their images stay"),
    |context, matches| {
        let flags: Remove = flags(matches)?;
        let store = store(context)?;
        let images = Images::new(&store, registry_options(&[])?);
        super::each(&flags.lists, |name| images.remove_list(name))
    },
)
.aliases(&["remove"]);

fn push(context: &Context, flags: &Push) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&flags.insecure)?);
    let pushed = images.push_list(&flags.list, flags.destination.as_deref(), &Reporter::sending(flags.quiet))?;
    output::line(&pushed.digest.to_string());
    if flags.purge {
        images.remove_list(&flags.list)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_and_nothing_else_is_done_to_it() {
        let text = r#"{"b":[1,{"a":"x, {y}: \"[\\"},[],{ }],"a":1.50e3, "n":null,"":"é"}"#;
        let lines = indented(text.as_bytes()).unwrap();
        let wanted = [
            "{",
            r#"   "b": ["#,
            "      1,",
            "      {",
            r#"         "a": "x, {y}: \"[\\""#,
            "      },",
            "      [],",
            "      {}",
            "   ],",
            r#"   "a": 1.50e3,"#,
            r#"   "n": null,"#,
            r#"   "": "é""#,
            "}",
        ];
        assert_eq!(lines, wanted.join("\n"));
        assert_eq!(indented(lines.as_bytes()).unwrap(), lines, "once more changes nothing");
        for bad in ["", "{", "{]", "x", &"[".repeat(200)] {
            assert!(indented(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
