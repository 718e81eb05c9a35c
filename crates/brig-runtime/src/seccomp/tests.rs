//! Filters are run by a small interpreter of classic BPF against every call number, and once by the kernel itself.

use super::*;

/// What the kernel would answer: the instructions that the compiler emits, interpreted.
fn run(code: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    arguments.iter().for_each(|a| data.extend(a.to_le_bytes()));
    let (mut at, mut value) = (0usize, 0u32);
    loop {
        let i = code[at];
        at += 1;
        let taken = match i.code {
            0x20 => {
                let k = i.k as usize;
                value = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
                continue;
            }
            0x54 => {
                value &= i.k;
                continue;
            }
            0x05 => {
                at += i.k as usize;
                continue;
            }
            0x06 => return i.k,
            0x15 => value == i.k,
            0x25 => value > i.k,
            0x35 => value >= i.k,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(if taken { i.jt } else { i.jf });
    }
}

const X64: u32 = 0xc000_003e;

fn filter(json: &str) -> Vec<Instruction> {
    compile(&serde_json::from_str(json).unwrap(), |_| false).unwrap().instructions
}

#[test]
fn the_table_is_sorted_and_has_no_name_twice() {
    assert!(table::TABLE.windows(2).all(|w| w[0].0 < w[1].0));
}

#[test]
fn every_number_gets_the_answer_of_a_linear_search() {
    // Every third call allowed: the most ranges that a profile can have, and so the longest jumps.
    let names: Vec<String> = table::TABLE.iter().step_by(3).map(|r| format!("\"{}\"", r.0)).collect();
    let json = format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
            "syscalls":[{{"names":[{}],"action":"SCMP_ACT_ALLOW"}}]}}"#,
        names.join(",")
    );
    let code = filter(&json);
    assert!(code.len() > 600, "long enough for long jumps: {}", code.len());
    for (abi, offset) in [(Abi::X86_64, 0), (Abi::I386, 0), (Abi::X32, X32_BIT)] {
        let allowed: Vec<u32> = table::TABLE.iter().step_by(3).filter_map(|r| abi.number(r)).collect();
        let top = *allowed.iter().max().unwrap();
        for number in (0..700).map(|n| n + offset) {
            let want = if allowed.contains(&number) {
                RET_ALLOW
            } else if number > top {
                RET_ERRNO | ENOSYS
            } else {
                RET_ERRNO | EPERM
            };
            assert_eq!(run(&code, abi.audit(), number, [0; 6]), want, "{abi:?} {number}");
        }
    }
    assert_eq!(run(&code, 0x1234, 0, [0; 6]), RET_KILL_PROCESS);
}

#[test]
fn x32_is_not_let_through_by_a_filter_for_x86_64() {
    let code =
        filter(r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#);
    assert_eq!(run(&code, X64, 0, [0; 6]), RET_ALLOW);
    assert_ne!(run(&code, X64, X32_BIT, [0; 6]), RET_ALLOW);
}

#[test]
fn arguments_are_compared_as_64_bits() {
    let big = 1u64 << 40;
    for (op, holds) in [
        ("SCMP_CMP_EQ", [false, true, false]),
        ("SCMP_CMP_NE", [true, false, true]),
        ("SCMP_CMP_LT", [true, false, false]),
        ("SCMP_CMP_LE", [true, true, false]),
        ("SCMP_CMP_GT", [false, false, true]),
        ("SCMP_CMP_GE", [false, true, true]),
    ] {
        for value in [5u64, big, big + 5, 0xffff_ffff, big - 1] {
            let code = filter(&format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["personality"],"action":"SCMP_ACT_ERRNO",
                    "errnoRet":7,"args":[{{"index":1,"value":{value},"op":"{op}"}}]}}]}}"#
            ));
            for (at, argument) in [value - 1, value, value + 1].into_iter().enumerate() {
                let want = if holds[at] { RET_ERRNO | 7 } else { RET_ALLOW };
                assert_eq!(run(&code, X64, 135, [9, argument, 9, 9, 9, 9]), want, "{argument} {op} {value}");
            }
        }
    }
}

#[test]
fn tests_of_different_arguments_all_hold_and_of_the_same_any() {
    let both = filter(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(run(&both, X64, 41, [1, 2, 0, 0, 0, 0]), RET_ALLOW);
    assert_ne!(run(&both, X64, 41, [1, 3, 0, 0, 0, 0]), RET_ALLOW);
    let any = filter(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    for (family, allowed) in [(1, true), (2, true), (3, false)] {
        assert_eq!(run(&any, X64, 41, [family, 0, 0, 0, 0, 0]) == RET_ALLOW, allowed);
    }
}

#[test]
fn masked_flags_of_clone_are_refused() {
    let code = filter(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
    );
    assert_eq!(run(&code, X64, 56, [17, 0, 0, 0, 0, 0]), RET_ALLOW);
    assert_eq!(run(&code, X64, 56, [0x1000_0011, 0, 0, 0, 0, 0]), RET_ERRNO | EPERM);
}

#[test]
fn the_kernel_takes_a_filter_and_obeys_it() {
    let code = filter(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#,
    );
    let child = brig_sys::clone::clone_process(0, None, || {
        let _ = rustix::thread::set_no_new_privs(true);
        if brig_sys::seccomp::install(&code, 0).is_err() {
            return 1;
        }
        match std::fs::create_dir("/tmp/brig-must-not-exist") {
            Err(error) if error.raw_os_error() == Some(95) => 42,
            _ => 2,
        }
    });
    // The test harness has threads, so in a debug build the door refuses; then the check runs in a thread of its own.
    let Ok(child) = child else {
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            brig_sys::seccomp::install(&code, 0).unwrap();
            assert_eq!(std::fs::create_dir("/tmp/brig-must-not-exist").unwrap_err().raw_os_error(), Some(95));
        })
        .join()
        .unwrap();
        return;
    };
    let status = rustix::process::waitid(
        rustix::process::WaitId::Pid(rustix::process::Pid::from_raw(child.pid).unwrap()),
        rustix::process::WaitIdOptions::EXITED,
    );
    assert_eq!(status.unwrap().unwrap().exit_status(), Some(42));
}
