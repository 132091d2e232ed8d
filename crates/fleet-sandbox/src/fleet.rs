//! fleetd in a host: its binaries, its configuration, its units.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::At;
use crate::record::Record;
use crate::tree::{BIN, link, make_directory, write};
use crate::{Error, HostRecord, Result};

/// What a host has of fleet.
pub(crate) struct Fleet {
    /// The sandbox's own copies of fleetd and fleetctl: a build meanwhile changes no host.
    binaries: Vec<PathBuf>,
    /// Lines to add to fleet.conf; a key that stands twice has its last value.
    pub(crate) extra: String,
    /// Addresses that fleet.socket listens on besides /run/fleet.sock.
    pub(crate) listen: Vec<String>,
}

/// The units as they are shipped, so that every test on hosts tests them, their sandboxing too.
const SERVICE: &str = include_str!("../../../contrib/systemd/fleet.service");
const SOCKET: &str = include_str!("../../../contrib/systemd/fleet.socket");

/// Where the shipped units expect binaries.
const SHIPPED_BIN: &str = "/usr/bin/";

/// Who may use the socket.
const GROUP: &str = "fleet:x:103:\n";

impl Fleet {
    /// Copies the binaries from where they were built into the sandbox.
    pub(crate) fn gather(from: &Path, sandbox: &Path) -> Result<Fleet> {
        let own = sandbox.join("bin");
        make_directory(&own)?;
        let mut binaries = Vec::new();
        for name in ["fleetd", "fleetctl"] {
            let built = from.join(name);
            let copy = own.join(name);
            match fs::copy(&built, &copy) {
                Ok(_) => binaries.push(copy),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::Invalid(format!(
                        "{} has no {name}: build it (cargo build --release -p {name}), or name another --bin-dir, or --no-fleetd",
                        from.display()
                    )));
                }
                Err(e) => {
                    return Err(Error::File {
                        what: "copy",
                        path: built,
                        source: e,
                    });
                }
            }
        }
        Ok(Fleet {
            binaries,
            extra: String::new(),
            listen: Vec::new(),
        })
    }

    /// Puts fleet into one host's tree, to be started at boot.
    pub(crate) fn install(&self, record: &Record, host: &HostRecord) -> Result<()> {
        for binary in &self.binaries {
            let Some(name) = binary.file_name() else {
                continue;
            };
            let to = host.root.join(BIN.trim_start_matches('/')).join(name);
            // One copy for all hosts; replacing it in one host makes a file of its own there.
            fs::hard_link(binary, &to).at("link", to)?;
        }
        append(&host.root.join("etc/group"), GROUP)?;
        let system = host.root.join("etc/systemd/system");
        let service = SERVICE.replace(&format!("{SHIPPED_BIN}fleetd"), &format!("{BIN}/fleetd"));
        let sockets: String = self
            .listen
            .iter()
            .map(|address| format!("ListenStream={address}\n"))
            .collect();
        write(&system.join("fleet.service"), &service, 0o644)?;
        write(&system.join("fleet.socket"), SOCKET, 0o644)?;
        if !sockets.is_empty() {
            let directory = system.join("fleet.socket.d");
            make_directory(&directory)?;
            let text = format!("[Socket]\n{sockets}");
            write(&directory.join("sandbox.conf"), &text, 0o644)?;
        }
        for (target, unit) in [
            ("multi-user.target", "fleet.service"),
            ("sockets.target", "fleet.socket"),
        ] {
            let wants = system.join(format!("{target}.wants"));
            make_directory(&wants)?;
            link(&format!("../{unit}"), &wants.join(unit))?;
        }
        let text = configuration(record, host, &self.extra);
        write(&host.root.join("etc/fleet/fleet.conf"), &text, 0o644)
    }
}

fn append(path: &Path, line: &str) -> Result<()> {
    let text = fs::read_to_string(path).at("read", path)?;
    write(path, &(text + line), 0o644)
}

fn configuration(record: &Record, host: &HostRecord, extra: &str) -> String {
    let mut text = format!("public_ip=\"{}\"\n", host.address);
    if !record.etcd.is_empty() {
        text += &format!("etcd_servers=\"{}\"\n", record.etcd_servers().join(","));
    }
    if !host.metadata.is_empty() {
        text += &format!("metadata=\"{}\"\n", host.metadata.join(","));
    }
    text + extra
        + if extra.is_empty() || extra.ends_with('\n') {
            ""
        } else {
            "\n"
        }
}
