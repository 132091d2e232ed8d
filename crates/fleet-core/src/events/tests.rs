//! What is told of plans, reports and wishes, as text.

use insta::assert_snapshot;

use super::*;
use crate::hash::UnitHash;
use crate::plan::model::{name, tell, unit_record};
use crate::records::Decision;

#[test]
fn a_machine_that_is_lost_and_comes_back_is_told_with_all_that_moves() {
    assert_snapshot!(tell("
        machine m1
        machine m2
        unit a.service launched
        unit b.service launched
        unit only.service launched MachineID=m2
        plan
        agents
        cut m2
        plan
        wait 6s
        agents
        machine m2
        plan
        agents
    "), @r"
    plan:
      present on m1: it joined
      present on m2: it joined
      placed a.service on m1: fewest units (0) of the machines that may run it
      placed b.service on m2: fewest units (0) of the machines that may run it
      placed only.service on m2: MachineID names this machine
    agents:
    plan:
      suspect on m2: its lease has ended
    wait 6s:
      lost on m2: no sign of life for 6 s
      moved b.service from m2 on m1: m2 is lost; fewest units (1) of the machines that may run it
      kept only.service on m2: m2 is lost, and it stays there: no other machine may run it: MachineID m2
    agents:
    plan:
      present on m2: it is back, after it was lost
      kept only.service on m2: it stays on m2
    agents:
    ");
}

#[test]
fn a_unit_that_waits_is_told_once_and_so_is_what_stops() {
    assert_snapshot!(tell("
        machine m1
        unit a.service launched MachineMetadata=region=eu
        plan
        machine m2
        machine m3
        plan
        machine m4 region=eu
        plan
        agents
        patch m4 region=us
        plan
        patch m4 region=eu
        plan
        want a.service inactive
        plan
        agents
        unit e.service inactive
        want a.service launched
        plan
        agents
        want a.service destroyed
        plan
        agents
    "), @r"
    plan:
      present on m1: it joined
      pending a.service: no machine may run it: MachineMetadata region=eu
    plan:
      present on m2: it joined
      present on m3: it joined
    plan:
      present on m4: it joined
      placed a.service on m4: fewest units (0) of the machines that may run it
    agents:
    plan:
      unplaced a.service from m4: it may not stay on m4: MachineMetadata region=eu; waits until m4 has stopped it
    plan:
      placed a.service on m4: it was still on m4
    plan:
      unplaced a.service from m4: it was unloaded; m4 has not yet confirmed its stop
    agents:
    plan:
      placed a.service on m4: fewest units (0) of the machines that may run it
    agents:
    plan:
      unplaced a.service from m4: it was destroyed; m4 has not yet confirmed its stop
    agents:
    ");
}

#[test]
fn a_global_unit_is_told_for_each_machine_and_drains_are_moves() {
    assert_snapshot!(tell("
        machine m1
        machine m2
        unit g.service launched Global=true
        unit a.service launched
        plan
        agents
        machine m3
        plan
        agents
        drain m1
        plan
        agents
        want g.service destroyed
        plan
        agents
    "), @r"
    plan:
      present on m1: it joined
      present on m2: it joined
      placed a.service on m1: fewest units (1) of the machines that may run it
      placed g.service on m1: global: the machine qualifies
      placed g.service on m2: global: the machine qualifies
    agents:
    plan:
      present on m3: it joined
      placed g.service on m3: global: the machine qualifies
    agents:
    plan:
      moved a.service from m1 on m2: m1 is being drained; fewest units (1) of the machines that may run it
    agents:
    plan:
      unplaced g.service on m1: it was destroyed
      unplaced g.service on m2: it was destroyed
      unplaced g.service on m3: it was destroyed
    agents:
    ");
}

#[test]
fn a_new_order_for_where_it_is_tells_nothing_until_it_is_carried_out() {
    assert_snapshot!(tell("
        machine m1
        unit a.service loaded
        plan
        agents
        want a.service launched
        plan
        agents
        want a.service inactive
        plan
        want a.service launched
        plan
        agents
    "), @r"
    plan:
      present on m1: it joined
      placed a.service on m1: fewest units (0) of the machines that may run it
    agents:
    plan:
    agents:
    plan:
      unplaced a.service from m1: it was unloaded; m1 has not yet confirmed its stop
    plan:
      placed a.service on m1: it was still on m1
    agents:
    ");
}

#[test]
fn a_machine_that_refuses_or_fails_too_often_is_told() {
    assert_snapshot!(tell("
        machine m1
        machine m2
        unit a.service launched
        unit b.service launched
        unit c.service launched
        unit d.service launched
        unit e.service launched
        unit f.service launched
        plan
        agents
        refuse b.service m2 systemd there has a unit of this name
        plan
        agents
        fail a.service m1 exit code 1
        fail c.service m1 exit code 1
        fail e.service m1 exit code 1
        plan
        open m1
        plan
    "), @r"
    plan:
      present on m1: it joined
      present on m2: it joined
      placed a.service on m1: fewest units (0) of the machines that may run it
      placed b.service on m2: fewest units (0) of the machines that may run it
      placed c.service on m1: fewest units (1) of the machines that may run it
      placed d.service on m2: fewest units (1) of the machines that may run it
      placed e.service on m1: fewest units (2) of the machines that may run it
      placed f.service on m2: fewest units (2) of the machines that may run it
    agents:
    plan:
      moved b.service from m2 on m1: m2 has refused it: systemd there has a unit of this name
    agents:
    plan:
      avoided on m1: 3 of the last 3 units failed there within 10 min: a.service, c.service, e.service
    plan:
      trusted on m1: no longer avoided: somebody asked for that
    ");
}

/// `launched active abc`, with a decision of its own behind it.
fn state(text: &str) -> StateRecord {
    let words: Vec<&str> = text.split_whitespace().collect();
    let seq = words.get(3).map_or(1, |seq| seq.parse().unwrap());
    StateRecord {
        load: "loaded".into(),
        active: words[1].into(),
        sub: "x".into(),
        hash: UnitHash::of(b""),
        decision: Decision { generation: 1, seq },
        reached: Reached::parse(words[0]).unwrap(),
        invocation_id: words.get(2).map_or("", |id| id.trim_matches('-')).into(),
        description: String::new(),
        why: (words[1] == "failed" || words[0] == "refused").then(|| "exit code 1".into()),
        leased_ms: None,
        log: Vec::new(),
    }
}

/// What is told as a machine says these things of a unit, one after the other.
fn told(says: &[&str]) -> String {
    let mut before: Option<StateRecord> = None;
    let mut told = Vec::new();
    for said in says {
        let now = state(said);
        if let Some(event) = of_state(&name("a.service"), before.as_ref(), &now, "m2 is lost") {
            assert_eq!(event.unit, Some(name("a.service")));
            told.push(format!("{}: {}", event.kind.as_str(), event.why));
        }
        before = Some(now);
    }
    told.join(", ")
}

#[test]
fn a_machines_words_tell_what_happened_to_a_unit_and_not_each_step() {
    for (says, expected) in [
        (&["launched active i1"][..], "started: m2 is lost"),
        (&["loaded inactive"], ""),
        (
            &[
                "working inactive",
                "working activating i1",
                "launched active i1",
            ],
            "started: m2 is lost",
        ),
        // The same again, reloading, another order that changes nothing.
        (
            &[
                "launched active i1",
                "launched reloading i1",
                "launched active i1",
                "launched active i1 2",
            ],
            "started: m2 is lost",
        ),
        (
            &[
                "launched active i1",
                "launched activating i1",
                "launched active i2",
            ],
            "started: m2 is lost, started: it was started there again",
        ),
        (
            &[
                "launched active i1",
                "working deactivating i1 2",
                "gone inactive i1 2",
            ],
            "started: m2 is lost, stopped: m2 is lost",
        ),
        // Its start was called off.
        (
            &[
                "working activating i1",
                "working deactivating i1 2",
                "gone inactive i1 2",
            ],
            "stopped: m2 is lost",
        ),
        (
            &["launched active i1", "loaded inactive i1 2"],
            "started: m2 is lost, stopped: by order",
        ),
        (
            &["launched active i1", "launched inactive i1"],
            "started: m2 is lost, stopped: it ended by itself",
        ),
        // It was too quick to be seen at work, and it took its time.
        (&["working inactive", "launched inactive i1"], "finished: "),
        (
            &["working activating i1", "launched inactive i1"],
            "finished: ",
        ),
        (
            &["launched failed i1", "launched failed i1"],
            "failed: exit code 1",
        ),
        (
            &[
                "launched active i1",
                "launched failed i1",
                "launched failed i2",
            ],
            "started: m2 is lost, failed: exit code 1, failed: exit code 1",
        ),
        (
            &["refused inactive", "refused inactive"],
            "refused: exit code 1",
        ),
        (
            &["launched failed i1", "gone inactive i1"],
            "failed: exit code 1",
        ),
    ] {
        assert_eq!(told(says), expected, "{says:?}");
    }
}

#[test]
fn a_wish_tells_what_is_new_of_it() {
    let unit = name("a.service");
    let wish = |desired, lines: &[&str]| unit_record(desired, lines);
    let (inactive, launched) = (DesiredState::Inactive, DesiredState::Launched);
    let restarted = UnitRecord {
        restarts: 1,
        ..wish(launched, &[])
    };
    for (before, now, expected) in [
        (
            None,
            wish(launched, &[]),
            "submitted: a new unit, to be launched",
        ),
        (
            Some(wish(inactive, &[])),
            wish(launched, &[]),
            "submitted: to be launched, was inactive",
        ),
        (
            Some(wish(launched, &[])),
            wish(launched, &["Conflicts=b.service"]),
            "submitted: new contents, to be launched",
        ),
        (
            Some(wish(launched, &[])),
            restarted,
            "submitted: to be restarted",
        ),
        (
            Some(wish(launched, &[])),
            wish(launched, &[]),
            "submitted: to be launched, once more",
        ),
        (
            Some(wish(launched, &[])),
            wish(DesiredState::Destroyed, &[]),
            "destroyed: ",
        ),
    ] {
        let event = of_wish(&unit, before.as_ref(), &now);
        assert_eq!(format!("{}: {}", event.kind.as_str(), event.why), expected);
    }
}

#[test]
fn what_is_asked_of_a_machine_is_told_in_words() {
    let machine = MachineId::new("m1");
    let metadata = |pairs: &[(&str, &str)]| MachineWish {
        metadata: pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect(),
        ..MachineWish::default()
    };
    let drained = MachineWish {
        drain: true,
        ..MachineWish::default()
    };
    let cordoned = MachineWish {
        cordon: true,
        ..MachineWish::default()
    };
    let opened = MachineWish {
        opened: 1,
        ..MachineWish::default()
    };
    let faster = MachineWish {
        max_parallel: 5,
        ..drained.clone()
    };
    let nothing = MachineWish::default();
    for (before, now, expected) in [
        (&nothing, &drained, "to be drained"),
        (&drained, &faster, "to be drained at another pace"),
        (&faster, &nothing, "to be drained no more"),
        (&nothing, &cordoned, "to take no new units"),
        (&cordoned, &opened, "to take new units, to be trusted again"),
        (
            &metadata(&[("disk", "ssd"), ("region", "eu")]),
            &metadata(&[("rack", "7"), ("region", "us")]),
            "metadata rack=7, metadata region=us, metadata disk as configured",
        ),
    ] {
        let event = of_machine_wish(&machine, before, now);
        assert_eq!(event.kind, EventKind::Asked);
        assert_eq!(event.machine.as_ref(), Some(&machine));
        assert_eq!(event.why, expected);
    }
}

#[test]
fn kinds_are_words_and_those_of_a_newer_fleetd_stay_what_they_are() {
    for word in EventKind::WORDS {
        let kind = EventKind::parse(word);
        assert_eq!(kind.as_str(), *word);
        assert!(!matches!(kind, EventKind::Other(_)), "{word}");
    }
    assert_eq!(EventKind::parse("rebalanced").as_str(), "rebalanced");
}
