//! Giving a container another name.
//!
//! The new name is reserved before the record changes, and the old one freed after: a crash in between leaves both names
//! with the container, never none. The monitor of a running `--rm` container frees the name that it knows when the container
//! ends, so that one stays reserved until then.

use super::status;
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
    if record.config.remove && status::of(config, &record).is_active() {
        return Ok(());
    }
    names::release(config, &old, &record.id)
}
