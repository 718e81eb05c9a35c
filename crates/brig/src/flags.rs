//! What `run` and `create` take, and the only place where it is interpreted: flags become one `ContainerConfig`.

pub mod limits;
pub mod modes;
pub mod mount;
#[cfg(test)]
mod tests;
pub mod values;

pub use limits::LimitFlags;

use brig_engine::config::{ContainerConfig, Resources, RestartPolicy};
use brig_engine::{Error, Result};
use clap::Args;
use std::net::IpAddr;
use values::{
    bytes, device, env_file, environment, extra_host, labels, oom_score, port, restart, sysctl, time_offsets, ulimit,
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
    /// Mount the volumes and directories that another container has
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub volumes_from: Vec<String>,
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
            volumes_from: self.volumes_from.iter().map(|t| mount::volumes_from(t)).collect::<Result<_>>()?,
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
            pid: modes::pid(self.pid.as_deref())?,
            ipc: modes::ipc(self.ipc.as_deref())?,
            uts: modes::uts(self.uts.as_deref())?,
            network: modes::network(self.network.as_deref(), host_image)?,
            cgroupns: modes::cgroupns(self.cgroupns.as_deref())?,
            userns: modes::userns(self.userns.as_deref())?,
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
            pull: modes::pull(self.pull.as_deref())?,
            platform: modes::platform(self.platform.as_deref())?.map(|platform| platform.to_string()),
            oom_score_adj: oom_score(self.oom_score_adj)?,
            restart: self.restart.as_deref().map_or(Ok(RestartPolicy::No), restart)?,
            log: modes::log(self.log_driver.as_deref(), &self.log_opt)?,
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
            modes::security(option, &mut config)?;
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
