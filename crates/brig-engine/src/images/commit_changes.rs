//! What `--change` says, of `commit` and `import`: instructions as a Dockerfile writes them, applied to a process's defaults.

use brig_spec::image::ProcessConfig;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::time::parse_duration;

/// Applies one instruction: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`, `LABEL`, `ONBUILD`, `STOPSIGNAL`, `USER`,
/// `VOLUME` or `WORKDIR`.
pub fn apply_change(change: &str, config: &mut ProcessConfig) -> Result<()> {
    let bad = || {
        Error::invalid(format!("`{change}` is not a change that can be made"))
            .hint("for example `CMD [\"sh\"]` or `ENV A=b`")
    };
    let change_text = change.trim();
    let end = change_text.find(|c: char| c.is_whitespace() || c == '=').ok_or_else(bad)?;
    let (word, rest) = (&change_text[..end], change_text[end + 1..].trim());
    if rest.is_empty() {
        return Err(bad());
    }
    let nothing = || Value::Object(Map::new());
    let list = || -> Result<Vec<String>> {
        if rest.starts_with('[') { serde_json::from_str(rest).map_err(|_| bad()) } else { words(rest).ok_or_else(bad) }
    };
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest).ok_or_else(bad)?),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest).ok_or_else(bad)?);
        }
        "ENV" => {
            for (key, value) in pairs(rest).ok_or_else(bad)? {
                let entry = format!("{key}={value}");
                match config.env.iter_mut().find(|old| old.split('=').next() == Some(key.as_str())) {
                    Some(old) => *old = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).ok_or_else(bad)?),
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => {
            let base = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
            config.working_dir = std::path::Path::new(base).join(rest).to_string_lossy().into_owned();
        }
        "EXPOSE" => {
            for port in words(rest).ok_or_else(bad)? {
                config.exposed_ports.insert(exposed(&port).ok_or_else(bad)?, nothing());
            }
        }
        "VOLUME" => config.volumes.extend(list()?.into_iter().map(|path| (path, nothing()))),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            if matches!(trigger.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(bad());
            }
            config.on_build.get_or_insert_default().push(rest.to_owned());
        }
        "HEALTHCHECK" => config.healthcheck = Some(health_check(rest).ok_or_else(bad)?),
        _ => return Err(bad()),
    }
    Ok(())
}

/// A command: a JSON list as it stands, anything else by a shell.
fn command(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

/// `80`, `80/udp`; the protocol is tcp where none is said.
fn exposed(port: &str) -> Option<String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let range: Vec<&str> = number.splitn(2, '-').collect();
    if range.iter().any(|n| n.parse::<u16>().is_err()) || !matches!(protocol, "tcp" | "udp" | "sctp") {
        return None;
    }
    Some(format!("{number}/{protocol}"))
}

/// `A=b C="d e"`, or the old form `A b c` with one name.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words(text)?
        .into_iter()
        .map(|word| word.split_once('=').filter(|(key, _)| !key.is_empty()).map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect()
}

/// Splits words as a shell does, with both kinds of quotes and the backslash.
fn words(text: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(letters.next()?),
            (None, c) if c.is_whitespace() => all.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    quote.is_none().then_some(all)
}

/// `NONE`, or `[--interval=..] [--timeout=..] [--start-period=..] [--start-interval=..] [--retries=N] CMD ...`.
fn health_check(text: &str) -> Option<Value> {
    if text.eq_ignore_ascii_case("none") {
        return Some(json!({ "Test": ["NONE"] }));
    }
    let mut check = Map::new();
    let mut rest = text;
    while rest.starts_with("--") {
        let (flag, after) = rest.split_once(char::is_whitespace)?;
        let (name, value) = flag.split_once('=')?;
        let (key, number) = match name {
            "--interval" => ("Interval", parse_duration(value)?),
            "--timeout" => ("Timeout", parse_duration(value)?),
            "--start-period" => ("StartPeriod", parse_duration(value)?),
            "--start-interval" => ("StartInterval", parse_duration(value)?),
            "--retries" => ("Retries", value.parse().ok()?),
            _ => return None,
        };
        check.insert(key.to_owned(), json!(number));
        rest = after.trim_start();
    }
    let (word, command) = rest.split_once(char::is_whitespace)?;
    let command = command.trim();
    if !word.eq_ignore_ascii_case("cmd") || command.is_empty() {
        return None;
    }
    let probe = if command.starts_with('[') {
        let list: Vec<String> = serde_json::from_str(command).ok()?;
        std::iter::once("CMD".to_owned()).chain(list).collect()
    } else {
        vec!["CMD-SHELL".to_owned(), command.to_owned()]
    };
    check.insert("Test".to_owned(), json!(probe));
    Some(Value::Object(check))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_dockerfile_instructions() {
        let mut config = ProcessConfig { env: vec!["A=old".into()], working_dir: "/srv".into(), ..Default::default() };
        for change in [
            "CMD [\"a\",\"b\"]",
            "entrypoint run me",
            "ENV A=b B=\"c d\" C='e f' D=g\\ h",
            "ENV OLD form of it",
            "EXPOSE 80 53/udp",
            "LABEL x=\"y z\" k=v",
            "VOLUME /v /w",
            "VOLUME [\"/x y\"]",
            "USER u:g",
            "WORKDIR app",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=5s --retries=3 CMD curl x",
        ] {
            apply_change(change, &mut config).unwrap();
        }
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run me"]);
        assert_eq!(config.env, ["A=b", "B=c d", "C=e f", "D=g h", "OLD=form of it"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.labels["x"], "y z");
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/v", "/w", "/x y"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("u:g", "/srv/app"));
        assert_eq!(config.on_build.unwrap(), ["RUN x"]);
        let check = config.healthcheck.unwrap();
        assert_eq!(check, json!({"Interval": 5_000_000_000_u64, "Retries": 3, "Test": ["CMD-SHELL", "curl x"]}));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for bad in [
            "",
            "CMD",
            "RUN x",
            "CMD [x",
            "ENV A",
            "ENV =b",
            "ENV A=\"b",
            "EXPOSE web",
            "EXPOSE 80/x",
            "LABEL x",
            "ONBUILD FROM x",
            "HEALTHCHECK x",
            "HEALTHCHECK --moon=1 CMD x",
            "HEALTHCHECK CMD",
            "VOLUME [",
        ] {
            assert!(apply_change(bad, &mut ProcessConfig::default()).is_err(), "{bad}");
        }
    }
}
