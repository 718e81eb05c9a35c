//! `brig commit`: make an image of a container.

use super::{Entry, flags, parser, store};
use crate::Context;
use crate::output;
use crate::progress::Reporter;
use crate::report::{self, Outcome};
use brig_engine::containers::{self, CommitOptions};
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The container
    container: String,
    /// The image's name
    name: Option<String>,
    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Set a default of the image by a Dockerfile's instruction, such as `CMD ["sh"]`, `ENV A=b` or `EXPOSE 80`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A comment for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Pause the container meanwhile
    #[arg(short, long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    pause: bool,
    /// For compatibility: nothing but the id is printed anyway
    #[arg(short, long)]
    quiet: bool,
}

pub const ENTRY: Entry = Entry::new(
    "commit",
    || parser::<Flags>("commit", "Make an image of a container's changes"),
    |context, matches| execute(context, flags(matches)?),
);

fn execute(context: &Context, flags: Flags) -> Outcome {
    let store = store(context)?;
    let record = containers::find(&context.config, &flags.container)?;
    let options = CommitOptions {
        name: flags.name,
        author: flags.author,
        message: flags.message,
        changes: flags.change,
        pause: flags.pause,
    };
    let reporter = Reporter::new(true);
    let committed = containers::commit(&context.config, &store, &record, &options, &reporter)?;
    let told =
        |path: &String| format!("`{path}` is not in the image: a layer cannot hold names that begin with `.wh.`");
    report::warnings(&committed.omitted.iter().map(told).collect::<Vec<_>>());
    output::line(&committed.image.id.to_string());
    Ok(0)
}
