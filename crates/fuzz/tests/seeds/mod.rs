//! Seeds that are made and not stored: layers and archives with a little of everything.

use testkit::image::{Compression, Image, Layer, Meta, compress};

/// Makes the seeds of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "layer" | "stream" => layers(),
        "archive" => archives(),
        _ => Vec::new(),
    }
}

fn layers() -> Vec<Vec<u8>> {
    let meta = |pax: &[(&str, &[u8])]| Meta {
        pax: pax.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect(),
        ..Meta::default()
    };
    let long = "long/".repeat(40);
    let plain = Layer::new()
        .directory("./", 0o750)
        .directory("d/", 0o1777)
        .file("d/f", "some data")
        .hard_link("d/g", "d/f")
        .symlink("d/l", "../d")
        .file("d/l/through", "x")
        .file("d/.wh.gone", "")
        .directory("o/", 0o755)
        .file("o/.wh..wh..opq", "")
        .entry(b'3', "null", "", b"", &Meta { device: (1, 3), ..Meta::default() })
        .entry(b'6', "fifo", "", b"", &Meta::default());
    let attributes = Layer::new()
        .entry(b'0', "x", "", b"x", &meta(&[("SCHILY.xattr.user.a", b"b"), ("mtime", b"1.5"), ("uid", b"70000")]))
        .entry(b'0', &format!("{long}name"), "", b"x", &Meta::default())
        .entry(b'0', "s", "", b"data", &meta(&[("GNU.sparse.size", b"4096"), ("GNU.sparse.map", b"0,2,100,2")]))
        .file("only/below", "x")
        .hard_link("foreign", "elsewhere")
        .file("twice", "1")
        .directory("twice", 0o755);
    vec![plain.finish(), attributes.finish(), Layer::new().finish()]
}

fn archives() -> Vec<Vec<u8>> {
    let layers = layers();
    let small = Image::new(&layers[..1], Compression::Plain, r#"{"Cmd":["x"]}"#);
    let two = Image::new(&[layers[0].clone(), layers[2].clone()], Compression::Gzip, "{}");
    let mut all = vec![small.docker_archive("a:1"), two.docker_archive("b:1")];
    let directory = tempfile::tempdir().expect("a directory");
    two.write_layout(directory.path(), "c:1");
    let mut tar = Layer::new();
    for name in ["oci-layout", "index.json"] {
        tar = tar.file(name, std::fs::read(directory.path().join(name)).expect("a file"));
    }
    for (digest, bytes) in &two.blobs {
        tar = tar.file(&format!("blobs/sha256/{}", &digest[7..]), bytes);
    }
    all.push(tar.finish());
    all.push(compress(&all[0], Compression::Zstd));
    all
}
