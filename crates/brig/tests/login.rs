//! `brig login`, `logout` and what they are for, against a real registry with a user; and helper programs.
//!
//! Place: the machine itself, as root, with Debian's docker-registry.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use support::pty::Terminal;
use support::{Engine, Output, collect};
use testkit::registry::{Answer, Liar, Registry};

const PASSWORD: &[u8] = b"s3cret\n";

fn login(engine: &Engine, host: &str, input: &[u8]) -> Output {
    engine.brig_with(&["login", "-u", "brig", "--password-stdin", host], input)
}

fn config(engine: &Engine) -> String {
    std::fs::read_to_string(engine.path("home/.docker/config.json")).unwrap_or_default()
}

#[test]
fn who_is_logged_in_may_push_and_pull() {
    let engine = Engine::new();
    let registry = Registry::start_with_user();
    let host = registry.host();
    let name = format!("{host}/app:1");
    let denied = engine.brig(&["push", "busybox", &name]);
    assert!(
        denied.status == 1 && denied.stderr.contains("denies access") && denied.stderr.contains("log in"),
        "{denied:?}"
    );
    let wrong = login(&engine, &host, b"wrong\n");
    wrong.fails(
        1,
        &format!(
            "error: cannot log in to registry `{host}`\n  because: it refuses this user name and password\nhint: check both; \
             some registries want a token in the password's place\n"
        ),
    );
    assert_eq!(config(&engine), "", "what is wrong is not kept");
    let good = login(&engine, &host, PASSWORD);
    assert_eq!((good.status, good.stdout.as_str()), (0, "Login Succeeded\n"), "{good:?}");
    assert!(good.stderr.contains("in the clear") && !good.stderr.contains("s3cret"), "{good:?}");
    let path = engine.path("home/.docker/config.json");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(engine.brig(&["push", "busybox", &name]).status, 0);
    let other = Engine::beside();
    assert_eq!(other.brig(&["pull", &name]).status, 1);
    let mut pull = other.command(&["pull", "-q", &name]);
    pull.env("DOCKER_CONFIG", engine.path("home/.docker"));
    pull.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    assert_eq!(collect(pull.spawn().unwrap(), &["pull"]).status, 0);
    // podman's file is read too.
    let third = Engine::beside();
    std::fs::create_dir_all(third.path("xdg/containers")).unwrap();
    std::fs::copy(&path, third.path("xdg/containers/auth.json")).unwrap();
    let mut pull = third.command(&["pull", "-q", &name]);
    pull.env("XDG_RUNTIME_DIR", third.path("xdg"));
    pull.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    assert_eq!(collect(pull.spawn().unwrap(), &["pull"]).status, 0);

    assert_eq!(engine.brig(&["logout", &host]).ok(), format!("Removing login credentials for {host}"));
    assert_eq!(engine.brig(&["logout", &host]).ok(), format!("Not logged in to {host}"));
    assert!(!config(&engine).contains(&host));
    assert_eq!(engine.brig(&["push", "busybox", &name]).status, 1);
}

#[test]
fn a_login_says_what_is_wrong_with_it() {
    let engine = Engine::bare();
    let no_terminal = engine.brig(&["login", "x.example"]);
    assert!(no_terminal.status == 1 && no_terminal.stderr.contains("there is no terminal"), "{no_terminal:?}");
    assert!(engine.brig_with(&["login", "-u", "x", "--password-stdin", "h"], b"\n").stderr.contains("no password"));
    let odd = engine.brig_with(&["login", "-u", "x", "--password-stdin", "not a host"], b"p");
    assert!(odd.stderr.contains("is not a registry"), "{odd:?}");
    let dead = engine.brig_with(&["login", "-u", "x", "--password-stdin", "127.0.0.1:1"], b"p");
    assert!(dead.stderr.contains("cannot reach registry `127.0.0.1:1`"), "{dead:?}");
    let liar = Liar::start();
    let none = engine.brig_with(&["login", "-u", "x", "--password-stdin", &liar.host()], b"p");
    assert!(none.status == 1, "it is no registry: {none:?}");
    let typed = engine.brig(&["login", "-u", "x", "-p", "visible", "127.0.0.1:1"]);
    assert!(typed.stderr.contains("seen by others") && !typed.stderr.contains("visible"), "{typed:?}");
}

#[test]
fn a_token_server_gives_an_identity_that_is_kept_in_the_passwords_place() {
    let engine = Engine::new();
    let liar = Liar::start();
    let host = liar.host();
    let challenge = format!(r#"Bearer realm="http://{host}/token",service="reg""#);
    let guarded = Answer { authorization: Some("Bearer t1".into()), challenge, ..Answer::default() };
    liar.answer("/v2/", guarded.clone());
    liar.answer("/v2/app/manifests/1", Answer { status: 404, ..guarded });
    liar.answer("/token", Answer::body(r#"{"token":"t1","refresh_token":"ident1ty"}"#));
    let done = login(&engine, &host, PASSWORD);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(config(&engine).contains("\"identitytoken\": \"ident1ty\"") && !config(&engine).contains("czNjcmV0"));
    let asked = liar.seen().into_iter().find(|seen| seen.path.starts_with("/token")).unwrap();
    assert!(asked.path.contains("offline_token=true") && asked.path.contains("account=brig"), "{asked:?}");
    // What is kept is exchanged by POST.
    let missing = engine.brig(&["pull", &format!("{host}/app:1")]);
    assert!(missing.stderr.contains("has no image"), "{missing:?}");
    let last = liar.seen().into_iter().rfind(|seen| seen.path.starts_with("/token")).unwrap();
    assert_eq!((last.path.as_str(), last.headers.get("authorization")), ("/token", None));
    assert_eq!(last.headers["content-type"], "application/x-www-form-urlencoded");
}

/// Writes a helper program that keeps everything in one file beside it; a second line of it is run before.
fn helper(engine: &Engine, name: &str, before: &str) -> String {
    let directory = engine.path("bin");
    std::fs::create_dir_all(&directory).unwrap();
    let kept = directory.join("kept").display().to_string();
    let script = format!(
        "#!/bin/sh\n{before}\necho \"$1\" >> {kept}.log\ncase $1 in\n\
         store) cat > {kept} ;;\n\
         get) cat > /dev/null; if [ -s {kept} ]; then cat {kept}; else echo 'credentials not found in native keychain'; exit 1; fi ;;\n\
         erase) cat > /dev/null; rm -f {kept} ;;\nesac\n"
    );
    let path = directory.join(format!("docker-credential-{name}"));
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", directory.display())
}

#[test]
fn helper_programs_keep_what_is_secret() {
    let engine = Engine::new();
    let registry = Registry::start_with_user();
    let host = registry.host();
    let path = helper(&engine, "box", "");
    std::fs::create_dir_all(engine.path("home/.docker")).unwrap();
    let own = r#"{"credsStore":"box","psFormat":"table"}"#;
    std::fs::write(engine.path("home/.docker/config.json"), own).unwrap();
    let run = |arguments: &[&str], input: &[u8]| {
        use std::io::Write;
        let mut command = engine.command(arguments);
        command.env("PATH", &path).stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input);
        collect(child, arguments)
    };
    let name = format!("{host}/app:1");
    assert_eq!(run(&["push", "busybox", &name], b"").status, 1);
    run(&["login", "-u", "brig", "--password-stdin", &host], PASSWORD).ok();
    assert!(config(&engine).contains(&host) && config(&engine).contains("psFormat"), "{}", config(&engine));
    assert!(!config(&engine).contains("YnJpZzpzM2NyZXQ"), "the password is not in the file");
    assert!(std::fs::read_to_string(engine.path("bin/kept")).unwrap().contains("s3cret"));
    let pushed = run(&["push", "-q", "busybox", &name], b"");
    assert_eq!(pushed.status, 0, "{pushed:?}");
    let asked = std::fs::read_to_string(engine.path("bin/kept.log")).unwrap();
    assert_eq!(asked.lines().filter(|line| *line == "get").count(), 2, "once a command: {asked}");
    run(&["logout", &host], b"").ok();
    assert!(!engine.path("bin/kept").exists());
    // A helper that fails is an error that names it; so is one that says too much.
    for (before, said) in [
        ("echo 'the safe is locked'; exit 2", "`docker-credential-box get` failed: the safe is locked"),
        (r#"echo '{"Secret":"s3cret"}'; exit 1"#, "`docker-credential-box get` failed: it failed after its answer"),
        ("echo oops >&2; exit 2", "`docker-credential-box get` failed: oops"),
        ("head -c 3000000 /dev/zero", "it says too much"),
        ("cat > /dev/null; echo '{'; exit 0", "its answer is not JSON"),
    ] {
        helper(&engine, "box", before);
        let failed = run(&["pull", &name], b"");
        assert!(failed.status == 1 && failed.stderr.contains(said), "{failed:?}");
    }
    std::fs::remove_file(engine.path("bin/docker-credential-box")).unwrap();
    assert!(run(&["pull", &name], b"").stderr.contains("`docker-credential-box get` failed"));
}

#[test]
fn a_password_is_typed_unseen() {
    let engine = Engine::bare();
    let registry = Registry::start_with_user();
    let mut terminal = Terminal::run(&engine, &["login", &registry.host()]);
    terminal.expect("Username: ");
    terminal.press("brig\r");
    terminal.expect("Password: ");
    terminal.press("s3crexy\x7f\x7ft\r");
    terminal.expect("Login Succeeded");
    assert_eq!(terminal.end(), 0);
    assert!(!terminal.all().contains("s3cre"), "{:?}", terminal.all());
    // A key that ends it leaves the terminal as it was.
    let mut terminal = Terminal::run(&engine, &["login", "-u", "brig", &registry.host()]);
    terminal.expect("Password: ");
    terminal.press("x\x03");
    terminal.expect("nobody was logged in");
    assert_eq!(terminal.end(), 130);
    assert!(terminal.settings().local_modes.contains(rustix::termios::LocalModes::ECHO));
}
