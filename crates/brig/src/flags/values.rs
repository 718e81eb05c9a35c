//! Single values of flags: sizes, ports, devices, limits. Each error names the flag and the form that it has.

use brig_engine::config::{DeviceRequest, PortRequest, Protocol, RestartPolicy, Throttle, Ulimit};
use brig_engine::{Error, Result};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Component, PathBuf};

/// The most bytes that a file named by a flag may have: 4 MiB.
const FILE_MAX: u64 = 4 << 20;

/// Reads a size as Docker does: a number with b, k, m, g, t (and an optional `b` or `ib` after it), powers of 1024.
pub fn bytes(flag: &str, text: &str) -> Result<u64> {
    let bad = || {
        Error::invalid(format!("`{text}` is not a size for `{flag}`")).hint("write a number with b, k, m or g: `512m`")
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).filter(|n| *n < 1 << 62).ok_or_else(bad);
    }
    let value = number.parse::<f64>().map_err(|_| bad())? * f64::from(1_u32 << 10).powi(shift / 10);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded and not negative")]
    (value.is_finite() && value < 4e18).then_some(value as u64).ok_or_else(bad)
}

/// Reads a size, or -1.
pub fn signed_bytes(flag: &str, text: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    bytes(flag, text).map(|n| i64::try_from(n).unwrap_or(i64::MAX))
}

/// Reads a number of CPUs, in billionths.
pub fn cpus(text: &str) -> Result<u64> {
    let bad =
        || Error::invalid(format!("`{text}` is not a number of CPUs")).hint("write a decimal number: `--cpus 1.5`");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 9 || !decimals.bytes().all(|b| b.is_ascii_digit()) || whole.is_empty() && decimals.is_empty() {
        return Err(bad());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let nano: u64 = format!("{decimals:0<9}").parse().map_err(|_| bad())?;
    whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(nano)).filter(|n| *n < 1 << 60).ok_or_else(bad)
}

/// Reads `DEVICE:RATE`.
pub fn throttle(flag: &str, text: &str, sized: bool) -> Result<Throttle> {
    let bad = || Error::invalid(format!("`{text}` is not of the form DEVICE:RATE for `{flag}`"));
    let (path, rate) = text.rsplit_once(':').filter(|(path, _)| path.starts_with('/')).ok_or_else(bad)?;
    let rate = if sized { bytes(flag, rate)? } else { rate.parse().map_err(|_| bad())? };
    Ok(Throttle { path: path.into(), rate })
}

/// Reads `NAME=SOFT[:HARD]`; -1 or `unlimited` for none.
pub fn ulimit(text: &str) -> Result<Ulimit> {
    let bad = || {
        Error::invalid(format!("`{text}` is not of the form NAME=SOFT[:HARD]")).hint("for example `nofile=1024:2048`")
    };
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    if !Ulimit::NAMES.contains(&name) {
        return Err(
            Error::invalid(format!("`{name}` is not a limit")).hint(format!("known are {}", Ulimit::NAMES.join(", ")))
        );
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        digits => digits.parse().map_err(|_| bad()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(Error::invalid(format!("the soft limit of `{text}` is above the hard one")));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// Reads `HOST[:INSIDE][:rwm]`.
pub fn device(text: &str) -> Result<DeviceRequest> {
    let bad = || Error::invalid(format!("`{text}` is not of the form HOST[:INSIDE[:rwm]]"));
    let access = |part: &str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|b| b"rwm".contains(&b));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, rights) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, rights] if access(rights) => (*host, *host, *rights),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, rights] if access(rights) => (*host, *inside, *rights),
        _ => return Err(bad()),
    };
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err(bad());
    }
    Ok(DeviceRequest { host: host.into(), container: inside.into(), access: rights.to_owned() })
}

/// Reads `NAME=VALUE`.
pub fn sysctl(text: &str) -> Result<(String, String)> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) =
        pair.ok_or_else(|| Error::invalid(format!("`{text}` is not of the form NAME=VALUE for `--sysctl`")))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Reads `NAME:ADDRESS` or `NAME=ADDRESS`.
pub fn extra_host(text: &str) -> Result<(String, String)> {
    let bad = || Error::invalid(format!("`{text}` is not of the form NAME:ADDRESS for `--add-host`"));
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty()
        || name.bytes().any(|b| b.is_ascii_whitespace())
        || bare != "host-gateway" && bare.parse::<IpAddr>().is_err()
    {
        return Err(bad());
    }
    Ok((name.to_owned(), bare.to_owned()))
}

/// Reads `[[ADDRESS:]PORT:]PORT[/PROTOCOL]`, where each port may be a range.
pub fn port(text: &str) -> Result<Vec<PortRequest>> {
    let bad = || {
        Error::invalid(format!("`{text}` is not a port to publish"))
            .hint("write `8080:80`, `127.0.0.1:8080:80` or `53:53/udp`")
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(bad()),
    };
    // An IPv6 address stands in brackets and has colons of its own.
    let (address, rest) = match ports.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once("]:").ok_or_else(bad)?;
            (Some(address), rest)
        }
        None => match ports.splitn(3, ':').collect::<Vec<_>>().as_slice() {
            [address, _, _] => (Some(*address), &ports[address.len() + 1..]),
            _ => (None, ports),
        },
    };
    let host_ip = match address.filter(|a| !a.is_empty()) {
        Some(address) => Some(address.parse::<IpAddr>().map_err(|_| bad())?),
        None => None,
    };
    let (host, inside) = match rest.split_once(':') {
        Some((host, inside)) => (Some(host).filter(|h| !h.is_empty()), inside),
        None => (None, rest),
    };
    let (first, last) = range(inside).ok_or_else(bad)?;
    let host = host.map(|h| range(h).ok_or_else(bad)).transpose()?;
    if host.is_some_and(|(a, b)| b - a != last - first) {
        return Err(Error::invalid(format!("the two ranges of `{text}` differ in length")));
    }
    let one = |n: u16| PortRequest {
        host_ip,
        host_port: host.map(|(from, _)| from + (n - first)),
        container_port: n,
        protocol,
    };
    Ok((first..=last).map(one).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |t: &str| t.parse::<u16>().ok().filter(|n| *n > 0 && t.bytes().all(|b| b.is_ascii_digit()));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Reads a restart policy.
pub fn restart(text: &str) -> Result<RestartPolicy> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    let count = if count.is_empty() { Some(0) } else { count.parse().ok() };
    match (name, count) {
        ("no" | "", Some(0)) => Ok(RestartPolicy::No),
        ("always", Some(0)) => Ok(RestartPolicy::Always),
        ("unless-stopped", Some(0)) => Ok(RestartPolicy::UnlessStopped),
        ("on-failure", Some(count)) => Ok(RestartPolicy::OnFailure(count)),
        _ => Err(Error::invalid(format!("`{text}` is not a restart policy"))
            .hint("known are `no`, `on-failure[:N]`, `always` and `unless-stopped`")),
    }
}

/// Reads `NAME=VALUE`, or `NAME` whose value is taken from brig's own environment; nothing when it is not set there.
pub fn environment(text: &str) -> Result<Option<String>> {
    if text.starts_with('=') || text.is_empty() {
        return Err(Error::invalid(format!("`{text}` is not an environment variable")));
    }
    if text.contains('=') {
        return Ok(Some(text.to_owned()));
    }
    Ok(std::env::var(text).ok().map(|value| format!("{text}={value}")))
}

/// Reads a file of variables: one a line, `#` begins a comment.
pub fn env_file(path: &str) -> Result<Vec<String>> {
    let text = read_text(path, "the file of environment variables")?;
    let mut all = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Error::invalid(format!("`{line}` in {path} is not an environment variable")));
        }
        all.extend(environment(line)?);
    }
    Ok(all)
}

/// Reads labels, from flags and from files of one a line.
pub fn labels(list: &[String], files: &[String]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let mut add = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(Error::invalid(format!("`{text}` is not of the form KEY=VALUE")));
        }
        all.insert(key.to_owned(), value.to_owned());
        Ok(())
    };
    for path in files {
        let text = read_text(path, "the file of labels")?;
        text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')).try_for_each(&mut add)?;
    }
    list.iter().try_for_each(|text| add(text))?;
    Ok(all)
}

/// Reads a small text file.
pub fn read_text(path: &str, what: &str) -> Result<String> {
    let failed = |error: std::io::Error| Error::io(format!("cannot read {what} {path}"), error);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err(Error::invalid(format!("{what} {path} is larger than 4 MiB")));
    }
    Ok(text)
}

/// Makes a path absolute against the present directory, without looking at links, and without `.` and `..`.
pub fn absolute(text: &str) -> Result<PathBuf> {
    let path =
        std::path::absolute(text).map_err(|error| Error::invalid(format!("`{text}` is not a path")).because(error))?;
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    Ok(clean)
}

/// Checks a score for the OOM killer.
pub fn oom_score(score: Option<i32>) -> Result<Option<i32>> {
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::invalid(format!("`--oom-score-adj {score}` is not between -1000 and 1000")))
        }
        score => Ok(score),
    }
}

/// Reads `monotonic=SECONDS,boottime=SECONDS`.
pub fn time_offsets(text: &str) -> Result<(i64, i64)> {
    let bad = || Error::invalid(format!("`--time {text}` is not of the form `monotonic=SECONDS,boottime=SECONDS`"));
    let (mut monotonic, mut boottime) = (0, 0);
    for part in text.split(',') {
        let (clock, seconds) = part.split_once('=').ok_or_else(bad)?;
        let seconds = seconds.parse().map_err(|_| bad())?;
        match clock {
            "monotonic" => monotonic = seconds,
            "boottime" => boottime = seconds,
            _ => return Err(bad()),
        }
    }
    Ok((monotonic, boottime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, n) in
            [("1", 1), ("2b", 2), ("3k", 3072), ("4KB", 4096), ("1.5m", 1_572_864), ("2GiB", 2 << 30), ("1t", 1 << 40)]
        {
            assert_eq!(bytes("-m", text).unwrap(), n, "{text}");
        }
        for bad in ["", "m", "1x", "-1", "1e99g", "99999999999999999999", "1.2.3m", "nan"] {
            assert!(bytes("-m", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus_in_billionths() {
        for (text, n) in [("2", 2_000_000_000), (".5", 500_000_000), ("0.01", 10_000_000), ("1.", 1_000_000_000)] {
            assert_eq!(cpus(text).unwrap(), n, "{text}");
        }
        for bad in ["", ".", "-1", "1e3", "1.0000000001", "x"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports() {
        let one = |text: &str| port(text).unwrap().remove(0);
        assert_eq!((one("80").host_port, one("80").container_port), (None, 80));
        assert_eq!((one("8080:80").host_port, one("8080:80").container_port), (Some(8080), 80));
        assert_eq!(one("127.0.0.1:8080:80").host_ip, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(one("[::1]:8080:80").host_ip, Some("::1".parse().unwrap()));
        assert_eq!(one("127.0.0.1::80").host_port, None);
        assert_eq!(one("53:53/udp").protocol, Protocol::Udp);
        let range = port("8000-8002:80-82").unwrap();
        assert_eq!((range.len(), range[2].host_port, range[2].container_port), (3, Some(8002), 82));
        for bad in [
            "",
            "0",
            "x:80",
            "80:0",
            "80/sctp",
            "1-3:1-2",
            "9-8",
            "1.2.3:80:80",
            "::1:80:80",
            "[::1:80:80",
            "+80",
            "65536",
        ] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices() {
        let of = |text: &str| device(text).map(|d| (d.container, d.access)).unwrap();
        assert_eq!(of("/dev/a"), ("/dev/a".into(), "rwm".into()));
        assert_eq!(of("/dev/a:r"), ("/dev/a".into(), "r".into()));
        assert_eq!(of("/dev/a:/dev/b"), ("/dev/b".into(), "rwm".into()));
        assert_eq!(of("/dev/a:/dev/b:rm"), ("/dev/b".into(), "rm".into()));
    }

    #[test]
    fn paths_lose_their_dots() {
        assert_eq!(absolute("/a/./b/../c").unwrap(), PathBuf::from("/a/c"));
        assert!(absolute("x").unwrap().is_absolute());
    }
}
