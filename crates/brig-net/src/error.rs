//! What can go wrong on the network floor.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::plan::Protocol;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, with the operation and the object it was about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port to publish is held by another program or container.
    #[error("port {port}/{protocol} on {address} is already in use")]
    PortInUse {
        /// The address that was to be bound.
        address: IpAddr,
        /// The port on the host.
        port: u16,
        /// The transport protocol.
        protocol: Protocol,
    },
    /// The port to publish could not be bound for another reason.
    #[error("cannot bind port {port}/{protocol} on {address}")]
    Bind {
        /// The address that was to be bound.
        address: IpAddr,
        /// The port on the host.
        port: u16,
        /// The transport protocol.
        protocol: Protocol,
        /// What the kernel answered.
        source: Errno,
    },
    /// The kernel refused an operation on a network object.
    #[error("cannot {operation} `{object}`")]
    Kernel {
        /// The verb: what was being done.
        operation: &'static str,
        /// The name of the link, table, address or chain.
        object: String,
        /// What the kernel answered.
        source: Errno,
    },
    /// A file below /proc/sys or of our own could not be read or written.
    #[error("cannot {operation} `{}`", path.display())]
    File {
        /// The verb: what was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// Every address of the subnet is leased.
    #[error("no free address is left in {gateway}/{prefix}")]
    SubnetFull {
        /// The subnet's gateway.
        gateway: Ipv4Addr,
        /// The subnet's prefix length in bits.
        prefix: u8,
    },
    /// The address asked for is leased to another container.
    #[error("address {address} is already in use by container `{holder}`")]
    AddressInUse {
        /// The address.
        address: Ipv4Addr,
        /// The id of the container that holds it.
        holder: String,
    },
    /// The address asked for cannot be given to a container of this subnet.
    #[error("address {address} is not a host address of {gateway}/{prefix}")]
    AddressOutside {
        /// The address.
        address: Ipv4Addr,
        /// The subnet's gateway.
        gateway: Ipv4Addr,
        /// The subnet's prefix length in bits.
        prefix: u8,
    },
    /// A plan names something that cannot exist.
    #[error("invalid {field} `{value}` in the network plan")]
    Plan {
        /// The plan's field.
        field: &'static str,
        /// The offending value.
        value: String,
    },
}

impl Error {
    pub(crate) fn kernel(operation: &'static str, object: impl Into<String>, source: Errno) -> Self {
        Self::Kernel { operation, object: object.into(), source }
    }

    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { operation, path: path.into(), source }
    }
}
