//! Groups as text: units that are to be on one machine.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn a_chain_of_machine_of_is_placed_in_one_plan() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched MachineOf=b.service
        unit b.service launched MachineOf=c.service
        unit c.service launched MachineMetadata=disk=ssd
        plan
        machine m3 disk=ssd
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service pending: no machine may run it: MachineOf b.service is not placed [2×MachineOf b.service is not placed]
      b.service pending: no machine may run it: MachineOf c.service is not placed [2×MachineOf c.service is not placed]
      c.service pending: no machine may run it: MachineMetadata disk=ssd [2×MachineMetadata disk=ssd]
    plan:
      machine m3 present: it joined
      a.service on m3: MachineOf b.service [launched@m3]
      b.service on m3: MachineOf c.service [launched@m3]
      c.service on m3: fewest units (0) of the machines that may run it [launched@m3]
    ");
}

#[test]
fn a_group_goes_where_all_of_it_can() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3 disk=ssd
        unit db.service launched
        unit side.service launched MachineOf=db.service MachineMetadata=disk=ssd
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      db.service on m3: fewest units (0) of the machines that may run it [launched@m3]
      side.service on m3: MachineOf db.service [launched@m3]
    ");
}

#[test]
fn followers_leave_with_their_unit_and_wait_for_it() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit db.service launched
        unit web.service launched MachineOf=db.service
        plan
        agents
        want db.service inactive
        plan
        agents
        want db.service launched
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      db.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      web.service on m1: MachineOf db.service [launched@m1]
    agents:
    plan:
      db.service leaving m1: it was unloaded; m1 has not yet confirmed its stop [gone@m1]
      web.service leaving m1: it may not stay on m1: MachineOf db.service is not placed; waits until m1 has stopped it [gone@m1]
    agents:
      db.service its machine has confirmed that it is gone [-@m1, placement removed]
      web.service pending: no machine may run it: MachineOf db.service is not placed [-@m1, 2×MachineOf db.service is not placed]
    plan:
      db.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      web.service on m1: MachineOf db.service [launched@m1]
    ");
}

#[test]
fn a_circle_of_machine_of_is_named() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched MachineOf=b.service
        unit b.service launched MachineOf=c.service
        unit c.service launched MachineOf=a.service
        unit self.service launched MachineOf=self.service
        unit after.service launched MachineOf=a.service
        plan
        unit c.service launched
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a.service pending: MachineOf goes in a circle: a.service → b.service → c.service → a.service
      after.service pending: no machine may run it: MachineOf a.service is not placed [1×MachineOf a.service is not placed]
      b.service pending: MachineOf goes in a circle: b.service → c.service → a.service → b.service
      c.service pending: MachineOf goes in a circle: c.service → a.service → b.service → c.service
      self.service pending: MachineOf goes in a circle: self.service → self.service
    plan:
      a.service on m1: MachineOf b.service [launched@m1]
      after.service on m1: MachineOf a.service [launched@m1]
      b.service on m1: MachineOf c.service [launched@m1]
      c.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    ");
}
