//! A container as JSON: what it is, what it shall be, and what state it is in.

use brig_engine::Config;
use brig_engine::config::{ContainerConfig, MountKind, NetworkMode, RestartPolicy, Throttle, UtsMode, modes::Describe};
use brig_engine::containers::{self, Phase, Status};
use brig_engine::record::Record;
use brig_engine::time::rfc3339;
use serde_json::{Map, Value, json};

/// Describes a container.
pub fn describe(config: &Config, record: &Record) -> Value {
    let status = containers::status::of(config, record);
    let dir = record.dir(config);
    let argv = record.config.argv();
    json!({
        "Id": record.id.as_str(),
        "Created": rfc3339(record.created_ns),
        "Path": argv.first().cloned().unwrap_or_default(),
        "Args": argv.get(1..).unwrap_or_default(),
        "State": state(&status),
        "Image": record.image.id,
        "ResolvConfPath": dir.join("resolv.conf"),
        "HostnamePath": dir.join("hostname"),
        "HostsPath": dir.join("hosts"),
        "LogPath": if record.config.log.none { Value::Null } else { json!(dir.join("log")) },
        "Name": format!("/{}", record.name),
        "RestartCount": status.restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": host_config(config, record),
        "GraphDriver": {
            "Name": "overlay",
            "Data": {
                "LowerDir": record.image.layers.iter().map(|l| l.display().to_string()).collect::<Vec<_>>().join(":"),
                "UpperDir": dir.join("upper"),
                "WorkDir": dir.join("work"),
            },
        },
        "Mounts": mounts(config, record),
        "Config": settings(record),
        "NetworkSettings": network(record, &status),
    })
}

fn state(status: &Status) -> Value {
    let time = |ns: u64| if ns == 0 { "0001-01-01T00:00:00Z".to_owned() } else { rfc3339(ns) };
    // A status that can no longer be known is told as such, never as success.
    let over = matches!(status.phase, Phase::Exited | Phase::Restarting | Phase::Stopping);
    let code =
        if over { status.exit_code.map_or(json!(-1), |c| json!(c)) } else { json!(status.exit_code.unwrap_or(0)) };
    json!({
        "Status": status.phase.as_str(),
        "Running": status.is_running(),
        "Paused": status.phase == Phase::Paused,
        "Restarting": status.phase == Phase::Restarting,
        "OOMKilled": status.oom_killed,
        "Dead": false,
        "Pid": status.pid,
        "MonitorPid": status.monitor_pid,
        "ExitCode": code,
        "ExitCodeKnown": !over || status.exit_code.is_some(),
        "Error": status.error.clone().unwrap_or_default(),
        "StartedAt": time(status.started_ns),
        "FinishedAt": time(status.finished_ns),
    })
}

fn throttles(list: &[Throttle]) -> Value {
    json!(list.iter().map(|t| json!({"Path": t.path, "Rate": t.rate})).collect::<Vec<_>>())
}

fn host_config(config: &Config, record: &Record) -> Value {
    let wish = &record.config;
    let limits = &wish.resources;
    let mut bindings = Map::new();
    for port in &wish.ports {
        let key = format!("{}/{}", port.container_port, port.protocol.as_str());
        let binding = json!({
            "HostIp": port.host_ip.map(|a| a.to_string()).unwrap_or_default(),
            "HostPort": port.host_port.map(|p| p.to_string()).unwrap_or_default(),
        });
        if let Some(list) = bindings.entry(key).or_insert_with(|| json!([])).as_array_mut() {
            list.push(binding);
        }
    }
    let binds: Vec<String> = wish
        .mounts
        .iter()
        .filter_map(|m| match &m.kind {
            MountKind::Bind { source, .. } => {
                let mode = if m.read_only { ":ro" } else { "" };
                Some(format!("{}:{}{mode}", source.display(), m.destination.display()))
            }
            _ => None,
        })
        .collect();
    let retries = if let RestartPolicy::OnFailure(count) = wish.restart { count } else { 0 };
    let mut all = json!({
        "Binds": binds,
        "VolumesFrom": wish.volumes_from.iter().map(|from| match from.read_only {
            None => from.container.clone(),
            Some(read_only) => format!("{}:{}", from.container, if read_only { "ro" } else { "rw" }),
        }).collect::<Vec<_>>(),
        "NetworkMode": wish.network.describe(),
        "PortBindings": bindings,
        "PublishAllPorts": wish.publish_all,
        "RestartPolicy": { "Name": wish.restart.name(), "MaximumRetryCount": retries },
        "AutoRemove": wish.remove,
        "LogConfig": {
            "Type": if wish.log.none { "none" } else { "local" },
            "Config": {
                "max-size": wish.log.max_size.unwrap_or(config.log_max_size).to_string(),
                "max-file": wish.log.max_files.unwrap_or(config.log_max_files).to_string(),
            },
        },
        "CapAdd": wish.cap_add,
        "CapDrop": wish.cap_drop,
        "CgroupnsMode": if wish.cgroupns == brig_engine::config::CgroupMode::Host { "host" } else { "private" },
        "Dns": wish.dns,
        "DnsSearch": wish.dns_search,
        "DnsOptions": wish.dns_options,
        "ExtraHosts": wish.extra_hosts.iter().map(|(n, a)| format!("{n}:{a}")).collect::<Vec<_>>(),
        "GroupAdd": wish.groups,
        "IpcMode": wish.ipc.describe(),
        "PidMode": wish.pid.describe(),
        "UTSMode": if wish.uts == UtsMode::Host { "host" } else { "" },
        "UsernsMode": wish.userns.describe(),
        "IdMapping": record.first_id.map(|first| json!({"FirstHostId": first, "Size": brig_engine::idpool::BLOCK})),
        "Privileged": wish.privileged,
        "ReadonlyRootfs": wish.read_only,
        "SecurityOpt": security(wish),
        "ShmSize": wish.shm_size.unwrap_or(64 << 20),
        "Init": wish.init,
        "Sysctls": wish.sysctls,
        "OomScoreAdj": wish.oom_score_adj.unwrap_or(0),
        "Devices": wish.devices.iter().map(|d| json!({
            "PathOnHost": d.host, "PathInContainer": d.container, "CgroupPermissions": d.access,
        })).collect::<Vec<_>>(),
        "DeviceCgroupRules": wish.device_cgroup_rules,
        "Ulimits": wish.ulimits.iter().map(|u| json!({"Name": u.name, "Soft": u.soft, "Hard": u.hard})).collect::<Vec<_>>(),
        "CgroupParent": config.cgroup_parent,
    });
    let resources = json!({
        "Memory": limits.memory.unwrap_or(0),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "MemorySwap": limits.memory_swap.unwrap_or(limits.memory.map_or(0, |m| m.saturating_mul(2))),
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.clone().unwrap_or_default(),
        "PidsLimit": limits.pids,
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": throttles(&limits.blkio_weight_device),
        "BlkioDeviceReadBps": throttles(&limits.read_bps),
        "BlkioDeviceWriteBps": throttles(&limits.write_bps),
        "BlkioDeviceReadIOps": throttles(&limits.read_iops),
        "BlkioDeviceWriteIOps": throttles(&limits.write_iops),
    });
    if let (Value::Object(all), Value::Object(resources)) = (&mut all, resources) {
        all.extend(resources);
    }
    all
}

fn security(wish: &ContainerConfig) -> Vec<String> {
    use brig_engine::config::Seccomp;
    let mut all = Vec::new();
    match wish.security.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => all.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(_) => all.push("seccomp=profile".to_owned()),
    }
    if wish.security.no_new_privileges {
        all.push("no-new-privileges".into());
    }
    all.extend(wish.security.apparmor.iter().map(|p| format!("apparmor={p}")));
    all.extend(wish.security.label.iter().map(|l| format!("label={l}")));
    if wish.security.unmask_all {
        all.push("systempaths=unconfined".into());
    }
    all
}

fn mounts(config: &Config, record: &Record) -> Vec<Value> {
    let mut volumes = record.volumes.iter();
    let one = |mount: &brig_engine::config::MountConfig| {
        let (kind, name, source) = match &mount.kind {
            MountKind::Bind { source, .. } => ("bind", None, source.display().to_string()),
            MountKind::Volume { .. } => {
                let name = volumes.next().map(|v| v.name.clone()).unwrap_or_default();
                let data = brig_engine::volumes::data(config, &name).display().to_string();
                ("volume", Some(name), data)
            }
            MountKind::Tmpfs => ("tmpfs", None, String::new()),
            MountKind::Image { name } => ("image", Some(name.clone()), String::new()),
        };
        json!({
            "Type": kind,
            "Name": name,
            "Source": source,
            "Destination": mount.destination,
            "Mode": mount.options.join(","),
            "RW": !mount.read_only && kind != "image",
            "Propagation": mount.propagation.clone().unwrap_or_else(|| "rprivate".into()),
        })
    };
    record.config.mounts.iter().map(one).collect()
}

fn settings(record: &Record) -> Value {
    let wish = &record.config;
    let set = |keys: &mut dyn Iterator<Item = String>| keys.map(|k| (k, json!({}))).collect::<Map<_, _>>();
    json!({
        "Hostname": wish.hostname.clone().unwrap_or_else(|| record.id.short().to_owned()),
        "Domainname": wish.domainname.clone().unwrap_or_default(),
        "User": wish.user,
        "Tty": wish.tty,
        "OpenStdin": wish.stdin,
        "Env": wish.env,
        "Cmd": wish.command,
        "Entrypoint": wish.entrypoint,
        "Image": wish.image,
        "WorkingDir": wish.workdir,
        "Labels": wish.labels,
        "Annotations": wish.annotations,
        "ExposedPorts": set(&mut wish.exposed.iter().cloned()),
        "Volumes": set(&mut record.volumes.iter().map(|v| v.destination.display().to_string())),
        "StopSignal": wish.stop_signal.clone().unwrap_or_else(|| "SIGTERM".into()),
        "StopTimeout": wish.stop_timeout,
    })
}

fn network(record: &Record, status: &Status) -> Value {
    let running = status.is_active();
    let Some(network) = record.network.as_ref().filter(|_| running) else {
        let name = match &record.config.network {
            NetworkMode::Container(_) => {
                return json!({ "IPAddress": "", "Gateway": "", "MacAddress": "", "Ports": {}, "Networks": {} });
            }
            other => other.describe(),
        };
        let mut networks = Map::new();
        networks.insert(name, json!({ "IPAddress": "", "Gateway": "", "MacAddress": "", "IPPrefixLen": 0 }));
        return json!({ "IPAddress": "", "Gateway": "", "MacAddress": "", "Ports": {}, "Networks": networks });
    };
    let mac = network.mac.map(|b| format!("{b:02x}")).join(":");
    let mut ports = Map::new();
    for port in &network.ports {
        let hosts = match port.host_address {
            Some(address) => vec![address.to_string()],
            None => vec!["0.0.0.0".to_owned(), "::".to_owned()],
        };
        let list = hosts.into_iter().map(|h| json!({"HostIp": h, "HostPort": port.host_port.to_string()}));
        let entry = ports.entry(format!("{}/{}", port.container_port, port.protocol)).or_insert_with(|| json!([]));
        if let Some(known) = entry.as_array_mut() {
            known.extend(list);
        }
    }
    for exposed in &record.config.exposed {
        ports.entry(exposed.clone()).or_insert(Value::Null);
    }
    let one = json!({
        "IPAddress": network.address,
        "IPPrefixLen": network.bridge.prefix,
        "Gateway": network.bridge.gateway,
        "MacAddress": mac,
        "GlobalIPv6Address": network.address6.map(|a| a.to_string()).unwrap_or_default(),
    });
    json!({
        "Bridge": network.bridge.name,
        "IPAddress": network.address,
        "IPPrefixLen": network.bridge.prefix,
        "Gateway": network.bridge.gateway,
        "MacAddress": mac,
        "Ports": ports,
        "Networks": { "bridge": one },
    })
}
