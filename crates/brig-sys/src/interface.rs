//! The interfaces of the network namespace of the caller, without netlink: up, an address, a default route. See
//! netdevice(7) and, for the numbers, linux/sockios.h, linux/route.h and linux/ipv6_route.h.
//!
//! Why the old calls: a netlink socket gives its namespace back a grace period of the kernel after it was closed, 15 to
//! 30 ms, and the interfaces of a container that ended before would live that much longer. A datagram socket gives it
//! back when it is closed. The socket belongs to the namespace in which it was made, whoever calls with it.

use crate::{Result, check};
use rustix::io::Errno;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `AF_INET`, of the type that an address has room for.
const FAMILY: libc::sa_family_t = 2;
/// A route that is up (`RTF_UP`) and leads to a gateway (`RTF_GATEWAY`).
const ROUTE_UP_GATEWAY: u16 = 0x1 | 0x2;

/// What `SIOCADDRT` reads on an IPv4 socket: struct rtentry of linux/route.h.
#[repr(C)]
struct Route4 {
    hash: libc::c_ulong,
    destination: libc::sockaddr_in,
    gateway: libc::sockaddr_in,
    mask: libc::sockaddr_in,
    flags: u16,
    pad2: i16,
    pad3: libc::c_ulong,
    pad4: usize,
    metric: i16,
    device: *const libc::c_char,
    mtu: libc::c_ulong,
    window: libc::c_ulong,
    initial_rtt: u16,
}

/// What `SIOCADDRT` reads on an IPv6 socket: struct in6_rtmsg of linux/ipv6_route.h.
#[repr(C)]
struct Route6 {
    destination: libc::in6_addr,
    source: libc::in6_addr,
    gateway: libc::in6_addr,
    kind: u32,
    destination_prefix: u16,
    source_prefix: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: libc::c_int,
}

/// Makes a socket of the caller's network namespace that the functions for IPv4, and [`up`], take.
pub fn socket4() -> Result<OwnedFd> {
    socket(rustix::net::AddressFamily::INET)
}

/// Makes a socket of the caller's network namespace that the functions for IPv6 take.
///
/// Errors: EAFNOSUPPORT where the kernel has no IPv6.
pub fn socket6() -> Result<OwnedFd> {
    socket(rustix::net::AddressFamily::INET6)
}

fn socket(family: rustix::net::AddressFamily) -> Result<OwnedFd> {
    use rustix::net::{SocketFlags, SocketType, socket_with};
    Ok(socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// Sets `lo` up in the network namespace of the caller.
pub fn loopback_up() -> Result<()> {
    up(socket4()?.as_fd(), "lo")
}

/// Sets an interface up, `SIOCSIFFLAGS`. Errors: ENODEV, and EINVAL for a name that no interface can have.
pub fn up(socket: BorrowedFd<'_>, name: &str) -> Result<()> {
    let mut request = request(name)?;
    call(socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the kernel has just written the flags, and any bits are a valid integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::c_short::try_from(libc::IFF_UP).unwrap_or(0);
    call(socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Gives an interface its IPv4 address, with a prefix of so many bits; the broadcast address is the subnet's last.
pub fn set_address4(socket: BorrowedFd<'_>, name: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    let last = Ipv4Addr::from_bits(address.to_bits() | !mask);
    // The first call guesses the prefix from the class of the address, the second sets it right, and the broadcast address too
    // unless the guess had none, as for class E.
    let calls =
        [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, Ipv4Addr::from_bits(mask)), (libc::SIOCSIFBRDADDR, last)];
    let has_class = address.octets()[0] < 240;
    for (number, value) in calls.into_iter().take(if has_class { 2 } else { 3 }) {
        let mut request = request(name)?;
        // SAFETY: sockaddr_in is a sockaddr as the kernel takes it: of the same size, the family first.
        request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(to_c(value)) };
        call(socket, number, &mut request)?;
    }
    Ok(())
}

/// Sets the IPv4 default route. Errors: ENETUNREACH when the gateway is not in the interface's subnet, EEXIST.
pub fn set_default_route4(socket: BorrowedFd<'_>, name: &str, gateway: Ipv4Addr) -> Result<()> {
    let request = request(name)?;
    let any = to_c(Ipv4Addr::UNSPECIFIED);
    let mut route = Route4 {
        hash: 0,
        destination: any,
        gateway: to_c(gateway),
        mask: any,
        flags: ROUTE_UP_GATEWAY,
        pad2: 0,
        pad3: 0,
        pad4: 0,
        metric: 0,
        device: request.ifr_name.as_ptr(),
        mtu: 0,
        window: 0,
        initial_rtt: 0,
    };
    call(socket, libc::SIOCADDRT, &mut route)
}

/// Gives an interface an IPv6 address, with a prefix of so many bits, on a socket of [`socket6`].
///
/// Whether it is usable at once is the interface's setting `accept_dad`.
pub fn set_address6(socket: BorrowedFd<'_>, index: u32, address: Ipv6Addr, prefix: u8) -> Result<()> {
    let ifr6_ifindex = to_index(index)?;
    let ifr6_addr = libc::in6_addr { s6_addr: address.octets() };
    let mut request = libc::in6_ifreq { ifr6_addr, ifr6_prefixlen: u32::from(prefix), ifr6_ifindex };
    call(socket, libc::SIOCSIFADDR, &mut request)
}

/// Sets the IPv6 default route, on a socket of [`socket6`]. Errors as of [`set_default_route4`].
pub fn set_default_route6(socket: BorrowedFd<'_>, index: u32, gateway: Ipv6Addr) -> Result<()> {
    let any = libc::in6_addr { s6_addr: [0; 16] };
    let mut route = Route6 {
        destination: any,
        source: any,
        gateway: libc::in6_addr { s6_addr: gateway.octets() },
        kind: 0,
        destination_prefix: 0,
        source_prefix: 0,
        metric: 0,
        info: 0,
        flags: u32::from(ROUTE_UP_GATEWAY),
        index: to_index(index)?,
    };
    call(socket, libc::SIOCADDRT, &mut route)
}

fn request(name: &str) -> Result<libc::ifreq> {
    // SAFETY: ifreq is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(Errno::INVAL.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn to_index(index: u32) -> Result<libc::c_int> {
    libc::c_int::try_from(index).map_err(|_| Errno::NODEV.into())
}

fn to_c(address: Ipv4Addr) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: FAMILY,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    }
}

fn call<T>(socket: BorrowedFd<'_>, number: libc::c_ulong, argument: &mut T) -> Result<()> {
    // SAFETY: each caller passes the structure that its call reads and writes, and it outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), number, std::ptr::from_mut(argument)) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_has() {
        let socket = socket4().unwrap();
        for (name, errno) in [
            ("", Errno::INVAL),
            ("sixteen-letters-", Errno::INVAL),
            ("a\0b", Errno::INVAL),
            ("brig-none", Errno::NODEV),
        ] {
            assert_eq!(up(socket.as_fd(), name).unwrap_err().raw_os_error(), Some(errno.raw_os_error()), "{name:?}");
        }
    }
}
