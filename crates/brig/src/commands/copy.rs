//! `brig cp` and `brig diff`: files in and out of containers, and what a container has changed.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::output;
use crate::report::{self, Outcome};
use crate::terminal;
use brig_engine::containers::{self, CopyOptions};
use brig_engine::images::Images;
use brig_engine::{Error, Kind};
use clap::Args;
use std::io::IsTerminal;
use std::path::Path;

#[derive(Debug, Args)]
struct Flags {
    /// `CONTAINER:PATH`, or a path of the machine; `-` reads a tar from standard input
    source: String,
    /// A path of the machine, or `CONTAINER:PATH`; `-` writes a tar to standard output
    target: String,
    /// Keep owners as they are
    #[arg(short, long)]
    archive: bool,
    /// Follow a symbolic link that is the source itself
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// For compatibility: nothing is printed anyway
    #[arg(short, long)]
    quiet: bool,
}

pub const ENTRY: Entry = Entry::new(
    "cp",
    || parser::<Flags>("cp", "Copy files between the machine and a container"),
    |context, matches| copy(context, &flags(matches)?),
);

/// Takes `CONTAINER:PATH` apart; a path of the machine begins with `/` or `.`, or has no colon.
fn inside(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':').filter(|(name, _)| !name.is_empty() && !name.contains('/'))
}

fn copy(context: &Context, flags: &Flags) -> Outcome {
    let options = CopyOptions { archive: flags.archive, follow: flags.follow_link };
    match (flags.source.as_str(), flags.target.as_str()) {
        ("-", target) if target != "-" => return from_stream(context, target),
        (source, "-") if source != "-" => return to_stream(context, source, options),
        _ => {}
    }
    match (inside(&flags.source), inside(&flags.target)) {
        (Some((name, source)), None) => {
            containers::copy_out(&context.config, name, Path::new(source), Path::new(&flags.target), options)?;
        }
        (None, Some((name, target))) => {
            containers::copy_in(&context.config, Path::new(&flags.source), name, Path::new(target), options)?;
        }
        (Some(_), Some(_)) => {
            return Err(Error::invalid("`brig cp` does not copy from one container to another")
                .hint("copy to a directory of the machine first"));
        }
        (None, None) => return Err(no_container()),
    }
    Ok(0)
}

fn no_container() -> Error {
    Error::invalid("neither end of the copy is a container").hint("write one of them as CONTAINER:PATH")
}

/// `brig cp - CONTAINER:PATH`
fn from_stream(context: &Context, target: &str) -> Outcome {
    let (name, target) = inside(target).ok_or_else(no_container)?;
    if terminal::stdin_is_terminal() {
        return Err(Error::invalid("standard input is a terminal, and no archive")
            .hint(format!("write it as `tar -c FILES | brig cp - {name}:{target}`")));
    }
    containers::stream_in(&context.config, std::io::stdin().lock(), name, Path::new(target))?;
    Ok(0)
}

/// `brig cp CONTAINER:PATH -`
fn to_stream(context: &Context, source: &str, options: CopyOptions) -> Outcome {
    let (name, source) = inside(source).ok_or_else(no_container)?;
    if std::io::stdout().is_terminal() {
        return Err(Error::invalid("standard output is a terminal, and no place for an archive")
            .hint(format!("write it as `brig cp {name}:{source} - | tar -t`")));
    }
    containers::stream_out(&context.config, name, Path::new(source), options.follow, std::io::stdout().lock())?;
    Ok(0)
}

#[derive(Debug, Args)]
struct Diff {
    /// The container, or an image
    #[arg(value_name = "CONTAINER|IMAGE")]
    name: String,
    /// For an image: the one that it is compared with, all files of both
    #[arg(value_name = "IMAGE")]
    other: Option<String>,
}

pub const DIFF: Entry = Entry::new(
    "diff",
    || {
        parser::<Diff>(
            "diff",
            "Show what a container has changed of its image, an image's last layer of those below, or an image of another",
        )
    },
    |context, matches| {
        let flags: Diff = flags(matches)?;
        let of_images = || {
            let store = store(context)?;
            Images::new(&store, registry_options(&[])?).diff(&flags.name, flags.other.as_deref())
        };
        let changes = match containers::find(&context.config, &flags.name) {
            Ok(record) if flags.other.is_none() => containers::diff(&context.config, &record)?,
            Err(error) if error.kind != Kind::NotFound => return Err(error),
            Err(error) if flags.other.is_none() => match store(context)?.image(&flags.name) {
                Ok(_) => of_images()?,
                Err(_) => return Err(error),
            },
            // A container is compared with its own image only: of two names both are images'.
            _ => of_images()?,
        };
        for (change, path) in changes {
            output::line(&format!("{} {}", change.letter(), report::clean(&path.to_string_lossy())));
        }
        Ok(0)
    },
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(inside("web:/etc"), Some(("web", "/etc")));
        assert_eq!(inside("web:"), Some(("web", "")));
        for outside in ["/a:b", "./web:/x", "file", "dir/web:/x", ":/x"] {
            assert_eq!(inside(outside), None, "{outside}");
        }
    }
}
