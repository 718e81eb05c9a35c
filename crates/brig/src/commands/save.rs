//! `brig save`: write images as one archive.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::report::Outcome;
use crate::terminal;
use brig_engine::images::Images;
use brig_engine::{Error, Result};
use brig_store::SaveFormat;
use clap::Args;
use std::io::Write;

#[derive(Debug, Args)]
struct Flags {
    /// The images, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// `docker-archive` or `oci-archive`
    #[arg(long, default_value = "docker-archive", value_name = "FORMAT")]
    format: String,
}

pub const ENTRY: Entry = Entry::new(
    "save",
    || parser::<Flags>("save", "Write images as an archive"),
    |context, matches| execute(context, &flags(matches)?),
);

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let format = match flags.format.as_str() {
        "docker-archive" | "docker" => SaveFormat::Docker,
        "oci-archive" | "oci" => SaveFormat::Oci,
        other => {
            return Err(Error::invalid(format!("`{other}` is not a form of archive"))
                .hint("known are `docker-archive` and `oci-archive`"));
        }
    };
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&[])?);
    let names: Vec<&str> = flags.images.iter().map(String::as_str).collect();
    to_file_or_stdout(flags.output.as_deref(), "brig save -o FILE IMAGE", |output| images.save(&names, format, output))
}

/// Writes a stream to a file, or to standard output if that is no terminal.
pub(super) fn to_file_or_stdout(
    path: Option<&str>,
    hint: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Outcome {
    let Some(path) = path else {
        if terminal::stdout_is_terminal() {
            return Err(Error::invalid("an archive is not written to a terminal").hint(format!("write `{hint}`")));
        }
        write(&mut std::io::stdout().lock())?;
        return Ok(0);
    };
    // Beside its place first, so that a failure leaves neither half an archive nor an old one destroyed.
    let failed = |error: std::io::Error| Error::io(format!("cannot write {path}"), error);
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        // A FIFO, or a device such as /dev/stdout: there is no place beside it.
        let mut file = std::fs::File::options().write(true).open(path).map_err(failed)?;
        write(&mut file)?;
        return Ok(0);
    }
    let part = format!("{path}.part");
    let mut file = std::fs::File::create(&part).map_err(failed)?;
    let written = write(&mut file).and_then(|()| file.flush().map_err(failed));
    let renamed = written.and_then(|()| std::fs::rename(&part, path).map_err(failed));
    if let Err(error) = renamed {
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    Ok(0)
}
