//! A network device of the machine that a container gets for itself; runtime specification, config-linux.md, "Network Devices".
//!
//! ```text
//! look up, note its global addresses  ->  down, into the namespace (perhaps under another name)
//!                                                              ->  addresses again, up
//! ```
//!
//! The kernel keeps the hardware address and the MTU on that way, and drops the addresses. Who owns the namespace owns the device
//! from then on: a physical one returns to the machine with the namespace's end, a virtual one goes with it.

use crate::error::{Error, Result};
use crate::link;
use crate::message::{ACK, native_u32};
use crate::namespace;
use crate::netlink::Socket;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const DUMP: u16 = 0x300;
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE_FD: u16 = 28;
const ADDRESS_HEADER_LEN: usize = 8;
const SCOPE_GLOBAL: u8 = 0;
const PERMANENT: u8 = 0x80;
const ATTRIBUTES_KEPT: [u16; 3] = [1, 2, 4]; // address, local, broadcast
/// The longest name of an interface, bytes: IFNAMSIZ without the NUL.
const LONGEST_NAME: usize = 15;

/// One address as the kernel told it.
struct Address {
    header: [u8; ADDRESS_HEADER_LEN],
    attributes: Vec<(u16, Vec<u8>)>,
}

/// Moves the device `name` of the calling thread's network namespace into `netns`, there called `new_name`, with its addresses of
/// global scope, and brings it up. Errors: there is no such device, it cannot leave its namespace, the name is in use there.
pub fn move_device(name: &str, new_name: &str, netns: BorrowedFd<'_>) -> Result<()> {
    let failed = |operation, errno| Error::kernel(operation, name, errno);
    for name in [name, new_name] {
        if name.is_empty() || name.len() > LONGEST_NAME || name.bytes().any(|b| b == b'/' || b == 0 || b == b' ') {
            return Err(failed("use the name of network device", Errno::INVAL));
        }
    }
    let mut route = crate::attach::open_route()?;
    let device = link::by_name(&mut route, name).map_err(|errno| failed("look up network device", errno))?;
    let device = device.ok_or_else(|| failed("look up network device", Errno::NODEV))?;
    if device.index == link::LOOPBACK {
        return Err(failed("move network device", Errno::INVAL));
    }
    let mut inner = namespace::inside(netns, crate::attach::open_route)?;
    // The kernel would move it first and find the name in use then.
    let taken = link::by_name(&mut inner, new_name).map_err(|errno| failed("look up network device", errno))?;
    if taken.is_some() {
        return Err(Error::kernel("use the name of network device", new_name, Errno::EXIST));
    }
    let addresses = addresses(&mut route, device.index).map_err(|errno| failed("read the addresses of", errno))?;
    let mut batch = route.batch();
    batch.message(SET_LINK, 0, &link::change(device.index, false), |_| {});
    batch.message(SET_LINK, ACK, &link::header(device.index, 0), |batch| {
        batch.text(LINK_NAME, new_name);
        batch.number(LINK_NAMESPACE_FD, netns.as_raw_fd().cast_unsigned());
    });
    route.expect(&batch).map_err(|errno| failed("move network device", errno))?;
    let device = link::by_name(&mut inner, new_name).map_err(|errno| failed("look up network device", errno))?;
    let device = device.ok_or_else(|| failed("look up network device", Errno::NODEV))?;
    let mut batch = inner.batch();
    for Address { mut header, attributes } in addresses {
        header[4..8].copy_from_slice(&device.index.to_ne_bytes());
        batch.message(NEW_ADDRESS, 0, &header, |batch| {
            for (kind, value) in &attributes {
                batch.attribute(*kind, value);
            }
        });
    }
    link::up(&mut batch, device.index, ACK);
    inner.expect(&batch).map_err(|errno| failed("give back the addresses of", errno))
}

/// Reads the permanent addresses of global scope of a device.
fn addresses(route: &mut Socket, index: u32) -> std::result::Result<Vec<Address>, Errno> {
    let mut batch = route.batch();
    batch.message(GET_ADDRESS, DUMP, &[0; ADDRESS_HEADER_LEN], |_| {});
    let mut addresses = Vec::new();
    let refusals = route.exchange(&batch, |_, found| {
        let Some(header) = found.payload.first_chunk::<ADDRESS_HEADER_LEN>() else { return };
        let wanted = native_u32(&header[4..]) == Some(index) && header[3] == SCOPE_GLOBAL && header[2] & PERMANENT != 0;
        if wanted {
            let kept = found.attributes(ADDRESS_HEADER_LEN).filter(|(kind, _)| ATTRIBUTES_KEPT.contains(kind));
            let attributes = kept.map(|(kind, value)| (kind, value.to_vec())).collect();
            addresses.push(Address { header: *header, attributes });
        }
    })?;
    refusals.first().map_or(Ok(addresses), |refusal| Err(refusal.errno))
}
