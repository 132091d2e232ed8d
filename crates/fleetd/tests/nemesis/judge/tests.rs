//! Histories that break a promise, and those that nearly do.

use super::*;

const SECOND: Micros = 1_000_000;

fn copy(unit: &str, host: usize, from: Micros, until: Micros, end: End) -> Copy {
    Copy {
        host,
        unit: unit.to_owned(),
        invocation: format!("{unit} on {host} at {from}"),
        from: from * SECOND,
        until: until * SECOND,
        end,
    }
}

fn done(lane: Lane, fault: Fault, begun: Micros, ended: Micros) -> Done {
    Done {
        lane,
        fault,
        begun: begun * SECOND,
        ended: ended * SECOND,
        struck: begun * SECOND,
    }
}

fn convicted(copies: &[Copy], acts: &[Act], faults: &[Done]) -> Vec<String> {
    let case = Case {
        begun: 0,
        copies,
        acts,
        faults,
    };
    let convictions = judge(&case).convictions.into_iter();
    convictions.map(|found| found.what).collect()
}

#[test]
fn a_stop_without_a_reason_is_found_whatever_else_was_broken() {
    let copies = [copy("steady1.service", 1, 1, 30, End::Stopped)];
    let faults = [
        done(Lane::Host(1), Fault::KillFleetd(3), 20, 22),
        done(Lane::Host(1), Fault::Upgrade, 23, 24),
        done(Lane::Host(1), Fault::PauseFleetd, 25, 26),
        done(Lane::Host(2), Fault::CutPower, 10, 20),
        done(Lane::Store, Fault::LoseQuorum(0), 10, 20),
        done(Lane::Store, Fault::Restore, 21, 29),
        done(Lane::Operator, Fault::Drain(0), 10, 20),
    ];
    let found = convicted(&copies, &[], &faults);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("nothing accounts for it"), "{found:?}");
}

#[test]
fn users_drains_and_machines_that_were_not_to_be_seen_account_for_stops() {
    let stopped = copy("steady1.service", 1, 1, 30, End::Stopped);
    let there = copy("steady1.service", 2, 20, 99, End::None);
    let act = |begun: Micros| Act {
        unit: "steady1.service".to_owned(),
        what: "stop".to_owned(),
        begun: begun * SECOND,
    };
    let one = [stopped.clone()];
    assert_eq!(convicted(&one, &[act(29)], &[]).len(), 0);
    assert_eq!(convicted(&one, &[act(31)], &[]).len(), 1);
    // Who asked for a start has not asked for a stop.
    let start = Act {
        what: "start --no-block /units/1/steady1.service".to_owned(),
        ..act(29)
    };
    assert_eq!(convicted(&one, &[start], &[]).len(), 1);
    let drain = |host, begun| [done(Lane::Operator, Fault::Drain(host), begun, begun + 5)];
    assert_eq!(convicted(&one, &[], &drain(1, 10)).len(), 0);
    assert_eq!(convicted(&one, &[], &drain(1, 31)).len(), 1);
    assert_eq!(convicted(&one, &[], &drain(2, 10)).len(), 1);
    let long_ago = [copy("steady1.service", 1, 1, 60, End::Stopped)];
    assert_eq!(convicted(&long_ago, &[], &drain(1, 10)).len(), 1);

    // It was cut off, started elsewhere, and stopped when it was back.
    let two = [stopped, there];
    let cut = |lane, begun, ended| [done(lane, Fault::CutCable, begun, ended)];
    assert_eq!(convicted(&two, &[], &cut(Lane::Host(1), 10, 28)).len(), 0);
    // Too short, and so too early; too late; another machine.
    assert_eq!(convicted(&two, &[], &cut(Lane::Host(1), 19, 20)).len(), 2);
    assert_eq!(convicted(&two, &[], &cut(Lane::Host(1), 21, 28)).len(), 1);
    assert_eq!(convicted(&two, &[], &cut(Lane::Host(3), 10, 28)).len(), 1);
    // Without another copy there is no reason to stop it.
    assert_eq!(convicted(&one, &[], &cut(Lane::Host(1), 10, 28)).len(), 1);
    let restore = [done(Lane::Store, Fault::Restore, 10, 28)];
    assert_eq!(convicted(&two, &[], &restore).len(), 0);
    assert_eq!(convicted(&one, &[], &restore).len(), 1);
}

#[test]
fn a_global_unit_has_no_other_copy() {
    let copies = [
        copy("everywhere.service", 1, 1, 30, End::Stopped),
        copy("everywhere.service", 2, 20, 99, End::None),
    ];
    let cut = [done(Lane::Host(1), Fault::CutCable, 10, 28)];
    assert_eq!(convicted(&copies, &[], &cut).len(), 1);
}

#[test]
fn two_copies_that_last_are_found() {
    let copies = [
        copy("steady1.service", 1, 1, 99, End::None),
        copy("steady1.service", 2, 20, 99, End::None),
    ];
    let cut = |ended| [done(Lane::Host(1), Fault::CutCable, 10, ended)];
    assert_eq!(convicted(&copies, &[], &cut(90)).len(), 0);
    let found = convicted(&copies, &[], &cut(30));
    assert_eq!(
        found,
        ["ran on hosts 2 and 3 for 69.0 s after everything was undone"]
    );
}

#[test]
fn an_exclusive_unit_that_runs_twice_is_found_whatever_struck() {
    let copies = [
        copy("once1.service", 1, 1, 30, End::Stopped),
        copy("once1.service", 2, 29, 99, End::None),
    ];
    let faults = [done(Lane::Host(1), Fault::Strand, 5, 35)];
    let found = convicted(&copies, &[], &faults);
    assert_eq!(
        found,
        ["is exclusive, and was started on host 3 while it ran on host 2: both ran for 1.000 s"]
    );
    // What was cut off with its power runs no more.
    let ended = [
        copy("once1.service", 1, 1, 28, End::Power),
        copies[1].clone(),
    ];
    assert_eq!(convicted(&ended, &[], &faults).len(), 0);
    // The other kind of unit runs on until it is told.
    let often = copies.map(|copy| Copy {
        unit: "steady1.service".to_owned(),
        ..copy
    });
    assert_eq!(convicted(&often, &[], &faults).len(), 0);
}

#[test]
fn an_old_copy_of_etcd_accounts_for_two_exclusive_copies_only_if_it_does_not_know_the_first() {
    let restore = |saved, struck| {
        let mut done = done(Lane::Store, Fault::Restore, saved, 40);
        done.struck = struck * SECOND;
        [done]
    };
    let two = |first| {
        [
            copy("once1.service", 1, first, 99, End::None),
            copy("once1.service", 2, 30, 31, End::Stopped),
        ]
    };
    assert_eq!(convicted(&two(12), &[], &restore(10, 20)).len(), 0);
    assert_eq!(convicted(&two(8), &[], &restore(10, 20)).len(), 1);
    assert_eq!(convicted(&two(12), &[], &restore(10, 35)).len(), 1 + 1);
    // It was started long after the copy was restored: the store knows it.
    let later = [
        copy("once1.service", 1, 45, 99, End::None),
        copy("once1.service", 2, 60, 61, End::Stopped),
    ];
    assert_eq!(convicted(&later, &[], &restore(10, 20)).len(), 1);
}

#[test]
fn an_exclusive_unit_is_stopped_when_its_lease_could_not_be_renewed_and_not_before() {
    let exclusive = [copy("once1.service", 1, 1, 30, End::Stopped)];
    let ordinary = [copy("steady1.service", 1, 1, 30, End::Stopped)];
    let cut = |lane, fault, begun| [done(lane, fault, begun, 40)];
    let host = Lane::Host(1);
    assert_eq!(convicted(&exclusive, &[], &[]).len(), 1);
    for begun in [10, 24, 27] {
        assert_eq!(
            convicted(&exclusive, &[], &cut(host, Fault::CutCable, begun)).len(),
            0
        );
        let quorum = cut(Lane::Store, Fault::LoseQuorum(0), begun);
        assert_eq!(convicted(&exclusive, &[], &quorum).len(), 0);
        assert_eq!(convicted(&ordinary, &[], &quorum).len(), 1);
    }
    // Too short; another machine; what takes nothing from a lease.
    assert_eq!(
        convicted(&exclusive, &[], &cut(host, Fault::CutCable, 28)).len(),
        1
    );
    assert_eq!(
        convicted(&exclusive, &[], &cut(Lane::Host(2), Fault::CutCable, 10)).len(),
        1
    );
    assert_eq!(
        convicted(&exclusive, &[], &cut(host, Fault::StopFleetd, 10)).len(),
        1
    );
    let member = cut(Lane::Store, Fault::KillMember(0), 10);
    assert_eq!(convicted(&exclusive, &[], &member).len(), 1);
    // Two short ones, one after the other, are long enough; both at once are not.
    let short = |begun, ended| done(host, Fault::CutCable, begun, ended);
    let row = [short(24, 26), short(27, 29)];
    assert_eq!(convicted(&exclusive, &[], &row).len(), 0);
    let store = done(Lane::Store, Fault::LoseQuorum(0), 27, 29);
    assert_eq!(convicted(&exclusive, &[], &[short(27, 29), store]).len(), 1);
    // A member that is back deposes the leader of etcd just before; alone that ends no lease.
    let back = |ended| done(Lane::Store, Fault::CutMember(1), 10, ended);
    let deaf = short(28, 40);
    assert_eq!(
        convicted(&exclusive, &[], &[back(25), deaf.clone()]).len(),
        0
    );
    assert_eq!(convicted(&exclusive, &[], &[back(15), deaf]).len(), 1);
    assert_eq!(convicted(&exclusive, &[], &[back(25)]).len(), 1);
}

#[test]
fn a_unit_that_is_moved_before_its_grace_is_over_is_found() {
    let two = |unit: &str, moved| {
        [
            copy(unit, 1, 1, 90, End::Stopped),
            copy(unit, 2, moved, 99, End::None),
        ]
    };
    let cut = [done(Lane::Host(1), Fault::CutCable, 10, 80)];
    // Two thirds of a lease of 6 s, and 2 s.
    assert_eq!(convicted(&two("steady1.service", 17), &[], &cut).len(), 0);
    let found = convicted(&two("steady1.service", 15), &[], &cut);
    assert_eq!(
        found,
        [
            "was started on host 3 only 5.0 s after host 2, where it was, began to vanish; its grace \
          is 6.0 s"
        ]
    );
    // LostAfter=40s
    assert_eq!(convicted(&two("patient.service", 17), &[], &cut).len(), 1);
    assert_eq!(convicted(&two("patient.service", 55), &[], &cut).len(), 0);
    // The machine was not found again in between.
    let row = [
        done(Lane::Host(1), Fault::CutCable, 10, 14),
        done(Lane::Host(1), Fault::KillFleetd(1), 15, 16),
        done(Lane::Host(1), Fault::CutCable, 18, 80),
    ];
    assert_eq!(convicted(&two("steady1.service", 20), &[], &row).len(), 0);
    // A drain waits for nothing.
    let drain = [done(Lane::Operator, Fault::Drain(1), 10, 80)];
    assert_eq!(convicted(&two("patient.service", 11), &[], &drain).len(), 0);
    // What an old copy of etcd says moves units at once, until it is believed and for a while.
    let restored = |ended| {
        let restore = done(Lane::Store, Fault::Restore, 2, ended);
        [restore, cut[0].clone()]
    };
    let early = two("patient.service", 40);
    assert_eq!(convicted(&early, &[], &restored(21)).len(), 0);
    assert_eq!(convicted(&early, &[], &restored(19)).len(), 1);
}

#[test]
fn a_unit_that_is_moved_too_often_because_it_fails_is_found() {
    let fails = |hosts: &[usize]| -> Vec<Copy> {
        let at = |n: usize| 10 * n as Micros;
        let copies = hosts.iter().enumerate();
        copies
            .map(|(n, host)| copy("hopeless.service", *host, at(n), at(n) + 1, End::Failed))
            .collect()
    };
    assert_eq!(convicted(&fails(&[0, 1, 2, 2]), &[], &[]).len(), 0);
    let found = convicted(&fails(&[0, 1, 2, 3]), &[], &[]);
    assert_eq!(found, ["was moved 3 times because it failed, of at most 2"]);
    // A start counts anew; a machine that was lost or left does not count.
    let start = Act {
        unit: "hopeless.service".to_owned(),
        what: "start --no-block /units/1/hopeless.service".to_owned(),
        begun: 15 * SECOND,
    };
    assert_eq!(convicted(&fails(&[0, 1, 2, 3]), &[start], &[]).len(), 0);
    let cut = [done(Lane::Host(0), Fault::CutPower, 2, 20)];
    assert_eq!(convicted(&fails(&[0, 1, 2, 3]), &[], &cut).len(), 0);
    let drain = [done(Lane::Operator, Fault::Drain(1), 18, 22)];
    assert_eq!(convicted(&fails(&[0, 1, 2, 3]), &[], &drain).len(), 0);
}

#[test]
fn only_what_is_to_fail_may_fail() {
    let failed = |unit, host| [copy(unit, host, 1, 30, End::Failed)];
    assert_eq!(convicted(&failed("picky.service", 0), &[], &[]).len(), 0);
    assert_eq!(convicted(&failed("picky.service", 4), &[], &[]).len(), 1);
    assert_eq!(convicted(&failed("steady1.service", 0), &[], &[]).len(), 1);
}

#[test]
fn units_that_are_to_be_apart_and_stay_together_are_found() {
    let two = |host| {
        [
            copy("apart1.service", 1, 1, 99, End::None),
            copy("apart2.service", host, 20, 99, End::None),
        ]
    };
    assert_eq!(convicted(&two(2), &[], &[]).len(), 0);
    assert_eq!(
        convicted(&two(1), &[], &[]),
        ["ran beside apart2.service on host 2 for 79.0 s after everything was undone"]
    );
}
