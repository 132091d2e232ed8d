//! A host's root tree: /usr is the computer's own, read-only; /etc and /var are the host's.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::At;
use crate::program::output_of;
use crate::record::Record;
use crate::{HostRecord, Result};

/// Where a host has fleetd and fleetctl; in PATH of commands, units and logins.
pub(crate) const BIN: &str = "/opt/fleet/bin";
/// PATH inside a host.
pub(crate) const PATH: &str =
    "/opt/fleet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const DIRECTORIES: [&str; 24] = [
    "usr",
    "proc",
    "sys",
    "dev",
    "run",
    "root",
    "home",
    "srv",
    "mnt",
    "media",
    "opt/fleet/bin",
    "etc/fleet",
    "etc/systemd/system",
    "etc/systemd/system.conf.d",
    "etc/systemd/journald.conf.d",
    "etc/systemd/system-generators",
    "etc/containers",
    "var/lib",
    "var/cache",
    "var/log/journal",
    "var/tmp",
    "tmp",
    "etc/tmpfiles.d",
    "etc/alternatives",
];

/// What of the computer's /etc a host sees as it is, where it exists, without a copy: it holds
/// hundreds of links, the targets of links in /usr (awk, editors).
pub(crate) const SHARED: &str = "/etc/alternatives";

/// What of the computer's /etc a host gets a copy of, where it exists: logins, the loader's
/// cache, names of protocols, podman's policies.
const COPIED: [&str; 10] = [
    "pam.d",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "protocols",
    "services",
    "login.defs",
    "containers",
    "localtime",
];

/// Units of /usr that make no sense in a host: hardware, consoles, networks that the sandbox
/// makes, mounts of the computer's kernel, services that the computer happens to have.
const MASKED: [&str; 45] = [
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-udev-settle.service",
    "systemd-logind.service",
    "dbus-org.freedesktop.login1.service",
    "systemd-user-sessions.service",
    "console-getty.service",
    "getty@.service",
    "getty.target",
    "getty-static.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-remount-fs.service",
    "systemd-sysusers.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-modules-load.service",
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-hwdb-update.service",
    "systemd-binfmt.service",
    "modprobe@.service",
    "kmod-static-nodes.service",
    "dev-hugepages.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-initctl.socket",
    "systemd-tmpfiles-clean.timer",
    "e2scrub_reap.service",
    "etcd.service",
    "postgresql.service",
    "podman.socket",
    "ssh.service",
];

/// Settings without which podman does not run here: crun may set no limits and make no
/// keyring, there is no pids controller, /proc/sys is read-only, and the host's network is
/// the container's. Its standard output goes to the unit's journal.
const CONTAINERS_CONF: &str = r#"[containers]
cgroups = "disabled"
netns = "host"
keyring = false
default_sysctls = []
pids_limit = 0
log_driver = "passthrough"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;

/// The journal survives a power cut, is bounded, and drops nothing that a test looks for.
const JOURNALD_CONF: &str = "[Journal]\nStorage=persistent\nSystemMaxUse=64M\nSystemMaxFileSize=16M\n\
    RateLimitIntervalSec=0\nForwardToConsole=no\n";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
    messagebus:x:101:101::/nonexistent:/usr/sbin/nologin\n\
    sshd:x:102:65534::/run/sshd:/usr/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";

const GROUP: &str = "root:x:0:\nadm:x:4:\ntty:x:5:\nutmp:x:43:\nmessagebus:x:101:\n\
    systemd-journal:x:104:\nnogroup:x:65534:\n";

/// Makes the tree of one host. What differs between hosts is its name and machine id.
pub(crate) fn make(record: &Record, host: &HostRecord) -> Result<()> {
    let root = &host.root;
    for directory in DIRECTORIES {
        make_directory(&root.join(directory))?;
    }
    for directory in &host.overlays {
        let changes = changes_of(host, directory);
        make_directory(&changes)?;
        if directory.ends_with("dpkg") {
            // The computer's names users that a host does not have; dpkg would refuse to work.
            write(&changes.join("statoverride"), "", 0o644)?;
        }
    }
    for open in ["tmp", "var/tmp"] {
        let path = root.join(open);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).at("open", path)?;
    }
    // A merged /usr, as the computer's: a link for each that the computer has.
    for top in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        if Path::new("/usr").join(top).exists() {
            link(&format!("usr/{top}"), &root.join(top))?;
        }
    }
    link("/run", &root.join("var/run"))?;
    copy_etc(root)?;
    // A file, not a link into /usr: nspawn looks for it before /usr is there.
    let release = fs::read_to_string("/usr/lib/os-release").at("read", "/usr/lib/os-release")?;
    let names: String = record
        .hosts
        .iter()
        .map(|h| format!("{} {}\n", h.address, h.name))
        .collect();
    for (file, text) in [
        ("etc/machine-id", format!("{}\n", host.machine_id)),
        ("etc/os-release", release),
        ("etc/hostname", format!("{}\n", host.name)),
        ("etc/hosts", format!("127.0.0.1 localhost\n{names}")),
        ("etc/passwd", PASSWD.to_owned()),
        ("etc/group", GROUP.to_owned()),
        ("etc/shadow", "root:*:19000::::::\n".to_owned()),
        ("etc/environment", format!("PATH={PATH}\n")),
        ("etc/containers/containers.conf", CONTAINERS_CONF.to_owned()),
        (
            "etc/systemd/journald.conf.d/sandbox.conf",
            JOURNALD_CONF.to_owned(),
        ),
        (
            "etc/systemd/system.conf.d/sandbox.conf",
            format!("[Manager]\nDefaultEnvironment=PATH={PATH}\n"),
        ),
    ] {
        write(&root.join(file), &text, 0o644)?;
    }
    let system = root.join("etc/systemd/system");
    for unit in MASKED {
        link("/dev/null", &system.join(unit))?;
    }
    link(
        "/usr/lib/systemd/system/multi-user.target",
        &system.join("default.target"),
    )?;
    // Nobody would take /run/nologin away again: user sessions are masked.
    link(
        "/dev/null",
        &root.join("etc/tmpfiles.d/systemd-nologin.conf"),
    )?;
    mask_generators(root)
}

/// Where a host's changes to a directory of the computer are.
pub(crate) fn changes_of(host: &HostRecord, directory: &Path) -> PathBuf {
    let flat = directory.to_string_lossy().replace('/', "-");
    host.changes.join(flat.trim_start_matches('-'))
}

/// Generators look for disks, consoles and scripts that a host has not; each runs at every
/// boot and at every daemon-reload. podman's makes units of containers and stays.
fn mask_generators(root: &Path) -> Result<()> {
    for entry in fs::read_dir("/usr/lib/systemd/system-generators")
        .into_iter()
        .flatten()
        .flatten()
    {
        if !entry.file_name().to_string_lossy().starts_with("podman") {
            link(
                "/dev/null",
                &root
                    .join("etc/systemd/system-generators")
                    .join(entry.file_name()),
            )?;
        }
    }
    Ok(())
}

fn copy_etc(root: &Path) -> Result<()> {
    let present: Vec<String> = COPIED
        .iter()
        .map(|n| format!("/etc/{n}"))
        .filter(|p| Path::new(p).exists())
        .collect();
    let mut copy = Command::new("cp");
    copy.arg("-a").args(present).arg(root.join("etc"));
    output_of(copy, "").map(|_| ())
}

/// Writes a file of the tree.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text).at("write", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).at("make directory", path)
}

pub(crate) fn link(target: &str, path: &Path) -> Result<()> {
    symlink(target, path).at("make link", path)
}
