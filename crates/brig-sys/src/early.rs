//! The program against its containers, before the program begins: an entry point that goes on from a read-only clone of the
//! mount that the program lies on, and only then lets the C library start.
//!
//! ```text
//! kernel ──> brig_early_start ──┬─ no command that enters a container, or on a read-only mount already ──> _start (libc, main)
//!                               └─ open_tree(CLONE) + mount_setattr(RDONLY) + execveat ──> the same again, from there
//! ```
//!
//! The second exec is what keeps a container from writing to the program (CVE-2019-5736; `brig-monitor`'s `protect.rs` tells
//! how). Done from `main` it would start the C library twice, and that costs more than the exec itself: on a virtual machine
//! each CPUID instruction of its start is a trip to the hypervisor.
//!
//! Whatever fails here is left to `main`, which looks again and knows further ways. A program has this entry point when it is
//! linked with `-e brig_early_start`. See execveat(2), open_tree(2), mount_setattr(2), and proc_pid_exe(5).
//!
//! Nothing of the C library works yet, and no function of it may be called, memcpy(3) neither: it is all system calls and
//! numbers. Its texts lie beside its code, in a page that is in memory already: each part of the program that the first of the two
//! programs looks at is a page fault of its own.

use crate::mounts::{Attributes, RDONLY};
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

// The stack pointer is all that the kernel gives: it points at argc, and argv, the environment and the auxiliary vector
// follow. It is handed on to _start as it came.
//
// The words are those of a command line that put a process into a container. One that names a container so costs an exec, and
// nothing else.
global_asm!(
    ".pushsection .text.brig_early_start, \"ax\", @progbits",
    ".globl brig_early_start",
    ".type brig_early_start, @function",
    "brig_early_start:",
    "xor ebp, ebp",
    "mov rbx, rsp",
    "mov r12, rdx", // the function that the kernel wants called at exit
    "mov rdi, rsp",
    "and rsp, -16",
    "call {go_on}",
    "mov rsp, rbx",
    "mov rdx, r12",
    "jmp _start",
    ".size brig_early_start, . - brig_early_start",
    ".globl brig_early_self, brig_early_words",
    ".hidden brig_early_self, brig_early_words",
    "brig_early_self: .asciz \"/proc/self/exe\"",
    "brig_early_words: .asciz \"run\", \"create\", \"exec\", \"restore\"",
    ".byte 0", // the end of the list
    ".popsection",
    go_on = sym go_on_protected,
);

unsafe extern "C" {
    static brig_early_self: [u8; 15];
    static brig_early_words: [u8; 25];
}

const AT_FDCWD: usize = (-100_isize).cast_unsigned();
const AT_EMPTY_PATH: usize = 0x1000;
const OPEN_TREE_CLONE: usize = 1;
const OPEN_TREE_CLOEXEC: usize = 0o2_000_000;
const ST_RDONLY: u64 = 1;
/// A struct statfs in numbers, and which of them has the flags; statfs(2).
const STATFS: usize = 15;
const STATFS_FLAGS: usize = 10;

/// Where the kernel put the arguments.
static STACK: AtomicPtr<usize> = AtomicPtr::new(core::ptr::null_mut());

/// Where the kernel put argc, argv and what follows, in a program that has this entry point; null in others.
pub(crate) fn stack() -> *const usize {
    STACK.load(Ordering::Relaxed)
}

/// Whether the program was found on a read-only mount.
static PROTECTED: AtomicBool = AtomicBool::new(false);

/// Says whether the program is known to lie on a mount that nobody can write through. It may all the same where this knows nothing.
pub fn is_protected() -> bool {
    PROTECTED.load(Ordering::Relaxed)
}

/// Goes on from the clone; returns where that is not to be or cannot be done.
unsafe extern "C" fn go_on_protected(stack: *const usize) {
    STACK.store(stack.cast_mut(), Ordering::Relaxed);
    // SAFETY: the kernel puts argc, argc pointers, a null, the environment's pointers and a null at the stack pointer; execve(2).
    unsafe {
        let count = stack.read();
        let arguments = stack.add(1);
        let environment = arguments.add(count + 1);
        if !enters(arguments.cast()) {
            return;
        }
        if on_readonly_mount() {
            PROTECTED.store(true, Ordering::Relaxed);
            return;
        }
        let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
        // A negative number is an error.
        let Ok(clone) = usize::try_from(call(libc::SYS_open_tree, [AT_FDCWD, own_path(), flags, 0, 0])) else {
            return;
        };
        let nothing = own_path() + OWN_PATH;
        let readonly = Attributes { set: RDONLY, clear: 0, propagation: 0, userns_fd: 0 };
        let attributes = [&raw const readonly as usize, size_of::<Attributes>()];
        let set = call(libc::SYS_mount_setattr, [clone, nothing, AT_EMPTY_PATH, attributes[0], attributes[1]]);
        if set == 0 {
            call(libc::SYS_execveat, [clone, nothing, arguments as usize, environment as usize, AT_EMPTY_PATH]);
        }
        call(libc::SYS_close, [clone, 0, 0, 0, 0]);
    }
}

/// The length of the path of the program; what comes after it is the empty path.
const OWN_PATH: usize = 14;

/// Where the path of the program lies.
fn own_path() -> usize {
    &raw const brig_early_self as usize
}

/// Says whether one of the arguments is a word that enters.
///
/// # Safety
/// `arguments` is a list of C strings that ends with a null pointer.
unsafe fn enters(mut arguments: *const *const u8) -> bool {
    // SAFETY: by the above; every string is read to its end at most, and the list of words ends with an empty one.
    unsafe {
        while !arguments.read().is_null() {
            let mut word = (&raw const brig_early_words).cast::<u8>();
            while at(word, 0) != 0 {
                let mut same = 0;
                while at(word, same) != 0 && at(arguments.read(), same) == at(word, same) {
                    same += 1;
                }
                if at(word, same) == 0 && at(arguments.read(), same) == 0 {
                    return true;
                }
                while at(word, 0) != 0 {
                    word = word.add(1);
                }
                word = word.add(1);
            }
            arguments = arguments.add(1);
        }
    }
    false
}

/// A byte of a string. The compiler takes a loop of plain reads for a strlen(3), and calls it.
///
/// # Safety
/// The string has so many bytes.
unsafe fn at(string: *const u8, index: usize) -> u8 {
    // SAFETY: as the caller promises.
    unsafe { string.add(index).read_volatile() }
}

/// Says whether the program lies on a mount that nobody can write through.
fn on_readonly_mount() -> bool {
    let mut statistics = core::mem::MaybeUninit::<[u64; STATFS]>::uninit();
    let place = statistics.as_mut_ptr().cast::<u64>();
    // SAFETY: statfs(2) fills the whole of it when it returns 0, and it is read only then.
    unsafe {
        call(libc::SYS_statfs, [own_path(), place as usize, 0, 0, 0]) == 0
            && place.add(STATFS_FLAGS).read() & ST_RDONLY != 0
    }
}

/// A system call, without errno(3).
///
/// # Safety
/// As for the call itself.
unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> i64 {
    let result: i64;
    // SAFETY: the kernel keeps all registers but these; x86-64 psABI, appendix A.2.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn only_a_whole_word_enters() {
        let enters = |words: &[&str]| {
            let words: Vec<CString> = words.iter().map(|w| CString::new(*w).unwrap()).collect();
            let list: Vec<_> = words.iter().map(|w| w.as_ptr().cast()).chain([std::ptr::null()]).collect();
            // SAFETY: the list ends with a null pointer, and its strings live as long as it does.
            unsafe { enters(list.as_ptr()) }
        };
        assert!(enters(&["brig-runtime", "--root", "/x", "run", "a"]) && enters(&["runc", "restore"]));
        assert!(!enters(&["brig-runtime", "state", "runner", "ru", "", "creat", "Exec"]) && !enters(&[]));
    }

    #[test]
    fn the_system_calls_are_made() {
        // SAFETY: getpid takes nothing, and close takes a number that is no descriptor.
        let (pid, closed) =
            unsafe { (call(libc::SYS_getpid, [0; 5]), call(libc::SYS_close, [usize::MAX, 0, 0, 0, 0])) };
        assert_eq!((pid, closed), (i64::from(std::process::id()), i64::from(-libc::EBADF)));
        let readonly = rustix::fs::StatVfsMountFlags::RDONLY;
        assert_eq!(on_readonly_mount(), rustix::fs::statvfs("/proc/self/exe").unwrap().f_flag.contains(readonly));
    }
}
