//! `brig system check`: look at everything in the image store, and repair it if asked.

use super::{Entry, flags, parser, store};
use crate::Context;
use crate::output;
use crate::progress::Reporter;
use crate::report::Outcome;
use brig_engine::system;
use brig_store::Problem;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// Unpack every layer again, aside, and compare it byte by byte with the one in use
    #[arg(long)]
    deep: bool,
    /// Remove what cannot be trusted, make layers anew from good blobs, and tell what to pull again
    #[arg(long)]
    repair: bool,
}

pub const ENTRY: Entry = Entry::new(
    "check",
    || parser::<Flags>("check", "Look whether every image is whole"),
    |context, matches| execute(context, &flags(matches)?),
);

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let store = store(context)?;
    let reporter = Reporter::new(true);
    let report = system::check(&context.config, &store, flags.deep, &reporter)?;
    report.problems.iter().for_each(|problem| output::line(&told(problem)));
    let looked = format!("{} images, {} blobs, {} layers: ", report.images, report.blobs, report.layers);
    let found = match report.problems.len() {
        0 => "all is well".to_owned(),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    output::line(&format!("{looked}{found}"));
    if report.unused > 0 {
        output::line(&format!("{} blobs, layers and leftovers that nothing needs: `brig image prune`", report.unused));
    }
    if report.problems.is_empty() || !flags.repair {
        return Ok(u8::from(!report.problems.is_empty()));
    }
    let repaired = system::repair(&context.config, &store, &report, &reporter)?;
    repaired.removed.iter().for_each(|object| output::line(&format!("Removed: {object}")));
    repaired.rebuilt.iter().for_each(|image| output::line(&format!("Unpacked again: {image}")));
    repaired.kept.iter().for_each(|(object, why)| output::line(&format!("Kept: {object}: {why}")));
    repaired.pull_again.iter().for_each(|image| output::line(&format!("Pull again: {image}")));
    Ok(u8::from(!repaired.kept.is_empty() || !repaired.pull_again.is_empty()))
}

fn told(problem: &Problem) -> String {
    let text = format!("{}: {}", problem.object, problem.fault);
    let text =
        if problem.images.is_empty() { text } else { format!("{text} (needed by {})", problem.images.join(", ")) };
    crate::report::clean(&text)
}
