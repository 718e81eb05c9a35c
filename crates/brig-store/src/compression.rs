//! Decompression of layers, chosen by the first bytes and never by what a media type claims.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

/// The compression of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The size in bytes of the buffer between a source and its decoder.
const INPUT_BUFFER: usize = 256 << 10;
/// The largest window, as a power of two, that a zstd stream may ask for: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Tells the compression by the magic number; unsupported kinds are named in the error.
pub(crate) fn detect(start: &[u8]) -> io::Result<Compression> {
    let unsupported =
        |name: &str| Err(io::Error::new(io::ErrorKind::Unsupported, format!("{name} compression is not supported")));
    match start {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        // A frame, or a skippable frame before it, as writers of seekable zstd put it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => unsupported("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => unsupported("bzip2"),
        _ => Ok(Compression::None),
    }
}

type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A stream that is being decompressed; it can be taken apart again to read on behind the compressed part.
pub(crate) enum Decoder<R: Read> {
    None(Input<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Input<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Input<R>>>),
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes of the source and sets up what they ask for.
    pub(crate) fn new(mut source: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(6);
        source.by_ref().take(6).read_to_end(&mut start)?;
        let compression = detect(&start)?;
        let input = BufReader::with_capacity(INPUT_BUFFER, Cursor::new(start).chain(source));
        Ok(match compression {
            Compression::None => Self::None(input),
            Compression::Gzip => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    /// Returns the compression that was found.
    pub(crate) fn compression(&self) -> Compression {
        match self {
            Self::None(_) => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// Reads the source to its end, whatever follows the compressed part, so that a digest over it is complete.
    pub(crate) fn drain_source(self) -> io::Result<()> {
        let mut input = match self {
            Self::None(input) => input,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        };
        loop {
            let length = input.fill_buf()?.len();
            if length == 0 {
                return Ok(());
            }
            input.consume(length);
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn decoded(bytes: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let mut decoder = Decoder::new(bytes)?;
        let mut out = Vec::new();
        decoder.read_to_end(&mut out)?;
        Ok((decoder.compression(), out))
    }

    #[test]
    fn each_kind_is_known_by_its_first_bytes() {
        let text = b"some text of some length".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        assert_eq!(decoded(&text).unwrap(), (Compression::None, text.clone()));
        assert_eq!(decoded(&gzip).unwrap(), (Compression::Gzip, text.clone()));
        assert_eq!(decoded(&zstd).unwrap(), (Compression::Zstd, text.clone()));
        assert_eq!(decoded(&[gzip.clone(), gzip.clone()].concat()).unwrap().1, text.repeat(2));
        assert_eq!(decoded(b"").unwrap().0, Compression::None);
        assert_eq!(decoded(b"abc").unwrap().1, b"abc");
        assert!(decoded(&gzip[..gzip.len() - 3]).is_err());
        assert!(decoded(&zstd[..zstd.len() - 3]).is_err());
        assert!(decoded(b"\xfd7zXZ\0").unwrap_err().to_string().contains("xz"));
    }
}
