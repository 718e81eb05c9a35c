//! criu's requests and answers, as tables of the fields that are used; criu's `images/rpc.proto`.

use super::protobuf::{self, Field, Malformed, Message, field};
use std::collections::BTreeMap;

/// What criu is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

impl Kind {
    /// The name in messages for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::PreDump => "PRE_DUMP",
            Self::Notify => "NOTIFY",
            Self::FeatureCheck => "FEATURE_CHECK",
            Self::Version => "VERSION",
        }
    }
}

/// The fields of a request.
mod criu_req {
    use super::{Field, field};
    pub const TYPE: Field = field(1, "type");
    pub const OPTS: Field = field(2, "opts");
    pub const NOTIFY_SUCCESS: Field = field(3, "notify_success");
    pub const FEATURES: Field = field(5, "features");
}

/// The options of a dump or a restore.
pub(crate) mod options {
    use super::{Field, field};
    pub const IMAGES_DIR_FD: Field = field(1, "images_dir_fd");
    pub const PID: Field = field(2, "pid");
    pub const LEAVE_RUNNING: Field = field(3, "leave_running");
    pub const EXT_UNIX_SK: Field = field(4, "ext_unix_sk");
    pub const TCP_ESTABLISHED: Field = field(5, "tcp_established");
    pub const EVASIVE_DEVICES: Field = field(6, "evasive_devices");
    pub const SHELL_JOB: Field = field(7, "shell_job");
    pub const FILE_LOCKS: Field = field(8, "file_locks");
    pub const LOG_LEVEL: Field = field(9, "log_level");
    pub const LOG_FILE: Field = field(10, "log_file");
    pub const PAGE_SERVER: Field = field(11, "ps");
    pub const NOTIFY_SCRIPTS: Field = field(12, "notify_scripts");
    pub const ROOT: Field = field(13, "root");
    pub const PARENT_IMG: Field = field(14, "parent_img");
    pub const TRACK_MEM: Field = field(15, "track_mem");
    pub const AUTO_DEDUP: Field = field(16, "auto_dedup");
    pub const WORK_DIR_FD: Field = field(17, "work_dir_fd");
    pub const LINK_REMAP: Field = field(18, "link_remap");
    pub const EXT_MNT: Field = field(23, "ext_mnt");
    pub const CG_ROOT: Field = field(25, "cg_root");
    pub const RST_SIBLING: Field = field(26, "rst_sibling");
    pub const INHERIT_FD: Field = field(27, "inherit_fd");
    pub const MANAGE_CGROUPS_MODE: Field = field(34, "manage_cgroups_mode");
    pub const EXTERNAL: Field = field(37, "external");
    pub const EMPTY_NS: Field = field(38, "empty_ns");
    pub const JOIN_NS: Field = field(39, "join_ns");
    pub const FREEZE_CGROUP: Field = field(44, "freeze_cgroup");
    pub const TCP_SKIP_IN_FLIGHT: Field = field(46, "tcp_skip_in_flight");
    pub const LAZY_PAGES: Field = field(48, "lazy_pages");
    pub const ORPHAN_PTS_MASTER: Field = field(50, "orphan_pts_master");
    pub const CONFIG_FILE: Field = field(51, "config_file");
    pub const LSM_PROFILE: Field = field(53, "lsm_profile");
    pub const LSM_MOUNT_CONTEXT: Field = field(63, "lsm_mount_context");
}

/// Adds a pair of texts under one field: what `ext_mnt`, `join_ns` and `cg_root` have in common.
pub(crate) fn add_pair(options: &mut Message, field: Field, (first, second): (Field, Field), pair: (&[u8], &[u8])) {
    let mut message = Message::default();
    message.text(first, pair.0).text(second, pair.1);
    options.message(field, &message);
}

/// Adds a mount that is not part of the image: what it is at one side, and what it is called at the other.
pub(crate) fn add_mount(options: &mut Message, key: &[u8], value: &[u8]) {
    add_pair(options, options::EXT_MNT, (field(1, "key"), field(2, "val")), (key, value));
}

/// Adds a namespace that the restored processes join.
pub(crate) fn add_namespace(options: &mut Message, kind: &str, path: &[u8]) {
    let pair = (kind.as_bytes(), path);
    add_pair(options, options::JOIN_NS, (field(1, "ns"), field(2, "ns_file")), pair);
}

/// Adds the cgroup that takes the place of a hierarchy's recorded root.
pub(crate) fn add_cgroup_root(options: &mut Message, controller: &str, path: &str) {
    let pair = (controller.as_bytes(), path.as_bytes());
    add_pair(options, options::CG_ROOT, (field(1, "ctrl"), field(2, "path")), pair);
}

/// Adds a descriptor of the criu process that takes the place of a file, pipe or namespace.
pub(crate) fn add_descriptor(options: &mut Message, key: &str, number: i32) {
    let mut message = Message::default();
    message.text(field(1, "key"), key.as_bytes()).number(field(2, "fd"), number);
    options.message(options::INHERIT_FD, &message);
}

/// Adds the page server that gets, or gives, the memory.
pub(crate) fn add_page_server(options: &mut Message, address: &str, port: u16) {
    let mut message = Message::default();
    message.text(field(1, "address"), address.as_bytes()).number(field(2, "port"), port);
    options.message(options::PAGE_SERVER, &message);
}

/// A request for a version, a dump or a restore.
pub(crate) fn request(kind: Kind, options: Option<&Message>) -> Message {
    let mut message = Message::default();
    message.number(criu_req::TYPE, kind as i32);
    if let Some(options) = options {
        message.message(criu_req::OPTS, options);
    }
    message
}

/// A question whether this machine has a feature.
pub(crate) fn feature_request(feature: Feature) -> Message {
    let mut features = Message::default();
    features.flag(feature.field(), true);
    let mut message = Message::default();
    message.number(criu_req::TYPE, Kind::FeatureCheck as i32).message(criu_req::FEATURES, &features);
    message
}

/// The answer to a notification: whether criu is to go on.
pub(crate) fn notified(go_on: bool) -> Message {
    let mut message = Message::default();
    message.number(criu_req::TYPE, Kind::Notify as i32).flag(criu_req::NOTIFY_SUCCESS, go_on);
    message
}

/// What not every kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Soft-dirty bits, by which a dump leaves out what a pre-dump has.
    MemTrack,
    /// userfaultfd(2) for processes that are not the handler's own.
    LazyPages,
}

impl Feature {
    fn field(self) -> Field {
        match self {
            Self::MemTrack => field(1, "mem_track"),
            Self::LazyPages => field(2, "lazy_pages"),
        }
    }

    /// What people call it.
    pub fn words(self) -> &'static str {
        match self {
            Self::MemTrack => "memory tracking (soft-dirty bits)",
            Self::LazyPages => "lazy pages (userfaultfd)",
        }
    }
}

/// What criu says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub kind: i32,
    pub success: bool,
    /// The script of a notification, such as `post-restore`.
    pub script: Option<String>,
    /// The first process, in a notification that is about it.
    pub pid: i32,
    /// The errno of what failed.
    pub errno: i32,
    /// The version as one number: 3.17.1 is 31701.
    pub version: Option<i32>,
    features: BTreeMap<u32, bool>,
}

impl Response {
    /// Reads an answer.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut response = Self::default();
        for (number, value) in protobuf::fields(bytes)? {
            match number {
                1 => response.kind = value.as_i32(),
                2 => response.success = value.as_flag(),
                5 => {
                    for (number, value) in protobuf::fields(value.as_bytes())? {
                        match number {
                            1 => response.script = Some(value.as_text()),
                            2 => response.pid = value.as_i32(),
                            _ => {}
                        }
                    }
                }
                7 => response.errno = value.as_i32(),
                8 => {
                    let features = protobuf::fields(value.as_bytes())?;
                    response.features = features.into_iter().map(|(number, value)| (number, value.as_flag())).collect();
                }
                10 => response.version = Some(version(value.as_bytes())?),
                _ => {}
            }
        }
        Ok(response)
    }

    /// Says whether criu has looked and found a feature missing. An older one that knows nothing of it says nothing.
    pub fn lacks(&self, feature: Feature) -> bool {
        self.features.get(&feature.field().number) == Some(&false)
    }
}

/// A version that was built from between two releases counts as the next.
fn version(bytes: &[u8]) -> Result<i32, Malformed> {
    let (mut major, mut minor, mut sublevel, mut between) = (0, 0, 0, false);
    for (number, value) in protobuf::fields(bytes)? {
        match number {
            1 => major = value.as_i32(),
            2 => minor = value.as_i32(),
            3 => between = true,
            4 => sublevel = value.as_i32(),
            _ => {}
        }
    }
    let parts = [(major, 10_000), (minor, 100), (sublevel, 1)];
    let whole = parts.into_iter().fold(0_i32, |sum, (part, weight)| sum.saturating_add(part.saturating_mul(weight)));
    Ok(if between { (whole / 100).saturating_mul(100).saturating_add(100) } else { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fill: impl FnOnce(&mut Message)) -> Message {
        let mut message = Message::default();
        fill(&mut message);
        message
    }

    #[test]
    fn requests_name_their_kind_first() {
        let mut options = Message::default();
        options.number(options::PID, 42);
        add_mount(&mut options, b"/a", b"b");
        let dump = request(Kind::Dump, Some(&options));
        assert_eq!(dump.as_bytes(), b"\x08\x01\x12\x0c\x10\x2a\xba\x01\x07\x0a\x02/a\x12\x01b");
        assert_eq!(dump.shown(), ["type=1", r#"opts={pid=42, ext_mnt={key="/a", val="b"}}"#]);
        assert_eq!(notified(false).as_bytes(), b"\x08\x06\x18\x00");
        assert_eq!(feature_request(Feature::LazyPages).as_bytes(), b"\x08\x09\x2a\x02\x10\x01");
    }

    #[test]
    fn answers_are_read_by_their_numbers() {
        let notify = message(|m| {
            m.text(field(1, ""), b"post-restore").number(field(2, ""), 77);
        });
        let answer = message(|m| {
            m.number(field(1, ""), 6).flag(field(2, ""), true).message(field(5, ""), &notify);
        });
        let answer = Response::parse(answer.as_bytes()).unwrap();
        assert_eq!((answer.kind, answer.success, answer.pid), (Kind::Notify as i32, true, 77));
        assert_eq!(answer.script.as_deref(), Some("post-restore"));

        let failed = message(|m| {
            m.number(field(1, ""), 1)
                .flag(field(2, ""), false)
                .number(field(7, ""), -22)
                .text(field(9, ""), b"not read");
        });
        let failed = Response::parse(failed.as_bytes()).unwrap();
        assert_eq!((failed.success, failed.errno), (false, -22));
        assert!(Response::parse(b"\x2a\x05\x0a").is_err());
    }

    #[test]
    fn versions_and_features() {
        let parse = |major: i32, minor: i32, sublevel: Option<i32>, id: Option<&[u8]>| {
            let version = message(|m| {
                m.number(field(1, ""), major).number(field(2, ""), minor);
                if let Some(id) = id {
                    m.text(field(3, ""), id);
                }
                if let Some(sublevel) = sublevel {
                    m.number(field(4, ""), sublevel);
                }
            });
            let answer = message(|m| {
                m.number(field(1, ""), 10).flag(field(2, ""), true).message(field(10, ""), &version);
            });
            Response::parse(answer.as_bytes()).unwrap().version
        };
        assert_eq!(parse(3, 17, Some(1), None), Some(31_701));
        assert_eq!(parse(4, 2, None, None), Some(40_200));
        assert_eq!(parse(3, 16, Some(1), Some(b"v3.16.1-5")), Some(31_700));
        assert_eq!(parse(i32::MAX, i32::MAX, None, None), Some(i32::MAX));

        let features = message(|m| {
            m.flag(field(1, ""), false).flag(field(2, ""), true);
        });
        let answer = message(|m| {
            m.message(field(8, ""), &features);
        });
        let answer = Response::parse(answer.as_bytes()).unwrap();
        assert!(answer.lacks(Feature::MemTrack) && !answer.lacks(Feature::LazyPages));
        assert!(!Response::default().lacks(Feature::MemTrack));
    }
}
