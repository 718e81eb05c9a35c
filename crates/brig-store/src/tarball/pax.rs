//! The records of a pax extended header: `<length> <key>=<value>\n`, the length counting itself (pax(1), "pax Header").

use super::Fault;

/// The records that matter to a layer.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse_name: Option<Vec<u8>>,
    /// `GNU.sparse.major`; 1 means that the map leads the data.
    pub(super) sparse_major: Option<u64>,
    /// `GNU.sparse.realsize` or `GNU.sparse.size`.
    pub(super) sparse_size: Option<u64>,
    /// Numbers of `GNU.sparse.map`, or of the offset and numbytes records.
    pub(super) sparse_map: Vec<u64>,
    sparse: bool,
}

impl Records {
    /// Parses the body of a pax header that began at byte `at`.
    pub(super) fn parse(mut bytes: &[u8], at: u64) -> Result<Self, Fault> {
        let mut records = Self::default();
        let fail = |field: &'static str| Fault::Pax { at, field };
        while !bytes.is_empty() && bytes[0] != 0 {
            let space = bytes.iter().take(12).position(|b| *b == b' ').ok_or_else(|| fail("length"))?;
            let length = number(&bytes[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(|| fail("length"))?;
            let record = bytes.get(space + 1..length).ok_or_else(|| fail("length"))?;
            bytes = &bytes[length..];
            let record = record.strip_suffix(b"\n").ok_or_else(|| fail("record"))?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(|| fail("record"))?;
            records.take(&record[..equals], &record[equals + 1..]).map_err(fail)?;
        }
        Ok(records)
    }

    /// Tells whether the entry is a sparse file in one of GNU's pax formats.
    pub(super) fn is_sparse(&self) -> bool {
        self.sparse
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let text = || (!value.contains(&0)).then(|| value.to_vec());
        match key {
            // An empty value takes the record back (pax(1)).
            b"path" => self.path = (!value.is_empty()).then(text).map(|t| t.ok_or("path")).transpose()?,
            b"linkpath" => self.link = (!value.is_empty()).then(text).map(|t| t.ok_or("linkpath")).transpose()?,
            b"size" => self.size = Some(number(value).ok_or("size")?),
            b"uid" => self.uid = Some(number(value).ok_or("uid")?),
            b"gid" => self.gid = Some(number(value).ok_or("gid")?),
            b"mtime" => self.mtime = Some(time(value).ok_or("mtime")?),
            b"GNU.sparse.name" => self.sparse_name = Some(text().ok_or("GNU.sparse.name")?),
            b"GNU.sparse.major" => {
                self.sparse = true;
                self.sparse_major = Some(number(value).ok_or("GNU.sparse.major")?);
            }
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse = true;
                self.sparse_size = Some(number(value).ok_or("GNU.sparse.size")?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse_map.push(number(value).ok_or("GNU.sparse.map")?);
            }
            b"GNU.sparse.map" => {
                for part in value.split(|b| *b == b',').filter(|part| !part.is_empty()) {
                    self.sparse_map.push(number(part).ok_or("GNU.sparse.map")?);
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return Err("SCHILY.xattr");
                    }
                    self.xattrs.retain(|(other, _)| other != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Reads a decimal number of digits alone.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Reads `[-]seconds[.fraction]`; what is finer than a nanosecond is cut.
fn time(bytes: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = i64::try_from(number(whole.as_bytes())?).ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut nanoseconds = 0_u32;
    for digit in fraction.bytes().chain(std::iter::repeat(b'0')).take(9) {
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"1e5"), None);
        assert_eq!(time(b""), None);
    }

    #[test]
    fn records_are_cut_by_their_length() {
        let records = Records::parse(b"12 path=a=\nb\n20 SCHILY.xattr.u=1\n", 0).unwrap_err();
        assert!(matches!(records, Fault::Pax { field: "length" | "record", .. }));
        let records = Records::parse(b"13 path=a=\nb\n21 SCHILY.xattr.u.v=\x00\n", 0);
        assert!(records.is_ok() || records.is_err());
        let good = Records::parse(b"13 path=a=\nbc\n", 0);
        assert!(good.is_err());
        let good = Records::parse(b"14 path=a=\nbc\n", 0).unwrap();
        assert_eq!(good.path.unwrap(), b"a=\nbc");
        for bad in [&b"5 a\n"[..], b"x", b"99 path=a\n", b"0 path=a\n", b"3 a", b"10 path=\0b\n", b"9 uid=-1\n"] {
            assert!(Records::parse(bad, 0).is_err(), "{bad:?}");
        }
    }
}
