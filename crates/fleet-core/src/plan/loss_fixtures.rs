//! Machines that vanish: who waits how long, what moves, and when it is us and not them.

use insta::assert_snapshot;

use super::model::{Model, name, run, unit_record};
use crate::records::{DesiredState, MachineId, MachineRecord};

#[test]
fn a_lost_machine_moves_its_units_and_a_returning_one_in_time_keeps_them() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        unit a.service launched
        unit b.service launched
        unit c.service launched
        unit only.service launched MachineID=m3
        plan
        agents
        cut m3
        plan
        wait 4s
        machine m3
        plan
        cut m3
        plan
        wait 5s
        agents
        machine m3
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (0) of the machines that may run it [launched@m2]
      c.service on m3: fewest units (0) of the machines that may run it [launched@m3]
      only.service on m3: MachineID names this machine [launched@m3]
    agents:
    plan:
      machine m3 suspect: its lease has ended
    wait 4s:
    plan:
      machine m3 present: it is back, after it was suspect
    plan:
      machine m3 suspect: its lease has ended
    wait 5s:
      machine m3 lost: no sign of life for 5 s
      c.service on m1, leaving m3: m3 is lost; fewest units (1) of the machines that may run it [launched@m1]
      only.service on m3: m3 is lost, and it stays there: no other machine may run it: MachineID m3 [2×MachineID m3]
    agents:
      c.service m1 has started it [gone@m3]
    agents:
      machine m3 present: it is back, after it was lost
      c.service on m1: m3 is lost; fewest units (1) of the machines that may run it [-@m3]
      only.service on m3: it stays on m3
    agents:
    ");
}

#[test]
fn a_machine_that_is_back_before_the_replacement_has_started_keeps_its_unit() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        cut m1
        plan
        wait 6s
        machine m1
        plan
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 6s:
      machine m1 lost: no sign of life for 6 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      machine m1 present: it is back, after it was lost
      a.service on m1, leaving m2: m1 is back and still has it [launched@m1, gone@m2]
    agents:
      a.service on m1: m1 is back and still has it [-@m2]
    agents:
    ");
}

#[test]
fn a_replacement_that_is_out_of_sight_is_not_called_off_for_an_original_that_has_failed() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        cut m1
        plan
        wait 6s
        well a.service m2
        machine m1
        fail a.service m1 exit code 1
        cut m2
        plan
        machine m2
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 6s:
      machine m1 lost: no sign of life for 6 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      machine m1 present: it is back, after it was lost
      machine m2 suspect: its lease has ended
    plan:
      machine m2 present: it is back, after it was suspect
      a.service m2 has started it [gone@m1]
    ");
}

#[test]
fn a_unit_may_have_its_own_grace() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit fast.service launched MachineMetadata=a=b LostAfter=1s
        unit slow.service launched MachineMetadata=a=b LostAfter=1min
        patch m1 a=b
        plan
        agents
        cut m1
        patch m2 a=b
        plan
        wait 2s
        wait 5s
        wait 60s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      fast.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      slow.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 2s:
      fast.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    wait 5s:
      machine m1 lost: no sign of life for 7 s
    wait 60s:
      slow.service on m2, leaving m1: m1 is lost; fewest units (1) of the machines that may run it [launched@m2]
    ");
}

#[test]
fn when_most_machines_vanish_at_once_nothing_moves() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        unit a.service launched
        unit b.service launched
        plan
        agents
        cut m1
        cut m2
        plan
        wait 6s
        machine m2
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    agents:
    plan:
      machine m1 suspect: its lease has ended
      machine m2 suspect: its lease has ended
    wait 6s:
      machine m1 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
      machine m2 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
    plan:
      machine m1 lost: no sign of life for 6 s
      machine m2 present: it is back, after it was suspect
      a.service on m3, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m3]
    ");
}

/// The leases of machines that are cut off together end as far apart as they were renewed, and as
/// etcd looks for ended ones.
#[test]
fn machines_that_vanish_at_once_are_seen_to_vanish_one_after_the_other() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        machine m4
        unit a.service launched
        unit b.service launched
        plan
        agents
        cut m1
        plan
        wait 900ms
        cut m2
        plan
        wait 4100ms
        wait 1s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      machine m4 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 900ms:
    plan:
      machine m2 suspect: its lease has ended
    wait 4100ms:
      machine m1 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
    wait 1s:
      machine m2 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
    ");
}

#[test]
fn what_vanishes_a_moment_after_one_was_given_up_is_frozen_all_the_same() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        machine m4
        unit a.service launched
        unit b.service launched
        unit c.service launched
        plan
        agents
        cut m1
        plan
        wait 5s
        wait 900ms
        cut m2
        plan
        wait 5s
        wait 300s
        cut m3
        plan
        wait 5s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      machine m4 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (0) of the machines that may run it [launched@m2]
      c.service on m3: fewest units (0) of the machines that may run it [launched@m3]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 5s:
      machine m1 lost: no sign of life for 5 s
      a.service on m4, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m4]
    wait 900ms:
    plan:
      machine m2 suspect: its lease has ended
    wait 5s:
      machine m2 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
    wait 300s:
      machine m2 lost: no sign of life for 305 s
      b.service on m3, leaving m2: m2 is lost; fewest units (1) of the machines that may run it [launched@m3]
    plan:
      machine m3 suspect: its lease has ended
    wait 5s:
      machine m3 lost: no sign of life for 5 s
      b.service on m4, leaving m2: m3 is lost; fewest units (1) of the machines that may run it [gone@m3, launched@m4]
      c.service on m4, leaving m3: m3 is lost; fewest units (2) of the machines that may run it [launched@m4]
    ");
}

#[test]
fn what_was_given_up_long_ago_freezes_nobody() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        unit a.service launched
        unit b.service launched
        plan
        agents
        cut m1
        plan
        wait 5s
        agents
        wait 2s
        cut m2
        plan
        wait 5s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 5s:
      machine m1 lost: no sign of life for 5 s
      a.service on m3, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m3]
    agents:
      a.service m3 has started it [gone@m1]
    wait 2s:
    plan:
      machine m2 suspect: its lease has ended
    wait 5s:
      machine m2 lost: no sign of life for 5 s
      b.service on m3, leaving m2: m2 is lost; fewest units (1) of the machines that may run it [launched@m3]
    ");
}

#[test]
fn a_frozen_cluster_moves_after_a_while() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        unit a.service launched
        plan
        agents
        cut m1
        cut m2
        plan
        wait 5s
        wait 300s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
      machine m2 suspect: its lease has ended
    wait 5s:
      machine m1 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
      machine m2 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
    wait 300s:
      machine m1 lost: no sign of life for 305 s
      machine m2 lost: no sign of life for 305 s
      a.service on m3, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m3]
    ");
}

#[test]
fn a_new_leader_starts_the_grace_anew() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        cut m1
        plan
        wait 4s
        leader
        wait 4s
        wait 1s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 4s:
    leader:
    wait 4s:
    wait 1s:
      machine m1 lost: no sign of life for 5 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    ");
}

#[test]
fn an_orderly_stop_of_fleetd_moves_nothing() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        stop m1
        plan
        wait 60s
        machine m1
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 unsupervised: fleetd was stopped there in order; its units keep running
    wait 60s:
    plan:
      machine m1 present: it is back, after it was unsupervised
    ");
}

#[test]
fn what_failed_at_its_new_machine_is_kept_where_it_may_still_run() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        cut m1
        plan
        wait 6s
        fail a.service m2 exit-code
        plan
        machine m1
        plan
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 6s:
      machine m1 lost: no sign of life for 6 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    plan:
    plan:
      machine m1 present: it is back, after it was lost
      a.service on m1, leaving m2: it failed on m2 [launched@m1, gone@m2]
    agents:
      a.service on m1: it failed on m2 [-@m2]
    agents:
    ");
}

/// Who gives it up may have stood still: then it may be back, and the news is on its way. The store
/// compares.
#[test]
fn a_machine_is_given_up_and_its_units_are_moved_only_while_it_is_away() {
    let (m1, m2) = (MachineId::new("m1"), MachineId::new("m2"));
    let mut model = Model::default();
    model.set_presence(&m1, Some(MachineRecord::default()));
    let record = unit_record(DesiredState::Launched, &[]);
    model.set_unit(&name("a.service"), record);
    let placed = model.plan();
    assert!(placed.changes.iter().all(|c| c.while_absent.is_empty()));
    model.run_agent(&m1);
    model.set_presence(&m2, Some(MachineRecord::default()));
    model.plan();
    model.set_presence(&m1, None);
    model.plan();
    model.now_ms += 5_000;
    let moved = model.plan();
    assert_eq!(moved.changes.len(), 2, "{:?}", moved.changes);
    for change in &moved.changes {
        let relied_on = change.while_absent.as_slice();
        assert_eq!(relied_on, std::slice::from_ref(&m1), "{}", change.reason);
    }
}

#[test]
fn machines_that_were_frozen_are_given_up_when_somebody_says_so_also_under_another_leader() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        unit a.service launched
        unit b.service launched
        plan
        agents
        cut m2
        cut m3
        plan
        wait 10s
        leader
        plan
        thaw
        wait 10s
        agents
        machine m2
        plan
        cut m2
        cut m3
        plan
        wait 10s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    agents:
    plan:
      machine m2 suspect: its lease has ended
      machine m3 suspect: its lease has ended
    wait 10s:
      machine m2 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
      machine m3 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
    leader:
    plan:
    wait 10s:
      machine m2 lost: no sign of life for 10 s
      machine m3 lost: no sign of life for 10 s
      b.service on m1, leaving m2: m2 is lost; fewest units (1) of the machines that may run it [launched@m1]
    agents:
      b.service m1 has started it [gone@m2]
    plan:
      machine m2 present: it is back, after it was lost
    plan:
      machine m2 suspect: its lease has ended
    wait 10s:
      machine m2 lost: no sign of life for 10 s
    ");
}

#[test]
fn what_stands_of_a_machine_that_has_not_reached_its_systemd_calls_no_replacement_off() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        unit a.service launched
        plan
        agents
        cut m1
        plan
        wait 10s
        trouble m1 systemd has not been reached yet
        plan
        machine m1
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 10s:
      machine m1 lost: no sign of life for 10 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      machine m1 present: it is back, after it was lost
    plan:
      a.service on m1, leaving m2: m1 is back and still has it [launched@m1, gone@m2]
    ");
}

/// Whoever plans has something else done meanwhile when it takes long, so that must be known before.
#[test]
fn how_much_there_is_to_plan_is_known_beforehand() {
    let m1 = MachineId::new("m1");
    let mut model = Model::default();
    assert_eq!(model.cluster.work_ahead(0), 0);
    model.set_presence(&m1, Some(MachineRecord::default()));
    for unit in ["a.service", "b.service", "c.service"] {
        model.set_unit(&name(unit), unit_record(DesiredState::Launched, &[]));
    }
    assert_eq!(model.cluster.work_ahead(model.now_ms), 3);
    model.plan();
    model.run_agent(&m1);
    model.plan();
    assert_eq!(model.cluster.work_ahead(model.now_ms), 0);
    // All that it has, when it vanishes and when its time has come.
    model.set_presence(&m1, None);
    assert_eq!(model.cluster.work_ahead(model.now_ms), 3);
    model.plan();
    assert_eq!(model.cluster.work_ahead(model.now_ms), 0);
    assert_eq!(model.cluster.work_ahead(model.now_ms + 60_000), 3);
}
