//! What other programs' tables drop of our traffic, and the one door that brig makes there.
//!
//! A packet passes every base chain of a hook, so accepting it in our table does not help where another table's forward
//! chain has the policy drop (Docker, ufw). There, two tagged rules go to the head of that chain, or of `DOCKER-USER`,
//! which Docker keeps for such rules: what comes from the bridge and what goes to it is accepted. Our own forward chain
//! still drops what was not published.
//!
//! The tag is the rule's comment, `brig: <bridge>`; by it they are found again. Rules of the older iptables-legacy
//! are not nftables rules and cannot be seen or changed from here; that they exist is reported.

use std::fs;

use rustix::io::Errno;

use crate::attach::open_netfilter;
use crate::error::{Error, Result};
use crate::firewall::TABLE;
use crate::message::{DUMP, Message, big_u32, find, string};
use crate::netlink::Socket;
use crate::nftables::{
    ACCEPT, DELETE_RULE, DROP, FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, GET_CHAIN, GET_GENERATION, GET_RULE, HEADER_LEN,
    META_IIFNAME, META_OIFNAME, NEW_CHAIN, NEW_RULE, Place, REG32, counter, equal, generation, header, meta, new_rule,
    read_comment, transaction, verdict,
};
use crate::plan::Bridge;

const ATTEMPTS: usize = 8;
const FORWARD_HOOK: u32 = 2;
const TAG: &str = "brig: ";

/// A forward chain of another program that drops what it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignDrop {
    /// The family: `ip`, `ip6` or `inet`.
    pub family: &'static str,
    /// The table, `filter` as a rule.
    pub table: String,
    /// The base chain, `FORWARD` as a rule.
    pub chain: String,
    /// The chain that brig's accepting rules go to: `DOCKER-USER`, or the base chain.
    pub door: String,
    /// Whether the rules are of iptables-legacy: then their policy is unknown, and brig cannot change them.
    pub legacy: bool,
}

/// Lists the forward chains of other programs that would drop containers' traffic, in this network namespace.
pub fn foreign_forward_drops() -> Result<Vec<ForeignDrop>> {
    let mut drops = list(&mut open_netfilter()?)?.1;
    for (family, path) in
        [("ip", "/proc/thread-self/net/ip_tables_names"), ("ip6", "/proc/thread-self/net/ip6_tables_names")]
    {
        // Absent where the kernel has no iptables-legacy, unreadable without privilege: nothing is known then.
        let names = fs::read_to_string(path).unwrap_or_default();
        if names.lines().any(|name| name == "filter") {
            let chain = "FORWARD".to_owned();
            drops.push(ForeignDrop { family, table: "filter".to_owned(), door: chain.clone(), chain, legacy: true });
        }
    }
    Ok(drops)
}

/// Removes every rule that brig has put into other programs' chains, in this network namespace.
pub fn remove_foreign_accepts() -> Result<()> {
    remove(&mut open_netfilter()?, None)
}

/// Puts the accepting rules for a bridge into each chain that drops; those that are there already are left alone.
pub(crate) fn accept(socket: &mut Socket, bridge: &Bridge) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let (generation, drops) = list(socket)?;
        let mut missing = Vec::new();
        for found in drops.iter().filter(|found| found.family != "ip6" || bridge.gateway6.is_some()) {
            if !has_accept(socket, found, &bridge.name)? {
                missing.push(found);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let result = transaction(socket, generation, |batch| {
            for found in &missing {
                for key in [META_OIFNAME, META_IIFNAME] {
                    let place = Place {
                        family: family_number(found.family),
                        table: &found.table,
                        chain: &found.door,
                        at_head: true,
                    };
                    let mut name = bridge.name.clone().into_bytes();
                    name.push(0);
                    new_rule(batch, &place, &format!("{TAG}{}", bridge.name), |batch| {
                        meta(batch, key, REG32);
                        equal(batch, REG32, &name);
                        counter(batch);
                        verdict(batch, ACCEPT);
                    });
                }
            }
        });
        let object = || missing.iter().map(|found| found.door.as_str()).collect::<Vec<_>>().join(", ");
        match result.map(|refusals| refusals.first().map(|refusal| refusal.errno)) {
            Ok(None) => return Ok(()),
            Ok(Some(Errno::RESTART | Errno::NOENT)) => {}
            Ok(Some(errno)) | Err(errno) => return Err(Error::kernel("add accepting rules to chain", object(), errno)),
        }
    }
    Err(Error::kernel("add accepting rules for bridge", &bridge.name, Errno::RESTART))
}

fn family_name(number: u8) -> Option<&'static str> {
    match number {
        FAMILY_INET => Some("inet"),
        FAMILY_IPV4 => Some("ip"),
        FAMILY_IPV6 => Some("ip6"),
        _ => None,
    }
}

fn family_number(name: &str) -> u8 {
    match name {
        "inet" => FAMILY_INET,
        "ip" => FAMILY_IPV4,
        _ => FAMILY_IPV6,
    }
}

/// Gives the ruleset's generation and the chains that drop.
fn list(socket: &mut Socket) -> Result<(Option<u32>, Vec<ForeignDrop>)> {
    let mut batch = socket.batch();
    batch.message(GET_GENERATION, 0, &header(0), |_| {});
    batch.message(GET_CHAIN, DUMP, &header(0), |_| {});
    let mut number = None;
    let mut drops: Vec<ForeignDrop> = Vec::new();
    let mut doors: Vec<(&'static str, String)> = Vec::new();
    let refusals = socket
        .exchange(&batch, |index, found| {
            if index == 0 {
                number = generation(&found);
            } else if found.kind == NEW_CHAIN {
                sort_chain(&found, &mut drops, &mut doors);
            }
        })
        .map_err(|errno| Error::kernel("list chains of", "nftables", errno))?;
    if let Some(refusal) = refusals.first() {
        return Err(Error::kernel("list chains of", "nftables", refusal.errno));
    }
    for found in &mut drops {
        let door = doors.iter().any(|(family, table)| *family == found.family && *table == found.table);
        if door && found.chain == "FORWARD" {
            "DOCKER-USER".clone_into(&mut found.door);
        }
    }
    Ok((number, drops))
}

fn sort_chain(found: &Message<'_>, drops: &mut Vec<ForeignDrop>, doors: &mut Vec<(&'static str, String)>) {
    let Some(family) = found.payload.first().copied().and_then(family_name) else { return };
    let Some(attributes) = found.payload.get(HEADER_LEN..) else { return };
    let table = find(attributes, 1).map(string).unwrap_or_default();
    let chain = find(attributes, 3).map(string).unwrap_or_default();
    if table == TABLE && family == "inet" {
        return;
    }
    if chain == "DOCKER-USER" {
        doors.push((family, table.to_owned()));
    }
    let hook = find(attributes, 4).and_then(|hook| find(hook, 1)).and_then(big_u32);
    let policy = find(attributes, 5).and_then(big_u32);
    if hook == Some(FORWARD_HOOK) && policy == Some(DROP.cast_unsigned()) {
        let (table, chain) = (table.to_owned(), chain.to_owned());
        drops.push(ForeignDrop { family, table, door: chain.clone(), chain, legacy: false });
    }
}

fn has_accept(socket: &mut Socket, found: &ForeignDrop, bridge: &str) -> Result<bool> {
    let tag = format!("{TAG}{bridge}");
    let mut has = false;
    rules(socket, Some(found), |_, _, comment, _| has |= comment == tag)?;
    Ok(has)
}

/// Dumps the rules that have a comment: family, (table, chain), comment, handle.
fn rules(
    socket: &mut Socket,
    only: Option<&ForeignDrop>,
    mut each: impl FnMut(u8, (&str, &str), &str, &[u8]),
) -> Result<Option<u32>> {
    let mut batch = socket.batch();
    batch.message(GET_GENERATION, 0, &header(0), |_| {});
    batch.message(GET_RULE, DUMP, &header(only.map_or(0, |found| family_number(found.family))), |batch| {
        if let Some(found) = only {
            batch.text(1, &found.table);
            batch.text(2, &found.door);
        }
    });
    let mut number = None;
    let refusals = socket
        .exchange(&batch, |index, message| {
            if index == 0 {
                number = generation(&message);
            }
            if message.kind != NEW_RULE {
                return;
            }
            let attributes = message.payload.get(HEADER_LEN..).unwrap_or_default();
            let comment = find(attributes, 7).and_then(read_comment);
            if let (Some(comment), Some(&family)) = (comment, message.payload.first()) {
                let text = |kind| find(attributes, kind).map(string).unwrap_or_default();
                each(family, (text(1), text(2)), comment, find(attributes, 3).unwrap_or_default());
            }
        })
        .map_err(|errno| Error::kernel("list rules of", "nftables", errno))?;
    match refusals.iter().find(|refusal| refusal.errno != Errno::NOENT) {
        Some(refusal) => Err(Error::kernel("list rules of", "nftables", refusal.errno)),
        None => Ok(number),
    }
}

/// Removes the tagged rules of one bridge, or of every one.
pub(crate) fn remove(socket: &mut Socket, bridge: Option<&str>) -> Result<()> {
    let failed = |errno| Error::kernel("remove accepting rules from", "foreign chains", errno);
    for _ in 0..ATTEMPTS {
        let mut doomed: Vec<(u8, String, String, Vec<u8>)> = Vec::new();
        let generation = rules(socket, None, |family, (table, chain), comment, handle| {
            let tagged = comment.strip_prefix(TAG).is_some_and(|name| bridge.is_none_or(|bridge| bridge == name));
            if tagged {
                doomed.push((family, table.to_owned(), chain.to_owned(), handle.to_vec()));
            }
        })?;
        if doomed.is_empty() {
            return Ok(());
        }
        let refusals = transaction(socket, generation, |batch| {
            for (family, table, chain, handle) in &doomed {
                batch.message(DELETE_RULE, 0, &header(*family), |batch| {
                    batch.text(1, table);
                    batch.text(2, chain);
                    batch.attribute(3, handle);
                });
            }
        })
        .map_err(failed)?;
        match refusals.first().map(|refusal| refusal.errno) {
            None => return Ok(()),
            Some(Errno::RESTART | Errno::NOENT) => {}
            Some(errno) => return Err(failed(errno)),
        }
    }
    Err(failed(Errno::RESTART))
}
