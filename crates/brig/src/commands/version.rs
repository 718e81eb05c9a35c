//! `brig version`.

use super::{Entry, flags, parser};
use crate::output;
use crate::report::Outcome;
use clap::Args;
use serde_json::json;

#[derive(Debug, Args)]
struct Flags {
    /// Format it by a Go template, or `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const ENTRY: Entry =
    Entry::new("version", || parser::<Flags>("version", "Show the version"), |_, matches| execute(&flags(matches)?))
        .for_everyone();

fn execute(flags: &Flags) -> Outcome {
    let uname = rustix::system::uname();
    let part = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": std::env::consts::OS,
        "Arch": brig_spec::platform::Platform::host().architecture,
        "KernelVersion": uname.release().to_string_lossy(),
    });
    // There is no server: the same facts stand under both names that templates ask for.
    let data = json!({ "Client": part, "Server": part });
    match flags.format.as_deref() {
        Some("json") => output::line(&data.to_string()),
        Some(template) => output::line(&output::execute(template, &data)?),
        None => {
            let word = |key: &str| part[key].as_str().unwrap_or_default().to_owned();
            output::print(&format!(
                "brig version {}\n OS/Arch: {}/{}\n Kernel:  {}\n",
                word("Version"),
                word("Os"),
                word("Arch"),
                word("KernelVersion")
            ));
        }
    }
    Ok(0)
}
