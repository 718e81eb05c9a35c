//! Which images are meant by `--filter`, of listings and prunes.
//!
//! ```text
//!   dangling=true|false    without a name, or with one
//!   reference=PATTERN      of this name, short or whole; `*` stands for any letters
//!   label=KEY[=VALUE]      label!=KEY[=VALUE]: without it
//!   before=IMAGE           made before that image; since=IMAGE: after it
//!   until=MOMENT           made before a time, or longer ago than a span
//! ```
//!
//! Of one key's several values one must fit, and all must for `label`, as Docker has it.

use brig_spec::image::CONFIG_MAX;
use brig_spec::image::ImageConfig;
use brig_spec::reference::Reference;
use brig_store::{ImageSummary, Store};

use super::failure;
use crate::error::{Error, Result};
use crate::time::{parse_moment, parse_rfc3339};

/// A label that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// The label.
    pub key: String,
    /// Its value, where one is asked for.
    pub value: Option<String>,
    /// Whether it must not be there.
    pub absent: bool,
}

impl LabelFilter {
    /// Reads `KEY` or `KEY=VALUE`.
    pub fn new(text: &str, absent: bool) -> Self {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
        Self { key: key.to_owned(), value, absent }
    }

    /// Says whether labels are as asked.
    pub fn fits(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key).is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value));
        found != self.absent
    }
}

/// What images must be like.
#[derive(Debug, Clone, Default)]
pub struct ImageFilter {
    dangling: Option<bool>,
    references: Vec<String>,
    labels: Vec<LabelFilter>,
    before_ns: Option<u64>,
    since_ns: Option<u64>,
}

impl ImageFilter {
    /// The keys that it knows.
    pub const KEYS: [&'static str; 7] = ["dangling", "reference", "label", "label!", "before", "since", "until"];

    /// Reads pairs of key and value; `now_ns` is the time that spans count back from.
    pub fn new<'f>(pairs: impl Iterator<Item = (&'f str, &'f str)>, store: &Store, now_ns: u64) -> Result<Self> {
        let mut filter = Self::default();
        for (key, value) in pairs {
            let bad = || Error::invalid(format!("`{value}` is not a value for the filter `{key}`"));
            match key {
                "dangling" => {
                    filter.dangling = Some(match value {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(bad().hint("use true or false")),
                    });
                }
                "reference" => filter.references.push(value.to_owned()),
                "label" => filter.labels.push(LabelFilter::new(value, false)),
                "label!" => filter.labels.push(LabelFilter::new(value, true)),
                "before" => lower(&mut filter.before_ns, created(store, value)?),
                "since" => {
                    let since = created(store, value)?;
                    filter.since_ns = Some(filter.since_ns.map_or(since, |known| known.max(since)));
                }
                "until" => {
                    let moment = parse_moment(value, now_ns);
                    lower(
                        &mut filter.before_ns,
                        moment.ok_or_else(|| bad().hint("use a time, or a span such as 24h"))?,
                    );
                }
                _ => {
                    return Err(Error::invalid(format!("`{key}` is not a filter of images"))
                        .hint(format!("known are {}", Self::KEYS.join(", "))));
                }
            }
        }
        Ok(filter)
    }

    /// Says whether it asks for images with a name.
    pub fn asks_for_named(&self) -> bool {
        self.dangling == Some(false)
    }

    /// Says whether an image passes under one of its names, or without one.
    pub fn passes(&self, store: &Store, image: &ImageSummary, name: Option<&Reference>) -> Result<bool> {
        if self.dangling.is_some_and(|wanted| wanted == name.is_some())
            || !self.references.is_empty()
                && !name.is_some_and(|name| self.references.iter().any(|wanted| is_named(name, wanted)))
        {
            return Ok(false);
        }
        if self.before_ns.is_some() || self.since_ns.is_some() {
            let created = image.created.as_deref().and_then(parse_rfc3339).unwrap_or(0);
            if self.before_ns.is_some_and(|before| created >= before)
                || self.since_ns.is_some_and(|since| created <= since)
            {
                return Ok(false);
            }
        }
        if self.labels.is_empty() {
            return Ok(true);
        }
        let fail = |error| failure::store(format!("cannot read the labels of image {}", image.id.short()), error);
        let raw = store.read_blob(&image.id, CONFIG_MAX).map_err(fail)?;
        let config = ImageConfig::parse(&raw)
            .map_err(|error| Error::internal(format!("cannot read image {}", image.id.short())).because(error))?;
        Ok(self.labels.iter().all(|label| label.fits(&config.config.labels)))
    }
}

fn lower(bound: &mut Option<u64>, value: u64) {
    *bound = Some(bound.map_or(value, |known| known.min(value)));
}

/// When an image was made, in nanoseconds since 1970.
fn created(store: &Store, name: &str) -> Result<u64> {
    let image =
        store.image(name).map_err(|error| failure::store(format!("cannot compare with image `{name}`"), error))?;
    Ok(image.created.as_deref().and_then(parse_rfc3339).unwrap_or(0))
}

/// Says whether a reference is meant by `REPOSITORY[:TAG]`, short or whole; `*` stands for any letters.
pub fn is_named(name: &Reference, wanted: &str) -> bool {
    let (familiar, whole) = (name.familiar(), format!("{}:{}", name.name(), name.tag().unwrap_or_default()));
    [familiar.as_str(), whole.as_str(), &name.familiar_name(), &name.name()].iter().any(|n| matches(n, wanted))
}

fn matches(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((head, tail)) => text
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|n| rest.get(n..).is_some_and(|r| matches(r, tail)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_meant_short_or_whole() {
        let name: Reference = "debian:12".parse().unwrap();
        for good in
            ["debian", "debian:12", "docker.io/library/debian", "docker.io/library/debian:12", "deb*", "*:12", "*"]
        {
            assert!(is_named(&name, good), "{good}");
        }
        for bad in ["", "deb", "debian:11", "library/debian", "*:11"] {
            assert!(!is_named(&name, bad), "{bad}");
        }
    }

    #[test]
    fn labels_are_there_or_not() {
        let labels = std::collections::BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        for (text, absent, fits) in [
            ("a", false, true),
            ("a=b", false, true),
            ("a=c", false, false),
            ("x", false, false),
            ("a", true, false),
            ("x", true, true),
            ("a=c", true, true),
        ] {
            assert_eq!(LabelFilter::new(text, absent).fits(&labels), fits, "{text} {absent}");
        }
    }
}
