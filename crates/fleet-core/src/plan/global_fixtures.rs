//! Global units as text: one copy on each machine that qualifies.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn a_global_unit_runs_on_every_machine_that_qualifies() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=eu
        machine m3 region=us
        unit log.service launched Global=true MachineMetadata=region=eu
        unit idle.service inactive Global=true Conflicts=*
        unit tmpl@.service launched Global=true
        plan
        machine m4 region=eu
        plan
        patch m3 region=eu
        patch m1 region=us
        plan
        agents
        want log.service destroyed
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      log.service on 2 of 3: global: on every machine that qualifies [launched@m1, launched@m2, 1×MachineMetadata region=eu]
    plan:
      machine m4 present: it joined
      log.service on 3 of 4: global: on every machine that qualifies [launched@m4, 1×MachineMetadata region=eu]
    plan:
      log.service it may not stay on m1: MachineMetadata region=eu [gone@m1, launched@m3]
    agents:
      log.service its machine has confirmed that it is gone [-@m1]
    plan:
      log.service leaving m2: it was destroyed; m2 has not yet confirmed its stop [gone@m2, gone@m3, gone@m4]
    agents:
      log.service its machine has confirmed that it is gone [-@m2, -@m3, -@m4, placement removed, tombstone removed]
    ");
}

#[test]
fn a_placed_unit_stays_and_the_global_unit_gives_way() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit z.service launched MachineID=m1
        plan
        unit a.service launched Global=true Conflicts=z.service
        plan
        want z.service inactive
        plan
        agents
        agents
        unit z.service launched
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      z.service on m1: MachineID names this machine [launched@m1]
    plan:
      a.service on 1 of 2: global: on every machine that qualifies [launched@m2, 1×Conflicts with z.service]
    plan:
      a.service on 1 of 2: global: on every machine that qualifies [1×Conflicts with z.service (still stopping)]
      z.service leaving m1: it was unloaded; m1 has not yet confirmed its stop [gone@m1]
    agents:
      a.service on 2 of 2: global: on every machine that qualifies [launched@m1]
      z.service its machine has confirmed that it is gone [-@m1, placement removed]
    agents:
    plan:
      z.service pending: no machine may run it: a.service conflicts with it [2×a.service conflicts with it]
    ");
}
