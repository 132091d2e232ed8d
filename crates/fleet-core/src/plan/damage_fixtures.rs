//! Damage as text: documents that cannot be read, or vanish, freeze what they are about.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn damage_freezes_one_unit_alone() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        unit a.service launched MachineID=m1
        unit b.service launched
        plan
        agents
        damage a.service
        cut m1
        plan
        wait 6s
        unit a.service inactive
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: MachineID names this machine [launched@m1]
      b.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 6s:
      machine m1 lost: no sign of life for 6 s
    plan:
      a.service leaving m1: it was unloaded; m1 has not yet confirmed its stop [gone@m1]
    ");
}

#[test]
fn what_vanished_by_itself_stops_nothing() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        unit b.service launched
        plan
        agents
        lose-wish a.service
        plan
        lose-assignment m1 b.service
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    agents:
    plan:
    plan:
      b.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    ");
}
