//! The instructions: a binary search tree over ranges, with argument tests at its leaves.

use super::{Outcome, RET_KILL_PROCESS};
use brig_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Op};
use brig_sys::seccomp::Instruction;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// Emits the whole program: the section of each architecture, the first of them tried first, and death for every other.
///
/// It is written from its end to its beginning, so that a jump knows how much it skips, and turned round in the end.
pub(super) fn program(sections: &[(u32, Vec<(u32, Outcome)>)]) -> Vec<Instruction> {
    let mut code = Vec::with_capacity(1024);
    code.push(op(RETURN, RET_KILL_PROCESS));
    for (audit, ranges) in sections.iter().rev() {
        let end = code.len();
        tree(&mut code, ranges);
        code.push(op(LOAD, NUMBER));
        branch(&mut code, EQUAL, *audit, end);
    }
    code.push(op(LOAD, ARCH));
    code.reverse();
    code
}

/// Emits `if test(k)` for all that was emitted since `end`, which never falls through.
fn branch(code: &mut Vec<Instruction>, test: u16, k: u32, end: usize) {
    let body = code.len() - end;
    if let Ok(skip) = u8::try_from(body) {
        code.push(Instruction { code: test, jt: 0, jf: skip, k });
    } else {
        code.push(op(JUMP, u32::try_from(body).unwrap_or(u32::MAX)));
        code.push(Instruction { code: test, jt: 1, jf: 0, k });
    }
}

fn tree(code: &mut Vec<Instruction>, ranges: &[(u32, Outcome)]) {
    if let [(_, only)] = ranges {
        return leaf(code, only);
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    tree(code, left);
    let end = code.len();
    tree(code, right);
    branch(code, AT_LEAST, right[0].0, end);
}

fn leaf(code: &mut Vec<Instruction>, outcome: &Outcome) {
    code.push(op(RETURN, outcome.last));
    for (tests, result) in outcome.tests.iter().rev() {
        let end = code.len();
        code.push(op(RETURN, *result));
        // Each test either goes on to the rest or skips it whole.
        for test in tests.iter().rev() {
            let rest = u8::try_from(code.len() - end).unwrap_or(u8::MAX);
            code.extend(argument_test(test, rest).into_iter().rev());
        }
    }
}

/// Writes one test of a 64-bit argument that falls through when it holds, and else skips `rest` more instructions.
///
/// At most six tests of at most seven instructions follow each other, so every jump here fits in eight bits.
fn argument_test(test: &LinuxSeccompArg, rest: u8) -> Vec<Instruction> {
    let at = ARGUMENTS + 8 * u32::try_from(test.index).unwrap_or(0);
    let (low_at, high_at) = (at, at + 4);
    let halves = |value: u64| ((value & 0xffff_ffff) as u32, (value >> 32) as u32);
    let (low, high) = halves(test.value);
    let jump = |code: u16, k: u32, jt: u8, jf: u8| Instruction { code, jt, jf, k };
    match test.op {
        Op::Eq => {
            vec![op(LOAD, high_at), jump(EQUAL, high, 0, rest + 2), op(LOAD, low_at), jump(EQUAL, low, 0, rest)]
        }
        Op::Ne => vec![op(LOAD, high_at), jump(EQUAL, high, 0, 2), op(LOAD, low_at), jump(EQUAL, low, rest, 0)],
        Op::MaskedEq => {
            // OCI: `value` is the mask and `valueTwo` what must remain.
            let (want_low, want_high) = halves(test.value_two.unwrap_or(0));
            vec![
                op(LOAD, high_at),
                op(AND, high),
                jump(EQUAL, want_high, 0, rest + 3),
                op(LOAD, low_at),
                op(AND, low),
                jump(EQUAL, want_low, 0, rest),
            ]
        }
        // a > v: high greater, or high equal and low greater.
        Op::Gt | Op::Ge => {
            let last = if test.op == Op::Gt { GREATER } else { AT_LEAST };
            vec![
                op(LOAD, high_at),
                jump(GREATER, high, 3, 0),
                jump(EQUAL, high, 0, rest + 2),
                op(LOAD, low_at),
                jump(last, low, 0, rest),
            ]
        }
        // a < v is not (a >= v), a <= v is not (a > v): the same with the ends exchanged.
        Op::Lt | Op::Le => {
            let last = if test.op == Op::Lt { AT_LEAST } else { GREATER };
            vec![
                op(LOAD, high_at),
                jump(GREATER, high, rest + 3, 0),
                jump(EQUAL, high, 0, 2),
                op(LOAD, low_at),
                jump(last, low, rest, 0),
            ]
        }
    }
}
