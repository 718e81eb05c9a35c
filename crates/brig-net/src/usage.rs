//! What went through a container's interface: the counters of the host's end, seen from the container's side.

use crate::attach::open_route;
use crate::error::{Error, Result};
use crate::link;
use crate::plan::Network;

/// The counters of a container's interface since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What the container received.
    pub received: Counters,
    /// What the container sent.
    pub sent: Counters,
}

/// One direction's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes, link headers included.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets lost to errors.
    pub errors: u64,
    /// Packets dropped for want of room.
    pub dropped: u64,
}

/// Reads the counters of the plan's host interface, in the calling thread's network namespace.
pub fn usage(plan: &Network) -> Result<Usage> {
    let mut found = None;
    link::statistics(&mut open_route()?, &plan.host_interface, |bytes| found = parse(bytes))
        .map_err(|errno| Error::kernel("read the counters of", &plan.host_interface, errno))?;
    Ok(found.unwrap_or_default())
}

/// Reads struct rtnl_link_stats64; what the host's end sent is what the container received.
fn parse(bytes: &[u8]) -> Option<Usage> {
    let field = |place: usize| {
        let bytes = bytes.get(place * 8..place * 8 + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    let counters = |first: usize| {
        Some(Counters {
            packets: field(first)?,
            bytes: field(first + 2)?,
            errors: field(first + 4)?,
            dropped: field(first + 6)?,
        })
    };
    Some(Usage { sent: counters(0)?, received: counters(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sides_are_exchanged() {
        let raw: Vec<u8> = (1_u64..=8).flat_map(u64::to_ne_bytes).collect();
        let usage = parse(&raw).unwrap();
        assert_eq!(usage.sent, Counters { packets: 1, bytes: 3, errors: 5, dropped: 7 });
        assert_eq!(usage.received, Counters { packets: 2, bytes: 4, errors: 6, dropped: 8 });
        assert_eq!(parse(&raw[..63]), None);
    }
}
