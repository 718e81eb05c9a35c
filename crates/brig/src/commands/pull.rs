//! `brig pull`: fetch an image.

use super::{Entry, flags, names_of, parser, registry_options, store};
use crate::Context;
use crate::flags::modes::platform;
use crate::output;
use crate::progress::Reporter;
use crate::report::Outcome;
use brig_engine::images::Images;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// A name, `oci:DIR[:TAG]`, `oci-archive:FILE` or `docker-archive:FILE`
    image: String,
    /// The platform, such as `linux/arm64`
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
    /// Print the image's id only
    #[arg(short, long)]
    quiet: bool,
}

pub const ENTRY: Entry = Entry::new(
    "pull",
    || parser::<Flags>("pull", "Fetch an image"),
    |context, matches| execute(context, &flags(matches)?),
);

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let store = store(context)?;
    let images = Images::new(&store, registry_options(&flags.insecure)?);
    let platform = platform(flags.platform.as_deref())?;
    let pulled = images.pull(&flags.image, platform.as_ref(), &Reporter::new(flags.quiet))?;
    if flags.quiet {
        output::line(&pulled.image.id.to_string());
        return Ok(0);
    }
    if let Some(digest) = &pulled.digest {
        output::line(&format!("Digest: {digest}"));
    }
    let names = names_of(&store, &pulled.image)?;
    let name = names.first().map_or_else(|| pulled.image.id.to_string(), brig_spec::reference::Reference::familiar);
    let what = if pulled.changed { "Pulled" } else { "Up to date:" };
    output::line(&format!("{what} {name}"));
    Ok(0)
}
