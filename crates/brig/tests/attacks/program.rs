//! What runs of brig beside a container: its program, its descriptors, and the processes that enter. Classes 1, 2 and 15.

use crate::support::{Engine, collect, patiently};
use crate::{image, outside, piped, rounds, untouched};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use testkit::image::Layer;

#[test]
fn the_program_cannot_be_written_through_a_process_that_runs_it() {
    let engine = Engine::new();
    let program = Path::new(env!("CARGO_BIN_EXE_brig"));
    let before = (std::fs::metadata(program).unwrap().mode(), std::fs::metadata(program).unwrap().mtime());
    let script = "exec 3</proc/1/exe; echo x > /proc/1/exe; echo x >> /proc/self/fd/3; chmod 4777 /proc/1/exe; \
                  chmod 4777 /proc/self/fd/3; head -c 4 /proc/1/exe";
    // The image names /proc/self/exe as its command: that is brig, as the container's first process.
    let flags =
        ["run", "--rm", "--network", "none", "busybox", "/proc/self/exe", "init-reaper", "--", "sh", "-c", script];
    let output = engine.brig(&flags);
    assert!(output.stdout.ends_with("ELF"), "the attack reads the program, and so has found it: {output:?}");
    let refused = ["Read-only file system", "Text file busy"].map(|why| output.stderr.matches(why).count());
    assert_eq!(refused.iter().sum::<usize>(), 4, "{output:?}");
    let after = std::fs::metadata(program).unwrap();
    assert_eq!((after.mode(), after.mtime()), before);
}

#[test]
fn a_hundred_execs_at_once_cost_little_memory() {
    let engine = Engine::new();
    engine.idle("web", &["--network", "none"]);
    let execs: Vec<_> = (0..100).map(|_| engine.spawn(&["exec", "web", "sleep", "1000"])).collect();
    let monitors = || -> Vec<u64> {
        let own = engine.text("run");
        let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().into_string().ok());
        let is_exec = |pid: &String| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("brig-monitor\0exec") && line.contains(&own)
        };
        let private = |pid: String| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let sum =
                |key| text.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok());
            sum("Private_Dirty:")
        };
        pids.filter(is_exec).filter_map(private).collect()
    };
    assert!(patiently(|| engine.brig(&["top", "web"]).stdout.matches("sleep 1000").count() == 101));
    let mut all = Vec::new();
    let small = patiently(|| {
        all = monitors();
        all.len() == 100 && all.iter().sum::<u64>() < 100 * 512
    });
    assert!(small, "{} monitors, KiB: {all:?}", all.len());
    engine.brig(&["rm", "-f", "web"]).ok();
    for exec in execs {
        assert_eq!(collect(exec, &["exec"]).status, 137);
    }
}

#[test]
fn descriptors_of_the_caller_do_not_reach_inside() {
    let engine = Engine::new();
    engine.idle("web", &["--network", "none"]);
    let brig = env!("CARGO_BIN_EXE_brig");
    let script = |line: &str| format!("for n in $(seq 3 52); do eval \"exec $n</\"; done; {brig} {line}");
    let bash = |line: &str| collect(piped(engine.prepare(Path::new("bash"), &["-c", &script(line)])), &[line]);
    for start in ["run --rm --network none", "exec"] {
        let name = if start == "exec" { "web" } else { "busybox" };
        assert_eq!(bash(&format!("{start} {name} ls /proc/self/fd")).ok(), "0\n1\n2\n3", "3 is the listing's own");
        for number in 3..60 {
            let output = bash(&format!("{start} -w /proc/self/fd/{number} {name} ls"));
            assert_ne!(output.status, 0, "{number}: {output:?}");
            assert_eq!(output.stdout, "");
        }
    }
    let layer = Layer::new().symlink("w", "/proc/self/fd/8").symlink("v", "/proc/self/cwd/../../..");
    image(&engine, "links", layer, r#"{"WorkingDir": "/w"}"#);
    assert_ne!(bash("run --rm --network none links ls").status, 0);
    let inside = bash("run --rm --network none -w /v links ls");
    assert!(inside.status != 0 || inside.stdout.contains("bin"), "{inside:?}");
}

/// Looks at every process that appears beside it, for as long as it is there, and tells when it sees something that is not of
/// its own container.
const SPY: &str = r#"$| = 1; my @own = stat "/"; my $last = $$; my $seen = 0;
    print "ready\n";
    while (1) { for my $p ($last + 1 .. $last + 40) {
        next unless -e "/proc/$p";
        print "seen\n" unless $seen++;
        for (1 .. 400) {
            last unless -e "/proc/$p";
            my @root = stat "/proc/$p/root/.";
            my @cwd = stat "/proc/$p/cwd/.";
            print "root of the machine\n" if @root && -e "/proc/$p/root/proc/1/comm" && ($root[0] != $own[0] && -e "/proc/$p/root$ARGV[0]");
            print "directory of the machine\n" if @cwd && -e "/proc/$p/cwd$ARGV[0]";
            opendir my $fds, "/proc/$p/fd" or next;
            for my $n (readdir $fds) {
                next if $n eq "." || $n eq "..";
                print "descriptor of the machine: " . readlink("/proc/$p/fd/$n") . "\n" if -e "/proc/$p/fd/$n/../../../../../..$ARGV[0]";
            }
        }
        $last = $p; last;
    } }"#;

#[test]
fn who_looks_at_a_process_that_enters_its_pid_namespace_sees_nothing_of_the_machine() {
    let engine = Engine::new();
    // The engine's own directories are empty in a container of the machine's files: this path is outside alone.
    std::fs::write(engine.path("run/mark"), "").unwrap();
    let mark = engine.text("run/mark");
    let exec = ["exec", "spy", "true"];
    let join = ["run", "--rm", "--network", "none", "--pid", "container:spy", "busybox", "true"];
    for (flags, victim) in [(&["--cap-add", "SYS_PTRACE"][..], &exec[..]), (&[], &exec), (&[], &join)] {
        let run = ["run", "-d", "--name", "spy", "--network", "none"];
        engine.brig(&[&run, flags, &["host:", "perl", "-e", SPY, "--", &mark]].concat()).ok();
        assert!(patiently(|| engine.brig(&["logs", "spy"]).stdout.contains("ready")));
        rounds(|_| drop(engine.brig(victim).ok()));
        assert_eq!(engine.brig(&["logs", "spy"]).ok(), "ready\nseen", "{flags:?} {victim:?}");
        engine.brig(&["rm", "-f", "spy"]).ok();
    }
}

#[test]
fn an_exec_trusts_neither_the_root_nor_the_proc_that_a_container_made() {
    let engine = Engine::new();
    let outside = outside(&engine);
    let script = "mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/thread-self/attr && echo fake > /proc/self/attr/exec && \
                  mkdir /tmp/new && mount -t tmpfs none /dev && ln -s /tmp /dev/pts && cd /tmp/new && sleep 1000";
    let flags =
        ["run", "-d", "--name", "odd", "--network", "none", "--cap-add", "SYS_ADMIN", "busybox", "sh", "-c", script];
    engine.brig(&flags).ok();
    assert!(
        patiently(|| engine.brig(&["exec", "odd", "sh", "-c", "test -d /tmp/new && test -L /dev/pts"]).status == 0)
    );
    assert_eq!(engine.brig(&["exec", "odd", "cat", "/proc/self/attr/exec"]).ok(), "fake");
    let output = engine.brig(&["exec", "-t", "odd", "tty"]);
    assert!(output.stderr.contains("/dev/pts"), "a terminal is not taken from a directory: {output:?}");
    untouched(&outside);
}
