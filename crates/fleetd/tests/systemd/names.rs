//! Names that the machine's own systemd has are refused, with the path, and left alone.

use std::fs;

use fleet_core::records::{Order, Reached};

use crate::rig::{Machine, Manager, run, service};

#[test]
fn a_name_of_the_machines_own_is_refused_and_what_runs_under_it_is_left_alone() {
    run(async {
        let manager = Manager::boot();
        let own = manager.path(".config/systemd/user");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("own.service"), service("/bin/sleep infinity")).unwrap();
        let mut machine = Machine::on(&manager).await;
        // A plain file in the very directory of fleet's links.
        fs::write(
            manager.links().join("beside.service"),
            service("/bin/sleep infinity"),
        )
        .unwrap();
        manager.systemctl(&["daemon-reload"]);
        manager.systemctl(&["start", "own.service", "beside.service"]);
        let before = manager.show("own.service", "InvocationID");
        assert_eq!(before.len(), 32);

        let text = service("/bin/sleep 7");
        for (unit, place) in [
            ("own.service", own.join("own.service").display().to_string()),
            (
                "beside.service",
                manager.links().join("beside.service").display().to_string(),
            ),
            ("init.scope", "made by systemd itself".to_owned()),
            ("-.slice", String::new()),
        ] {
            machine.launch(unit, &text);
            let (reached, why) = machine.settled(unit).await;
            let why = why.unwrap_or_default();
            assert_eq!(reached, Reached::Refused, "{unit}: {why}");
            assert!(
                why.contains(&format!("a {unit} of its own: {place}")),
                "{why}"
            );
            machine.assign(unit, Order::Gone, &text);
            assert_eq!(machine.settled(unit).await.0, Reached::Gone);
        }
        assert_eq!(manager.show("own.service", "InvocationID"), before);
        assert_eq!(manager.show("beside.service", "ActiveState"), "active");
        assert!(
            machine
                .words()
                .iter()
                .all(|task| task.starts_with("load ") || task.starts_with("start "))
        );
    });
}

#[test]
fn the_alias_of_another_unit_is_a_name_of_its_own_and_is_not_taken_over() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let text = service("/bin/sleep infinity") + "\n[Install]\nAlias=also.service\n";
        machine.launch("a.service", &text);
        machine.settle_all().await;
        let before = machine.observe("a.service").invocation_id;
        machine.launch("also.service", &service("/bin/sleep 7"));
        let (reached, why) = machine.settled("also.service").await;
        let why = why.unwrap_or_default();
        assert_eq!(reached, Reached::Refused, "{why}");
        let link = manager.links().join("also.service");
        assert!(why.contains(&link.display().to_string()), "{why}");
        machine.assign("also.service", Order::Gone, "");
        assert_eq!(machine.settled("also.service").await.0, Reached::Gone);
        assert!(link.exists(), "the alias stays");
        assert_eq!(manager.show("a.service", "InvocationID"), before);
    });
}

#[test]
fn a_refused_name_is_taken_once_the_machine_has_no_unit_of_it_any_more() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let text = service("/bin/sleep infinity");
        let run_user = |args: &[&str]| manager.as_manager("systemd-run", args);
        run_user(&["--user", "--unit=busy.service", "/bin/sleep", "infinity"]);
        machine.launch("busy.service", &text);
        let (reached, why) = machine.settled("busy.service").await;
        let why = why.unwrap_or_default();
        assert_eq!(reached, Reached::Refused, "{why}");
        assert!(why.contains("systemd/transient/busy.service"), "{why}");
        assert_eq!(manager.show("busy.service", "ActiveState"), "active");
        manager.systemctl(&["stop", "busy.service"]);
        // The engine asks again, by a newer decision.
        machine.launch("busy.service", &text);
        assert_eq!(
            machine.settled("busy.service").await,
            (Reached::Launched, None)
        );
    });
}
