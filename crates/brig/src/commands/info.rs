//! `brig info` and `brig doctor`: what there is, and what this machine can do.

use super::{Entry, flags, parser};
use crate::Context;
use crate::output;
use crate::report::Outcome;
use brig_engine::containers::{self, Phase};
use brig_engine::host::{Check, Grade, Report, report};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};

#[derive(Debug, Args)]
struct Flags {
    /// Format it by a Go template, or `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "info",
    || parser::<Flags>("info", "Show what there is, and what this machine can do"),
    |context, matches| info(context, &flags(matches)?),
)
.for_everyone();

pub const DOCTOR: Entry = Entry::new(
    "doctor",
    || parser::<Flags>("doctor", "Check this machine: what is missing, and how to get it"),
    |context, matches| doctor(context, &flags(matches)?),
)
.for_everyone();

/// Makes a network namespace to try things in: by a thread of its own, since a thread's namespace cannot be left unseen.
fn scratch_netns() -> Option<OwnedFd> {
    let thread = std::thread::spawn(|| {
        brig_sys::clone::unshare(brig_sys::clone::flags::NEWNET).ok()?;
        std::fs::File::open("/proc/thread-self/ns/net").ok().map(OwnedFd::from)
    });
    thread.join().ok().flatten()
}

/// Gathers the report; the network's part needs root.
fn gather(context: &Context) -> Report {
    let netns = if rustix::process::geteuid().is_root() { scratch_netns() } else { None };
    report(&context.config, netns.as_ref().map(AsFd::as_fd))
}

fn as_json(check: &Check) -> Value {
    let grade = match check.grade {
        Grade::Good => "good",
        Grade::Limited => "limited",
        Grade::Missing => "missing",
    };
    json!({ "Name": check.name, "Grade": grade, "Found": check.found, "Remedy": check.remedy })
}

fn doctor(context: &Context, flags: &Flags) -> Outcome {
    let report = gather(context);
    let missing = report.checks.iter().any(|c| c.grade == Grade::Missing);
    match flags.format.as_deref() {
        Some("json") => output::line(&json!(report.checks.iter().map(as_json).collect::<Vec<_>>()).to_string()),
        Some(template) => {
            for check in &report.checks {
                output::line(&output::execute(template, &as_json(check))?);
            }
        }
        None => output::print(&lines(&report.checks)),
    }
    Ok(u8::from(missing))
}

/// One line a check, and a second one for what is missing.
fn lines(checks: &[Check]) -> String {
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for check in checks {
        let mark = match check.grade {
            Grade::Good => "ok     ",
            Grade::Limited => "limited",
            Grade::Missing => "MISSING",
        };
        let _ = writeln!(text, "{mark}  {:width$}  {}", check.name, check.found);
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(text, "{:9}{:width$}  -> {remedy}", "", "");
        }
    }
    text
}

fn info(context: &Context, flags: &Flags) -> Outcome {
    let report = gather(context);
    let listing = containers::list(&context.config).unwrap_or_default();
    let count = |phase: Phase| listing.entries.iter().filter(|e| e.status.phase == phase).count();
    let images = super::store(context).ok().and_then(|store| store.images().ok()).map_or(0, |l| l.images.len());
    let data = json!({
        "Containers": listing.entries.len(),
        "ContainersRunning": count(Phase::Running),
        "ContainersPaused": count(Phase::Paused),
        "ContainersStopped": count(Phase::Exited) + count(Phase::Stopping) + count(Phase::Created),
        "Images": images,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Driver": "overlay",
        "LoggingDriver": "local",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if report.cgroup_layout == "v2" { "2" } else { "1" },
        "CgroupLayout": report.cgroup_layout,
        "KernelVersion": report.kernel,
        "OperatingSystem": report.system,
        "OSType": "linux",
        "Architecture": report.architecture,
        "NCPU": report.cpus,
        "MemTotal": report.memory,
        "Name": report.hostname,
        "DockerRootDir": context.config.root,
        "RunDir": context.config.run,
        "SecurityOptions": report.security,
        "Checks": report.checks.iter().map(as_json).collect::<Vec<_>>(),
    });
    match flags.format.as_deref() {
        Some("json") => output::line(&data.to_string()),
        Some(template) => output::line(&output::execute(template, &data)?),
        None => {
            let text = format!(
                "Containers: {} ({} running, {} paused, {} stopped)\nImages: {images}\nVersion: {}\nRoot: {}\nRun: {}\n\
                 Kernel: {}\nSystem: {}\nProcessor: {}, {} CPUs\nMemory: {}\nCgroups: {}\n\nWhat this machine can do:\n",
                listing.entries.len(),
                count(Phase::Running),
                count(Phase::Paused),
                count(Phase::Exited) + count(Phase::Stopping) + count(Phase::Created),
                env!("CARGO_PKG_VERSION"),
                context.config.root.display(),
                context.config.run.display(),
                report.kernel,
                report.system,
                report.architecture,
                report.cpus,
                output::binary_size(report.memory),
                report.cgroup_layout,
            );
            output::print(&(text + &lines(&report.checks)));
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_a_second_line() {
        let checks = [
            Check { name: "kernel", grade: Grade::Good, found: "6.1".into(), remedy: None },
            Check { name: "veth", grade: Grade::Missing, found: "no".into(), remedy: Some("modprobe veth".into()) },
        ];
        assert_eq!(lines(&checks), "ok       kernel  6.1\nMISSING  veth    no\n                 -> modprobe veth\n");
    }
}
