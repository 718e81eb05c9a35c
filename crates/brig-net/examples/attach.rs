//! Measures attach and detach, in a network namespace of its own: `cargo run --release --example attach [COUNT [PORTS]]`.
//!
//! Run it under `strace -c` or `strace -r` to see which system calls the time goes to. It prints medians in
//! microseconds; it needs root.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Instant;

use brig_net::plan::{Bridge, Network, Port, Protocol, hardware_address, host_interface};
use brig_net::usage::usage;
use brig_net::{attach, detach, withdraw};
use rustix::thread::UnshareFlags;

#[expect(deprecated, reason = "the safe face of unshare; only NEWNET is asked for, which concerns this thread alone")]
fn fresh() -> Result<std::fs::File, Box<dyn Error + Send + Sync>> {
    rustix::thread::unshare(UnshareFlags::NEWNET)?;
    Ok(std::fs::File::open("/proc/thread-self/ns/net")?)
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<u16>().ok());
    let count = numbers.next().unwrap_or(30).min(200);
    let ports = numbers.next().unwrap_or(0).min(20);
    fresh()?;
    let state = std::env::temp_dir();
    let (mut attach_us, mut detach_us) = (Vec::new(), Vec::new());
    let (mut withdraw_us, mut gone_us) = (Vec::new(), Vec::new());
    for n in 0..count {
        // A namespace of one's own belongs to the thread that made it.
        let netns = std::thread::spawn(fresh).join().expect("no panic in there")?;
        let plan = plan(n, ports);
        let start = Instant::now();
        let attachment = attach(&plan, netns.as_fd(), &state)?;
        attach_us.push(start.elapsed().as_micros());
        let start = Instant::now();
        detach(&plan)?;
        detach_us.push(start.elapsed().as_micros());
        drop(attachment);
        let attachment = attach(&plan, netns.as_fd(), &state)?;
        let start = Instant::now();
        let lingering = withdraw(&plan)?;
        withdraw_us.push(start.elapsed().as_micros());
        drop((attachment, netns, lingering));
        let start = Instant::now();
        while usage(&plan).is_ok() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        gone_us.push(start.elapsed().as_micros());
    }
    let figures =
        [("attach", attach_us), ("detach", detach_us), ("withdraw", withdraw_us), ("gone with the namespace", gone_us)];
    for (name, mut figures) in figures {
        println!("{name}: the first {} us", figures[0]);
        figures.sort_unstable();
        println!("{name}: least {} us, median {} us", figures[0], figures[figures.len() / 2]);
    }
    Ok(())
}

fn plan(n: u16, ports: u16) -> Network {
    let [high, low] = (n + 2).to_be_bytes();
    let address = Ipv4Addr::new(10, 88, high, low);
    let container = format!("{n:064x}").chars().rev().collect::<String>();
    Network {
        host_interface: host_interface(&container),
        container,
        bridge: Bridge {
            name: "brig0".to_owned(),
            gateway: Ipv4Addr::new(10, 88, 0, 1),
            prefix: 16,
            gateway6: None,
            mtu: 1500,
            masquerade: true,
        },
        interface: "eth0".to_owned(),
        address,
        address6: None,
        mac: hardware_address(address),
        ports: (0..ports)
            .map(|port| Port {
                host_address: None,
                host_port: 8000 + n * 20 + port,
                container_port: 80,
                protocol: Protocol::Tcp,
            })
            .collect(),
    }
}
