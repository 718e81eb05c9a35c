//! `brig login`: try a user name and a password at a registry, and keep them for later.

use super::{Entry, flags, parser, registry_options};
use crate::report::{self, Outcome};
use crate::{output, terminal};
use brig_engine::{Error, Kind, Result, images};
use brig_registry::Kept;
use clap::Args;
use std::io::{BufRead, Read, Write};

/// The most bytes of a password.
const PASSWORD_MAX: u64 = 64 << 10;

#[derive(Debug, Args)]
struct Flags {
    /// The registry's host and port
    #[arg(default_value = "docker.io", hide_default_value = true)]
    server: String,
    /// The user name
    #[arg(short, long)]
    username: Option<String>,
    /// The password; others on the machine can read it in the list of processes
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

pub const ENTRY: Entry =
    Entry::new("login", || parser::<Flags>("login", "Log in to a registry"), |_, matches| execute(flags(matches)?))
        .for_everyone();

fn execute(flags: Flags) -> Outcome {
    let user = match flags.username {
        Some(user) => user,
        None => ask("Username: ", true)?,
    };
    let password = match flags.password {
        Some(password) => {
            report::warn("a password on the command line is seen by others; use `--password-stdin`");
            password
        }
        None if flags.password_stdin => {
            let mut text = String::new();
            let read = std::io::stdin().take(PASSWORD_MAX).read_to_string(&mut text);
            read.map_err(|error| Error::io("cannot read the password from standard input", error))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => ask("Password: ", false)?,
    };
    if password.is_empty() {
        return Err(Error::invalid("there is no password").hint("type one, or pipe it to `--password-stdin`"));
    }
    let kept = images::login(&registry_options(&flags.insecure)?, &flags.server, &user, password)?;
    if let Kept::File(path) = kept {
        report::warn(&format!("the credentials are kept in the clear in {}", path.display()));
    }
    output::line("Login Succeeded");
    Ok(0)
}

/// Asks on the terminal, with or without showing what is typed.
fn ask(prompt: &str, echo: bool) -> Result<String> {
    if !terminal::stdin_is_terminal() {
        return Err(Error::invalid("there is no terminal to ask for user name and password")
            .hint("give `--username` and pipe the password to `--password-stdin`"));
    }
    let failed = |error: std::io::Error| Error::io("cannot read from the terminal", error);
    let _ = std::io::stderr().lock().write_all(prompt.as_bytes());
    if echo {
        let mut line = String::new();
        std::io::stdin().lock().take(PASSWORD_MAX).read_line(&mut line).map_err(failed)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    // Raw, so that a key that would end the program cannot leave the terminal without echo.
    let raw = terminal::Raw::enter();
    let mut typed = Vec::new();
    let mut cancelled = false;
    for byte in std::io::stdin().lock().take(PASSWORD_MAX).bytes() {
        match byte.map_err(failed)? {
            b'\r' | b'\n' | 4 => break,
            3 => {
                cancelled = true;
                break;
            }
            8 | 127 => drop(typed.pop()),
            21 => typed.clear(),
            byte => typed.push(byte),
        }
    }
    drop(raw);
    let _ = std::io::stderr().lock().write_all(b"\n");
    if cancelled {
        return Err(Error::new(Kind::Cancelled, "nobody was logged in"));
    }
    String::from_utf8(typed).map_err(|_| Error::invalid("the password is not UTF-8"))
}
