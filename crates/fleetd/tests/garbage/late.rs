//! A systemd that does what it is asked, and takes its time: what was meant to be done before is
//! done after, and what is late is not what is wrong.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::agent::Phase;
use fleet_core::name::UnitName;
use fleet_core::records::Order;
use fleetd::units::UnitManager;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use crate::chance::Chance;
use crate::messages::{Body, message, signal, texts_in};
use crate::run;
use crate::systemd::{Call, MANAGER_PATH, Machine, Peer, object_of};

/// By the paused clock: whatever is to come of a wish has come by then, another attempt included.
const SOON: Duration = Duration::from_secs(20);
/// Longer than a call is waited for, shorter than a reload is.
const LONG_RELOAD: Duration = Duration::from_secs(90);
const TEXT: &str = "[Service]\nExecStart=/bin/true\n";
const UNIT: &str = "a.service";

/// A systemd whose answers can be kept back.
struct Late {
    peer: Rc<Peer>,
    links: PathBuf,
    /// Calls of these are not answered for now; `*` is all.
    held: RefCell<BTreeSet<&'static str>>,
    kept: RefCell<Vec<Call>>,
    /// What it was asked: `StartUnit a.service`.
    heard: RefCell<Vec<String>>,
    /// It has these in memory, with a text that has changed since.
    stale: RefCell<BTreeSet<String>>,
    /// The next start is of a unit that it does not know.
    knows_nothing: RefCell<bool>,
    out: RefCell<Option<Rc<tokio::sync::Mutex<OwnedWriteHalf>>>>,
    n_connections: RefCell<usize>,
}

impl Late {
    fn new(root: &std::path::Path) -> Rc<Late> {
        std::fs::create_dir_all(root.join("systemd")).unwrap();
        let late = Rc::new(Late {
            peer: Peer::new(Chance::new(0x5eed_0003)),
            links: root.join("systemd/user"),
            held: RefCell::default(),
            kept: RefCell::default(),
            heard: RefCell::default(),
            stale: RefCell::default(),
            knows_nothing: RefCell::default(),
            out: RefCell::default(),
            n_connections: RefCell::default(),
        });
        let socket = UnixListener::bind(root.join("systemd/private")).unwrap();
        tokio::task::spawn_local(Rc::clone(&late).listen(socket));
        late
    }

    fn hold(&self, member: &'static str) {
        self.held.borrow_mut().insert(member);
    }

    /// What was kept back is answered now, in the order in which it was asked.
    async fn let_go(&self, member: &'static str) {
        self.held.borrow_mut().remove(member);
        let kept = std::mem::take(&mut *self.kept.borrow_mut());
        for call in kept {
            self.take(call).await;
        }
    }

    async fn tell_reloading(&self, begins: bool) {
        let mut body = Body::default();
        body.number(u32::from(begins));
        let manager = "org.freedesktop.systemd1.Manager";
        self.write(&signal(MANAGER_PATH, manager, "Reloading", "b", &body.0))
            .await;
    }

    fn n_kept(&self) -> usize {
        self.kept.borrow().len()
    }

    fn n_heard(&self, what: &str) -> usize {
        self.heard.borrow().iter().filter(|it| *it == what).count()
    }

    fn is_active(&self) -> bool {
        self.peer.active.borrow().contains(UNIT)
    }

    async fn listen(self: Rc<Self>, socket: UnixListener) {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            *self.n_connections.borrow_mut() += 1;
            // Whom it has kept waiting has gone.
            self.kept.borrow_mut().clear();
            let late = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                // What cannot be written is not wanted any more.
                let _ = late.converse(stream).await;
            });
        }
    }

    async fn converse(&self, stream: UnixStream) -> std::io::Result<()> {
        let (mut from, mut to): (OwnedReadHalf, OwnedWriteHalf) = stream.into_split();
        let mut greeting = Vec::new();
        while !greeting.ends_with(b"BEGIN\r\n") {
            greeting.push(from.read_u8().await?);
        }
        to.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")
            .await?;
        *self.out.borrow_mut() = Some(Rc::new(tokio::sync::Mutex::new(to)));
        while let Some(call) = self.peer.hear(&mut from).await? {
            let unit = texts_in(&call.body).first().cloned().unwrap_or_default();
            let heard = format!("{} {unit}", call.member);
            self.heard.borrow_mut().push(heard.trim().to_owned());
            self.take(call).await;
        }
        Ok(())
    }

    async fn take(&self, call: Call) {
        let is_held = {
            let held = self.held.borrow();
            held.contains("*") || held.contains(call.member.as_str())
        };
        if is_held {
            self.kept.borrow_mut().push(call);
            return;
        }
        self.write(&self.answer(&call)).await;
    }

    async fn write(&self, message: &[u8]) {
        let out = self.out.borrow().clone();
        if let Some(out) = out {
            // Nobody may listen any more.
            let _ = out.lock().await.write_all(message).await;
        }
    }

    fn answer(&self, call: &Call) -> Vec<u8> {
        let texts = texts_in(&call.body);
        let unit = texts.first().cloned().unwrap_or_default();
        let is_known = self.is_active() || self.stale.borrow().contains(&unit);
        let mut body = Body::default();
        match call.member.as_str() {
            "StartUnit" if self.knows_nothing.replace(false) => {
                body.text("no such unit yet");
                let name = "org.freedesktop.systemd1.NoSuchUnit";
                message(3, name, Some(call.serial), "s", &body.0)
            }
            "GetUnit" if is_known => {
                body.text(&format!("{MANAGER_PATH}/unit/{}", object_of(&unit)));
                message(2, "", Some(call.serial), "o", &body.0)
            }
            "GetAll" => {
                let mut entries = Body::default();
                let active = if self.is_active() {
                    "active"
                } else {
                    "inactive"
                };
                let fragment = self.links.join(UNIT).display().to_string();
                for (name, value) in [
                    ("LoadState", "loaded"),
                    ("ActiveState", active),
                    ("FragmentPath", fragment.as_str()),
                ] {
                    entries.align(8);
                    entries.text(name);
                    entries.variant("s", |body| body.text(value));
                }
                entries.align(8);
                entries.text("NeedDaemonReload");
                let is_stale = u32::from(!self.stale.borrow().is_empty());
                entries.variant("b", |body| body.number(is_stale));
                body.number(u32::try_from(entries.0.len()).unwrap());
                body.align(8);
                body.0.extend(entries.0);
                message(2, "", Some(call.serial), "a{sv}", &body.0)
            }
            "Reload" => {
                self.stale.borrow_mut().clear();
                self.peer.answer(call)
            }
            _ => self.peer.answer(call),
        }
    }
}

fn phase(machine: &Machine) -> Option<Phase> {
    let seen = machine.systemd.observe(&UnitName::parse(UNIT).unwrap());
    seen.record.map(|record| record.phase)
}

/// Its record is written before systemd is told.
fn is_loaded(machine: &Machine) -> bool {
    let seen = machine.systemd.observe(&UnitName::parse(UNIT).unwrap());
    machine.systemd.trouble().is_none()
        && seen.working.is_none()
        && seen.attempt.is_none()
        && phase(machine) == Some(Phase::Loaded)
}

async fn until(machine: &mut Machine, what: &str, is_so: impl Fn(&Machine) -> bool) {
    let seen = |machine: &Machine| format!("{:#?}", machine.systemd.observe_all());
    let is_so = machine.live_for(SOON, is_so).await;
    assert!(is_so, "{what}: {}", seen(machine));
}

fn with_a_late_systemd<F: Future<Output = ()>>(test: impl FnOnce(Rc<Late>, Machine) -> F) {
    run(|alive| async move {
        alive.send("late".to_owned()).unwrap();
        let root = tempfile::tempdir().unwrap();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let late = Late::new(root.path());
                let machine = Machine::idle_on(root.path());
                test(late, machine).await;
            })
            .await;
    });
}

/// Whoever waits before he asks for a start (for his turn, for a reload, for the lease) finds that
/// the unit was to go meanwhile, and went: a start behind that would leave a process which nobody
/// knows of.
#[test]
fn a_start_that_was_overtaken_while_it_waited_is_not_asked_for() {
    with_a_late_systemd(async |late, mut machine| {
        *late.knows_nothing.borrow_mut() = true;
        late.hold("Reload");
        machine.order(UNIT, Order::Launched, TEXT);
        until(&mut machine, "it waits for a reload", |_| {
            late.n_kept() == 1
        })
        .await;
        machine.order(UNIT, Order::Gone, "");
        until(&mut machine, "it is stopped", |_| {
            late.n_heard("StopUnit a.service") == 1
        })
        .await;
        late.let_go("Reload").await;
        machine.live_for(SOON, |_| false).await;
        assert_eq!(late.n_heard("StartUnit a.service"), 1);
        assert!(!late.is_active());
        assert_eq!(phase(&machine), Some(Phase::Gone));
    });
}

/// Something else has started the unit, and the signal that tells so is late: without its file and
/// forgotten, it would run for ever.
#[test]
fn a_unit_that_runs_again_is_stopped_before_it_is_forgotten() {
    with_a_late_systemd(async |late, mut machine| {
        machine.order(UNIT, Order::Launched, TEXT);
        until(&mut machine, "it runs", |machine| {
            phase(machine) == Some(Phase::Launched)
        })
        .await;
        late.hold("GetUnit");
        machine.order(UNIT, Order::Gone, "");
        until(&mut machine, "it is unloaded", |_| late.n_kept() == 1).await;
        assert!(!late.is_active());
        late.peer.active.borrow_mut().insert(UNIT.to_owned());
        late.let_go("GetUnit").await;
        until(&mut machine, "it is gone", |machine| {
            phase(machine) == Some(Phase::Gone)
        })
        .await;
        assert!(!late.is_active(), "it runs, and nobody knows of it");
        assert_eq!(late.n_heard("StopUnit a.service"), 2);
    });
}

/// While systemd reloads it answers nobody. A reload that takes long is no silence: whoever gave the
/// connection up for it would begin with the same reload again, for ever.
#[test]
fn a_long_reload_is_waited_for_by_whoever_asks_something_else() {
    with_a_late_systemd(async |late, mut machine| {
        begin_a_reload(&late, &mut machine).await;
        let systemd = Arc::clone(&machine.systemd);
        let asks = tokio::task::spawn_local(async move { systemd.is_shutting_down().await });
        machine.live_for(LONG_RELOAD, |_| false).await;
        assert!(late.n_kept() > 1, "somebody asks meanwhile");
        late.let_go("*").await;
        assert!(!asks.await.unwrap());
        until(&mut machine, "it is loaded", is_loaded).await;
        assert_eq!(*late.n_connections.borrow(), 1);
        assert_eq!(late.n_heard("Reload"), 1);
    });
}

/// Somebody else has it reload (`systemctl daemon-reload`).
#[test]
fn a_long_reload_of_somebody_else_is_waited_for() {
    with_a_late_systemd(async |late, mut machine| {
        until(&mut machine, "systemd is reached", |machine| {
            machine.systemd.trouble().is_none()
        })
        .await;
        late.hold("*");
        late.tell_reloading(true).await;
        let systemd = Arc::clone(&machine.systemd);
        let asks = tokio::task::spawn_local(async move { systemd.is_shutting_down().await });
        machine.live_for(LONG_RELOAD, |_| false).await;
        late.tell_reloading(false).await;
        late.let_go("*").await;
        assert!(!asks.await.unwrap());
        assert_eq!(*late.n_connections.borrow(), 1);
    });
}

/// One call was not answered, and the connection is given up: what waits on it for longer would keep
/// the next one from its work.
#[test]
fn calls_in_flight_go_with_the_connection() {
    with_a_late_systemd(async |late, mut machine| {
        until(&mut machine, "systemd is reached", |machine| {
            machine.systemd.trouble().is_none()
        })
        .await;
        late.hold("Get");
        let systemd = Arc::clone(&machine.systemd);
        let asks = tokio::task::spawn_local(async move { systemd.is_shutting_down().await });
        // So much later the reload would be given up.
        machine.live_for(SOON, |_| false).await;
        begin_a_reload(&late, &mut machine).await;
        asks.await.unwrap();
        late.held.borrow_mut().clear();
        let began = tokio::time::Instant::now();
        machine.order(UNIT, Order::Loaded, "[Service]\nExecStart=/bin/false\n");
        until(&mut machine, "it is loaded", is_loaded).await;
        assert!(began.elapsed() < SOON / 4, "{:?}", began.elapsed());
        assert_eq!(*late.n_connections.borrow(), 2);
    });
}

/// systemd has an old text of the unit in memory, and says nothing any more when it is asked to read
/// the new one.
async fn begin_a_reload(late: &Rc<Late>, machine: &mut Machine) {
    late.stale.borrow_mut().insert(UNIT.to_owned());
    late.hold("Reload");
    machine.order(UNIT, Order::Loaded, TEXT);
    until(machine, "it reloads", |_| late.n_heard("Reload") == 1).await;
    late.hold("*");
    late.held.borrow_mut().remove("Reload");
}
