//! Device rules: lines for v1, a program of extended BPF for v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`, bpf-helpers(7)).

use crate::error::{Context, Error};
use brig_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use brig_sys::bpf::{self, Instruction};
use std::path::Path;

/// What every container may do: make any node, and use these. (kind, major, minor, access)
pub const DEFAULT_RULES: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 10] = [
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
    (LinuxDeviceType::C, Some(136), None, "rwm"),
];

/// Adds to the rules what every container may do, as every runtime does: make nodes, and use the devices of the default
/// /dev. Without a rule there is nothing to add to.
pub(super) fn with_defaults(rules: &[LinuxDeviceCgroup]) -> Vec<LinuxDeviceCgroup> {
    let mut all = rules.to_vec();
    for (kind, major, minor, access) in DEFAULT_RULES {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true).set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access.into()));
        if !rules.iter().any(|r| line(r) == line(&rule) && r.allow()) {
            all.push(rule);
        }
    }
    all
}

/// Writes a rule as v1 reads it: `c 1:3 rwm`.
pub(super) fn line(rule: &LinuxDeviceCgroup) -> String {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => "b",
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
        _ => "a",
    };
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".into(), |n| n.to_string());
    let access = rule.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
    format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
}

/// Loads the program of these rules and attaches it to the cgroup.
pub(super) fn attach(directory: &Path, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    use rustix::fs::{Mode, OFlags};
    let step = || format!("control the devices of {}", directory.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::empty()).step(step)?;
    let program = bpf::load_device_program(&program(rules)).step(step)?;
    use std::os::fd::AsFd;
    bpf::attach_device_program(fd.as_fd(), program.as_fd()).step(step)
}

// Access bits of struct bpf_cgroup_dev_ctx.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// Builds the program: the last rule that speaks about the request decides, and without one it is refused.
///
/// r2 is the type, r3 the access asked for, r4 major, r5 minor.
fn program(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xbf;
    const MOVE_IMMEDIATE: u8 = 0xb7;
    const AND_32: u8 = 0x54;
    const SHIFT_RIGHT_32: u8 = 0x74;
    const EXIT: u8 = 0x95;
    const JUMP_NOT_EQUAL: u8 = 0x55;
    const JUMP_EQUAL: u8 = 0x15;
    let op = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    let mut code = vec![
        op(LOAD_WORD, 0x12, 0, 0),
        op(MOVE, 0x23, 0, 0),
        op(AND_32, 0x02, 0, 0xffff),
        op(SHIFT_RIGHT_32, 0x03, 0, 16),
        op(LOAD_WORD, 0x14, 4, 0),
        op(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut test = Vec::new();
        let skip =
            |code, registers, immediate, test: &mut Vec<Instruction>| test.push(op(code, registers, 0, immediate));
        match rule.typ() {
            Some(LinuxDeviceType::B) => skip(JUMP_NOT_EQUAL, 0x02, 1, &mut test),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => skip(JUMP_NOT_EQUAL, 0x02, 2, &mut test),
            _ => {}
        }
        let access = access_bits(rule.access().as_deref());
        if access != MKNOD | READ | WRITE {
            test.push(op(MOVE, 0x31, 0, 0));
            if rule.allow() {
                // An allowance speaks about the request only when it covers all of it.
                test.push(op(AND_32, 0x01, 0, !access));
                skip(JUMP_NOT_EQUAL, 0x01, 0, &mut test);
            } else {
                test.push(op(AND_32, 0x01, 0, access));
                skip(JUMP_EQUAL, 0x01, 0, &mut test);
            }
        }
        for (register, number) in [(0x04, rule.major()), (0x05, rule.minor())] {
            if let Some(number) = number.filter(|n| *n >= 0) {
                skip(JUMP_NOT_EQUAL, register, i32::try_from(number).unwrap_or(i32::MAX), &mut test);
            }
        }
        let length = test.len();
        for (at, instruction) in test.iter_mut().enumerate() {
            if matches!(instruction.code, JUMP_NOT_EQUAL | JUMP_EQUAL) {
                // Over the rest of the tests and the two instructions of the answer.
                instruction.offset = i16::try_from(length - at - 1 + 2).unwrap_or(i16::MAX);
            }
        }
        code.extend(test);
        code.push(op(MOVE_IMMEDIATE, 0, 0, i32::from(rule.allow())));
        code.push(op(EXIT, 0, 0, 0));
        if length == 0 {
            return code; // nothing after an unconditional answer can be reached, and the verifier refuses such code
        }
    }
    code.push(op(MOVE_IMMEDIATE, 0, 0, 0));
    code.push(op(EXIT, 0, 0, 0));
    code
}

fn access_bits(access: Option<&str>) -> i32 {
    let access = access.filter(|a| !a.is_empty()).unwrap_or("rwm");
    access.bytes().fold(0, |bits, b| {
        bits | match b {
            b'r' => READ,
            b'w' => WRITE,
            b'm' => MKNOD,
            _ => 0,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_str(json).unwrap()
    }

    /// Runs the program as the kernel would, for the few operations it is made of.
    fn allowed(code: &[Instruction], kind: i64, access: i64, major: i64, minor: i64) -> bool {
        let mut r = [0i64; 10];
        let context = [kind | access << 16, major, minor];
        let mut at = 0usize;
        loop {
            let i = code[at];
            at += 1;
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let mut jump = |taken: bool| at = if taken { at.strict_add_signed(i.offset.into()) } else { at };
            match i.code {
                0x61 => r[to] = context[usize::try_from(i.offset / 4).unwrap()],
                0xbf => r[to] = r[from],
                0xb7 => r[to] = i.immediate.into(),
                0x54 => r[to] &= i64::from(i.immediate.cast_unsigned()),
                0x74 => r[to] >>= i.immediate,
                0x55 => jump(r[to] != i64::from(i.immediate)),
                0x15 => jump(r[to] == i64::from(i.immediate)),
                0x95 => return r[0] != 0,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_rule_that_speaks_decides() {
        let code = program(&rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
                {"allow":true,"type":"c","major":136,"access":"rw"},{"allow":true,"type":"b","access":"m"},
                {"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]"#,
        ));
        assert!(allowed(&code, 2, 2, 1, 3));
        assert!(!allowed(&code, 2, 4, 1, 3), "writing is forbidden again");
        assert!(allowed(&code, 2, 6, 136, 7));
        assert!(!allowed(&code, 2, 7, 136, 7), "mknod was not allowed there");
        assert!(allowed(&code, 1, 1, 8, 0));
        assert!(!allowed(&code, 1, 2, 8, 0));
        assert!(!allowed(&code, 2, 2, 5, 0));
    }

    #[test]
    fn the_verifier_takes_the_program() {
        let code = program(&rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}]"#,
        ));
        bpf::load_device_program(&code).unwrap();
        bpf::load_device_program(&program(&rules(r#"[{"allow":true,"access":"rwm"}]"#))).unwrap();
    }

    #[test]
    fn lines_of_v1() {
        let lines: Vec<String> = rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},{"allow":true,"type":"b","major":8}]"#,
        )
        .iter()
        .map(line)
        .collect();
        assert_eq!(lines, ["a *:* rwm", "c 1:3 rw", "b 8:* rwm"]);
    }
}
