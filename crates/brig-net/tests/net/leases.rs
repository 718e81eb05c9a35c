//! Leases taken by several processes at the same time.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use brig_net::lease::{lease, list, release};
use tempfile::TempDir;

use crate::world::World;

const PROCESSES: usize = 8;
const EACH: usize = 40;

#[test]
fn eight_processes_get_different_addresses() {
    if let Ok(directory) = std::env::var("BRIG_NET_LEASE_DIRECTORY") {
        for n in 0..EACH {
            let id = format!("{}-{n}", std::process::id());
            let address = lease(directory.as_ref(), &World::bridge(), &id, None).unwrap();
            if n % 4 == 3 {
                release(directory.as_ref(), address, &id).unwrap();
            }
        }
        return;
    }
    let directory = TempDir::new().unwrap();
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "leases::eight_processes_get_different_addresses"])
                .env("BRIG_NET_LEASE_DIRECTORY", directory.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let leases = list(directory.path()).unwrap();
    assert_eq!(leases.len(), PROCESSES * EACH * 3 / 4);
    assert_eq!(leases.iter().map(|(_, id)| id).collect::<HashSet<_>>().len(), leases.len());
    assert!(leases.iter().all(|(address, _)| *address != Ipv4Addr::new(10, 88, 0, 1)));
}
