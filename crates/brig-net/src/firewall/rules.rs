//! The constant part of the table: chains, empty sets, and the rules over them, as `firewall` draws them.

use super::{BRIDGES, HAIRPINS, MASQUERADED, TABLE};
use crate::message::Batch;
use crate::nftables::{
    ACCEPT, CT_STATE, CT_STATUS, DROP, FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, FIB_DADDR, FIB_IIF, FIB_OIF, FIB_SADDR,
    FIB_TYPE, Field, Hook, META_IIFNAME, META_L4PROTO, META_NFPROTO, META_OIFNAME, Place, REG32, Slice, conntrack,
    destination, differ, equal, map, mask, masquerade, member, meta, new_chain, new_rule, new_set, new_table, payload,
    route, verdict,
};

const SOURCE4_NET: Slice = Slice(1, 12, 1);
const DESTINATION4_NET: Slice = Slice(1, 16, 1);
const DESTINATION4: Slice = Slice(1, 16, 4);
const DESTINATION6: Slice = Slice(1, 24, 16);
const DESTINATION_PORT: Slice = Slice(2, 2, 2);

const ESTABLISHED_OR_RELATED: u32 = 0x2 | 0x4;
const STATUS_DNAT: u32 = 0x20;
const ROUTE_LOCAL: u32 = 2;

/// Appends the table with its chains, sets and rules.
pub(super) fn create(batch: &mut Batch) {
    use Field::{Address4, Address6, Interface, Port, Protocol};
    new_table(batch, TABLE);
    let hooks = [
        ("guard", Hook { kind: "filter", number: 0, priority: -300 }),
        ("inward", Hook { kind: "nat", number: 0, priority: -100 }),
        ("local", Hook { kind: "nat", number: 3, priority: -100 }),
        ("forward", Hook { kind: "filter", number: 2, priority: 0 }),
        ("outward", Hook { kind: "nat", number: 4, priority: 100 }),
    ];
    for (chain, hook) in &hooks {
        new_chain(batch, TABLE, chain, hook);
    }
    new_set(batch, TABLE, 1, BRIDGES, &[Interface], &[]);
    new_set(batch, TABLE, 2, MASQUERADED, &[Interface], &[]);
    new_set(batch, TABLE, 3, HAIRPINS, &[Interface, Interface], &[]);
    new_set(batch, TABLE, 4, "ports4", &[Address4, Protocol, Port], &[Address4, Port]);
    new_set(batch, TABLE, 5, "anywhere4", &[Protocol, Port], &[Address4, Port]);
    new_set(batch, TABLE, 6, "ports6", &[Address6, Protocol, Port], &[Address6, Port]);
    new_set(batch, TABLE, 7, "anywhere6", &[Protocol, Port], &[Address6, Port]);
    guard_rules(batch);
    for chain in ["inward", "local"] {
        published_rules(batch, chain);
    }
    forward_rules(batch);
    outward_rules(batch);
}

fn rule(batch: &mut Batch, chain: &str, expressions: impl FnOnce(&mut Batch)) {
    new_rule(batch, &Place { family: FAMILY_INET, table: TABLE, chain, at_head: false }, "", expressions);
}

fn only_family(batch: &mut Batch, family: u8) {
    meta(batch, META_NFPROTO, REG32);
    equal(batch, REG32, &[family]);
}

fn interface_in(batch: &mut Batch, key: u32, set: &str, wanted: bool) {
    meta(batch, key, REG32);
    member(batch, set, REG32, wanted);
}

fn guard_rules(batch: &mut Batch) {
    for side in [DESTINATION4_NET, SOURCE4_NET] {
        rule(batch, "guard", |batch| {
            meta(batch, META_IIFNAME, REG32);
            differ(batch, REG32, b"lo\0");
            only_family(batch, FAMILY_IPV4);
            payload(batch, side, REG32);
            equal(batch, REG32, &[127]);
            verdict(batch, DROP);
        });
    }
    rule(batch, "guard", |batch| {
        interface_in(batch, META_IIFNAME, BRIDGES, true);
        only_family(batch, FAMILY_IPV4);
        route(batch, FIB_OIF, FIB_SADDR | FIB_IIF, REG32);
        equal(batch, REG32, &0_u32.to_ne_bytes());
        verdict(batch, DROP);
    });
}

fn published_rules(batch: &mut Batch, chain: &str) {
    for (family, slice, registers, one, every) in
        [(FAMILY_IPV4, DESTINATION4, 1, "ports4", "anywhere4"), (FAMILY_IPV6, DESTINATION6, 4, "ports6", "anywhere6")]
    {
        rule(batch, chain, |batch| {
            only_family(batch, family);
            payload(batch, slice, REG32);
            meta(batch, META_L4PROTO, REG32 + registers);
            payload(batch, DESTINATION_PORT, REG32 + registers + 1);
            map(batch, one, REG32, REG32);
            destination(batch, family, REG32, REG32 + registers);
        });
        rule(batch, chain, |batch| {
            only_family(batch, family);
            route(batch, FIB_TYPE, FIB_DADDR, REG32);
            equal(batch, REG32, &ROUTE_LOCAL.to_ne_bytes());
            meta(batch, META_L4PROTO, REG32);
            payload(batch, DESTINATION_PORT, REG32 + 1);
            map(batch, every, REG32, REG32);
            destination(batch, family, REG32, REG32 + registers);
        });
    }
}

fn forward_rules(batch: &mut Batch) {
    for (key, bits) in [(CT_STATE, ESTABLISHED_OR_RELATED), (CT_STATUS, STATUS_DNAT)] {
        rule(batch, "forward", |batch| {
            interface_in(batch, META_OIFNAME, BRIDGES, true);
            conntrack(batch, key, REG32);
            mask(batch, REG32, bits);
            differ(batch, REG32, &0_u32.to_ne_bytes());
            verdict(batch, ACCEPT);
        });
    }
    rule(batch, "forward", |batch| {
        both_interfaces_in_hairpins(batch);
        verdict(batch, ACCEPT);
    });
    rule(batch, "forward", |batch| {
        interface_in(batch, META_OIFNAME, BRIDGES, true);
        verdict(batch, DROP);
    });
}

fn both_interfaces_in_hairpins(batch: &mut Batch) {
    meta(batch, META_IIFNAME, REG32);
    meta(batch, META_OIFNAME, REG32 + 4);
    member(batch, HAIRPINS, REG32, true);
}

fn translated(batch: &mut Batch) {
    conntrack(batch, CT_STATUS, REG32);
    mask(batch, REG32, STATUS_DNAT);
    differ(batch, REG32, &0_u32.to_ne_bytes());
}

fn outward_rules(batch: &mut Batch) {
    rule(batch, "outward", |batch| {
        interface_in(batch, META_IIFNAME, MASQUERADED, true);
        interface_in(batch, META_OIFNAME, BRIDGES, false);
        masquerade(batch);
    });
    rule(batch, "outward", |batch| {
        both_interfaces_in_hairpins(batch);
        translated(batch);
        masquerade(batch);
    });
    // Where br_netfilter shows bridged frames to this hook, it does so without an input interface.
    rule(batch, "outward", |batch| {
        meta(batch, META_IIFNAME, REG32);
        equal(batch, REG32, &[0; 16]);
        interface_in(batch, META_OIFNAME, BRIDGES, true);
        translated(batch);
        route(batch, FIB_TYPE, FIB_SADDR, REG32);
        differ(batch, REG32, &ROUTE_LOCAL.to_ne_bytes());
        masquerade(batch);
    });
    rule(batch, "outward", |batch| {
        interface_in(batch, META_OIFNAME, BRIDGES, true);
        only_family(batch, FAMILY_IPV4);
        payload(batch, SOURCE4_NET, REG32);
        equal(batch, REG32, &[127]);
        masquerade(batch);
    });
}
