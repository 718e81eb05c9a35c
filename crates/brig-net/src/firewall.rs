//! The table `inet brig`: constant rules over sets, so that the work per container is a few elements.
//!
//! ```text
//!   sets   bridges, masqueraded: interface name        hairpins: interface name . interface name
//!   maps   ports4, ports6: address . protocol . port -> address . port      (published on one address)
//!          anywhere4, anywhere6: protocol . port -> address . port          (published on every address)
//!
//!   guard   prerouting -300   127.0.0.0/8 from or to anything but lo: drop (CVE-2020-8558)
//!                             from a bridge with a source that is not routed there: drop
//!   inward  prerouting -100   published: dnat
//!   local   output     -100   published: dnat, for the host itself
//!   forward forward    0      to a bridge: established, same bridge, or dnat; all else drop
//!   outward postrouting 100   from a masqueraded bridge to elsewhere, back into the same bridge by dnat,
//!                             from 127.0.0.0/8 to a bridge: masquerade
//! ```
//!
//! Nobody creates the table beforehand. Elements are added first; when the kernel answers that there is no such table,
//! table and elements are written in one transaction that fails if somebody else was quicker, and then the elements go
//! into theirs. So processes that start at the same time, and a `nft flush ruleset` in between, need no lock.

mod rules;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::message::Batch;
use crate::netlink::Socket;
use crate::nftables::{
    DELETE_TABLE, Element, FAMILY_INET, GET_GENERATION, element_data, generation, header, transaction,
};
use crate::plan::{Bridge, Network};

/// The name of our table.
pub(crate) const TABLE: &str = "brig";

const ATTEMPTS: usize = 8;
/// How many elements go into one message to or from the kernel; both ways have bounded buffers.
const CHUNK: usize = 64;
const BRIDGES: &str = "bridges";
const MASQUERADED: &str = "masqueraded";
const HAIRPINS: &str = "hairpins";

/// Makes sure that the table stands and knows the bridge.
pub(crate) fn ensure(socket: &mut Socket, bridge: &Bridge) -> Result<()> {
    let elements = bridge_elements(bridge);
    // A transaction that fails waits for a grace period, some 10 ms: ask before.
    let known = members(socket).map_err(|errno| refused("read table", errno))?.1.is_some();
    let created = if known { Ok(false) } else { create_with(socket, &elements) };
    let result = match created {
        Ok(true) => Ok(()),
        Ok(false) => add(socket, &elements),
        Err(errno) => Err(errno),
    };
    result.map_err(|errno| refused("add to table", errno))
}

/// Tells whether the table stands and knows the bridge, by one cheap question.
pub(crate) fn stands(socket: &mut Socket, bridge: &Bridge) -> Result<bool> {
    let elements = &bridge_elements(bridge)[..1];
    let (_, found) = query(socket, elements).map_err(|errno| refused("read table", errno))?;
    Ok(found[0].is_some())
}

/// Publishes the plan's ports; makes sure of table and bridge on the way.
///
/// An element that another container left behind is replaced: whoever calls holds the port's socket.
pub(crate) fn publish(socket: &mut Socket, plan: &Network) -> Result<()> {
    let ports = port_elements(plan);
    let mut elements = bridge_elements(&plan.bridge);
    elements.extend_from_slice(&ports);
    let result = match add(socket, &elements) {
        Err(Errno::EXIST | Errno::BUSY) => replace(socket, &ports).and_then(|()| add(socket, &elements)),
        other => other,
    };
    result.map_err(|errno| refused("publish ports in table", errno))
}

/// Takes the plan's ports back; those that lead elsewhere by now, or are gone, stay as they are.
pub(crate) fn unpublish(socket: &mut Socket, plan: &Network) -> Result<()> {
    let elements = port_elements(plan);
    if elements.is_empty() {
        return Ok(());
    }
    delete_where(socket, &elements, |element, data| element.data.as_deref() == Some(data))
        .map_err(|errno| refused("unpublish ports in table", errno))
}

/// Forgets a bridge, and deletes the table with the last one.
pub(crate) fn forget(socket: &mut Socket, bridge: &Bridge) -> Result<()> {
    delete_where(socket, &bridge_elements(bridge), |_, _| true)
        .map_err(|errno| refused("forget bridge in table", errno))?;
    for _ in 0..ATTEMPTS {
        let (generation, rest) = members(socket).map_err(|errno| refused("read table", errno))?;
        if rest != Some(0) {
            return Ok(());
        }
        let deleted = transaction(socket, generation, |batch| {
            batch.message(DELETE_TABLE, 0, &header(FAMILY_INET), |batch| batch.text(1, TABLE));
        })
        .map(|refusals| refusals.first().map(|refusal| refusal.errno))
        .map_err(|errno| refused("delete table", errno))?;
        match deleted {
            None | Some(Errno::NOENT) => return Ok(()),
            Some(Errno::RESTART) => {}
            Some(errno) => return Err(refused("delete table", errno)),
        }
    }
    Err(refused("delete table", Errno::RESTART))
}

fn refused(operation: &'static str, errno: Errno) -> Error {
    Error::kernel(operation, format!("inet {TABLE}"), errno)
}

/// Adds elements, creating the table when it is missing.
fn add(socket: &mut Socket, elements: &[Element]) -> std::result::Result<(), Errno> {
    elements.chunks(CHUNK).try_for_each(|chunk| add_chunk(socket, chunk))
}

fn add_chunk(socket: &mut Socket, elements: &[Element]) -> std::result::Result<(), Errno> {
    for _ in 0..ATTEMPTS {
        let refusals = transaction(socket, None, |batch| add_all(batch, elements))?;
        match refusals.first() {
            None => return Ok(()),
            Some(refusal) if refusal.errno == Errno::NOENT => {}
            Some(refusal) => return Err(refusal.errno),
        }
        if create_with(socket, elements)? {
            return Ok(());
        }
    }
    Err(Errno::AGAIN)
}

/// Creates the table with elements; false when somebody else was quicker.
fn create_with(socket: &mut Socket, elements: &[Element]) -> std::result::Result<bool, Errno> {
    let refusals = transaction(socket, None, |batch| {
        rules::create(batch);
        add_all(batch, elements);
    })?;
    match refusals.first() {
        None => Ok(true),
        Some(refusal) if refusal.errno == Errno::EXIST => Ok(false),
        Some(refusal) => Err(refusal.errno),
    }
}

fn add_all(batch: &mut Batch, elements: &[Element]) {
    for element in elements {
        element.add(batch, TABLE);
    }
}

/// Deletes the elements whose key leads elsewhere.
fn replace(socket: &mut Socket, elements: &[Element]) -> std::result::Result<(), Errno> {
    delete_where(socket, elements, |element, data| element.data.as_deref() != Some(data))
}

/// Deletes those elements that exist and that `chosen` picks by their present value.
fn delete_where(
    socket: &mut Socket,
    elements: &[Element],
    chosen: impl Fn(&Element, &[u8]) -> bool,
) -> std::result::Result<(), Errno> {
    elements.chunks(CHUNK).try_for_each(|chunk| delete_chunk_where(socket, chunk, &chosen))
}

fn delete_chunk_where(
    socket: &mut Socket,
    elements: &[Element],
    chosen: &impl Fn(&Element, &[u8]) -> bool,
) -> std::result::Result<(), Errno> {
    for _ in 0..ATTEMPTS {
        let (generation, found) = query(socket, elements)?;
        let doomed: Vec<&Element> = elements
            .iter()
            .zip(&found)
            .filter(|(element, data)| data.as_ref().is_some_and(|data| chosen(element, data)))
            .map(|(element, _)| element)
            .collect();
        if doomed.is_empty() {
            return Ok(());
        }
        let refusals = transaction(socket, generation, |batch| {
            for element in &doomed {
                element.delete(batch, TABLE);
            }
        })?;
        match refusals.first() {
            None => return Ok(()),
            Some(refusal) if refusal.errno == Errno::RESTART => {}
            Some(refusal) => return Err(refusal.errno),
        }
    }
    Err(Errno::RESTART)
}

/// The ruleset's generation, and the present value of each element asked for.
type Found = (Option<u32>, Vec<Option<Vec<u8>>>);

fn query(socket: &mut Socket, elements: &[Element]) -> std::result::Result<Found, Errno> {
    let mut batch = socket.batch();
    batch.message(GET_GENERATION, 0, &header(0), |_| {});
    for element in elements {
        element.get(&mut batch, TABLE);
    }
    let mut number = None;
    let mut found = vec![None; elements.len()];
    let refusals = socket.exchange(&batch, |index, message| {
        if index == 0 {
            number = generation(&message);
        } else if let Some(place) = found.get_mut(index as usize - 1) {
            *place = element_data(&message);
        }
    })?;
    match refusals.iter().find(|refusal| refusal.errno != Errno::NOENT) {
        Some(refusal) => Err(refusal.errno),
        None => Ok((number, found)),
    }
}

/// Gives the ruleset's generation and the number of bridges that the table knows; `None` without a table.
fn members(socket: &mut Socket) -> std::result::Result<(Option<u32>, Option<usize>), Errno> {
    let mut batch = socket.batch();
    batch.message(GET_GENERATION, 0, &header(0), |_| {});
    batch.message(crate::nftables::GET_ELEMENT, crate::message::DUMP, &header(FAMILY_INET), |batch| {
        batch.text(1, TABLE);
        batch.text(2, BRIDGES);
    });
    let mut number = None;
    let mut count = 0;
    let refusals = socket.exchange(&batch, |index, message| {
        if index == 0 {
            number = generation(&message);
        } else {
            let list = message.attributes(crate::nftables::HEADER_LEN).find(|(kind, _)| *kind == 3);
            count += list.map_or(0, |(_, list)| crate::message::attributes(list).count());
        }
    })?;
    match refusals.first() {
        Some(refusal) if refusal.errno == Errno::NOENT => Ok((number, None)),
        Some(refusal) => Err(refusal.errno),
        None => Ok((number, Some(count))),
    }
}

fn padded_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}

fn bridge_elements(bridge: &Bridge) -> Vec<Element> {
    let name = padded_name(&bridge.name);
    let element = |set, key: Vec<u8>| Element { set, key, data: None, comment: String::new() };
    let mut elements = vec![element(BRIDGES, name.to_vec()), element(HAIRPINS, [name, name].concat())];
    if bridge.masquerade {
        elements.push(element(MASQUERADED, name.to_vec()));
    }
    elements
}

fn port_elements(plan: &Network) -> Vec<Element> {
    let mut elements = Vec::with_capacity(plan.ports.len());
    let comment: String = plan.container.chars().take(12).collect();
    for port in &plan.ports {
        let mut push = |set, address: &[u8], target: &[u8]| {
            let mut key = address.to_vec();
            key.extend_from_slice(&[port.protocol.number(), 0, 0, 0]);
            key.extend_from_slice(&port.host_port.to_be_bytes());
            key.extend_from_slice(&[0, 0]);
            let mut data = target.to_vec();
            data.extend_from_slice(&port.container_port.to_be_bytes());
            data.extend_from_slice(&[0, 0]);
            elements.push(Element { set, key, data: Some(data), comment: comment.clone() });
        };
        match port.host_address4() {
            Some(address) if address.is_unspecified() => push("anywhere4", &[], &plan.address.octets()),
            Some(address) => push("ports4", &address.octets(), &plan.address.octets()),
            None => {}
        }
        match (port.host_address6(), plan.address6) {
            (Some(address), Some(target)) if address.is_unspecified() => push("anywhere6", &[], &target.octets()),
            (Some(address), Some(target)) if !address.is_loopback() => {
                push("ports6", &address.octets(), &target.octets());
            }
            _ => {}
        }
    }
    elements
}
