//! `system check`: everything in the store is looked at, and what is wrong is named together with who needs it.
//!
//! ```text
//!   records    readable, of the image that their name says, told alike by manifest and configuration
//!   names      lead to an image that is here
//!   blobs      there, and of the content that their name says (always read whole)
//!   layers     there, with a readable record, and as many names, directories and bytes as were counted when unpacked
//!   deep       each layer is unpacked again from its blob, aside, and compared with the one that is here, byte by byte
//! ```
//!
//! Repairing removes what cannot be trusted, makes layers anew from blobs that are good, and tells what must be pulled again.

mod compare;
mod layer;
mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use brig_spec::digest::Digest;
use brig_spec::image::{CONFIG_MAX, Document, ImageConfig, MANIFEST_MAX};
use brig_spec::reference::Reference;

pub use repair::Repaired;

use crate::Store;
use crate::collect::{AskUsers, ask};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::image::ImageRecord;
use crate::lease::{Lease, Needs};
use crate::observe::Observer;

/// Which thing of the store is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// The record of an image.
    Record(Digest),
    /// A name of an image, as it is filed.
    Name(String),
    /// A blob.
    Blob(Digest),
    /// An unpacked layer, by the name of its directory.
    Layer(String),
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(id) => write!(f, "the record of image {}", id.short()),
            Self::Name(name) => write!(f, "the name `{name}`"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Layer(name) => write!(f, "layer {name}"),
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone)]
pub struct Problem {
    /// With what.
    pub object: Object,
    /// What is wrong.
    pub fault: String,
    /// Which images need it: a name of each, or its short id.
    pub images: Vec<String>,
    /// Whether it is not there at all.
    pub missing: bool,
    /// Whether a newer brig may have made it, so that this one leaves it alone.
    pub newer: bool,
}

/// What a check has found.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The number of images.
    pub images: u64,
    /// The number of blobs that were read.
    pub blobs: u64,
    /// The number of layers that were looked at.
    pub layers: u64,
    /// The bytes that were read.
    pub bytes: u64,
    /// Blobs and layers that nothing needs, and what interrupted commands have left; a collection removes them.
    pub unused: u64,
}

/// What the records say, gathered.
struct Survey {
    images: BTreeMap<Digest, ImageRecord>,
    names: Vec<(Reference, Digest)>,
    needs: Needs,
}

impl Survey {
    /// Names the images for which a condition holds.
    fn who(&self, needs: impl Fn(&ImageRecord) -> bool) -> Vec<String> {
        let mut who: Vec<String> =
            self.images.values().filter(|image| needs(image)).map(|image| self.call(&image.id)).collect();
        who.sort();
        who
    }

    /// What an image is called: by its first name, or its short id.
    fn call(&self, id: &Digest) -> String {
        let name = self.names.iter().find(|(_, owner)| owner == id).map(|(name, _)| name.familiar());
        name.unwrap_or_else(|| id.short().to_owned())
    }
}

fn uses_blob(image: &ImageRecord, digest: &Digest) -> bool {
    image.id == *digest || image.manifest == *digest || image.layers.iter().any(|layer| layer.blob.digest == *digest)
}

impl Store {
    /// Looks at everything; nothing is collected meanwhile. `deep` unpacks every layer again and compares.
    pub fn check(&self, users: &AskUsers<'_>, deep: bool, observer: &dyn Observer) -> Result<Report> {
        let mut report = Report::default();
        // 1. Records and names.
        let (survey, lease) = self.lease_on(|| {
            let survey = self.survey(&mut report)?;
            self.check_names(&survey, &mut report)?;
            let needs = survey.needs.clone();
            Ok((survey, needs))
        })?;
        // 2. Blobs.
        let bad = self.check_blobs(&survey, &mut report, observer)?;
        // 3. What the documents say, where they can be believed.
        for image in survey.images.values().filter(|image| !bad.contains(&image.id) && !bad.contains(&image.manifest)) {
            if let Err(fault) = self.check_documents(image) {
                let who = vec![survey.call(&image.id)];
                report.problems.push(problem(Object::Record(image.id.clone()), fault, who));
            }
        }
        // 4. Layers.
        self.check_layers(&survey, &bad, deep.then_some(&lease), &mut report, observer)?;
        // 5. What nobody needs.
        self.count_unused(&survey, users, &lease, &mut report)?;
        Ok(report)
    }

    fn survey(&self, report: &mut Report) -> Result<Survey> {
        let mut survey = Survey { images: BTreeMap::new(), names: self.names()?, needs: Needs::default() };
        for id in self.image_ids()? {
            match self.read_image(&id) {
                Ok(None) => {}
                Ok(Some(image)) => {
                    survey.needs.blobs.extend([image.id.clone(), image.manifest.clone()]);
                    for layer in &image.layers {
                        survey.needs.blobs.push(layer.blob.digest.clone());
                        survey.needs.layers.push(layer.name.clone());
                    }
                    survey.images.insert(id, image);
                }
                Err(error) => {
                    let who = vec![survey.call(&id)];
                    let fault = match &error {
                        Error::Record { reason, .. } => format!("it is unreadable: {reason}"),
                        other => other.to_string(),
                    };
                    let newer = fault.contains("a newer brig");
                    report.problems.push(Problem { newer, ..problem(Object::Record(id), fault, who) });
                }
            }
        }
        report.images = survey.images.len() as u64;
        Ok(survey)
    }

    fn check_names(&self, survey: &Survey, report: &mut Report) -> Result<()> {
        let known = self.image_ids()?;
        for (name, owner) in &survey.names {
            if !known.contains(owner) {
                let fault = format!("image {}, to which it leads, is not here", owner.short());
                report.problems.push(problem(Object::Name(name.to_string()), fault, Vec::new()));
            }
        }
        for file in self.bad_names()? {
            let fault = "it does not say which image it means".to_owned();
            report.problems.push(problem(Object::Name(file), fault, Vec::new()));
        }
        Ok(())
    }

    /// Reads every blob, side by side; returns those that cannot be used.
    fn check_blobs(&self, survey: &Survey, report: &mut Report, observer: &dyn Observer) -> Result<BTreeSet<Digest>> {
        let mut bad = BTreeSet::new();
        let here = self.blobs()?;
        for digest in &survey.needs.blobs {
            if here.binary_search(digest).is_err() && bad.insert(digest.clone()) {
                let who = survey.who(|image| uses_blob(image, digest));
                let gone = problem(Object::Blob(digest.clone()), "it is missing".to_owned(), who);
                report.problems.push(Problem { missing: true, ..gone });
            }
        }
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<(Digest, std::result::Result<u64, String>)>> = Mutex::new(Vec::new());
        let work = || {
            while let Some(digest) = here.get(next.fetch_add(1, Ordering::Relaxed)) {
                if observer.cancelled() {
                    return;
                }
                let result = self.hash_blob(digest);
                if let Ok(mut results) = results.lock() {
                    results.push((digest.clone(), result));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..crate::limits::parallel().min(here.len()) {
                scope.spawn(work);
            }
            work();
        });
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let mut results = results.into_inner().unwrap_or_default();
        results.sort_by(|a, b| a.0.cmp(&b.0));
        for (digest, result) in results {
            report.blobs += 1;
            match result {
                Ok(bytes) => report.bytes += bytes,
                Err(fault) => {
                    let who = survey.who(|image| uses_blob(image, &digest));
                    report.problems.push(problem(Object::Blob(digest.clone()), fault, who));
                    bad.insert(digest);
                }
            }
        }
        Ok(bad)
    }

    /// Hashes one blob; returns its size in bytes, or what is wrong.
    fn hash_blob(&self, digest: &Digest) -> std::result::Result<u64, String> {
        let mut file = match self.open_blob(digest) {
            Ok(file) => file,
            Err(error) => return Err(error.to_string()),
        };
        let mut hash = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    hash.update(&buffer[..length]);
                    total += length as u64;
                }
                Err(error) => return Err(format!("it cannot be read: {error}")),
            }
        }
        let found = hash.finish();
        if found == *digest { Ok(total) } else { Err(format!("its content has the digest {found}")) }
    }

    /// Compares an image's record with its manifest and its configuration.
    fn check_documents(&self, image: &ImageRecord) -> std::result::Result<(), String> {
        let text = |error: Error| error.to_string();
        let manifest = self.read_blob(&image.manifest, MANIFEST_MAX).map_err(text)?;
        let config = self.read_blob(&image.id, CONFIG_MAX).map_err(text)?;
        let Ok(Document::Manifest(manifest)) = Document::parse(&manifest, None) else {
            return Err("its manifest is none".to_owned());
        };
        let Ok(config) = ImageConfig::parse(&config) else { return Err("its configuration is none".to_owned()) };
        let blobs = manifest.layers.iter().map(|layer| &layer.digest);
        if manifest.config.digest != image.id
            || !blobs.eq(image.layers.iter().map(|layer| &layer.blob.digest))
            || !config.rootfs.diff_ids.iter().eq(image.layers.iter().map(|layer| &layer.diff_id))
        {
            return Err("it does not say the same as the manifest and the configuration".to_owned());
        }
        Ok(())
    }

    fn count_unused(&self, survey: &Survey, users: &AskUsers<'_>, lease: &Lease, report: &mut Report) -> Result<()> {
        let in_use = ask(users)?;
        let unused = |digest: &Digest| {
            !survey.needs.blobs.contains(digest) && !in_use.images.iter().any(|(image, _)| image == digest)
        };
        report.unused += self.blobs()?.iter().filter(|digest| unused(digest)).count() as u64;
        let layers = self.layer_directories()?.into_iter();
        report.unused +=
            layers.filter(|name| !survey.needs.layers.contains(name) && !in_use.layers.contains(name)).count() as u64;
        let tmp = self.root.join("tmp");
        for entry in std::fs::read_dir(&tmp).map_err(Error::io("read", tmp.display()))?.flatten() {
            if entry.path() != lease.path() && !crate::collect::is_held(&entry.path()) {
                report.unused += 1;
            }
        }
        Ok(())
    }

    fn blobs(&self) -> Result<Vec<Digest>> {
        Ok(self.blobs_here()?.into_iter().map(|(digest, _)| digest).collect())
    }

    /// Lists the directories of unpacked layers, sorted.
    fn layer_directories(&self) -> Result<Vec<String>> {
        let path = self.root.join("layers");
        let entries = std::fs::read_dir(&path).map_err(Error::io("read", path.display()))?;
        let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}

fn problem(object: Object, fault: String, images: Vec<String>) -> Problem {
    Problem { object, fault, images, missing: false, newer: false }
}
