//! The original's client against a whole fleetd: store, engine, agent and API, with a systemd
//! that does everything at once, but for stopping, which takes it a moment.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::agent::{Observed, Phase, Task, TaskKind, Working};
use fleet_core::name::UnitName;
use tokio::sync::{Notify, watch};

use super::original_client::Fleetctl;
use super::*;
use crate::config::Config;
use crate::lease_thread::LeaseThread;
use crate::listen::Listener;
use crate::pki::Pki;
use crate::server::{Deps, Server};
use crate::units::{Changes, UnitManager};

const ID: &str = "63d22e369175433883a37d92cc53f36c";

/// Longer than the client waits before it looks again.
const STOPPING: Duration = Duration::from_millis(100);

/// Does at once what it is told, and stops in a moment.
#[derive(Clone, Default)]
struct AtOnce(Arc<Inner>);

#[derive(Default)]
struct Inner {
    units: Mutex<BTreeMap<UnitName, Observed>>,
    changes: Mutex<Changes>,
    changed: Notify,
}

impl Inner {
    fn done(&self, task: Task) {
        self.changes.lock().unwrap().units.insert(task.unit.clone());
        self.run(task);
        self.changed.notify_one();
    }

    fn run(&self, task: Task) {
        let mut units = self.units.lock().unwrap();
        let unit = units.entry(task.unit.clone()).or_default();
        unit.working = None;
        let set = |unit: &mut Observed, systemd: [&str; 3]| {
            [unit.load, unit.active, unit.sub] = systemd.map(str::to_owned);
        };
        match task.kind {
            TaskKind::Stop(_) => set(unit, ["loaded", "inactive", "dead"]),
            TaskKind::Load(record, _) => {
                unit.file = Some(record.hash);
                unit.record = Some(record);
                set(unit, ["loaded", "inactive", "dead"]);
            }
            TaskKind::Unload(record) => {
                unit.file = None;
                unit.record = Some(record);
                set(unit, ["not-found", "inactive", "dead"]);
            }
            TaskKind::Remember(record) => unit.record = Some(record),
            TaskKind::Forget => {
                units.remove(&task.unit);
            }
            TaskKind::Start(mut record) | TaskKind::Restart(mut record) => {
                record.phase = Phase::Launched;
                record.invocation_id.push('1');
                unit.invocation_id.clone_from(&record.invocation_id);
                unit.record = Some(record);
                set(unit, ["loaded", "active", "running"]);
            }
        }
    }
}

#[async_trait]
impl UnitManager for AtOnce {
    fn observe(&self, unit: &UnitName) -> Observed {
        let units = self.0.units.lock().unwrap();
        units.get(unit).cloned().unwrap_or_default()
    }

    fn observe_all(&self) -> BTreeMap<UnitName, Observed> {
        self.0.units.lock().unwrap().clone()
    }

    fn apply(&self, tasks: Vec<Task>) {
        for task in tasks {
            if !matches!(task.kind, TaskKind::Stop(_)) {
                self.0.done(task);
                continue;
            }
            if let Some(unit) = self.0.units.lock().unwrap().get_mut(&task.unit) {
                unit.working = Some(Working::Stopping);
                unit.active = "deactivating".to_owned();
            }
            let inner = Arc::clone(&self.0);
            tokio::spawn(async move {
                tokio::time::sleep(STOPPING).await;
                inner.done(task);
            });
        }
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    async fn is_shutting_down(&self) -> bool {
        false
    }

    async fn changed(&self) -> Changes {
        loop {
            let changes = std::mem::take(&mut *self.0.changes.lock().unwrap());
            if changes != Changes::default() {
                return changes;
            }
            self.0.changed.notified().await;
        }
    }
}

/// Runs a session of an original fleetctl with a fleetd of its own.
async fn session(session: impl FnOnce(&mut Fleetctl, &AtOnce) + Send + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fleet.sock");
    let manager = AtOnce::default();
    let config = Config {
        public_ip: Some("172.30.1.2".into()),
        metadata: map(&[("hostname", "h1")]),
        run_directory: directory.path().to_owned(),
        token_limit: 2,
        ..Config::for_system()
    };
    let deps = Deps {
        machine: MachineId::new(ID),
        store: MemoryStore::new(),
        manager: Arc::new(manager.clone()),
        listeners: vec![Listener::Unix(
            tokio::net::UnixListener::bind(&path).unwrap(),
        )],
        leases: LeaseThread::default(),
        pki: Pki::off(),
    };
    let (stop, shutdown) = watch::channel(false);
    let server = tokio::spawn(Server::build(&config, deps).0.run(shutdown));
    tokio::task::spawn_blocking(move || {
        let mut fleetctl = Fleetctl::over(UnixStream::connect(&path).unwrap());
        session(&mut fleetctl, &manager);
    })
    .await
    .unwrap();
    stop.send_replace(true);
    server.await.unwrap().unwrap();
}

const HELLO: &[(&str, &str, &str)] = &[
    ("Unit", "Description", "Hello World"),
    ("Service", "ExecStart", "/bin/sleep 3000"),
];

const CHANGED: &[(&str, &str, &str)] = &[("Service", "ExecStart", "/bin/sleep 4000")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_of_the_original_works_as_before() {
    session(|fleetctl, systemd| {
        let check = |fleetctl: &mut Fleetctl, expected: &[&str]| {
            assert_eq!(fleetctl.printed(), expected);
        };
        let on = "on 63d22e36.../172.30.1.2";
        fleetctl.submit("hello.service", HELLO, false);
        fleetctl.start("hello.service");
        check(
            fleetctl,
            &[
                "Unit hello.service inactive",
                &format!("Unit hello.service launched {on}"),
            ],
        );
        // Again: silent.
        fleetctl.submit("hello.service", HELLO, false);
        fleetctl.start("hello.service");
        check(fleetctl, &[]);

        // --replace takes the unit down first, waits for that, and starts it anew.
        fleetctl.submit("hello.service", CHANGED, true);
        check(fleetctl, &["Unit hello.service inactive"]);
        let name = UnitName::parse("hello.service").unwrap();
        assert!(systemd.observe(&name).is_down());
        fleetctl.start("hello.service");
        check(fleetctl, &[&format!("Unit hello.service launched {on}")]);
        assert_eq!(systemd.observe(&name).active, "active");

        fleetctl.stop("hello.service");
        fleetctl.stop("hello.service");
        fleetctl.load("hello.service");
        fleetctl.unload("hello.service");
        assert!(systemd.observe(&name).is_down());
        fleetctl.stop("hello.service");
        check(
            fleetctl,
            &[
                &format!("Unit hello.service loaded {on}"),
                &format!("Unit hello.service loaded {on}"),
                "Unit hello.service inactive",
                "Unable to stop unit hello.service in state inactive",
            ],
        );
        fleetctl.destroy("hello.service");
        fleetctl.destroy("hello.service");
        check(
            fleetctl,
            &[
                "Destroyed hello.service",
                "googleapi: Error 404: unit does not exist",
            ],
        );
        // Destroyed and handed in at once again.
        fleetctl.submit("hello.service", HELLO, false);
        fleetctl.start("hello.service");
        fleetctl.destroy("hello.service");
        fleetctl.submit("hello.service", CHANGED, false);
        fleetctl.start("hello.service");
        check(
            fleetctl,
            &[
                "Unit hello.service inactive",
                &format!("Unit hello.service launched {on}"),
                "Destroyed hello.service",
                "Unit hello.service inactive",
                &format!("Unit hello.service launched {on}"),
            ],
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_templates_and_global_units_of_the_original() {
    session(|fleetctl, _| {
        let global = &[
            ("Service", "ExecStart", "/bin/sleep 3000"),
            ("X-Fleet", "Global", "true"),
        ];
        fleetctl.submit("g.service", global, false);
        fleetctl.start("g.service");
        for unit in ["s@.service", "s@1.service", "s@2.service"] {
            fleetctl.submit(unit, HELLO, false);
        }
        fleetctl.start("s@2.service");
        assert_eq!(
            fleetctl.printed(),
            [
                // There is no current state to print.
                "Unit g.service ",
                "Triggered global unit g.service start",
                "Unit s@.service inactive",
                "Unit s@1.service inactive",
                "Unit s@2.service inactive",
                "Unit s@2.service launched on 63d22e36.../172.30.1.2",
            ]
        );
        assert_eq!(
            fleetctl.try_set("s@.service", "launched").unwrap_err(),
            "googleapi: Error 400: cannot activate template \"s@.service\""
        );
        // Over several pages: there are two items in one.
        fleetctl.list_machines();
        fleetctl.list_unit_files();
        fleetctl.list_units();
        assert_eq!(
            fleetctl.printed(),
            [
                "63d22e36... 172.30.1.2 hostname=h1",
                "g.service launched  -",
                "s@.service inactive inactive -",
                "s@1.service inactive inactive -",
                "s@2.service launched launched 63d22e36...",
                "g.service 63d22e36... loaded active running",
                "s@2.service 63d22e36... loaded active running",
            ]
        );
        fleetctl.stop("g.service");
        assert_eq!(fleetctl.printed(), ["Triggered global unit g.service stop"]);
    })
    .await;
}
