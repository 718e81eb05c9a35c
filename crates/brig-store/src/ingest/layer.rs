//! One layer: fetched, verified and unpacked in one pass by two threads.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use brig_spec::digest::Digest;

use super::stream::BlobStream;
use super::{BlobSource, Plan};
use crate::compression::Decoder;
use crate::error::{Error, Result};
use crate::layers::{FORMAT, FORMAT_IMAGE, LayerForm, Record, RootRecord};
use crate::observe::Observer;
use crate::pump::{Outlet, pump};
use crate::tarball::{Fault, Tarball};
use crate::unpack::{Directories, Place, Unpacked};
use crate::{Store, disk, erofs};

/// What a job has done.
pub(super) struct Fetched {
    /// The unpacked layer, unless only the blob was missing.
    pub(super) unpacked: Option<Staged>,
}

impl Fetched {
    /// Returns the unpacked size in bytes, or zero if nothing had to be unpacked.
    pub(super) fn size(&self) -> u64 {
        match self.unpacked.as_ref().map(|staged| &staged.state) {
            Some(State::Sealed(record)) => record.size,
            Some(State::Open(unpacked)) => unpacked.size(),
            None => 0,
        }
    }
}

/// An unpacked layer in the lease's directory.
pub(super) struct Staged {
    pub(super) path: PathBuf,
    pub(super) form: LayerForm,
    pub(super) state: State,
}

impl Staged {
    /// Tells whether it cannot be finished without the layers below.
    pub(super) fn needs_below(&self) -> bool {
        matches!(self.state, State::Open(_))
    }
}

/// How far an unpacked layer is.
pub(super) enum State {
    /// Complete by itself.
    Sealed(Record),
    /// It needs the layers below.
    Open(Box<Unpacked>),
}

/// The work on one layer.
pub(super) struct Job<'a> {
    pub(super) store: &'a Store,
    pub(super) plan: &'a Plan,
    pub(super) form: LayerForm,
    pub(super) source: &'a dyn BlobSource,
    pub(super) observer: &'a dyn Observer,
    /// Set when another layer has failed.
    pub(super) stop: &'a AtomicBool,
}

impl Job<'_> {
    /// Fetches the blob if it is missing, and unpacks the layer into `staging` if that is missing.
    pub(super) fn run(&self, staging: &Path) -> Result<Fetched> {
        let plan = self.plan;
        if plan.has_blob {
            return unpack_file(self.store, plan, self.form, &self.store.blob_path(&plan.blob.digest), staging);
        }
        let path = self.store.part_path(&plan.blob.digest);
        let kept = path.metadata().is_ok_and(|metadata| metadata.len() > 0);
        match self.fetch(&path, staging) {
            // What an earlier attempt left may be what is wrong: once more, from the first byte.
            Err(error) if kept && spoils_download(&error) => {
                disk::remove_directory(staging)?;
                self.fetch(&path, staging)
            }
            result => result,
        }
    }

    /// Fetches the blob into its partial file, going on where that ends; a file with wrong content is emptied.
    fn fetch(&self, path: &Path, staging: &Path) -> Result<Fetched> {
        let plan = self.plan;
        let fail = || Error::io::<io::Error>("open", path.display());
        let part = OpenOptions::new().read(true).append(true).open(path).map_err(fail())?;
        let stream = BlobStream::new(&plan.blob, self.source, self.observer, self.stop, part).map_err(fail())?;
        let result = if plan.found.is_some() {
            stream.finish().map(|()| Fetched { unpacked: None })
        } else {
            self.fetch_and_unpack(stream, staging)
        };
        if let Err(error) = &result
            && spoils_download(error)
        {
            let _ = File::options().write(true).open(path).and_then(|file| file.set_len(0));
        }
        result
    }

    fn fetch_and_unpack(&self, mut stream: BlobStream<'_>, staging: &Path) -> Result<Fetched> {
        let plan = self.plan;
        let limit = self.store.limits.expanded(plan.blob.size);
        let (inlet, outlet) = pump(plan.diff_id.algorithm());
        let give_up = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let producer = scope.spawn(|| {
                let ended = match Decoder::new(&mut stream) {
                    Ok(mut decoder) => {
                        inlet.fill(&mut decoder, limit, || io::Error::other(Fault::TooLarge(limit)));
                        if give_up.load(Ordering::Relaxed) { Ok(()) } else { decoder.drain_source() }
                    }
                    Err(error) => {
                        inlet.fill(&mut Broken(Some(error)), limit, || io::ErrorKind::Other.into());
                        Ok(())
                    }
                };
                drop(ended); // a failure of the stream is kept in the stream
                if give_up.load(Ordering::Relaxed) { None } else { Some(stream.finish()) }
            });
            let unpacked = unpack(self.store, plan, self.form, outlet, staging);
            if matches!(&unpacked, Err(Error::Io { .. } | Error::Layer { source: Fault::Io { .. }, .. })) {
                // This machine is at fault: there is no need to fetch the rest.
                give_up.store(true, Ordering::Relaxed);
            }
            // A bad source explains a bad tar, so it comes first.
            match producer.join() {
                Ok(Some(Err(error))) => Err(error),
                Ok(_) => unpacked.map(|staged| Fetched { unpacked: Some(staged) }),
                Err(_) => Err(Error::Cancelled),
            }
        })
    }
}

/// Unpacks a layer from a blob that is here and verified.
pub(super) fn unpack_file(store: &Store, plan: &Plan, form: LayerForm, path: &Path, staging: &Path) -> Result<Fetched> {
    if plan.found.is_some() {
        return Ok(Fetched { unpacked: None });
    }
    let file = File::open(path).map_err(Error::io("open", path.display()))?;
    let limit = store.limits.expanded(plan.blob.size);
    let (inlet, outlet) = pump(plan.diff_id.algorithm());
    let staged = std::thread::scope(|scope| {
        scope.spawn(|| match Decoder::new(file) {
            Ok(mut decoder) => inlet.fill(&mut decoder, limit, || io::Error::other(Fault::TooLarge(limit))),
            Err(error) => inlet.fill(&mut Broken(Some(error)), limit, || io::ErrorKind::Other.into()),
        });
        unpack(store, plan, form, outlet, staging)
    })?;
    Ok(Fetched { unpacked: Some(staged) })
}

/// Unpacks what comes out of the pump, and checks the diff id.
fn unpack(store: &Store, plan: &Plan, form: LayerForm, outlet: Outlet, staging: &Path) -> Result<Staged> {
    let fail = |source| Error::Layer { layer: plan.blob.digest.clone(), source };
    let place = place(form, staging)?;
    let mut tarball = Tarball::new(outlet);
    let unpacked = Unpacked::read(place, &mut tarball, &store.limits).map_err(fail)?;
    let found: Digest = tarball.into_inner().finish().map_err(|error| fail(Fault::from_stream(error)))?;
    if found != plan.diff_id {
        return Err(Error::Digest { expected: plan.diff_id.clone(), found });
    }
    let state = if unpacked.stands_alone() {
        let record = record(plan, form, &unpacked);
        unpacked.seal().map_err(fail)?;
        State::Sealed(record)
    } else {
        State::Open(Box::new(unpacked))
    };
    Ok(Staged { path: staging.to_owned(), form, state })
}

/// Makes the empty place that a layer is unpacked into.
fn place(form: LayerForm, staging: &Path) -> Result<Box<dyn Place>> {
    match form {
        LayerForm::Directories => {
            let tree = staging.join("tree");
            disk::make_directory(&tree)?;
            Ok(Box::new(Directories::new(disk::open_directory(&tree)?)))
        }
        LayerForm::Erofs => {
            disk::make_directory(staging)?;
            let path = staging.join(erofs::NAME);
            Ok(Box::new(erofs::Image::create(&path).map_err(Error::io("make", path.display()))?))
        }
    }
}

/// Describes an unpacked layer.
pub(super) fn record(plan: &Plan, form: LayerForm, unpacked: &Unpacked) -> Record {
    let root = unpacked.root_attributes().map(|root| RootRecord { mode: root.mode, uid: root.uid, gid: root.gid });
    let format = match form {
        LayerForm::Directories => FORMAT,
        LayerForm::Erofs => FORMAT_IMAGE,
    };
    Record {
        format,
        diff_id: plan.diff_id.clone(),
        size: unpacked.size(),
        entries: unpacked.entries(),
        root,
        census: unpacked.census(),
        verity: None,
    }
}

/// Writes a layer's record beside its tree.
pub(crate) fn write_record(staging: &Path, record: &Record) -> Result<()> {
    let path = staging.join("layer.json");
    let text = serde_json::to_vec(record)
        .map_err(|error| Error::Record { path: path.display().to_string(), reason: error.to_string() })?;
    std::fs::write(&path, text).map_err(Error::io("write", path.display()))
}

/// Tells whether the bytes that were fetched are worthless, so that the next attempt must start anew.
fn spoils_download(error: &Error) -> bool {
    match error {
        Error::Digest { .. } => true,
        Error::Size { expected, found, .. } => found > expected,
        Error::Layer { source, .. } => !matches!(source, Fault::Io { .. }),
        _ => false,
    }
}

/// A reader that fails at once, with the error that a decoder began with.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}
