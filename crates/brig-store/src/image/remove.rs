//! Removal of names and images. Content goes when it is collected.

use brig_spec::digest::Digest;
use brig_spec::reference::Reference;

use crate::collect::{AskUsers, ask};
use crate::error::{Error, Result};
use crate::image::ImageSummary;
use crate::{Silent, Store, disk};

/// What a removal has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The names that were taken away.
    pub untagged: Vec<Reference>,
    /// The image that is gone, if its last name was taken.
    pub deleted: Option<Digest>,
}

impl Store {
    /// Removes a name, and with the last name the image; or an image by id with all its names.
    ///
    /// Without `force`, an image that a container uses stays, and so does one that is asked for by id and has names in
    /// several repositories. With `force` the record goes, and the layers in use stay until their containers go.
    /// The content itself is freed by [`Store::collect`].
    pub fn remove(&self, name_or_id: &str, users: &AskUsers<'_>, force: bool) -> Result<Removed> {
        let commit = self.commit_lock(&Silent)?;
        let id = self.resolve(name_or_id)?;
        let names: Vec<Reference> =
            self.names()?.into_iter().filter(|(_, owner)| *owner == id).map(|(name, _)| name).collect();
        let asked = name_or_id.parse::<Reference>().ok().filter(|name| names.contains(name));
        let mut removed = Removed::default();
        if let Some(name) = asked.filter(|_| names.len() > 1) {
            self.unset_name(&commit, &name)?;
            removed.untagged.push(name);
            return Ok(removed);
        }
        if !force {
            let refuse = |reason: String| Error::InUse { image: name_or_id.to_owned(), reason };
            if let Some((_, user)) = ask(users)?.images.iter().find(|(image, _)| *image == id) {
                return Err(refuse(format!("{user} uses it")));
            }
            let mut repositories: Vec<String> = names.iter().map(Reference::name).collect();
            repositories.dedup();
            if repositories.len() > 1 {
                return Err(refuse("it has names in several repositories".to_owned()));
            }
        }
        // The record first: a name without an image is nothing, an image without a name would still be listed.
        self.remove_record(&commit, &id)?;
        disk::sync_directory(&self.images_path())?;
        for name in names {
            self.unset_name(&commit, &name)?;
            removed.untagged.push(name);
        }
        removed.deleted = Some(id);
        Ok(removed)
    }

    /// Removes every image that nobody uses and that is picked: those without a name, or, with `tagged`, the others too.
    pub fn remove_unused(
        &self,
        users: &AskUsers<'_>,
        tagged: bool,
        pick: &dyn Fn(&ImageSummary) -> bool,
    ) -> Result<Vec<Digest>> {
        let commit = self.commit_lock(&Silent)?;
        let in_use = ask(users)?;
        let mut gone = Vec::new();
        // A record that cannot be read may belong to a newer brig: it is not among these, and stays.
        for image in self.images()?.images {
            let used = in_use.images.iter().any(|(user, _)| *user == image.id);
            if used || !image.names.is_empty() && !tagged || !pick(&image) {
                continue;
            }
            self.remove_record(&commit, &image.id)?;
            image.names.iter().try_for_each(|name| self.unset_name(&commit, name))?;
            gone.push(image.id);
        }
        disk::sync_directory(&self.images_path())?;
        gone.sort();
        Ok(gone)
    }
}
