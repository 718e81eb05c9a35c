//! What unpacking costs at least: `bench-unpack DIRECTORY LAYER.gz...` gunzips all layers on two cores, hashes them before
//! and behind that, writes the unpacked bytes once, one file a layer, and flushes them.
//!
//! It is the yardstick for a pull: the same bytes read, decoded, hashed and written, without a registry and without files.

#![allow(clippy::print_stderr)] // a program that the bench starts

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many cores it takes.
const CORES: usize = 2;
/// How much is read, decoded, hashed and written at a time, in bytes.
const PIECE: usize = 256 << 10;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-unpack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let Some((directory, layers)) = words.split_first() else { bail!("no directory") };
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory)?;
    let mut order: Vec<(u64, &Path)> = Vec::new();
    for layer in layers {
        let layer = Path::new(layer);
        order.push((layer.metadata().with_context(|| format!("no layer {}", layer.display()))?.len(), layer));
    }
    // The largest first, as whoever divides work between cores would.
    order.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some((_, layer)) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            unpack(layer, &directory.join(layer.file_name().context("a layer without a name")?))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CORES).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread broke down")))
    })?;
    Ok(rustix::fs::syncfs(File::open(directory)?)?)
}

/// Passes bytes on, and hashes them.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

fn unpack(layer: &Path, to: &Path) -> Result<()> {
    let source = Hashed { inner: File::open(layer)?, hash: Sha256::new() };
    let mut decoder = MultiGzDecoder::new(std::io::BufReader::with_capacity(PIECE, source));
    let mut unpacked = Sha256::new();
    let mut file = File::options().write(true).create_new(true).open(to)?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = decoder.read(&mut piece)?;
        if length == 0 {
            break;
        }
        unpacked.update(&piece[..length]);
        file.write_all(&piece[..length])?;
    }
    let blob = decoder.into_inner().into_inner().hash.finalize();
    // The digests are what it is for: nobody may leave them out.
    if blob.iter().chain(unpacked.finalize().iter()).all(|byte| *byte == 0) {
        bail!("a digest of zeros");
    }
    Ok(())
}
