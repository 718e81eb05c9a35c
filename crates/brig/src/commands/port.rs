//! `brig port`: where a container's ports are published.

use super::{Entry, flags, parser};
use crate::Context;
use crate::output;
use crate::report::Outcome;
use brig_engine::Error;
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The container
    container: String,
    /// Only this port, such as `80` or `53/udp`
    port: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "port",
    || parser::<Flags>("port", "Show where a container's ports are published"),
    |context, matches| execute(context, &flags(matches)?),
);

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let record = containers::find(&context.config, &flags.container)?;
    let wanted = flags.port.as_deref().map(|p| if p.contains('/') { p.to_owned() } else { format!("{p}/tcp") });
    let mut found = false;
    for port in record.network.iter().flat_map(|n| &n.ports) {
        let inside = format!("{}/{}", port.container_port, port.protocol);
        if wanted.as_ref().is_some_and(|w| *w != inside) {
            continue;
        }
        found = true;
        let hosts = match port.host_address {
            Some(address) if address.is_ipv6() => vec![format!("[{address}]")],
            Some(address) => vec![address.to_string()],
            None => vec!["0.0.0.0".to_owned(), "[::]".to_owned()],
        };
        for host in hosts {
            let outside = format!("{host}:{}", port.host_port);
            output::line(&if wanted.is_some() { outside } else { format!("{inside} -> {outside}") });
        }
    }
    match (&wanted, found) {
        (Some(wanted), false) => {
            Err(Error::not_found(format!("container `{}` does not publish port {wanted}", record.name)))
        }
        _ => Ok(0),
    }
}
