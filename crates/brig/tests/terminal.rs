//! Sessions on a real terminal: keys, sizes, leaving and coming back, and how the terminal is left.
//!
//! Place: the machine itself, as root.

#![allow(clippy::unwrap_used)]

mod support;

use support::pty::Terminal;
use support::{Engine, patiently};

/// What of a terminal's settings a person would notice.
fn settings(terminal: &Terminal) -> String {
    let all = terminal.settings();
    format!("{:?} {:?} {:?} {:?}", all.input_modes, all.output_modes, all.control_modes, all.local_modes)
}

#[test]
fn a_shell_has_the_terminal_and_gives_it_back() {
    let engine = Engine::new();
    let mut terminal = Terminal::run(&engine, &["run", "-it", "--name", "study", "--hostname", "study", "busybox"]);
    let before = settings(&Terminal::run(&engine, &["version"]));
    terminal.expect("# ");
    assert_ne!(settings(&terminal), before, "raw while the container has it");
    terminal.press("tty; echo pid $$; hostname\r");
    terminal.expect("/dev/pts/0");
    terminal.expect("pid 1\r\n");
    terminal.expect("study\r\n");
    terminal.expect("# ");
    terminal.press("ps -o pid,comm > /seen; wc -l < /seen\r");
    terminal.expect("3\r\n"); // the heading, the shell and ps
    terminal.press("exit 5\r");
    assert_eq!(terminal.end(), 5);
    assert_eq!(settings(&terminal), before);
}

#[test]
fn the_size_follows_the_window() {
    let engine = Engine::new();
    let mut terminal = Terminal::run(&engine, &["run", "-it", "--rm", "busybox"]);
    terminal.expect("# ");
    terminal.press("stty size\r");
    terminal.expect("24 80\r\n");
    terminal.resize(50, 132);
    patiently(|| {
        terminal.press("echo [$(stty size)]\r");
        terminal.expect("\r\n[");
        terminal.expect("]").starts_with("50 132")
    });
    terminal.press("exit\r");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn ctrl_c_interrupts_what_runs_inside() {
    let engine = Engine::new();
    let mut terminal = Terminal::run(&engine, &["run", "-it", "--rm", "busybox"]);
    terminal.expect("# ");
    terminal.press("sleep 1000\r");
    terminal.expect("sleep 1000\r\n");
    std::thread::sleep(std::time::Duration::from_millis(500));
    terminal.press("\x03");
    terminal.expect("# ");
    terminal.press("echo $?; exit 3\r");
    terminal.expect("130\r\n");
    assert_eq!(terminal.end(), 3);
}

#[test]
fn the_user_leaves_and_comes_back() {
    let engine = Engine::new();
    let mut terminal = Terminal::run(&engine, &["run", "-it", "--name", "study", "busybox"]);
    terminal.expect("# ");
    terminal.press("A=kept\r");
    terminal.expect("# ");
    let raw = settings(&terminal);
    terminal.press("\x10\x11");
    assert_eq!(terminal.end(), 0);
    assert_ne!(settings(&terminal), raw);
    assert_eq!(engine.inspect("study", "{{.State.Status}}"), "running");
    let mut again = Terminal::run(&engine, &["attach", "study"]);
    // A new session may begin in the middle of a line: ask for a prompt.
    std::thread::sleep(std::time::Duration::from_millis(300));
    again.press("\r");
    again.expect("# ");
    again.press("echo $A\r");
    again.expect("kept\r\n");
    again.press("exit 4\r");
    assert_eq!(again.end(), 4);
    assert_eq!(engine.inspect("study", "{{.State.ExitCode}}"), "4");
    // Other keys, if one likes.
    let mut other = Terminal::run(&engine, &["run", "-it", "--detach-keys", "ctrl-x,x", "--name", "two", "busybox"]);
    other.expect("# ");
    other.press("\x18x");
    assert_eq!(other.end(), 0);
    assert_eq!(engine.inspect("two", "{{.State.Status}}"), "running");
}

#[test]
fn exec_on_a_terminal() {
    let engine = Engine::new();
    engine.idle("web", &[]);
    let mut terminal = Terminal::run(&engine, &["exec", "-it", "web", "sh"]);
    terminal.expect("# ");
    terminal.press("stty size; exit 7\r");
    terminal.expect("24 80\r\n");
    assert_eq!(terminal.end(), 7);
}

#[test]
fn without_a_terminal_it_is_refused_with_a_hint() {
    let engine = Engine::bare();
    engine
        .brig(&["run", "-it", "busybox"])
        .fails(125, "error: standard input is not a terminal\nhint: leave `-t` away, or use it without `-i`\n");
}

#[test]
fn a_killed_session_leaves_the_container_running() {
    let engine = Engine::new();
    let mut terminal = Terminal::run(&engine, &["run", "-it", "--name", "study", "busybox"]);
    terminal.expect("# ");
    terminal.kill();
    assert_eq!(terminal.end(), 137);
    // A killed program cannot restore its terminal (`stty sane` does); the container does not notice.
    assert_eq!(engine.inspect("study", "{{.State.Status}}"), "running");
    let mut again = Terminal::run(&engine, &["attach", "study"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    again.press("exit 6\r");
    assert_eq!(again.end(), 6);
}

#[test]
fn the_progress_of_a_pull_is_drawn_on_a_terminal() {
    let engine = Engine::bare();
    let registry = testkit::registry::Registry::start();
    let layer = testkit::image::busybox_layer(&["sh"]);
    let image = testkit::image::Image::new(&[layer], testkit::image::Compression::Gzip, "{}");
    registry.push(&image, "bb", "1");
    let mut terminal = Terminal::run(&engine, &["pull", &format!("{}/bb:1", registry.host())]);
    assert_eq!(terminal.end(), 0, "{}", terminal.all());
    assert!(patiently(|| terminal.all().contains('\x1b')), "{}", terminal.all());
}
