//! D-Bus on the wire: values as bytes and back; the D-Bus Specification, "Type System" and "Message Protocol".
//!
//! ```text
//! message   'l'  kind  flags  1 | length of the body | serial | fields a(yv) ... | to 8 | body
//!           each value begins at a multiple of its alignment, counted from the message's start
//! ```
//!
//! Little endian only: the other side is on this machine.

use std::io;

/// The longest message that is taken: far more than systemd answers.
pub(super) const LONGEST: usize = 1 << 20;

/// How deeply arrays, structures and variants may lie in each other.
const DEEPEST: u32 = 16;

/// A value and its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// The signature of the elements, and the elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn variant(value: Self) -> Self {
        Self::Variant(Box::new(value))
    }

    /// Returns the text of a string or an object path.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(inner) => inner.as_text(),
            _ => None,
        }
    }

    /// Writes the type's signature.
    pub(super) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::F64(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => format!("({})", fields.iter().map(Self::signature).collect::<String>()),
            Self::Variant(_) => "v".into(),
        }
    }
}

/// The multiple at which a value of a type begins, by the first character of its signature.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// Bytes being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn length(&mut self, length: usize) {
        self.bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    pub(super) fn put(&mut self, value: &Value) {
        self.align(alignment(&value.signature()));
        match value {
            Value::Byte(v) => self.bytes.push(*v),
            Value::Bool(v) => self.bytes.extend(u32::from(*v).to_le_bytes()),
            Value::I16(v) => self.bytes.extend(v.to_le_bytes()),
            Value::U16(v) => self.bytes.extend(v.to_le_bytes()),
            Value::I32(v) => self.bytes.extend(v.to_le_bytes()),
            Value::U32(v) => self.bytes.extend(v.to_le_bytes()),
            Value::I64(v) => self.bytes.extend(v.to_le_bytes()),
            Value::U64(v) => self.bytes.extend(v.to_le_bytes()),
            Value::F64(v) => self.bytes.extend(v.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                self.length(text.len());
                self.bytes.extend(text.as_bytes());
                self.bytes.push(0);
            }
            Value::Signature(text) => {
                self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                self.bytes.extend(text.as_bytes());
                self.bytes.push(0);
            }
            Value::Array(element, values) => {
                let at = self.bytes.len();
                self.length(0);
                // The padding before the first element is there even without one, and does not count.
                self.align(alignment(element));
                let begin = self.bytes.len();
                values.iter().for_each(|value| self.put(value));
                let length = u32::try_from(self.bytes.len() - begin).unwrap_or(u32::MAX);
                self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Value::Struct(fields) => fields.iter().for_each(|value| self.put(value)),
            Value::Variant(inner) => {
                self.put(&Value::Signature(inner.signature()));
                self.put(inner);
            }
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a D-Bus message has {what}"))
}

/// Splits the first complete type off a signature.
fn first_type(signature: &str) -> io::Result<(&str, &str)> {
    let bytes = signature.as_bytes();
    let mut end = bytes.iter().take_while(|b| **b == b'a').count();
    match bytes.get(end) {
        Some(open @ (b'(' | b'{')) => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let mut depth = 0u32;
            loop {
                match bytes.get(end) {
                    Some(b) if b == open => depth += 1,
                    Some(b) if *b == close => depth -= 1,
                    Some(_) => {}
                    None => return Err(wrong("a signature that does not end")),
                }
                end += 1;
                if depth == 0 {
                    return Ok(signature.split_at(end));
                }
            }
        }
        Some(b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'v' | b'h') => {
            Ok(signature.split_at(end + 1))
        }
        _ => Err(wrong("a signature of unknown types")),
    }
}

/// Bytes being read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(|| wrong("a length beyond all bounds"))?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(|| wrong("less than its lengths say"))?;
        self.at = end;
        Ok(bytes)
    }

    fn number<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.align(N);
        self.take(N)?.try_into().map_err(|_| wrong("less than its lengths say"))
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|_| wrong("a text that is not UTF-8"))?;
        self.take(1)?;
        Ok(text)
    }

    fn long_text(&mut self) -> io::Result<String> {
        let length = u32::from_le_bytes(self.number()?);
        self.text(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Reads values of the types in `signature`, one after the other.
    pub(super) fn values(&mut self, signature: &str) -> io::Result<Vec<Value>> {
        self.values_below(signature, 0)
    }

    fn values_below(&mut self, signature: &str, depth: u32) -> io::Result<Vec<Value>> {
        let mut values = Vec::new();
        let mut rest = signature;
        while !rest.is_empty() {
            let (first, after) = first_type(rest)?;
            values.push(self.value(first, depth)?);
            rest = after;
        }
        Ok(values)
    }

    fn value(&mut self, signature: &str, depth: u32) -> io::Result<Value> {
        if depth > DEEPEST {
            return Err(wrong("values too deep in each other"));
        }
        let (first, inner) = signature.split_at(1);
        Ok(match first {
            "y" => Value::Byte(self.take(1)?[0]),
            "b" => Value::Bool(u32::from_le_bytes(self.number()?) != 0),
            "n" => Value::I16(i16::from_le_bytes(self.number()?)),
            "q" => Value::U16(u16::from_le_bytes(self.number()?)),
            "i" => Value::I32(i32::from_le_bytes(self.number()?)),
            "u" | "h" => Value::U32(u32::from_le_bytes(self.number()?)),
            "x" => Value::I64(i64::from_le_bytes(self.number()?)),
            "t" => Value::U64(u64::from_le_bytes(self.number()?)),
            "d" => Value::F64(f64::from_le_bytes(self.number()?)),
            "s" => Value::Text(self.long_text()?),
            "o" => Value::Path(self.long_text()?),
            "g" => Value::Signature(self.short_text()?),
            "v" => {
                let signature = self.short_text()?;
                let (one, rest) = first_type(&signature)?;
                if !rest.is_empty() {
                    return Err(wrong("a variant of several values"));
                }
                Value::variant(self.value(one, depth + 1)?)
            }
            "a" => {
                let length = usize::try_from(u32::from_le_bytes(self.number()?)).unwrap_or(usize::MAX);
                self.align(alignment(inner));
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
                let end = end.ok_or_else(|| wrong("less than its lengths say"))?;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(inner, depth + 1)?);
                }
                Value::Array(inner.to_owned(), values)
            }
            // An entry of a dictionary is laid out as a structure is.
            "(" | "{" => {
                self.align(8);
                Value::Struct(self.values_below(&inner[..inner.len() - 1], depth + 1)?)
            }
            _ => return Err(wrong("a signature of unknown types")),
        })
    }

    fn short_text(&mut self) -> io::Result<String> {
        let length = self.take(1)?[0];
        self.text(length.into())
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Call = 1,
    Return = 2,
    Error = 3,
    Signal = 4,
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) serial: u32,
    pub(super) reply_to: u32,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) destination: String,
    pub(super) body: Vec<Value>,
}

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

impl Message {
    pub(super) fn new(kind: Kind) -> Self {
        let none = String::new;
        Self {
            kind,
            serial: 0,
            reply_to: 0,
            path: none(),
            interface: none(),
            member: none(),
            error: none(),
            destination: none(),
            body: Vec::new(),
        }
    }

    /// Writes the message with its header.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|value| body.put(value));
        let signature: String = self.body.iter().map(Value::signature).collect();
        let mut fields = Vec::new();
        let mut field = |code, value| {
            fields.push(Value::Struct(vec![Value::Byte(code), Value::variant(value)]));
        };
        for (code, text) in [
            (PATH, &self.path),
            (DESTINATION, &self.destination),
            (INTERFACE, &self.interface),
            (MEMBER, &self.member),
            (ERROR_NAME, &self.error),
            (SIGNATURE, &signature),
        ] {
            if !text.is_empty() {
                field(
                    code,
                    match code {
                        PATH => Value::Path(text.clone()),
                        SIGNATURE => Value::Signature(text.clone()),
                        _ => Value::Text(text.clone()),
                    },
                );
            }
        }
        if self.reply_to != 0 {
            field(REPLY_SERIAL, Value::U32(self.reply_to));
        }
        let mut all = Writer { bytes: vec![b'l', self.kind as u8, 0, 1] };
        all.length(body.bytes.len());
        all.put(&Value::U32(self.serial));
        all.put(&Value::Array("(yv)".into(), fields));
        all.align(8);
        all.bytes.extend(body.bytes);
        all.bytes
    }

    /// Tells from a message's first 16 bytes how long it is.
    pub(super) fn length(begin: &[u8; 16]) -> io::Result<usize> {
        let number = |at: usize| u32::from_le_bytes([begin[at], begin[at + 1], begin[at + 2], begin[at + 3]]);
        if begin[0] != b'l' || begin[3] != 1 {
            return Err(wrong("an unknown byte order or version"));
        }
        let (body, fields) = (number(4), number(12));
        let length = usize::try_from(fields).ok().and_then(|f| (16 + f).next_multiple_of(8).checked_add(body as usize));
        length.filter(|length| *length <= LONGEST).ok_or_else(|| wrong("a length beyond all bounds"))
    }

    /// Reads a message that is there whole.
    pub(super) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            Some(4) => Kind::Signal,
            _ => return Err(wrong("an unknown kind")),
        };
        let mut message = Self::new(kind);
        let mut reader = Reader::new(bytes, 8);
        let header = reader.values("ua(yv)")?;
        let [Value::U32(serial), Value::Array(_, fields)] = &header[..] else {
            return Err(wrong("a header of unknown form"));
        };
        message.serial = *serial;
        let mut signature = String::new();
        for field in fields {
            let Value::Struct(parts) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = &parts[..] else { continue };
            let text = || value.as_text().unwrap_or_default().to_owned();
            match *code {
                PATH => message.path = text(),
                INTERFACE => message.interface = text(),
                MEMBER => message.member = text(),
                ERROR_NAME => message.error = text(),
                DESTINATION => message.destination = text(),
                SIGNATURE => signature = text(),
                REPLY_SERIAL => {
                    if let Value::U32(serial) = **value {
                        message.reply_to = serial;
                    }
                }
                _ => {}
            }
        }
        reader.align(8);
        message.body = reader.values(&signature)?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests;
