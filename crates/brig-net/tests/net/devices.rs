//! Devices that move into a container's namespace.

use crate::world::Space;
use brig_net::{Error, move_device};
use rustix::io::Errno;
use std::os::fd::AsFd;

#[test]
fn a_device_moves_with_its_addresses_and_under_another_name() {
    let (machine, container) = (Space::new(), Space::new());
    machine.sh("ip link add own0 type veth peer name peer0 && ip link set own0 mtu 1400 address 02:00:00:00:00:07 up");
    machine.sh("ip addr add 192.0.2.7/24 dev own0 && ip addr add 2001:db8:7::7/64 dev own0 nodad");
    machine.sh("ip addr add 192.0.2.9/32 scope host dev own0");
    machine.run(|| move_device("own0", "eth1", container.0.as_fd())).unwrap();
    assert_eq!(machine.sh("ip -o link show own0 2>&1 || true"), "Device \"own0\" does not exist.\n");
    let link = container.sh("ip -o link show eth1");
    assert!(link.contains("mtu 1400") && link.contains("02:00:00:00:00:07") && link.contains(",UP"), "{link}");
    let addresses = container.sh("ip -o addr show eth1");
    assert!(addresses.contains("192.0.2.7/24") && addresses.contains("2001:db8:7::7/64"), "{addresses}");
    assert!(!addresses.contains("192.0.2.9"), "an address of the machine alone: {addresses}");
}

#[test]
fn what_cannot_move_is_named_and_stays() {
    let (machine, container) = (Space::new(), Space::new());
    machine.sh("ip link add own0 type veth peer name peer0");
    container.sh("ip link add eth1 type veth peer name eth2");
    for (name, new_name, errno) in [
        ("none0", "eth3", Errno::NODEV),
        ("lo", "eth3", Errno::INVAL),
        ("own0", "eth1", Errno::EXIST),
        ("own0", "a/b", Errno::INVAL),
        ("own0", "much-too-long-a-name", Errno::INVAL),
    ] {
        let error = machine.run(|| move_device(name, new_name, container.0.as_fd())).unwrap_err();
        let Error::Kernel { source, .. } = &error else { panic!("{error}") };
        assert_eq!(*source, errno, "{name} -> {new_name}: {error}");
    }
    assert!(machine.sh("ip -o link show own0").contains("own0"));
}
