//! New contents: the old process is stopped by its own stop directives before they are written.

use std::fs;

use fleet_core::records::Order;

use crate::rig::{Machine, Manager, run, service};

#[test]
fn the_old_contents_stop_the_old_process_and_the_new_ones_start_the_new() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let log = manager.path("order");
        let contents = |version: &str| {
            let say =
                |what: &str| format!("/bin/sh -c 'echo {version} {what} >> {}'", log.display());
            format!(
                "[Service]\nType=simple\nExecStartPre={}\nExecStart=/bin/sleep infinity\nExecStop={}\nExecStop={}\n",
                say("starts"),
                say("stops"),
                say("stopped"),
            )
        };
        machine.launch("a.service", &contents("old"));
        machine.settle_all().await;
        machine.launch("a.service", &contents("new"));
        machine.settle_all().await;
        machine.assign("a.service", Order::Gone, "");
        machine.settle_all().await;
        assert_eq!(
            fs::read_to_string(&log)
                .unwrap()
                .lines()
                .collect::<Vec<_>>(),
            [
                "old starts",
                "old stops",
                "old stopped",
                "new starts",
                "new stops",
                "new stopped"
            ]
        );
        assert_eq!(
            machine.words(),
            [
                "load a.service",
                "start a.service",
                "stop a.service",
                "load a.service",
                "start a.service",
                "stop a.service",
                "unload a.service"
            ]
        );
    });
}

#[test]
fn new_contents_count_wherever_systemd_still_has_the_old_ones_in_memory() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        // Failed, and kept in memory by another unit that refers to it.
        machine.launch("bad.service", &service("/bin/false"));
        machine.launch("held.service", &service("/bin/sleep infinity"));
        let holder =
            "[Unit]\nAfter=held.service bad.service\n\n[Service]\nExecStart=/bin/sleep infinity\n";
        machine.launch("holder.service", holder);
        machine.settle_all().await;
        assert_eq!(machine.observe("bad.service").active, "failed");

        machine.launch("bad.service", &service("/bin/sleep 1000001"));
        machine.launch("held.service", &service("/bin/sleep 1000002"));
        machine.settle_all().await;
        assert!(manager.show("bad.service", "ExecStart").contains("1000001"));
        assert!(
            manager
                .show("held.service", "ExecStart")
                .contains("1000002")
        );
        assert_eq!(machine.observe("bad.service").active, "active");
        assert_eq!(machine.observe("bad.service").failure, None);
    });
}

#[test]
fn a_file_removed_by_hand_is_put_back_and_the_process_is_not_touched() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let text = service("/bin/sleep infinity") + "\n[Install]\nWantedBy=default.target\n";
        machine.launch("a.service", &text);
        machine.assign("loaded.service", Order::Loaded, &text);
        machine.settle_all().await;
        machine.done.clear();
        let before = machine.observe("a.service").invocation_id;
        let file = manager.runtime().join("fleet/units/a.service");
        let link = manager.links().join("a.service");
        let wanted = manager.links().join("default.target.wants/a.service");

        // The file, the link, both by systemd's own command, and the whole directory.
        let units = manager.runtime().join("fleet/units");
        let removals: [&dyn Fn(); 4] = [
            &|| fs::remove_file(&file).unwrap(),
            &|| fs::remove_file(&link).unwrap(),
            &|| {
                manager.systemctl(&["--runtime", "disable", "a.service"]);
            },
            &|| fs::remove_dir_all(&units).unwrap(),
        ];
        for (n, remove) in removals.iter().enumerate() {
            remove();
            machine
                .until(&format!("removal {n} is mended"), |_| {
                    file.exists() && link.exists() && wanted.exists()
                })
                .await;
            machine.settle_all().await;
        }
        assert!(
            machine
                .words()
                .iter()
                .all(|task| matches!(&**task, "load a.service" | "load loaded.service")),
            "{:?}",
            machine.words()
        );
        assert!(units.join("loaded.service").exists());
        assert_eq!(machine.observe("a.service").invocation_id, before);
        assert_eq!(manager.show("a.service", "InvocationID"), before);
        assert_eq!(manager.show("a.service", "NeedDaemonReload"), "no");
    });
}

#[test]
fn a_file_removed_while_fleetd_is_away_is_put_back_too() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.launch("a.service", &service("/bin/sleep infinity"));
        machine.settle_all().await;
        let before = machine.observe("a.service").invocation_id;
        fs::remove_file(manager.runtime().join("fleet/units/a.service")).unwrap();
        machine.restart(&manager).await;
        machine.settle_all().await;
        assert_eq!(machine.words(), ["load a.service"]);
        assert_eq!(machine.observe("a.service").invocation_id, before);
        assert_eq!(manager.show("a.service", "InvocationID"), before);
        assert!(manager.runtime().join("fleet/units/a.service").exists());
    });
}

#[test]
fn a_unit_that_is_gone_is_out_of_systemds_memory_even_if_others_refer_to_it() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let holder = "[Unit]\nWants=held.service\nAfter=held.service\n\n[Service]\nExecStart=/bin/sleep infinity\n";
        machine.launch("held.service", &service("/bin/sleep infinity"));
        machine.settle_all().await;
        machine.launch("holder.service", holder);
        machine.settle_all().await;
        machine.assign("held.service", Order::Gone, "");
        machine.settle_all().await;
        // Whoever wants it does not bring it back.
        assert_eq!(manager.show("held.service", "LoadState"), "not-found");
        manager.systemctl(&["restart", "holder.service"]);
        assert_eq!(manager.show("held.service", "ActiveState"), "inactive");
        assert_eq!(manager.show("holder.service", "ActiveState"), "active");
    });
}
