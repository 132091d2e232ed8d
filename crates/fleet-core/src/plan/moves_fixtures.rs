//! Moves as text: what no longer fits its machine leaves it, when, and what becomes of the old copy.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn a_group_that_no_longer_fits_has_started_elsewhere_before_it_stops() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=eu
        unit a.service launched MachineMetadata=region=eu
        unit side.service launched MachineOf=a.service
        plan
        agents
        patch m1 region=us
        plan
        agent m1
        agent m2
        agent m1
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      side.service on m1: MachineOf a.service [launched@m1]
    agents:
    plan:
      a.service on m2, leaving m1: it no longer fits m1: MachineMetadata region=eu; fewest units (0) of the machines that may run it [launched@m2]
      side.service on m2, leaving m1: it no longer fits m1: MachineOf a.service is on another machine; MachineOf a.service [launched@m2]
    agent m1:
    agent m2:
      a.service m2 has started it [gone@m1]
      side.service m2 has started it [gone@m1]
    agent m1:
      a.service on m2: it no longer fits m1: MachineMetadata region=eu; fewest units (0) of the machines that may run it [-@m1]
      side.service on m2: it no longer fits m1: MachineOf a.service is on another machine; MachineOf a.service [-@m1]
    agents:
    ");
}

#[test]
fn new_requirements_move_a_unit_as_it_is_or_leave_it_as_it_is() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=us
        machine m3 region=us
        unit a.service launched MachineMetadata=region=eu
        unit b.service launched MachineMetadata=region=us MachineID=m2
        unit c.service launched MachineMetadata=region=eu
        plan
        agents
        unit a.service launched MachineMetadata=region=us Conflicts=b.service
        unit c.service launched MachineMetadata=region=eu MachineOf=b.service
        plan
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m2: MachineID names this machine [launched@m2]
      c.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m3, leaving m1: it no longer fits m1: MachineMetadata region=us; fewest units (0) of the machines that may run it [launched@m3]
      c.service leaving m1: it may not stay on m1: MachineOf b.service is on another machine; waits until m1 has stopped it [gone@m1]
    agents:
      a.service m3 has started it [gone@m1]
      c.service pending: no machine of 3 may run it: MachineMetadata region=eu (2), MachineOf b.service is on another machine (1) [-@m1, 2×MachineMetadata region=eu, 1×MachineOf b.service is on another machine]
    agents:
      a.service on m3: it no longer fits m1: MachineMetadata region=us; fewest units (0) of the machines that may run it [-@m1]
    ");
}

#[test]
fn a_new_conflict_drives_the_newer_unit_off_without_a_gap() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        unit b.service launched
        plan
        agents
        machine m2
        unit b.service launched Conflicts=a.service
        plan
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m2 present: it joined
      b.service on m2, leaving m1: it no longer fits m1: Conflicts with a.service; fewest units (0) of the machines that may run it [launched@m2]
    agents:
      b.service m2 has started it [gone@m1]
    agents:
      b.service on m2: it no longer fits m1: Conflicts with a.service; fewest units (0) of the machines that may run it [-@m1]
    ");
}

#[test]
fn what_no_longer_fits_stays_while_its_replacement_fails_and_is_tried_elsewhere_or_again() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=us
        unit a.service launched MachineMetadata=region=eu
        plan
        agents
        unit a.service launched MachineMetadata=region=us
        plan
        fail a.service m2 exit-code
        plan
        agents
        wait 14s
        machine m3 region=us
        plan
        refuse a.service m3 no
        plan
        agents
        wait 16s
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m2, leaving m1: it no longer fits m1: MachineMetadata region=us; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      a.service on m1, leaving m2: it no longer fits m1: MachineMetadata region=us, and it stays there: no other machine may run it: it failed there: exit-code [launched@m1, gone@m2, 1×it failed there: exit-code]
    agents:
      a.service on m1: it no longer fits m1: MachineMetadata region=us, and it stays there: no other machine may run it: it failed there: exit-code [-@m2, 1×it failed there: exit-code]
    wait 14s:
    plan:
      machine m3 present: it joined
      a.service on m3, leaving m1: it no longer fits m1: MachineMetadata region=us; it failed on m2: exit-code [launched@m3]
    plan:
      a.service on m1, leaving m3: it no longer fits m1: MachineMetadata region=us, and it stays there: no other machine of 2 may run it: it failed there: exit-code (1), the machine refused it: no (1) [gone@m3, 1×it failed there: exit-code, 1×the machine refused it: no]
    agents:
      a.service on m1: it no longer fits m1: MachineMetadata region=us, and it stays there: no other machine of 2 may run it: it failed there: exit-code (1), the machine refused it: no (1) [-@m3, 1×it failed there: exit-code, 1×the machine refused it: no]
    wait 16s:
      a.service on m2, leaving m1: it no longer fits m1: MachineMetadata region=us; fewest units (0) of the machines that may run it [launched@m2]
    agents:
      a.service m2 has started it [gone@m1]
    agents:
      a.service on m2: it no longer fits m1: MachineMetadata region=us; fewest units (0) of the machines that may run it [-@m1]
    ");
}

#[test]
fn what_no_longer_fits_is_stopped_when_the_last_machine_to_try_is_gone() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=us
        unit a.service launched MachineMetadata=region=eu
        plan
        agents
        unit a.service launched MachineMetadata=region=us
        plan
        fail a.service m2 exit-code
        plan
        agents
        patch m2 region=asia
        plan
        wait 15s
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m2, leaving m1: it no longer fits m1: MachineMetadata region=us; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      a.service on m1, leaving m2: it no longer fits m1: MachineMetadata region=us, and it stays there: no other machine may run it: it failed there: exit-code [launched@m1, gone@m2, 1×it failed there: exit-code]
    agents:
      a.service on m1: it no longer fits m1: MachineMetadata region=us, and it stays there: no other machine may run it: it failed there: exit-code [-@m2, 1×it failed there: exit-code]
    plan:
    wait 15s:
      a.service leaving m1: it may not stay on m1: MachineMetadata region=us; waits until m1 has stopped it [gone@m1]
    agents:
      a.service pending: no machine may run it: MachineMetadata region=us [-@m1, 2×MachineMetadata region=us]
    ");
}

#[test]
fn a_change_that_is_taken_back_keeps_what_has_not_arrived_elsewhere() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=eu
        unit a.service launched MachineMetadata=region=eu
        plan
        agents
        patch m1 region=us
        plan
        patch m1 region=eu
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m2, leaving m1: it no longer fits m1: MachineMetadata region=eu; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      a.service on m1, leaving m2: m1 is back and still has it [launched@m1, gone@m2]
    agents:
      a.service on m1: m1 is back and still has it [-@m2]
    ");
}

#[test]
fn a_machine_that_is_cut_off_while_its_unit_moves_gives_it_up_when_it_is_back() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=eu
        unit a.service launched MachineMetadata=region=eu
        plan
        agents
        patch m1 region=us
        plan
        cut m1
        agent m2
        wait 6s
        machine m1 region=eu
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m2, leaving m1: it no longer fits m1: MachineMetadata region=eu; fewest units (0) of the machines that may run it [launched@m2]
    agent m2:
      machine m1 suspect: its lease has ended
      a.service m2 has started it [gone@m1]
    wait 6s:
      machine m1 lost: no sign of life for 6 s
    agents:
      machine m1 present: it is back, after it was lost
      a.service on m2: it no longer fits m1: MachineMetadata region=eu; fewest units (0) of the machines that may run it [-@m1]
    agents:
    ");
}

#[test]
fn an_exclusive_unit_that_no_longer_fits_is_stopped_first() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=eu
        unit a.service launched MachineMetadata=region=eu Exclusive=yes
        plan
        agents
        patch m1 region=us
        plan
        agent m2
        agent m1
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service leaving m1: it may not stay on m1: MachineMetadata region=eu; waits until m1 has stopped it [gone@m1]
    agent m2:
    agent m1:
      a.service on m2: fewest units (0) of the machines that may run it [-@m1, launched@m2]
    agents:
    ");
}

#[test]
fn what_fits_nowhere_any_more_is_stopped_and_says_so() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=us
        unit a.service launched MachineMetadata=region=eu
        plan
        agents
        patch m1 region=us
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service leaving m1: it may not stay on m1: MachineMetadata region=eu; waits until m1 has stopped it [gone@m1]
    agents:
      a.service pending: no machine may run it: MachineMetadata region=eu [-@m1, 2×MachineMetadata region=eu]
    ");
}

#[test]
fn new_contents_stop_first_though_the_machine_fits_no_longer() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=us
        unit a.service launched MachineMetadata=region=eu
        plan
        agents
        unit a.service launched +Nice=1 MachineMetadata=region=us
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service leaving m1: it may not stay on m1: MachineMetadata region=us; waits until m1 has stopped it [gone@m1]
    agents:
      a.service on m2: fewest units (0) of the machines that may run it [-@m1, launched@m2]
    ");
}

#[test]
fn a_group_that_waits_for_a_followers_other_peer_leaves_when_that_has_its_place() {
    let shown = run("
        machine m2 r=eu
        unit a.service launched MachineMetadata=r=eu
        unit d.service launched MachineOf=a.service MachineOf=b.service
        plan
        drain m2
        unit b.service launched MachineMetadata=r=eu
        machine m3 r=eu
        plan
    ");
    for line in [
        "a.service on m3, leaving m2: m2 is being drained",
        "b.service on m3",
        "d.service on m3",
    ] {
        assert!(shown.contains(line), "{line:?} in:\n{shown}");
    }
}

#[test]
fn what_failed_at_its_new_machine_is_kept_where_its_last_start_is_not_over() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        want a.service launched
        plan
        drain m1
        plan
        fail a.service m2 exit-code
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    plan:
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    plan:
    agents:
      a.service on m1, leaving m2: m1 is being drained, and it stays there: no other machine may run it: it failed there: exit-code [launched@m1, gone@m2, 1×it failed there: exit-code]
    ");
}

#[test]
fn what_failed_at_its_new_machine_is_kept_where_it_is_started_for_the_first_time() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service loaded
        plan
        agents
        want a.service launched
        plan
        drain m1
        plan
        fail a.service m2 exit-code
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [loaded@m1]
    agents:
    plan:
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    plan:
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    plan:
    agents:
      a.service on m1, leaving m2: m1 is being drained, and it stays there: no other machine may run it: it failed there: exit-code [launched@m1, gone@m2, 1×it failed there: exit-code]
    ");
}

#[test]
fn what_failed_at_its_new_machine_is_kept_where_nothing_has_been_said_of_it_yet() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        plan
        drain m1
        machine m2
        plan
        fail a.service m2 exit-code
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    plan:
      machine m2 present: it joined
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    plan:
    agents:
      a.service on m1, leaving m2: m1 is being drained, and it stays there: no other machine may run it: it failed there: exit-code [launched@m1, gone@m2, 1×it failed there: exit-code]
    ");
}

#[test]
fn what_is_starting_is_not_called_off_for_a_copy_that_is_only_loaded() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service loaded
        plan
        agents
        cut m1
        plan
        wait 6s
        want a.service launched
        plan
        starting a.service m2
        machine m1
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [loaded@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 6s:
      machine m1 lost: no sign of life for 6 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [loaded@m2]
    plan:
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      machine m1 present: it is back, after it was lost
    agents:
      a.service m2 has started it [gone@m1]
    ");
}

#[test]
fn what_was_starting_on_a_machine_that_is_lost_stops_there_only_when_it_runs_elsewhere() {
    let lost = "
        machine m1
        machine m2
        machine m3
        unit a.service launched
        plan
        agents
        cut m1
        plan
        wait 6s
        starting a.service m1
        machine m1
        plan
        cut m2
        plan
        wait 6s
        machine m2
        plan
    ";
    // It has started meanwhile, before the older one has: that one is called off.
    let newer_first = run(&format!("{lost}\nagent m2\nagents"));
    let (common, newer_first) = newer_first.split_at(newer_first.find("agent m2").unwrap());
    assert_snapshot!(common, @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 6s:
      machine m1 lost: no sign of life for 6 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      machine m1 present: it is back, after it was lost
    plan:
      machine m2 suspect: its lease has ended
    wait 6s:
      machine m2 lost: no sign of life for 6 s
      a.service on m1, leaving m2: m2 is lost, and m1 still has it [launched@m1]
    plan:
      machine m2 present: it is back, after it was lost
    ");
    assert_snapshot!(newer_first, @r"
    agent m2:
      a.service on m2, leaving m1: m2 is back and still has it [gone@m1, launched@m2]
    agents:
      a.service on m2: m2 is back and still has it [-@m1]
    ");
    let older_first = run(&format!("{lost}\nagent m1\nagents"));
    assert_snapshot!(&older_first[common.len()..], @r"
    agent m1:
      a.service m1 has started it [gone@m2]
    agents:
      a.service on m1: m2 is lost, and m1 still has it [-@m2]
    ");
}
