//! The wire format of protocol buffers, as far as criu's messages need it: numbers, flags, texts, and messages in messages.
//!
//! ```text
//! field = key, value          key = varint(number << 3 | kind)
//! kind 0                      a varint: 7 bits a byte, the least first; the top bit says that more follow
//! kind 2                      varint(length), so many bytes: text, or a message
//! kinds 1 and 5               8 and 4 bytes; nobody sends them here, and they are skipped
//! ```
//!
//! A negative number is sent as the 64 bits of its two's complement. Fields that the reader does not know are left out.

use std::fmt;

/// One field of a message, as a table lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// The number on the wire.
    pub number: u32,
    /// The name in the protocol's description, for the log.
    pub name: &'static str,
}

/// Makes an entry of such a table.
pub(crate) const fn field(number: u32, name: &'static str) -> Field {
    Field { number, name }
}

/// A message that is being written.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    shown: Vec<String>,
}

impl Message {
    /// Adds a number.
    pub fn number(&mut self, field: Field, value: impl Into<i64>) -> &mut Self {
        let value = value.into();
        self.key(field, 0);
        varint(&mut self.bytes, value.cast_unsigned());
        self.show(field, value)
    }

    /// Adds a flag.
    pub fn flag(&mut self, field: Field, value: bool) -> &mut Self {
        self.key(field, 0);
        varint(&mut self.bytes, value.into());
        self.show(field, value)
    }

    /// Adds a text.
    pub fn text(&mut self, field: Field, value: &[u8]) -> &mut Self {
        self.bytes(field, value);
        self.show(field, format_args!("{:?}", String::from_utf8_lossy(value)))
    }

    /// Adds a message.
    pub fn message(&mut self, field: Field, value: &Message) -> &mut Self {
        self.bytes(field, &value.bytes);
        self.show(field, format_args!("{{{}}}", value.shown.join(", ")))
    }

    /// The message on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The fields for people, in the order in which they were added.
    pub fn shown(&self) -> &[String] {
        &self.shown
    }

    fn bytes(&mut self, field: Field, value: &[u8]) {
        self.key(field, 2);
        varint(&mut self.bytes, value.len() as u64);
        self.bytes.extend(value);
    }

    fn key(&mut self, field: Field, kind: u64) {
        varint(&mut self.bytes, u64::from(field.number) << 3 | kind);
    }

    fn show(&mut self, field: Field, value: impl fmt::Display) -> &mut Self {
        self.shown.push(format!("{}={value}", field.name));
        self
    }
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number or a flag.
    Number(u64),
    /// A text or a message.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// The number; of 32 bits where the field has so many. A text is none.
    pub fn as_i32(self) -> i32 {
        match self {
            // What is cut off is the sign that fills a negative number's upper half.
            Self::Number(number) => i32::from_le_bytes(number.to_le_bytes().first_chunk().copied().unwrap_or_default()),
            Self::Bytes(_) => 0,
        }
    }

    /// The flag.
    pub fn as_flag(self) -> bool {
        matches!(self, Self::Number(number) if number != 0)
    }

    /// The text.
    pub fn as_text(self) -> String {
        String::from_utf8_lossy(self.as_bytes()).into_owned()
    }

    /// The bytes, of a message above all.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }
}

/// A message that ends before its fields do, or has a key that there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message is malformed")
    }
}

impl std::error::Error for Malformed {}

/// Takes a message apart into field numbers and values, in their order.
pub(crate) fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number != 0).ok_or(Malformed)?;
        match key & 7 {
            0 => fields.push((number, Value::Number(read_varint(&mut bytes)?))),
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)?).map_err(|_| Malformed)?;
                fields.push((number, Value::Bytes(take(&mut bytes, length)?)));
            }
            1 => drop(take(&mut bytes, 8)?),
            5 => drop(take(&mut bytes, 4)?),
            _ => return Err(Malformed),
        }
    }
    Ok(fields)
}

fn read_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = u64::from(take(bytes, 1)?[0]);
        // Of the tenth byte one bit is left.
        if shift == 63 && byte > 1 {
            return Err(Malformed);
        }
        value |= (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Field = field(1, "a");
    const B: Field = field(2, "b");
    const WIDE: Field = field(300, "wide");

    #[test]
    fn messages_are_those_of_the_format_description() {
        let mut message = Message::default();
        message.number(A, 150);
        assert_eq!(message.as_bytes(), [0x08, 0x96, 0x01]);
        let mut message = Message::default();
        message.text(B, b"testing");
        assert_eq!(message.as_bytes(), b"\x12\x07testing");
        let mut message = Message::default();
        message.number(A, -1);
        assert_eq!(message.as_bytes(), b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        let (mut outer, mut inner) = (Message::default(), Message::default());
        outer.message(WIDE, inner.number(A, 150)).flag(B, true);
        assert_eq!(outer.as_bytes(), b"\xe2\x12\x03\x08\x96\x01\x10\x01");
        assert_eq!(outer.shown(), ["wide={a=150}", "b=true"]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for number in [0, 1, 127, 128, 300, i32::MAX, i32::MIN, -1, -128] {
            let mut message = Message::default();
            message.number(A, number).text(WIDE, "ä".as_bytes()).flag(B, true);
            let read = fields(message.as_bytes()).unwrap();
            assert_eq!(read.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 300, 2]);
            assert_eq!((read[0].1.as_i32(), read[1].1.as_text().as_str(), read[2].1.as_flag()), (number, "ä", true));
        }
        assert_eq!(fields(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(vec![(1, Value::Number(u64::MAX))]));
    }

    #[test]
    fn what_is_not_known_is_skipped_and_what_is_malformed_is_refused() {
        // Eight bytes, four bytes, a number.
        assert_eq!(fields(b"\x0912345678\x151234\x18\x07"), Ok(vec![(3, Value::Number(7))]));
        let cut: [&[u8]; 9] = [
            b"\x08",
            b"\x08\x80",
            b"\x12\x05four",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x",
            b"\x09123",
            b"\x0b",
            b"\x00\x00",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ];
        for bytes in cut {
            assert_eq!(fields(bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
