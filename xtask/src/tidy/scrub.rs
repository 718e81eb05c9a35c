//! Rust source without its comments and literals, so that a search for words and braces is not led astray.

/// Replaces comments, strings and characters by blanks; every line keeps its number and its length in characters.
pub fn scrub(text: &str) -> String {
    let source: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < source.len() {
        let end = literal_end(&source, at);
        if end > at {
            out.extend(source[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(source[at]);
            at += 1;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none does.
fn literal_end(source: &[char], at: usize) -> usize {
    let get = |at: usize| source.get(at).copied().unwrap_or('\0');
    let within_word = at > 0 && (source[at - 1].is_alphanumeric() || source[at - 1] == '_');
    match (get(at), get(at + 1)) {
        ('/', '/') => (at..source.len()).find(|n| source[*n] == '\n').unwrap_or(source.len()),
        ('/', '*') => block_comment(source, at),
        ('"', _) => quoted(source, at + 1, '"'),
        ('b' | 'c', '"') if !within_word => quoted(source, at + 2, '"'),
        ('r', '"' | '#') if !within_word => raw(source, at + 1).unwrap_or(at),
        ('b' | 'c', 'r') if !within_word => raw(source, at + 2).unwrap_or(at),
        ('b', '\'') if !within_word => quoted(source, at + 2, '\''),
        // A lifetime has no second quote.
        ('\'', '\\') => quoted(source, at + 1, '\''),
        ('\'', _) if get(at + 2) == '\'' => at + 3,
        _ => at,
    }
}

fn block_comment(source: &[char], at: usize) -> usize {
    let (mut depth, mut n) = (0, at);
    while n + 1 < source.len() {
        match (source[n], source[n + 1]) {
            ('/', '*') => (depth, n) = (depth + 1, n + 2),
            ('*', '/') => (depth, n) = (depth - 1, n + 2),
            _ => n += 1,
        }
        if depth == 0 {
            return n;
        }
    }
    source.len()
}

fn quoted(source: &[char], mut at: usize, quote: char) -> usize {
    while at < source.len() {
        match source[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    source.len()
}

/// A raw string whose hashes begin at `at`; none when it is a raw identifier.
fn raw(source: &[char], at: usize) -> Option<usize> {
    let hashes = source[at..].iter().take_while(|c| **c == '#').count();
    if source.get(at + hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = at + hashes + 1;
    let found = source[body..].windows(end.len()).position(|window| window == end);
    Some(found.map_or(source.len(), |n| body + n + end.len()))
}

#[cfg(test)]
mod tests {
    use super::scrub;

    #[test]
    fn only_code_stays() {
        for (given, left) in [
            ("a // { unsafe\nb", "a b"),
            ("a /* { /* } */ { */ b", "a b"),
            (r#"f("{ \" unsafe") + 1"#, "f( ) + 1"),
            ("r#\"unsafe \" {\"# x", "x"),
            ("b'{' 'a' '\\'' '{' &'a str", "&'a str"),
            ("r#fn + bar\"{\"", "r#fn + bar"),
            ("\"line\n{\" }", "}"),
        ] {
            let scrubbed = scrub(given);
            assert_eq!(scrubbed.split_whitespace().collect::<Vec<_>>().join(" "), left, "{given}");
            assert_eq!(scrubbed.chars().count(), given.chars().count(), "{given}");
            assert_eq!(scrubbed.lines().count(), given.lines().count(), "{given}");
        }
    }
}
