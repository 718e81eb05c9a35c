//! What a source file must look like: a header, a bounded length, bounded functions, and `unsafe` at one address.

use super::Finding;
use super::scrub::scrub;
use std::path::Path;

const LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 120;

/// Checks one file; `path` is below the workspace.
pub fn check(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    let mut report = |line: usize, text: String| findings.push(Finding { path: path.to_owned(), line, text });
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if !first.starts_with("//!") {
        report(1, "no header, so nobody learns what this file is for; begin it with `//!` and one sentence".into());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        let text =
            format!("{lines} lines are more than one idea (at most {LINES_MAX}); split the file by what it does");
        report(LINES_MAX + 1, text);
    }
    let code = scrub(text);
    if !path.starts_with("crates/brig-sys") {
        for (at, line) in code.lines().enumerate() {
            if words(line).any(|word| word == "unsafe") {
                report(at + 1, "`unsafe` outside `brig-sys`; add a safe function there, or use rustix".into());
            }
        }
    }
    for function in functions(&code) {
        if function.lines > FUNCTION_LINES_MAX {
            let text = format!(
                "`{}` has {} lines (at most {FUNCTION_LINES_MAX}), too many to read as steps; give parts of it names of their own",
                function.name, function.lines
            );
            report(function.line, text);
        }
    }
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Finds the functions of scrubbed code, those within functions too. Ones without a body are left out.
fn functions(code: &str) -> Vec<Function> {
    let code: Vec<char> = code.chars().collect();
    let is_word = |at: usize| code.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_');
    let mut found = Vec::new();
    let mut line = 1;
    for at in 0..code.len() {
        if code[at] == '\n' {
            line += 1;
        }
        let keyword = code[at..].starts_with(&['f', 'n']) && !is_word(at + 2) && (at == 0 || !is_word(at - 1));
        if !keyword || code[..at].ends_with(&['r', '#']) {
            continue;
        }
        let name: String = code[at + 2..]
            .iter()
            .skip_while(|c| c.is_whitespace())
            .take_while(|c| c.is_alphanumeric() || **c == '_')
            .collect();
        // `fn(u8) -> u8` is a type.
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(&code, at) {
            let lines = code[at..end].iter().filter(|c| **c == '\n').count() + 1;
            found.push(Function { name, line, lines });
        }
    }
    found
}

/// Where the body of the function ends whose declaration begins at `at`.
fn body_end(code: &[char], at: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut body = 0usize;
    for (n, c) in code.iter().enumerate().skip(at) {
        match c {
            '(' | '[' if body == 0 => depth += 1,
            ')' | ']' if body == 0 => depth = depth.saturating_sub(1),
            ';' if body == 0 && depth == 0 => return None,
            '{' if depth == 0 => body += 1,
            '}' if depth == 0 && body > 0 => {
                body -= 1;
                if body == 0 {
                    return Some(n);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(Path::new(path), text, &mut findings);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_file_passes() {
        let text =
            "//! What it is.\n\n// unsafe in words\nfn f(a: [u8; 3]) -> &'static str {\n    \"unsafe { fn\"\n}\n";
        assert!(found("crates/brig-net/src/a.rs", text).is_empty(), "{:?}", found("a.rs", text));
        assert!(found("crates/brig-sys/src/a.rs", "//! X.\nfn f() { unsafe { g() } }\n").is_empty());
    }

    #[test]
    fn headers_are_missed() {
        assert!(found("a.rs", "\nuse std::io;\n")[0].starts_with("a.rs:1: no header"));
        assert!(found("a.rs", "")[0].starts_with("a.rs:1: no header"));
    }

    #[test]
    fn unsafe_is_found_where_it_stands() {
        let found =
            found("crates/brig-net/src/a.rs", "//! X.\n#![forbid(unsafe_code)]\nfn f() {\n    unsafe { g() }\n}\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("crates/brig-net/src/a.rs:4: `unsafe` outside"), "{found:?}");
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let long = format!("//! X.\n{}", "\n".repeat(1000));
        assert!(found("a.rs", &long)[0].starts_with("a.rs:1001: 1001 lines"));
        assert!(found("a.rs", &long[..long.len() - 1]).is_empty());
        let function = |lines: usize| {
            format!("//! X.\nimpl A {{\n    fn f(a: [u8; 2]) {{\n{}    }}\n}}\n", "        g({});\n".repeat(lines - 2))
        };
        assert!(found("a.rs", &function(120)).is_empty());
        assert!(found("a.rs", &function(121))[0].starts_with("a.rs:3: `f` has 121 lines"));
    }

    #[test]
    fn functions_are_told_from_types_and_declarations() {
        let code = "trait T { fn a(&self); fn b(&self) { } }\nfn c(f: fn(u8) -> u8) where u8: Copy {\n  fn d() {}\n}\n";
        let names: Vec<_> = functions(code).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(names, [("b".into(), 1, 1), ("c".into(), 2, 3), ("d".into(), 3, 1)]);
    }
}
