//! `USER` of an image and `--user`: names become numbers by the container's own /etc/passwd and /etc/group.
//!
//! The files belong to the container and are treated as hostile: resolved inside the root, regular, of bounded size,
//! numbers range-checked. `65534:` and `+1` are refused by one parser for every way in.

use crate::error::Error;
use brig_sys::root::Root;
use std::path::Path;

/// The most bytes that are read of either file.
const FILE_MAX: u64 = 4 << 20;

/// The identity of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// The home directory, `/` when nothing names one.
    pub home: String,
}

/// Reads a number as an id: decimal digits only, below 2^31 as Docker has it.
fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok())
}

fn is_numeric(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let (uid, gid) = (number(fields.get(2)?)?, number(fields.get(3)?)?);
        Some(Account { name: fields.first()?, uid, gid, home: fields.get(5).copied().unwrap_or("/") })
    })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = number(fields.nth(1)?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or("") })
    })
}

fn read(root: &Root, path: &str) -> String {
    // A file that is missing, too big or no file at all means that there are no names.
    root.read_file(Path::new(path), FILE_MAX)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Resolves `user[:group]` and further groups against the files of `root`.
pub fn resolve(root: &Root, wanted: &str, additional: &[String]) -> Result<Identity, Error> {
    resolve_in(&read(root, "/etc/passwd"), &read(root, "/etc/group"), wanted, additional)
}

fn resolve_in(passwd: &str, group: &str, wanted: &str, additional: &[String]) -> Result<Identity, Error> {
    let step = || format!("find the user `{wanted}`");
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let account = if is_numeric(user) {
        let uid = number(user).ok_or_else(|| Error::invalid(step(), "user ids go from 0 to 2147483647"))?;
        accounts(passwd).find(|a| a.uid == uid).unwrap_or(Account { name: "", uid, gid: 0, home: "/" })
    } else {
        accounts(passwd)
            .find(|a| a.name == user)
            .ok_or_else(|| Error::invalid(step(), format!("the image's /etc/passwd has no user `{user}`")))?
    };
    let find_group = |name: &str| -> Result<u32, Error> {
        if is_numeric(name) {
            return number(name).ok_or_else(|| Error::invalid(step(), "group ids go from 0 to 2147483647"));
        }
        groups(group)
            .find(|g| g.name == name)
            .map(|g| g.gid)
            .ok_or_else(|| Error::invalid(step(), format!("the image's /etc/group has no group `{name}`")))
    };
    let mut list = Vec::new();
    let gid = match wanted_group {
        Some("") => return Err(Error::invalid(step(), "nothing stands after the colon")),
        Some(name) => find_group(name)?,
        None => {
            let member = |g: &Group<'_>| !account.name.is_empty() && g.members.split(',').any(|m| m == account.name);
            list.extend(groups(group).filter(member).map(|g| g.gid));
            account.gid
        }
    };
    for name in additional {
        list.push(find_group(name)?);
    }
    list.sort_unstable();
    list.dedup();
    let home = if account.home.is_empty() { "/" } else { account.home };
    Ok(Identity { uid: account.uid, gid, groups: list, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\nodd:x:99999999999:1:::\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlog:x:4:web,mail\ncd:x:24:web\n";

    fn get(wanted: &str, more: &[&str]) -> Result<Identity, String> {
        let more: Vec<String> = more.iter().map(|m| (*m).to_owned()).collect();
        resolve_in(PASSWD, GROUP, wanted, &more).map_err(|e| e.source.to_string())
    }

    #[test]
    fn names_and_numbers() {
        let id =
            |uid, gid, groups: &[u32], home: &str| Identity { uid, gid, groups: groups.to_vec(), home: home.into() };
        for (wanted, want) in [
            ("", id(0, 0, &[], "/root")),
            ("web", id(33, 33, &[4, 24], "/var/www")),
            ("33", id(33, 33, &[4, 24], "/var/www")),
            ("web:log", id(33, 4, &[], "/var/www")),
            ("1234", id(1234, 0, &[], "/")),
            ("1234:4321", id(1234, 4321, &[], "/")),
            (":33", id(0, 33, &[], "/root")),
        ] {
            assert_eq!(get(wanted, &[]), Ok(want), "{wanted}");
        }
        assert_eq!(get("1000", &["log", "7", "7"]).unwrap().groups, [4, 7]);
    }

    #[test]
    fn odd_ones_are_refused() {
        for bad in ["0:", "0:0:", "+1", "-1", "4294967296", "2147483648", "nobody", "web:none", "0x0", " 0", "odd"] {
            assert!(get(bad, &[]).is_err(), "{bad}");
        }
        assert!(get("0", &["none"]).is_err());
    }
}
