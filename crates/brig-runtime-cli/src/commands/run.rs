//! `run`: makes a container and starts it; in the foreground it stays with it, and takes it apart at its end.

use super::create::SHARED;
use super::{Command, container_id};
use crate::arguments::{Ends, Opt, Parsed, flag};
use crate::failure::{Failure, Step};
use crate::foreground::Foreground;
use crate::global::Global;
use crate::make::{self, Start};
use crate::teardown;

const OPTIONS: [Opt; 10] = {
    let mut options = [SHARED[0]; 10];
    let mut at = 0;
    while at < SHARED.len() {
        options[at] = SHARED[at];
        at += 1;
    }
    options[7] = flag("detach", 'd', "leave the container to itself once it runs");
    options[8] = flag("keep", '\0', "do not delete the container when it has ended");
    options[9] = flag("no-subreaper", '\0', "do not become the parent of orphans");
    options
};

pub(crate) const COMMAND: Command = Command {
    name: "run",
    operands: "CONTAINER",
    about: "make and start a container",
    options: &OPTIONS,
    ends: Ends::Never,
    enters: true,
    run,
};

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let id = container_id(parsed)?;
    let detach = parsed.has("detach");
    let options = make::Options::read(parsed, detach)?;
    let during = |failure: Failure| failure.during(&format!("{} run failed", crate::own_name()));
    if detach {
        make::make(global, id, &options, Start::Now).map_err(during)?;
        return Ok(0);
    }
    if !parsed.has("no-subreaper") {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).step(|| "become a subreaper")?;
    }
    // Signals wait from here on: one that came while the container is made reaches it when it runs.
    let foreground = Foreground::begin()?;
    let made = make::make(global, id, &options, Start::Now).map_err(during)?;
    let status = foreground.attend(&made.child, made.console);
    if !parsed.has("keep") {
        teardown::tear_down(global, &made.container, Some(&made.spec))?;
    }
    status
}
