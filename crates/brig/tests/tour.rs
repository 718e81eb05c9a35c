//! The tour of the README, line by line, as a new user types it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::process::Command;

#[test]
fn every_line_of_the_readme_works() {
    // A network of its own: the tour publishes a port.
    brig_sys::clone::unshare(brig_sys::clone::flags::NEWNET).unwrap();
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let tour = readme.split("<!-- tour -->").nth(1).expect("the README has a tour").split("\n## ").next().unwrap();
    let lines: Vec<&str> =
        tour.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.is_empty()).collect();
    assert!(lines.len() > 20, "the tour has lost its lines");

    let directory = tempfile::Builder::new().prefix("brig-tour-").tempdir().unwrap();
    let brig = Path::new(env!("CARGO_BIN_EXE_brig"));
    let search = format!("{}:{}", brig.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let shell = |line: &str| {
        Command::new("bash")
            .args(["-c", line])
            .current_dir(directory.path())
            .env("PATH", &search)
            .env("BRIG_ROOT", directory.path().join("root"))
            .env("BRIG_RUN", directory.path().join("run"))
            .output()
            .unwrap()
    };
    assert!(shell("ip link set lo up").status.success());
    let expected = [
        ("echo hello", "hello from a container\n"),
        ("brig logs", "started\n"),
        ("exec study ps", "sleep 1000"),
        ("brig diff", "A /srv/made-inside"),
        ("notes:ro", "kept\n"),
        ("CapEff", "0000000000000000"),
        ("uid_map", "65536"),
        ("-u nobody", "nobody\n/tmp\nhello\n"),
        ("brig port", "80/tcp -> "),
        ("brig exec study cat /proc/net/dev", "eth0:"),
    ];
    for line in &lines {
        let wanted = expected.iter().find(|(part, _)| line.contains(part)).map_or("", |(_, wanted)| wanted);
        let mut output = shell(line);
        // What only looks may look again: the container's shell needs a moment to get that far.
        let looks = ["brig logs", "brig exec", "brig diff"].iter().any(|verb| line.starts_with(verb));
        for _ in 0..200 {
            if !looks || String::from_utf8_lossy(&output.stdout).contains(wanted) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            output = shell(line);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{line}\n{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(wanted), "{line}: `{wanted}` is not in\n{text}");
    }
    assert!(std::fs::read_to_string(directory.path().join("hosts-of-study")).unwrap().contains("localhost"));
    let left = shell("brig ps -aq");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    assert!(shell("brig image unmount --all").status.success());
}
