//! Commands and shells at the user's terminal, here or on another machine.

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use super::arguments::{self, Session, double_quoted};
use super::failure::{SSH_FAILED, describe};
use super::lookup::Place;
use super::{Destination, Options, PROGRAM_VARIABLE, known_hosts};
use crate::error::CommandError;
use crate::exit::Exit;

/// Who this machine is.
const MACHINE_ID: &str = "/etc/machine-id";

/// A status that shells give to what a signal ended: this and the signal's number.
const SIGNAL_BASE: i32 = 128;

/// Runs a command at a host, or a shell if there is none, at our own stdin, stdout and stderr.
/// The far side has a terminal when we have one.
///
/// # Errors
/// ssh cannot be run. When it fails, it says why itself and its status is 255.
pub(crate) async fn remote(
    options: &Options,
    host: &str,
    session: Session,
    command: Option<&str>,
) -> Result<Exit, CommandError> {
    let session = Session {
        tty: Some(std::io::stdin().is_terminal()),
        ..session
    };
    let status = ssh(options, host, session, command, Stdio::inherit()).await?;
    if status.code() == Some(SSH_FAILED) {
        // Whether it was ssh or the command, nobody can tell; what it was has been said.
        let to = Destination {
            port: session.port,
            ..Destination::host(host)
        };
        let to = arguments::shown(options, &to);
        let what = match command {
            Some(_) => "Failed running command over SSH",
            None => "Failed opening shell over SSH",
        };
        let error = CommandError::new(format!("{what}: ssh to {to} ended with status 255"));
        return Err(CommandError {
            exit: exit(status),
            ..error
        });
    }
    Ok(exit(status))
}

/// Runs a program about units where they are: here if that is this machine.
///
/// # Errors
/// It cannot be run, or ssh fails (status 255).
pub(crate) async fn at(
    options: &Options,
    place: &Place,
    session: Session,
    words: &[String],
) -> Result<Exit, CommandError> {
    let is_here = machine_id().is_some_and(|id| id == place.id);
    if is_here {
        return here(words).await;
    }
    if place.address.is_empty() {
        let error = CommandError::new(format!(
            "Error getting machine IP: machine {} has no known address",
            place.id
        ));
        return Err(error.hint("fleetctl list-machines shows the machines that answer"));
    }
    let stdin = match session.tty {
        Some(true) => Stdio::inherit(),
        // The command asks nothing; a script's own input stays its own.
        _ => Stdio::null(),
    };
    let command = quote(words);
    let status = ssh(options, &place.address, session, Some(&command), stdin).await?;
    if status.code() == Some(SSH_FAILED) {
        let error = CommandError::new(format!(
            "Unable to SSH to remote host: {}: {}",
            place.legend(),
            describe(status)
        ));
        return Err(CommandError {
            exit: exit(status),
            ..error
        });
    }
    Ok(exit(status))
}

/// The program and a verb after it bare, all else in double quotes, as the original sends them.
fn quote(words: &[String]) -> String {
    let is_bare = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric());
    let quoted = words.iter().enumerate().map(|(idx, word)| {
        if idx < 2 && is_bare(word) {
            word.clone()
        } else {
            double_quoted(word)
        }
    });
    quoted.collect::<Vec<String>>().join(" ")
}

async fn here(words: &[String]) -> Result<Exit, CommandError> {
    let [program, arguments @ ..] = words else {
        return Ok(Exit::Success);
    };
    let status = Command::new(program).args(arguments).status().await;
    let status =
        status.map_err(|error| CommandError::new(format!("failed to run {program}: {error}")))?;
    Ok(exit(status))
}

async fn ssh(
    options: &Options,
    host: &str,
    session: Session,
    command: Option<&str>,
    stdin: Stdio,
) -> Result<ExitStatus, CommandError> {
    let building = |why: String| CommandError::new(format!("Failed building SSH client: {why}"));
    if options.strict_host_key_checking {
        known_hosts::prepare(&options.known_hosts_file).map_err(|error| {
            building(error.to_string()).hint("name another file with --known-hosts-file")
        })?;
    }
    let program = &options.program;
    let status = Command::new(program)
        .args(arguments::command(options, host, session, command))
        .stdin(stdin)
        .status()
        .await;
    status.map_err(|error| {
        building(format!("failed to run {program}: {error}")).hint(format!(
            "install ssh (Debian: openssh-client), or name it in {PROGRAM_VARIABLE}"
        ))
    })
}

fn machine_id() -> Option<String> {
    let id = std::fs::read_to_string(Path::new(MACHINE_ID)).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

fn exit(status: ExitStatus) -> Exit {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => SIGNAL_BASE + signal.unwrap_or_default(),
    };
    match u8::try_from(code) {
        Ok(0) => Exit::Success,
        Ok(code) => Exit::Other(code),
        Err(_) => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_as_the_original_does() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            quote(&words("systemctl status -l a@1.service")),
            r#"systemctl status "-l" "a@1.service""#
        );
        assert_eq!(
            quote(&words("sudo journalctl --unit x.service -n 10")),
            r#"sudo journalctl "--unit" "x.service" "-n" "10""#
        );
        assert_eq!(
            quote(&words("journalctl --unit x.service -n 10")),
            r#"journalctl "--unit" "x.service" "-n" "10""#
        );
    }

    #[test]
    fn statuses() {
        assert_eq!(exit(ExitStatus::from_raw(0)), Exit::Success);
        assert_eq!(exit(ExitStatus::from_raw(3 << 8)), Exit::Other(3));
        assert_eq!(exit(ExitStatus::from_raw(15)), Exit::Other(143));
    }
}
