//! Who may use whom: every crate has a layer, and an edge leads strictly downward.

use super::Finding;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The layer of the programs.
const PROGRAMS: u64 = 6;
/// The layer of the doors that speak HTTP and gRPC.
const DOORS: u64 = 5;

/// A member of the workspace.
#[derive(Debug)]
pub struct Package {
    name: String,
    /// Of its Cargo.toml, below the workspace.
    path: PathBuf,
    manifest: String,
    layer: Option<u64>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    dev: bool,
}

impl Package {
    /// Reads one package of `cargo metadata`, with the text of its Cargo.toml.
    fn parse(value: &Value, root: &Path) -> Result<Self> {
        let text = |key: &str| value[key].as_str().with_context(|| format!("cargo metadata gave no `{key}`"));
        let file = PathBuf::from(text("manifest_path")?);
        let manifest = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let dependencies = value["dependencies"].as_array().context("cargo metadata gave no dependencies")?;
        Ok(Self {
            name: text("name")?.to_owned(),
            path: file.strip_prefix(root).unwrap_or(&file).to_owned(),
            manifest,
            layer: value["metadata"]["brig"]["layer"].as_u64(),
            dependencies: dependencies
                .iter()
                .map(|d| Dependency {
                    name: d["name"].as_str().unwrap_or_default().to_owned(),
                    dev: d["kind"].as_str() == Some("dev"),
                })
                .collect(),
        })
    }

    /// The line of the manifest that begins with `word`, or the first.
    fn line_of(&self, word: &str) -> usize {
        let begins = |line: &str| {
            line.strip_prefix(word)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || "-_".contains(c)))
        };
        self.manifest.lines().position(begins).map_or(1, |at| at + 1)
    }

    fn finding(&self, word: &str, text: String) -> Finding {
        Finding { path: self.path.clone(), line: self.line_of(word), text }
    }
}

/// Asks cargo for the members of the workspace.
pub fn read(root: &Path) -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let value: Value = serde_json::from_slice(&output.stdout).context("cannot read what cargo metadata says")?;
    let packages = value["packages"].as_array().context("cargo metadata named no packages")?;
    packages.iter().map(|package| Package::parse(package, root)).collect()
}

/// Checks names, layers, edges, and where libraries from outside may be used.
pub fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        check_name(package, &mut findings);
        let Some(layer) = package.layer else {
            let text =
                "no layer, so its place in the house is unknown; add `[package.metadata.brig] layer = N`".to_owned();
            findings.push(package.finding("[package]", text));
            continue;
        };
        for dependency in &package.dependencies {
            match packages.iter().find(|p| p.name == dependency.name) {
                Some(other) => check_edge(package, layer, dependency, other, &mut findings),
                None if !dependency.dev => check_foreign(package, layer, &dependency.name, &mut findings),
                None => {}
            }
        }
    }
    findings
}

fn check_name(package: &Package, findings: &mut Vec<Finding>) {
    let last = package.name.rsplit(['-', '_']).next().unwrap_or_default();
    if matches!(last, "common" | "utils" | "util" | "types" | "core" | "helpers" | "misc") {
        let text = format!("`{}` is a name that attracts everything; name the crate after its one job", package.name);
        findings.push(package.finding("name", text));
    }
}

fn check_edge(package: &Package, layer: u64, dependency: &Dependency, other: &Package, findings: &mut Vec<Finding>) {
    let (name, to) = (&package.name, &other.name);
    if to == "testkit" {
        if !dependency.dev && layer <= PROGRAMS {
            let text = format!("`{name}` ships `testkit`, which is for tests; make it a dev-dependency");
            findings.push(package.finding(to, text));
        }
        return;
    }
    if let Some(below) = other.layer
        && below >= layer
    {
        let text = format!(
            "`{name}` (layer {layer}) uses `{to}` (layer {below}), and an edge must lead strictly downward; move what is needed to a lower layer, or hand it in as a value"
        );
        findings.push(package.finding(to, text));
    }
}

fn check_foreign(package: &Package, layer: u64, library: &str, findings: &mut Vec<Finding>) {
    let name = package.name.as_str();
    let is_tool = layer > PROGRAMS;
    let rule = match library {
        "clap" | "clap_complete" | "clap_mangen" if layer < PROGRAMS => {
            "command lines are read in layer 6 only; take a value of your own instead"
        }
        "axum" | "hyper" | "actix-web" | "warp" if layer != DOORS => {
            "HTTP is served in layer 5 only; offer a function that a route can call"
        }
        "tonic" | "prost" if name != "brig-cri" => {
            "gRPC is spoken in `brig-cri` only; offer a function that a service can call"
        }
        "reqwest" | "ureq" | "isahc" | "curl" | "hyper-util" if name != "brig-registry" => {
            "the network is asked in `brig-registry` only; let the engine hand in what was fetched"
        }
        "tokio" | "async-std" | "smol" if name == "brig-runtime-cli" => {
            "it contains the monitor, which is small and has no async runtime; use poll"
        }
        "tokio" | "async-std" | "smol" if name != "brig-registry" && layer < DOORS => {
            "the engine is synchronous; hide a runtime in `brig-registry` or serve from layer 5"
        }
        _ => return,
    };
    if !is_tool {
        findings.push(package.finding(library, format!("`{name}` uses `{library}`: {rule}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, layer: Option<u64>, dependencies: &[(&str, bool)]) -> Package {
        let mut manifest = format!("[package]\nname = \"{name}\"\n\n[dependencies]\n");
        for (name, _) in dependencies {
            manifest.push_str(name);
            manifest.push_str(".workspace = true\n");
        }
        let dependencies =
            dependencies.iter().map(|(name, dev)| Dependency { name: (*name).to_owned(), dev: *dev }).collect();
        Package {
            name: name.to_owned(),
            path: format!("crates/{name}/Cargo.toml").into(),
            manifest,
            layer,
            dependencies,
        }
    }

    fn text(packages: &[Package]) -> Vec<String> {
        check(packages).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn edges_lead_downward() {
        let packages = [
            package("brig-sys", Some(0), &[("brig-store", false)]),
            package("brig-net", Some(1), &[("brig-sys", false), ("brig-store", true)]),
            package("brig-store", Some(1), &[("brig-sys", false), ("testkit", true)]),
            package("testkit", Some(0), &[]),
        ];
        let found = text(&packages);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("crates/brig-sys/Cargo.toml:5: `brig-sys` (layer 0) uses `brig-store` (layer 1)"));
        assert!(found[1].starts_with("crates/brig-net/Cargo.toml:6: "), "for tests too: {found:#?}");
    }

    #[test]
    fn libraries_stay_where_they_belong() {
        for (name, layer, library, wrong) in [
            ("brig-engine", 3, "clap", true),
            ("brig", 6, "clap", false),
            ("brig", 6, "axum", true),
            ("brig-docker-api", 5, "axum", false),
            ("brig-docker-api", 5, "tonic", true),
            ("brig-cri", 5, "tonic", false),
            ("brig-store", 1, "reqwest", true),
            ("brig-registry", 1, "reqwest", false),
            ("brig-engine", 3, "tokio", true),
            ("brig-registry", 1, "tokio", false),
            ("brig-runtime-cli", 6, "tokio", true),
            ("brig", 6, "tokio", false),
            ("xtask", 7, "clap_mangen", false),
        ] {
            let found = text(&[package(name, Some(layer), &[(library, false)])]);
            assert_eq!(!found.is_empty(), wrong, "{name} and {library}: {found:?}");
            assert!(text(&[package(name, Some(layer), &[(library, true)])]).is_empty(), "for tests anything goes");
        }
    }

    #[test]
    fn a_package_has_a_layer_and_a_name_with_a_meaning() {
        assert!(text(&[package("brig-net", None, &[])])[0].contains("no layer"));
        for name in ["common", "brig-utils", "brig_types", "core"] {
            assert!(text(&[package(name, Some(1), &[])])[0].contains("attracts everything"), "{name}");
        }
        assert!(
            text(&[package("brig", Some(6), &[("testkit", false)]), package("testkit", Some(0), &[])])[0]
                .contains("dev-dependency")
        );
    }
}
