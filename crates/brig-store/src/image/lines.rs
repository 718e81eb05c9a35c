//! The plain listing of images, kept ready: one file to read instead of one for each image.
//!
//! ```text
//!   <root>/listing      brig-listing 2 <stamp of images/> <stamp of images/names/> <number of lines>
//!                       <repository> <tag> <hex> <size> <created>          (by tabs; one line a name, newest image first)
//!                       end
//! ```
//!
//! It is a copy and never the truth: it counts only while both directories have the very times of modification that it was
//! made for, and every change of a record or a name is a rename or an unlink there. These times are set by whoever keeps a
//! listing, to a fraction of a second that is drawn by lot, so that no later change can have the same time, however coarse the
//! kernel's clock is. It is kept under the commit lock only: by a reader who finds none, and by whoever changes something
//! (`changes.rs`). Killed at any point between a change and its line, the listing is of another time, and made anew.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use brig_spec::digest::Digest;
use brig_spec::reference::Reference;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use crate::error::{Error, Result};
use crate::image::ImageSummary;
use crate::{Store, disk};

const FILE: &str = "listing";
const KIND: &str = "brig-listing 2";
const FILE_MAX: u64 = 256 << 20;
const DIRECTORIES: [&str; 2] = ["images", "images/names"];
const SECOND_NS: u64 = 1_000_000_000;

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

impl Line {
    /// Makes the line of an image that has no name.
    pub(super) fn nameless(id: &Digest, size: u64, created: Option<&str>) -> Self {
        let created = created.filter(|text| !text.contains(char::is_control)).unwrap_or_default().to_owned();
        Self { repository: String::new(), tag: String::new(), id: id.hex().to_owned(), size, created }
    }

    /// Makes the line of the same image under a name.
    pub(super) fn named(&self, name: &Reference) -> Self {
        let (repository, tag) = title(name);
        Self { repository, tag, ..self.clone() }
    }
}

/// Returns a name as a line shows it.
pub(super) fn title(name: &Reference) -> (String, String) {
    (name.familiar_name(), name.tag().unwrap_or_default().to_owned())
}

/// Puts lines in order: the newest image first, and its names by the alphabet.
pub(super) fn sort(lines: &mut [Line]) {
    lines.sort_by(|a, b| {
        let image = b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id));
        image.then_with(|| a.repository.cmp(&b.repository)).then_with(|| a.tag.cmp(&b.tag))
    });
}

impl Store {
    /// Lists all images, each under each of its names, the newest first; also returns what is wrong with records that cannot be
    /// read.
    pub fn lines(&self) -> Result<(Vec<Line>, Vec<Error>)> {
        if let Some(lines) = self.kept_lines(&self.stamp()?) {
            return Ok((lines, Vec::new()));
        }
        // Somebody who changes something just now will keep the listing himself.
        let lock = self.commit_lock_now();
        let stamp = lock.as_ref().and_then(|_| self.new_stamp());
        let listing = self.images()?;
        let mut lines = Vec::new();
        for image in &listing.images {
            let ImageSummary { id, size, created, names, .. } = image;
            let line = Line::nameless(id, *size, created.as_deref());
            lines.extend(names.iter().map(|name| line.named(name)));
            if names.is_empty() {
                lines.push(line);
            }
        }
        sort(&mut lines);
        if let Some(stamp) = stamp
            && listing.unreadable.is_empty()
            && self.names_mean_images(&listing.images)
        {
            self.keep_lines(&lines, &stamp);
        }
        drop(lock);
        Ok((lines, listing.unreadable))
    }

    /// Whether no name is left of an image that is gone: it would be one of the image's again if that came back.
    fn names_mean_images(&self, images: &[ImageSummary]) -> bool {
        let ids: HashSet<&Digest> = images.iter().map(|image| &image.id).collect();
        self.names().is_ok_and(|names| names.iter().all(|(_, owner)| ids.contains(owner)))
    }

    /// Reads the kept listing, if there is one of this time.
    pub(super) fn kept_lines(&self, stamp: &str) -> Option<Vec<Line>> {
        let bytes = disk::read_file(&self.root.join(FILE), FILE_MAX).ok()??;
        parse(std::str::from_utf8(&bytes).ok()?, stamp)
    }

    /// Returns what changes whenever a record or a name does.
    pub(super) fn stamp(&self) -> Result<String> {
        let mut stamp = String::from(KIND);
        for directory in DIRECTORIES {
            let path = self.root.join(directory);
            let metadata = path.symlink_metadata().map_err(Error::io("look at", path.display()))?;
            let _ = write!(stamp, " {}:{}.{}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        }
        Ok(stamp)
    }

    /// Gives both directories times of modification that nobody else gives them, and returns their stamp; none where that
    /// cannot be done, or where the file system keeps whole seconds only. The commit lock must be held.
    pub(super) fn new_stamp(&self) -> Option<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let mut stamp = String::from(KIND);
        for directory in DIRECTORIES {
            let path = self.root.join(directory);
            let fraction = i64::try_from(disk::random_number() % SECOND_NS).ok()?;
            let time = Timespec { tv_sec: i64::try_from(now.as_secs()).ok()?, tv_nsec: fraction };
            let same = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps { last_access: same, last_modification: time };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).ok()?;
            let _ = write!(stamp, " {}:{}.{}", path.symlink_metadata().ok()?.ino(), time.tv_sec, time.tv_nsec);
        }
        (self.stamp().ok()? == stamp).then_some(stamp)
    }

    /// Keeps a listing. It is only a copy: whoever cannot write it goes without.
    pub(super) fn keep_lines(&self, lines: &[Line], stamp: &str) {
        let mut text = format!("{stamp} {}\n", lines.len());
        for Line { repository, tag, id, size, created } in lines {
            let _ = writeln!(text, "{repository}\t{tag}\t{id}\t{size}\t{created}");
        }
        text.push_str("end\n");
        let temporary = self.root.join("tmp").join(format!("listing-{}", disk::random_name()));
        let kept = disk::write_new(&temporary, text.as_bytes())
            .and_then(|_| std::fs::rename(&temporary, self.root.join(FILE)));
        if kept.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
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
        let good = "brig-listing 2 1:2.3 4:5.6 1\nbusybox\tlatest\tabc\t7\t\nend\n";
        let stamp = "brig-listing 2 1:2.3 4:5.6";
        let lines = parse(good, stamp).unwrap();
        assert_eq!((lines.len(), lines[0].tag.as_str(), lines[0].size), (1, "latest", 7));
        assert_eq!(parse(good, "brig-listing 2 1:2.3 4:5.7"), None);
        for cut in 0..good.len() {
            assert_eq!(parse(&good[..cut], stamp), None, "{cut}");
        }
        assert_eq!(parse(&good.replace(" 1\n", " 2\n"), stamp), None);
    }
}
