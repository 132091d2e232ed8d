//! Copies that nobody has ordered.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn a_copy_that_nobody_has_ordered_goes_when_the_unit_is_well_where_it_is_to_be() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        stray a.service m2 9
        plan
        agents
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    plan:
    agents:
      a.service on m1, leaving m2: it is well on m1; a copy on m2, which nobody has ordered, is told to go [gone@m2]
    agents:
      a.service on m1: it is well on m1; a copy on m2, which nobody has ordered, is told to go [-@m2]
    plan:
    ");
}

#[test]
fn a_copy_that_runs_stays_while_the_unit_is_only_loaded_where_it_is_to_be() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service loaded
        plan
        agents
        stray a.service m2 9000
        plan
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [loaded@m1]
    agents:
    plan:
    agents:
    plan:
    ");
}

#[test]
fn nobody_is_told_who_does_not_believe_the_store_and_nobody_on_its_word() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        doubt m2
        stray a.service m2 9000
        plan
        doubt m1
        machine m2
        plan
        machine m1
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
    plan:
    plan:
      a.service on m1, leaving m2: it is well on m1; a copy on m2, which nobody has ordered, is told to go [gone@m2]
    ");
}

#[test]
fn it_goes_though_it_has_carried_out_a_wish_that_this_store_never_had() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        stray a.service m2 9000
        plan
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1, leaving m2: it is well on m1; a copy on m2, which nobody has ordered, is told to go [gone@m2]
    agents:
      a.service on m1: it is well on m1; a copy on m2, which nobody has ordered, is told to go [-@m2]
    plan:
    ");
}

#[test]
fn it_stays_while_the_unit_is_not_well_or_its_machine_is_not_there() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched MachineID=m1
        plan
        fail a.service m1 exit-code
        stray a.service m2 9
        plan
        restarting a.service m1
        plan
        cut m1
        well a.service m1
        wait 2s
        machine m1
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: MachineID names this machine [launched@m1]
    plan:
    plan:
    wait 2s:
      machine m1 suspect: its lease has ended
    plan:
      machine m1 present: it is back, after it was suspect
      a.service on m1, leaving m2: it is well on m1; a copy on m2, which nobody has ordered, is told to go [gone@m2]
    ");
}

#[test]
fn it_is_told_to_go_when_its_own_machine_is_there_again() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched MachineID=m1
        plan
        agent m2
        cut m2
        wait 10s
        stray a.service m2 9
        agent m1
        plan
        machine m2
        plan
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: MachineID names this machine [launched@m1]
    agent m2:
    wait 10s:
      machine m2 suspect: its lease has ended
    agent m1:
    plan:
    plan:
      machine m2 present: it is back, after it was suspect
      a.service on m1, leaving m2: it is well on m1; a copy on m2, which nobody has ordered, is told to go [gone@m2]
    agents:
      a.service on m1: it is well on m1; a copy on m2, which nobody has ordered, is told to go [-@m2]
    plan:
    ");
}

#[test]
fn it_stays_where_no_wish_is_known_and_where_the_wish_is_older() {
    assert_snapshot!(run("
        machine m1
        machine m2
        stray b.service m2 9
        unit a.service inactive
        plan
        stray a.service m1 9000
        plan
        want a.service destroyed
        plan
        stray a.service m1 0
        plan
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
    plan:
    plan:
      a.service destroyed [tombstone removed]
    plan:
    agents:
    plan:
    ");
}

#[test]
fn a_global_unit_goes_where_it_was_started_before_it_was_wanted_nowhere() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit g.service inactive Global=true
        plan
        stray g.service m1 9
        stray g.service m2 1
        plan
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
    plan:
      g.service leaving m2: it was unloaded; m2 has not yet confirmed its stop [gone@m2]
    agents:
      g.service its machine has confirmed that it is gone [-@m2, placement removed]
    plan:
    ");
}

#[test]
fn a_unit_comes_to_the_machine_of_a_copy_that_is_told_to_go_only_when_that_has_gone() {
    // The order to go is numbered above that copy's wish, and any other would count as an older one.
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=eu
        machine m3
        machine m4
        unit a.service launched MachineMetadata=region=eu
        plan
        agents
        stray a.service m2 9000
        plan
        cut m1
        plan
        wait 10s
        plan
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      machine m4 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1, leaving m2: it is well on m1; a copy on m2, which nobody has ordered, is told to go [gone@m2]
    plan:
      machine m1 suspect: its lease has ended
    wait 10s:
      machine m1 lost: no sign of life for 10 s
      a.service on m1, leaving m2: m1 is lost, and it stays there: no other machine of 3 may run it: MachineMetadata region=eu (2), a copy there, which this store has not ordered, has not stopped yet (1) [2×MachineMetadata region=eu, 1×a copy there, which this store has not ordered, has not stopped yet]
    plan:
    agents:
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    plan:
    ");
}

#[test]
fn what_was_stopped_meanwhile_comes_back_only_when_that_copy_has_gone() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched MachineID=m1
        plan
        agents
        stray a.service m2 9000
        plan
        want a.service inactive
        plan
        agent m1
        unit a.service launched MachineID=m2
        plan
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: MachineID names this machine [launched@m1]
    agents:
    plan:
      a.service on m1, leaving m2: it is well on m1; a copy on m2, which nobody has ordered, is told to go [gone@m2]
    plan:
      a.service leaving m1: it was unloaded; m1 has not yet confirmed its stop [gone@m1]
    agent m1:
      a.service leaving m2: it was unloaded; m2 has not yet confirmed its stop [-@m1]
    plan:
      a.service leaving m2: waits until m2 has stopped it
    agents:
      a.service on m2: MachineID names this machine [launched@m2]
    plan:
    ");
}

#[test]
fn a_global_unit_comes_there_only_when_that_copy_has_gone() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        stray a.service m2 9000
        plan
        unit a.service launched Global=true
        plan
        agents
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1, leaving m2: it is well on m1; a copy on m2, which nobody has ordered, is told to go [gone@m2]
    plan:
      a.service on 1 of 2: global: on every machine that qualifies [launched@m1, 1×a copy there, which this store has not ordered, has not stopped yet]
    agents:
      a.service on 2 of 2: global: on every machine that qualifies [launched@m2]
    agents:
    plan:
    ");
}
