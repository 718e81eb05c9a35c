//! Container identifiers and names: what may stand in a path, a cgroup or an error message.
//!
//! An identifier is 64 hexadecimal digits, made from random bytes, and people type any unambiguous prefix of it. A name
//! is what Docker allows: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`. Both exist only when valid, so that they are safe as one path
//! component everywhere.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest name that is accepted, in bytes: a cgroup or file name has 255, and suffixes need room.
pub const NAME_MAX: usize = 200;

/// A text that is not an identifier or not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not 64 lower-case hexadecimal digits.
    #[error("`{0}` is not a container id (64 hexadecimal digits)")]
    Id(String),
    /// The text is not a valid name.
    #[error(
        "`{0}` is not a valid name (letters, digits, `_`, `.` and `-`, at least two, starting with a letter or digit)"
    )]
    Name(String),
}

/// A container's identifier: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// Makes an identifier of 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(hex(&bytes))
    }

    /// Takes a full identifier.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let valid = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if valid { Ok(Self(text.to_owned())) } else { Err(IdError::Id(text.to_owned())) }
    }

    /// Returns all 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first 12 digits, as listings print them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// A name that a person gave, or that was made for a container, volume or network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Takes a name by Docker's rule, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, of at most [`NAME_MAX`] bytes.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && (2..=NAME_MAX).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Name(text.to_owned()))
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// Writes bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_docker() {
        for good in ["ab", "a-b", "a_b.c", "0web", &"a".repeat(200)] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-ab", ".ab", "a/b", "a b", "..", "ä1", "a\0b", &"a".repeat(201)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_is_64_lower_case_digits() {
        let id = ContainerId::from_random([0xab; 32]);
        assert_eq!(id.as_str(), "ab".repeat(32));
        assert_eq!(id.short(), "abababababab");
        assert_eq!(ContainerId::parse(id.as_str()), Ok(id));
        assert!(ContainerId::parse(&"AB".repeat(32)).is_err());
        assert!(ContainerId::parse("ab").is_err());
    }
}
