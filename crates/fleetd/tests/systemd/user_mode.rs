//! fleetd with `systemd_user=true`: a user's own systemd, no root, the embedded store.
//!
//! The binaries are the release ones (`cargo build --release --bins`), or those in FLEET_BIN_DIR.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fleet_sandbox::{built_beside, wait_for};

use crate::rig::Manager;

/// `nobody`.
const UID: u32 = 65_534;

/// Nothing here takes longer, however busy the computer is.
const PATIENCE: Duration = Duration::from_secs(20);

/// A fleetd of the user; killed at the end.
struct Fleetd(Child);

impl Drop for Fleetd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn as_user(manager: &Manager, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            &UID.to_string(),
            "--regid",
            &UID.to_string(),
            "--clear-groups",
        ])
        .arg(program)
        .env("XDG_RUNTIME_DIR", manager.runtime())
        .env("XDG_STATE_HOME", manager.path("state"))
        .env("FLEET_SYSTEMD_USER", "true")
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

fn start_fleetd(manager: &Manager) -> Fleetd {
    let log = std::fs::File::create(manager.path("fleetd.log")).unwrap();
    Fleetd(
        as_user(manager, &manager.path("fleetd"))
            .stderr(log)
            .spawn()
            .unwrap(),
    )
}

fn fleetctl(manager: &Manager, args: &[&str]) -> Output {
    let endpoint = format!("unix://{}", manager.runtime().join("fleet.sock").display());
    as_user(manager, &manager.path("fleetctl"))
        .args(["--endpoint", &endpoint])
        .args(args)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Waits until fleetctl succeeds, which it does once fleetd serves and is ready for units.
fn wait_for_fleetctl(manager: &Manager, args: &[&str]) -> String {
    wait_for(&format!("fleetctl {args:?}"), PATIENCE, || {
        let output = fleetctl(manager, args);
        let log = std::fs::read_to_string(manager.path("fleetd.log")).unwrap_or_default();
        if output.status.success() {
            Ok(text(&output))
        } else {
            Err(format!("{}\n{log}", text(&output)))
        }
    })
    .unwrap()
}

#[test]
fn a_user_without_root_runs_units_and_a_killed_fleetd_touches_none() {
    let manager = Manager::boot_as(UID);
    let built: PathBuf = match std::env::var_os("FLEET_BIN_DIR") {
        Some(directory) => directory.into(),
        None => built_beside(&std::env::current_exe().unwrap()).join("../release"),
    };
    for name in ["fleetd", "fleetctl"] {
        let copy = manager.path(name);
        std::fs::copy(built.join(name), &copy).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let unit = manager.path("mine.service");
    std::fs::write(&unit, "[Service]\nExecStart=/bin/sleep infinity\n").unwrap();
    let private = manager.runtime().join("systemd/private");
    wait_for("the user's systemd", PATIENCE, || {
        if private.exists() {
            Ok(())
        } else {
            Err("no private socket")
        }
    })
    .unwrap();

    let fleetd = start_fleetd(&manager);
    wait_for_fleetctl(&manager, &["list-machines"]);
    wait_for_fleetctl(&manager, &["start", &unit.display().to_string()]);
    assert_eq!(manager.show("mine.service", "ActiveState"), "active");
    let invocation = manager.show("mine.service", "InvocationID");
    assert_eq!(invocation.len(), 32, "{invocation}");

    // kill -9, and the next one goes on with the same units and the same process.
    drop(fleetd);
    assert_eq!(manager.show("mine.service", "InvocationID"), invocation);
    let _fleetd = start_fleetd(&manager);
    let listed = wait_for_fleetctl(&manager, &["list-units", "--no-legend"]);
    assert!(listed.starts_with("mine.service"), "{listed}");
    assert_eq!(manager.show("mine.service", "InvocationID"), invocation);
    wait_for_fleetctl(&manager, &["destroy", "mine.service"]);
    assert_ne!(manager.show("mine.service", "ActiveState"), "active");
}
