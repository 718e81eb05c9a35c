//! The filter of system calls; config-linux.md, "Seccomp".

use super::lenient::{is_zero, words, zero};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The filter: what becomes of each system call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSeccomp {
    /// What becomes of calls that no rule names.
    pub default_action: LinuxSeccompAction,
    /// The error that it gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Whose calls the rules are about, beside the machine's.
    #[serde(default, deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub architectures: Vec<LinuxSeccompArch>,
    /// How the filter is installed; an empty list is not the same as none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<LinuxSeccompFilterFlag>>,
    /// The socket of the program that answers `SCMP_ACT_NOTIFY`.
    #[serde(default, deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub listener_path: PathBuf,
    /// What that program is told beside the container's state.
    #[serde(default, deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(default, deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub syscalls: Vec<LinuxSyscall>,
    /// Whether brig's built-in rules for the container's capabilities are meant instead: its own plans say so, in one word for some
    /// hundred names. To any other runtime it is a filter that allows nothing.
    #[serde(default, rename = "x-brig.builtin", deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub builtin: bool,
}

/// A rule: what becomes of these calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSyscall {
    /// The calls, by name.
    #[serde(default, deserialize_with = "zero")]
    pub names: Vec<String>,
    /// What becomes of them.
    pub action: LinuxSeccompAction,
    /// The error that it gives, or the number that a tracer sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Tests of arguments that decide whether the rule is meant.
    #[serde(default, deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub args: Vec<LinuxSeccompArg>,
}

/// A test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSeccompArg {
    /// Which argument, from 0.
    #[serde(default, deserialize_with = "zero")]
    pub index: usize,
    /// What it is compared with; for `MaskedEq` the mask.
    #[serde(default, deserialize_with = "zero")]
    pub value: u64,
    /// For `MaskedEq`, what the masked argument is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_two: Option<u64>,
    /// How.
    pub op: LinuxSeccompOperator,
}

/// What becomes of a call; seccomp(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinuxSeccompAction {
    /// Ends the thread, by its old name.
    Kill,
    /// Ends the process.
    KillProcess,
    /// Ends the thread.
    KillThread,
    /// Sends SIGSYS.
    Trap,
    /// Fails.
    Errno,
    /// Asks a tracer.
    Trace,
    /// Goes on.
    Allow,
    /// Goes on, and is logged.
    Log,
    /// Asks the listener.
    Notify,
}

words! { LinuxSeccompAction, "linux.seccomp: an action",
    "SCMP_ACT_KILL" => Kill,
    "SCMP_ACT_KILL_PROCESS" => KillProcess,
    "SCMP_ACT_KILL_THREAD" => KillThread,
    "SCMP_ACT_TRAP" => Trap,
    "SCMP_ACT_ERRNO" => Errno,
    "SCMP_ACT_TRACE" => Trace,
    "SCMP_ACT_ALLOW" => Allow,
    "SCMP_ACT_LOG" => Log,
    "SCMP_ACT_NOTIFY" => Notify,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinuxSeccompOperator {
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Equal.
    Eq,
    /// Greater or equal.
    Ge,
    /// Greater.
    Gt,
    /// Equal after a mask.
    MaskedEq,
}

words! { LinuxSeccompOperator, "linux.seccomp.syscalls[].args[].op",
    "SCMP_CMP_NE" => Ne,
    "SCMP_CMP_LT" => Lt,
    "SCMP_CMP_LE" => Le,
    "SCMP_CMP_EQ" => Eq,
    "SCMP_CMP_GE" => Ge,
    "SCMP_CMP_GT" => Gt,
    "SCMP_CMP_MASKED_EQ" => MaskedEq,
}

/// How a filter is installed; seccomp(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinuxSeccompFilterFlag {
    /// For all threads at once.
    Tsync,
    /// What it refuses is logged.
    Log,
    /// Speculation is not made slower.
    SpecAllow,
    /// Whoever waits for the listener hears only signals that kill.
    WaitKillableRecv,
}

words! { LinuxSeccompFilterFlag, "linux.seccomp.flags[]",
    "SECCOMP_FILTER_FLAG_TSYNC" => Tsync,
    "SECCOMP_FILTER_FLAG_LOG" => Log,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SpecAllow,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => WaitKillableRecv,
}

/// Whose calls they are.
#[allow(missing_docs)] // their names say what they are
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinuxSeccompArch {
    Native,
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Mips,
    Mips64,
    Mips64N32,
    Mipsel,
    Mipsel64,
    Mipsel64N32,
    Ppc,
    Ppc64,
    Ppc64Le,
    S390,
    S390X,
    Parisc,
    Parisc64,
    Riscv64,
    Loongarch64,
    M68k,
    Sh,
    Sheb,
}

words! { LinuxSeccompArch, "linux.seccomp.architectures[]",
    "SCMP_ARCH_NATIVE" => Native,
    "SCMP_ARCH_X86" => X86,
    "SCMP_ARCH_X86_64" => X86_64,
    "SCMP_ARCH_X32" => X32,
    "SCMP_ARCH_ARM" => Arm,
    "SCMP_ARCH_AARCH64" => Aarch64,
    "SCMP_ARCH_MIPS" => Mips,
    "SCMP_ARCH_MIPS64" => Mips64,
    "SCMP_ARCH_MIPS64N32" => Mips64N32,
    "SCMP_ARCH_MIPSEL" => Mipsel,
    "SCMP_ARCH_MIPSEL64" => Mipsel64,
    "SCMP_ARCH_MIPSEL64N32" => Mipsel64N32,
    "SCMP_ARCH_PPC" => Ppc,
    "SCMP_ARCH_PPC64" => Ppc64,
    "SCMP_ARCH_PPC64LE" => Ppc64Le,
    "SCMP_ARCH_S390" => S390,
    "SCMP_ARCH_S390X" => S390X,
    "SCMP_ARCH_PARISC" => Parisc,
    "SCMP_ARCH_PARISC64" => Parisc64,
    "SCMP_ARCH_RISCV64" => Riscv64,
    "SCMP_ARCH_LOONGARCH64" => Loongarch64,
    "SCMP_ARCH_M68K" => M68k,
    "SCMP_ARCH_SH" => Sh,
    "SCMP_ARCH_SHEB" => Sheb,
}
