//! Tables of figures and ratios, and the rule that makes a run void.

use super::measure::Series;
use std::time::Duration;

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// How many times `a` takes what `b` takes.
pub fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

/// Prints one case: when the command returned, and when nothing of it was left; medians and least values, each beside the kernel alone and as a multiple of the first brig.
pub fn print(title: &str, all: &[Series], base: Option<&str>) {
    println!("\n{title}; {} runs each, ms", all.first().map_or(0, |s| s.samples.len()));
    let base = base.and_then(|name| all.iter().find(|s| s.name == name));
    let brig = all.iter().find(|s| s.name == "brig");
    println!(
        "{:34} {:>9} {:>9} {:>9} {:>9} {:>9}  {:>9} {:>9}",
        "", "returned", "gone", "least", "CPU", "least", "x kernel", "x brig"
    );
    for series in all {
        let (wall, wall_least) = series.of(|s| s.wall);
        let (cpu, cpu_least) = series.of(|s| s.cpu);
        let cpu_text = |d: Duration| if series.counts_cpu { format!("{:.2}", ms(d)) } else { "-".into() };
        let times =
            |other: Option<&Series>| other.map_or(String::new(), |o| format!("{:.2}", ratio(wall, o.of(|s| s.wall).0)));
        println!(
            "{:34} {:>9.2} {:>9.2} {:>9.2} {:>9} {:>9}  {:>9} {:>9}",
            series.name,
            ms(series.of(|s| s.returned).0),
            ms(wall),
            ms(wall_least),
            cpu_text(cpu),
            cpu_text(cpu_least),
            times(base),
            times(brig),
        );
    }
    if let (Some(base), Some(brig)) = (base, brig) {
        let by_cpu = ratio(brig.of(|s| s.cpu).0, base.of(|s| s.cpu).0);
        let by_least = ratio(brig.of(|s| s.wall).1, base.of(|s| s.wall).1);
        println!("brig against the kernel alone: {by_cpu:.2} by CPU, {by_least:.2} by the least until gone");
    }
}

/// Why the figures cannot be trusted: crun, a small C program, is known to take 2 to 4 times what the kernel alone takes.
pub fn void(all: &[Series], cold: bool) -> Option<String> {
    if cold {
        println!("after a pause all wait alike, so crun says nothing about the kernel alone");
        return None;
    }
    let find = |names: [&str; 2]| all.iter().find(|s| names.contains(&s.name.as_str()));
    let crun = find(["crun run, unfiltered", "crun"]);
    let (Some(crun), Some(bare)) = (crun, find(["kernel alone, plain, unfiltered", "the kernel alone"])) else {
        println!("crun is missing, so the kernel alone was not checked against it");
        return None;
    };
    let times = ratio(crun.of(|s| s.wall).0, bare.of(|s| s.wall).0);
    println!("crun against the kernel alone, both without a filter and an overlay: {times:.2} (2 to 4 is sane)");
    (!(2.0..=4.0).contains(&times)).then(|| format!("crun stands at {times:.2} times the kernel alone, not at 2 to 4"))
}

/// A ratio or a figure, and what was wanted of it.
#[derive(Debug)]
pub struct Target {
    what: String,
    found: f64,
    bound: f64,
    at_most: bool,
}

impl Target {
    /// It shall be no more than this.
    pub fn at_most(what: &str, found: f64, bound: f64) -> Self {
        Self { what: what.to_owned(), found, bound, at_most: true }
    }

    /// It shall be no less than this.
    pub fn at_least(what: &str, found: f64, bound: f64) -> Self {
        Self { what: what.to_owned(), found, bound, at_most: false }
    }

    /// Prints it, and whether it is met.
    pub fn print(&self) {
        let met = if self.at_most { self.found <= self.bound } else { self.found >= self.bound };
        let (word, met) = (if self.at_most { "at most" } else { "at least" }, if met { "met" } else { "MISSED" });
        println!("target: {}: {:.2}, {word} {}: {met}", self.what, self.found, self.bound);
    }
}
