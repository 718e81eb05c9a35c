//! The network floor: bridges, veth pairs, addresses, published ports, the firewall table.
//!
//! It takes a plan ([`plan::Network`]) and the descriptor of a network namespace, and knows nothing of containers. All
//! of it is synchronous and made of plain system calls: no thread, no helper program, no state in memory but the
//! sockets that [`Attachment`] holds. Whatever it did can be undone from the plan alone.
//!
//! ```text
//!   outside --- eth0  | host |  brig0 (bridge, gateway address)
//!                                 |
//!                             brig-0123456789 (host end) ===== eth0 (in the container's namespace)
//!
//!   attach:  ports bound -> bridge -> firewall elements -> veth pair -> addresses and route inside
//!   detach:  firewall elements -> host end deleted (its peer goes with it)
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `plan` | what a network attachment is made of: plain data |
//! | `attach` | the use cases: attach, adopt, detach, remove a bridge |
//! | `publish` | the bound sockets that reserve published ports |
//! | `bridge`, `link`, `namespace`, `sysctl` | the kernel's network objects, by rtnetlink and /proc/sys |
//! | `inside` | what is set up in the container's namespace, and why not by netlink |
//! | `device` | a device of the machine that a container gets for itself |
//! | `firewall`, `foreign` | the rules of the table `inet brig`; what other tables drop |
//! | `conntrack` | old UDP flows that rules no longer match |
//! | `nftables`, `netlink`, `message` | the wire: expressions, sockets, attributes |
//! | `relay` | published ports that address translation cannot serve (`::1`) |
//! | `lease`, `probe`, `usage`, `resolv` | addresses, the doctor's questions, counters, resolv.conf |

mod attach;
mod bridge;
mod conntrack;
mod device;
mod error;
mod firewall;
mod foreign;
mod inside;
mod link;
mod message;
mod namespace;
mod netlink;
mod nftables;
mod publish;
mod sysctl;

pub mod lease;
pub mod plan;
pub mod probe;
pub mod relay;
pub mod resolv;
pub mod usage;

pub use attach::{Attachment, Lingering, adopt, attach, detach, remove_bridge, restore_forwarding, withdraw};
pub use device::move_device;
pub use error::{Error, Result};
pub use foreign::{ForeignDrop, foreign_forward_drops, remove_foreign_accepts};
pub use inside::loopback_up;
