//! nftables over netlink: batches, tables, chains, sets, elements, rules and the few expressions that brig uses.
//!
//! ```text
//!   BATCH_BEGIN [generation] | NEWTABLE | NEWCHAIN ... | NEWSET ... | NEWRULE ... | NEWSETELEM ... | BATCH_END
//! ```
//!
//! A batch is one transaction: all of it or nothing. With a generation in its head it is refused (ERESTART) when anyone
//! has changed any rule since that generation was read, which makes read-then-write safe without a lock.
//!
//! Numbers in attributes are big-endian; values that packets are compared with are in the order of the packet, and
//! those that the kernel makes itself (marks, states, indexes) in that of the machine. See linux/netfilter/nf_tables.h.

mod expression;

use rustix::io::Errno;

use crate::message::{ACK, APPEND, Batch, CREATE, EXCL, Message, attributes, big_u32, find};
use crate::netlink::{Refusal, Socket};

pub(crate) use expression::{
    Slice, conntrack, counter, destination, differ, equal, map, mask, masquerade, member, meta, payload, route, verdict,
};

pub(crate) const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;

pub(crate) const NEW_TABLE: u16 = SUBSYSTEM << 8;
pub(crate) const DELETE_TABLE: u16 = NEW_TABLE | 2;
pub(crate) const NEW_CHAIN: u16 = NEW_TABLE | 3;
pub(crate) const GET_CHAIN: u16 = NEW_TABLE | 4;
pub(crate) const NEW_RULE: u16 = NEW_TABLE | 6;
pub(crate) const GET_RULE: u16 = NEW_TABLE | 7;
pub(crate) const DELETE_RULE: u16 = NEW_TABLE | 8;
const NEW_SET: u16 = NEW_TABLE | 9;
const NEW_ELEMENT: u16 = NEW_TABLE | 0xc;
pub(crate) const GET_ELEMENT: u16 = NEW_TABLE | 0xd;
const DELETE_ELEMENT: u16 = NEW_TABLE | 0xe;
const NEW_GENERATION: u16 = NEW_TABLE | 0xf;
pub(crate) const GET_GENERATION: u16 = NEW_TABLE | 0x10;

pub(crate) const FAMILY_INET: u8 = 1;
pub(crate) const FAMILY_IPV4: u8 = 2;
pub(crate) const FAMILY_IPV6: u8 = 10;

/// The length of the fixed header (struct nfgenmsg).
pub(crate) const HEADER_LEN: usize = 4;

pub(crate) const ACCEPT: i32 = 1;
pub(crate) const DROP: i32 = 0;

pub(crate) const META_OIFNAME: u32 = 7;
pub(crate) const META_IIFNAME: u32 = 6;
pub(crate) const META_NFPROTO: u32 = 15;
pub(crate) const META_L4PROTO: u32 = 16;
pub(crate) const CT_STATE: u32 = 0;
pub(crate) const CT_STATUS: u32 = 2;
pub(crate) const FIB_OIF: u32 = 1;
pub(crate) const FIB_TYPE: u32 = 3;
pub(crate) const FIB_SADDR: u32 = 1;
pub(crate) const FIB_DADDR: u32 = 2;
pub(crate) const FIB_IIF: u32 = 8;

/// The first of the 4-byte registers; the 16-byte register 1 begins there too.
pub(crate) const REG32: u32 = 8;

/// Gives the fixed header for a family.
pub(crate) fn header(family: u8) -> [u8; HEADER_LEN] {
    [family, 0, 0, 0]
}

/// Sends one transaction of the messages that `fill` appends.
///
/// With a generation, the transaction fails with ERESTART when the rules have changed since.
pub(crate) fn transaction(
    socket: &mut Socket,
    generation: Option<u32>,
    fill: impl FnOnce(&mut Batch),
) -> Result<Vec<Refusal>, Errno> {
    let subsystem = SUBSYSTEM.to_be_bytes();
    let head = [0, 0, subsystem[0], subsystem[1]];
    // Only the answers to what stands before the end are waited for: older kernels do not acknowledge the end.
    let mut batch = socket.batch();
    batch.message(BATCH_BEGIN, 0, &head, |batch| {
        if let Some(generation) = generation {
            batch.number_be(1, generation);
        }
    });
    fill(&mut batch);
    batch.acknowledge_newest();
    batch.close(BATCH_END, &head);
    socket.exchange(&batch, |_, _| {})
}

/// Reads the generation number out of an answer to `GET_GENERATION`.
pub(crate) fn generation(found: &Message<'_>) -> Option<u32> {
    if found.kind != NEW_GENERATION {
        return None;
    }
    big_u32(find(found.payload.get(HEADER_LEN..)?, 1)?)
}

/// A member of a set, or of a map when it has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// The set's name.
    pub(crate) set: &'static str,
    /// The key, padded to whole registers.
    pub(crate) key: Vec<u8>,
    /// The value of a map's element.
    pub(crate) data: Option<Vec<u8>>,
    /// The comment shown by `nft list`; empty for none.
    pub(crate) comment: String,
}

impl Element {
    /// Appends the message that adds the element; an equal one that exists already is fine.
    pub(crate) fn add(&self, batch: &mut Batch, table: &str) {
        self.message(batch, table, NEW_ELEMENT, CREATE);
    }

    /// Appends the message that deletes the element of this key.
    pub(crate) fn delete(&self, batch: &mut Batch, table: &str) {
        self.message(batch, table, DELETE_ELEMENT, 0);
    }

    /// Appends the message that asks for the element of this key.
    pub(crate) fn get(&self, batch: &mut Batch, table: &str) {
        self.message(batch, table, GET_ELEMENT, ACK);
    }

    fn message(&self, batch: &mut Batch, table: &str, kind: u16, flags: u16) {
        batch.message(kind, flags, &header(FAMILY_INET), |batch| {
            batch.text(1, table);
            batch.text(2, self.set);
            batch.nest(3, |batch| {
                batch.nest(1, |batch| {
                    batch.nest(1, |batch| batch.attribute(1, &self.key));
                    if kind == NEW_ELEMENT {
                        if let Some(data) = &self.data {
                            batch.nest(2, |batch| batch.attribute(1, data));
                        }
                        if !self.comment.is_empty() {
                            batch.attribute(6, &comment(&self.comment));
                        }
                    }
                });
            });
        });
    }
}

/// Reads the value of the map element that an answer to [`Element::get`] holds; empty for a set's element.
pub(crate) fn element_data(found: &Message<'_>) -> Option<Vec<u8>> {
    if found.kind != NEW_ELEMENT {
        return None;
    }
    let list = find(found.payload.get(HEADER_LEN..)?, 3)?;
    let (_, element) = attributes(list).next()?;
    let data = find(element, 2).and_then(|data| find(data, 1)).unwrap_or_default();
    Some(data.to_vec())
}

/// Encodes a comment as user data: the kernel keeps it and `nft` shows it.
pub(crate) fn comment(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(120)];
    let len = u8::try_from(text.len() + 1).expect("a comment is at most 120 bytes");
    let mut bytes = vec![0, len];
    bytes.extend_from_slice(text);
    bytes.push(0);
    bytes
}

/// Reads the comment out of a rule's user data.
pub(crate) fn read_comment(user_data: &[u8]) -> Option<&str> {
    let (&[0, len], rest) = user_data.split_first_chunk::<2>()? else { return None };
    Some(crate::message::string(rest.get(..usize::from(len))?))
}

/// Appends a table that must not exist yet.
pub(crate) fn new_table(batch: &mut Batch, table: &str) {
    batch.message(NEW_TABLE, CREATE | EXCL, &header(FAMILY_INET), |batch| batch.text(1, table));
}

/// Where a base chain is hooked in.
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// The hook's number: 0 prerouting, 2 forward, 3 output, 4 postrouting.
    pub(crate) number: u32,
    /// The priority among the chains of the hook.
    pub(crate) priority: i32,
}

/// Appends a base chain with the policy accept.
pub(crate) fn new_chain(batch: &mut Batch, table: &str, chain: &str, hook: &Hook) {
    batch.message(NEW_CHAIN, CREATE, &header(FAMILY_INET), |batch| {
        batch.text(1, table);
        batch.text(3, chain);
        batch.nest(4, |batch| {
            batch.number_be(1, hook.number);
            batch.number_be(2, hook.priority.cast_unsigned());
        });
        batch.number_be(5, ACCEPT.cast_unsigned());
        batch.text(7, hook.kind);
    });
}

/// The type of one part of a key or value, by `nft`'s number, with its length in whole registers.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    /// An IPv4 address.
    Address4,
    /// An IPv6 address.
    Address6,
    /// The number of a transport protocol.
    Protocol,
    /// A port.
    Port,
    /// An interface's name, padded with NULs to 16 bytes.
    Interface,
}

impl Field {
    fn number_and_len(self) -> (u32, u32) {
        match self {
            Self::Address4 => (7, 4),
            Self::Address6 => (8, 16),
            Self::Protocol => (12, 4),
            Self::Port => (13, 4),
            Self::Interface => (41, 16),
        }
    }
}

fn type_and_len(fields: &[Field]) -> (u32, u32) {
    fields.iter().fold((0, 0), |(number, len), field| {
        let (field_number, field_len) = field.number_and_len();
        (number << 6 | field_number, len + field_len)
    })
}

/// Appends a set, or a map when it has value fields. `id` is unique within the batch.
pub(crate) fn new_set(batch: &mut Batch, table: &str, id: u32, set: &str, key: &[Field], value: &[Field]) {
    const MAP: u32 = 0x8;
    let (key_type, key_len) = type_and_len(key);
    let (value_type, value_len) = type_and_len(value);
    batch.message(NEW_SET, CREATE, &header(FAMILY_INET), |batch| {
        batch.text(1, table);
        batch.text(2, set);
        batch.number_be(3, if value.is_empty() { 0 } else { MAP });
        batch.number_be(4, key_type);
        batch.number_be(5, key_len);
        if !value.is_empty() {
            batch.number_be(6, value_type);
            batch.number_be(7, value_len);
        }
        batch.number_be(10, id);
        if matches!(key, [Field::Interface]) {
            // Tells `nft list` that the key is in the order of the machine, or it shows empty names.
            let order = 1_u32.to_ne_bytes();
            batch.attribute(13, &[[0, 4, order[0], order[1]], [order[2], order[3], 0, 0]].concat()[..6]);
        }
    });
}

/// Where a rule goes.
pub(crate) struct Place<'a> {
    /// The address family of the table.
    pub(crate) family: u8,
    /// The table's name.
    pub(crate) table: &'a str,
    /// The chain's name.
    pub(crate) chain: &'a str,
    /// Whether it goes before all other rules, not behind them.
    pub(crate) at_head: bool,
}

/// Appends a rule, with a comment if that is not empty.
pub(crate) fn new_rule(batch: &mut Batch, place: &Place<'_>, text: &str, expressions: impl FnOnce(&mut Batch)) {
    let order = if place.at_head { 0 } else { APPEND };
    batch.message(NEW_RULE, CREATE | order, &header(place.family), |batch| {
        batch.text(1, place.table);
        batch.text(2, place.chain);
        batch.nest(4, expressions);
        if !text.is_empty() {
            batch.attribute(7, &comment(text));
        }
    });
}
