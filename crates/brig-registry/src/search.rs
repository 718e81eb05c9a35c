//! Looking for images: by the search of Docker's hub, or among the repositories that a registry lists.
//!
//! ```text
//!   GET /v1/search?q=<words>&n=<count>      the hub, and registries that copied it
//!   GET /v2/_catalog?n=<count>              a plain registry: every name, page by page; the search is then ours
//! ```

use reqwest::Url;
use reqwest::header::LINK;
use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;
use crate::hosts::Action;
use crate::http::{Request, Target, bad};

/// The most bytes of one page.
const PAGE_MAX: u64 = 8 << 20;
/// How many names are asked for at a time.
const PAGE: usize = 1000;
/// The most pages of a list.
const PAGES_MAX: usize = 100;
/// Where the hub answers searches.
const HUB: &str = "index.docker.io";

/// One repository that fits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Its name, without the host.
    pub name: String,
    /// What it says about itself.
    #[serde(default)]
    pub description: String,
    /// How many people like it.
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    /// Whether the registry's own people make it.
    #[serde(default, rename = "is_official")]
    pub official: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Client {
    /// Looks for repositories at a host, at most `limit`.
    pub fn search(&self, host: &str, words: &str, limit: usize) -> Result<Vec<Found>, Error> {
        if self.options().policy.rule(host, "").blocked {
            return Err(Error::Blocked(host.to_owned()));
        }
        match self.ask_search(host, words, limit) {
            Ok(mut found) => {
                found.truncate(limit);
                Ok(found)
            }
            Err(Error::NotFound { .. } | Error::Status { .. } | Error::Protocol { .. }) => {
                let mut found = self.ask_catalog(host)?;
                found.retain(|one| one.name.contains(words));
                found.truncate(limit);
                Ok(found)
            }
            Err(error) => Err(error),
        }
    }

    fn ask_search(&self, host: &str, words: &str, limit: usize) -> Result<Vec<Found>, Error> {
        let address = if host == "docker.io" && !self.options().mirrors.contains_key(host) { HUB } else { host };
        let query = Url::parse_with_params("http://x/", [("q", words), ("n", &limit.clamp(1, 100).to_string())])
            .map_err(|_| bad(host, "its search makes no URL"))?;
        let path = format!("v1/search?{}", query.query().unwrap_or_default());
        let (bytes, _) = self.page(address, Target::Host(path))?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| bad(host, "its answer is no list"))?;
        Ok(answer.results)
    }

    fn ask_catalog(&self, host: &str) -> Result<Vec<Found>, Error> {
        let mut names = Vec::new();
        let mut target = Target::Root(format!("_catalog?n={PAGE}"));
        for _ in 0..PAGES_MAX {
            let (bytes, next) = match self.page(host, target) {
                Ok(page) => page,
                Err(Error::NotFound { .. } | Error::Status { status: 405 | 501, .. } | Error::Denied { .. }) => {
                    let reason = "it has no search, and does not list its repositories".to_owned();
                    return Err(Error::Unsupported { host: host.to_owned(), reason });
                }
                Err(error) => return Err(error),
            };
            let page: Catalog = serde_json::from_slice(&bytes).map_err(|_| bad(host, "its list is none"))?;
            names.extend(page.repositories.unwrap_or_default());
            match next {
                Some(next) => target = Target::Url(next),
                None => break,
            }
        }
        let found = |name| Found { name, description: String::new(), stars: 0, official: false };
        Ok(names.into_iter().map(found).collect())
    }

    /// Fetches one page, and where the next one is.
    pub(crate) fn page(&self, host: &str, target: Target) -> Result<(Vec<u8>, Option<Url>), Error> {
        let what = "list of repositories".to_owned();
        let request =
            Request { action: Action::Resolve, target, ..Request::get(host, "", String::new(), what.clone()) };
        self.block_on(async {
            let reply = self.inner.http.send(&request).await?;
            let next = next_page(&reply.response);
            Ok((self.inner.http.body(&reply.host, &what, reply.response, PAGE_MAX).await?, next))
        })
    }
}

/// Reads where the next page is: `Link: </v2/_catalog?last=b&n=2>; rel="next"`, at the same host only.
pub(crate) fn next_page(response: &reqwest::Response) -> Option<Url> {
    let header = response.headers().get(LINK)?.to_str().ok()?;
    let (target, rest) = header.trim().strip_prefix('<')?.split_once('>')?;
    let next = response.url().join(target).ok().filter(|_| rest.contains("next"))?;
    (next.origin() == response.url().origin()).then_some(next)
}
