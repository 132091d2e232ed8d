//! What fails is told with its reason, and keeps nobody else waiting.

use fleet_core::records::{Order, Reached};

use crate::rig::{Machine, Manager, run, service};

#[test]
fn a_program_that_fails_at_once_is_told_as_failed_with_its_status() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let cases = [
            ("exit.service", service("/bin/sh -c 'exit 42'"), "exit-code: main process exited, status 42"),
            ("missing.service", service("/nonexistent/program"), "exit-code: main process exited, status 203/EXEC"),
            ("signal.service", service("/bin/sh -c 'kill -KILL $$$$'"), "signal: main process killed, signal 9/KILL"),
            (
                "once.service",
                "[Service]\nType=oneshot\nExecStart=/bin/false\n".to_owned(),
                "exit-code: main process exited, status 1/FAILURE",
            ),
            (
                "pre.service",
                "[Service]\nExecStartPre=/bin/sh -c 'exit 7'\nExecStart=/bin/sleep infinity\n".to_owned(),
                "exit-code: control process exited, status 7/NOTRUNNING",
            ),
            (
                "slow.service",
                "[Service]\nType=notify\nTimeoutStartSec=100ms\nExecStart=/bin/sleep infinity\n".to_owned(),
                "timeout: a step took longer than its timeout",
            ),
            (
                "needy.service",
                "[Unit]\nRequires=once.service\nAfter=once.service\n\n[Service]\nExecStart=/bin/sleep infinity\n".to_owned(),
                "dependency: a unit that it requires could not be started",
            ),
        ];
        for (unit, text, _) in &cases {
            machine.launch(unit, text);
        }
        machine.launch("well.service", &service("/bin/sleep infinity"));
        for (unit, _, why) in &cases {
            assert_eq!(
                machine.settled(unit).await,
                (Reached::Launched, Some((*why).to_owned())),
                "{unit}"
            );
        }
        machine.settle_all().await;
        assert_eq!(machine.observe("well.service").active, "active");
        assert_eq!(machine.plan(), [], "what failed is not started again");
        // Started again in order, it is no longer told as failed.
        machine.launch("exit.service", &service("/bin/sleep infinity"));
        assert_eq!(
            machine.settled("exit.service").await,
            (Reached::Launched, None)
        );
        // What failed can be removed.
        for (unit, _, _) in &cases {
            machine.assign(unit, Order::Gone, "");
        }
        machine.settle_all().await;
        assert_eq!(manager.systemctl(&["list-units", "--failed", "-q"]), "");
    });
}

#[test]
fn a_unit_that_fails_each_time_it_is_asked_for_is_told_with_the_same_reason() {
    const N_STARTS: usize = 20;
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let text = service("/bin/sh -c 'exit 42'");
        let why = Some("exit-code: main process exited, status 42".to_owned());
        for start in 0..N_STARTS {
            machine.launch("exit.service", &text);
            assert_eq!(
                machine.settled("exit.service").await,
                (Reached::Launched, why.clone()),
                "start {start}"
            );
        }
    });
}

#[test]
fn what_systemd_cannot_load_is_refused_and_leaves_nothing_behind() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let broken = "[Service]\nType=simple\n";
        machine.launch("broken.service", broken);
        machine.assign("broken-too.service", Order::Loaded, broken);
        machine.launch("well.service", &service("/bin/sleep infinity"));
        for unit in ["broken.service", "broken-too.service"] {
            let (reached, why) = machine.settled(unit).await;
            assert_eq!(reached, Reached::Refused, "{unit}: {why:?}");
            assert!(why.is_some());
            assert!(manager.links().join(unit).symlink_metadata().is_err());
        }
        assert_eq!(
            machine.settled("well.service").await,
            (Reached::Launched, None)
        );
        // The same decision is not tried again; a new one with good contents is.
        assert_eq!(machine.plan(), []);
        machine.launch("broken.service", &service("/bin/sleep infinity"));
        assert_eq!(
            machine.settled("broken.service").await,
            (Reached::Launched, None)
        );
        machine.assign("broken-too.service", Order::Gone, "");
        assert_eq!(
            machine.settled("broken-too.service").await,
            (Reached::Gone, None)
        );
    });
}

#[test]
fn many_that_systemd_cannot_load_delay_nobody() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let broken: Vec<String> = (0..60).map(|n| format!("broken-{n}.service")).collect();
        for unit in &broken {
            machine.assign(unit, Order::Loaded, "[Service]\nType=simple\n");
        }
        machine.launch("well.service", &service("/bin/sleep infinity"));
        assert_eq!(
            machine.settled("well.service").await,
            (Reached::Launched, None)
        );
        // For each the journal is asked, which takes a while.
        let is_open = |unit: &String| machine.reached(unit).is_none();
        assert!(broken.iter().any(is_open));
    });
}

#[test]
fn a_unit_that_takes_long_to_stop_delays_nobody() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let gate = manager.path("gate");
        let stubborn = format!(
            "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sh -c 'until [ -e {} ]; do sleep 0.02; done'\n",
            gate.display()
        );
        machine.launch("a-stubborn.service", &stubborn);
        machine.settle_all().await;
        machine.assign("a-stubborn.service", Order::Gone, "");
        machine.launch("b.service", &service("/bin/sleep infinity"));
        assert_eq!(
            machine.settled("b.service").await,
            (Reached::Launched, None)
        );
        let seen = machine.observe("a-stubborn.service");
        assert_eq!(seen.active, "deactivating");
        assert_eq!(machine.reached("a-stubborn.service"), None);
        std::fs::write(&gate, "").unwrap();
        machine.settle_all().await;
        assert_eq!(manager.show("a-stubborn.service", "LoadState"), "not-found");
    });
}

#[test]
fn a_start_that_systemd_refuses_for_now_is_tried_again_with_its_reason_told() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        // A socket needs its service, which comes a little later.
        machine.launch("k.socket", "[Socket]\nListenStream=%t/k.sock\n");
        machine
            .until("an attempt has failed", |m| {
                m.observe("k.socket").attempt.is_some()
            })
            .await;
        let (reached, why) = machine.reached("k.socket").unwrap();
        assert_eq!(reached, Reached::Working);
        assert!(
            why.unwrap_or_default().contains("k.service"),
            "it names what is missing"
        );
        machine.assign("k.service", Order::Loaded, &service("/bin/sleep infinity"));
        machine.settle_all().await;
        assert_eq!(machine.observe("k.socket").active, "active");

        // Without it for good, the machine refuses; the cluster may find another.
        machine.launch("alone.socket", "[Socket]\nListenStream=%t/alone.sock\n");
        let refused =
            |m: &Machine| matches!(m.reached("alone.socket"), Some((Reached::Refused, _)));
        machine.until("it is refused", refused).await;
        let (_, why) = machine.reached("alone.socket").unwrap();
        assert!(why.unwrap_or_default().contains("alone.service"));
        assert!(
            manager
                .links()
                .join("alone.socket")
                .symlink_metadata()
                .is_err()
        );
    });
}

#[test]
fn bad_contents_in_the_place_of_good_ones_are_refused_and_can_be_removed() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.launch("a.service", &service("/bin/sleep infinity"));
        machine.settle_all().await;
        machine.launch("a.service", "[Service]\nType=simple\n");
        let (reached, why) = machine.settled("a.service").await;
        assert_eq!(reached, Reached::Refused, "{why:?}");
        assert!(
            manager
                .links()
                .join("a.service")
                .symlink_metadata()
                .is_err()
        );
        assert_eq!(manager.show("a.service", "LoadState"), "not-found");
        machine.assign("a.service", Order::Gone, "");
        assert_eq!(machine.settled("a.service").await.0, Reached::Gone);
        machine.launch("a.service", &service("/bin/sleep infinity"));
        assert_eq!(
            machine.settled("a.service").await,
            (Reached::Launched, None)
        );
    });
}
