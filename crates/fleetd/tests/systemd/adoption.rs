//! The daemon is not the unit: its end, and systemd's own rebirth, change nothing that runs.

use std::fs;

use fleet_core::agent::Phase;

use crate::rig::{Machine, Manager, run, service};

#[test]
fn a_new_fleetd_adopts_what_runs_and_touches_nothing() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        for n in 0..5 {
            machine.launch(&format!("u{n}.service"), &service("/bin/sleep infinity"));
        }
        machine.settle_all().await;
        let ids = |m: &Machine| -> Vec<String> {
            m.desired
                .keys()
                .map(|unit| m.observe(unit.as_str()).invocation_id)
                .collect()
        };
        let before = ids(&machine);
        machine.restart(&manager).await;
        machine.settle_all().await;
        assert_eq!(ids(&machine), before);
        assert_eq!(machine.words(), [""; 0]);

        // Even when its records are lost, what runs with these contents is adopted.
        fs::remove_dir_all(manager.runtime().join("fleet/launched")).unwrap();
        machine.restart(&manager).await;
        machine.settle_all().await;
        assert_eq!(ids(&machine), before);
        assert!(
            machine
                .words()
                .iter()
                .all(|task| task.starts_with("remember "))
        );
        assert_eq!(machine.phase("u0.service"), Some(Phase::Launched));
        for unit in machine.desired.keys() {
            let shown = manager.show(unit.as_str(), "InvocationID");
            assert_eq!(shown, machine.observe(unit.as_str()).invocation_id);
        }
    });
}

#[test]
fn a_start_under_way_is_seen_through_by_the_next_fleetd() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let gate = manager.path("gate");
        let text = format!(
            "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'until [ -e {} ]; do sleep 0.02; done; echo run >> {}'\n",
            gate.display(),
            manager.path("runs").display()
        );
        machine.launch("once.service", &text);
        machine
            .until("it is being started", |m| {
                m.observe("once.service").active == "activating"
            })
            .await;
        machine.restart(&manager).await;
        assert_eq!(machine.phase("once.service"), Some(Phase::Starting));
        assert_eq!(machine.plan(), []);
        fs::write(&gate, "").unwrap();
        machine.settle_all().await;
        assert_eq!(fs::read_to_string(manager.path("runs")).unwrap(), "run\n");
        assert_eq!(machine.words(), [""; 0]);
    });
}

#[test]
fn systemd_may_reload_and_re_execute_itself_at_any_time() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.launch("a.service", &service("/bin/sleep infinity"));
        machine.settle_all().await;
        let before = machine.observe("a.service").invocation_id;

        manager.systemctl(&["daemon-reload"]);
        machine.launch("b.service", &service("/bin/sleep infinity"));
        machine.settle_all().await;
        assert_eq!(machine.observe("a.service").active, "active");

        manager.systemctl(&["daemon-reexec"]);
        machine.launch("c.service", &service("/bin/sleep infinity"));
        machine.settle_all().await;
        assert_eq!(machine.observe("a.service").invocation_id, before);
        assert_eq!(manager.show("a.service", "InvocationID"), before);
        // Signals come over the new connection.
        manager.systemctl(&["stop", "a.service"]);
        machine
            .until("the stop is seen", |m| m.observe("a.service").is_down())
            .await;
    });
}

#[test]
fn a_systemd_that_dies_is_trouble_until_it_is_back() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.launch("a.service", &service("/bin/sleep infinity"));
        machine.settle_all().await;
        fs::remove_file(manager.path("may-run")).unwrap();
        manager.kill();
        machine
            .until("it is trouble", |m| m.trouble().is_some())
            .await;
        let trouble = machine.trouble().unwrap();
        assert!(
            trouble.starts_with("systemd cannot be reached"),
            "{trouble}"
        );
        fs::write(manager.path("may-run"), "").unwrap();
        machine.until("it is back", |m| m.trouble().is_none()).await;
        machine.launch("b.service", &service("/bin/sleep infinity"));
        machine.settled("b.service").await;
    });
}
