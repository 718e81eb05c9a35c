//! An error with its causes as one line: for records, for another process, for a table.

/// Joins an error's text and those of its causes by colons, the outermost first.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
