//! What is typed reaches its field, and what makes no sense is refused.

use super::ContainerFlags;
use brig_engine::config::{
    CgroupMode, ContainerConfig, IpcMode, NetworkMode, PidMode, RestartPolicy, Seccomp, UserMode, UtsMode,
};
use brig_engine::{Error, Result};
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
    let cases: [(&str, Check); 38] = [
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
        ("--volumes-from a --volumes-from b:ro x", |c| {
            c.volumes_from[0].read_only.is_none() && c.volumes_from[1].read_only == Some(true)
        }),
        ("--platform linux/aarch64 x", |c| c.platform.as_deref() == Some("linux/arm64")),
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
        "--volumes-from a:moon x",
        "--volumes-from :ro x",
        "--platform moon x",
        "--platform moon host:",
        "--platform windows/amd64 x",
        "--platform linux/amd64/v1/x x",
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
