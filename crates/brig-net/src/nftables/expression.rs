//! The expressions that rules are made of: each loads a register, compares one, or ends the rule.
//!
//! A rule runs its expressions in order and stops at the first comparison that fails. Registers are 4 bytes each; what
//! is longer takes several, and what lies in neighbouring ones is one key to a set.

use crate::message::Batch;

fn expression(batch: &mut Batch, name: &str, data: impl FnOnce(&mut Batch)) {
    batch.nest(1, |batch| {
        batch.text(1, name);
        batch.nest(2, data);
    });
}

/// Loads a property of the packet.
pub(crate) fn meta(batch: &mut Batch, key: u32, register: u32) {
    expression(batch, "meta", |batch| {
        batch.number_be(1, register);
        batch.number_be(2, key);
    });
}

/// Loads a property of the packet's connection.
pub(crate) fn conntrack(batch: &mut Batch, key: u32, register: u32) {
    expression(batch, "ct", |batch| {
        batch.number_be(1, register);
        batch.number_be(2, key);
    });
}

/// A place in the packet: header (1 network, 2 transport), offset and length in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Slice(pub(crate) u32, pub(crate) u32, pub(crate) u32);

/// Loads a part of the packet.
pub(crate) fn payload(batch: &mut Batch, slice: Slice, register: u32) {
    expression(batch, "payload", |batch| {
        batch.number_be(1, register);
        batch.number_be(2, slice.0);
        batch.number_be(3, slice.1);
        batch.number_be(4, slice.2);
    });
}

/// Goes on only when the register equals the value.
pub(crate) fn equal(batch: &mut Batch, register: u32, value: &[u8]) {
    compare(batch, register, 0, value);
}

/// Goes on only when the register differs from the value.
pub(crate) fn differ(batch: &mut Batch, register: u32, value: &[u8]) {
    compare(batch, register, 1, value);
}

fn compare(batch: &mut Batch, register: u32, operator: u32, value: &[u8]) {
    expression(batch, "cmp", |batch| {
        batch.number_be(1, register);
        batch.number_be(2, operator);
        batch.nest(3, |batch| batch.attribute(1, value));
    });
}

/// Keeps only the bits of the 4-byte register that the mask has.
pub(crate) fn mask(batch: &mut Batch, register: u32, bits: u32) {
    expression(batch, "bitwise", |batch| {
        batch.number_be(1, register);
        batch.number_be(2, register);
        batch.number_be(3, 4);
        batch.nest(4, |batch| batch.number(1, bits));
        batch.nest(5, |batch| batch.number(1, 0));
    });
}

/// Goes on only when the set has (or has not) what lies at the register.
pub(crate) fn member(batch: &mut Batch, set: &str, register: u32, wanted: bool) {
    expression(batch, "lookup", |batch| {
        batch.text(1, set);
        batch.number_be(2, register);
        if !wanted {
            batch.number_be(5, 1);
        }
    });
}

/// Loads the map's value for what lies at the register; stops when there is none.
pub(crate) fn map(batch: &mut Batch, set: &str, register: u32, result: u32) {
    expression(batch, "lookup", |batch| {
        batch.text(1, set);
        batch.number_be(2, register);
        batch.number_be(3, result);
    });
}

/// Loads the answer of a route lookup.
pub(crate) fn route(batch: &mut Batch, result: u32, flags: u32, register: u32) {
    expression(batch, "fib", |batch| {
        batch.number_be(1, register);
        batch.number_be(2, result);
        batch.number_be(3, flags);
    });
}

/// Counts packets and bytes.
pub(crate) fn counter(batch: &mut Batch) {
    expression(batch, "counter", |batch| {
        batch.attribute(1, &[0; 8]);
        batch.attribute(2, &[0; 8]);
    });
}

/// Ends the chain: `ACCEPT` or `DROP`.
pub(crate) fn verdict(batch: &mut Batch, code: i32) {
    expression(batch, "immediate", |batch| {
        batch.number_be(1, 0);
        batch.nest(2, |batch| batch.nest(2, |batch| batch.number_be(1, code.cast_unsigned())));
    });
}

/// Sends the connection to the address and port in the registers.
pub(crate) fn destination(batch: &mut Batch, family: u8, address: u32, port: u32) {
    expression(batch, "nat", |batch| {
        batch.number_be(1, 1);
        batch.number_be(2, u32::from(family));
        batch.number_be(3, address);
        batch.number_be(5, port);
    });
}

/// Gives the connection the address of the interface that it leaves by.
pub(crate) fn masquerade(batch: &mut Batch) {
    expression(batch, "masq", |_| {});
}
