//! What a monitor and its clients say to each other.
//!
//! One `SOCK_SEQPACKET` unix socket, `<run>/containers/<id>/attach` (0600, in a 0700 directory), so that the kernel
//! keeps the borders of packets. A packet is one byte that tells its kind, and up to [`PAYLOAD_MAX`] bytes.
//!
//! ```text
//!   client                               monitor
//!   Hello {flags: 1 byte}     ------->            wants output? holds stdin?
//!                             <-------   Stdout / Stderr bytes, as they come; a client that does not read holds the
//!                                        container back, as a full pipe would
//!   Stdin bytes, StdinEnd     ------->
//!   Resize {rows u16, columns u16, little endian} ->
//!   Signal {number: 1 byte}   ------->            sent to the container's first process
//!   Stopping                  ------->            a person stops it: no restart
//!   Pause {1: hold, 0: let go} ------>            the container stands still until the client lets go or is gone
//!                             <-------   Paused {1 byte: a `PAUSED_..`, text}   the answer (`hold.rs`)
//!                             <-------   Warning {text}          to the one who spawned the monitor, before Started
//!                             <-------   Started {pid: i32 LE}   likewise
//!                             <-------   Failed {status: 1 byte, text}   likewise: 125, 126 or 127
//!                             <-------   Exited {status: 1 byte (255: see flags), flags: 1 byte}   always the last
//! ```
//!
//! A monitor may be months older than its client. Both pass over packets of a kind that they do not know, so a client that needs
//! an answer looks first at what the monitor says that it speaks, [`crate::state::State::speaks`]: 0 is all but `Pause`.

/// The most bytes that follow a packet's first byte.
pub const PAYLOAD_MAX: usize = 32 * 1024;

/// The file name of the socket in the container's run directory.
pub const SOCKET_FILE: &str = "attach";

/// Flag of `Hello`: the client wants standard output and error.
pub const HELLO_OUTPUT: u8 = 1;
/// Flag of `Hello`: the client may write standard input.
pub const HELLO_STDIN: u8 = 2;
/// Flag of `Hello`: replay nothing, only the end is waited for.
pub const HELLO_WAIT: u8 = 4;

/// What a monitor of this program speaks.
pub const VERSION: u32 = 1;
/// The first version that knows `Pause`.
pub const VERSION_PAUSE: u32 = 1;

/// `Paused`: it is as asked.
pub const PAUSED_DONE: u8 = 0;
/// `Paused`: it stood still already, and will after the client.
pub const PAUSED_ALREADY: u8 = 1;
/// `Paused`: it could not be done; the text says why.
pub const PAUSED_FAILED: u8 = 2;

/// Flag of `Exited`: the OOM killer ended a process of the container.
pub const EXITED_OOM: u8 = 1;
/// Flag of `Exited`: the status is not known.
pub const EXITED_UNKNOWN: u8 = 2;

/// The kind of a packet, its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes for the container's standard input.
    Stdin = 0,
    /// Bytes of its standard output, or of its terminal.
    Stdout = 1,
    /// Bytes of its standard error.
    Stderr = 2,
    /// The first packet of a client.
    Hello = 3,
    /// Standard input has ended.
    StdinEnd = 4,
    /// The client's terminal has a new size.
    Resize = 5,
    /// A signal for the container's first process.
    Signal = 6,
    /// A person stops the container.
    Stopping = 7,
    /// The container's program runs.
    Started = 8,
    /// The container could not be started.
    Failed = 9,
    /// The container has ended.
    Exited = 10,
    /// Something was done otherwise than asked: a limit that had to be lowered.
    Warning = 11,
    /// A client holds the container, or lets go of it.
    Pause = 12,
    /// What came of that.
    Paused = 13,
}

impl Kind {
    /// Reads the first byte of a packet.
    pub fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{
            Exited, Failed, Hello, Pause, Paused, Resize, Signal, Started, Stderr, Stdin, StdinEnd, Stdout, Stopping,
            Warning,
        };
        let kinds = [
            Stdin, Stdout, Stderr, Hello, StdinEnd, Resize, Signal, Stopping, Started, Failed, Exited, Warning, Pause,
            Paused,
        ];
        kinds.get(usize::from(byte)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back() {
        for byte in 0..=13 {
            assert_eq!(Kind::from_byte(byte).map(|k| k as u8), Some(byte));
        }
        assert_eq!(Kind::from_byte(14), None);
    }
}
