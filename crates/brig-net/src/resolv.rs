//! The container's resolv.conf, made from the host's. See resolv.conf(5).
//!
//! A name server on the host's loopback (systemd-resolved's 127.0.0.53) cannot be reached from a container. Where there
//! is one, the file that systemd-resolved keeps beside it, with the real servers, is used instead.

use std::net::IpAddr;

/// Where systemd-resolved keeps the list of real name servers.
pub const UPLINK_PATH: &str = "/run/systemd/resolve/resolv.conf";

/// What comes of a host's resolv.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolv {
    /// The container's file.
    pub text: String,
    /// Whether at least one name server is left that a container can reach.
    pub has_server: bool,
}

/// Makes the container's resolv.conf from the host's; `uplink` is the text of [`UPLINK_PATH`] if that exists.
///
/// Search domains and options are kept. Servers on loopback are replaced by the uplink's, or left out. Link-local
/// servers (with a zone: `fe80::1%eth0`) are left out, for their interface is the host's.
pub fn container_resolv(host: &str, uplink: Option<&str>) -> Resolv {
    let loopback = servers(host).any(|server| server.is_loopback());
    let source = match uplink {
        Some(uplink) if loopback || servers(host).next().is_none() => uplink,
        _ => host,
    };
    let mut text = String::with_capacity(host.len());
    let mut has_server = false;
    for server in servers(source).filter(|server| !server.is_loopback()) {
        has_server = true;
        text.push_str("nameserver ");
        text.push_str(&server.to_string());
        text.push('\n');
    }
    // Domains and options come from the host's own file: the administrator writes there.
    for keyword in ["search", "options"] {
        let last = host.lines().rev().map(words).find(|words| first(words) == keyword || domain(words, keyword));
        if let Some(words) = last.filter(|words| words.len() > 1) {
            text.push_str(keyword);
            for word in &words[1..] {
                text.push(' ');
                text.push_str(word);
            }
            text.push('\n');
        }
    }
    Resolv { text, has_server }
}

/// `domain` is an older word for a `search` of one.
fn domain(words: &[&str], keyword: &str) -> bool {
    keyword == "search" && first(words) == "domain"
}

fn first<'a>(words: &[&'a str]) -> &'a str {
    words.first().copied().unwrap_or_default()
}

fn words(line: &str) -> Vec<&str> {
    let comment = line.starts_with([';', '#']);
    if comment { Vec::new() } else { line.split_whitespace().collect() }
}

fn servers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().map(words).filter(|words| first(words) == "nameserver").filter_map(|words| words.get(1)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let uplink = "# uplink\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch lan\n";
        let cases = [
            ("nameserver 192.0.2.1\n", None, "nameserver 192.0.2.1\n", true),
            ("nameserver 192.0.2.1\n", Some(uplink), "nameserver 192.0.2.1\n", true),
            (
                "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch home.arpa\n",
                Some(uplink),
                "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch home.arpa\noptions edns0 trust-ad\n",
                true,
            ),
            ("nameserver 127.0.0.53\n", None, "", false),
            ("nameserver ::1\nnameserver 192.0.2.9", None, "nameserver 192.0.2.9\n", true),
            ("", Some(uplink), "nameserver 192.0.2.53\nnameserver 2001:db8::53\n", true),
            ("", None, "", false),
            ("nameserver fe80::1%eth0\nnameserver 192.0.2.1\n", None, "nameserver 192.0.2.1\n", true),
            (
                "; nameserver 1.1.1.1\n#nameserver 1.1.1.1\nnameserver\t192.0.2.1  # x\n",
                None,
                "nameserver 192.0.2.1\n",
                true,
            ),
            ("search a\nsearch b c\nnameserver 192.0.2.1\n", None, "nameserver 192.0.2.1\nsearch b c\n", true),
            ("domain example.org\nnameserver 192.0.2.1\n", None, "nameserver 192.0.2.1\nsearch example.org\n", true),
            ("search\nnameserver bogus\n", None, "", false),
        ];
        for (host, uplink, text, has_server) in cases {
            let expected = Resolv { text: text.to_owned(), has_server };
            assert_eq!(container_resolv(host, uplink), expected, "from {host:?}");
        }
    }
}
