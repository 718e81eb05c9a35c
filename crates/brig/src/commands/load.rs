//! `brig load` and `brig import`: images out of archives and tars.

use super::{Entry, flags, names_of, parser, registry_options, store};
use crate::Context;
use crate::flags::modes::platform;
use crate::output;
use crate::progress::Reporter;
use crate::report::Outcome;
use crate::terminal;
use brig_engine::Error;
use brig_engine::images::{Images, apply_change};
use brig_spec::image::ProcessConfig;
use brig_spec::platform::Platform;
use brig_store::Import;
use clap::Args;
use std::path::Path;

#[derive(Debug, Args)]
struct Load {
    /// Read this archive instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<String>,
    /// The platform, such as `linux/arm64`
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

pub const ENTRY: Entry = Entry::new(
    "load",
    || parser::<Load>("load", "Load images from an archive"),
    |context, matches| load(context, &flags(matches)?),
);

fn load(context: &Context, flags: &Load) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&[])?);
    let platform = platform(flags.platform.as_deref())?;
    let reporter = Reporter::new(flags.quiet);
    let loaded = match &flags.input {
        Some(path) => images.load(Path::new(path), platform.as_ref(), &reporter)?,
        None if terminal::stdin_is_terminal() => {
            return Err(Error::invalid("no archive is named, and standard input is a terminal")
                .hint("write `brig load -i FILE` or `brig load < FILE`"));
        }
        None => images.load_stream(std::io::stdin().lock(), "standard input", platform.as_ref(), &reporter)?,
    };
    for image in loaded {
        match names_of(&store, &image)?.first() {
            Some(name) => output::line(&format!("Loaded image: {}", name.familiar())),
            None => output::line(&format!("Loaded image ID: {}", image.id)),
        }
    }
    Ok(0)
}

#[derive(Debug, Args)]
struct ImportFlags {
    /// A tar, plain or compressed; `-` for standard input
    file: String,
    /// The image's name
    name: Option<String>,
    /// Set a default of the image by a Dockerfile's instruction, such as `CMD ["sh"]`, `ENV A=b` or `EXPOSE 80`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A comment for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// The platform, such as `linux/arm64`
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

pub const IMPORT: Entry = Entry::new(
    "import",
    || parser::<ImportFlags>("import", "Make an image of a root file system's tar"),
    |context, matches| import(context, &flags(matches)?),
);

fn import(context: &Context, flags: &ImportFlags) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&[])?);
    let mut config = ProcessConfig::default();
    for change in &flags.change {
        apply_change(change, &mut config)?;
    }
    let import = Import {
        platform: platform(flags.platform.as_deref())?.unwrap_or_else(Platform::host),
        config,
        created: Some(brig_engine::time::rfc3339(brig_monitor::state::now_ns())),
        comment: flags.message.clone(),
    };
    let reporter = Reporter::new(true);
    let image = if flags.file == "-" {
        images.import(std::io::stdin().lock(), "standard input", flags.name.as_deref(), &import, &reporter)?
    } else {
        let file = std::fs::File::open(&flags.file)
            .map_err(|error| Error::io(format!("cannot import `{}`", flags.file), error))?;
        images.import(file, &flags.file, flags.name.as_deref(), &import, &reporter)?
    };
    output::line(&image.id.to_string());
    Ok(0)
}
