//! What idle containers cost in memory: each monitor at twenty neighbours, and the machine at a hundred.

use super::measure::{children, plain, wait_for_children};
use super::peers::{Engines, brig, podman};
use super::place::{IMAGE, Place};
use anyhow::{Context, Result, bail};
use std::time::Duration;

const NEIGHBOURS: usize = 20;
const MANY: usize = 100;
/// The memory of a machine is never still: the middle one of so many passes counts.
const PASSES: usize = 3;

/// What one process holds, in KiB.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    private_anonymous: u64,
    pss: u64,
}

/// Prints the figures of brig's monitors and of conmon.
pub fn run(engines: &Engines, place: &Place) -> Result<()> {
    println!("\nmonitors of {NEIGHBOURS} idle containers, KiB each (median, and the largest)");
    println!("{:34} {:>22} {:>22}", "", "private anonymous", "Pss");
    for (title, kind, monitor) in [
        ("brig-monitor, the pair of programs", "pair", "brig-monitor"),
        ("brig-monitor, the single file", "single", "brig-monitor"),
        ("conmon", "podman", "conmon"),
    ] {
        if kind == "podman" && !engines.podman {
            continue;
        }
        let names = start(place, kind, NEIGHBOURS)?;
        settle();
        let held = monitors(monitor);
        end(place, kind, &names)?;
        let held = held?;
        if held.len() != NEIGHBOURS {
            bail!("{} processes called {monitor} watch {NEIGHBOURS} containers", held.len());
        }
        let column = |figure: fn(&Held) -> u64| {
            let mut all: Vec<u64> = held.iter().map(figure).collect();
            all.sort_unstable();
            format!("{} ({})", all[all.len() / 2], all[all.len() - 1])
        };
        println!("{title:34} {:>22} {:>22}", column(|h| h.private_anonymous), column(|h| h.pss));
    }
    println!("\nthe machine, MemAvailable before and after {MANY} idle containers without a network ({PASSES} passes)");
    for (title, kind) in [("brig", "pair"), ("podman", "podman")] {
        if kind == "podman" && !engines.podman {
            continue;
        }
        let mut passes = Vec::with_capacity(PASSES);
        for _ in 0..PASSES {
            settle();
            let before = available()?;
            let names = start(place, kind, MANY)?;
            settle();
            let after = available();
            end(place, kind, &names)?;
            passes.push((before - after?) / i64::try_from(MANY)?);
        }
        passes.sort_unstable();
        let (least, most) = (passes[0], passes[PASSES - 1]);
        println!(
            "{title:34} {:>6} KiB a container, the kernel's part included ({least} to {most})",
            passes[PASSES / 2]
        );
    }
    Ok(())
}

/// Waits until the kernel has freed in the background what starts and ends have left.
fn settle() {
    rustix::fs::sync();
    std::thread::sleep(Duration::from_secs(3));
}

fn command(place: &Place, kind: &str, rest: &[&str]) -> Vec<String> {
    if kind == "podman" { podman(place, rest) } else { brig(place, kind, rest) }
}

fn start(place: &Place, kind: &str, count: usize) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for n in 0..count {
        let name = format!("idle{n}");
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];
        let mut words = vec!["run", "-d", "--name", &name, "--network", "none"];
        words.extend(limits);
        words.extend([IMAGE, "/bin/noop", "idle"]);
        plain(&command(place, kind, &words))?;
        names.push(name);
    }
    Ok(names)
}

/// Removes the containers, and waits until their monitors have gone.
fn end(place: &Place, kind: &str, names: &[String]) -> Result<()> {
    let mut words = vec!["rm", "-f"];
    if kind == "podman" {
        words.extend(["-t", "0"]);
    }
    words.extend(names.iter().map(String::as_str));
    plain(&command(place, kind, &words))?;
    wait_for_children()
}

/// Reads what the adopted children of this name hold.
fn monitors(name: &str) -> Result<Vec<Held>> {
    let mut all = Vec::new();
    for pid in children()? {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if comm.trim() == name {
            all.push(held(pid)?);
        }
    }
    Ok(all)
}

fn held(pid: i32) -> Result<Held> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/smaps")).with_context(|| format!("cannot read smaps of {pid}"))?;
    let mut all = Held::default();
    let (mut private, mut anonymous) = (0, 0);
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(':') else { continue };
        let value = rest.trim().strip_suffix(" kB").and_then(|v| v.trim().parse::<u64>().ok());
        match (key, value) {
            ("Pss", Some(value)) => all.pss += value,
            ("Private_Clean", Some(value)) => private = value,
            ("Private_Dirty", Some(value)) => private += value,
            ("Anonymous", Some(value)) => anonymous = value,
            // The last line of each mapping.
            ("VmFlags", _) => {
                all.private_anonymous += anonymous.min(private);
                (private, anonymous) = (0, 0);
            }
            _ => {}
        }
    }
    Ok(all)
}

fn available() -> Result<i64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line =
        text.lines().find_map(|l| l.strip_prefix("MemAvailable:")).context("no MemAvailable in /proc/meminfo")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
