//! The keys that end a session: Ctrl-P Ctrl-Q, or what `--detach-keys` names.

use brig_engine::{Error, Result};

/// A sequence of keys, and how much of it has been typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    sequence: Vec<u8>,
    typed: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Self { sequence: vec![0x10, 0x11], typed: 0 }
    }
}

impl Keys {
    /// Reads a sequence as Docker writes it: `ctrl-p,ctrl-q`, `a,b`; empty for none.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!("`{text}` are not keys to detach by"))
                .hint("write keys with commas: `ctrl-p,ctrl-q`")
        };
        let key = |word: &str| match word.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ (b'a'..=b'z' | b'A'..=b'Z')]) => Ok(letter.to_ascii_uppercase() & 0x1f),
            Some([sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(sign & 0x1f),
            Some(_) => Err(bad()),
            None => match word.as_bytes() {
                [byte] if byte.is_ascii_graphic() => Ok(*byte),
                _ => Err(bad()),
            },
        };
        let sequence = if text.is_empty() { Ok(Vec::new()) } else { text.split(',').map(key).collect() };
        Ok(Self { sequence: sequence?, typed: 0 })
    }

    /// Takes what was typed; returns what goes on to the container, and whether the sequence is complete.
    ///
    /// The beginning of the sequence is held back until it is clear that it is not one.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.sequence.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut out = Vec::with_capacity(typed.len() + self.typed);
        for &byte in typed {
            if byte == self.sequence[self.typed] {
                self.typed += 1;
                if self.typed == self.sequence.len() {
                    self.typed = 0;
                    return (out, true);
                }
                continue;
            }
            let held = std::mem::take(&mut self.typed);
            out.extend_from_slice(&self.sequence[..held]);
            if byte == self.sequence[0] {
                self.typed = 1;
            } else {
                out.push(byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_seen_across_reads_and_nothing_else_is_lost() {
        let mut keys = Keys::default();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"\x11"), (Vec::new(), true));
        assert_eq!(keys.filter(b"\x10x\x11"), (b"\x10x\x11".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn sequences_are_written_as_in_docker() {
        assert_eq!(Keys::parse("ctrl-p,ctrl-q").unwrap(), Keys::default());
        assert_eq!(Keys::parse("ctrl-],x").unwrap().sequence, [0x1d, b'x']);
        assert_eq!(Keys::parse("").unwrap().filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
        for bad in ["ctrl-", "ctrl-1", "ab", ",", "ctrl-p,,"] {
            assert!(Keys::parse(bad).is_err(), "{bad}");
        }
    }
}
