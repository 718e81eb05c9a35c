//! Mount options of the runtime specification: attributes, propagation, and what is left for the file system.

use brig_sys::mounts::{self as attribute, Attributes, set_attributes};
use std::os::fd::BorrowedFd;

const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// The option that sets [`Options::no_symlinks`].
pub const NO_SYMLINKS: &str = "x-brig.no-symlinks";

/// The options of one mount, sorted by who takes them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// A bind, recursive or not.
    pub bind: bool,
    /// Whether the bind takes along what is mounted below.
    pub recursive: bool,
    /// Attributes of this mount alone.
    pub attributes: Attributes,
    /// Attributes of this mount and all below (`rro` and the like).
    pub recursive_attributes: Attributes,
    /// Propagation of this mount, and whether it holds for all below.
    pub propagation: Option<(u64, bool)>,
    /// Whether a new tmpfs first receives what the root has there.
    pub copy_up: bool,
    /// Whether the words named any attribute: then those of a bind's source that they do not name are taken away.
    pub named: bool,
    /// Whether they named any setting of the access time: these are replaced together.
    pub time_named: bool,
    /// Whether ids are shown through a user namespace, and whether that holds for all below.
    pub idmap: Option<bool>,
    /// Whether a bind's source may not lead through a symbolic link: its path was resolved already, inside a volume that others
    /// may be changing.
    pub no_symlinks: bool,
    /// The SELinux label of a new file system.
    pub label: Option<String>,
    /// Options of the file system: `size=64m`.
    pub data: Vec<(String, Option<String>)>,
}

enum Change {
    Set(u64),
    Clear(u64),
    Atime(u64),
}

fn change(name: &str) -> Option<Change> {
    Some(match name {
        "ro" => Change::Set(attribute::RDONLY),
        "rw" => Change::Clear(attribute::RDONLY),
        "nosuid" => Change::Set(attribute::NOSUID),
        "suid" => Change::Clear(attribute::NOSUID),
        "nodev" => Change::Set(attribute::NODEV),
        "dev" => Change::Clear(attribute::NODEV),
        "noexec" => Change::Set(attribute::NOEXEC),
        "exec" => Change::Clear(attribute::NOEXEC),
        "nodiratime" => Change::Set(attribute::NODIRATIME),
        "nosymfollow" => Change::Set(attribute::NOSYMFOLLOW),
        "symfollow" => Change::Clear(attribute::NOSYMFOLLOW),
        "noatime" => Change::Atime(attribute::NOATIME),
        "strictatime" => Change::Atime(attribute::STRICTATIME),
        "relatime" => Change::Atime(0),
        _ => return None,
    })
}

impl Change {
    fn apply(&self, to: &mut Attributes) {
        match *self {
            Self::Set(bit) => {
                to.set |= bit;
                to.clear &= !bit;
            }
            Self::Clear(bit) => {
                to.clear |= bit;
                to.set &= !bit;
            }
            Self::Atime(value) => {
                // The access time settings are one field: all of it is cleared whenever one value is set.
                to.clear |= attribute::ATIME;
                to.set = (to.set & !attribute::ATIME) | value;
            }
        }
    }
}

impl Options {
    /// Sorts the options. Errors, as text: two words that exclude each other.
    pub fn parse(options: &[String]) -> Result<Self, String> {
        let mut sorted = Self::default();
        for option in options {
            let name = option.as_str();
            if let Some(change) = change(name) {
                change.apply(&mut sorted.attributes);
                sorted.named = true;
                sorted.time_named |= matches!(name, "noatime" | "relatime" | "strictatime" | "nodiratime");
                continue;
            }
            if let Some(change) = name.strip_prefix('r').and_then(change) {
                change.apply(&mut sorted.recursive_attributes);
                continue;
            }
            match name {
                "bind" => sorted.bind = true,
                "rbind" => (sorted.bind, sorted.recursive) = (true, true),
                "private" => sorted.propagation = Some((MS_PRIVATE, false)),
                "rprivate" => sorted.propagation = Some((MS_PRIVATE, true)),
                "slave" => sorted.propagation = Some((MS_SLAVE, false)),
                "rslave" => sorted.propagation = Some((MS_SLAVE, true)),
                "shared" => sorted.propagation = Some((MS_SHARED, false)),
                "rshared" => sorted.propagation = Some((MS_SHARED, true)),
                "unbindable" => sorted.propagation = Some((MS_UNBINDABLE, false)),
                "runbindable" => sorted.propagation = Some((MS_UNBINDABLE, true)),
                "tmpcopyup" => sorted.copy_up = true,
                "idmap" => sorted.idmap = Some(false),
                "ridmap" => sorted.idmap = Some(true),
                NO_SYMLINKS => sorted.no_symlinks = true,
                // No file system asks for these any more; and those of the access time change nothing by themselves: every other
                // setting of it takes their place.
                "defaults" | "async" | "nomand" | "mand" | "silent" | "loud" | "noiversion" | "iversion"
                | "nolazytime" | "remount" | "atime" | "norelatime" | "nostrictatime" | "diratime" | "ratime"
                | "rnorelatime" | "rnostrictatime" => {}
                "rdiratime" => Change::Clear(attribute::NODIRATIME).apply(&mut sorted.recursive_attributes),
                "" => return Err("an option is empty".into()),
                _ => {
                    let (key, value) = match name.split_once('=') {
                        Some((key, value)) => (key, Some(value.to_owned())),
                        None => (name, None),
                    };
                    sorted.data.push((key.to_owned(), value));
                }
            }
        }
        Ok(sorted)
    }

    /// Gives a detached bind its attributes and its propagation; private unless something else was asked for.
    ///
    /// Without a word the attributes of the source stay. With one, the bind has those that are named and no others; but what a
    /// source mount forbids (`ro`, `nosuid`, `nodev`, `noexec`) stays forbidden to a container with a user namespace, whose root
    /// could not have lifted it: `locked`. Errors: such a one is lifted by name (`EPERM`).
    pub fn apply(&self, mount: BorrowedFd<'_>, locked: bool) -> std::io::Result<()> {
        let (propagation, recursive) = self.propagation.unwrap_or((MS_PRIVATE, true));
        if self.recursive {
            set_attributes(mount, &Attributes { propagation, ..Attributes::default() }, recursive)?;
        }
        let mut attributes = self.of_bind();
        if locked {
            attributes = self.keep_locked(attributes, mount)?;
        }
        if !self.recursive {
            // There is one mount, and one call does for it.
            attributes.propagation = propagation;
        }
        for (attributes, recursive) in [(attributes, false), (self.recursive_attributes, true)] {
            if attributes.set != 0 || attributes.clear != 0 || attributes.propagation != 0 {
                set_attributes(mount, &attributes, recursive)?;
            }
        }
        Ok(())
    }

    /// The same for a mount and all single binds below it at once.
    pub fn apply_to_all(&self, top: BorrowedFd<'_>) -> std::io::Result<()> {
        let (propagation, _) = self.propagation.unwrap_or((MS_PRIVATE, true));
        set_attributes(top, &Attributes { propagation, ..self.of_bind() }, true)?;
        let recursive = &self.recursive_attributes;
        if recursive.set != 0 || recursive.clear != 0 { set_attributes(top, recursive, true) } else { Ok(()) }
    }

    /// The attributes of a bind, with those that it does not keep of its source.
    fn of_bind(&self) -> Attributes {
        let mut attributes = self.attributes;
        if self.named {
            attributes.clear |= BESIDE_TIME & !attributes.set;
        }
        if self.time_named {
            attributes.clear |= attribute::ATIME | (attribute::NODIRATIME & !attributes.set);
        }
        attributes
    }
}

impl Options {
    /// Leaves a bind for a user namespace what its source mount forbids, as the kernel would if the container's root had made it.
    fn keep_locked(&self, mut attributes: Attributes, mount: BorrowedFd<'_>) -> std::io::Result<Attributes> {
        let present = attributes_of(mount)?;
        let mut lifted = present & LOCKABLE & self.attributes.clear;
        if self.time_named {
            lifted |= (present ^ attributes.set) & TIME;
        }
        if lifted == 0 {
            attributes.clear &= !(present & LOCKABLE);
            return Ok(attributes);
        }
        let words: Vec<&str> =
            LOCKED_WORDS.iter().filter(|(bit, _)| lifted & bit != 0).map(|(_, word)| *word).collect();
        let why = format!("operation not permitted: `{}` of the source cannot be lifted", words.join("`, `"));
        Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why))
    }
}

/// The attributes that a bind loses when words name others; those of the access time stay.
const BESIDE_TIME: u64 =
    attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC | attribute::NOSYMFOLLOW;
/// The attributes that the kernel locks on their way into a user namespace; mount_namespaces(7).
const LOCKABLE: u64 = attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC;
const TIME: u64 = attribute::NOATIME | attribute::STRICTATIME | attribute::NODIRATIME;
const LOCKED_WORDS: [(u64, &str); 7] = [
    (attribute::RDONLY, "ro"),
    (attribute::NOSUID, "nosuid"),
    (attribute::NODEV, "nodev"),
    (attribute::NOEXEC, "noexec"),
    (attribute::NOATIME, "the access time"),
    (attribute::STRICTATIME, "the access time"),
    (attribute::NODIRATIME, "the access time of directories"),
];

/// Reads which attributes a mount has that can be locked.
fn attributes_of(mount: BorrowedFd<'_>) -> std::io::Result<u64> {
    use rustix::fs::StatVfsMountFlags as F;
    let flags = rustix::fs::fstatvfs(mount)?.f_flag;
    let pairs = [
        (F::RDONLY, attribute::RDONLY),
        (F::NOSUID, attribute::NOSUID),
        (F::NODEV, attribute::NODEV),
        (F::NOEXEC, attribute::NOEXEC),
        (F::NOATIME, attribute::NOATIME),
        (F::NODIRATIME, attribute::NODIRATIME),
    ];
    let named = pairs.into_iter().filter(|(flag, _)| flags.contains(*flag)).fold(0, |all, (_, bit)| all | bit);
    // The strictest setting is the one that has no flag.
    let strict = !flags.intersects(F::NOATIME | F::RELATIME);
    Ok(named | if strict { attribute::STRICTATIME } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn words_are_sorted_by_who_takes_them() {
        let o = parse("rbind,ro,rslave,rnosuid,size=64m,mode=1777,noswap");
        assert!(o.bind && o.recursive);
        assert_eq!(o.attributes.set, attribute::RDONLY);
        assert_eq!(o.recursive_attributes.set, attribute::NOSUID);
        assert_eq!(o.propagation, Some((MS_SLAVE, true)));
        assert_eq!(o.data[0], ("size".into(), Some("64m".into())));
        assert_eq!(o.data[2], ("noswap".into(), None));
    }

    #[test]
    fn the_last_word_wins() {
        let o = parse("ro,rw,nosuid,suid,nosuid");
        assert_eq!((o.attributes.set, o.attributes.clear), (attribute::NOSUID, attribute::RDONLY));
        let o = parse("noatime,strictatime");
        assert_eq!((o.attributes.set, o.attributes.clear), (attribute::STRICTATIME, attribute::ATIME));
    }

    #[test]
    fn recursive_forms_are_not_mistaken_for_others() {
        assert_eq!(parse("rro").recursive_attributes.set, attribute::RDONLY);
        assert_eq!(parse("relatime").attributes.clear, attribute::ATIME);
        assert_eq!(parse("rrelatime").recursive_attributes.clear, attribute::ATIME);
    }
}
