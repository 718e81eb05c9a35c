//! Device rules as a program of extended BPF (`BPF_PROG_TYPE_CGROUP_DEVICE`, bpf-helpers(7)).
//!
//! The rules are gone through from the last to the first. What is left of the access asked for shrinks with each rule that
//! allows a part of it; a rule that refuses a part of what is left ends it, and so does the last rule's end.

use super::{EVERYTHING, Rule};
use brig_sys::bpf::Instruction;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const EXIT: u8 = 0x95;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_EQUAL: u8 = 0x15;

const fn op(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

/// Builds the program. r2 is the type, r3 what is left of the access, r4 major, r5 minor.
pub(super) fn of(rules: &[Rule]) -> Vec<Instruction> {
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
        if let Some(block) = rule.block {
            test.push(op(JUMP_NOT_EQUAL, 0x02, 0, if block { 1 } else { 2 }));
        }
        for (register, number) in [(0x04, rule.major), (0x05, rule.minor)] {
            if let Some(number) = number {
                test.push(op(JUMP_NOT_EQUAL, register, 0, number.cast_signed()));
            }
        }
        let access = i32::from(rule.access);
        if rule.access != EVERYTHING && rule.allow {
            test.push(op(AND_32, 0x03, 0, !access));
            test.push(op(JUMP_NOT_EQUAL, 0x03, 0, 0));
        } else if rule.access != EVERYTHING {
            test.push(op(MOVE, 0x31, 0, 0));
            test.push(op(AND_32, 0x01, 0, access));
            test.push(op(JUMP_EQUAL, 0x01, 0, 0));
        }
        let length = test.len();
        for (at, instruction) in test.iter_mut().enumerate() {
            if matches!(instruction.code, JUMP_NOT_EQUAL | JUMP_EQUAL) {
                // Over the rest of the tests and the two instructions of the answer.
                instruction.offset = i16::try_from(length - at - 1 + 2).unwrap_or(i16::MAX);
            }
        }
        code.extend(test);
        code.push(op(MOVE_IMMEDIATE, 0, 0, i32::from(rule.allow)));
        code.push(op(EXIT, 0, 0, 0));
        if length == 0 {
            return code; // nothing after an unconditional answer can be reached, and the verifier refuses such code
        }
    }
    code.push(op(MOVE_IMMEDIATE, 0, 0, 0));
    code.push(op(EXIT, 0, 0, 0));
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::devices::{PROGRAM_NAME, with_defaults};
    use brig_sys::device_programs;

    fn rules(json: &str) -> Vec<Rule> {
        let rules: Vec<brig_spec::runtime::LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        rules.iter().map(|rule| Rule::parse(rule).unwrap()).collect()
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
                LOAD_WORD => r[to] = context[usize::try_from(i.offset / 4).unwrap()],
                MOVE => r[to] = r[from],
                MOVE_IMMEDIATE => r[to] = i.immediate.into(),
                AND_32 => r[to] &= i64::from(i.immediate.cast_unsigned()),
                SHIFT_RIGHT_32 => r[to] >>= i.immediate,
                JUMP_NOT_EQUAL => jump(r[to] != i64::from(i.immediate)),
                JUMP_EQUAL => jump(r[to] == i64::from(i.immediate)),
                EXIT => return r[0] != 0,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_rule_that_speaks_decides() {
        let code = of(&rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
                {"allow":true,"type":"c","major":136,"access":"rw"},{"allow":true,"type":"b","access":"m"},
                {"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]"#,
        ));
        assert!(allowed(&code, 2, 2, 1, 3));
        assert!(!allowed(&code, 2, 4, 1, 3), "writing is forbidden again");
        assert!(!allowed(&code, 2, 6, 1, 3), "and so is reading and writing in one");
        assert!(allowed(&code, 2, 6, 136, 7));
        assert!(!allowed(&code, 2, 7, 136, 7), "mknod was not allowed there");
        assert!(allowed(&code, 1, 1, 8, 0));
        assert!(!allowed(&code, 1, 2, 8, 0));
        assert!(!allowed(&code, 2, 2, 5, 0));
    }

    #[test]
    fn two_rules_may_each_allow_a_part() {
        let code = of(&rules(
            r#"[{"allow":true,"type":"c","major":1,"minor":3,"access":"r"},{"allow":true,"type":"c","major":1,"minor":3,"access":"w"}]"#,
        ));
        assert!(allowed(&code, 2, 6, 1, 3));
        assert!(!allowed(&code, 2, 7, 1, 3));
        assert!(!allowed(&code, 2, 6, 1, 5));
    }

    #[test]
    fn without_a_rule_only_the_defaults_are_allowed() {
        let code = of(&with_defaults(&[]).unwrap());
        assert!(allowed(&code, 2, 7, 1, 3) && allowed(&code, 2, 6, 136, 0) && allowed(&code, 1, 1, 8, 0));
        assert!(!allowed(&code, 1, 2, 8, 0) && !allowed(&code, 2, 2, 1, 1) && !allowed(&code, 2, 6, 10, 200));
    }

    #[test]
    fn the_verifier_takes_the_program() {
        let some = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
            {"allow":false,"type":"b","minor":3,"access":"r"},{"allow":false,"access":"w"},{"allow":true,"major":4294967295}]"#;
        for json in [some, r#"[{"allow":true,"access":"rwm"}]"#, "[]"] {
            let program = device_programs::load(PROGRAM_NAME, &of(&rules(json))).unwrap();
            let name = device_programs::name(std::os::fd::AsFd::as_fd(&program)).unwrap();
            assert_eq!(name.as_bytes(), PROGRAM_NAME.to_bytes());
        }
    }
}
