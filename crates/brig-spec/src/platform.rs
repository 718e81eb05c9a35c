//! The platform that an image is for: operating system, processor, and the processor's variant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and a processor, in Go's words (`linux`, `amd64`), as image-spec writes them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, such as `linux`.
    pub os: String,
    /// The processor, such as `amd64` or `arm64`.
    pub architecture: String,
    /// The processor's variant, such as `v7` or `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// The reason why a text is not a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("platform `{0}` is not of the form os/architecture[/variant]")]
pub struct PlatformError(String);

impl Platform {
    /// Returns the platform of this program, which is linux on the processor it was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Tells how well an image for `offer` runs here: `None` if not at all, else the higher the better.
    pub fn suits(&self, offer: &Self) -> Option<u32> {
        if self.os != offer.os || self.architecture != offer.architecture {
            return None;
        }
        let (want, have) = (self.level(), offer.level());
        if have == want {
            Some(1000)
        } else if have < want && self.variant.is_some() {
            Some(have)
        } else if self.variant.is_none() {
            // Nothing was asked for: the plainest variant is the one that surely runs.
            Some(500_u32.saturating_sub(have))
        } else {
            None
        }
    }

    /// Returns the variant as a number; amd64 is v1 and arm64 is v8 unless something else is said.
    fn level(&self) -> u32 {
        let number = self.variant.as_deref().and_then(|v| v.strip_prefix('v')).and_then(|v| v.parse().ok());
        number.unwrap_or(match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        })
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let bad = || PlatformError(text.chars().take(100).collect());
        let word = |part: &str| {
            !part.is_empty()
                && part.len() <= 32
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| word(part)) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts[..] {
            [architecture] if architecture != "linux" => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(bad()),
        };
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i686" => "386",
            "armhf" => "arm",
            other => other,
        };
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for (typed, printed) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("arm64", "linux/arm64"),
            ("linux/x86_64", "linux/amd64"),
        ] {
            assert_eq!(typed.parse::<Platform>().unwrap().to_string(), printed);
        }
        for bad in ["", "linux", "/", "linux/", "linux/a/b/c", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_plainest_fitting_variant_wins() {
        let ask = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(ask("linux/amd64").suits(&ask("linux/arm64")), None);
        assert!(ask("linux/amd64").suits(&ask("linux/amd64")) > ask("linux/amd64").suits(&ask("linux/amd64/v3")));
        assert!(ask("linux/amd64").suits(&ask("linux/amd64/v2")) > ask("linux/amd64").suits(&ask("linux/amd64/v3")));
        assert_eq!(ask("linux/arm/v6").suits(&ask("linux/arm/v7")), None);
        assert!(ask("linux/arm/v7").suits(&ask("linux/arm/v6")) < ask("linux/arm/v7").suits(&ask("linux/arm/v7")));
        assert!(ask("linux/arm64").suits(&ask("linux/arm64/v8")) == Some(1000));
    }
}
