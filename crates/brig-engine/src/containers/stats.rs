//! What a running container uses, at one moment.

use super::status;
use crate::config::Config;
use crate::error::Result;
use crate::record::Record;
use brig_net::usage::Usage;
use brig_runtime::cgroup::Stats;
use std::time::Instant;

/// One reading. Rates are the difference of two.
#[derive(Debug)]
pub struct Sample {
    /// When it was taken.
    pub at: Instant,
    /// What the cgroup counts.
    pub cgroup: Stats,
    /// What its network interface counts, when it has one of its own.
    pub network: Option<Usage>,
}

/// Takes a reading of a running container.
pub fn sample(config: &Config, record: &Record) -> Result<Sample> {
    if !status::of(config, record).is_running() {
        return Err(super::not_running(record));
    }
    let cgroup = super::pause::cgroup(config, record)?.stats();
    let network = record.network.as_ref().and_then(|n| brig_net::usage::usage(n).ok());
    Ok(Sample { at: Instant::now(), cgroup, network })
}
