//! `brig-runtime` by itself beside runc and crun, called as an OCI runtime is, with the configuration that `runc spec` writes.
//!
//! ```text
//!   runc spec ──> no terminal, /bin/noop ──┬─> oci/NAME/config.json   a bundle for each container
//!                                          └─> runtime.recipe         the kernel alone: the same namespaces, mounts, masks,
//!                                                                     cgroups with their device rules, capabilities
//! ```
//!
//! A run is over when neither the state directory, which lies in memory, nor any cgroup of it is left.

use super::measure::{self, Peer, Series, Then, in_sight, interleaved, plain};
use super::peers::{installed, is_empty, words};
use super::place::{Place, UNIFIED};
use super::recipe::{self, Kind, STATUS};
use super::table::{self, ratio};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the no-op says.
const SAID: &str = "ran";
/// Starts at once.
const MANY: usize = 50;
/// How often a container must start under a limit until that is enough.
const TRIES: usize = 10;
/// The least memory limit that is tried.
const LEAST: u64 = 256 << 10;

/// A runtime that is measured.
struct Runtime {
    name: &'static str,
    program: String,
    state: PathBuf,
    without_unified: bool,
}

impl Runtime {
    fn command(&self, rest: &[&str]) -> Vec<String> {
        words(&[&[&self.program, "--root", &self.state.display().to_string()], rest])
    }

    /// A command that leaves nothing of container `id` in the state directory and in the cgroups.
    fn peer(&self, command: Vec<String>, status: i32, id: &str) -> Result<Peer> {
        let mut peer = Peer::new(self.name, command, status);
        peer.output = Some(SAID);
        peer.without_unified = self.without_unified;
        let (state, mut groups) = (self.state.clone(), groups(id)?);
        groups.retain(|group| !self.without_unified || !group.starts_with(UNIFIED));
        peer.gone = Box::new(move || is_empty(&state) && groups.iter().all(|g| !g.exists()));
        Ok(peer)
    }

    fn run(&self, place: &Place, id: &str) -> Result<Peer> {
        self.peer(self.command(&["run", "--bundle", &bundle(place, id), id]), status(), id)
    }

    fn plain(&self, rest: &[&str]) -> Result<String> {
        in_sight(self.without_unified, || plain(&self.command(rest)))
    }
}

fn status() -> i32 {
    STATUS.parse().unwrap_or_default()
}

fn bundle(place: &Place, id: &str) -> String {
    place.text(&format!("oci/{id}"))
}

/// The cgroups of a container.
fn groups(id: &str) -> Result<Vec<PathBuf>> {
    Ok(recipe::parents()?.into_iter().map(|parent| parent.join(id)).collect())
}

/// Who is there, brig first.
fn runtimes(place: &Place) -> Vec<Runtime> {
    let runtime = |name, program: String| Runtime {
        name,
        program,
        state: place.path(&format!("oci-state/{name}")),
        without_unified: name == "crun" && Path::new(UNIFIED).exists(),
    };
    let mut all = vec![runtime("brig", place.text("alone/brig-runtime"))];
    for name in ["crun", "runc"] {
        if installed(name) {
            all.push(runtime(name, name.to_owned()));
        } else {
            println!("missing: {name} (apt-get install {name})");
        }
    }
    all
}

/// The configuration that `runc spec` writes, with a no-op in it that proves that it ran.
fn configuration(place: &Place) -> Result<Value> {
    let directory = place.text("oci/spec");
    std::fs::create_dir_all(&directory)?;
    let program = if installed("runc") { "runc".to_owned() } else { place.text("alone/brig-runtime") };
    plain(&words(&[&[&program, "spec", "--bundle", &directory]]))?;
    let mut spec: Value = serde_json::from_slice(&std::fs::read(place.path("oci/spec/config.json"))?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/noop", STATUS, SAID]);
    spec["root"]["path"] = json!(place.text("rootfs"));
    // Older ones ask for what cannot be had: ambient capabilities that are not inheritable.
    if let Some(sets) = spec["process"]["capabilities"].as_object_mut() {
        sets.remove("ambient");
    }
    Ok(spec)
}

fn write_bundle(place: &Place, spec: &Value, id: &str) -> Result<()> {
    recipe::write_bundle(place, spec, &format!("oci/{id}"))?;
    let file = place.path("oci").join(id).join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    spec["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", recipe::CGROUP));
    std::fs::write(file, serde_json::to_vec_pretty(&spec)?)?;
    Ok(())
}

/// The kernel alone, from a recipe with a cgroup of its own.
fn bare(place: &Place, spec: &Value, group: &str) -> Result<Peer> {
    let file = if group == "bare" { "runtime.recipe".to_owned() } else { format!("oci/{group}.recipe") };
    recipe::write_as(place, spec, Kind::Unfiltered, group, &file)?;
    Ok(recipe_of(place, &file))
}

/// What runs right before each measured command, so that the kernel is in the same state for all.
fn warm(place: &Place, spec: &Value) -> Result<Peer> {
    let file = Kind::Warm.file();
    recipe::write_as(place, spec, Kind::Warm, "warm", file)?;
    let mut peer = recipe_of(place, file);
    peer.output = None;
    Ok(peer)
}

fn recipe_of(place: &Place, file: &str) -> Peer {
    let command = words(&[&[&place.text("bench-bare"), &place.text(file)]]);
    let mut peer = Peer::new("the kernel alone", command, status());
    peer.output = Some(SAID);
    peer
}

/// Measures all of it; returns why the figures cannot be trusted, if so.
pub fn run(place: &Place, count: usize, cold: bool) -> Result<Option<String>> {
    std::fs::create_dir_all(place.path("oci"))?;
    // As /run is: the file system of a disk would have its share in each start.
    let state = place.path("oci-state");
    std::fs::create_dir_all(&state)?;
    rustix::mount::mount("bench", &state, "tmpfs", rustix::mount::MountFlags::empty(), None)?;
    for directory in recipe::parents()? {
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let runtimes = runtimes(place);
    let spec = configuration(place)?;
    write_bundle(place, &spec, "run")?;
    let warm = warm(place, &spec)?;
    let mut peers = vec![bare(place, &spec, "bare")?];
    strace(place)?;
    let in_turn = |peers: &[Peer]| interleaved(peers, (!cold).then_some(&warm), count);

    for runtime in &runtimes {
        peers.push(runtime.run(place, "run")?);
    }
    let result = in_turn(&peers)?;
    table::print("brig-runtime: `run` of a static no-op as `runc spec` has it", &result, Some("the kernel alone"));
    let void = table::void(&result, cold);
    targets(&result);

    let steps: Result<Vec<Peer>> = runtimes.iter().map(|r| create_start_delete(place, r)).collect();
    table::print("brig-runtime: `create`, `start`, its end, `delete`", &in_turn(&steps?)?, None);

    exec(place, &runtimes, &spec, &in_turn)?;
    at_once(place, &runtimes, &spec, (count / 6).max(3))?;
    least_memory(place, &runtimes, &spec)?;
    size_and_peak(place, &runtimes, &spec)?;
    Ok(void)
}

/// What the kernel alone does, call by call, for whoever looks.
fn strace(place: &Place) -> Result<()> {
    if !installed("strace") {
        return Ok(());
    }
    let script = "strace -f -r -o \"$1\" \"$2\" \"$3\"; [ $? = 42 ]";
    let (to, program, recipe) = (place.text("runtime.strace"), place.text("bench-bare"), place.text("runtime.recipe"));
    plain(&words(&[&["sh", "-c", script, "sh", &to, &program, &recipe]])).map(drop)
}

/// Prints how brig stands to what it shall be.
fn targets(all: &[Series]) {
    let Some(brig) = all.iter().find(|s| s.name == "brig") else { return };
    for (other, wall_target, cpu_target) in
        [("the kernel alone", 1.4, None), ("crun", 0.5, Some(0.5)), ("runc", 1.0 / 6.0, None)]
    {
        let Some(other) = all.iter().find(|s| s.name == other) else { continue };
        let wall = ratio(brig.of(|s| s.wall).0, other.of(|s| s.wall).0);
        let cpu = ratio(brig.of(|s| s.cpu).0, other.of(|s| s.cpu).0);
        let least = ratio(brig.of(|s| s.wall).1, other.of(|s| s.wall).1);
        let verdict = if wall <= wall_target && cpu_target.is_none_or(|t| cpu <= t) { "met" } else { "MISSED" };
        let by_cpu = cpu_target.map_or(String::new(), |t| format!(" (at most {t:.2})"));
        println!(
            "brig / {:18} wall {wall:.3} (at most {wall_target:.2}), least {least:.3}, CPU {cpu:.3}{by_cpu}: {verdict}",
            other.name
        );
    }
}

fn create_start_delete(place: &Place, runtime: &Runtime) -> Result<Peer> {
    let create = runtime.command(&["create", "--bundle", &bundle(place, "run"), "run"]);
    let mut peer = runtime.peer(create, 0, "run")?;
    peer.then = vec![
        Then::Command(runtime.command(&["start", "run"])),
        Then::Ends(status()),
        Then::Command(runtime.command(&["delete", "run"])),
    ];
    Ok(peer)
}

fn exec(
    place: &Place,
    runtimes: &[Runtime],
    spec: &Value,
    in_turn: &dyn Fn(&[Peer]) -> Result<Vec<Series>>,
) -> Result<()> {
    let mut idle = spec.clone();
    idle["process"]["args"] = json!(["/bin/noop", "idle"]);
    let mut peers = Vec::new();
    for runtime in runtimes {
        let id = format!("idle-{}", runtime.name);
        write_bundle(place, &idle, &id)?;
        runtime.plain(&["run", "--detach", "--bundle", &bundle(place, &id), &id])?;
        let mut peer = Peer::new(runtime.name, runtime.command(&["exec", &id, "/bin/noop", STATUS, SAID]), status());
        peer.output = Some(SAID);
        peer.without_unified = runtime.without_unified;
        peers.push(peer);
    }
    let result = in_turn(&peers);
    for runtime in runtimes {
        runtime.plain(&["delete", "--force", &format!("idle-{}", runtime.name)])?;
    }
    measure::wait_for_children()?;
    table::print("brig-runtime: `exec` of the no-op in a running container", &result?, None);
    Ok(())
}

/// Starts of many containers at once, until nothing of any of them is left.
fn at_once(place: &Place, runtimes: &[Runtime], spec: &Value, rounds: usize) -> Result<()> {
    let mut kernel = Vec::new();
    for n in 0..MANY {
        write_bundle(place, spec, &format!("many{n}"))?;
        kernel.push(bare(place, spec, &format!("bare{n}"))?);
    }
    let mut groups_of = vec![kernel];
    for runtime in runtimes {
        groups_of.push((0..MANY).map(|n| runtime.run(place, &format!("many{n}"))).collect::<Result<_>>()?);
    }
    eprintln!("measuring {MANY} starts at once ({rounds} rounds)");
    let mut all: Vec<Vec<(Duration, Duration)>> = vec![Vec::new(); groups_of.len()];
    for _ in 0..rounds {
        for (peers, results) in groups_of.iter().zip(&mut all) {
            std::thread::sleep(Duration::from_millis(300));
            results.push(in_sight(peers[0].without_unified, || together(peers))?);
        }
    }
    println!("\nbrig-runtime: {MANY} `run` at once, until all is gone; {rounds} rounds, ms");
    println!("{:34} {:>9} {:>9} {:>9} {:>9}", "", "wall", "least", "CPU", "x brig");
    let middle = |results: &[(Duration, Duration)], figure: fn(&(Duration, Duration)) -> Duration| {
        let mut figures: Vec<Duration> = results.iter().map(figure).collect();
        figures.sort();
        (figures[figures.len() / 2], figures[0])
    };
    let brig = middle(&all[1], |r| r.0).0;
    for (peers, results) in groups_of.iter().zip(&all) {
        let (wall, least) = middle(results, |r| r.0);
        let (cpu, _) = middle(results, |r| r.1);
        let ms = |d: Duration| format!("{:.1}", d.as_secs_f64() * 1000.0);
        let times = format!("{:.2}", ratio(wall, brig));
        println!("{:34} {:>9} {:>9} {:>9} {times:>9}", peers[0].name, ms(wall), ms(least), ms(cpu));
    }
    Ok(())
}

/// Runs all of them at the same time; returns wall and CPU time.
fn together(peers: &[Peer]) -> Result<(Duration, Duration)> {
    measure::reap();
    let cpu = measure::cpu_of_children()?;
    let began = Instant::now();
    let mut running = Vec::with_capacity(peers.len());
    for peer in peers {
        let (output, errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = Command::new(&peer.command[0]);
        command.args(&peer.command[1..]).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(errors.try_clone()?);
        running.push((peer, command.spawn()?, output, errors));
    }
    for (peer, child, output, errors) in &mut running {
        let status = child.wait()?;
        if status.code() != Some(peer.status) || peer.output.is_some_and(|o| o != measure::text(output)) {
            bail!("`{}` ended with {status}: {}", peer.command.join(" "), measure::text(errors));
        }
    }
    measure::wait_for_children()?;
    while !peers.iter().all(|peer| (peer.gone)()) {
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok((began.elapsed(), measure::cpu_of_children()?.saturating_sub(cpu)))
}

/// The least power of two under which a container starts, each time it is tried.
fn least_memory(place: &Place, runtimes: &[Runtime], spec: &Value) -> Result<()> {
    println!("\nbrig-runtime: the smallest memory limit in which a container starts {TRIES} times out of {TRIES}, KiB");
    let mut limited = spec.clone();
    for name in ["the kernel alone"].into_iter().chain(runtimes.iter().map(|r| r.name)) {
        let runtime = runtimes.iter().find(|r| r.name == name);
        let mut limit = LEAST;
        let starts = |limit: u64, limited: &mut Value| -> Result<bool> {
            limited["linux"]["resources"]["memory"] = json!({"limit": limit});
            write_bundle(place, limited, "limited")?;
            for _ in 0..TRIES {
                let mut peer = match runtime {
                    Some(runtime) => runtime.run(place, "limited")?,
                    None => bare(place, limited, "limited")?,
                };
                // One that hangs has not started.
                peer.command.splice(0..0, words(&[&["timeout", "-s", "KILL", "20"]]));
                let gone = std::mem::replace(&mut peer.gone, Box::new(|| true));
                if measure::once(&peer).is_err() || !gone() {
                    clear_limited(runtime)?;
                    return Ok(false);
                }
            }
            Ok(true)
        };
        while !starts(limit, &mut limited)? {
            limit *= 2;
            if limit > 1 << 30 {
                bail!("{name} starts nothing in a GiB");
            }
        }
        let target = if name != "brig" {
            ""
        } else if limit <= 512 << 10 {
            " (at most 512: met)"
        } else {
            " (at most 512: MISSED)"
        };
        println!("{name:34} {:>9}{target}", limit >> 10);
    }
    Ok(())
}

/// Removes what a container that did not start has left.
fn clear_limited(runtime: Option<&Runtime>) -> Result<()> {
    if let Some(runtime) = runtime {
        let _ = runtime.plain(&["delete", "--force", "limited"]);
    }
    measure::wait_for_children()?;
    for group in groups("limited")?.iter().filter(|g| g.exists()) {
        std::fs::remove_dir(group).with_context(|| format!("cannot remove {}", group.display()))?;
    }
    Ok(())
}

fn size_and_peak(place: &Place, runtimes: &[Runtime], spec: &Value) -> Result<()> {
    println!("\nbrig-runtime: size of the program, and the most memory that a process of `run` held, KiB");
    println!("{:34} {:>9} {:>9}", "", "size", "peak");
    write_bundle(place, spec, "run")?;
    for runtime in runtimes {
        let path = std::env::var("PATH").unwrap_or_default();
        let places = path.split(':').map(|directory| Path::new(directory).join(&runtime.program));
        let program = places.chain([PathBuf::from(&runtime.program)]).find(|p| p.is_file()).context("no program")?;
        let size = std::fs::metadata(&program)?.len();
        let mut peaks = Vec::new();
        for _ in 0..5 {
            let mut peer = runtime.run(place, "run")?;
            let file = place.text("peak");
            peer.command.splice(0..0, words(&[&[&place.text("bench-peak"), &file]]));
            measure::once(&peer)?;
            peaks.push(std::fs::read_to_string(&file)?.trim().parse::<u64>()?);
        }
        peaks.sort_unstable();
        let target = if runtime.name != "brig" {
            ""
        } else if size <= 3 << 20 {
            "  (size at most 3072: met)"
        } else {
            "  (size at most 3072: MISSED)"
        };
        println!("{:34} {:>9} {:>9}{target}", runtime.name, size >> 10, peaks[peaks.len() / 2]);
    }
    Ok(())
}

/// Removes what a failure has left of the containers that were to stay a while.
pub fn remove_containers(place: &Place) {
    for runtime in ["brig", "crun", "runc"] {
        let state = format!("oci-state/{runtime}");
        for entry in std::fs::read_dir(place.path(&state)).into_iter().flatten().flatten() {
            let program = if runtime == "brig" { place.text("alone/brig-runtime") } else { runtime.to_owned() };
            let (root, id) = (place.text(&state), entry.file_name().display().to_string());
            let delete = words(&[&[&program, "--root", &root, "delete", "--force", &id]]);
            let hidden = runtime == "crun" && Path::new(UNIFIED).exists();
            let _ = in_sight(hidden, || plain(&delete));
        }
    }
    let _ = rustix::mount::unmount(place.path("oci-state"), rustix::mount::UnmountFlags::DETACH);
}
