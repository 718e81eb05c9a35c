//! `ensure`: the image that a container needs is here, pulled first if the policy says so.

use brig_spec::platform::Platform;
use brig_store::{Image, Observer};

use super::{Images, Source, failure};
use crate::error::{Error, Result};
use crate::registries;

/// When to pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Always ask the registry first.
    Always,
    /// Only when the image is not here.
    #[default]
    Missing,
    /// Never.
    Never,
}

impl std::str::FromStr for PullPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "always" => Ok(Self::Always),
            "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            _ => Err(Error::invalid(format!("`{text}` is not a pull policy")).hint("use always, missing or never")),
        }
    }
}

impl Images<'_> {
    /// Finds an image by name, id or source, and pulls it as the policy says; an image for another platform is not it.
    pub fn ensure(
        &self,
        name: &str,
        policy: PullPolicy,
        platform: Option<&Platform>,
        observer: &dyn Observer,
    ) -> Result<Image> {
        let full = registries::expand(&self.options.policy, name);
        let source = Source::parse(&full);
        if !matches!(source, Ok(Source::Registry(_)) | Err(_)) {
            return self.pull(name, platform, observer).map(|pulled| pulled.image);
        }
        if policy != PullPolicy::Always {
            let here = match self.store.image(name) {
                Err(brig_store::Error::NoSuchImage(_)) if full != name => self.store.image(&full),
                result => result,
            };
            match here {
                Ok(image) if platform.is_none_or(|wanted| wanted.suits(&image.platform).is_some()) => return Ok(image),
                Ok(_) | Err(brig_store::Error::NoSuchImage(_)) if policy == PullPolicy::Missing => {}
                Ok(image) => {
                    return Err(Error::not_found(format!("image `{name}` is for another platform"))
                        .reason(format!("it is for {}", image.platform))
                        .hint("drop `--pull never`, or `--platform`"));
                }
                Err(error) => return Err(failure::store(format!("cannot find image `{name}`"), error)),
            }
        }
        // An id cannot be pulled.
        source?;
        self.pull(name, platform, observer).map(|pulled| pulled.image)
    }
}
