//! Programs of the computer: found by name, named with their package when they are missing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// Of a failed program's output, what an error shows.
const SHOWN: usize = 2000;

/// A program of the computer and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    package: &'static str,
}

pub(crate) const IP: Program = Program {
    name: "ip",
    package: "iproute2",
};
pub(crate) const NSPAWN: Program = Program {
    name: "systemd-nspawn",
    package: "systemd-container",
};
pub(crate) const NSENTER: Program = Program {
    name: "nsenter",
    package: "util-linux",
};
pub(crate) const SETSID: Program = Program {
    name: "setsid",
    package: "util-linux",
};
pub(crate) const UMOUNT: Program = Program {
    name: "umount",
    package: "mount",
};
pub(crate) const DBUS: Program = Program {
    name: "dbus-daemon",
    package: "dbus",
};
pub(crate) const ETCD: Program = Program {
    name: "etcd",
    package: "etcd-server",
};
pub(crate) const ETCDCTL: Program = Program {
    name: "etcdctl",
    package: "etcd-client",
};
pub(crate) const JOURNALCTL: Program = Program {
    name: "journalctl",
    package: "systemd",
};
pub(crate) const SYSTEMD_RUN: Program = Program {
    name: "systemd-run",
    package: "systemd",
};
pub(crate) const SYSTEMCTL: Program = Program {
    name: "systemctl",
    package: "systemd",
};

impl Program {
    /// Where it is.
    ///
    /// # Errors
    /// [`Error::MissingProgram`] with its package.
    pub(crate) fn path(self) -> Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
            .map(|dir| dir.join(self.name))
            .find(|file| is_executable(file))
            .ok_or(Error::MissingProgram {
                program: self.name,
                package: self.package,
            })
    }

    /// A command that will run it.
    pub(crate) fn command(self) -> Result<Command> {
        Ok(Command::new(self.path()?))
    }

    /// Runs it to its end and returns its standard output.
    pub(crate) fn run<A: AsRef<OsStr>>(self, args: &[A]) -> Result<String> {
        self.run_with_input(args, "")
    }

    /// The same with text on its standard input.
    pub(crate) fn run_with_input<A: AsRef<OsStr>>(self, args: &[A], input: &str) -> Result<String> {
        let mut command = self.command()?;
        command.args(args);
        output_of(command, input)
    }

    /// The same with a file as its standard input, which it keeps open until it ends.
    pub(crate) fn run_with_file<A: AsRef<OsStr>>(self, args: &[A], file: File) -> Result<String> {
        let mut command = self.command()?;
        command.args(args);
        finish(command, file.into(), "")
    }
}

/// Runs a command of the computer to its end; an exit code other than 0 is an error.
pub(crate) fn output_of(command: Command, input: &str) -> Result<String> {
    let stdin = match input.is_empty() {
        true => Stdio::null(),
        false => Stdio::piped(),
    };
    finish(command, stdin, input)
}

fn finish(mut command: Command, stdin: Stdio, input: &str) -> Result<String> {
    let line = format!("{command:?}").replace('"', "");
    let failed = |status: String, stderr: String| Error::Command {
        command: line.clone(),
        status,
        stderr,
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed("not started".into(), e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why on stderr; the broken pipe says less.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|e| failed("lost".into(), e.to_string()))?;
    if !output.status.success() {
        return Err(failed(
            output.status.to_string(),
            tail(&String::from_utf8_lossy(&output.stderr), SHOWN),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last `bytes` of a text, cut at a line where there is one.
pub(crate) fn tail(text: &str, bytes: usize) -> String {
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(bytes);
    if start > 0 {
        start = text[..]
            .char_indices()
            .map(|(i, _)| i)
            .find(|i| *i >= start)
            .unwrap_or(0);
        start += text[start..].find('\n').map_or(0, |i| i + 1);
    }
    text[start..].to_owned()
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let none = Program {
            name: "no-such-program",
            package: "no-such-package",
        };
        let failure = none.path().unwrap_err().to_string();
        assert_eq!(
            failure,
            "the program no-such-program is missing: apt-get install no-such-package"
        );
    }

    #[test]
    fn a_tail_starts_at_a_line() {
        assert_eq!(tail("one\ntwo\nthree\n", 7), "three");
        assert_eq!(tail("short", 100), "short");
    }
}
