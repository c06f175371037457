//! Commands: printed as a reader could type them, and run in the workspace's root.

use std::{
    env,
    ffi::OsStr,
    io::{self, ErrorKind, IsTerminal as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::workspace;

/// `cargo ARGS…` in the workspace's root.
///
/// Not quiet, even if we are: `.cargo/config.toml` may tell the cargo inside build scripts to be,
/// and `cargo run` tells us the same.
pub fn cargo<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(args)
        .env_remove("CARGO_TERM_QUIET")
        .current_dir(workspace::root());
    command
}

/// Prints `command`, runs it with our own standard streams, and fails if it does.
pub fn run(command: &mut Command) -> Result<()> {
    announce(&line(command));
    let status = command
        .status()
        .map_err(|error| cannot_start(command, &error))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// What `command` prints on standard output; its standard error is in the error if it fails.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(|error| cannot_start(command, &error))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", line(command), stderr.trim());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", line(command)))
}

/// Says why `command` did not even start.
pub fn cannot_start(command: &Command, error: &io::Error) -> anyhow::Error {
    let program = command.get_program().display();
    if error.kind() == ErrorKind::NotFound {
        anyhow!("cannot run {program}: there is no such program")
    } else {
        anyhow!("cannot run {program}: {error}")
    }
}

/// Prints a command line the way a shell transcript shows it.
pub fn announce(line: &str) {
    println!("{}", bold(&format!("$ {line}")));
}

/// `text` in bold, where somebody looks at it.
pub fn bold(text: &str) -> String {
    if io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// The command line, with the environment variables that were set for it, quoted for a shell.
pub fn line(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_string_lossy(), value?)))
        .map(|(name, value)| format!("{name}={}", quoted(value)));
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(quoted);
    set.chain(words).collect::<Vec<_>>().join(" ")
}

/// One word for a shell; a path in the workspace is shortened to what one types in its root.
fn quoted(word: &OsStr) -> String {
    let word = workspace::display(Path::new(word)).to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+,./:@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether a program of this name is on the PATH.
pub fn has(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("curl");
        command
            .arg("-H")
            .arg("it's: here")
            .arg("")
            .arg("http://[::1]/")
            .arg(workspace::root().join("target/x"))
            .env("A", "1 2");
        assert_eq!(
            line(&command),
            r"A='1 2' curl -H 'it'\''s: here' '' 'http://[::1]/' target/x"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-of-spotsim")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot run no-such-program-of-spotsim: there is no such program"
        );
    }

    #[test]
    fn what_a_failing_command_says_is_in_the_error() {
        let error = read(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().ends_with("failed: why"), "{error}");
    }
}
