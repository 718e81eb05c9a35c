//! What the policy file and the environment say about registries, as the command line obeys it.
//!
//! Place: the machine itself, as root, with Debian's docker-registry.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Stdio;
use std::time::Duration;
use support::{Engine, Output, collect};
use testkit::image::{Compression, Image, Layer, digest};
use testkit::registry::{Liar, Registry};
use testkit::relay::{Own, Relay};

fn image(text: &str) -> Image {
    let noise = |seed: u32| -> Vec<u8> {
        (0..100_000_u32).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    };
    let layers: Vec<Vec<u8>> =
        (0..5).map(|n| Layer::new().file(&format!("f{n}"), noise(n)).file("text", text).finish()).collect();
    Image::new(&layers, Compression::Gzip, r#"{"Cmd":["cat","/text"]}"#)
}

/// Runs brig with more in its environment.
fn run(engine: &Engine, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = engine.command(arguments);
    command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    collect(command.spawn().unwrap(), arguments)
}

fn policy(engine: &Engine, text: &str) -> String {
    let path = engine.text("registries.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn short_names_mirrors_and_blocks() {
    let engine = Engine::bare();
    let registry = Registry::start();
    let made = image("mine");
    registry.push(&made, "base/tool", "latest");
    registry.push(&made, "library/debian", "12");
    let host = registry.host();
    let text = format!(
        "default = \"{host}/base\"\n[aliases]\nshort = \"{host}/base/tool\"\n\
         [registry.\"docker.io\"]\nmirrors = [\"127.0.0.1:1\", \"{host}\"]\nfallback = false\n\
         [registry.\"evil.example\"]\nblocked = true\n"
    );
    let path = policy(&engine, &text);
    let environment = [("BRIG_REGISTRIES", path.as_str())];
    for name in ["tool", "short"] {
        assert_eq!(run(&engine, &["pull", "-q", name], &environment).ok(), made.id());
    }
    let full = format!("{host}/base/tool:latest");
    assert_eq!(engine.brig(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok(), full);
    // What is here is found by what it stands for.
    let push = run(&engine, &["push", "-q", "short", "copy:1"], &environment);
    assert_eq!((push.stdout.trim(), push.status), (digest(&made.manifest).as_str(), 0), "{push:?}");
    assert_eq!(registry.get("/v2/base/copy/manifests/1").0, 200);
    let mirrored = run(&engine, &["pull", "-q", "docker.io/debian:12"], &environment);
    assert_eq!((mirrored.status, mirrored.stdout.trim()), (0, made.id().as_str()), "{mirrored:?}");
    assert!(
        mirrored.stderr.contains("warning: mirror `127.0.0.1:1` does not help: cannot reach registry"),
        "{mirrored:?}"
    );
    let blocked = run(&engine, &["pull", "evil.example/x"], &environment);
    blocked.fails(
        1,
        "error: cannot pull image `evil.example/x:latest`\n  because: registry `evil.example` is blocked by the policy file\n",
    );
    let path = policy(&engine, "conections = 1");
    let misspelt = run(&engine, &["pull", "tool"], &[("BRIG_REGISTRIES", &path)]);
    assert_eq!(run(&engine, &["tag", &full, "local:1"], &[("BRIG_REGISTRIES", &path)]).ok(), "");
    let started = run(&engine, &["run", "--rm", "--network", "none", "local:1"], &[("BRIG_REGISTRIES", &path)]);
    assert!(started.stderr.contains("cat"), "what is here is used, though there is no such program in it: {started:?}");
    assert!(misspelt.status == 1 && misspelt.stderr.contains("line 1: unknown field `conections`"), "{misspelt:?}");
}

#[test]
fn connections_are_bounded_and_two_pulls_do_the_work_once() {
    let engine = Engine::bare();
    let registry = Registry::start();
    let made = image("once");
    registry.push(&made, "app", "v1");
    let relay = Relay::before(&registry.host());
    relay.pace(64 << 10, Duration::from_millis(20));
    let name = format!("{}/app:v1", relay.host());
    let path = policy(&engine, &format!("[registry.\"{}\"]\nconnections = 1\n", relay.host()));
    let pulls: Vec<_> = (0..2)
        .map(|_| {
            let mut command = engine.command(&["pull", "-q", &name]);
            command.env("BRIG_REGISTRIES", &path).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for pull in pulls {
        assert_eq!(collect(pull, &["pull"]).ok(), made.id());
    }
    let asked = relay.asked();
    for layer in &made.layers {
        let digest = digest(layer);
        let count = asked.iter().filter(|asked| asked.path.ends_with(&digest)).count();
        assert_eq!(count, 1, "{digest} was fetched {count} times");
    }
    // One at a time for each of the two, and the second one has only documents to fetch.
    assert!(relay.most_blobs() <= 2, "{}", relay.most_blobs());
    // The same bound is one for pushes.
    for (bound, most) in [("1", 1..=1), ("3", 2..=3)] {
        let target = Registry::start();
        let relay = Relay::before(&target.host());
        relay.pace(64 << 10, Duration::from_millis(20));
        let path = policy(&engine, &format!("connections = {bound}\n"));
        let push = ["push", "-q", &name, &format!("{}/app:v1", relay.host())];
        assert_eq!(run(&engine, &push, &[("BRIG_REGISTRIES", &path)]).ok(), digest(&made.manifest));
        assert!(most.contains(&relay.most_blobs()), "{bound}: {}", relay.most_blobs());
    }
    let other = Engine::beside();
    let relay = Relay::before(&registry.host());
    relay.pace(64 << 10, Duration::from_millis(20));
    other.brig(&["pull", "-q", &format!("{}/app:v1", relay.host())]).ok();
    assert!(relay.most_blobs() > 1, "several at once by default");
}

#[test]
fn proxies_of_the_environment_are_used() {
    let engine = Engine::bare();
    let registry = Registry::start();
    let made = image("proxied");
    registry.push(&made, "app", "v1");
    let proxy = Relay::before(&registry.host());
    let url = format!("http://{}", proxy.host());
    let name = "registry.test/app:v1";
    for (variable, value) in [("HTTP_PROXY", url.as_str()), ("http_proxy", &url)] {
        let pulled = run(&engine, &["pull", "-q", "--insecure", "registry.test", name], &[(variable, value)]);
        assert_eq!(pulled.ok(), made.id());
        engine.brig(&["rmi", "-f", name]).ok();
        assert!(proxy.asked().iter().all(|asked| asked.path.starts_with("http://registry.test/v2/app/")));
    }
    let environment = [("HTTP_PROXY", url.as_str()), ("NO_PROXY", ".test"), ("REQUEST_METHOD", "")];
    let direct = run(&engine, &["pull", "-q", "--insecure", "registry.test", name], &environment);
    assert!(direct.status == 1 && proxy.asked().is_empty(), "{direct:?}");
    let cgi = [("HTTP_PROXY", url.as_str()), ("REQUEST_METHOD", "GET")];
    assert_eq!(run(&engine, &["pull", "-q", "--insecure", "registry.test", name], &cgi).status, 1);
    assert!(proxy.asked().is_empty(), "in a CGI program that variable comes from the client");
}

#[test]
fn a_registry_of_ones_own_authority_is_pushed_to_and_pulled_from() {
    let engine = Engine::new();
    let (registry, authority, certificate, key) = Registry::start_mutual_tls();
    let host = registry.host().replace("127.0.0.1", "localhost");
    let name = format!("{host}/app:1");
    let refused = engine.brig(&["push", "busybox", &name]);
    assert!(refused.status == 1 && refused.stderr.contains("certificate"), "{refused:?}");
    let place = engine.path("certs").join(&host);
    std::fs::create_dir_all(&place).unwrap();
    for (from, to) in [(authority, "ca.crt"), (certificate, "me.cert"), (key, "me.key")] {
        std::fs::copy(from, place.join(to)).unwrap();
    }
    let certificates = engine.text("certs");
    let environment = [("BRIG_CERTS", certificates.as_str())];
    let pushed = run(&engine, &["push", "-q", "busybox", &name], &environment);
    assert!(pushed.stdout.starts_with("sha256:"), "{pushed:?}");
    let other = Engine::beside();
    let started = run(&other, &["run", "--rm", "-q", "--network", "none", &name, "echo", "hi"], &environment);
    assert_eq!((started.status, started.stdout.as_str()), (0, "hi\n"), "{started:?}");
}

#[test]
fn the_policy_file_names_who_keeps_a_password() {
    use std::os::unix::fs::PermissionsExt;
    let engine = Engine::new();
    let registry = Registry::start_with_user();
    let host = registry.host();
    let program = engine.path("docker-credential-safe");
    let answer = format!(r#"{{"ServerURL":"{host}","Username":"brig","Secret":"s3cret"}}"#);
    std::fs::write(&program, format!("#!/bin/sh\nread server; [ \"$1 $server\" = 'get {host}' ] && echo '{answer}'\n"))
        .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = policy(&engine, &format!("[registry.\"{host}\"]\ncredential-helper = \"safe\"\n"));
    let path = format!("{}:/usr/bin:/bin", engine.directory.path().display());
    let push = ["push", "-q", "busybox", &format!("{host}/app:1")];
    assert_eq!(run(&engine, &push, &[("BRIG_REGISTRIES", &file)]).status, 1, "the program is not found");
    let pushed = run(&engine, &push, &[("BRIG_REGISTRIES", &file), ("PATH", &path)]);
    assert!(pushed.status == 0 && !pushed.stderr.contains("s3cret"), "{pushed:?}");
    let odd = policy(&engine, &format!("[registry.\"{host}\"]\ncredential-helper = \"../safe\"\n"));
    let refused = run(&engine, &push, &[("BRIG_REGISTRIES", &odd), ("PATH", &path)]);
    assert!(refused.stderr.contains("its name is none of a program"), "{refused:?}");
}

#[test]
fn a_limited_rate_is_told() {
    let engine = Engine::bare();
    let registry = Registry::start();
    let made = image("limited");
    registry.push(&made, "app", "v1");
    let relay = Relay::before(&registry.host());
    let head = "429 Too Many Requests\r\nRetry-After: 1";
    relay.answer(Own { method: "GET", path: "/manifests/", head, skip: 0, times: 1 });
    let name = format!("{}/app:v1", relay.host());
    let pulled = engine.brig(&["pull", "-q", &name]);
    let told = format!("warning: registry `{}` limits the rate of requests; going on in 1 s\n", relay.host());
    assert_eq!((pulled.status, pulled.stderr), (0, told));
    let head = "429 Too Many Requests\r\nRetry-After: 7200";
    relay.answer(Own { method: "GET", path: "/manifests/", head, skip: 0, times: 1 });
    let refused = engine.brig(&["pull", "-q", &name]);
    assert!(refused.status == 1 && refused.stderr.contains("asks to wait 7200 seconds"), "{refused:?}");
    assert!(refused.stderr.contains("hint: try again later, or log in"), "{refused:?}");
}

#[test]
fn a_foreign_layer_is_refused_by_its_name() {
    let engine = Engine::bare();
    let liar = Liar::start();
    let mut made = image("foreign");
    let victim = digest(&made.layers[1]);
    let text = String::from_utf8(made.manifest.clone()).unwrap();
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let at = text.find(&victim).unwrap();
    let start = text[..at].rfind(kind).unwrap();
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    made.manifest = format!("{}{foreign}{}", &text[..start], &text[start + kind.len()..]).into_bytes();
    liar.serve(&made, "app", "v1");
    let pulled = engine.brig(&["pull", "-q", &format!("{}/app:v1", liar.host())]);
    let because = format!("because: layer {victim} is a foreign one ({foreign})");
    assert!(pulled.status == 1 && pulled.stderr.contains(&because), "{pulled:?}");
    assert!(liar.seen().iter().all(|seen| !seen.path.contains("/blobs/")), "nothing of it was fetched");
}

#[test]
fn search_prints_a_table() {
    let engine = Engine::bare();
    let registry = Registry::start();
    registry.push(&image("x"), "team/app", "v1");
    registry.push(&image("x"), "team/tool", "v1");
    let host = registry.host();
    let found = engine.brig(&["search", "--format", "{{.Name}}", &format!("{host}/team")]).ok();
    assert_eq!(found, format!("{host}/team/app\n{host}/team/tool"));
    assert!(engine.brig(&["search", &format!("{host}/tool")]).ok().starts_with("NAME"));
    assert!(engine.brig(&["search", "--filter", "x=y", "z"]).stderr.contains("is not a filter"));
    assert!(engine.brig(&["search", &format!("{host}/")]).stderr.contains("is nothing to search for"));
}
