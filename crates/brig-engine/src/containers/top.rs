//! The processes of a container, as `ps -ef` would show them on the machine.

use super::status;
use crate::config::Config;
use crate::error::Result;
use crate::record::Record;
use std::collections::HashMap;
use std::fs;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRow {
    /// The user on the machine, by name when /etc/passwd knows it.
    pub user: String,
    /// The pid on the machine.
    pub pid: i32,
    /// The parent's pid on the machine.
    pub ppid: i32,
    /// The state's letter, proc_pid_stat(5).
    pub state: char,
    /// When it was started, in clock ticks since boot.
    pub start_ticks: u64,
    /// The terminal: `?` or `pts/N`.
    pub tty: String,
    /// CPU time used, in clock ticks.
    pub cpu_ticks: u64,
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// The command with its arguments.
    pub command: String,
}

/// Lists the processes of a running container.
pub fn top(config: &Config, record: &Record) -> Result<Vec<ProcessRow>> {
    if !status::of(config, record).is_running() {
        return Err(super::not_running(record));
    }
    let users = users(&fs::read_to_string("/etc/passwd").unwrap_or_default());
    let mut pids = super::pause::cgroup(config, record)?.pids();
    pids.sort_unstable();
    pids.dedup();
    // A process may end while it is looked at.
    Ok(pids.into_iter().filter_map(|pid| row(pid, &users)).collect())
}

fn users(passwd: &str) -> HashMap<u32, String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    passwd.lines().filter_map(entry).collect()
}

fn row(pid: i32, users: &HashMap<u32, String>) -> Option<ProcessRow> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        line.and_then(|l| l.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    let uid = u32::try_from(value("Uid:")).unwrap_or_default();
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = cmdline.split(|b| *b == 0).filter(|w| !w.is_empty());
    let command = words.map(|w| String::from_utf8_lossy(w).into_owned()).collect::<Vec<_>>().join(" ");
    Some(ProcessRow {
        user: users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
        pid,
        ppid: i32::try_from(number(1)).unwrap_or_default(),
        state: fields.first()?.chars().next()?,
        start_ticks: number(19),
        tty: terminal(number(4)),
        cpu_ticks: number(11) + number(12),
        rss_kib: value("VmRSS:"),
        // Kernel threads and zombies have no command line.
        command: if command.is_empty() { format!("[{name}]") } else { command },
    })
}

/// Names a terminal by its device number: 136 to 143 are the slaves of pseudo-terminals.
fn terminal(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_as_it_is() {
        let me = i32::try_from(std::process::id()).unwrap();
        let row = row(me, &users("root:x:0:0::/root:/bin/sh\n")).unwrap();
        assert_eq!(row.pid, me);
        assert!(row.start_ticks > 0 && row.rss_kib > 0 && !row.command.is_empty());
        assert!(super::row(i32::MAX, &HashMap::new()).is_none());
    }

    #[test]
    fn terminals_by_number() {
        assert_eq!(terminal(0), "?");
        assert_eq!(terminal(136 << 8 | 3), "pts/3");
        assert_eq!(terminal(4 << 8 | 1), "tty1");
    }
}
