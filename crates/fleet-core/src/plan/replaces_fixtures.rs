//! Replacing as text: a unit comes to a machine, and another one has to leave it.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn only_the_replaced_unit_moves_and_only_where_it_may() {
    assert_snapshot!(run("
        machine m1 disk=ssd
        machine m2 disk=ssd
        machine m3
        unit old.service launched MachineMetadata=disk=ssd
        plan
        agents
        unit new.service launched Replaces=old.service MachineID=m1
        plan
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      old.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      new.service on m1: MachineID names this machine [launched@m1]
      old.service on m2, leaving m1: new.service replaces it on m1; fewest units (0) of the machines that may run it [launched@m2]
    agents:
      old.service m2 has started it [gone@m1]
    agents:
      old.service on m2: new.service replaces it on m1; fewest units (0) of the machines that may run it [-@m1]
    ");
}

#[test]
fn a_replaced_unit_with_nowhere_to_go_keeps_running() {
    assert_snapshot!(run("
        machine m1
        unit old.service launched
        plan
        unit new.service launched Replaces=old.service
        plan
        machine m2
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      old.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    plan:
      new.service pending: no machine may run it: Replaces old.service, which has nowhere else to go [1×Replaces old.service, which has nowhere else to go]
    plan:
      machine m2 present: it joined
      new.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    ");
}

#[test]
fn a_waiting_replacer_comes_when_the_replaced_unit_can_go() {
    assert_snapshot!(run("
        machine m1 disk=ssd
        unit old.service launched
        plan
        unit new.service launched Replaces=old.service MachineMetadata=disk=ssd
        plan
        machine m2
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      old.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    plan:
      new.service pending: no machine may run it: Replaces old.service, which has nowhere else to go [1×Replaces old.service, which has nowhere else to go]
    plan:
      machine m2 present: it joined
      new.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      old.service on m2, leaving m1: new.service replaces it on m1; fewest units (0) of the machines that may run it [launched@m2]
    ");
}

#[test]
fn units_that_replace_each_other_leave_each_other_alone() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched Replaces=b.service
        unit b.service launched Replaces=a.service
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    ");
}
