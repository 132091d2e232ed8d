//! A unit's life: loaded, launched, stopped, gone.

use fleet_core::agent::Phase;
use fleet_core::records::{Order, Reached};

use crate::rig::{Machine, Manager, run, service};

#[test]
fn a_unit_is_loaded_launched_and_gone() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let text = service("/bin/sleep infinity");

        machine.assign("a@1.service", Order::Loaded, &text);
        machine.settle_all().await;
        let seen = machine.observe("a@1.service");
        assert_eq!(
            (seen.load.as_str(), seen.active.as_str()),
            ("loaded", "inactive")
        );
        assert_eq!(seen.description, "Test a@1.service");
        assert!(manager.links().join("a@1.service").exists());

        machine.launch("a@1.service", &text);
        machine.settle_all().await;
        let seen = machine.observe("a@1.service");
        assert_eq!(
            (seen.active.as_str(), seen.sub.as_str()),
            ("active", "running")
        );
        assert_eq!(
            manager.show("a@1.service", "InvocationID"),
            seen.invocation_id
        );
        assert_eq!(seen.invocation_id.len(), 32);
        assert_eq!(seen.record.unwrap().invocation_id, seen.invocation_id);

        // Loaded again: what fleet started, fleet stops.
        machine.assign("a@1.service", Order::Loaded, &text);
        machine.settle_all().await;
        assert_eq!(manager.show("a@1.service", "ActiveState"), "inactive");
        assert_eq!(machine.phase("a@1.service"), Some(Phase::Loaded));

        machine.launch("a@1.service", &text);
        machine.settle_all().await;
        machine.assign("a@1.service", Order::Gone, &text);
        machine.settle_all().await;
        assert_eq!(manager.show("a@1.service", "LoadState"), "not-found");
        assert!(
            manager
                .links()
                .join("a@1.service")
                .symlink_metadata()
                .is_err()
        );
        assert!(!manager.runtime().join("fleet/units/a@1.service").exists());
        assert_eq!(machine.phase("a@1.service"), Some(Phase::Gone));
        assert_eq!(
            machine.plan(),
            [],
            "a plan that is carried out leaves nothing to do"
        );
    });
}

#[test]
fn types_other_than_services_start_and_go() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let units = [
            ("t.target", "[Unit]\nDescription=t\n"),
            ("s.slice", "[Unit]\nDescription=s\n"),
            ("k.socket", "[Socket]\nListenStream=%t/k.sock\n"),
            ("k.service", "[Service]\nExecStart=/bin/sleep infinity\n"),
            ("m.timer", "[Timer]\nOnActiveSec=1h\nUnit=k.service\n"),
            (
                "p.path",
                "[Path]\nPathExists=/nonexistent/x\nUnit=k.service\n",
            ),
        ];
        for (unit, text) in units {
            let order = if unit == "k.service" {
                Order::Loaded
            } else {
                Order::Launched
            };
            machine.assign(unit, order, text);
        }
        machine.settle_all().await;
        for (unit, _) in units.iter().filter(|(unit, _)| *unit != "k.service") {
            assert_eq!(machine.observe(unit).active, "active", "{unit}");
        }
        for (unit, text) in units {
            machine.assign(unit, Order::Gone, text);
        }
        machine.settle_all().await;
        for (unit, _) in units {
            assert_eq!(manager.show(unit, "ActiveState"), "inactive", "{unit}");
        }
        // A type that systemd loads from no file is refused, and leaves nothing behind.
        for unit in ["x.snapshot", "x.scope", "x.device", "x.busname"] {
            machine.launch(unit, "[Unit]\nDescription=x\n");
            let (reached, why) = machine.settled(unit).await;
            let why = why.unwrap_or_default();
            assert_eq!(reached, Reached::Refused, "{unit}");
            assert!(why.contains("systemd loads no"), "{why}");
            assert!(why.contains("(use a "), "the cure: {why}");
            assert!(manager.links().join(unit).symlink_metadata().is_err());
        }
    });
}

#[test]
fn a_unit_that_finished_or_was_stopped_by_hand_stays_so_until_it_is_asked_for_again() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let oneshot = "[Service]\nType=oneshot\nExecStart=/bin/true\n";
        let sleep = service("/bin/sleep infinity");
        machine.launch("once.service", oneshot);
        machine.launch("sleep.service", &sleep);
        machine.settle_all().await;
        manager.systemctl(&["stop", "sleep.service"]);
        machine
            .until("the stop is seen", |m| m.observe("sleep.service").is_down())
            .await;
        assert_eq!(machine.plan(), []);

        machine.restart(&manager).await;
        machine.settle_all().await;
        assert_eq!(
            machine.words(),
            [""; 0],
            "nothing is started by a new fleetd"
        );

        let before = machine.observe("once.service");
        machine.launch("sleep.service", &sleep);
        machine.launch("once.service", oneshot);
        machine.settle_all().await;
        assert_eq!(machine.observe("sleep.service").active, "active");
        assert_eq!(before.active, "inactive");
        assert_eq!(
            machine.words(),
            ["start once.service", "start sleep.service"]
        );
    });
}

#[test]
fn a_restart_is_done_once_and_shows_in_the_invocation() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.launch("a.service", &service("/bin/sleep infinity"));
        machine.settle_all().await;
        let before = machine.observe("a.service").invocation_id;
        let wish = machine.desired.values_mut().next().unwrap();
        wish.restarts += 1;
        wish.decision.generation += 1;
        machine.settle_all().await;
        let after = machine.observe("a.service").invocation_id;
        assert_ne!(before, after);
        assert_eq!(manager.show("a.service", "InvocationID"), after);
        assert_eq!(machine.plan(), []);
    });
}

#[test]
fn a_stop_overtakes_a_start_that_does_not_come_to_an_end() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let never_ready =
            "[Service]\nType=notify\nTimeoutStartSec=1h\nExecStart=/bin/sleep infinity\n";
        machine.launch("a.service", never_ready);
        machine
            .until("it is being started", |m| {
                m.observe("a.service").active == "activating"
            })
            .await;
        machine.assign("a.service", Order::Gone, never_ready);
        machine.settle_all().await;
        assert_eq!(manager.show("a.service", "LoadState"), "not-found");
    });
}
