//! `[Install]`: a unit is enabled for this boot while it is loaded, and nothing of that stays.

use std::fs;
use std::path::{Path, PathBuf};

use fleet_core::records::{Order, Reached};

use crate::rig::{Machine, Manager, run, service};

fn installed(install: &str) -> String {
    service("/bin/sleep infinity") + "\n[Install]\n" + install + "\n"
}

/// All links to the unit, and by the unit's name, below systemd's runtime directory.
fn links(manager: &Manager, unit: &str) -> Vec<String> {
    let root = manager.links();
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let target = fs::read_link(&path).unwrap_or_default();
            let named = |path: &Path| path.file_name().is_some_and(|name| name == unit);
            if named(&path) || named(&target) {
                found.push(path.strip_prefix(&root).unwrap().display().to_string());
            } else if path.is_dir() && !path.is_symlink() {
                directories.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_loaded(manager: &Manager, unit: &str) -> bool {
    let listed = manager.systemctl(&["list-units", "--all", "--plain", "--no-legend", unit]);
    !listed.is_empty()
}

#[test]
fn every_kind_of_install_option_makes_its_links_and_leaves_none() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        for (unit, install, expected) in [
            (
                "w.service",
                "WantedBy=default.target a.target",
                vec!["a.target.wants/w.service", "default.target.wants/w.service"],
            ),
            (
                "r.service",
                "RequiredBy=a.target",
                vec!["a.target.requires/r.service"],
            ),
            ("n.service", "Alias=other.service", vec!["other.service"]),
            (
                "i@1.service",
                "WantedBy=default.target\nDefaultInstance=7",
                vec!["default.target.wants/i@1.service"],
            ),
            (
                "t.timer",
                "WantedBy=timers.target",
                vec!["timers.target.wants/t.timer"],
            ),
        ] {
            let text = match unit {
                "t.timer" => {
                    "[Timer]\nOnActiveSec=1h\nUnit=w.service\n\n[Install]\n".to_owned()
                        + install
                        + "\n"
                }
                _ => installed(install),
            };
            machine.assign(unit, Order::Loaded, &text);
            machine.settle_all().await;
            let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            expected.push(unit.to_owned());
            expected.sort();
            assert_eq!(links(&manager, unit), expected, "{unit}");
            assert_eq!(
                manager.systemctl(&["is-enabled", unit]),
                "enabled-runtime",
                "{unit}"
            );
            // Everything that was in systemd's memory by then knows of it.
            manager.systemctl(&["daemon-reload"]);
            machine.assign(unit, Order::Gone, &text);
            machine.settle_all().await;
            assert_eq!(links(&manager, unit), [""; 0], "{unit}");
            assert!(!is_loaded(&manager, unit), "{unit} is in systemd's memory");
        }
    });
}

#[test]
fn other_install_options_take_the_place_of_the_old_ones() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let unit = "a.service";
        machine.launch(
            unit,
            &installed("WantedBy=old.target\nAlias=old-name.service"),
        );
        machine.settle_all().await;
        assert_eq!(links(&manager, unit).len(), 3);

        machine.launch(unit, &installed("WantedBy=new.target"));
        machine.settle_all().await;
        assert_eq!(links(&manager, unit), [unit, "new.target.wants/a.service"]);

        // None at all: only linked, as before there was any.
        machine.launch(unit, &service("/bin/sleep infinity"));
        machine.settle_all().await;
        assert_eq!(links(&manager, unit), [unit]);
        assert_eq!(manager.systemctl(&["is-enabled", unit]), "linked-runtime");
        assert_eq!(machine.observe(unit).active, "active");
    });
}

#[test]
fn an_enabled_unit_is_started_by_its_puller_and_no_more_once_it_is_gone() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.launch("puller.service", &service("/bin/sleep infinity"));
        machine.settle_all().await;
        let text = installed("WantedBy=puller.service");
        machine.assign("pulled.service", Order::Loaded, &text);
        machine.settle_all().await;
        manager.systemctl(&["restart", "puller.service"]);
        machine
            .until("systemd has started it", |m| {
                m.observe("pulled.service").active == "active"
            })
            .await;
        // fleet keeps its hands off: it is loaded, as ordered.
        assert_eq!(machine.plan(), []);

        machine.assign("pulled.service", Order::Gone, &text);
        machine.settle_all().await;
        manager.systemctl(&["restart", "puller.service"]);
        assert_eq!(manager.show("puller.service", "Wants"), "");
        assert!(!is_loaded(&manager, "pulled.service"));
    });
}

#[test]
fn what_cannot_be_enabled_is_refused_with_the_reason_and_leaves_nothing() {
    run(async {
        let manager = Manager::boot();
        let own = manager.path(".config/systemd/user");
        fs::create_dir_all(&own).unwrap();
        let taken: PathBuf = manager.links().join("taken.service");
        let mut machine = Machine::on(&manager).await;
        fs::write(&taken, service("/bin/true")).unwrap();
        for (unit, install, why) in [
            ("a.service", "Alias=taken.service", "taken.service"),
            ("b.service", "DefaultInstance=1", "WantedBy="),
            ("c.service", "Bogus=x", "WantedBy="),
        ] {
            machine.launch(unit, &installed(install));
            let (reached, said) = machine.settled(unit).await;
            let said = said.unwrap_or_default();
            assert_eq!(reached, Reached::Refused, "{unit}: {said}");
            let begin = format!("Failed to enable systemd unit {unit}: ");
            assert!(said.starts_with(&begin), "{said}");
            assert!(said.contains(why), "{said}");
            assert_eq!(links(&manager, unit), [""; 0], "{unit}");
        }
        assert!(taken.exists(), "the machine's own is not taken over");
    });
}

#[test]
fn a_unit_that_is_enabled_along_with_another_survives_the_end_of_that() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.launch("b.service", &installed("WantedBy=default.target"));
        machine.settle_all().await;
        let before = machine.observe("b.service").invocation_id;
        let enabled = ["b.service", "default.target.wants/b.service"];
        machine.launch(
            "a.service",
            &installed("WantedBy=default.target\nAlso=b.service"),
        );
        machine.settle_all().await;
        // systemd may disable both; the other one is still wanted, and stays or is put back.
        machine.assign("a.service", Order::Gone, "");
        machine.settle_all().await;
        machine
            .until("it is enabled again", |_| {
                links(&manager, "b.service") == enabled
            })
            .await;
        assert_eq!(links(&manager, "a.service"), [""; 0]);
        assert_eq!(machine.observe("b.service").invocation_id, before);
    });
}
