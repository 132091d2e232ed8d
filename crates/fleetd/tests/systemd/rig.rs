//! A private `systemd --user`, and a machine that is planned for and driven on it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fleet_core::agent::{Circumstances, Observed, Phase, Task, plan, plan_unit};
use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::records::{AssignmentRecord, Decision, Order, Reached};
use fleetd::units::{Systemd, SystemdConfig, UnitManager};

/// Nothing here takes longer, however busy the computer is; a wait ends as soon as it can.
const PATIENCE: Duration = Duration::from_secs(30);

static N_MANAGERS: AtomicU32 = AtomicU32::new(0);

/// A running `systemd --user`.
pub(crate) struct Manager {
    root: tempfile::TempDir,
    uid: u32,
    shell: Child,
    undertaker: Child,
}

/// Waits for the end of the test, however it ends, and ends all that runs in its cgroups.
const UNDERTAKER: &str = "
    cat > /dev/null
    for n in $(seq 1000); do
        procs=$(find \"$@\" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u)
        [ -n \"$procs\" ] || break
        kill -KILL $procs 2>/dev/null
        sleep 0.01
    done
    find \"$@\" -depth -type d -exec rmdir {} +
";

impl Manager {
    /// Of root, who runs the tests.
    pub(crate) fn boot() -> Manager {
        Manager::boot_as(0)
    }

    /// Of a user: everything that it needs belongs to that user.
    pub(crate) fn boot_as(uid: u32) -> Manager {
        let root = tempfile::Builder::new()
            .prefix("fleet-systemd-")
            .tempdir()
            .unwrap();
        let n = N_MANAGERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("fleet-test-{}-{n}", std::process::id());
        // On a unified hierarchy the first is it; on hybrid ones systemd uses the other two.
        let hierarchies = if Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
            vec![PathBuf::from("/sys/fs/cgroup")]
        } else {
            ["unified", "systemd"]
                .map(|h| Path::new("/sys/fs/cgroup").join(h))
                .into_iter()
                .filter(|h| h.exists())
                .collect()
        };
        let cgroups: Vec<PathBuf> = hierarchies.iter().map(|h| h.join(&name)).collect();
        let mut script = String::from("set -e\n");
        let own = |path: &Path| std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        own(root.path());
        for cgroup in &cgroups {
            fs::create_dir_all(cgroup).unwrap();
            own(cgroup);
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                let file = cgroup.join(file);
                if file.exists() {
                    own(&file);
                }
            }
            script += &format!("echo $$ > {}/cgroup.procs\n", cgroup.display());
        }
        let run = root.path().join("run");
        fs::create_dir_all(&run).unwrap();
        own(&run);
        fs::write(root.path().join("may-run"), "").unwrap();
        script += &format!(
            "exec unshare -m sh -c '
               mount --make-rprivate / && mount -t tmpfs tmpfs /run/systemd && chmod 755 /run/systemd
               mkdir /run/systemd/system
               export XDG_RUNTIME_DIR={run} HOME={root}
               while :; do
                 until [ -e {root}/may-run ]; do sleep 0.02; done
                 setpriv --reuid {uid} --regid {uid} --clear-groups --pdeathsig KILL /lib/systemd/systemd --user --unit=basic.target & wait
               done'",
            run = run.display(),
            root = root.path().display(),
        );
        let log = || fs::File::create(root.path().join("log")).unwrap();
        let undertaker = Command::new("sh")
            .args(["-c", UNDERTAKER, "undertaker"])
            .args(&cgroups)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log())
            .spawn()
            .unwrap();
        let shell = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log())
            .spawn()
            .unwrap();
        Manager {
            root,
            uid,
            shell,
            undertaker,
        }
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.root.path().join("run")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Where systemd finds links to unit files.
    pub(crate) fn links(&self) -> PathBuf {
        self.runtime().join("systemd/user")
    }

    pub(crate) fn config(&self) -> SystemdConfig {
        let runtime = self.runtime();
        SystemdConfig::user(
            &runtime,
            &runtime.join("fleet/units"),
            &runtime.join("fleet"),
            "boot-1",
        )
    }

    pub(crate) fn systemctl(&self, args: &[&str]) -> String {
        self.as_manager("systemctl", &[&["--user"], args].concat())
    }

    /// Runs a command of systemd's; what it says.
    pub(crate) fn as_manager(&self, program: &str, args: &[&str]) -> String {
        // A bus client must be the user whose systemd it is.
        let uid = self.uid.to_string();
        let output = Command::new("setpriv")
            .args(["--reuid", &uid, "--regid", &uid, "--clear-groups"])
            .arg(program)
            .args(args)
            .env("XDG_RUNTIME_DIR", self.runtime())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        text.trim().to_owned()
    }

    /// What `systemctl show` says of one property.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        self.systemctl(&["show", "-P", property, unit])
    }

    /// Kills the manager. Another comes if `may-run` exists.
    pub(crate) fn kill(&self) {
        let stream = UnixStream::connect(self.runtime().join("systemd/private")).unwrap();
        let pid = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            println!("systemd said: {log}");
        }
        drop(self.undertaker.stdin.take());
        let _ = self.undertaker.wait();
        let _ = self.shell.wait();
    }
}

/// A machine: what is assigned to it, and the driver that makes it so.
pub(crate) struct Machine {
    pub(crate) systemd: Arc<Systemd>,
    pub(crate) desired: BTreeMap<UnitName, AssignmentRecord>,
    pub(crate) done: Vec<Task>,
    seq: u64,
}

impl Machine {
    /// A driver on this manager, connected.
    pub(crate) async fn on(manager: &Manager) -> Machine {
        Machine::with(manager.config()).await
    }

    pub(crate) async fn with(config: SystemdConfig) -> Machine {
        let mut machine = Machine {
            systemd: Systemd::new(config),
            desired: BTreeMap::new(),
            done: Vec::new(),
            seq: 0,
        };
        machine
            .until("systemd is reached", |m| m.systemd.trouble().is_none())
            .await;
        machine
    }

    /// The daemon dies and another comes: nothing is kept but what is assigned.
    pub(crate) async fn restart(&mut self, manager: &Manager) {
        let desired = std::mem::take(&mut self.desired);
        let seq = self.seq;
        self.systemd = Systemd::new(SystemdConfig {
            run_directory: manager.runtime().join("fleet"),
            ..manager.config()
        });
        *self = Machine {
            systemd: Arc::clone(&self.systemd),
            desired,
            done: Vec::new(),
            seq,
        };
        self.until("systemd is reached", |m| m.systemd.trouble().is_none())
            .await;
    }

    /// A new wish for a unit: its generation grows.
    pub(crate) fn assign(&mut self, unit: &str, order: Order, text: &str) {
        self.seq += 1;
        let decision = Decision {
            generation: self.seq,
            seq: self.seq,
        };
        let record = AssignmentRecord {
            text: if order == Order::Gone { "" } else { text }.into(),
            hash: UnitHash::of(text.as_bytes()),
            decision,
            order,
            restarts: 0,
            reason: "test".to_owned(),
        };
        self.desired.insert(name(unit), record);
    }

    pub(crate) fn launch(&mut self, unit: &str, text: &str) {
        self.assign(unit, Order::Launched, text);
    }

    pub(crate) fn observe(&self, unit: &str) -> Observed {
        self.systemd.observe(&name(unit))
    }

    /// How far a unit has come, if that stands for a while.
    pub(crate) fn reached(&self, unit: &str) -> Option<(Reached, Option<String>)> {
        let unit = name(unit);
        let plan = plan_unit(
            &unit,
            self.desired.get(&unit),
            &self.systemd.observe(&unit),
            Circumstances::GOOD,
        );
        let report = plan.report.filter(|report| report.settled)?;
        Some((report.reached, report.why))
    }

    /// Plans and applies until `unit` has settled, and says how.
    pub(crate) async fn settled(&mut self, unit: &str) -> (Reached, Option<String>) {
        self.until(&format!("{unit} has settled"), |m| {
            m.reached(unit).is_some()
        })
        .await;
        self.reached(unit).unwrap()
    }

    /// Plans and applies until every unit has reached what its order says.
    pub(crate) async fn settle_all(&mut self) {
        self.until("all is as assigned", |m| {
            m.desired.iter().all(|(unit, assignment)| {
                let reached = m.reached(unit.as_str()).map(|(reached, _)| reached);
                reached
                    == Some(match assignment.order {
                        Order::Gone => Reached::Gone,
                        Order::Loaded => Reached::Loaded,
                        Order::Launched => Reached::Launched,
                    })
            })
        })
        .await;
    }

    /// Plans and applies until `is_so`.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Machine) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if self.systemd.trouble().is_none() {
                let tasks = self.plan();
                self.done.extend(tasks.iter().cloned());
                self.systemd.apply(tasks);
            }
            if is_so(self) {
                return;
            }
            let changed = self.systemd.changed();
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                let seen = self.systemd.observe_all();
                let trouble = self.systemd.trouble();
                panic!(
                    "waited in vain until {what}: {trouble:?} {seen:#?} {:?}",
                    self.words()
                );
            }
        }
    }

    pub(crate) fn plan(&self) -> Vec<Task> {
        plan(
            &self.desired,
            &self.systemd.observe_all(),
            Circumstances::GOOD,
        )
    }

    /// The tasks that were done: `start a.service`.
    pub(crate) fn words(&self) -> Vec<String> {
        let words = self.done.iter();
        words
            .map(|task| format!("{} {}", task.kind.as_str(), task.unit))
            .collect()
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.systemd.trouble()
    }

    pub(crate) fn phase(&self, unit: &str) -> Option<Phase> {
        self.observe(unit).record.map(|record| record.phase)
    }
}

pub(crate) fn name(unit: &str) -> UnitName {
    UnitName::parse(unit).unwrap()
}

/// A service that runs this command.
pub(crate) fn service(command: &str) -> String {
    format!("[Unit]\nDescription=Test %n\n\n[Service]\nExecStart={command}\n")
}

/// Runs a test on one thread, as fleetd runs.
pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}
