//! Sparse files: which pieces of a file are stored, in GNU's old header form and in its three pax forms.
//!
//! ```text
//!   old GNU   header 'S': 4 pairs, then blocks of 21 pairs each        real size in the header
//!   pax 0.0   GNU.sparse.offset / .numbytes records, one pair each     GNU.sparse.size
//!   pax 0.1   GNU.sparse.map = offset,length,offset,length..           GNU.sparse.size
//!   pax 1.0   the map leads the data as decimal lines, padded to 512   GNU.sparse.realsize
//! ```

use std::io::BufRead;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{BLOCK, Entry, Fault, Tarball, pax};

/// The most pieces that a sparse file may have.
const PIECES_MAX: usize = 1 << 20;

impl<R: BufRead> Tarball<R> {
    /// Fills in the map and the real size of a sparse entry, and takes what precedes its data.
    pub(super) fn sparse(
        &mut self,
        entry: &mut Entry,
        header: &Header,
        pax: &pax::Records,
        at: u64,
    ) -> Result<(), Fault> {
        let bad = || Fault::Header { at, field: "sparse map" };
        let (pieces, size) = if let Some(size) = pax.sparse_size {
            let numbers = if pax.sparse_major == Some(1) { self.leading_map(at)? } else { pax.sparse_map.clone() };
            if numbers.len() % 2 != 0 {
                return Err(bad());
            }
            (numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), size)
        } else {
            let stored = self.data;
            let gnu = header.as_gnu().ok_or_else(bad)?;
            let mut pieces = Vec::new();
            push_pieces(&mut pieces, &gnu.sparse).ok_or_else(bad)?;
            let mut more = gnu.is_extended();
            while more {
                let mut block = GnuExtSparseHeader::new();
                if !self.read_block(block.as_mut_bytes())? {
                    return Err(Fault::Truncated);
                }
                push_pieces(&mut pieces, block.sparse()).ok_or_else(bad)?;
                more = block.is_extended();
            }
            self.expect(stored)?;
            (pieces, gnu.real_size().map_err(|_| bad())?)
        };
        let mut end = 0_u64;
        let mut total = 0_u64;
        for (offset, length) in &pieces {
            if *offset < end {
                return Err(bad());
            }
            end = offset.checked_add(*length).ok_or_else(bad)?;
            total += length;
        }
        if end > size || total != self.data {
            return Err(bad());
        }
        entry.size = size;
        entry.sparse = Some(pieces);
        Ok(())
    }

    /// Reads the decimal lines of format 1.0: the number of pieces, then offset and length of each.
    fn leading_map(&mut self, at: u64) -> Result<Vec<u64>, Fault> {
        let bad = || Fault::Header { at, field: "sparse map" };
        let mut numbers = Vec::new();
        let mut wanted = None;
        let mut line = Vec::new();
        let mut taken = 0_usize;
        while wanted.is_none_or(|wanted| numbers.len() < wanted) {
            let piece = self.data()?;
            let Some(byte) = piece.first().copied() else { return Err(bad()) };
            self.consume(1);
            taken += 1;
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(bad());
                }
                continue;
            }
            let number = pax::number(&line).ok_or_else(bad)?;
            line.clear();
            if wanted.is_none() {
                let count = usize::try_from(number).ok().filter(|count| *count <= PIECES_MAX).ok_or_else(bad)?;
                wanted = Some(count * 2);
            } else {
                numbers.push(number);
            }
        }
        let pad = (BLOCK - taken % BLOCK) % BLOCK;
        for _ in 0..pad {
            if self.data()?.is_empty() {
                return Err(bad());
            }
            self.consume(1);
        }
        Ok(numbers)
    }
}

fn push_pieces(pieces: &mut Vec<(u64, u64)>, headers: &[GnuSparseHeader]) -> Option<()> {
    for header in headers.iter().filter(|header| !header.is_empty()) {
        pieces.push((header.offset().ok()?, header.length().ok()?));
        if pieces.len() > PIECES_MAX {
            return None;
        }
    }
    Some(())
}
