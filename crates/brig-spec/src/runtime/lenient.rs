//! How fields are read: `null` as what is missing, and words against a list, with an error that names the field.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads a value, and `null` as its zero.
pub(super) fn zero<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Says whether a value is zero, and need not be written.
pub(super) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A choice that the specification spells as a word.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// The field, as people write its path.
    const FIELD: &'static str;
    /// Each word with what it means.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for it.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// Reads a word.
pub(super) fn word<'de, D: Deserializer<'de>, T: Word>(from: D) -> Result<T, D::Error> {
    let word = std::borrow::Cow::<str>::deserialize(from)?;
    find(&word).map_err(serde::de::Error::custom)
}

/// Reads a word that may be missing, empty or `null`.
pub(super) fn word_if_any<'de, D: Deserializer<'de>, T: Word>(from: D) -> Result<Option<T>, D::Error> {
    let word: Option<std::borrow::Cow<str>> = Option::deserialize(from)?;
    word.filter(|word| !word.is_empty()).map(|word| find(&word)).transpose().map_err(serde::de::Error::custom)
}

/// Writes a word.
pub(super) fn write<S: Serializer, T: Word>(value: T, to: S) -> Result<S::Ok, S::Error> {
    value.word().serialize(to)
}

fn find<T: Word>(word: &str) -> Result<T, String> {
    let found = T::WORDS.iter().find(|(known, _)| *known == word);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        format!("{} cannot be \"{word}\": it is one of {}", T::FIELD, known.join(", "))
    })
}

/// Gives an enum its words, and the traits by which JSON has them.
macro_rules! words {
    ($type:ident, $field:literal, $($word:literal => $variant:ident),+ $(,)?) => {
        impl crate::runtime::lenient::Word for $type {
            const FIELD: &'static str = $field;
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl $type {
            /// Returns the word by which the specification names it.
            pub fn as_str(self) -> &'static str {
                crate::runtime::lenient::Word::word(self)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                crate::runtime::lenient::write(*self, to)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                crate::runtime::lenient::word(from)
            }
        }
    };
}

pub(super) use words;
