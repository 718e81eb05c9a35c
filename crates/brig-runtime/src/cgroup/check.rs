//! What must hold before a cgroup is made or changed: it is not in use, and what is asked for can be had.

use super::{Cgroup, collect_pids, v1, v2};
use crate::error::Error;
use brig_spec::runtime::LinuxResources;

impl Cgroup {
    /// Refuses a cgroup that exists and holds processes or is frozen: a container put there would share its limits, and be
    /// killed along with what is there.
    pub fn check_unused(&self) -> Result<(), Error> {
        let main = self.layout.index("devices").unwrap_or(0);
        self.check_unused_in(main)?;
        match self.layout.index("freezer") {
            Some(freezer) if freezer != main => self.check_unused_in(freezer),
            _ => Ok(()),
        }
    }

    /// The same in one hierarchy.
    pub(super) fn check_unused_in(&self, index: usize) -> Result<(), Error> {
        let directory = self.directory(index);
        let refuse = |why: String| Err(Error::invalid(format!("use the cgroup {}", directory.display()), why));
        let mut pids = Vec::new();
        collect_pids(&directory, &mut pids);
        if !pids.is_empty() {
            return refuse(format!("container's cgroup is not empty: {} process(es) found", pids.len()));
        }
        if self.layout.index("freezer") == Some(index) {
            let unified = self.layout.hierarchies[index].unified;
            if if unified { v2::is_frozen(&directory) } else { v1::is_frozen(&directory) } {
                return refuse("container's cgroup unexpectedly frozen".into());
            }
        }
        Ok(())
    }
}

/// Lists the controllers without which `resources` cannot be had, each with the name of the limit, as v1 names it and as v2
/// does.
pub(super) fn asked(resources: &LinuxResources) -> Vec<(&'static str, &'static str)> {
    let mut asked = Vec::new();
    if let Some(memory) = &resources.memory {
        let numbers = [memory.limit, memory.swap, memory.reservation];
        if numbers.into_iter().flatten().any(|n| n != 0) || memory.disable_oom_killer == Some(true) {
            asked.push(("memory", "memory"));
        }
    }
    if let Some(cpu) = &resources.cpu {
        let numbers = [cpu.shares, cpu.period, cpu.burst, cpu.realtime_period];
        let signed = [cpu.quota, cpu.realtime_runtime];
        if numbers.into_iter().flatten().any(|n| n != 0)
            || signed.into_iter().flatten().any(|n| n != 0)
            || cpu.idle.is_some_and(|idle| idle != 0)
        {
            asked.push(("cpu", "cpu"));
        }
        if !cpu.cpus.is_empty() || !cpu.mems.is_empty() {
            asked.push(("cpuset", "cpuset"));
        }
    }
    if resources.pids.and_then(|pids| pids.limit).is_some_and(|limit| limit >= 0) {
        asked.push(("pids", "pids"));
    }
    if let Some(block) = &resources.block_io {
        let lists = [
            &block.throttle_read_bps_device,
            &block.throttle_write_bps_device,
            &block.throttle_read_iops_device,
            &block.throttle_write_iops_device,
        ];
        if block.weight.is_some_and(|w| w != 0)
            || !block.weight_device.is_empty()
            || lists.into_iter().any(|list| !list.is_empty())
        {
            asked.push(("blkio", "io"));
        }
    }
    if !resources.hugepage_limits.is_empty() {
        asked.push(("hugetlb", "hugetlb"));
    }
    if !resources.rdma.is_empty() {
        asked.push(("rdma", "rdma"));
    }
    if let Some(network) = &resources.network {
        if network.class_id.is_some_and(|id| id != 0) {
            asked.push(("net_cls", "net_cls"));
        }
        if !network.priorities.is_empty() {
            asked.push(("net_prio", "net_prio"));
        }
    }
    asked
}
