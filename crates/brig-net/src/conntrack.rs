//! Old UDP flows: the kernel remembers where a flow goes, and rules that change later do not change that.
//!
//! A client that keeps sending from the same port keeps its flow alive for ever: to nobody, when it began before the
//! port was published; to a container that is gone, or to whoever has its address now. TCP ends by itself, UDP does
//! not, so these flows are forgotten when a port is published and when it is taken back.

use std::net::IpAddr;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::message::{ACK, DUMP, Message, find};
use crate::netlink::Socket;
use crate::nftables::{HEADER_LEN, header};
use crate::plan::{Network, Protocol};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const SOURCE4: u16 = 1;
const SOURCE6: u16 = 3;
const NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// How many answers may wait in a socket's receive buffer.
const CHUNK: usize = 64;

/// A flow to be forgotten: its family, its original tuple as the kernel wrote it, its id.
struct Flow {
    family: u8,
    tuple: Vec<u8>,
    id: Vec<u8>,
}

/// Forgets the flows to the plan's UDP ports that do not lead to the container.
pub(crate) fn forget_others(socket: &mut Socket, plan: &Network) -> Result<()> {
    forget(socket, plan, |server| !is_container(plan, server))
}

/// Forgets the flows to the plan's UDP ports that lead to the container.
pub(crate) fn forget_own(socket: &mut Socket, plan: &Network) -> Result<()> {
    forget(socket, plan, |server| is_container(plan, server))
}

fn is_container(plan: &Network, server: IpAddr) -> bool {
    server == IpAddr::V4(plan.address) || plan.address6.is_some_and(|address| server == IpAddr::V6(address))
}

fn forget(socket: &mut Socket, plan: &Network, doomed: impl Fn(IpAddr) -> bool) -> Result<()> {
    let ports: Vec<u16> =
        plan.ports.iter().filter(|port| port.protocol == Protocol::Udp).map(|port| port.host_port).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let failed = |errno| Error::kernel("forget old flows of", &plan.host_interface, errno);
    let mut batch = socket.batch();
    batch.message(GET, DUMP, &header(0), |_| {});
    let mut flows = Vec::new();
    let refusals = socket
        .exchange(&batch, |_, found| {
            if let Some((flow, port, server)) = parse(&found)
                && ports.contains(&port)
                && doomed(server)
            {
                flows.push(flow);
            }
        })
        .map_err(failed)?;
    match refusals.first().map(|refusal| refusal.errno) {
        // A kernel without this interface: old flows live on, new ones are right.
        Some(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(()),
        Some(errno) => return Err(failed(errno)),
        None => {}
    }
    for chunk in flows.chunks(CHUNK) {
        let mut batch = socket.batch();
        for flow in chunk {
            batch.message(DELETE, ACK, &header(flow.family), |batch| {
                batch.nest(TUPLE_ORIGINAL, |batch| batch.raw(&flow.tuple));
                batch.attribute(ID, &flow.id);
            });
        }
        // Flows come and go by themselves.
        let refusals = socket.exchange(&batch, |_, _| {}).map_err(failed)?;
        if let Some(refusal) = refusals.iter().find(|refusal| refusal.errno != Errno::NOENT) {
            return Err(failed(refusal.errno));
        }
    }
    Ok(())
}

/// Reads a UDP flow: what deletes it, the port that the client sends to, and who answers.
fn parse(found: &Message<'_>) -> Option<(Flow, u16, IpAddr)> {
    if found.kind != NEW {
        return None;
    }
    let family = *found.payload.first()?;
    let attributes = found.payload.get(HEADER_LEN..)?;
    let tuple = find(attributes, TUPLE_ORIGINAL)?;
    let protocol = find(tuple, TUPLE_PROTOCOL)?;
    if find(protocol, NUMBER)? != [Protocol::Udp.number()] {
        return None;
    }
    let port = u16::from_be_bytes(find(protocol, DESTINATION_PORT)?.try_into().ok()?);
    let reply = find(find(attributes, TUPLE_REPLY)?, TUPLE_IP)?;
    let server = match (find(reply, SOURCE4), find(reply, SOURCE6)) {
        (Some(bytes), _) => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        (_, Some(bytes)) => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some((Flow { family, tuple: tuple.to_vec(), id: find(attributes, ID)?.to_vec() }, port, server))
}
