//! Netlink messages: a builder that appends several to one buffer, and a parser that borrows from it.
//!
//! ```text
//!   nlmsghdr: len u32 | type u16 | flags u16 | seq u32 | port u32
//!   then the family's fixed header, then attributes: len u16 | type u16 | value, each padded to 4 bytes
//! ```
//!
//! Everything is native-endian except where a family says otherwise (nftables: big-endian numbers). See netlink(7).

/// The message is a request.
pub(crate) const REQUEST: u16 = 0x1;
/// The kernel confirms the message even when it succeeds.
pub(crate) const ACK: u16 = 0x4;
/// The request asks for all objects.
pub(crate) const DUMP: u16 = 0x300;
/// Creation fails when the object exists.
pub(crate) const EXCL: u16 = 0x200;
/// The object is created when absent.
pub(crate) const CREATE: u16 = 0x400;
/// The object is put at the end of its list.
pub(crate) const APPEND: u16 = 0x800;

/// The type of an acknowledgement or error message.
pub(crate) const ERROR: u16 = 2;
/// The type of the message that ends a dump.
pub(crate) const DONE: u16 = 3;

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const HEADER_LEN: usize = 16;

/// Several messages in one buffer, to be sent at once.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    first: u32,
    next: u32,
    newest: usize,
    unanswered: u32,
}

impl Batch {
    /// Begins a batch whose first message has the sequence number `first`.
    pub(crate) fn new(first: u32) -> Self {
        Self { bytes: Vec::with_capacity(1024), first, next: first, newest: 0, unanswered: 0 }
    }

    /// Appends a message: its fixed header, then the attributes that `fill` appends.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, header: &[u8], fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.newest = start;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.next.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        self.pad();
        fill(self);
        let len = u32::try_from(self.bytes.len() - start).expect("a batch is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.next += 1;
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.attribute_head(kind, value.len());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Appends an attribute that holds a NUL-terminated string.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.attribute_head(kind, value.len() + 1);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// Appends an attribute that holds a native-endian number.
    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Appends an attribute that holds a big-endian number.
    pub(crate) fn number_be(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends an attribute that holds the attributes that `fill` appends.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attribute_head(kind | NESTED, 0);
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).expect("no nest comes near 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// Appends bytes as they are; used for a fixed header inside a nest.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn attribute_head(&mut self, kind: u16, value_len: usize) {
        let len = u16::try_from(value_len + 4).expect("no attribute comes near 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Asks for an acknowledgement of the newest message.
    pub(crate) fn acknowledge_newest(&mut self) {
        // The flags begin at byte 6 of the header; ACK is in its low byte.
        let place = self.newest + if cfg!(target_endian = "little") { 6 } else { 7 };
        if let Some(flags) = self.bytes.get_mut(place) {
            *flags |= ACK.to_be_bytes()[1];
        }
    }

    /// Appends a message that is not answered and does not count as the last one.
    pub(crate) fn close(&mut self, kind: u16, header: &[u8]) {
        self.message(kind, 0, header, |_| {});
        self.unanswered += 1;
    }

    /// Gives the sequence number of the last message that is answered.
    pub(crate) fn last(&self) -> u32 {
        self.next - 1 - self.unanswered
    }

    /// Gives the bytes to send.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the sequence number of the first message.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// Gives the sequence number that the next message will have.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }
}

/// A received message, borrowed from the buffer.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    /// The message's type.
    pub(crate) kind: u16,
    /// The sequence number of the request that it answers.
    pub(crate) sequence: u32,
    /// What follows the netlink header.
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Iterates over the attributes behind a fixed header of `header_len` bytes.
    pub(crate) fn attributes(&self, header_len: usize) -> Attributes<'a> {
        attributes(self.payload.get(header_len..).unwrap_or_default())
    }
}

/// Iterates over the messages of a received buffer; it ends at the first malformed one.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = native_u32(bytes)? as usize;
        let payload = bytes.get(HEADER_LEN..len)?;
        let kind = native_u16(bytes.get(4..)?)?;
        let sequence = native_u32(bytes.get(8..)?)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, sequence, payload })
    })
}

/// An iterator over attributes: type and value.
pub(crate) struct Attributes<'a>(&'a [u8]);

/// Iterates over attributes; it ends at the first malformed one.
pub(crate) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(native_u16(self.0)?);
        let kind = native_u16(self.0.get(2..)?)? & TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Finds the first attribute of a type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Reads a string attribute, without its final NUL.
pub(crate) fn string(value: &[u8]) -> &str {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or_default()
}

/// Reads a native-endian number from the front.
pub(crate) fn native_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// Reads a big-endian number from the front.
pub(crate) fn big_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn native_u16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_parsed() {
        let mut batch = Batch::new(7);
        batch.message(16, CREATE, &[9; 4], |batch| {
            batch.text(3, "abc");
            batch.nest(18, |batch| batch.number(1, 5));
        });
        batch.message(17, ACK, &[], |_| {});
        let found: Vec<_> = messages(batch.bytes()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].sequence, found[1].sequence), (16, 7, 8));
        assert_eq!(&found[0].payload[..4], [9; 4]);
        let attributes: Vec<_> = found[0].attributes(4).collect();
        assert_eq!(string(attributes[0].1), "abc");
        assert_eq!(attributes[1].0, 18);
        assert_eq!(native_u32(find(attributes[1].1, 1).unwrap()), Some(5));
        assert_eq!(batch.next(), 9);
    }

    #[test]
    fn malformed_input_ends_the_iteration() {
        for bytes in [&[][..], &[3, 0, 0, 0], &[255; 40], &[16, 0, 0, 0, 1, 0, 0, 0, 0, 0]] {
            assert_eq!(messages(bytes).count(), 0);
        }
        for bytes in [&[][..], &[2, 0, 1, 0], &[9, 0, 1, 0, 1], &[0; 8]] {
            assert_eq!(attributes(bytes).count(), 0);
        }
    }
}
