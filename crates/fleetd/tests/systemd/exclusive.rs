//! Exclusive units and their lease: systemd ends them in time, whatever has become of fleetd.

use std::time::Duration;

use fleet_core::agent::Phase;
use fleet_core::records::{Order, Reached};
use fleetd::units::UnitManager;

use crate::rig::{Machine, Manager, run, service};

const UNIT: &str = "once.service";
const TARGET: &str = "fleet-lease.target";

fn exclusive(service: &str) -> String {
    format!("{service}\n[X-Fleet]\nExclusive=yes\n")
}

fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        time.tv_sec.try_into().unwrap(),
        time.tv_nsec.try_into().unwrap(),
    )
}

/// As long as nobody is in a hurry.
const LONG: Duration = Duration::from_secs(600);
/// Long enough for a unit to start on a busy computer, if it is renewed.
const SHORT: Duration = Duration::from_secs(4);

/// The timers of the lease that are there.
fn timers(manager: &Manager) -> Vec<String> {
    let list = manager.systemctl(&[
        "list-units",
        "--all",
        "--plain",
        "--no-legend",
        "fleet-lease@*.timer",
    ]);
    let names = list.lines().filter_map(|line| line.split(' ').next());
    let timers = names.filter(|name| name.starts_with("fleet-lease@"));
    timers.map(str::to_owned).collect()
}

/// Waits for what systemd does by itself.
async fn until_systemd(what: &str, is_so: impl Fn() -> bool) {
    let patience = now() + Duration::from_secs(60);
    while !is_so() {
        assert!(now() < patience, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn an_exclusive_unit_ends_with_the_lease_though_fleetd_is_gone_and_starts_again_with_another() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.systemd.lease_until(now() + LONG);
        machine.launch(UNIT, &exclusive(&service("/bin/sleep infinity")));
        machine.settle_all().await;
        assert_eq!(manager.show(UNIT, "ActiveState"), "active");
        assert_eq!(manager.show(UNIT, "TimeoutStopUSec"), "3s");
        assert_eq!(timers(&manager).len(), 1);
        let first = manager.show(UNIT, "InvocationID");

        // Another fleetd has the say, and a shorter lease. Each renewal takes the place of the last.
        drop(std::mem::replace(&mut machine, Machine::on(&manager).await));
        assert!(!machine.observe(UNIT).is_lease_set);
        let mut end = now() + SHORT;
        machine.systemd.lease_until(end);
        machine
            .until("the lease is its own", |m| m.observe(UNIT).is_lease_set)
            .await;
        assert_eq!(timers(&manager).len(), 1);
        let before = timers(&manager);
        manager.systemctl(&["daemon-reload"]);
        end = now() + SHORT;
        machine.systemd.lease_until(end);
        until_systemd("it is renewed", || {
            let now = timers(&manager);
            now.len() == 1 && now != before
        })
        .await;
        assert_eq!(manager.show(UNIT, "InvocationID"), first);

        // Nobody renews it: systemd ends it, and not before its time.
        drop(machine);
        until_systemd("the unit is stopped", || {
            manager.show(UNIT, "ActiveState") == "inactive"
        })
        .await;
        assert!(now() >= end, "it was stopped while its lease lived");
        assert_eq!(manager.show(TARGET, "ActiveState"), "inactive");
        // By hand it does not start either.
        let refused = manager.systemctl(&["start", UNIT]);
        assert!(refused.contains("ependency"), "{refused}");

        let mut machine = Machine::on(&manager).await;
        machine.launch(UNIT, &exclusive(&service("/bin/sleep infinity")));
        machine.desired.clear();
        machine.restart(&manager).await;
        machine.systemd.lease_until(now() + LONG);
        machine.assign(
            UNIT,
            Order::Launched,
            &exclusive(&service("/bin/sleep infinity")),
        );
        machine.settle_all().await;
        assert_eq!(manager.show(UNIT, "ActiveState"), "active");
        assert_ne!(manager.show(UNIT, "InvocationID"), first);
    });
}

#[test]
fn without_a_lease_an_exclusive_unit_is_not_started_and_what_ended_with_one_is_started_again() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.launch(UNIT, &exclusive(&service("/bin/sleep infinity")));
        machine
            .until("it could not be started", |m| {
                m.observe(UNIT).attempt.is_some()
            })
            .await;
        assert_eq!(manager.show(UNIT, "ActiveState"), "inactive");
        machine.systemd.lease_until(now() + SHORT);
        machine
            .until("it runs", |m| {
                m.observe(UNIT).active == "active" || {
                    m.systemd.lease_until(now() + SHORT);
                    false
                }
            })
            .await;
        let first = manager.show(UNIT, "InvocationID");
        // The same wish, with a fleetd that looks on while the lease ends.
        machine
            .until("it ended with the lease", |m| {
                m.phase(UNIT) == Some(Phase::Stopping) || m.observe(UNIT).attempt.is_some()
            })
            .await;
        machine.systemd.lease_until(now() + LONG);
        machine.settle_all().await;
        assert_eq!(manager.show(UNIT, "ActiveState"), "active");
        assert_ne!(manager.show(UNIT, "InvocationID"), first);
    });
}

#[test]
fn what_goes_down_with_the_lease_while_fleetd_starts_is_started_again_though_others_take_longer() {
    const SLOW: &str = "slow.service";
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let text = exclusive(&service("/bin/sleep infinity"));
        // It goes down when the test says so, and the target of the lease waits for it.
        let gate = manager.runtime().join("gate");
        let wait = format!(
            "ExecStop=/bin/sh -c 'until [ -e {} ]; do sleep 0.1; done'\nTimeoutStopSec=60\n",
            gate.display()
        );
        let slow = exclusive(&(service("/bin/sleep infinity") + &wait));
        machine.systemd.lease_until(now() + LONG);
        machine.launch(UNIT, &text);
        machine.launch(SLOW, &slow);
        machine.settle_all().await;
        let units = [UNIT, SLOW];
        let first = units.map(|unit| manager.show(unit, "InvocationID"));

        // The lease ends as systemd would end it, and nobody of fleet is there.
        drop(machine);
        manager.systemctl(&["start", "--no-block", "fleet-lease@1.service"]);
        until_systemd("one is down and one on its way", || {
            manager.show(UNIT, "ActiveState") == "inactive"
                && manager.show(SLOW, "ActiveState") == "deactivating"
        })
        .await;
        assert_eq!(manager.show(TARGET, "ActiveState"), "active");
        let mut machine = Machine::on(&manager).await;
        machine.launch(UNIT, &text);
        machine.launch(SLOW, &slow);
        machine.systemd.lease_until(now() + LONG);
        machine
            .until("both are known for stopped with the lease", |m| {
                units
                    .iter()
                    .all(|unit| m.phase(unit) != Some(Phase::Launched))
            })
            .await;
        std::fs::write(&gate, "").unwrap();
        machine
            .until("both are started again", |m| {
                units.iter().all(|unit| m.observe(unit).active == "active")
            })
            .await;
        assert_eq!(manager.show(TARGET, "ActiveState"), "active");
        let again = units.map(|unit| manager.show(unit, "InvocationID"));
        assert!(first[0] != again[0] && first[1] != again[1], "{again:?}");
    });
}

#[test]
fn an_exclusive_unit_that_ended_by_itself_is_left_and_nothing_is_left_of_one_that_is_gone() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.systemd.lease_until(now() + LONG);
        let text = exclusive(&service("/bin/sleep 0.2"));
        machine.launch(UNIT, &text);
        machine.settle_all().await;
        machine
            .until("it has ended", |m| m.observe(UNIT).is_down())
            .await;
        let leased = manager.runtime().join("fleet/leased").join(UNIT);
        until_systemd("its end was looked into", || !leased.exists()).await;
        machine.restart(&manager).await;
        assert_eq!(machine.phase(UNIT), Some(Phase::Launched));
        assert_eq!(machine.plan(), [], "what has ended is not started again");

        machine.assign(UNIT, Order::Gone, &text);
        machine.settle_all().await;
        until_systemd("nothing is left of the lease", || {
            !manager.links().join(TARGET).exists() && timers(&manager).is_empty()
        })
        .await;
        assert!(!manager.links().join(format!("{UNIT}.d")).exists());
        assert_eq!(manager.show(TARGET, "ActiveState"), "inactive");
    });
}

#[test]
fn an_exclusive_unit_whose_stop_has_no_end_is_refused_aloud() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.systemd.lease_until(now() + LONG);
        let endless = service("/bin/sleep infinity") + "TimeoutStopSec=infinity\n";
        machine.launch(UNIT, &exclusive(&endless));
        let (reached, why) = machine.settled(UNIT).await;
        assert_eq!(reached, Reached::Refused);
        assert!(
            why.unwrap()
                .contains("TimeoutStopSec=infinity waits for ever: give a time")
        );

        // A stop time of its own counts, and a name that fleet needs is nobody else's.
        let own = service("/bin/sleep infinity") + "TimeoutStopSec=7\n";
        machine.launch(UNIT, &exclusive(&own));
        machine.settle_all().await;
        assert_eq!(manager.show(UNIT, "TimeoutStopUSec"), "7s");
        machine.launch("fleet-lease@1.service", &service("/bin/true"));
        let (reached, why) = machine.settled("fleet-lease@1.service").await;
        assert_eq!(reached, Reached::Refused);
        assert!(why.unwrap().contains("a name that fleet uses itself"));
    });
}

#[test]
fn what_ended_with_the_lease_while_fleetd_stood_still_is_known_for_that_though_it_renews_it_first()
{
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        machine.systemd.lease_until(now() + SHORT);
        machine.launch(UNIT, &exclusive(&service("/bin/sleep infinity")));
        machine
            .until("it runs", |m| {
                m.observe(UNIT).active == "active" || {
                    m.systemd.lease_until(now() + SHORT);
                    false
                }
            })
            .await;
        let first = manager.show(UNIT, "InvocationID");
        // Nothing of fleetd runs as long as this thread does not wait.
        let patience = now() + Duration::from_secs(60);
        while manager.show(UNIT, "ActiveState") != "inactive" {
            assert!(now() < patience, "the lease does not end");
        }
        // An answer that was on its way all the time.
        machine.systemd.lease_until(now() + LONG);
        machine
            .until("it ended with the lease", |m| {
                m.phase(UNIT) == Some(Phase::Stopping)
            })
            .await;
        machine.settle_all().await;
        assert_eq!(manager.show(UNIT, "ActiveState"), "active");
        assert_ne!(manager.show(UNIT, "InvocationID"), first);
    });
}
