//! One timed command, and many of them in turn.

use super::place::Place;
use super::table::Target;
use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::process::{WaitId, WaitIdOptions};
use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything of a command may stay after it returned.
const LEFT_MAX: Duration = Duration::from_secs(30);

/// The most memory that one process of brig may hold, in MiB, however large an image is.
pub const PEAK_MAX: f64 = 64.0;

/// How much of an output that was not expected is shown, in characters.
const SHOWN_MAX: usize = 500;

/// The pause before each run.
const SETTLE: Duration = Duration::from_millis(50);

/// Something that is timed.
pub struct Peer {
    /// As the table calls it.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The exit status that proves that the work was done.
    pub status: i32,
    /// What it writes, where that proves it too.
    pub output: Option<&'static str>,
    /// What follows, one after the other; all of it counts.
    pub then: Vec<Then>,
    /// Whether the record, directories and interfaces of the command are gone.
    pub gone: Box<dyn Fn() -> bool + Sync>,
    /// Whether a cgroup v2 mount beside v1 is taken from its sight, without which crun refuses to work.
    pub without_unified: bool,
    /// Done before each run, outside of the clock.
    pub before: Box<dyn Fn() -> Result<()> + Sync>,
    /// Done after each run, outside of the clock: whether the work was done, if the output cannot tell.
    pub after: Box<dyn Fn() -> Result<()> + Sync>,
    /// Whether the work is done by these processes, so that their CPU time says it all.
    pub counts_cpu: bool,
}

impl Peer {
    /// A peer whose traces end with its processes.
    pub fn new(name: &str, command: Vec<String>, status: i32) -> Self {
        let name = name.to_owned();
        Self {
            name,
            command,
            status,
            output: None,
            then: Vec::new(),
            gone: Box::new(|| true),
            without_unified: false,
            before: Box::new(|| Ok(())),
            after: Box::new(|| Ok(())),
            counts_cpu: true,
        }
    }
}

/// A further part of what is timed.
pub enum Then {
    /// A command that succeeds.
    Command(Vec<String>),
    /// Waits until a process that the commands have left behind ends, with this status.
    Ends(i32),
}

/// What one run cost.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Until the command itself returned.
    pub returned: Duration,
    /// Until nothing was left.
    pub wall: Duration,
    /// User and system time of all processes.
    pub cpu: Duration,
}

/// All runs of one peer.
#[derive(Debug)]
pub struct Series {
    /// As the table calls it.
    pub name: String,
    /// In the order of the runs.
    pub samples: Vec<Sample>,
    /// As of the peer.
    pub counts_cpu: bool,
}

impl Series {
    /// The median of one figure, and its least value.
    pub fn of(&self, figure: impl Fn(&Sample) -> Duration) -> (Duration, Duration) {
        let mut all: Vec<Duration> = self.samples.iter().map(figure).collect();
        all.sort();
        (all[all.len() / 2], all[0])
    }
}

/// Runs each peer twice to warm up, then all of them in turn, `count` times.
///
/// Moving a process to a cgroup of v1 waits for a grace period of the kernel, some 10 ms, unless another one moved just
/// before: whoever runs after a pause would pay for it, and who follows closely would not. So `warm` runs before each,
/// outside of the clock, and all are measured as in a row of starts; without it all are measured after a pause.
pub fn interleaved(peers: &[Peer], warm: Option<&Peer>, count: usize) -> Result<Vec<Series>> {
    rounds(peers, warm, count, 2)
}

/// The same, with so many rounds to warm up.
pub fn rounds(peers: &[Peer], warm: Option<&Peer>, count: usize, unmeasured: usize) -> Result<Vec<Series>> {
    let empty =
        |p: &Peer| Series { name: p.name.clone(), samples: Vec::with_capacity(count), counts_cpu: p.counts_cpu };
    let mut all: Vec<Series> = peers.iter().map(empty).collect();
    eprintln!("measuring {} ({count} times in turn)", super::named(peers));
    for round in 0..count + unmeasured {
        // Each round begins with another one, so that nobody always follows the same neighbour.
        for turn in 0..peers.len() {
            let at = (turn + round) % peers.len();
            let (peer, series) = (&peers[at], &mut all[at]);
            // What the kernel still has to put away for the neighbour is not to be paid for by this one.
            std::thread::sleep(SETTLE);
            (peer.before)()?;
            if let Some(warm) = warm {
                once(warm)?;
            }
            let context = || format!("{}, run {round}", peer.name);
            let sample = once(peer).with_context(context)?;
            (peer.after)().with_context(context)?;
            if round >= unmeasured {
                series.samples.push(sample);
            }
        }
    }
    Ok(all)
}

/// Runs one peer once.
pub fn once(peer: &Peer) -> Result<Sample> {
    in_sight(peer.without_unified, || timed(peer))
}

/// Does something where a cgroup v2 mount beside v1 may be out of sight.
pub fn in_sight<T: Send>(without_unified: bool, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if !without_unified {
        return work();
    }
    // The namespace of a thread is that of the programs it starts.
    std::thread::scope(|scope| {
        let hidden = || -> Result<T> {
            brig_sys::clone::unshare(brig_sys::clone::flags::NEWNS).context("cannot leave the mount namespace")?;
            let unified = super::place::UNIFIED;
            rustix::mount::unmount(unified, rustix::mount::UnmountFlags::DETACH)
                .with_context(|| format!("cannot take {unified} away"))?;
            // What crun writes there all the same goes with the namespace, and not onto what lay below.
            rustix::mount::mount("bench", unified, "tmpfs", rustix::mount::MountFlags::empty(), None)?;
            work()
        };
        scope.spawn(hidden).join().unwrap_or_else(|_| bail!("the thread of a measurement broke down"))
    })
}

fn timed(peer: &Peer) -> Result<Sample> {
    reap();
    let baseline = children()?;
    // Files and not pipes: a process that stays behind must not keep the reader.
    let (output, errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let one = |command: &[String]| {
        let mut started = Command::new(&command[0]);
        started.args(&command[1..]).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(errors.try_clone()?);
        let child = started.spawn().with_context(|| format!("cannot start {}", command[0]))?;
        let pid = rustix::process::Pid::from_child(&child);
        let ended = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED)?;
        anyhow::Ok(ended.and_then(|e| e.exit_status()))
    };
    let cpu = cpu_of_children()?;
    let began = Instant::now();
    let mut status = one(&peer.command)?;
    for then in &peer.then {
        if status != Some(peer.status) {
            break;
        }
        let ended = match then {
            Then::Command(command) => one(command)? == Some(0),
            Then::Ends(status) => adopted_end(&baseline)? == Some(*status),
        };
        status = status.filter(|_| ended);
    }
    let returned = began.elapsed();
    // To look takes time too, as long as a part of a start, which is not the command's: when it is found gone, it was so by the time
    // the look began, or went during it.
    let wall = loop {
        let looked = began.elapsed();
        reap();
        // What ran before and ended meanwhile is no concern of this command.
        if children()?.is_subset(&baseline) && (peer.gone)() {
            break looked;
        }
        if began.elapsed() > LEFT_MAX {
            bail!("`{}` left something behind for {LEFT_MAX:?}: {}", peer.command.join(" "), text(&errors));
        }
        std::thread::sleep(Duration::from_micros(50));
    };
    let cpu = cpu_of_children()?.saturating_sub(cpu);
    if status != Some(peer.status) {
        let command = peer.command.join(" ");
        bail!("`{command}` ended with {status:?} instead of {}: {}{}", peer.status, text(&errors), text(&output));
    }
    if let Some(expected) = peer.output.filter(|expected| *expected != text(&output)) {
        let (command, said) = (peer.command.join(" "), text(&output));
        bail!("`{command}` did not say `{}`: {}{}", start(expected), text(&errors), start(&said));
    }
    Ok(Sample { returned, wall, cpu })
}

/// The first part of a text, which may be a long one.
fn start(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

/// Waits for the one process that was adopted since, and returns its status.
fn adopted_end(baseline: &BTreeSet<i32>) -> Result<Option<i32>> {
    let Some(pid) = children()?.difference(baseline).next().copied() else { return Ok(None) };
    let ended = rustix::process::waitid(
        WaitId::Pid(rustix::process::Pid::from_raw(pid).context("a process without a number")?),
        WaitIdOptions::EXITED,
    )?;
    Ok(ended.and_then(|e| e.exit_status()))
}

/// What was written to a file since it was made.
pub fn text(file: &File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    let mut file = file;
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text
}

/// Buries whatever has ended.
pub fn reap() {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    while matches!(rustix::process::waitid(WaitId::All, options), Ok(Some(_))) {}
}

/// The children of this process, adopted ones too.
pub fn children() -> Result<BTreeSet<i32>> {
    let mut all = BTreeSet::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        // A thread that has just ended has none.
        let text = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Ok(all)
}

/// Waits until everything that this process started or adopted has ended.
pub fn wait_for_children() -> Result<()> {
    let began = Instant::now();
    loop {
        reap();
        if children()?.is_empty() {
            return Ok(());
        }
        if began.elapsed() > LEFT_MAX {
            bail!("monitors stay after their containers were removed");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// User and system time of all processes that were buried so far.
pub fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |t: nix::sys::time::TimeVal| u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap_or(0);
    Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
}

/// Runs a peer's command once more, and returns the most memory that one of its processes held, in MiB.
pub fn peak(place: &Place, peer: &Peer) -> Result<f64> {
    let (program, to) = (place.text("bench-peak"), place.text("peak"));
    (peer.before)()?;
    plain(&[&[program, to.clone()], peer.command.as_slice()].concat())?;
    (peer.after)().with_context(|| peer.name.clone())?;
    let kibibytes: f64 = std::fs::read_to_string(&to)?.trim().parse()?;
    Ok(kibibytes / 1024.0)
}

/// Prints the peak of each whose processes do the work themselves.
pub fn print_peaks(place: &Place, peers: &[Peer]) -> Result<()> {
    println!("{:34} {:>9}", "peak memory of one process", "MiB");
    let mut targets = Vec::new();
    for peer in peers.iter().filter(|peer| peer.counts_cpu) {
        let held = peak(place, peer)?;
        println!("{:34} {held:>9.1}", peer.name);
        if peer.name.starts_with("brig") {
            targets.push(Target::at_most(&format!("peak memory of {}, MiB", peer.name), held, PEAK_MAX));
        }
    }
    targets.iter().for_each(Target::print);
    Ok(())
}

/// Runs a command to its end outside of any measurement; returns what it wrote.
pub fn plain(command: &[String]) -> Result<String> {
    let (output, errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(errors.try_clone()?);
    let status = child.status().with_context(|| format!("cannot start {}", command[0]))?;
    if !status.success() {
        bail!("`{}` failed ({status}): {}", command.join(" "), text(&errors));
    }
    Ok(text(&output))
}
