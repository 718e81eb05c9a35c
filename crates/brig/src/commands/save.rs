//! `brig save`: write images as one archive.

use super::{Entry, flags, parser, registry_options, store};
use crate::Context;
use crate::report::Outcome;
use crate::terminal;
use brig_engine::Error;
use brig_engine::images::Images;
use brig_store::SaveFormat;
use clap::Args;
use std::io::{BufWriter, Write};

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
    match &flags.output {
        None if terminal::stdout_is_terminal() => {
            return Err(
                Error::invalid("an archive is not written to a terminal").hint("write `brig save -o FILE IMAGE`")
            );
        }
        None => images.save(&names, format, BufWriter::new(std::io::stdout().lock()))?,
        Some(path) => {
            // Beside its place first, so that a failed save leaves neither half an archive nor an old one destroyed.
            let failed = |error: std::io::Error| Error::io(format!("cannot write {path}"), error);
            let part = format!("{path}.part");
            let file = std::fs::File::create(&part).map_err(failed)?;
            let mut writer = BufWriter::new(file);
            let saved = images.save(&names, format, &mut writer).and_then(|()| writer.flush().map_err(failed));
            if let Err(error) = saved {
                let _ = std::fs::remove_file(&part);
                return Err(error);
            }
            std::fs::rename(&part, path).map_err(failed)?;
        }
    }
    Ok(0)
}
