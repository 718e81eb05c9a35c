//! The mutator: a seed is taken, cut, joined and bent, by numbers that follow from one first number.

/// What is put in the place of bytes because it is often special.
const SPECIAL: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"/",
    b"..",
    b"../",
    b".wh.",
    b".wh..wh..opq",
    b"\x7f\xff\xff\xff",
    b"99999999999",
    b"-1",
    b"null",
    b"{}",
    b"sha256:",
    b"0",
    b"\"",
    b"\n",
];
/// The most bytes of an input.
const LENGTH_MAX: usize = 256 << 10;
/// The size of a tar's block in bytes, and where its checksum lies.
const BLOCK: usize = 512;
const SUM: std::ops::Range<usize> = 148..156;

/// A source of inputs.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
    is_tar: bool,
}

impl Mutator {
    /// Begins with a number; the same number gives the same inputs. A tar's checksums are mostly put right again.
    pub fn new(seed: u64, is_tar: bool) -> Self {
        Self { state: seed | 1, is_tar }
    }

    /// xorshift64*.
    fn number(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound.max(1) as u64).unwrap_or(0)
    }

    /// Makes the next input of some seeds.
    pub fn next(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = if seeds.is_empty() { Vec::new() } else { seeds[self.below(seeds.len())].clone() };
        for _ in 0..=self.below(6) {
            self.step(&mut bytes, seeds);
        }
        bytes.truncate(LENGTH_MAX);
        if self.is_tar && self.below(8) > 0 {
            put_sums_right(&mut bytes);
        }
        bytes
    }

    fn step(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        // In a tar, what is interesting is in the headers, at the beginning of blocks.
        let at =
            if self.is_tar && self.below(3) > 0 { (at / BLOCK * BLOCK + self.below(400)).min(bytes.len()) } else { at };
        match self.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap_or(0),
            2 => {
                let special = SPECIAL[self.below(SPECIAL.len())];
                for (n, byte) in special.iter().enumerate() {
                    if let Some(place) = bytes.get_mut(at + n) {
                        *place = *byte;
                    }
                }
            }
            3 => {
                let special = SPECIAL[self.below(SPECIAL.len())];
                bytes.splice(at..at, special.iter().copied());
            }
            4 => {
                let unit = if self.is_tar { BLOCK } else { 1 };
                let (from, length) = (at / unit * unit, (1 + self.below(8)) * unit);
                bytes.drain(from..(from + length).min(bytes.len()));
            }
            5 => {
                let unit = if self.is_tar { BLOCK } else { 1 };
                let (from, length) = (at / unit * unit, (1 + self.below(8)) * unit);
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                let to = self.below(bytes.len() + 1) / unit * unit;
                bytes.splice(to..to, piece);
            }
            6 if !seeds.is_empty() => {
                let other = &seeds[self.below(seeds.len())];
                let unit = if self.is_tar { BLOCK } else { 1 };
                let from = self.below(other.len() + 1) / unit * unit;
                bytes.truncate(at / unit * unit);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.truncate(at),
        }
    }
}

/// Gives every block that looks like a header its right checksum.
fn put_sums_right(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")) {
        block[SUM].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
