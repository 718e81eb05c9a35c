//! A pause that ends with whoever asked for it: what `commit` needs while it reads.
//!
//! ```text
//!   client                     monitor
//!   Pause 1          ------->          <run>/containers/<id>/held made, cgroup frozen
//!                    <-------  Paused
//!   Pause 0, or gone ------->          held renamed to held.ending, cgroup thawed, held.ending removed
//! ```
//!
//! A pause that a person asked for has no such file, and nobody but a person ends it; one who asks for it meanwhile takes the
//! file away ([`keep`]). A monitor that takes over from a lost one ends what that one held.

use brig_runtime::cgroup::Cgroup;
use brig_runtime::{Context, Error};
use std::path::{Path, PathBuf};

const HELD_FILE: &str = "held";
const ENDING_FILE: &str = "held.ending";

/// A container that can be held.
#[derive(Debug, Clone)]
pub struct Holder {
    run_dir: PathBuf,
    cgroup: Cgroup,
}

impl Holder {
    /// Names the container by its run directory and its cgroup.
    pub fn new(run_dir: &Path, cgroup: &Cgroup) -> Self {
        Self { run_dir: run_dir.to_owned(), cgroup: cgroup.clone() }
    }

    /// Freezes the container; false if it stands still already.
    pub fn begin(&self) -> Result<bool, Error> {
        if self.cgroup.is_frozen() {
            return Ok(false);
        }
        let file = self.run_dir.join(HELD_FILE);
        std::fs::write(&file, "").step(|| format!("write {}", file.display()))?;
        self.cgroup.freeze().inspect_err(|_| drop(std::fs::remove_file(&file)))?;
        Ok(true)
    }

    /// Lets the container go on, unless a person has paused it since, or nobody held it.
    pub fn end(&self) -> Result<(), Error> {
        let ending = self.run_dir.join(ENDING_FILE);
        let held = std::fs::rename(self.run_dir.join(HELD_FILE), &ending).is_ok();
        if held || ending.exists() {
            self.cgroup.thaw()?;
            let _ = std::fs::remove_file(&ending);
        }
        Ok(())
    }

    /// Forgets that it was held: the container has ended.
    pub fn forget(&self) {
        for name in [HELD_FILE, ENDING_FILE] {
            let _ = std::fs::remove_file(self.run_dir.join(name));
        }
    }
}

/// Makes a pause one that stays when its holder goes; false if the container is not held.
pub fn keep(run_dir: &Path) -> bool {
    std::fs::remove_file(run_dir.join(HELD_FILE)).is_ok()
}
