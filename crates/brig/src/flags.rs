//! What `run` and `create` take, and the only place where it is interpreted: flags become one `ContainerConfig`.

pub mod mount;
pub mod values;

use brig_engine::config::{
    CgroupMode, ContainerConfig, IpcMode, LogConfig, NetworkMode, PidMode, Pull, Resources, RestartPolicy, Seccomp,
    UserMode, UtsMode,
};
use brig_engine::{Error, Result};
use clap::Args;
use std::net::IpAddr;
use values::{
    bytes, cpus, device, env_file, environment, extra_host, labels, port, restart, signed_bytes, sysctl, throttle,
    ulimit,
};

/// The flags of `run` and `create`.
#[derive(Debug, Args)]
pub struct ContainerFlags {
    /// The image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND]")]
    pub image_and_command: Vec<String>,

    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    pub rm: bool,
    /// The container's name
    #[arg(long)]
    pub name: Option<String>,
    /// Set an environment variable, `NAME=VALUE`; `NAME` alone takes the value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// The working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The user, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// A further group
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// The program to start instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// The host name inside
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// The NIS domain name inside
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<String>,
    /// Set an annotation for the OCI runtime
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,

    /// Mount a volume or a directory of the machine
    #[arg(short, long, value_name = "[SOURCE:]DIR[:OPTIONS]")]
    pub volume: Vec<String>,
    /// Mount something, in words: `type=bind,src=/a,dst=/b,readonly`
    #[arg(long, value_name = "SPEC")]
    pub mount: Vec<String>,
    /// Mount a file system in memory
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    pub read_only: bool,

    #[command(flatten)]
    pub limits: LimitFlags,

    /// Set a limit of setrlimit(2), such as `nofile=1024:2048`
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// The size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Score of the OOM killer, -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub oom_score_adj: Option<i32>,
    /// Turn the OOM killer off (cgroup v1)
    #[arg(long)]
    pub oom_kill_disable: bool,

    /// Give a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Take nearly all confinement away
    #[arg(long)]
    pub privileged: bool,
    /// `seccomp=FILE|unconfined`, `no-new-privileges`, `apparmor=PROFILE`, `label=...`, `systempaths=unconfined`
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Give a device of the machine
    #[arg(long, value_name = "HOST[:INSIDE[:rwm]]")]
    pub device: Vec<String>,
    /// Allow devices by a rule, such as `c 42:* rmw`
    #[arg(long, value_name = "RULE")]
    pub device_cgroup_rule: Vec<String>,
    /// Set a kernel setting of the container's own namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,

    /// The pid namespace: `host` or `container:NAME`
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// The IPC namespace: `private`, `shareable`, `none`, `host` or `container:NAME`
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// The UTS namespace: `host`
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// The network: `bridge`, `none`, `host` or `container:NAME`
    #[arg(long, alias = "net", value_name = "MODE")]
    pub network: Option<String>,
    /// The cgroup namespace: `private` or `host`
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<String>,
    /// The user namespace: `host`, `auto` or `container:NAME`
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
    /// Shift the clocks by so many seconds, in a time namespace
    #[arg(long, value_name = "monotonic=N,boottime=N", allow_hyphen_values = true)]
    pub time: Option<String>,

    /// A name server
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,
    /// A search domain; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// An option of resolv.conf(5)
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// A line for /etc/hosts; `host-gateway` stands for the machine
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Publish a port
    #[arg(short, long, value_name = "[[ADDRESS:]PORT:]PORT[/udp]")]
    pub publish: Vec<String>,
    /// Publish every port that the image exposes
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// A port that the container serves
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub expose: Vec<String>,

    /// Run a small init as the first process
    #[arg(long)]
    pub init: bool,
    /// The signal that asks the program to end
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds until a container that does not stop is killed
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub stop_timeout: Option<i64>,
    /// When to start it again: `no`, `on-failure[:N]`, `always`, `unless-stopped`
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// When to ask the registry: `missing`, `always`, `never`
    #[arg(long, value_name = "WHEN")]
    pub pull: Option<String>,
    /// The platform of the image, such as `linux/arm64`
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure: Vec<String>,
    /// Where output is kept: `json-file` or `local` (both mean brig's own), `none`
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// `max-size=BYTES`, `max-file=N`
    #[arg(long, value_name = "NAME=VALUE")]
    pub log_opt: Vec<String>,
    /// Write the container's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<String>,
    /// No progress of a pull
    #[arg(short, long)]
    pub quiet: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

/// Limits by cgroup, which `update` takes too.
#[derive(Debug, Default, Args)]
pub struct LimitFlags {
    /// Memory, such as `512m`
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Memory plus swap; -1 for no bound
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Memory that is kept when others need some
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<String>,
    /// The tendency to swap, 0 to 100
    #[arg(long, value_name = "N")]
    pub memory_swappiness: Option<u64>,
    /// CPUs, such as `1.5`
    #[arg(long, value_name = "N")]
    pub cpus: Option<String>,
    /// Relative weight, 1024 is usual
    #[arg(short, long, value_name = "N")]
    pub cpu_shares: Option<u64>,
    /// Period of the quota, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// Quota a period, in microseconds
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CPUs to run on, such as `0-2,4`
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to allocate from
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// The most processes and threads; -1 for no bound
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Weight of one device
    #[arg(long, value_name = "DEVICE:N")]
    pub blkio_weight_device: Vec<String>,
    /// Bytes read a second
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub device_read_bps: Vec<String>,
    /// Bytes written a second
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub device_write_bps: Vec<String>,
    /// Read operations a second
    #[arg(long, value_name = "DEVICE:N")]
    pub device_read_iops: Vec<String>,
    /// Write operations a second
    #[arg(long, value_name = "DEVICE:N")]
    pub device_write_iops: Vec<String>,
}

impl LimitFlags {
    /// Interprets the limits.
    pub fn resources(&self) -> Result<Resources> {
        let positive = |name: &str, text: &Option<String>| -> Result<Option<i64>> {
            text.as_deref().map(|t| signed_bytes(name, t)).transpose()
        };
        let all = |name: &str, list: &[String], sized: bool| -> Result<Vec<_>> {
            list.iter().map(|t| throttle(name, t, sized)).collect()
        };
        Ok(Resources {
            memory: positive("--memory", &self.memory)?,
            memory_reservation: positive("--memory-reservation", &self.memory_reservation)?,
            memory_swap: positive("--memory-swap", &self.memory_swap)?,
            memory_swappiness: self.memory_swappiness,
            oom_kill_disable: false,
            nano_cpus: self.cpus.as_deref().map(cpus).transpose()?,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids: self.pids_limit,
            blkio_weight: self.blkio_weight,
            blkio_weight_device: all("--blkio-weight-device", &self.blkio_weight_device, false)?,
            read_bps: all("--device-read-bps", &self.device_read_bps, true)?,
            write_bps: all("--device-write-bps", &self.device_write_bps, true)?,
            read_iops: all("--device-read-iops", &self.device_read_iops, false)?,
            write_iops: all("--device-write-iops", &self.device_write_iops, false)?,
        })
    }
}

impl ContainerFlags {
    /// Interprets everything.
    pub fn config(&self) -> Result<ContainerConfig> {
        let (image, command) =
            self.image_and_command.split_first().ok_or_else(|| Error::invalid("no image is named"))?;
        let host_image = image == "host:";
        let mut config = ContainerConfig {
            image: image.clone(),
            command: command.to_vec(),
            entrypoint: self.entrypoint.as_ref().map(|e| if e.is_empty() { Vec::new() } else { vec![e.clone()] }),
            env: self.environment()?,
            user: self.user.clone().unwrap_or_default(),
            groups: self.group_add.clone(),
            workdir: self.workdir.clone().unwrap_or_default(),
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            name: self.name.clone(),
            labels: labels(&self.label, &self.label_file)?,
            annotations: labels(&self.annotation, &[])?,
            mounts: mount::all(&self.volume, &self.mount, &self.tmpfs)?,
            read_only: self.read_only,
            resources: Resources { oom_kill_disable: self.oom_kill_disable, ..self.limits.resources()? },
            ulimits: self.ulimit.iter().map(|t| ulimit(t)).collect::<Result<_>>()?,
            shm_size: self.shm_size.as_deref().map(|t| bytes("--shm-size", t)).transpose()?,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            privileged: self.privileged,
            devices: self.device.iter().map(|t| device(t)).collect::<Result<_>>()?,
            device_cgroup_rules: self.device_cgroup_rule.clone(),
            sysctls: self.sysctl.iter().map(|t| sysctl(t)).collect::<Result<_>>()?,
            pid: pid(self.pid.as_deref())?,
            ipc: ipc(self.ipc.as_deref())?,
            uts: uts(self.uts.as_deref())?,
            network: network(self.network.as_deref(), host_image)?,
            cgroupns: cgroupns(self.cgroupns.as_deref())?,
            userns: userns(self.userns.as_deref())?,
            time_offsets: self.time.as_deref().map(time_offsets).transpose()?,
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            dns_options: self.dns_option.clone(),
            extra_hosts: self.add_host.iter().map(|t| extra_host(t)).collect::<Result<_>>()?,
            init: self.init,
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            publish_all: self.publish_all,
            exposed: self.expose.clone(),
            pull: pull(self.pull.as_deref())?,
            platform: self.platform.clone(),
            oom_score_adj: oom_score(self.oom_score_adj)?,
            restart: self.restart.as_deref().map_or(Ok(RestartPolicy::No), restart)?,
            log: log(self.log_driver.as_deref(), &self.log_opt)?,
            tty: self.tty,
            stdin: self.interactive,
            remove: self.rm,
            console_size: None,
            ports: Vec::new(),
            security: brig_engine::config::SecurityOptions::default(),
        };
        for text in &self.publish {
            config.ports.extend(port(text)?);
        }
        for option in &self.security_opt {
            security(option, &mut config)?;
        }
        Ok(config)
    }

    fn environment(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for file in &self.env_file {
            all.extend(env_file(file)?);
        }
        for text in &self.env {
            all.extend(environment(text)?);
        }
        Ok(all)
    }
}

fn container_of(flag: &str, mode: &str) -> Result<Option<String>> {
    match mode.strip_prefix("container:") {
        Some("") => Err(Error::invalid(format!("`{flag} container:` needs a container"))),
        other => Ok(other.map(str::to_owned)),
    }
}

fn bad_mode(flag: &str, mode: &str, known: &str) -> Error {
    Error::invalid(format!("`{mode}` is not a mode of `{flag}`")).hint(format!("known are {known}"))
}

fn pid(mode: Option<&str>) -> Result<PidMode> {
    let Some(mode) = mode.filter(|m| !m.is_empty()) else { return Ok(PidMode::Private) };
    if let Some(name) = container_of("--pid", mode)? {
        return Ok(PidMode::Container(name));
    }
    match mode {
        "private" => Ok(PidMode::Private),
        "host" => Ok(PidMode::Host),
        _ => Err(bad_mode("--pid", mode, "`host` and `container:NAME`")),
    }
}

fn ipc(mode: Option<&str>) -> Result<IpcMode> {
    let Some(mode) = mode.filter(|m| !m.is_empty()) else { return Ok(IpcMode::Private) };
    if let Some(name) = container_of("--ipc", mode)? {
        return Ok(IpcMode::Container(name));
    }
    match mode {
        "private" => Ok(IpcMode::Private),
        "shareable" => Ok(IpcMode::Shareable),
        "none" => Ok(IpcMode::None),
        "host" => Ok(IpcMode::Host),
        _ => Err(bad_mode("--ipc", mode, "`private`, `shareable`, `none`, `host` and `container:NAME`")),
    }
}

fn uts(mode: Option<&str>) -> Result<UtsMode> {
    match mode {
        None | Some("" | "private") => Ok(UtsMode::Private),
        Some("host") => Ok(UtsMode::Host),
        Some(other) => Err(bad_mode("--uts", other, "`host`")),
    }
}

fn network(mode: Option<&str>, host_image: bool) -> Result<NetworkMode> {
    let Some(mode) = mode.filter(|m| !m.is_empty()) else {
        // A throwaway copy of the machine is not confined for reading: it has no network unless asked.
        return Ok(if host_image { NetworkMode::None } else { NetworkMode::Bridge });
    };
    if let Some(name) = container_of("--network", mode)? {
        return Ok(NetworkMode::Container(name));
    }
    match mode {
        "bridge" | "default" => Ok(NetworkMode::Bridge),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => Err(Error::not_found(format!("no such network: {mode}"))
            .hint("known are `bridge`, `none`, `host` and `container:NAME`")),
    }
}

fn cgroupns(mode: Option<&str>) -> Result<CgroupMode> {
    match mode {
        None | Some("" | "private") => Ok(CgroupMode::Private),
        Some("host") => Ok(CgroupMode::Host),
        Some(other) => Err(bad_mode("--cgroupns", other, "`private` and `host`")),
    }
}

fn userns(mode: Option<&str>) -> Result<UserMode> {
    let Some(mode) = mode.filter(|m| !m.is_empty()) else { return Ok(UserMode::Host) };
    if let Some(name) = container_of("--userns", mode)? {
        return Ok(UserMode::Container(name));
    }
    match mode {
        "host" => Ok(UserMode::Host),
        "auto" => Ok(UserMode::Auto),
        _ => Err(bad_mode("--userns", mode, "`host`, `auto` and `container:NAME`")),
    }
}

fn pull(when: Option<&str>) -> Result<Pull> {
    match when {
        None | Some("missing") => Ok(Pull::Missing),
        Some("always") => Ok(Pull::Always),
        Some("never") => Ok(Pull::Never),
        Some(other) => Err(bad_mode("--pull", other, "`missing`, `always` and `never`")),
    }
}

fn oom_score(score: Option<i32>) -> Result<Option<i32>> {
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::invalid(format!("`--oom-score-adj {score}` is not between -1000 and 1000")))
        }
        score => Ok(score),
    }
}

fn time_offsets(text: &str) -> Result<(i64, i64)> {
    let bad = || Error::invalid(format!("`--time {text}` is not of the form `monotonic=SECONDS,boottime=SECONDS`"));
    let (mut monotonic, mut boottime) = (0, 0);
    for part in text.split(',') {
        let (clock, seconds) = part.split_once('=').ok_or_else(bad)?;
        let seconds = seconds.parse().map_err(|_| bad())?;
        match clock {
            "monotonic" => monotonic = seconds,
            "boottime" => boottime = seconds,
            _ => return Err(bad()),
        }
    }
    Ok((monotonic, boottime))
}

fn log(driver: Option<&str>, options: &[String]) -> Result<LogConfig> {
    let mut log = LogConfig::default();
    match driver {
        None | Some("json-file" | "local" | "k8s-file" | "brig") => {}
        Some("none") => log.none = true,
        Some(other) => return Err(bad_mode("--log-driver", other, "`local` and `none`")),
    }
    for option in options {
        match option.split_once('=') {
            Some(("max-size", "-1")) => log.max_size = Some(0),
            Some(("max-size", size)) => log.max_size = Some(bytes("--log-opt max-size", size)?),
            Some(("max-file", count)) => {
                let count = count.parse().ok().filter(|n| *n > 0);
                log.max_files =
                    Some(count.ok_or_else(|| Error::invalid("`--log-opt max-file` needs a number above 0"))?);
            }
            _ => return Err(bad_mode("--log-opt", option, "`max-size=BYTES` and `max-file=N`")),
        }
    }
    Ok(log)
}

/// Interprets one `--security-opt`; Docker's old form with a colon is accepted.
fn security(option: &str, config: &mut ContainerConfig) -> Result<()> {
    let security = &mut config.security;
    let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
    match (key, value) {
        ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
        ("no-new-privileges", "false") => security.no_new_privileges = false,
        ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => security.seccomp = Seccomp::Default,
        ("seccomp", path) if !path.is_empty() => {
            let text = values::read_text(path, "the seccomp profile")?;
            security.seccomp = Seccomp::Profile(text);
        }
        ("apparmor", profile) if !profile.is_empty() => security.apparmor = Some(profile.to_owned()),
        ("label", part) if !part.is_empty() => security.label.push(part.to_owned()),
        ("systempaths", "unconfined") => security.unmask_all = true,
        _ => {
            return Err(bad_mode(
                "--security-opt",
                option,
                "`seccomp=FILE`, `seccomp=unconfined`, `no-new-privileges`, `apparmor=PROFILE`, `label=...`, `systempaths=unconfined`",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        flags: ContainerFlags,
    }

    fn parse(line: &str) -> Result<ContainerConfig> {
        let words = std::iter::once("run").chain(line.split_ascii_whitespace());
        Line::try_parse_from(words).map_err(|error| Error::invalid(error.to_string()))?.flags.config()
    }

    #[test]
    fn everything_after_the_image_is_the_command() {
        let config = parse("--rm -it debian ls -l --rm -- x").unwrap();
        assert_eq!(config.image, "debian");
        assert_eq!(config.command, ["ls", "-l", "--rm", "--", "x"]);
        assert!(config.remove && config.tty && config.stdin);
    }

    #[test]
    fn flags_reach_their_fields() {
        type Check = fn(&ContainerConfig) -> bool;
        let cases: [(&str, Check); 36] = [
            ("-h web x", |c| c.hostname.as_deref() == Some("web")),
            ("-u 1:2 x", |c| c.user == "1:2"),
            ("-w /srv x", |c| c.workdir == "/srv"),
            ("-e A=1 -e B=2 x", |c| c.env == ["A=1", "B=2"]),
            ("-l a=b --label c x", |c| c.labels["a"] == "b" && c.labels["c"].is_empty()),
            ("--entrypoint sh x -c true", |c| c.entrypoint == Some(vec!["sh".into()])),
            ("--entrypoint= x ls", |c| c.entrypoint == Some(Vec::new())),
            ("-m 64m x", |c| c.resources.memory == Some(64 << 20)),
            ("-m 64m --memory-swap -1 x", |c| c.resources.memory_swap == Some(-1)),
            ("--cpus 1.5 x", |c| c.resources.nano_cpus == Some(1_500_000_000)),
            ("--pids-limit -1 x", |c| c.resources.pids == Some(-1)),
            ("--device-read-bps /dev/vda:1mb x", |c| c.resources.read_bps[0].rate == 1 << 20),
            ("--ulimit nofile=10:20 x", |c| (c.ulimits[0].soft, c.ulimits[0].hard) == (10, 20)),
            ("--shm-size 1g x", |c| c.shm_size == Some(1 << 30)),
            ("--cap-add net_admin --cap-drop ALL x", |c| c.cap_add == ["net_admin"] && c.cap_drop == ["ALL"]),
            ("--privileged x", |c| c.privileged),
            ("--security-opt no-new-privileges x", |c| c.security.no_new_privileges),
            ("--security-opt seccomp=unconfined x", |c| c.security.seccomp == Seccomp::Unconfined),
            ("--security-opt apparmor:unconfined x", |c| c.security.apparmor.as_deref() == Some("unconfined")),
            ("--device /dev/fuse x", |c| c.devices[0].access == "rwm"),
            ("--sysctl net.core.somaxconn=1 x", |c| c.sysctls["net.core.somaxconn"] == "1"),
            ("--pid host x", |c| c.pid == PidMode::Host),
            ("--ipc container:web x", |c| c.ipc == IpcMode::Container("web".into())),
            ("--uts host x", |c| c.uts == UtsMode::Host),
            ("--network none x", |c| c.network == NetworkMode::None),
            ("--net container:web x", |c| c.network == NetworkMode::Container("web".into())),
            ("--userns auto x", |c| c.userns == UserMode::Auto),
            ("--cgroupns host x", |c| c.cgroupns == CgroupMode::Host),
            ("--time boottime=3600,monotonic=-5 x", |c| c.time_offsets == Some((-5, 3600))),
            ("--dns 9.9.9.9 x", |c| c.dns.len() == 1),
            ("--add-host a:1.2.3.4 x", |c| c.extra_hosts == [("a".to_owned(), "1.2.3.4".to_owned())]),
            ("-p 8080:80 -p 53:53/udp x", |c| c.ports.len() == 2),
            ("--restart on-failure:3 x", |c| c.restart == RestartPolicy::OnFailure(3)),
            ("--log-opt max-size=1m --log-opt max-file=2 x", |c| {
                (c.log.max_size, c.log.max_files) == (Some(1 << 20), Some(2))
            }),
            ("--stop-timeout -1 --stop-signal INT x", |c| c.stop_timeout == Some(-1)),
            ("--oom-score-adj -500 x", |c| c.oom_score_adj == Some(-500)),
        ];
        for (line, check) in cases {
            let config = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(check(&config), "{line}: {config:?}");
        }
    }

    #[test]
    fn bad_values_are_refused_with_a_reason() {
        for line in [
            "",
            "--rm",
            "--nonsense x",
            "-m lots x",
            "-m -5 x",
            "--cpus x y",
            "--cpus 0.000000001x y",
            "--network moon x",
            "--pid moon x",
            "--ipc container: x",
            "--userns moon x",
            "--pull sometimes x",
            "--ulimit nofile x",
            "--ulimit fly=1 x",
            "--ulimit nofile=9:3 x",
            "-p 0x50 x",
            "-p 70000:80 x",
            "--restart maybe x",
            "--device-read-bps /dev/x y",
            "--sysctl a x",
            "--security-opt seccomp= x",
            "--security-opt seccomp=/no/such x",
            "--security-opt moon x",
            "--log-driver syslog x",
            "--log-opt max-file=0 x",
            "--time boottime x",
            "--oom-score-adj 2000 x",
            "--add-host a x",
            "--dns example x",
            "--env-file /no/such x",
            "--device /dev/x:/dev/y:q x",
            "-v /a:/b:moon x",
            "-v a/b:/c x",
            "--mount type=moon,dst=/a x",
            "--mount type=bind,dst=/a x",
            "--tmpfs relative x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_machines_own_image_has_no_network_unless_asked() {
        assert_eq!(parse("host: sh").unwrap().network, NetworkMode::None);
        assert_eq!(parse("--network bridge host: sh").unwrap().network, NetworkMode::Bridge);
        assert_eq!(parse("debian sh").unwrap().network, NetworkMode::Bridge);
    }
}
