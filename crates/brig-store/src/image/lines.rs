//! The plain listing of images, kept ready: one file to read instead of one for each image.
//!
//! ```text
//!   <root>/listing      brig-listing 1 <stamp of images/> <stamp of images/names/> <number of lines>
//!                       <repository> <tag> <hex> <size> <created>          (by tabs; one line a name, newest image first)
//!                       end
//! ```
//!
//! It is a copy and never the truth: it counts only while both directories have the very times of modification that it was
//! made for, and every change of a record or a name is a rename or an unlink there. It is made only when they have been quiet
//! for a second, so that a later change cannot have the same time, however coarse the clock of the file system is.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use brig_spec::reference::Reference;

use crate::Store;
use crate::disk;
use crate::error::{Error, Result};

const FILE: &str = "listing";
const KIND: &str = "brig-listing 1";
const FILE_MAX: u64 = 256 << 20;
/// How long both directories must have been quiet.
const QUIET: Duration = Duration::from_secs(1);

/// One image under one of its names, or without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The name without tag, as people write it; empty for an image without a name.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The id in hexadecimal digits.
    pub id: String,
    /// The unpacked size in bytes.
    pub size: u64,
    /// When the image was made, RFC 3339; empty if that is not known.
    pub created: String,
}

impl Store {
    /// Lists all images, each under each of its names, the newest first; also returns what is wrong with records that cannot be
    /// read.
    pub fn lines(&self) -> Result<(Vec<Line>, Vec<Error>)> {
        let stamp = self.stamp()?;
        if let Ok(Some(bytes)) = disk::read_file(&self.root.join(FILE), FILE_MAX)
            && let Some(lines) = std::str::from_utf8(&bytes).ok().and_then(|text| parse(text, &stamp))
        {
            return Ok((lines, Vec::new()));
        }
        let listing = self.images()?;
        let mut lines = Vec::new();
        for image in &listing.images {
            let created = image.created.clone().filter(|text| !text.contains(char::is_control)).unwrap_or_default();
            let line = |name: Option<&Reference>| Line {
                repository: name.map(Reference::familiar_name).unwrap_or_default(),
                tag: name.and_then(|name| name.tag()).unwrap_or_default().to_owned(),
                id: image.id.hex().to_owned(),
                size: image.size,
                created: created.clone(),
            };
            if image.names.is_empty() {
                lines.push(line(None));
            }
            lines.extend(image.names.iter().map(|name| line(Some(name))));
        }
        if listing.unreadable.is_empty() && self.is_quiet() {
            // Only a copy: whoever cannot write it goes without.
            let _ = self.keep(&lines, &stamp);
        }
        Ok((lines, listing.unreadable))
    }

    /// Returns what changes whenever a record or a name does.
    fn stamp(&self) -> Result<String> {
        let mut stamp = String::from(KIND);
        for directory in ["images", "images/names"] {
            let path = self.root.join(directory);
            let metadata = path.symlink_metadata().map_err(Error::io("look at", path.display()))?;
            let _ = write!(stamp, " {}:{}.{}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        }
        Ok(stamp)
    }

    fn is_quiet(&self) -> bool {
        ["images", "images/names"].iter().all(|directory| {
            let changed = self.root.join(directory).symlink_metadata().and_then(|metadata| metadata.modified());
            changed.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > QUIET))
        })
    }

    fn keep(&self, lines: &[Line], stamp: &str) -> std::io::Result<()> {
        let mut text = format!("{stamp} {}\n", lines.len());
        for Line { repository, tag, id, size, created } in lines {
            let _ = writeln!(text, "{repository}\t{tag}\t{id}\t{size}\t{created}");
        }
        text.push_str("end\n");
        let temporary = self.root.join("tmp").join(format!("listing-{}", disk::random_name()));
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, self.root.join(FILE))
    }
}

/// Reads a kept listing; none if it is of another time, or damaged.
fn parse(text: &str, stamp: &str) -> Option<Vec<Line>> {
    let (head, body) = text.split_once('\n')?;
    let count: usize = head.strip_prefix(stamp)?.strip_prefix(' ')?.parse().ok()?;
    let mut rest = body.strip_suffix("end\n")?.split_terminator('\n');
    let mut lines = Vec::with_capacity(count.min(1 << 20));
    for line in rest.by_ref() {
        let mut fields = line.split('\t');
        let mut field = || fields.next().map(str::to_owned);
        lines.push(Line {
            repository: field()?,
            tag: field()?,
            id: field()?,
            size: field()?.parse().ok()?,
            created: field()?,
        });
    }
    (lines.len() == count).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_listing_of_this_time_counts() {
        let good = "brig-listing 1 1:2.3 4:5.6 1\nbusybox\tlatest\tabc\t7\t\nend\n";
        let stamp = "brig-listing 1 1:2.3 4:5.6";
        let lines = parse(good, stamp).unwrap();
        assert_eq!((lines.len(), lines[0].tag.as_str(), lines[0].size), (1, "latest", 7));
        assert_eq!(parse(good, "brig-listing 1 1:2.3 4:5.7"), None);
        for cut in 0..good.len() {
            assert_eq!(parse(&good[..cut], stamp), None, "{cut}");
        }
        assert_eq!(parse(&good.replace(" 1\n", " 2\n"), stamp), None);
    }
}
