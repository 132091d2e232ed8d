//! Machines for the tests of what only machines have: a systemd that says what it is told, and a journal
//! that is a file, printed by a child as journalctl prints it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use fleet_api::client::{Client, Endpoint};
use fleet_api::v2::SystemdView;
use fleet_core::agent::{Observed, Task};
use fleet_core::name::UnitName;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;

use super::*;
use crate::listen::{self, Listener};
use crate::peer::Plaintext;
use crate::units::{Changes, JournalQuery, UnitManager, as_child};

/// Far more than anything here takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A systemd and a journal.
pub(super) struct FakeMachine {
    id: String,
    journal: PathBuf,
    pub(super) units: Mutex<BTreeMap<String, SystemdView>>,
}

impl FakeMachine {
    /// Adds a line to the journal.
    pub(super) fn says(&self, at_us: u64, unit: &str, message: &str) {
        let n_lines = std::fs::read_to_string(&self.journal)
            .unwrap()
            .lines()
            .count();
        let line = serde_json::json!({
            "__CURSOR": format!("s={};i={}", self.id, n_lines + 1),
            "__REALTIME_TIMESTAMP": at_us.to_string(),
            "MESSAGE": message,
            "_SYSTEMD_UNIT": unit,
            "_HOSTNAME": self.id,
        });
        let mut file = OpenOptions::new().append(true).open(&self.journal).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    fn children(&self) -> PathBuf {
        self.journal.with_extension("children")
    }

    /// The journalctls that have been started here and still run.
    pub(super) fn running(&self) -> Vec<u32> {
        let started = std::fs::read_to_string(self.children()).unwrap_or_default();
        let started = started.lines().map(|pid| pid.parse().unwrap());
        started.filter(|pid| lives(*pid)).collect()
    }

    pub(super) fn n_started(&self) -> usize {
        let started = std::fs::read_to_string(self.children()).unwrap_or_default();
        started.lines().count()
    }

    /// From which line on the file is to be printed.
    fn first_line(&self, query: &JournalQuery) -> usize {
        let after = query.after.as_ref().map(|cursor| {
            let (_, number) = cursor.rsplit_once("i=").unwrap();
            number.parse::<usize>().unwrap()
        });
        let lines = std::fs::read_to_string(&self.journal).unwrap();
        let is_wanted = |line: &str| {
            let units = query.units.iter();
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            let at: u64 = entry["__REALTIME_TIMESTAMP"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            let is_new = query.after.is_some() || query.since_us.is_none_or(|since| at >= since);
            is_new
                && units
                    .map(UnitName::as_str)
                    .any(|unit| entry["_SYSTEMD_UNIT"] == unit)
        };
        let wanted = lines.lines().enumerate().skip(after.unwrap_or(0));
        let wanted: Vec<usize> = wanted
            .filter(|(_, line)| is_wanted(line))
            .map(|(number, _)| number + 1)
            .collect();
        let n_lines = query.lines.unwrap_or(wanted.len()).min(wanted.len());
        match wanted.get(wanted.len() - n_lines) {
            Some(first) => *first,
            None => lines.lines().count() + 1,
        }
    }
}

/// A killed child stays until its parent has looked at it.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !stat.is_empty() && !state.starts_with('Z')
}

#[async_trait]
impl UnitManager for FakeMachine {
    fn observe(&self, _: &UnitName) -> Observed {
        Observed::default()
    }

    fn observe_all(&self) -> BTreeMap<UnitName, Observed> {
        BTreeMap::new()
    }

    fn apply(&self, _: Vec<Task>) {}

    fn trouble(&self) -> Option<String> {
        None
    }

    async fn is_shutting_down(&self) -> bool {
        false
    }

    async fn changed(&self) -> Changes {
        std::future::pending().await
    }

    async fn inspect(&self, unit: &UnitName) -> Result<SystemdView, String> {
        let units = self.units.lock().unwrap();
        let view = units.get(unit.as_str()).cloned();
        view.ok_or_else(|| "systemd cannot be reached".to_owned())
    }

    fn journal(&self, query: &JournalQuery, _: &MachineId) -> Command {
        let units = query.units.iter().map(|unit| format!("-e '\"{unit}\"'"));
        let units: BTreeSet<String> = units.collect();
        let follow = if query.follow { "-f" } else { "" };
        let script = format!(
            "echo $$ >> {children}; tail --pid=$$ -n +{first} {follow} {journal} \
             | grep --line-buffered -F {units}; exit 0",
            children = self.children().display(),
            first = self.first_line(query),
            journal = self.journal.display(),
            units = units.into_iter().collect::<Vec<_>>().join(" "),
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        as_child(&mut command);
        command
    }
}

/// Machines of one cluster, each with an API of its own on a TCP port.
pub(super) struct Machines {
    pub(super) cluster: Cluster,
    pub(super) machines: BTreeMap<String, Arc<FakeMachine>>,
    addresses: BTreeMap<String, String>,
    stops: BTreeMap<String, watch::Sender<bool>>,
    directory: tempfile::TempDir,
}

impl Machines {
    /// Of these ids.
    pub(super) async fn up(ids: &[&str]) -> Machines {
        let mut machines = Machines {
            cluster: Cluster::new(),
            machines: BTreeMap::new(),
            addresses: BTreeMap::new(),
            stops: BTreeMap::new(),
            directory: tempfile::tempdir().unwrap(),
        };
        for id in ids {
            machines.join(id).await;
        }
        machines
    }

    async fn join(&mut self, id: &str) {
        let journal = self.directory.path().join(id);
        std::fs::write(&journal, "").unwrap();
        let machine = FakeMachine {
            id: id.to_owned(),
            journal,
            units: Mutex::default(),
        };
        self.machines.insert(id.to_owned(), Arc::new(machine));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        self.serve(id, listener);
        self.is_at(id, &address).await;
        self.cluster.member(id, MemberStatus::Present).await;
    }

    fn serve(&mut self, id: &str, listener: TcpListener) {
        let (stop, shutdown) = watch::channel(false);
        let manager = Arc::clone(&self.machines[id]);
        let state = ApiState::new(Arc::clone(&self.cluster.store), 100, "1.2.3")
            .with_units(MachineId::new(id), manager, Arc::new(Plaintext))
            .with_shutdown(shutdown.clone());
        let listeners = vec![Listener::Tcp(listener)];
        tokio::spawn(listen::serve(
            listeners,
            router(state),
            listen::Door::default(),
            shutdown,
        ));
        self.stops.insert(id.to_owned(), stop);
    }

    /// The machine says that its API is there.
    pub(super) async fn is_at(&mut self, id: &str, address: &str) {
        self.addresses.insert(id.to_owned(), address.to_owned());
        let record = MachineRecord {
            public_ip: "127.0.0.1".into(),
            api: address.into(),
            ..MachineRecord::default()
        };
        self.cluster.write(keys::machine(id), record.encode()).await;
    }

    /// Its fleetd stops.
    pub(super) fn stop(&mut self, id: &str) {
        self.stops.remove(id).unwrap().send_replace(true);
    }

    /// Its fleetd is back where it was.
    pub(super) async fn start(&mut self, id: &str) {
        let address = self.addresses[id].clone();
        let listener = TcpListener::bind(&address).await.unwrap();
        self.serve(id, listener);
    }

    /// A client of that machine's fleetd.
    pub(super) fn client(&self, id: &str) -> Client {
        let endpoint = format!("http://{}", self.addresses[id]);
        Client::new(Endpoint::parse(&endpoint).unwrap())
    }

    pub(super) fn machine(&self, id: &str) -> &FakeMachine {
        &self.machines[id]
    }

    /// A unit that runs on these machines, as far as the store knows.
    pub(super) async fn unit(&self, name: &str, on: &[&str]) {
        if self
            .cluster
            .read::<UnitRecord>(keys::unit(name))
            .await
            .is_none()
        {
            assert_eq!(self.cluster.put(name, SLEEP).await.status, 201);
        }
        let decision = self.cluster.place(name, on.first().copied()).await;
        for machine in on {
            let state = state(decision, Reached::Launched, "loaded/active/running");
            self.cluster.report(name, machine, state).await;
            let view = SystemdView {
                load: "loaded".into(),
                active: "active".into(),
                sub: "running".into(),
                main_pid: 42,
                memory: Some(1_024),
                ..SystemdView::default()
            };
            let units = &self.machines[*machine].units;
            units.lock().unwrap().insert(name.to_owned(), view);
        }
    }
}

/// Waits until something holds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("{what} does not come about"));
}
