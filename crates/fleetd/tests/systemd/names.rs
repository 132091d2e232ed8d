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
