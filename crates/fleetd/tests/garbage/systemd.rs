//! The whole of fleetd's units layer, and at the other end of systemd's private socket something
//! that answers with garbage, halves, lies, floods, or not at all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::agent::{Circumstances, plan};
use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::records::{AssignmentRecord, Decision, Order};
use fleetd::units::{Systemd, SystemdConfig, UnitManager};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::chance::Chance;
use crate::messages::{Body, member_of, message, signal, texts_in};
use crate::run;

/// Conversations with a systemd that is not itself; each ends when the driver has had enough.
const ROUNDS: u64 = 24;
/// How long one of them goes on by the paused clock: longer than any call waits for its answer.
pub(crate) const ROUND: Duration = Duration::from_secs(150);
/// By the paused clock: whatever was said before, a systemd that is itself again is believed and
/// obeyed within this. The longest pauses are those between attempts, half a minute.
const RECOVERS_WITHIN: Duration = Duration::from_secs(300);
/// Signals of a flood: more than may be queued.
const FLOOD: usize = 10_000;

const UNITS: [&str; 3] = ["a.service", "b@1.service", "c.socket"];

/// What all peers of a test share.
pub(crate) struct Peer {
    chance: RefCell<Chance>,
    /// From now on it is what it should be.
    pub(crate) is_honest: RefCell<bool>,
    pub(crate) active: RefCell<BTreeSet<String>>,
    /// The methods that were called.
    pub(crate) calls: RefCell<Vec<String>>,
    n_connections: RefCell<usize>,
    n_jobs: RefCell<u32>,
}

#[test]
fn a_systemd_that_talks_nonsense_is_survived_and_believed_again_when_it_is_itself() {
    run(|alive| async move {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("systemd")).unwrap();
        let socket = UnixListener::bind(root.path().join("systemd/private")).unwrap();
        let peer = Peer::new(Chance::new(0x5eed_0001));
        let local = tokio::task::LocalSet::new();
        local.spawn_local(Rc::clone(&peer).listen(socket));
        let mut machine = Machine::on(root.path());
        local
            .run_until(async {
                for round in 0..ROUNDS {
                    alive.send(format!("round {round}")).unwrap();
                    peer.forget_chance(round);
                    machine.wish_anew();
                    machine.live_for(ROUND, |_| false).await;
                    // Half of the rounds end in a moment of sense, so that the next one finds a
                    // driver that has something to lose.
                    *peer.is_honest.borrow_mut() = round % 2 == 0;
                    if round % 2 == 0 {
                        machine.recovers().await;
                        *peer.is_honest.borrow_mut() = false;
                    }
                }
            })
            .await;
        let n_connections = *peer.n_connections.borrow();
        assert!(n_connections > 10, "{n_connections} connections");
    });
}

/// A unit that fails and is active again ten thousand times in a moment is looked into a few times.
#[test]
fn a_flood_of_failures_is_looked_into_a_bounded_number_of_times() {
    run(|alive| async move {
        alive.send("a flood".to_owned()).unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("systemd")).unwrap();
        let socket = UnixListener::bind(root.path().join("systemd/private")).unwrap();
        let peer = Peer::new(Chance::new(0x5eed_0002));
        *peer.is_honest.borrow_mut() = true;
        let local = tokio::task::LocalSet::new();
        let listening = Rc::clone(&peer);
        let mut machine = Machine::on(root.path());
        local
            .run_until(async {
                let flood = tokio::task::spawn_local(async move {
                    let (stream, _) = socket.accept().await.unwrap();
                    listening.converse_and(stream, true).await;
                });
                machine.recovers().await;
                let before = peer.calls.borrow().len();
                // Any call begins the flood.
                machine.assign("a.service", "[Service]\nExecStart=/bin/other\n");
                machine.live_for(ROUND, |_| false).await;
                let n_calls = peer.calls.borrow().len() - before;
                assert!(n_calls < 1000, "{n_calls} questions about one unit");
                assert!(n_calls > 0);
                flood.abort();
            })
            .await;
    });
}

/// What is assigned, and the driver that makes it so.
pub(crate) struct Machine {
    pub(crate) systemd: Arc<Systemd>,
    desired: BTreeMap<UnitName, AssignmentRecord>,
    seq: u64,
}

impl Machine {
    /// To which nothing is assigned.
    pub(crate) fn idle_on(runtime: &Path) -> Machine {
        let run = runtime.join("fleet");
        let config = SystemdConfig::user(runtime, &run.join("units"), &run, "boot-1");
        Machine {
            systemd: Systemd::new(config),
            desired: BTreeMap::new(),
            seq: 0,
        }
    }

    fn on(runtime: &Path) -> Machine {
        let mut machine = Machine::idle_on(runtime);
        for unit in UNITS {
            machine.assign(unit, "[Service]\nExecStart=/bin/true\n");
        }
        machine
    }

    fn assign(&mut self, unit: &str, text: &str) {
        self.order(unit, Order::Launched, text);
    }

    /// A new wish, of a new generation.
    pub(crate) fn order(&mut self, unit: &str, order: Order, text: &str) {
        self.seq += 1;
        let decision = Decision {
            generation: self.seq,
            seq: self.seq,
        };
        let record = AssignmentRecord {
            text: text.into(),
            hash: UnitHash::of(text.as_bytes()),
            decision,
            order,
            restarts: 0,
            reason: "test".to_owned(),
        };
        self.desired.insert(UnitName::parse(unit).unwrap(), record);
    }

    /// Plans and applies for so long, or until `is_so`; whether it became so.
    pub(crate) async fn live_for(
        &mut self,
        time: Duration,
        is_so: impl Fn(&Machine) -> bool,
    ) -> bool {
        let deadline = tokio::time::Instant::now() + time;
        loop {
            let trouble = self.systemd.trouble();
            if let Some(trouble) = &trouble {
                assert!(trouble.contains("systemd"), "{trouble}");
            } else {
                let seen = self.systemd.observe_all();
                self.systemd
                    .apply(plan(&self.desired, &seen, Circumstances::GOOD));
            }
            if is_so(self) {
                return true;
            }
            let changed = self.systemd.changed();
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                // The driver need not know of it.
                return is_so(self);
            }
        }
    }

    /// Other contents for every unit.
    fn wish_anew(&mut self) {
        for unit in UNITS {
            let text = format!("[Service]\nExecStart=/bin/true {}\n", self.seq);
            self.assign(unit, &text);
        }
    }

    /// A new wish is carried out. What was refused in nonsense stays refused until then.
    async fn recovers(&mut self) {
        self.wish_anew();
        let is_well = |machine: &Machine| {
            machine.systemd.trouble().is_none()
                && machine.desired.iter().all(|(unit, wanted)| {
                    let seen = machine.systemd.observe(unit);
                    seen.active == "active"
                        && seen.working.is_none()
                        && seen.file == Some(wanted.hash)
                        && seen.record.is_some_and(|it| it.decision == wanted.decision)
                })
        };
        let recovered = self.live_for(RECOVERS_WITHIN, is_well).await;
        let (seen, trouble) = (self.systemd.observe_all(), self.systemd.trouble());
        assert!(recovered, "{trouble:?} {seen:#?}");
    }
}

/// A call that was heard.
pub(crate) struct Call {
    pub(crate) serial: u32,
    pub(crate) member: String,
    pub(crate) body: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(chance: Chance) -> Rc<Peer> {
        Rc::new(Peer {
            chance: RefCell::new(chance),
            is_honest: RefCell::new(false),
            active: RefCell::default(),
            calls: RefCell::default(),
            n_connections: RefCell::default(),
            n_jobs: RefCell::default(),
        })
    }

    /// Each round has its own chance, whatever the ones before have used.
    fn forget_chance(&self, round: u64) {
        *self.chance.borrow_mut() = Chance::new(0x5eed_1000 + round);
    }

    fn below(&self, bound: usize) -> usize {
        self.chance.borrow_mut().below(bound)
    }

    fn bytes(&self, at_most: usize) -> Vec<u8> {
        self.chance.borrow_mut().bytes(at_most)
    }

    fn is_honest(&self) -> bool {
        *self.is_honest.borrow()
    }

    pub(crate) async fn listen(self: Rc<Self>, socket: UnixListener) {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            *self.n_connections.borrow_mut() += 1;
            let peer = Rc::clone(&self);
            tokio::task::spawn_local(async move { peer.converse_and(stream, false).await });
        }
    }

    /// Until the other end has gone, or this one wants to be alone.
    async fn converse_and(&self, mut stream: UnixStream, flood: bool) {
        // What cannot be written is not wanted any more.
        let _ = self.converse(&mut stream, flood).await;
    }

    async fn converse(&self, stream: &mut UnixStream, flood: bool) -> std::io::Result<()> {
        let mut heard = Vec::new();
        while !heard.ends_with(b"BEGIN\r\n") {
            heard.push(stream.read_u8().await?);
        }
        if !self.is_honest() {
            match self.below(12) {
                0 => return stream.write_all(&self.bytes(2000)).await,
                1 => stream.write_all(b"REJECTED\r\n").await?,
                2 => return stream.write_all(&vec![b'O'; 100_000]).await,
                3 => return self.silence(stream).await,
                4 => return Ok(()),
                _ => {}
            }
        }
        let guid = "0123456789abcdef0123456789abcdef";
        stream
            .write_all(format!("OK {guid}\r\n").as_bytes())
            .await?;
        loop {
            let Some(call) = self.hear(stream).await? else {
                return Ok(());
            };
            self.calls.borrow_mut().push(call.member.clone());
            if flood && call.member == "StartUnit" {
                stream.write_all(&self.failures(FLOOD)).await?;
            }
            if self.is_honest() {
                stream.write_all(&self.answer(&call)).await?;
            } else if !self.misbehave(stream, &call).await? {
                return Ok(());
            }
        }
    }

    /// One thing that no systemd does; whether the conversation goes on.
    async fn misbehave(&self, stream: &mut UnixStream, call: &Call) -> std::io::Result<bool> {
        let answer = self.answer(call);
        let out = match self.below(24) {
            // Any bytes, and bytes that begin as a message does.
            0 => self.bytes(4096),
            1 => [&b"l\x02\x00\x01"[..], &self.bytes(4096)].concat(),
            // Half a message, and nothing more or nobody any more.
            2 => {
                let half = self.below(answer.len());
                stream.write_all(&answer[..half]).await?;
                self.silence(stream).await?;
                return Ok(false);
            }
            3 => {
                let half = self.below(answer.len());
                stream.write_all(&answer[..half]).await?;
                return Ok(false);
            }
            // Lengths without the bytes.
            4 | 5 => {
                let mut answer = answer;
                let at = if self.below(2) == 0 { 4 } else { 12 };
                let length = self.chance.borrow_mut().pick(&[
                    u32::MAX,
                    u32::MAX - 7,
                    i32::MAX.unsigned_abs(),
                    16 << 20,
                    (16 << 20) - 200,
                    1 << 20,
                    1,
                ]);
                answer[at..at + 4].copy_from_slice(&length.to_le_bytes());
                stream.write_all(&answer).await?;
                stream.write_all(&self.bytes(1 << 16)).await?;
                self.silence(stream).await?;
                return Ok(false);
            }
            // A body of another type, a body of any bytes.
            6 | 7 => {
                let signature = self.chance.borrow_mut().pick(&SIGNATURES);
                message(2, "", Some(call.serial), signature, &self.bytes(300))
            }
            8 => message(
                2,
                "",
                Some(call.serial),
                signature_of(call),
                &self.bytes(300),
            ),
            // An answer to somebody else, and none to this.
            9 => message(2, "", Some(call.serial ^ 1), "", &[]),
            10 => [answer.clone(), answer].concat(),
            // Errors of any name.
            11 => {
                let name = self.chance.borrow_mut().pick(&[
                    "org.freedesktop.systemd1.NoSuchUnit",
                    "org.freedesktop.systemd1.BadUnitSetting",
                    "org.freedesktop.systemd1.Nonsense",
                    "org.freedesktop.DBus.Error.AccessDenied",
                    "org.freedesktop.DBus.Error.Disconnected",
                    "no name",
                    "",
                    "\u{0}\u{1}",
                ]);
                let signature = self.chance.borrow_mut().pick(&SIGNATURES);
                message(3, name, Some(call.serial), signature, &self.bytes(100))
            }
            // Floods, and the answer behind them.
            12 => [self.failures(500), answer].concat(),
            13 => [self.signals(FLOOD / 4), answer].concat(),
            // Byte by byte.
            14 => {
                for byte in answer {
                    stream.write_all(&[byte]).await?;
                    tokio::task::yield_now().await;
                }
                return Ok(true);
            }
            15 => return Ok(true),
            16 => {
                self.silence(stream).await?;
                return Ok(false);
            }
            17 => return Ok(false),
            // Bits of an honest answer turned over.
            18 | 19 => {
                let mut answer = answer;
                for _ in 0..=self.below(4) {
                    let at = self.below(answer.len());
                    answer[at] ^= 1 << self.below(8);
                }
                answer
            }
            _ => answer,
        };
        stream.write_all(&out).await?;
        Ok(true)
    }

    /// Says nothing any more, and reads on: a full pipe would be noticed.
    async fn silence(&self, stream: &mut UnixStream) -> std::io::Result<()> {
        let mut heard = [0; 4096];
        while stream.read(&mut heard).await? > 0 {}
        Ok(())
    }

    pub(crate) async fn hear(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> std::io::Result<Option<Call>> {
        let mut header = [0; 16];
        if stream.read_exact(&mut header).await.is_err() {
            return Ok(None);
        }
        let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let mut fields = vec![0; (number(12) as usize).next_multiple_of(8)];
        let mut body = vec![0; number(4) as usize];
        stream.read_exact(&mut fields).await?;
        stream.read_exact(&mut body).await?;
        Ok(Some(Call {
            serial: number(8),
            member: member_of(&fields),
            body,
        }))
    }

    /// What systemd would say.
    pub(crate) fn answer(&self, call: &Call) -> Vec<u8> {
        let reply = |body: Body| message(2, "", Some(call.serial), signature_of(call), &body.0);
        let mut body = Body::default();
        match call.member.as_str() {
            "GetUnit" => {
                body.text("not loaded");
                let name = "org.freedesktop.systemd1.NoSuchUnit";
                message(3, name, Some(call.serial), "s", &body.0)
            }
            "StartUnit" | "RestartUnit" | "StopUnit" => {
                let unit = texts_in(&call.body).first().cloned().unwrap_or_default();
                let mut active = self.active.borrow_mut();
                if call.member == "StopUnit" {
                    active.remove(&unit);
                } else {
                    active.insert(unit.clone());
                }
                *self.n_jobs.borrow_mut() += 1;
                let n = *self.n_jobs.borrow();
                let job = format!("/org/freedesktop/systemd1/job/{n}");
                body.text(&job);
                let state = match call.member.as_str() {
                    "StopUnit" => "inactive",
                    _ => "active",
                };
                let object = object_of(&unit);
                let process = process_signal(&object);
                let state = state_signal(&object, state, &[7; 16]);
                let done = job_removed(n, &job, &unit, "done");
                [reply(body), process, state, done].concat()
            }
            "ListUnitsByNames" => {
                let mut rows = Body::default();
                for unit in texts_in(&call.body) {
                    rows.align(8);
                    let active = self.active.borrow().contains(&unit);
                    rows.text(&unit);
                    rows.text("A unit");
                    rows.text("loaded");
                    rows.text(if active { "active" } else { "inactive" });
                    rows.text(if active { "running" } else { "dead" });
                    rows.text("");
                    rows.text("/");
                    rows.number(0);
                    rows.text("");
                    rows.text("/");
                }
                body.number(u32::try_from(rows.0.len()).unwrap());
                body.align(8);
                body.0.extend(rows.0);
                reply(body)
            }
            "GetAll" | "DisableUnitFiles" | "ListUnitsByPatterns" => {
                body.number(0);
                body.align(8);
                reply(body)
            }
            "Get" => {
                let asked = texts_in(&call.body).pop().unwrap_or_default();
                match asked.as_str() {
                    "UnitPath" => body.variant("as", |body| body.number(0)),
                    "InvocationID" => body.variant("ay", |body| {
                        body.number(16);
                        body.0.extend([7; 16]);
                    }),
                    "MainPID" => body.variant("u", |body| body.number(0)),
                    _ => body.variant("s", |body| body.text("running")),
                }
                reply(body)
            }
            _ => reply(body),
        }
    }

    /// A unit that fails and is active again, each time with another invocation.
    fn failures(&self, count: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for n in 0..count {
            let active = if n % 2 == 0 { "failed" } else { "active" };
            out.extend(state_signal("a_2eservice", active, &self.bytes(16)));
        }
        out
    }

    /// Any signals of any objects, with bodies that fit or do not.
    fn signals(&self, count: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for n in 0..count {
            out.extend(match self.below(6) {
                0 => {
                    let state = self
                        .chance
                        .borrow_mut()
                        .pick(&["", "active", "failed", "\u{7f}"]);
                    state_signal("b_401_2eservice", state, &self.bytes(40))
                }
                1 => {
                    let job = format!("/org/freedesktop/systemd1/job/{}", self.below(9));
                    job_removed(7, &job, "a.service", "nonsense")
                }
                2 => {
                    let mut body = Body::default();
                    body.text(&format!("any-{n}.service"));
                    body.text("/x");
                    signal(MANAGER_PATH, MANAGER, "UnitRemoved", "so", &body.0)
                }
                3 => {
                    let mut body = Body::default();
                    body.number(u32::try_from(self.below(2)).unwrap());
                    signal(MANAGER_PATH, MANAGER, "Reloading", "b", &body.0)
                }
                4 => signal(MANAGER_PATH, MANAGER, "JobRemoved", "uoss", &self.bytes(60)),
                _ => {
                    let path = "/org/freedesktop/systemd1/unit/a_2eservice";
                    let signature = self.chance.borrow_mut().pick(&SIGNATURES);
                    signal(
                        path,
                        PROPERTIES,
                        "PropertiesChanged",
                        signature,
                        &self.bytes(90),
                    )
                }
            });
        }
        out
    }
}

pub(crate) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const SIGNATURES: [&str; 9] = [
    "",
    "s",
    "o",
    "v",
    "as",
    "a{sv}",
    "a(ssssssouso)",
    "b",
    "vvvv",
];

fn signature_of(call: &Call) -> &'static str {
    match call.member.as_str() {
        "StartUnit" | "RestartUnit" | "StopUnit" | "GetUnit" | "StartTransientUnit" => "o",
        "ListUnitsByNames" | "ListUnitsByPatterns" => "a(ssssssouso)",
        "GetAll" => "a{sv}",
        "DisableUnitFiles" => "a(sss)",
        "Get" => "v",
        _ => "",
    }
}

/// The last part of a unit's object path, as systemd escapes it.
pub(crate) fn object_of(unit: &str) -> String {
    let mut object = String::new();
    for byte in unit.bytes() {
        match char::from(byte) {
            letter if letter.is_ascii_alphanumeric() => object.push(letter),
            _ => object.push_str(&format!("_{byte:02x}")),
        }
    }
    object
}

fn job_removed(n: u32, job: &str, unit: &str, result: &str) -> Vec<u8> {
    let mut body = Body::default();
    body.number(n);
    body.text(job);
    body.text(unit);
    body.text(result);
    signal(MANAGER_PATH, MANAGER, "JobRemoved", "uoss", &body.0)
}

/// A service without a process, which systemd tells before how the unit is.
fn process_signal(object: &str) -> Vec<u8> {
    let mut entries = Body::default();
    entries.text("MainPID");
    entries.variant("u", |body| body.number(0));
    changed(object, "org.freedesktop.systemd1.Service", &entries)
}

fn state_signal(object: &str, active: &str, invocation: &[u8]) -> Vec<u8> {
    let mut entries = Body::default();
    entries.text("ActiveState");
    entries.variant("s", |body| body.text(active));
    entries.align(8);
    entries.text("InvocationID");
    entries.variant("ay", |body| {
        body.number(u32::try_from(invocation.len()).unwrap());
        body.0.extend(invocation);
    });
    changed(object, "org.freedesktop.systemd1.Unit", &entries)
}

/// The properties of an interface of an object have changed to these.
fn changed(object: &str, interface: &str, entries: &Body) -> Vec<u8> {
    let mut body = Body::default();
    body.text(interface);
    body.number(u32::try_from(entries.0.len()).unwrap());
    body.align(8);
    body.0.extend(&entries.0);
    body.number(0);
    let path = format!("{MANAGER_PATH}/unit/{object}");
    signal(&path, PROPERTIES, "PropertiesChanged", "sa{sv}as", &body.0)
}
