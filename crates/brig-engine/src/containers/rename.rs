//! Giving a container another name.
//!
//! The new name is reserved before the record changes, and the old one freed after: a crash in between leaves both names
//! with the container, never none. The monitor of a running `--rm` container frees the name when the container ends, and
//! knows it from its plan; a list written beside the plan tells it the new one. The old name is freed only while the
//! container runs after that: its monitor has then not read any list yet, and cannot take the old name from its next owner.

use super::undo;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::names;
use crate::record::Record;
use brig_spec::id::Name;

/// Renames a container.
pub fn rename(config: &Config, record: &Record, name: &str) -> Result<()> {
    let wanted = Name::parse(name).map_err(|error| Error::invalid("cannot use that name").because(error))?;
    if record.name == name {
        return Err(Error::invalid("the new name is the old one"));
    }
    let _held = super::hold(config, &record.id, "rename")?;
    let mut record = Record::read(config, &record.id)?;
    names::reserve(config, &wanted, &record.id)?;
    let old = std::mem::replace(&mut record.name, name.to_owned());
    if let Err(error) = record.write(config) {
        names::release(config, name, &record.id)?;
        return Err(error);
    }
    if !undo::amend(config, &record)? {
        return Ok(());
    }
    names::release(config, &old, &record.id)
}
