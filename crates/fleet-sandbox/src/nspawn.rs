//! Power: switching a host on and off.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::At;
use crate::host::run_inside;
use crate::process::Process;
use crate::program::{NSPAWN, tail};
use crate::record::{HostRecord, Record, run_directory, update_host};
use crate::scope::Scope;
use crate::tree::{SHARED, changes_of};
use crate::wait::Deadline;
use crate::{Error, Result, network, wait_for};

/// From power on to basic.target: well under a second alone, several with fifty at once on two cores.
const BOOT_BOUND: Duration = Duration::from_secs(90);
/// Between two looks whether nspawn has died instead of telling its leader.
const ALIVE_EVERY: Duration = Duration::from_millis(100);
/// A datagram of sd_notify(3); nspawn's are short.
const NOTE: usize = 4096;
/// Of a console, what an error shows.
const SHOWN: usize = 3000;

/// Switches a host on and waits until its systemd has reached basic.target and answers on D-Bus.
/// What fleetd makes of it is not waited for: it may not reach its store.
pub(crate) fn power_on(record: &Record, host: &HostRecord) -> Result<()> {
    // What an earlier boot left: a host that switched itself off, or a half-done boot.
    power_off(record, host)?;
    network::plug(record, host)?;
    let notify = notify_socket(record, host);
    let _ = fs::remove_file(&notify);
    let socket = UnixDatagram::bind(&notify).at("bind", &notify)?;
    let env = [
        ("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1".to_owned()),
        ("NOTIFY_SOCKET", notify.to_string_lossy().into_owned()),
    ];
    host.scope.start(&command(host)?, &env, &host.console)?;
    let deadline = Deadline::after(BOOT_BOUND);
    let leader = await_leader(host, &socket, &deadline);
    let _ = fs::remove_file(&notify);
    let leader = leader?;
    let on = HostRecord {
        leader: Some(leader),
        ..host.clone()
    };
    update_host(&record.name, &host.name, |h| h.leader = on.leader)?;
    // `start` of a target that is being started waits for it: one wait inside, no polling,
    // except until PID 1 has opened its socket.
    let script = "systemctl start basic.target && \
        busctl --quiet call org.freedesktop.systemd1 / org.freedesktop.DBus.Peer Ping";
    let booted = wait_for("basic.target and D-Bus", deadline.remaining(), || {
        let bound = deadline.remaining().max(ALIVE_EVERY);
        match run_inside(&on, &["sh", "-c", script], None, bound) {
            Ok(output) if output.success() => Ok(Ok(())),
            // It will not come back: no need to wait for the bound.
            _ if !leader.is_alive() => Ok(Err("its systemd ended".to_owned())),
            Ok(output) => Err(output.stderr),
            Err(e) => Err(e.to_string()),
        }
    });
    booted
        .map_err(|e| e.to_string())
        .and_then(|ended| ended)
        .map_err(|why| boot_error(host, &why))
}

/// Cuts a host's power: its network first, so that no farewell gets out, then all of its
/// processes at once. Nothing to do is no error; the tree stays.
pub(crate) fn power_off(record: &Record, host: &HostRecord) -> Result<()> {
    network::silence(host)?;
    if let Some(leader) = host.leader {
        leader.signal(Signal::KILL);
    }
    host.scope.kill()?;
    network::unplug(host)?;
    // nspawn that is killed leaves these: its lock on the tree and its mount tunnel.
    if let Ok(tree) = fs::metadata(&host.root) {
        let _ = fs::remove_file(format!(
            "/run/systemd/nspawn/locks/inode-{}:{}",
            tree.dev(),
            tree.ino()
        ));
    }
    let _ = fs::remove_dir(Path::new("/run/systemd/nspawn/propagate").join(&host.name));
    let _ = fs::remove_file(notify_socket(record, host));
    Ok(())
}

/// The host's systemd: the one that was recorded, or after a reboot from inside its successor.
pub(crate) fn leader(host: &HostRecord) -> Result<Process> {
    match host.leader {
        Some(recorded) if recorded.is_alive() => Some(recorded),
        Some(_) => host
            .scope
            .processes()
            .into_iter()
            .find(Process::is_init_of_container),
        None => None,
    }
    .ok_or_else(|| Error::HostOff {
        host: host.name.clone(),
    })
}

/// The kernel's automounter.
const AUTOFS: &str = "/dev/autofs";

/// nspawn that keeps its unit does not reboot its container itself: it ends with exit code
/// 133 to be started again, by the computer's systemd or by a shell.
const REBOOTING: &str = r#"while "$@"; s=$?; [ $s = 133 ]; do :; done; exit $s"#;

fn command(host: &HostRecord) -> Result<Vec<String>> {
    let mut argv = match host.scope {
        Scope::Cgroups(_) => ["sh", "-c", REBOOTING, "sh"].map(str::to_owned).to_vec(),
        Scope::Unit(_) => Vec::new(),
    };
    argv.extend([NSPAWN.path()?.to_string_lossy().into_owned()]);
    argv.extend(
        // Nothing of the computer's settings, journal or resolver; not known to machined; in
        // the cgroup that it was started in.
        [
            "--quiet",
            "--settings=no",
            "--register=no",
            "--keep-unit",
            "--link-journal=no",
            "--resolv-conf=off",
        ]
        .map(str::to_owned),
    );
    argv.extend(["--timezone=off", "--console=read-only", "--capability=all"].map(str::to_owned));
    if !host.overlays.iter().any(|path| path == Path::new("/usr")) {
        argv.push("--bind-ro=/usr".to_owned());
    }
    for path in &host.overlays {
        let (path, changes) = (path.display(), changes_of(host, path));
        argv.push(format!("--overlay={path}:{}:{path}", changes.display()));
    }
    if Path::new(SHARED).is_dir() {
        argv.push(format!("--bind-ro={SHARED}"));
    }
    // A container has none of its own, and without it systemd supports no automount units.
    if Path::new(AUTOFS).exists() {
        argv.push(format!("--bind={AUTOFS}"));
    }
    argv.push(format!("--directory={}", host.root.display()));
    argv.push(format!("--machine={}", host.name));
    argv.push(format!(
        "--network-namespace-path=/run/netns/{}",
        host.netns
    ));
    argv.push("--boot".to_owned());
    Ok(argv)
}

fn notify_socket(record: &Record, host: &HostRecord) -> PathBuf {
    run_directory(&record.name).join(format!("{}.notify", host.name))
}

/// nspawn tells its leader's number in a notification.
fn await_leader(host: &HostRecord, socket: &UnixDatagram, deadline: &Deadline) -> Result<Process> {
    socket
        .set_read_timeout(Some(ALIVE_EVERY))
        .at("set the timeout of", &host.console)?;
    let mut note = [0; NOTE];
    loop {
        if let Ok(length) = socket.recv(&mut note)
            && let Some(leader) = leader_in(&String::from_utf8_lossy(&note[..length]))
        {
            return leader.ok_or_else(|| boot_error(host, "its systemd died at once"));
        }
        if host.scope.processes().is_empty() {
            return Err(boot_error(host, "systemd-nspawn ended"));
        }
        if deadline.remaining().is_zero() {
            return Err(boot_error(
                host,
                "systemd-nspawn did not say that it started",
            ));
        }
    }
}

/// Some when the note names a leader; Some(None) when that is dead already.
#[expect(
    clippy::option_option,
    reason = "no note, a dead leader, a leader: three answers"
)]
fn leader_in(note: &str) -> Option<Option<Process>> {
    let pid = note
        .lines()
        .find_map(|line| line.strip_prefix("X_NSPAWN_LEADER_PID="))?;
    Some(pid.parse().ok().and_then(Process::find))
}

fn boot_error(host: &HostRecord, why: &str) -> Error {
    let console = fs::read(&host.console).unwrap_or_default();
    Error::Boot {
        host: host.name.clone(),
        why: why.to_owned(),
        console: host.console.clone(),
        tail: tail(&String::from_utf8_lossy(&console), SHOWN),
    }
}
