//! fleetd is killed at each boundary where it writes or sends something, before and after, while
//! it carries out wishes on a real systemd: no unit notices, each wish is carried out once, and
//! nothing is left over. Then everything fails once, everything loses an answer once, everything
//! is late once.

mod frozen;

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use fleet_api::client::{Client, Endpoint};
use fleet_api::v2::{
    BatchAnswer, BatchRequest, MachineChange, Progress, UnitView, UnitWish, WaitFor, WaitRequest,
};
use fleet_core::records::UnitRecord;
use fleetd::failpoint::POINTS;
use fleetd::store::codec::Document;
use fleetd::store::embedded::EmbeddedStore;
use fleetd::store::{Entry, Store};

use crate::rig::{Manager, run};

/// Nothing here takes longer, however busy the computer is; a wait ends as soon as it can.
const PATIENCE: Duration = Duration::from_secs(90);
/// An answer that does not come by then is asked for again: fleetd has died.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two looks at what has become of a wish.
const PAUSE: Duration = Duration::from_millis(10);

/// Where fleetd has no reason to be in this story, and where it is walked instead.
const ELSEWHERE: [(&str, &str); 3] = [
    (
        "store.compact",
        "after five minutes only: sim, fleetd::engine",
    ),
    (
        "store.commit.thaw",
        "while machines are frozen only: frozen",
    ),
    ("systemd.Subscribe", "on a bus only: hosts::machine"),
];

/// Reached once in the life of a cluster: walked with an empty store each.
const ONCE: [&str; 3] = [
    "file.choice.write",
    "store.commit.cluster",
    "store.commit.members",
];

/// A service that counts its starts. systemd has in memory what it is wanted by, so that it must
/// be told.
fn counting(log: &Path, version: u32) -> String {
    format!(
        "[Unit]\nDescription=version {version}\n\n[Service]\nExecStart=/bin/sh -c \
         'echo start >> {} ; exec sleep infinity'\n\n[Install]\nWantedBy=steady.service\n",
        log.display()
    )
}

const STEADY: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const EXCLUSIVE: &str = "[Service]\nExecStart=/bin/sleep infinity\n\n[X-Fleet]\nExclusive=yes\n";
const FAILING: &str = "[Service]\nExecStart=/bin/false\n";

/// A fleetd that is killed and started again, and its users.
struct Walk<'a> {
    manager: &'a Manager,
    fleetd: Child,
    /// Where this one is to be killed.
    armed: Option<(String, &'static str)>,
    /// Where the next ones are.
    queue: VecDeque<(String, &'static str)>,
    /// Where fleetd was killed since the story began.
    killed: Vec<(String, &'static str)>,
    /// So many times fleetd was killed by a failpoint.
    n_crashes: usize,
    n_requests: u32,
    client: Client,
}

impl<'a> Walk<'a> {
    fn begin(manager: &'a Manager, queue: VecDeque<(String, &'static str)>) -> Walk<'a> {
        let socket = manager.runtime().join("fleet.sock");
        let endpoint = Endpoint::parse(&format!("unix://{}", socket.display())).unwrap();
        Walk {
            manager,
            fleetd: fleetd(manager, ""),
            armed: None,
            queue,
            killed: Vec::new(),
            n_crashes: 0,
            n_requests: 0,
            client: Client::new(endpoint).answer_timeout(ANSWER),
        }
    }

    /// Starts the next fleetd, armed with the next failpoint.
    fn next(&mut self) {
        self.armed = self.queue.pop_front();
        let armed = self.armed.as_ref();
        let failpoints = armed.map(|(point, mode)| format!("{point}={mode}"));
        self.fleetd = fleetd(self.manager, &failpoints.unwrap_or_default());
    }

    /// Sees whether fleetd has been killed, and goes on with the next one.
    fn look(&mut self) {
        if let Some(status) = self.fleetd.try_wait().unwrap() {
            self.died(status);
            self.next();
        }
    }

    fn died(&mut self, status: ExitStatus) {
        let is_crash = status.signal() == Some(9) && self.armed.is_some();
        assert!(is_crash, "{:?}: {status}\n{}", self.armed, self.log());
        self.killed.extend(self.armed.clone());
        self.n_crashes += 1;
    }

    fn log(&self) -> String {
        fs::read_to_string(self.manager.path("fleetd.log")).unwrap_or_default()
    }

    /// Asks until there is an answer, from whichever fleetd, and `is_well` with it.
    async fn ask<T, E: std::fmt::Display>(
        &mut self,
        what: &str,
        request: impl AsyncFn(&Client) -> Result<T, E>,
        is_well: impl Fn(&T) -> Result<(), String>,
    ) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.look();
            let why = match request(&self.client).await {
                Ok(answer) => match is_well(&answer) {
                    Ok(()) => return answer,
                    Err(why) => why,
                },
                Err(error) => error.to_string(),
            };
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}, {:?}: {why}\n{}",
                self.armed,
                self.log()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A wish, by one request that is repeated until it is acknowledged; its generation.
    async fn wish_only(&mut self, wish: UnitWish) -> u64 {
        self.n_requests += 1;
        let name = wish.name.clone();
        let request = BatchRequest {
            request_id: format!("request-{}", self.n_requests),
            units: vec![wish],
            ..BatchRequest::default()
        };
        let is_well = |answer: &BatchAnswer| answer.units[0].error.clone().map_or(Ok(()), Err);
        let ask = async |client: &Client| client.batch(&request).await;
        let answer = self.ask(&format!("{name}: a wish"), ask, is_well).await;
        answer.units[0].generation
    }

    /// A wish that is waited for until nothing more is to be said of it, which is `phase`.
    async fn wish(&mut self, wish: UnitWish, phase: &str) {
        let name = wish.name.clone();
        let generation = self.wish_only(wish).await;
        let wait = WaitRequest {
            units: vec![WaitFor {
                name: name.clone(),
                generation,
            }],
        };
        let ask = async |client: &Client| {
            let mut last = Progress::default();
            let mut lines = client.wait(&wait).await?;
            while let Some(progress) = lines.next().await? {
                last = progress;
            }
            Ok::<Progress, fleet_api::client::Error>(last)
        };
        let is_so = |last: &Progress| {
            if last.phase == phase {
                Ok(())
            } else {
                Err(format!("{last:?}"))
            }
        };
        self.ask(&format!("{name} is {phase}"), ask, is_so).await;
    }

    async fn launch(&mut self, name: &str, text: &str, phase: &str) {
        let wish = UnitWish {
            name: name.to_owned(),
            text: Some(text.to_owned()),
            replace: true,
            desired_state: Some("launched".to_owned()),
            ..UnitWish::default()
        };
        self.wish(wish, phase).await;
    }

    /// What people do, from an empty cluster to an empty cluster; the same once more would be
    /// the same.
    async fn story(&mut self) {
        self.killed.clear();
        let log = self.manager.path("starts");
        let _ = fs::remove_file(&log);
        self.launch("w.service", &counting(&log, 1), "launched")
            .await;
        self.launch("f.service", FAILING, "failed").await;
        self.launch("w.service", &counting(&log, 2), "launched")
            .await;
        let restart = UnitWish {
            name: "w.service".to_owned(),
            restart: true,
            ..UnitWish::default()
        };
        self.wish(restart, "launched").await;
        self.launch("x.service", EXCLUSIVE, "launched").await;
        self.a_unit_that_may_run_nowhere().await;
        self.change_the_machine().await;
        for name in ["w.service", "f.service", "n.service", "x.service"] {
            let destroy = UnitWish {
                name: name.to_owned(),
                desired_state: Some("destroyed".to_owned()),
                ..UnitWish::default()
            };
            self.wish(destroy, "destroyed").await;
        }
        let starts = fs::read_to_string(&log).unwrap_or_default().lines().count();
        assert_eq!(starts, 3, "each wish once; killed at {:?}", self.killed);
        let known = ["list-units", "--all", "--plain", "--no-legend"];
        let known = self.manager.systemctl(
            &[
                &known[..],
                &["w.service", "f.service", "n.service", "x.service"],
            ]
            .concat(),
        );
        assert_eq!(known, "", "systemd knows them; killed at {:?}", self.killed);
        self.the_lease_has_ended().await;
    }

    /// The last exclusive unit took the lease with it; what failed is done with the next keepalive.
    async fn the_lease_has_ended(&mut self) {
        let files = ["fleet-lease.target", "fleet-lease@.service"];
        let files = files.map(|file| self.manager.links().join(file));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while files.iter().any(|file| file.exists()) {
            self.look();
            assert!(
                tokio::time::Instant::now() < deadline,
                "the lease is left; killed at {:?}\n{}",
                self.killed,
                self.log()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn a_unit_that_may_run_nowhere(&mut self) {
        let wish = UnitWish {
            name: "n.service".to_owned(),
            text: Some(format!("{STEADY}\n[X-Fleet]\nMachineMetadata=no=where\n")),
            desired_state: Some("launched".to_owned()),
            ..UnitWish::default()
        };
        self.wish_only(wish).await;
        let ask = async |client: &Client| client.unit_view("n.service").await;
        let is_refused = |view: &Option<UnitView>| match view {
            Some(view) if !view.refusals.is_empty() => Ok(()),
            view => Err(format!("{view:?}")),
        };
        self.ask("n.service is nowhere", ask, is_refused).await;
    }

    async fn change_the_machine(&mut self) {
        let machines = self
            .ask(
                "machines",
                async |c| c.machine_views().await,
                |listing| match listing.machines.len() {
                    1 => Ok(()),
                    n => Err(format!("{n} machines")),
                },
            )
            .await;
        let id = machines.machines[0].id.clone();
        for cordon in [true, false] {
            let change = MachineChange {
                cordoned: Some(cordon),
                ..MachineChange::default()
            };
            self.ask(
                "cordon",
                async |c| c.change_machine(&id, &change).await,
                |_| Ok(()),
            )
            .await;
        }
        self.ask("thaw", async |c| c.thaw().await, |_| Ok(())).await;
        self.ask(
            "accept-store",
            async |c| c.accept_store().await,
            |()| Ok(()),
        )
        .await;
    }

    /// An orderly stop, which may be the end of the story that is still to be reached; returns
    /// whether it was orderly.
    async fn stop(&mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.fleetd);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.fleetd.try_wait().unwrap() {
                break status;
            }
            assert!(tokio::time::Instant::now() < deadline, "it does not stop");
            tokio::time::sleep(PAUSE).await;
        };
        if !status.success() {
            self.died(status);
        }
        status.success()
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        let _ = self.fleetd.kill();
        let _ = self.fleetd.wait();
    }
}

fn fleetd(manager: &Manager, failpoints: &str) -> Child {
    let log = fs::File::create(manager.path("fleetd.log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_fleetd"))
        .env("XDG_RUNTIME_DIR", manager.runtime())
        .env("XDG_STATE_HOME", manager.path("state"))
        .env("FLEET_SYSTEMD_USER", "true")
        .env("FLEET_FAILPOINTS", failpoints)
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What is left: files, links, records, keys. What is there for good and for the one unit that
/// runs on is none of it.
async fn nothing_is_left_of_the_story(manager: &Manager) -> Vec<String> {
    let mut left = BTreeSet::new();
    for directory in [
        manager.runtime().join("fleet/units"),
        manager.runtime().join("fleet/launched"),
        manager.links(),
        manager.runtime().join("systemd/user.control"),
    ] {
        files_below(&directory, &mut left);
    }
    let store = EmbeddedStore::open(manager.path("state/fleet/store.redb")).unwrap();
    let all = store.read(fleetd::store::Range::default()).await.unwrap();
    // Tombstones rest for two minutes, and go by themselves.
    let is_buried = |entry: &Entry| {
        entry.key.starts_with("units/")
            && UnitRecord::decode(&entry.key, &entry.value).is_ok_and(|record| record.buried)
    };
    let standing = all.entries.into_iter().filter(|entry| !is_buried(entry));
    left.extend(standing.map(|entry| entry.key));
    let is_expected = |left: &String| {
        let of_the_cluster = [
            "accept-store",
            "cluster",
            "events/",
            "leader",
            "machine-wishes/",
            "machines/",
            "marks/",
            "members/",
        ];
        left.contains("steady.service") || of_the_cluster.iter().any(|key| left.starts_with(key))
    };
    left.retain(|left| !is_expected(left));
    left.into_iter().collect()
}

fn files_below(directory: &Path, left: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            files_below(&path, left);
        } else {
            left.insert(path.display().to_string());
        }
    }
}

async fn reached(manager: &Manager) {
    let private = manager.runtime().join("systemd/private");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !private.exists() {
        assert!(tokio::time::Instant::now() < deadline, "no systemd");
        tokio::time::sleep(PAUSE).await;
    }
}

#[test]
fn a_crash_at_any_boundary_touches_no_unit_and_each_wish_is_carried_out_once() {
    run(async {
        let manager = Manager::boot();
        reached(&manager).await;
        let in_story = |point: &&&str| {
            !ONCE.contains(point) && !ELSEWHERE.iter().any(|(other, _)| other == *point)
        };
        let points = POINTS.iter().filter(in_story);
        let queue = points.flat_map(|point| {
            ["crash-before", "crash-after"].map(|mode| ((*point).to_owned(), mode))
        });
        let queue: VecDeque<_> = queue.collect();
        let n_points = queue.len();

        // The first words in the life of a cluster.
        for point in ONCE {
            for mode in ["crash-before", "crash-after"] {
                let _ = fs::remove_dir_all(manager.path("state"));
                let mut killed = fleetd(&manager, &format!("{point}={mode}"));
                let deadline = tokio::time::Instant::now() + PATIENCE;
                while killed.try_wait().unwrap().is_none() {
                    assert!(
                        tokio::time::Instant::now() < deadline,
                        "{point} was not reached"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
                assert_eq!(killed.wait().unwrap().signal(), Some(9), "{point}={mode}");
            }
        }

        let mut walk = Walk::begin(&manager, queue);
        walk.launch("steady.service", STEADY, "launched").await;
        let invocation = manager.show("steady.service", "InvocationID");
        assert_eq!(invocation.len(), 32, "{invocation}");
        let mut missed = Vec::new();
        loop {
            walk.story().await;
            let orderly = walk.stop().await;
            assert_eq!(manager.show("steady.service", "InvocationID"), invocation);
            if let Some(armed) = walk.armed.take().filter(|_| orderly) {
                match walk.killed.is_empty() {
                    // A whole life of a fleetd, and it never came there.
                    true => missed.push(armed),
                    false => walk.queue.push_front(armed),
                }
            }
            if walk.queue.is_empty() && orderly {
                break;
            }
            walk.next();
        }
        assert_eq!(missed, [], "these are not reached any more");
        assert_eq!(walk.n_crashes, n_points);
        assert_eq!(nothing_is_left_of_the_story(&manager).await, [""; 0]);
    });
}

/// So many lives share the failures of all boundaries. The pause before another attempt doubles
/// with each failure in a row: all in one life are a wait of minutes.
const LIVES: usize = 8;

/// What fails in each life of fleetd. Delays have no consequences, so that all are in one.
fn lives() -> Vec<String> {
    let mut lives = vec!["*=delay".to_owned()];
    for mode in ["error", "lost"] {
        for life in 0..LIVES {
            let mine = POINTS.iter().skip(life).step_by(LIVES);
            let mine: Vec<String> = mine.map(|point| format!("{point}={mode}")).collect();
            lives.push(mine.join(","));
        }
    }
    lives
}

/// The points that a life arms and that the story comes by in an old cluster.
fn armed_in_the_story(armed: &str) -> impl Iterator<Item = &'static str> {
    let is_armed = |point: &str| {
        armed
            .split(',')
            .filter_map(|part| part.split_once('='))
            .any(|(name, _)| name == "*" || name == point)
    };
    let points = POINTS.iter().copied();
    points
        .filter(|point| !ONCE.contains(point) && !ELSEWHERE.iter().any(|(it, _)| it == point))
        .filter(|point| is_armed(point))
        .collect::<Vec<_>>()
        .into_iter()
}

fn was_reached(log: &str, point: &str) -> bool {
    let mut lines = log
        .lines()
        .filter(|line| line.contains("failpoint reached"));
    lines.any(|line| {
        let words = line.split(|c: char| c.is_whitespace() || "=\"".contains(c));
        words.into_iter().any(|word| word == point)
    })
}

/// Errors, lost answers and delays come one at each boundary.
#[test]
fn a_failure_a_lost_answer_and_a_delay_at_every_boundary_change_nothing_in_the_end() {
    run(async {
        let manager = Manager::boot();
        reached(&manager).await;
        let mut walk = Walk::begin(&manager, VecDeque::new());
        walk.launch("steady.service", STEADY, "launched").await;
        let invocation = manager.show("steady.service", "InvocationID");
        assert!(walk.stop().await);
        for armed in lives() {
            walk.fleetd = fleetd(&manager, &armed);
            walk.story().await;
            assert_eq!(manager.show("steady.service", "InvocationID"), invocation);
            assert!(walk.stop().await);
            let log = walk.log();
            let missed: Vec<&str> = armed_in_the_story(&armed)
                .filter(|point| !was_reached(&log, point))
                .collect();
            assert_eq!(missed, [""; 0], "not reached in {armed}");
        }
        assert_eq!(nothing_is_left_of_the_story(&manager).await, [""; 0]);
    });
}

/// What is shipped has none of this: the name of the variable stands in the tests' fleetd, and not
/// in the release build, which is that of the hosts.
#[test]
fn a_release_build_has_no_failpoints() {
    let has_failpoints = |path: &Path| {
        let program = fs::read(path).unwrap();
        let name = b"FLEET_FAILPOINTS";
        program.windows(name.len()).any(|bytes| bytes == name)
    };
    let release = match std::env::var_os("FLEET_BIN_DIR") {
        Some(directory) => directory.into(),
        None => fleet_sandbox::built_beside(&std::env::current_exe().unwrap()).join("../release"),
    };
    assert!(has_failpoints(Path::new(env!("CARGO_BIN_EXE_fleetd"))));
    assert!(!has_failpoints(&release.join("fleetd")));
}
