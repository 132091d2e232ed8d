use fleet_api::v2::{RefusalView, StateView};

use super::*;

const BOUNDS: Bounds = Bounds {
    pending: Duration::from_secs(10),
    working: Duration::from_secs(120),
    is_total: false,
};

fn now() -> Instant {
    // tokio's clock, which tests may pause.
    Instant::now()
}

fn start(name: &str) -> Awaited {
    Awaited::new(name, 1, Goal::Launched, false)
}

fn line(name: &str, phase: &str, is_final: bool) -> Progress {
    Progress {
        name: name.into(),
        phase: phase.into(),
        is_final,
        ..Progress::default()
    }
}

fn pending(name: &str) -> Progress {
    Progress {
        refusals: vec![
            RefusalView {
                requirement: "MachineMetadata region=mars".into(),
                machines: 2,
            },
            RefusalView {
                requirement: "Conflicts b.service".into(),
                machines: 1,
            },
        ],
        considered: 3,
        ..line(name, "pending", false)
    }
}

/// The texts of events, in short.
fn said(events: Vec<Event>) -> Vec<String> {
    let say = |event| match event {
        Event::Reached { unit, goal, .. } => format!("{unit} {}", goal.as_str()),
        Event::Failed { text, .. } => format!("failed: {text}"),
        Event::Note(text) => text,
    };
    events.into_iter().map(say).collect()
}

#[test]
fn where_no_machine_was_asked_none_is_counted() {
    let circle = Progress {
        reason: "MachineOf goes in a circle: a.service → a.service".into(),
        ..line("a.service", "pending", false)
    };
    let mut waits = Waits::new(vec![start("a.service")], BOUNDS, now());
    assert_eq!(
        said(waits.progress(&circle, now())),
        ["no machine runs a.service yet: MachineOf goes in a circle: a.service → a.service"]
    );
}

#[test]
fn a_pending_unit_is_told_once_and_given_up_early() {
    let begin = now();
    let mut waits = Waits::new(vec![start("a.service")], BOUNDS, begin);
    assert_eq!(
        said(waits.progress(&pending("a.service"), begin)),
        [
            "0 of 3 machines may run a.service: MachineMetadata region=mars refused 2, Conflicts b.service refused 1"
        ]
    );
    assert_eq!(said(waits.progress(&pending("a.service"), begin)), [""; 0]);
    assert_eq!(waits.next_end(), Some(begin + BOUNDS.pending));
    assert_eq!(said(waits.expire(begin + BOUNDS.pending / 2)), [""; 0]);
    let given_up = said(waits.expire(begin + BOUNDS.pending));
    assert!(given_up[0].starts_with(
        "failed: timed out waiting for unit a.service to report state launched (0 of 3 machines"
    ));
    assert_eq!(waits.next_end(), None);
}

#[test]
fn a_machine_at_work_is_given_more_time_from_the_moment_it_has_the_unit() {
    let begin = now();
    let mut waits = Waits::new(vec![start("a.service")], BOUNDS, begin);
    waits.progress(&pending("a.service"), begin);
    let placed = begin + Duration::from_secs(5);
    waits.progress(&line("a.service", "placed", false), placed);
    // Nothing new: the engine has not looked at it again.
    waits.progress(&line("a.service", "submitted", false), placed);
    assert_eq!(said(waits.expire(begin + BOUNDS.pending)), [""; 0]);
    assert_eq!(waits.next_end(), Some(placed + BOUNDS.working));
    assert_eq!(
        said(waits.expire(placed + BOUNDS.working)),
        ["failed: timed out waiting for unit a.service to report state launched; it stays wanted"]
    );
}

#[test]
fn each_unit_has_its_own_end() {
    let begin = now();
    let mut waits = Waits::new(vec![start("a.service"), start("b.service")], BOUNDS, begin);
    waits.progress(&pending("a.service"), begin);
    waits.progress(&line("b.service", "placed", false), begin);
    assert_eq!(said(waits.expire(begin + BOUNDS.pending)).len(), 1);
    let open: Vec<&str> = waits.open().map(|unit| unit.name.as_str()).collect();
    assert_eq!(open, ["b.service"]);
    assert_eq!(
        said(waits.progress(&line("b.service", "launched", true), begin)),
        ["b.service launched"]
    );
    assert_eq!(waits.reached, ["b.service"]);
}

#[test]
fn attempts_of_two_seconds_bound_both() {
    let bounds = Bounds::of_attempts(3);
    assert_eq!(bounds.pending, Duration::from_secs(6));
    assert_eq!(bounds.working, Duration::from_secs(6));
    assert_eq!(Bounds::of_attempts(0), BOUNDS);
}

#[test]
fn a_refusal_is_told_and_the_wait_goes_on() {
    let mut waits = Waits::new(vec![start("a.service")], BOUNDS, now());
    let refused = Progress {
        reason: "systemd has a unit of that name".into(),
        machine: Some(MachineRef {
            id: "63d22e369175433883a37d92cc53f36c".into(),
            primary_ip: "10.0.0.1".into(),
        }),
        ..line("a.service", "refused", false)
    };
    assert_eq!(
        said(waits.progress(&refused, now())),
        ["unit a.service was refused on 63d22e36.../10.0.0.1: systemd has a unit of that name"]
    );
    let last = Progress {
        is_final: true,
        ..refused
    };
    assert!(
        said(waits.progress(&last, now()))[0].starts_with("failed: unit a.service was refused")
    );
}

#[test]
fn a_lost_machine_that_cannot_confirm_the_stop_is_told() {
    let awaited = Awaited::new("a.service", 1, Goal::Destroyed, false);
    let mut waits = Waits::new(vec![awaited], BOUNDS, now());
    let last = Progress {
        reason: "machine m1 is lost".into(),
        machine: Some(MachineRef {
            id: "m1".into(),
            primary_ip: String::new(),
        }),
        ..line("a.service", "destroyed", true)
    };
    assert_eq!(
        said(waits.progress(&last, now())),
        ["Unit a.service: machine m1 is lost", "a.service destroyed"]
    );
}

#[test]
fn a_wish_that_somebody_else_has_changed() {
    let mut waits = Waits::new(vec![start("a.service")], BOUNDS, now());
    assert_eq!(
        said(waits.progress(&line("a.service", "inactive", true), now())),
        ["failed: unit a.service was changed by somebody else: it is inactive now"]
    );
}

#[test]
fn a_global_unit_fails_on_one_machine_and_runs_on_another() {
    let awaited = Awaited::new("g.service", 1, Goal::Launched, true);
    let mut waits = Waits::new(vec![awaited], BOUNDS, now());
    let on = |id: &str, phase: &str| Progress {
        machine: Some(MachineRef {
            id: id.into(),
            primary_ip: String::new(),
        }),
        ..line("g.service", phase, false)
    };
    assert_eq!(
        said(waits.progress(&on("m1", "launched"), now())),
        ["g.service launched"]
    );
    assert_eq!(
        said(waits.progress(&on("m2", "failed"), now())),
        ["failed: unit g.service failed on m2"]
    );
    // The last line of the unit repeats what its machines have said.
    assert_eq!(
        said(waits.progress(&line("g.service", "failed", true), now())),
        [""; 0]
    );
    assert_eq!(waits.next_end(), None);
    assert!(waits.reached.is_empty());
}

#[test]
fn a_global_unit_that_no_machine_qualifies_for_is_no_failure() {
    let awaited = Awaited::new("g.service", 1, Goal::Launched, true);
    let mut waits = Waits::new(vec![awaited], BOUNDS, now());
    assert_eq!(said(waits.progress(&pending("g.service"), now())).len(), 1);
    assert_eq!(waits.next_end(), None);
    // Nor has it been reached: nobody says that it was restarted.
    assert!(waits.reached.is_empty());
}

#[test]
fn a_machine_of_a_global_unit_is_told_once_however_often_its_state_changes() {
    let awaited = Awaited::new("g.service", 1, Goal::Launched, true);
    let mut waits = Waits::new(vec![awaited], BOUNDS, now());
    let on = |phase: &str, sub: &str| Progress {
        machine: Some(MachineRef {
            id: "m1".into(),
            primary_ip: String::new(),
        }),
        state: Some(StateView {
            sub: sub.into(),
            ..StateView::default()
        }),
        ..line("g.service", phase, false)
    };
    assert_eq!(
        said(waits.progress(&on("launched", "start"), now())).len(),
        1
    );
    assert_eq!(
        said(waits.progress(&on("launched", "running"), now())),
        [""; 0]
    );
}

#[test]
fn after_a_restart_the_invocation_must_be_another() {
    let awaited = || Awaited {
        before: vec!["i1".into()],
        ..start("a.service")
    };
    let done = |invocation: &str| Progress {
        state: Some(StateView {
            invocation_id: invocation.into(),
            ..StateView::default()
        }),
        ..line("a.service", "launched", true)
    };
    let mut waits = Waits::new(vec![awaited()], BOUNDS, now());
    assert_eq!(
        said(waits.progress(&done("i2"), now())),
        ["a.service launched"]
    );
    let mut waits = Waits::new(vec![awaited()], BOUNDS, now());
    assert_eq!(
        said(waits.progress(&done("i1"), now())),
        ["failed: unit a.service was not restarted: it is still invocation i1"]
    );
}

#[test]
fn attempts_count_from_the_beginning() {
    let begin = now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    let bounds = Bounds::of_attempts(3);
    let mut waits = Waits::new(vec![start("a.service")], bounds, begin);
    waits.progress(&line("a.service", "working", false), begin);
    waits.progress(&pending("a.service"), after(4));
    assert!(waits.expire(after(5)).is_empty());
    assert_eq!(waits.expire(after(6)).len(), 1);
    // Without them each phase has its own time.
    let mut waits = Waits::new(vec![start("a.service")], BOUNDS, begin);
    waits.progress(&line("a.service", "working", false), begin);
    waits.progress(&pending("a.service"), after(4));
    assert!(waits.expire(after(13)).is_empty());
    assert_eq!(waits.expire(after(14)).len(), 1);
}

#[test]
fn who_watches_is_told_what_is_waited_for() {
    let begin = now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    let awaited = ["a", "b", "c", "d", "e"].map(|n| start(&format!("{n}.service")));
    let waits = || Waits::new(awaited.to_vec(), BOUNDS, begin);
    let mut unseen = waits().noticed(false, begin);
    assert!(said(unseen.expire(after(100))).is_empty());
    let mut waits = waits().noticed(true, begin);
    assert_eq!(waits.next_end(), Some(after(3)));
    let working = Progress {
        reason: "fewest units".into(),
        machine: Some(MachineRef {
            id: "m1".into(),
            primary_ip: "10.0.0.1".into(),
        }),
        state: Some(StateView {
            active: "activating".into(),
            sub: "start".into(),
            ..StateView::default()
        }),
        ..line("b.service", "working", false)
    };
    waits.progress(&working, begin);
    assert!(waits.expire(after(2)).is_empty());
    assert_eq!(
        said(waits.expire(after(3))),
        [
            "Waiting for a.service, b.service: activating (start) on m1/10.0.0.1, c.service and 2 more \
          (Ctrl-C ends the wait, not the request)"
        ]
    );
    assert!(waits.expire(after(32)).is_empty());
    assert_eq!(waits.expire(after(33)).len(), 1);
}
