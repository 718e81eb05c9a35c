//! The wire forms against bytes written by hand from the specification, and what is cut or lies.

use super::*;

fn bytes_of(value: &Value) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.put(value);
    writer.bytes
}

/// Each with the bytes that follow from the specification's table of marshalled forms, written by hand.
#[test]
fn values_are_laid_out_as_the_specification_says() {
    let table: [(Value, &[u8]); 13] = [
        (Value::Byte(7), &[7]),
        (Value::Bool(true), &[1, 0, 0, 0]),
        (Value::I16(-2), &[0xfe, 0xff]),
        (Value::U32(0x0102_0304), &[4, 3, 2, 1]),
        (Value::U64(1), &[1, 0, 0, 0, 0, 0, 0, 0]),
        (Value::F64(1.0), &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
        (Value::text("foo"), &[3, 0, 0, 0, b'f', b'o', b'o', 0]),
        (Value::Signature("as".into()), &[2, b'a', b's', 0]),
        (Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)]), &[2, 0, 0, 0, 1, 2]),
        // An empty array of what begins at 8 is padded, and its length is still none.
        (Value::Array("(ss)".into(), vec![]), &[0, 0, 0, 0, 0, 0, 0, 0]),
        // The length of an array leaves out the padding before its first element.
        (Value::Array("t".into(), vec![Value::U64(5)]), &[8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]),
        (Value::variant(Value::U32(9)), &[1, b'u', 0, 0, 9, 0, 0, 0]),
        (
            Value::Struct(vec![Value::Byte(1), Value::text("a"), Value::variant(Value::Bool(false))]),
            &[1, 0, 0, 0, 1, 0, 0, 0, b'a', 0, 1, b'b', 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ];
    for (value, want) in table {
        assert_eq!(bytes_of(&value), want, "{value:?}");
        let back = Reader::new(want, 0).values(&value.signature()).unwrap();
        assert_eq!(back, [value]);
    }
}

/// The `Hello` that every client of a bus says first, byte for byte.
#[test]
fn a_call_has_the_header_of_the_specification() {
    let hello = Message {
        serial: 1,
        path: "/org/freedesktop/DBus".into(),
        destination: "org.freedesktop.DBus".into(),
        interface: "org.freedesktop.DBus".into(),
        member: "Hello".into(),
        ..Message::new(Kind::Call)
    };
    let mut want = vec![b'l', 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0x6e, 0, 0, 0];
    want.extend(b"\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0");
    want.extend(b"\x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
    want.extend(b"\x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
    want.extend(b"\x03\x01s\0\x05\0\0\0Hello\0\0\0");
    let bytes = hello.to_bytes();
    assert_eq!(bytes, want);
    assert_eq!(Message::length(bytes[..16].try_into().unwrap()).unwrap(), bytes.len());
    assert_eq!(Message::parse(&bytes).unwrap(), hello);
}

#[test]
fn a_message_with_a_body_comes_back_as_it_went() {
    let properties = Value::Array(
        "(sv)".into(),
        vec![
            Value::Struct(vec![Value::text("PIDs"), Value::variant(Value::Array("u".into(), vec![Value::U32(77)]))]),
            Value::Struct(vec![Value::text("Delegate"), Value::variant(Value::Bool(true))]),
        ],
    );
    let message = Message {
        serial: 3,
        reply_to: 2,
        body: vec![Value::text("x.scope"), properties, Value::Array("(sa(sv))".into(), vec![]), Value::I64(-1)],
        ..Message::new(Kind::Return)
    };
    let bytes = message.to_bytes();
    assert_eq!(Message::length(bytes[..16].try_into().unwrap()).unwrap(), bytes.len());
    assert_eq!(Message::parse(&bytes).unwrap(), message);
}

#[test]
fn what_is_cut_or_lies_about_its_length_is_an_error() {
    let message =
        Message { serial: 3, member: "M".into(), body: vec![Value::text("text")], ..Message::new(Kind::Signal) };
    let bytes = message.to_bytes();
    for length in 0..bytes.len() {
        assert!(Message::parse(&bytes[..length]).is_err(), "{length}");
    }
    let mut long = bytes.clone();
    long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Message::length(long[..16].try_into().unwrap()).is_err());
    assert!(Message::parse(&long).is_err());
    for signature in ["a", "(", "(s", "z", "a{sv", "vv)"] {
        assert!(Reader::new(&[0; 64], 0).values(signature).is_err(), "{signature}");
    }
    // Variants in variants, without end.
    let deep: Vec<u8> = [1, b'v', 0].repeat(100);
    assert!(Reader::new(&deep, 0).values("v").is_err());
}
