//! Lists of platforms, artifacts, and signatures, through the command line and a real registry on loopback.
//!
//! Place: the machine itself, as root, with Debian's docker-registry and openssl.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use support::{Engine, Output, collect};
use testkit::image::{Compression, Image, Layer, architecture, descriptor, digest};
use testkit::registry::Registry;

fn image(text: &str) -> Image {
    Image::new(&[Layer::new().file("text", text).finish()], Compression::Gzip, r#"{"Cmd":["cat","/text"]}"#)
}

#[test]
fn a_list_is_made_annotated_pushed_and_pulled() {
    let engine = Engine::bare();
    let (registry, other) = (Registry::start(), Registry::start());
    let (local, remote) = (image("local"), image("remote"));
    other.push(&remote, "far/away", "v1");
    registry.push(&local, "near", "v1");
    let (near, far) = (format!("{}/near:v1", registry.host()), format!("{}/far/away:v1", other.host()));
    engine.brig(&["pull", "-q", &near]).ok();
    let list = format!("{}/app:both", registry.host());
    let made = engine.brig(&["manifest", "create", &list, &near]);
    assert_eq!(made.ok(), format!("Created manifest list {list}"));
    let again = engine.brig(&["manifest", "create", &list, &far]);
    assert!(again.status == 1 && again.stderr.contains("exists"), "{again:?}");
    engine.brig(&["manifest", "create", "--amend", &list, &far]).ok();
    engine.brig(&["manifest", "annotate", "--os", "linux", "--arch", "arm64", "--variant", "v8", &list, &far]).ok();
    assert_eq!(engine.brig(&["system", "check"]).status, 0, "a list is no stranger to the store");
    let odd = engine.brig(&["manifest", "annotate", "--arch", "a b", &list, &far]);
    assert!(odd.status == 1 && odd.stderr.contains("cannot change the platform"), "{odd:?}");
    let shown = engine.brig(&["manifest", "inspect", &list]).ok();
    assert!(shown.contains("\"arm64\"") && shown.contains(&digest(&remote.manifest)), "{shown}");
    let pushed = engine.brig(&["manifest", "push", "--purge", &list]);
    assert_eq!(pushed.status, 0, "{pushed:?}");
    let index = registry.get(&format!("/v2/app/manifests/{}", pushed.stdout.trim())).1;
    assert_eq!(digest(&index), pushed.stdout.trim());
    // What the registry has under the name now, for there is no list here any more.
    assert_eq!(engine.brig(&["manifest", "inspect", "--raw", &list]).stdout.as_bytes(), index);
    let shown = engine.brig(&["manifest", "inspect", &list]).ok();
    assert!(shown.starts_with("{\n   \"schemaVersion\": 2,\n"), "{shown}");
    let told = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(told(&shown), serde_json::from_slice::<serde_json::Value>(&index).unwrap());
    let each = told(&engine.brig(&["manifest", "inspect", "-v", &list]).ok());
    let pinned = format!("{}/app@{}", registry.host(), digest(&remote.manifest));
    assert_eq!(each[1]["Ref"], pinned);
    assert_eq!(each[1]["Descriptor"]["platform"]["architecture"], "arm64");
    assert_eq!(each[1]["OCIManifest"], serde_json::from_slice::<serde_json::Value>(&remote.manifest).unwrap());
    let alone = told(&engine.brig(&["manifest", "inspect", "--verbose", &near]).ok());
    assert_eq!(alone["Descriptor"]["digest"], digest(&local.manifest));
    assert!(engine.brig(&["manifest", "rm", &list]).stderr.contains("there is no list"));
    let third = Engine::beside();
    assert_eq!(third.brig(&["pull", "-q", &list]).ok(), local.id());
    assert_eq!(third.brig(&["pull", "-q", "--platform", "linux/arm64", &list]).ok(), remote.id());
    let none = engine.brig(&["manifest", "create", "x.example/l", "nonsense:tag:more"]);
    assert!(none.status == 1, "{none:?}");
}

#[test]
fn artifacts_go_and_come_and_are_found_by_what_they_are_about() {
    let engine = Engine::bare();
    let registry = Registry::start();
    let app = image("subject");
    registry.push(&app, "app", "v1");
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    let big: Vec<u8> = (0..900_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(engine.path("report.json"), "{}\n").unwrap();
    std::fs::write(engine.path("big.bin"), &big).unwrap();
    std::fs::write(engine.path("empty"), "").unwrap();
    let files = ["report.json:application/json", "big.bin", "empty"];
    let pushed = engine
        .brig(&[&["artifact", "push", "--artifact-type", "application/x-test", &name("files")], &files[..]].concat());
    assert!(pushed.ok().starts_with(&format!("{}: digest: sha256:", name("files"))), "{pushed:?}");
    std::fs::create_dir(engine.path("out")).unwrap();
    let pulled = engine.brig(&["artifact", "pull", "-o", "out", &name("files")]).ok();
    assert_eq!(pulled, "out/report.json\nout/big.bin\nout/empty");
    assert_eq!(std::fs::read(engine.path("out/report.json")).unwrap(), b"{}\n");
    assert!(std::fs::read(engine.path("out/big.bin")).unwrap() == big);
    assert_eq!(engine.names("out").len(), 3, "nothing else is left there");
    let shown = engine.brig(&["manifest", "inspect", &name("files")]).ok();
    assert!(
        shown.contains("\"artifactType\": \"application/x-test\"") && shown.contains("\"application/json\""),
        "{shown}"
    );

    // About an image: this registry keeps no list of referrers, so a tag does.
    assert_eq!(engine.brig(&["artifact", "ls", "-q", &name("v1")]).ok(), "");
    let about = |kind: &str, file: &str| {
        let repository = format!("{}/app", registry.host());
        let subject = ["--subject", &name("v1"), "--artifact-type", kind, "-a", "team=blue"];
        let pushed = engine.brig(&[&["artifact", "push", &repository, file][..], &subject].concat()).ok();
        pushed.rsplit(' ').next().unwrap().to_owned()
    };
    let (first, second) = (about("application/x-sbom", "report.json"), about("application/x-scan", "big.bin"));
    assert_eq!(about("application/x-sbom", "report.json"), first, "the same once more is the same");
    assert_eq!(engine.brig(&["artifact", "ls", "-q", &name("v1")]).ok(), format!("{first}\n{second}"));
    // Several at the same time may undo one another's entries, but not those that were there before.
    let at_once: Vec<_> = (0..4)
        .map(|n| {
            let kind = format!("application/x-{n}");
            let to = format!("{}/app", registry.host());
            engine.spawn(&["artifact", "push", &to, "empty", "--subject", &name("v1"), "--artifact-type", &kind])
        })
        .collect();
    at_once.into_iter().for_each(|push| assert_eq!(collect(push, &["artifact", "push"]).status, 0));
    let left = engine.brig(&["artifact", "ls", "-q", &name("v1")]).ok();
    assert!(left.contains(&first) && left.contains(&second) && left.lines().count() > 2, "{left}");
    let scans = ["artifact", "ls", "-q", "--artifact-type", "application/x-scan", &name("v1")];
    assert_eq!(engine.brig(&scans).ok(), second);
    let table = engine.brig(&["artifact", "ls", &name("v1")]).ok();
    assert!(table.starts_with("DIGEST") && table.contains("application/x-sbom"), "{table}");
    let by_digest = format!("{}/app@{first}", registry.host());
    std::fs::create_dir(engine.path("two")).unwrap();
    assert_eq!(engine.brig(&["artifact", "pull", "-o", "two", &by_digest]).ok(), "two/report.json");
    assert_eq!(engine.brig(&["pull", "-q", &name("v1")]).ok(), app.id(), "the image is what it was");

    let elsewhere =
        engine.brig(&["artifact", "push", &format!("{}/b", registry.host()), "empty", "--subject", &name("v1")]);
    assert!(elsewhere.stderr.contains("is in another repository"), "{elsewhere:?}");
    assert!(engine.brig(&["artifact", "push", &name("x")]).stderr.contains("neither files nor a type"));
    assert!(engine.brig(&["artifact", "push", &name("x"), "no-such"]).stderr.contains("there is no file `no-such`"));
}

#[test]
fn an_artifact_writes_only_where_it_is_told() {
    let engine = Engine::bare();
    let registry = Registry::start();
    let push = |tag: &str, titles: &[&str]| {
        let mut layers = Vec::new();
        for title in titles {
            let bytes = format!("content of {title}");
            registry.push_blob("evil", &digest(bytes.as_bytes()), bytes.as_bytes());
            let layer = descriptor("text/plain", bytes.as_bytes());
            let title = title.replace('\0', "\\u0000");
            layers.push(format!(
                r#"{},"annotations":{{"org.opencontainers.image.title":"{title}"}}}}"#,
                layer.trim_end_matches('}')
            ));
        }
        registry.push_blob("evil", &digest(b"{}"), b"{}");
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
            descriptor("application/vnd.oci.empty.v1+json", b"{}"),
            layers.join(",")
        );
        registry.push_manifest("evil", tag, "application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    };
    std::fs::create_dir(engine.path("out")).unwrap();
    for (tag, titles) in
        [("up", &["../up"][..]), ("abs", &["/tmp/brig-artifact"]), ("dot", &[".."]), ("twice", &["good", "good"])]
    {
        push(tag, titles);
        let refused = engine.brig(&["artifact", "pull", "-o", "out", &format!("{}/evil:{tag}", registry.host())]);
        assert_eq!(refused.status, 1, "{refused:?}");
        assert!(engine.names("out").is_empty(), "{tag}");
    }
    // A link in the way is replaced, not followed.
    push("good", &["good"]);
    std::fs::write(engine.path("victim"), "untouched").unwrap();
    std::os::unix::fs::symlink(engine.path("victim"), engine.path("out/good")).unwrap();
    engine.brig(&["artifact", "pull", "-o", "out", &format!("{}/evil:good", registry.host())]).ok();
    assert_eq!(std::fs::read_to_string(engine.path("victim")).unwrap(), "untouched");
    assert_eq!(std::fs::read_to_string(engine.path("out/good")).unwrap(), "content of good");
}

fn openssl(arguments: &[&str], directory: &Path) {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "openssl {arguments:?}");
}

/// Makes the key pair `<name>.pem`, `<name>.pub`.
fn key(directory: &Path, name: &str) {
    let (pem, public) = (format!("{name}.pem"), format!("{name}.pub"));
    openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", &pem], directory);
    openssl(&["ec", "-in", &pem, "-pubout", "-out", &public], directory);
}

/// Signs a digest with a key as cosign does, and pushes that beside the image; `of` is what the payload names.
fn sign(registry: &Registry, directory: &Path, key: &str, image: &str, of: &str) {
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"x/app"}},"image":{{"docker-manifest-digest":"{of}"}},"type":"cosign container image signature"}},"optional":null}}"#
    );
    std::fs::write(directory.join("payload"), &payload).unwrap();
    let pem = format!("{key}.pem");
    openssl(&["dgst", "-sha256", "-sign", &pem, "-out", "signature", "payload"], directory);
    openssl(&["base64", "-A", "-in", "signature", "-out", "signature.txt"], directory);
    let signature = std::fs::read_to_string(directory.join("signature.txt")).unwrap();
    let layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
    let layer = format!(
        r#"{},"annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}"#,
        layer.trim_end_matches('}')
    );
    let config = b"{}";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{layer}]}}"#,
        descriptor("application/vnd.oci.image.config.v1+json", config)
    );
    registry.push_blob("team/app", &digest(payload.as_bytes()), payload.as_bytes());
    registry.push_blob("team/app", &digest(config), config);
    let tag = image.replace(':', "-") + ".sig";
    registry.push_manifest("team/app", &tag, "application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
}

#[test]
fn the_policy_file_wants_signatures() {
    let engine = Engine::bare();
    let registry = Registry::start();
    let (app, other) = (image("app"), image("other"));
    registry.push(&app, "team/app", "v1");
    registry.push(&other, "team/app", "v2");
    registry.push(&app, "free/app", "v1");
    let keys = engine.directory.path();
    key(keys, "ours");
    key(keys, "theirs");
    openssl(&["genrsa", "-out", "rsa.pem", "2048"], keys);
    openssl(&["rsa", "-in", "rsa.pem", "-pubout", "-out", "rsa.pub"], keys);
    let policy = |keys: &str| {
        let text = format!("[policy.\"{}/team\"]\nsigned-by = [{keys}]\n", registry.host());
        std::fs::write(engine.path("registries.toml"), text).unwrap();
    };
    let run = |arguments: &[&str]| -> Output {
        let mut command = engine.command(arguments);
        command.env("BRIG_REGISTRIES", engine.path("registries.toml"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        collect(command.spawn().unwrap(), arguments)
    };
    let name = |repository: &str, tag: &str| format!("{}/{repository}:{tag}", registry.host());
    let (v1, v2) = (name("team/app", "v1"), name("team/app", "v2"));
    let refused = |name: &str, reason: &str| {
        let pulled = run(&["pull", "-q", name]);
        let text = format!("because: image {name} is not signed as the policy file wants it: {reason}");
        assert!(pulled.status == 1 && pulled.stderr.contains(&text), "{pulled:?}");
        assert_eq!(engine.brig(&["images", "-q"]).ok(), "", "nothing came in");
    };
    policy(&format!("\"{}\"", engine.text("ours.pub")));
    refused(&v1, "it has no signature");
    sign(&registry, keys, "theirs", &digest(&app.manifest), &digest(&app.manifest));
    refused(&v1, "none of its signatures is by a key of the policy file");
    sign(&registry, keys, "ours", &digest(&app.manifest), &digest(&other.manifest));
    refused(&v1, "its signature is for something else");
    // What is not under the rule is not asked about; what is signed comes in.
    assert_eq!(run(&["pull", "-q", &name("free/app", "v1")]).ok(), app.id());
    engine.brig(&["rmi", &name("free/app", "v1")]).ok();
    sign(&registry, keys, "ours", &digest(&app.manifest), &digest(&app.manifest));
    assert_eq!(run(&["pull", "-q", &v1]).ok(), app.id());
    let started = run(&["run", "--rm", "-q", "--network", "none", &v2]);
    assert!(started.status == 125 && started.stderr.contains("it has no signature"), "{started:?}");
    // Any of several keys is enough.
    policy(&format!("\"{}\", \"{}\"", engine.text("theirs.pub"), engine.text("ours.pub")));
    assert_eq!(run(&["pull", "-q", &v1]).ok(), app.id());
    // A key that cannot be used is no key that is left out.
    for (file, said) in [
        ("rsa.pub", "is not one of ECDSA with P-256"),
        ("ours.pem", "holds no public key"),
        ("none.pub", "No such file"),
    ] {
        policy(&format!("\"{}\", \"{}\"", engine.text("ours.pub"), engine.text(file)));
        let pulled = run(&["pull", "-q", &v1]);
        assert!(pulled.status == 1 && pulled.stderr.contains(said), "{pulled:?}");
    }
    std::fs::write(engine.path("registries.toml"), "[policy.\"*\"]\nreject = true\n").unwrap();
    assert!(run(&["pull", "-q", &v1]).stderr.contains("nothing of this repository may be used"));
    // Without the file nothing is wanted.
    assert_eq!(engine.brig(&["pull", "-q", &v2]).ok(), other.id());
}

#[test]
fn an_index_is_signed_as_a_whole_or_by_its_manifest() {
    let engine = Engine::bare();
    let registry = Registry::start();
    let app = image("indexed");
    registry.push(&app, "team/app", "x");
    let text = descriptor(app.media_type(), &app.manifest);
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{},"platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
        text.trim_end_matches('}'),
        architecture()
    );
    registry.push_manifest("team/app", "v1", "application/vnd.oci.image.index.v1+json", index.as_bytes());
    let keys = engine.directory.path();
    key(keys, "ours");
    let policy = format!("[policy.\"*\"]\nsigned-by = [\"{}\"]\n", engine.text("ours.pub"));
    std::fs::write(engine.path("registries.toml"), policy).unwrap();
    let name = format!("{}/team/app:v1", registry.host());
    let pull = || {
        let mut command = engine.command(&["pull", "-q", &name]);
        command.env("BRIG_REGISTRIES", engine.path("registries.toml"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        collect(command.spawn().unwrap(), &["pull"])
    };
    assert_eq!(pull().status, 1);
    for signed in [index.as_bytes(), &app.manifest] {
        sign(&registry, keys, "ours", &digest(signed), &digest(signed));
        assert_eq!(pull().ok(), app.id());
        // Sign something else in its place for the next turn.
        sign(&registry, keys, "ours", &digest(signed), &digest(b"else"));
        assert_eq!(pull().status, 1);
    }
}
