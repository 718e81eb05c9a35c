//! `brig system start` and `brig system unit`: what brings containers up again after a reboot.
//!
//! brig has no daemon that could do it at boot. A service manager calls the first command once, and the second one prints what
//! to tell systemd.

use super::{Entry, flags, parser};
use crate::Context;
use crate::output;
use crate::report::{self, Outcome};
use brig_engine::{Error, Result, containers};
use clap::Args;
use std::path::Path;

#[derive(Debug, Args)]
struct Flags {}

pub const START: Entry = Entry::new(
    "start",
    || {
        parser::<Flags>(
            "start",
            "Start the containers that a reboot ended, when their restart policy is `always` or `unless-stopped`",
        )
    },
    |context, matches| {
        let _: Flags = flags(matches)?;
        start(context)
    },
);

pub const UNIT: Entry = Entry::new(
    "unit",
    || parser::<Flags>("unit", "Print a systemd unit that runs `brig system start` at boot"),
    |context, matches| {
        let _: Flags = flags(matches)?;
        let program =
            std::env::current_exe().map_err(|error| Error::io("cannot tell where this program lies", error))?;
        output::print(&unit(&program, &context.config.root, &context.config.run)?);
        Ok(0)
    },
)
.for_everyone();

fn start(context: &Context) -> Outcome {
    let mut status = 0;
    for revived in containers::start_due(&context.config)? {
        match revived.result {
            Ok(warnings) => {
                report::warnings(&warnings);
                output::line(&revived.record.name);
            }
            Err(error) => {
                report::print(&error);
                status = 1;
            }
        }
    }
    Ok(status)
}

/// The unit. Monitors begin in its cgroup, so nothing of it is killed when the command has ended.
fn unit(program: &Path, root: &Path, run: &Path) -> Result<String> {
    let (program, root, run) = (word(program)?, word(root)?, word(run)?);
    Ok(format!(
        "# {program} system unit > /etc/systemd/system/brig.service && systemctl enable brig.service
[Unit]
Description=Containers of brig that are to run again after a boot
Wants=network-online.target
After=network-online.target nftables.service firewalld.service docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=process
TasksMax=infinity
ExecStart={program} --root {root} --run {run} system start

[Install]
WantedBy=multi-user.target
"
    ))
}

/// Quotes a path as systemd.syntax(7) and systemd.service(5) read it.
fn word(path: &Path) -> Result<String> {
    let bad = || Error::invalid(format!("a systemd unit cannot hold the path {}", path.display()));
    let text = path.to_str().filter(|t| !t.chars().any(char::is_control)).ok_or_else(bad)?;
    let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(if text.contains([' ', '\'', '"', '\\', ';']) { format!("\"{text}\"") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_names_this_engine_and_quotes_for_systemd() {
        let text = unit("/opt/my brig/brig".as_ref(), "/srv/100%/$x".as_ref(), "/run/brig".as_ref()).unwrap();
        let start = text.lines().find(|l| l.starts_with("ExecStart=")).unwrap();
        assert_eq!(start, "ExecStart=\"/opt/my brig/brig\" --root /srv/100%%/$$x --run /run/brig system start");
        assert!(unit("/a\nb".as_ref(), "/".as_ref(), "/".as_ref()).is_err());
    }
}
