//! The commands: one file each, and the two tables by which they are found.

mod artifact;
mod attach;
mod check;
mod commit;
mod completion;
mod copy;
mod create;
mod exec;
mod export;
mod history;
mod images;
mod info;
mod inspect;
mod kill;
mod list;
mod load;
mod login;
mod logout;
mod logs;
mod manifest;
mod mount;
mod pause;
mod port;
mod prune;
mod pull;
mod push;
mod remove;
mod rename;
mod rmi;
mod run;
mod save;
mod search;
mod start;
mod stats;
mod stop;
mod system;
mod tag;
mod top;
mod update;
mod usage;
mod version;
mod volume;
mod wait;

use crate::Context;
use crate::report::{self, Outcome};
use brig_engine::record::Record;
use brig_engine::{Error, Result};
use brig_store::Store;
use clap::{ArgMatches, Args, Command, FromArgMatches};

/// A command: how it is typed, and what it does.
#[derive(Debug)]
pub struct Entry {
    /// The word that is typed.
    pub name: &'static str,
    /// Further words for it.
    pub aliases: &'static [&'static str],
    /// Makes its parser.
    pub parser: fn() -> Command,
    /// Does it.
    pub execute: fn(&Context, &ArgMatches) -> Outcome,
    /// Whether it stops without root.
    pub needs_root: bool,
    /// Whether its own failures give 125, as Docker has it.
    pub starts_containers: bool,
}

impl Entry {
    /// Describes a command that needs root and starts no container.
    const fn new(name: &'static str, parser: fn() -> Command, execute: fn(&Context, &ArgMatches) -> Outcome) -> Self {
        Self { name, aliases: &[], parser, execute, needs_root: true, starts_containers: false }
    }

    const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn for_everyone(self) -> Self {
        Self { needs_root: false, ..self }
    }

    const fn starting(self) -> Self {
        Self { starts_containers: true, ..self }
    }

    /// The same command under another word.
    const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn answers_to(&self, word: &str) -> bool {
        self.name == word || self.aliases.contains(&word)
    }
}

/// The commands of one word.
pub const TABLE: &[Entry] = &[
    run::ENTRY,
    exec::ENTRY,
    list::ENTRY,
    create::ENTRY,
    start::ENTRY,
    stop::ENTRY,
    stop::RESTART,
    kill::ENTRY,
    remove::ENTRY,
    logs::ENTRY,
    attach::ENTRY,
    inspect::ENTRY,
    wait::ENTRY,
    pause::ENTRY,
    pause::UNPAUSE,
    top::ENTRY,
    stats::ENTRY,
    port::ENTRY,
    rename::ENTRY,
    update::ENTRY,
    copy::ENTRY,
    copy::DIFF,
    commit::ENTRY,
    export::ENTRY,
    images::ENTRY,
    history::ENTRY,
    pull::ENTRY,
    push::ENTRY,
    login::ENTRY,
    logout::ENTRY,
    search::ENTRY,
    rmi::ENTRY,
    tag::ENTRY,
    tag::UNTAG,
    load::ENTRY,
    load::IMPORT,
    save::ENTRY,
    prune::ENTRY,
    info::ENTRY,
    info::DOCTOR,
    version::ENTRY,
    completion::ENTRY,
];

/// The commands of two words: the group, what it is about, its commands.
pub const GROUPS: &[(&str, &str, &[Entry])] = &[
    (
        "container",
        "Commands on containers",
        &[
            run::ENTRY,
            exec::ENTRY,
            list::ENTRY.named("ls").aliases(&["list", "ps"]),
            create::ENTRY,
            start::ENTRY,
            stop::ENTRY,
            stop::RESTART,
            kill::ENTRY,
            remove::ENTRY,
            logs::ENTRY,
            attach::ENTRY,
            inspect::CONTAINER,
            wait::ENTRY,
            pause::ENTRY,
            pause::UNPAUSE,
            top::ENTRY,
            stats::ENTRY,
            port::ENTRY,
            rename::ENTRY,
            update::ENTRY,
            copy::ENTRY,
            copy::DIFF,
            commit::ENTRY,
            export::ENTRY,
            prune::CONTAINERS,
        ],
    ),
    (
        "image",
        "Commands on images",
        &[
            images::ENTRY.named("ls").aliases(&["list"]),
            pull::ENTRY,
            push::ENTRY,
            inspect::IMAGE,
            history::ENTRY,
            copy::DIFF,
            rmi::ENTRY.named("rm").aliases(&["remove"]),
            tag::ENTRY,
            tag::UNTAG,
            load::ENTRY,
            load::IMPORT,
            save::ENTRY,
            mount::MOUNT,
            mount::UNMOUNT,
            prune::IMAGES,
        ],
    ),
    ("volume", "Commands on volumes", &[volume::CREATE, volume::LIST, volume::INSPECT, volume::REMOVE, volume::PRUNE]),
    (
        "manifest",
        "Commands on lists of platforms",
        &[manifest::CREATE, manifest::ANNOTATE, manifest::INSPECT, manifest::PUSH, manifest::REMOVE],
    ),
    ("artifact", "Commands on files in registries", &[artifact::PUSH, artifact::PULL, artifact::LIST]),
    ("network", "Commands on networks", &[prune::NETWORKS]),
    (
        "system",
        "Commands on all of it",
        &[info::ENTRY, info::DOCTOR, usage::ENTRY, prune::ENTRY, check::ENTRY, system::START, system::UNIT],
    ),
];

/// Finds a command by its words; also returns how many words it took, and its name.
pub fn find(words: &[String]) -> Option<(&'static Entry, usize, String)> {
    let first = words.first()?;
    if let Some(entry) = TABLE.iter().find(|e| e.answers_to(first)) {
        return Some((entry, 1, entry.name.to_owned()));
    }
    let (group, _, entries) = GROUPS.iter().find(|(group, ..)| group == first)?;
    let entry = entries.iter().find(|e| words.get(1).is_some_and(|w| e.answers_to(w)))?;
    Some((entry, 2, format!("{group} {}", entry.name)))
}

/// The command whose name is nearest to what was typed, if one is near.
pub fn nearest(word: &str) -> Option<&'static str> {
    let names = TABLE.iter().map(|e| e.name).chain(GROUPS.iter().map(|(group, ..)| *group));
    let (distance, name) = names.map(|name| (self::distance(word, name), name)).min()?;
    (distance <= 2 && distance < name.len()).then_some(name)
}

/// The number of letters to change, add, take or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (table[i - 1][j] + 1).min(table[i][j - 1] + 1).min(table[i - 1][j - 1] + same);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    table[a.len()][b.len()]
}

/// Makes the parser of a command from its flags.
pub(crate) fn parser<A: Args>(name: &'static str, about: &'static str) -> Command {
    // The flags come first: a group that is flattened into them would put its own description in place of the command's.
    A::augment_args(Command::new(name)).about(about)
}

/// Reads the flags that a parser made with [`parser`] has matched.
pub(crate) fn flags<A: FromArgMatches>(matches: &ArgMatches) -> Result<A> {
    A::from_arg_matches(matches).map_err(|error| Error::invalid("cannot read the command line").because(error))
}

/// Does something for each name that was typed, prints the names, and goes on after a failure.
#[expect(clippy::unnecessary_wraps, reason = "it is the last word of a command, and commands give an outcome")]
pub(crate) fn each(names: &[String], mut act: impl FnMut(&str) -> Result<()>) -> Outcome {
    let mut status = 0;
    for name in names {
        match act(name) {
            Ok(()) => crate::output::line(name),
            Err(error) => {
                report::print(&error);
                status = 1;
            }
        }
    }
    Ok(status)
}

/// The same for containers.
pub(crate) fn each_container(
    context: &Context,
    names: &[String],
    mut act: impl FnMut(&Record) -> Result<()>,
) -> Outcome {
    each(names, |name| act(&brig_engine::containers::find(&context.config, name)?))
}

/// Opens the image store.
pub(crate) fn store(context: &Context) -> Result<Store> {
    Store::open(&context.config.root).map(|store| store.with_layers_as(context.config.layers)).map_err(|error| {
        Error::internal(format!("cannot open the image store in {}", context.config.root.display())).because(error)
    })
}

/// The names of an image.
pub(crate) fn names_of(store: &Store, image: &brig_store::Image) -> Result<Vec<brig_spec::reference::Reference>> {
    store.names_of(&image.id).map_err(|error| Error::internal("cannot read the names of images").because(error))
}

/// Where the policy file of registries lies, unless the environment says otherwise.
const REGISTRIES: &str = "/etc/brig/registries.toml";

/// What a registry client is told: the policy file, credentials where Docker and podman keep them, mirrors and plain HTTP from
/// flags and environment, proxies.
pub(crate) fn registry_options(insecure: &[String]) -> Result<brig_registry::Options> {
    let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let list = |name: &str| {
        env(name).map(|v| v.split(',').map(|s| s.trim().to_owned()).collect::<Vec<_>>()).unwrap_or_default()
    };
    let path = env("BRIG_REGISTRIES").unwrap_or_else(|| REGISTRIES.to_owned());
    let policy = brig_registry::Policy::read_for_later(path.as_ref());
    // Both spellings are in use; of HTTP_PROXY only the small one, for in CGI programs the other comes from the client.
    let either = |name: &str| env(&name.to_ascii_lowercase()).or_else(|| env(name));
    let proxies = brig_registry::Proxies {
        http: either("HTTP_PROXY").filter(|_| env("REQUEST_METHOD").is_none()),
        https: either("HTTPS_PROXY"),
        except: either("NO_PROXY").unwrap_or_default(),
    };
    let mut options = brig_registry::Options {
        insecure: insecure.to_vec(),
        policy,
        proxies,
        docker_certificates: vec!["/etc/docker/certs.d".into()],
        containerd_hosts: vec!["/etc/containerd/certs.d".into()],
        notices: brig_registry::Notices::to(|notice| report::warn(&report::clean(&notice.to_string()))),
        ..Default::default()
    };
    if let Some(directory) = env("BRIG_CERTS") {
        options.docker_certificates = vec![directory.clone().into()];
        options.containerd_hosts = vec![directory.into()];
    }
    options.insecure.extend(list("BRIG_INSECURE"));
    for pair in list("BRIG_MIRRORS") {
        let (from, to) = pair
            .split_once('=')
            .ok_or_else(|| Error::invalid(format!("`{pair}` in BRIG_MIRRORS is not of the form HOST=MIRROR")))?;
        options.mirrors.insert(from.to_owned(), to.to_owned());
    }
    let docker = env("DOCKER_CONFIG").or_else(|| env("HOME").map(|home| format!("{home}/.docker")));
    options.credentials =
        env("REGISTRY_AUTH_FILE").or_else(|| docker.map(|dir| format!("{dir}/config.json"))).map(Into::into);
    options.more_credentials.extend(env("XDG_RUNTIME_DIR").map(|dir| format!("{dir}/containers/auth.json").into()));
    if let Some(path) = env("SSL_CERT_FILE") {
        options.certificates = path.into();
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_one_or_two_words() {
        let find = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            super::find(&words).map(|(_, depth, name)| (depth, name))
        };
        assert_eq!(find("run x"), Some((1, "run".into())));
        assert_eq!(find("container ps -a"), Some((2, "container ls".into())));
        assert_eq!(find("image rm x"), Some((2, "image rm".into())));
        assert_eq!(find("image"), None);
        assert_eq!(find("moon"), None);
    }

    #[test]
    fn every_parser_is_consistent_and_every_name_is_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for entry in TABLE {
            (entry.parser)().debug_assert();
            assert!(seen.insert(entry.name), "{}", entry.name);
        }
    }

    #[test]
    fn distances() {
        assert_eq!(distance("rnu", "run"), 1);
        assert_eq!(distance("ps", "ps"), 0);
        assert_eq!(distance("imges", "images"), 1);
    }
}
