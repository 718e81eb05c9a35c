//! What the policy file means for a use case: short names, and what must be signed.

use std::borrow::Cow;

use brig_registry::Policy;

/// Words that begin the name of a place that is no registry.
const PLACES: &[&str] = &["oci:", "oci-archive:", "docker-archive:", "docker://", "host:"];

/// Returns the full name that a typed one stands for by the policy file: an alias, or one in the default registry.
pub fn expand<'a>(policy: &Policy, typed: &'a str) -> Cow<'a, str> {
    let is_id = typed.len() == 64 && typed.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id || PLACES.iter().any(|place| typed.starts_with(place)) {
        return Cow::Borrowed(typed);
    }
    policy.expand(typed).map_or(Cow::Borrowed(typed), Cow::Owned)
}

/// Cuts what people type for a registry down to its host: scheme and path go, Docker's many names become `docker.io`.
pub fn host(typed: &str) -> &str {
    let bare = typed.strip_prefix("https://").or(typed.strip_prefix("http://")).unwrap_or(typed);
    match bare.split('/').next().unwrap_or(bare) {
        "" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_expanded() {
        let policy = Policy::parse("default = \"r.example\"").unwrap();
        assert_eq!(expand(&policy, "debian:12"), "r.example/debian:12");
        let id = "ab".repeat(32);
        for other in ["oci:/x", "host:", "docker-archive:x", "q.example/debian", id.as_str()] {
            assert_eq!(expand(&policy, other), other);
        }
    }

    #[test]
    fn a_registry_has_many_spellings() {
        for typed in ["", "docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
            assert_eq!(host(typed), "docker.io", "{typed}");
        }
        assert_eq!(host("https://r.example:5000/v2/"), "r.example:5000");
    }
}
