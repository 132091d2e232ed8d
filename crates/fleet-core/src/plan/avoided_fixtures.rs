//! Machines on which many units fail, as text.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn where_many_different_units_fail_new_units_come_last() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched MachineID=m1
        unit b.service launched MachineID=m1
        unit c.service launched MachineID=m1
        unit x.service launched MachineID=m2
        unit y.service launched MachineID=m2
        unit z.service launched MachineID=m2
        unit v.service launched MachineID=m2
        plan
        agents
        fail a.service m1 exit-code
        fail b.service m1 exit-code
        plan
        fail c.service m1 exit-code
        plan
        unit n.service launched
        unit only.service launched MachineID=m1
        plan
        leader
        unit n2.service launched
        plan
        open m1
        plan
        unit n3.service launched
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: MachineID names this machine [launched@m1]
      b.service on m1: MachineID names this machine [launched@m1]
      c.service on m1: MachineID names this machine [launched@m1]
      v.service on m2: MachineID names this machine [launched@m2]
      x.service on m2: MachineID names this machine [launched@m2]
      y.service on m2: MachineID names this machine [launched@m2]
      z.service on m2: MachineID names this machine [launched@m2]
    agents:
    plan:
    plan:
      machine m1 avoided: 3 of the last 3 units failed there within 10 min: a.service, b.service, c.service
    plan:
      n.service on m2: fewest units (4) of the machines that may run it; m1 is avoided [launched@m2]
      only.service on m1: MachineID names this machine; it is avoided, but no other will do: 3 of the last 3 units failed there within 10 min: a.service, b.service, c.service [launched@m1]
    leader:
    plan:
      n2.service on m2: fewest units (5) of the machines that may run it; m1 is avoided [launched@m2]
    plan:
      machine m1 no longer avoided: somebody asked for that
    plan:
      n3.service on m1: fewest units (4) of the machines that may run it [launched@m1]
    ");
}

#[test]
fn one_bad_unit_and_the_instances_of_one_template_are_no_bad_machine() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit w@1.service launched MachineID=m1
        unit w@2.service launched MachineID=m1
        unit w@3.service launched MachineID=m1
        unit a.service launched MachineID=m1
        plan
        agents
        fail w@1.service m1 exit-code
        fail w@2.service m1 exit-code
        fail w@3.service m1 exit-code
        fail a.service m1 exit-code
        restarting a.service m1
        fail a.service m1 exit-code
        plan
        wait 700s
        unit b.service launched MachineID=m1
        unit c.service launched MachineID=m1
        plan
        agents
        fail b.service m1 exit-code
        fail c.service m1 exit-code
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: MachineID names this machine [launched@m1]
      w@1.service on m1: MachineID names this machine [launched@m1]
      w@2.service on m1: MachineID names this machine [launched@m1]
      w@3.service on m1: MachineID names this machine [launched@m1]
    agents:
    plan:
    wait 700s:
    plan:
      b.service on m1: MachineID names this machine [launched@m1]
      c.service on m1: MachineID names this machine [launched@m1]
    agents:
    plan:
    ");
}

#[test]
fn a_unit_that_is_well_for_a_while_ends_it_and_one_that_dies_at_once_does_not() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched MachineID=m1
        unit b.service launched MachineID=m1
        unit c.service launched MachineID=m1
        unit old.service launched MachineID=m1
        plan
        agents
        fail a.service m1 exit-code
        fail b.service m1 exit-code
        fail c.service m1 exit-code
        plan
        wait 100s
        unit d.service launched MachineID=m1
        plan
        agents
        wait 30s
        fail d.service m1 exit-code
        wait 40s
        leader
        unit e.service launched MachineID=m1
        plan
        agents
        wait 59s
        wait 1s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: MachineID names this machine [launched@m1]
      b.service on m1: MachineID names this machine [launched@m1]
      c.service on m1: MachineID names this machine [launched@m1]
      old.service on m1: MachineID names this machine [launched@m1]
    agents:
    plan:
      machine m1 avoided: 3 of the last 3 units failed there within 10 min: a.service, b.service, c.service
    wait 100s:
    plan:
      d.service on m1: MachineID names this machine; it is avoided, but no other will do: 3 of the last 3 units failed there within 10 min: a.service, b.service, c.service [launched@m1]
    agents:
    wait 30s:
    wait 40s:
    leader:
    plan:
      e.service on m1: MachineID names this machine; it is avoided, but no other will do: 3 of the last 3 units failed there within 10 min: a.service, b.service, c.service [launched@m1]
    agents:
    wait 59s:
    wait 1s:
      machine m1 no longer avoided: e.service has been well there for 60 s
    ");
}

#[test]
fn when_all_machines_are_avoided_units_start_all_the_same() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        unit b.service launched
        unit c.service launched
        plan
        agents
        fail a.service m1 exit-code
        fail b.service m1 exit-code
        fail c.service m1 exit-code
        plan
        unit d.service launched
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      c.service on m1: fewest units (2) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 avoided: 3 of the last 3 units failed there within 10 min: a.service, b.service, c.service
    plan:
      d.service on m1: fewest units (3) of the machines that may run it; it is avoided, but no other will do: 3 of the last 3 units failed there within 10 min: a.service, b.service, c.service [launched@m1]
    ");
}
