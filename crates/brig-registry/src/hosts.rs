//! Which addresses answer for a registry, in which order, and how each is spoken to.
//!
//! ```text
//!   policy file         [registry."docker.io"] mirrors = [..]
//!   containerd's files  <dir>/docker.io/hosts.toml          server, [host."https://mirror"] capabilities, ca, client, ...
//!   Docker's files      <dir>/host:port/{*.crt, *.cert, *.key}
//!        |
//!        v
//!   [ mirror, mirror, .., the registry itself ]             asked one after the other until one has it
//! ```
//!
//! Mirrors of the policy file count before those of hosts.toml; certificates of all three add up.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Table;

use crate::client::Options;
use crate::credentials::Secret;
use crate::error::Error;
use crate::policy::{Mirror, Transport, toml_reason};

/// The most bytes of a hosts.toml.
const FILE_MAX: u64 = 1 << 20;

/// What is wanted of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Blobs, and manifests by digest.
    Pull,
    /// Manifests by tag.
    Resolve,
    /// Everything that changes the registry.
    Push,
}

/// One address that answers for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host and port as they stand in a URL.
    pub(crate) address: String,
    /// Whether plain HTTP is tried first.
    pub(crate) plain: bool,
    /// What precedes the repository in a path: `/v2`, or something else where a file says so.
    pub(crate) root: String,
    /// What precedes the repository's name at this address, with a slash at its end, or nothing.
    pub(crate) prefix: String,
    pub(crate) trust: Trust,
    /// More headers for every request.
    pub(crate) headers: Vec<(String, Secret)>,
    /// What it may be asked for.
    pub(crate) actions: Vec<Action>,
    /// Whether it is the registry itself.
    pub(crate) own: bool,
}

/// Whose certificates are believed, and which one is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    /// Files of further trusted certificates, PEM.
    pub(crate) authorities: Vec<PathBuf>,
    /// Certificate and key that are shown, PEM.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    /// Whether any certificate is believed.
    pub(crate) skip_verify: bool,
}

impl Trust {
    fn add(&mut self, transport: &Transport) {
        self.authorities.extend(transport.ca.clone());
        if let Some(certificate) = &transport.client_cert {
            let key = transport.client_key.as_ref().unwrap_or(certificate);
            self.client = Some((certificate.clone(), key.clone()));
        }
        self.skip_verify |= transport.skip_verify;
    }
}

impl Endpoint {
    /// Describes the registry at an address, without any file's opinion but for certificates.
    fn plainly(options: &Options, address: &str) -> Result<Self, Error> {
        let mut trust = Trust::default();
        for directory in options.docker_certificates.iter().chain(&options.containerd_hosts) {
            docker_files(&directory.join(address), &mut trust)?;
        }
        Ok(Self {
            address: address.to_owned(),
            plain: options.is_plain(address),
            root: "/v2".to_owned(),
            prefix: String::new(),
            trust,
            headers: Vec::new(),
            actions: vec![Action::Pull, Action::Resolve, Action::Push],
            own: true,
        })
    }

    /// Describes a mirror of the policy file.
    fn mirror(options: &Options, mirror: &Mirror) -> Result<Self, Error> {
        let (address, prefix) = mirror.location.split_once('/').unwrap_or((&mirror.location, ""));
        let mut endpoint = Self::plainly(options, address)?;
        let own = options.policy.rule(address, prefix).transport;
        for transport in [&own, &mirror.transport] {
            endpoint.trust.add(transport);
            endpoint.plain |= transport.insecure;
        }
        endpoint.prefix = if prefix.is_empty() { String::new() } else { format!("{}/", prefix.trim_end_matches('/')) };
        endpoint.actions = vec![Action::Pull, Action::Resolve];
        endpoint.own = false;
        Ok(endpoint)
    }
}

/// Lists the addresses to ask about a repository, the first to be asked first.
pub(crate) fn endpoints(
    options: &Options,
    host: &str,
    repository: &str,
    action: Action,
) -> Result<Vec<Endpoint>, Error> {
    options.policy.check()?;
    let rule = options.policy.rule(host, repository);
    if rule.blocked {
        return Err(Error::Blocked(host.to_owned()));
    }
    let (address, _) = options.locate(host);
    let mut own = Endpoint::plainly(options, &address)?;
    own.trust.add(&rule.transport);
    own.plain |= rule.transport.insecure;
    let mut list = Vec::new();
    let mut itself = rule.fallback != Some(false) || action == Action::Push;
    if rule.mirrors.is_empty() {
        for directory in &options.containerd_hosts {
            if let Some(file) = HostsFile::find(directory, host)? {
                itself = file.apply(options, &mut own, &mut list)?;
                break;
            }
        }
    } else {
        for mirror in &rule.mirrors {
            list.push(Endpoint::mirror(options, mirror)?);
        }
    }
    if itself {
        list.push(own);
    }
    list.retain(|endpoint| endpoint.actions.contains(&action));
    if action == Action::Push {
        // An upload is one conversation.
        list.truncate(1);
    }
    if list.is_empty() {
        return Err(Error::Unsupported { host: host.to_owned(), reason: "no address is allowed to do it".to_owned() });
    }
    Ok(list)
}

/// Returns whose certificates are believed of a host that a registry sends its clients to.
pub(crate) fn trust_elsewhere(options: &Options, address: &str) -> Result<Trust, Error> {
    let mut trust = Endpoint::plainly(options, address)?.trust;
    trust.add(&options.policy.rule(address, "").transport);
    Ok(trust)
}

/// Adds the certificates of a directory of Docker's form; one that is not there has none.
fn docker_files(directory: &Path, trust: &mut Trust) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for path in files {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => trust.authorities.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                if !key.is_file() {
                    let reason = format!("its key {} is missing", key.display());
                    return Err(Error::Policy { path: path.display().to_string(), reason });
                }
                trust.client = Some((path, key));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A hosts.toml of containerd's form.
struct HostsFile {
    path: PathBuf,
    table: Table,
}

/// One value or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn list(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// What stands in the table of one host; words that are not known here say nothing, as in containerd.
#[derive(Default, Deserialize)]
#[serde(default)]
struct HostTable {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<OneOrMany<OneOrMany<PathBuf>>>,
    skip_verify: bool,
    override_path: bool,
    header: Option<std::collections::BTreeMap<String, OneOrMany<String>>>,
}

impl HostsFile {
    /// Finds the file for a host: of its own name, of the form that file systems without colons want, or the default.
    fn find(directory: &Path, host: &str) -> Result<Option<Self>, Error> {
        let underscored = host.rsplit_once(':').map(|(name, port)| format!("{name}_{port}_"));
        for name in [Some(host.to_owned()), underscored, Some("_default".to_owned())].into_iter().flatten() {
            let path = directory.join(name).join("hosts.toml");
            let fail = |reason: String| Error::Policy { path: path.display().to_string(), reason };
            match path.metadata() {
                Ok(metadata) if metadata.len() > FILE_MAX => return Err(fail("it is too large".to_owned())),
                Ok(_) => {}
                Err(_) => continue,
            }
            let text = std::fs::read_to_string(&path).map_err(|error| fail(error.to_string()))?;
            let table = text.parse::<Table>().map_err(|error| fail(toml_reason(&error, &text)))?;
            return Ok(Some(Self { path, table }));
        }
        Ok(None)
    }

    fn fail(&self, reason: String) -> Error {
        Error::Policy { path: self.path.display().to_string(), reason }
    }

    /// Adds the file's hosts to the list and its top to the registry itself; tells whether that is asked too.
    fn apply(&self, options: &Options, own: &mut Endpoint, list: &mut Vec<Endpoint>) -> Result<bool, Error> {
        let top = self.table.clone();
        if let Some(hosts) = top.get("host").and_then(toml::Value::as_table) {
            for (url, value) in hosts {
                let mut endpoint = self.endpoint(options, url)?;
                endpoint.own = false;
                self.fill(&mut endpoint, value.clone())?;
                list.push(endpoint);
            }
        }
        let Some(server) = top.get("server").and_then(toml::Value::as_str).map(str::to_owned) else {
            return Ok(true);
        };
        *own = Endpoint { trust: own.trust.clone(), ..self.endpoint(options, &server)? };
        self.fill(own, toml::Value::Table(top))?;
        Ok(!own.actions.is_empty())
    }

    /// Describes the address that a URL of the file names.
    fn endpoint(&self, options: &Options, url: &str) -> Result<Endpoint, Error> {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
            Some(_) => return Err(self.fail(format!("`{url}` is not an address of HTTP"))),
            None => (None, url),
        };
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = if address == "docker.io" { "registry-1.docker.io" } else { address };
        if address.is_empty() || address.contains(['@', '?', '#']) {
            return Err(self.fail(format!("`{url}` is not an address")));
        }
        let mut endpoint = Endpoint::plainly(options, address)?;
        endpoint.plain = scheme.map_or(endpoint.plain, |scheme| scheme == "http");
        let path = path.trim_matches('/');
        endpoint.root = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(endpoint)
    }

    /// Fills in what a table of the file says of an address.
    fn fill(&self, endpoint: &mut Endpoint, value: toml::Value) -> Result<(), Error> {
        let table: HostTable =
            value.try_into().map_err(|error: toml::de::Error| self.fail(error.message().to_owned()))?;
        if !table.override_path && !endpoint.root.ends_with("/v2") {
            endpoint.root.push_str("/v2");
        }
        if let Some(words) = table.capabilities {
            endpoint.actions.clear();
            for word in words {
                match word.as_str() {
                    "pull" => endpoint.actions.push(Action::Pull),
                    "resolve" => endpoint.actions.push(Action::Resolve),
                    "push" => endpoint.actions.push(Action::Push),
                    _ => return Err(self.fail(format!("`{word}` is not a capability"))),
                }
            }
        }
        let beside = |path: PathBuf| self.path.parent().map_or_else(|| path.clone(), |directory| directory.join(&path));
        endpoint.trust.authorities.extend(table.ca.into_iter().flat_map(OneOrMany::list).map(beside));
        for pair in table.client.into_iter().flat_map(OneOrMany::list) {
            let mut files = pair.list().into_iter().map(beside);
            if let Some(certificate) = files.next() {
                let key = files.next().unwrap_or_else(|| certificate.clone());
                endpoint.trust.client = Some((certificate, key));
            }
        }
        endpoint.trust.skip_verify |= table.skip_verify;
        for (name, values) in table.header.unwrap_or_default() {
            endpoint.headers.extend(values.list().into_iter().map(|value| (name.clone(), Secret(value))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use proptest::prelude::*;

    fn options(directory: &Path) -> Options {
        Options {
            docker_certificates: vec![directory.join("docker")],
            containerd_hosts: vec![directory.join("containerd")],
            ..Options::default()
        }
    }

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn ask(options: &Options, host: &str, action: Action) -> Vec<String> {
        let list = endpoints(options, host, "a/b", action).unwrap();
        let scheme = |e: &Endpoint| if e.plain { "http" } else { "https" };
        list.iter().map(|e| format!("{}://{}{}/{}a/b", scheme(e), e.address, e.root, e.prefix)).collect()
    }

    #[test]
    fn mirrors_of_the_policy_file_come_first_and_are_not_pushed_to() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"
            [registry."docker.io"]
            mirrors = ["m.example/hub", { location = "10.0.0.1:5000", insecure = true }]
            [registry."only.example"]
            mirrors = ["m.example"]
            fallback = false
            [registry."no.example"]
            blocked = true"#;
        let options = Options { policy: Policy::parse(text).unwrap(), ..options(directory.path()) };
        let own = "https://registry-1.docker.io/v2/a/b";
        assert_eq!(
            ask(&options, "docker.io", Action::Pull),
            ["https://m.example/v2/hub/a/b", "http://10.0.0.1:5000/v2/a/b", own]
        );
        assert_eq!(ask(&options, "docker.io", Action::Push), [own]);
        assert_eq!(ask(&options, "only.example", Action::Pull), ["https://m.example/v2/a/b"]);
        assert_eq!(ask(&options, "only.example", Action::Push), ["https://only.example/v2/a/b"]);
        assert!(matches!(endpoints(&options, "no.example", "x", Action::Pull), Err(Error::Blocked(_))));
    }

    #[test]
    fn containerds_files_are_read_as_containerd_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        write(
            &directory.path().join("containerd/docker.io/hosts.toml"),
            r#"
            server = "https://docker.io"
            [host."https://z.example"]
              capabilities = ["pull", "resolve"]
              ca = "z.pem"
            [host."http://a.example:5000"]
              capabilities = ["pull"]
              skip_verify = true
              client = [["c.pem", "/k.pem"]]
              [host."http://a.example:5000".header]
                x-token = ["one", "two"]
            [host."https://b.example/hub/v2x"]
              override_path = true"#,
        );
        let options = options(directory.path());
        assert_eq!(
            ask(&options, "docker.io", Action::Pull),
            [
                "https://z.example/v2/a/b",
                "http://a.example:5000/v2/a/b",
                "https://b.example/hub/v2x/a/b",
                "https://registry-1.docker.io/v2/a/b"
            ]
        );
        assert_eq!(ask(&options, "docker.io", Action::Resolve).len(), 3);
        // Who is not told otherwise may do everything, a host too; the first of them is pushed to.
        assert_eq!(ask(&options, "docker.io", Action::Push), ["https://b.example/hub/v2x/a/b"]);
        let list = endpoints(&options, "docker.io", "a/b", Action::Pull).unwrap();
        let beside = directory.path().join("containerd/docker.io");
        assert_eq!(list[0].trust.authorities, [beside.join("z.pem")]);
        assert_eq!(list[1].trust.client, Some((beside.join("c.pem"), "/k.pem".into())));
        assert!(list[1].trust.skip_verify && !list[0].trust.skip_verify && !list[3].trust.skip_verify);
        assert_eq!(list[1].headers.len(), 2);
        write(&directory.path().join("containerd/_default/hosts.toml"), "[host.\"https://d.example\"]");
        let two = ["https://d.example/v2/a/b", "https://else.example:5/v2/a/b"];
        assert_eq!(ask(&options, "else.example:5", Action::Pull), two);
        write(&directory.path().join("containerd/bad.example_5_/hosts.toml"), "server = ");
        let error = endpoints(&options, "bad.example:5", "x", Action::Pull).unwrap_err();
        assert!(error.to_string().contains("bad.example_5_/hosts.toml") && error.to_string().contains("line 1"));
    }

    proptest! {
        #[test]
        fn no_file_panics(text in "\\PC*", word in "[a-z_]{1,9}", value in "(true|3|\"[a-z:/.@]{0,12}\"|\\[\"x\"\\])") {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("containerd/h.example/hosts.toml");
            let options = options(directory.path());
            let known = ["ca", "client", "capabilities", "skip_verify", "override_path", "header"];
            for key in known.into_iter().chain([word.as_str()]) {
                write(&path, &format!("server = {value}\n[host.\"{text}\"]\n{key} = {value}\n"));
                let _ = endpoints(&options, "h.example", "a", Action::Pull);
                write(&path, &format!("[host.\"https://x\"]\n{key} = {value}\n"));
                let _ = endpoints(&options, "h.example", "a", Action::Push);
            }
        }
    }

    #[test]
    fn dockers_directories_give_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("docker/reg.example:5000");
        for name in ["ca.crt", "me.cert", "me.key", "README"] {
            write(&place.join(name), "");
        }
        let options = options(directory.path());
        let trust = &endpoints(&options, "reg.example:5000", "x", Action::Pull).unwrap()[0].trust;
        assert_eq!(trust.authorities, [place.join("ca.crt")]);
        assert_eq!(trust.client, Some((place.join("me.cert"), place.join("me.key"))));
        assert_eq!(endpoints(&options, "reg.example", "x", Action::Pull).unwrap()[0].trust, Trust::default());
        std::fs::remove_file(place.join("me.key")).unwrap();
        let error = endpoints(&options, "reg.example:5000", "x", Action::Pull).unwrap_err();
        assert!(error.to_string().contains("me.key is missing"), "{error}");
    }
}
