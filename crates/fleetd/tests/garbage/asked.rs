//! What systemd is asked for the sake of one start. Each question is a turn to its process and back,
//! in series with everything else that somebody waits for.

use std::rc::Rc;

use fleet_core::agent::Phase;
use fleet_core::name::UnitName;
use fleet_core::records::Order;
use fleetd::units::UnitManager as _;
use tokio::net::UnixListener;

use crate::chance::Chance;
use crate::run;
use crate::systemd::{Machine, Peer, ROUND};

/// Whether the machine has one of the name; the start; and its description, on the heels of that. How it
/// is, and which its process is, has been told by then.
const QUESTIONS: [&str; 3] = ["GetUnit", "StartUnit", "ListUnitsByNames"];

#[test]
fn a_start_asks_systemd_three_things() {
    run(|_alive| async move {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("systemd")).unwrap();
        let socket = UnixListener::bind(root.path().join("systemd/private")).unwrap();
        let peer = Peer::new(Chance::new(0x5eed_0003));
        *peer.is_honest.borrow_mut() = true;
        let local = tokio::task::LocalSet::new();
        local.spawn_local(Rc::clone(&peer).listen(socket));
        let mut machine = Machine::idle_on(root.path());
        local
            .run_until(async {
                let reached = |machine: &Machine| machine.systemd.trouble().is_none();
                assert!(machine.live_for(ROUND, reached).await);
                peer.calls.borrow_mut().clear();
                let text = "[Service]\nExecStart=/bin/true\n";
                machine.order("one.service", Order::Launched, text);
                let unit = UnitName::parse("one.service").unwrap();
                let is_launched = |machine: &Machine| {
                    let seen = machine.systemd.observe(&unit);
                    let record = seen.record.as_ref();
                    seen.working.is_none() && record.is_some_and(|it| it.phase == Phase::Launched)
                };
                assert!(machine.live_for(ROUND, is_launched).await);
                let seen = machine.systemd.observe(&unit);
                // Nothing is missing for that.
                assert_eq!((&*seen.load, &*seen.active), ("loaded", "active"));
                assert_eq!(seen.description, "A unit");
                assert_eq!(seen.invocation_id, "07".repeat(16));
                assert_eq!(*peer.calls.borrow(), QUESTIONS);
            })
            .await;
    });
}
