//! Words for made-up names: an adjective, and a thing found on board.

const ADJECTIVES: [&str; 64] = [
    "able", "amber", "bold", "brave", "bright", "brisk", "calm", "candid", "clever", "cosy", "crisp", "curious",
    "daring", "deft", "eager", "early", "easy", "fair", "fleet", "fond", "frank", "gentle", "glad", "golden", "grand",
    "hardy", "hasty", "honest", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry", "mild", "modest", "neat",
    "nimble", "noble", "patient", "plain", "proud", "quick", "quiet", "ready", "rosy", "serene", "sharp", "silent",
    "sleek", "smart", "snug", "solid", "steady", "sturdy", "sunny", "swift", "tidy", "trusty", "vivid", "warm", "wise",
    "witty",
];

const THINGS: [&str; 64] = [
    "anchor", "ballast", "barge", "beacon", "beam", "bell", "boom", "bosun", "bow", "bridge", "buoy", "cabin", "cable",
    "canvas", "cargo", "chart", "cleat", "compass", "cutter", "deck", "derrick", "dinghy", "dock", "ferry", "flag",
    "galley", "gull", "halyard", "harbour", "hatch", "haven", "hawser", "helm", "hull", "jetty", "keel", "ketch",
    "lantern", "mast", "mooring", "oar", "paddle", "pennant", "pier", "pilot", "plank", "port", "prow", "quay",
    "rigging", "rope", "rudder", "sail", "schooner", "sextant", "sloop", "spar", "stern", "tide", "tiller", "tugboat",
    "wharf", "winch", "yawl",
];

/// Makes a name of an id's digits; later attempts are different, and numbered in the end.
pub fn pick(digits: &[u8], attempt: usize) -> String {
    let at = |n: usize| usize::from(digits.get(n % digits.len().max(1)).copied().unwrap_or_default());
    let adjective = (at(attempt) * 31 + at(attempt + 1) * 7 + at(attempt + 2)) % ADJECTIVES.len();
    let thing = (at(attempt + 3) * 37 + at(attempt + 4) * 11 + at(attempt + 5)) % THINGS.len();
    let name = format!("{}_{}", ADJECTIVES[adjective], THINGS[thing]);
    if attempt < 4 { name } else { format!("{name}{}", at(attempt) * 100 + at(attempt + 1) + attempt) }
}
