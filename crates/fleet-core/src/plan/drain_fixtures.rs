//! Drains as text: who leaves a machine when, and what stays there.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn drain_starts_elsewhere_before_it_stops() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        unit side.service launched MachineOf=a.service
        unit fixed.service launched MachineID=m1
        unit once.service launched Exclusive=yes MachineMetadata=x=y
        patch m1 x=y
        plan
        agents
        machine m2 x=y
        plan
        drain m1
        plan
        agents
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      fixed.service on m1: MachineID names this machine [launched@m1]
      once.service on m1: fewest units (2) of the machines that may run it [launched@m1]
      side.service on m1: MachineOf a.service [launched@m1]
    agents:
    plan:
      machine m2 present: it joined
    plan:
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
      fixed.service on m1: m1 is being drained, and it stays there: no other machine may run it: MachineID m1 [1×MachineID m1]
      once.service leaving m1: m1 is being drained; waits until m1 has stopped it [gone@m1]
      side.service on m2, leaving m1: m1 is being drained; MachineOf a.service [launched@m2]
    agents:
      a.service m2 has started it [gone@m1]
      once.service on m2: fewest units (2) of the machines that may run it [-@m1, launched@m2]
      side.service m2 has started it [gone@m1]
    agents:
      a.service on m2: m1 is being drained; fewest units (0) of the machines that may run it [-@m1]
      side.service on m2: m1 is being drained; MachineOf a.service [-@m1]
    agents:
    ");
}

#[test]
fn a_drain_moves_so_many_at_once_and_groups_as_one() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        unit b.service launched
        unit b-side.service launched MachineOf=b.service
        unit c.service launched
        plan
        agents
        machine m2
        drain m1 1
        plan
        agent m2
        agent m1
        agent m2
        agent m1
        agent m2
        agent m1
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b-side.service on m1: MachineOf b.service [launched@m1]
      b.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      c.service on m1: fewest units (3) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m2 present: it joined
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    agent m2:
      a.service m2 has started it [gone@m1]
    agent m1:
      a.service on m2: m1 is being drained; fewest units (0) of the machines that may run it [-@m1]
      b-side.service on m2, leaving m1: m1 is being drained; MachineOf b.service [launched@m2]
      b.service on m2, leaving m1: m1 is being drained; fewest units (1) of the machines that may run it [launched@m2]
    agent m2:
      b-side.service m2 has started it [gone@m1]
      b.service m2 has started it [gone@m1]
    agent m1:
      b-side.service on m2: m1 is being drained; MachineOf b.service [-@m1]
      b.service on m2: m1 is being drained; fewest units (1) of the machines that may run it [-@m1]
      c.service on m2, leaving m1: m1 is being drained; fewest units (3) of the machines that may run it [launched@m2]
    agent m2:
      c.service m2 has started it [gone@m1]
    agent m1:
      c.service on m2: m1 is being drained; fewest units (3) of the machines that may run it [-@m1]
    agents:
    ");
}

#[test]
fn what_cannot_leave_a_drained_machine_stays_and_takes_nobodys_turn() {
    assert_snapshot!(run("
        machine m1 disk=ssd
        unit a.service launched MachineMetadata=disk=ssd
        unit a-side.service launched MachineOf=a.service
        unit b.service launched
        plan
        agents
        machine m2
        drain m1 1
        plan
        agents
        machine m3 disk=ssd
        plan
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      a-side.service on m1: MachineOf a.service [launched@m1]
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m1: fewest units (2) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m2 present: it joined
      a-side.service on m1: m1 is being drained, and it stays there: no other machine may run it: MachineOf a.service is on another machine [1×MachineOf a.service is on another machine]
      a.service on m1: m1 is being drained, and it stays there: no other machine may run it: MachineMetadata disk=ssd [1×MachineMetadata disk=ssd]
      b.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    agents:
      b.service m2 has started it [gone@m1]
    plan:
      machine m3 present: it joined
      a.service on m1: it stays on m1
    agents:
      a-side.service on m3, leaving m1: m1 is being drained; MachineOf a.service [launched@m3]
      a.service on m3, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m3]
      b.service on m2: m1 is being drained; fewest units (0) of the machines that may run it [-@m1]
    agents:
      a-side.service m3 has started it [gone@m1]
      a.service m3 has started it [gone@m1]
    ");
}

#[test]
fn global_units_leave_a_drained_machine_last_and_come_back() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        unit log.service launched Global=true
        plan
        agents
        machine m2
        drain m1
        plan
        agents
        agents
        agents
        open m1
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      log.service on 1 of 1: global: on every machine that qualifies [launched@m1]
    agents:
    plan:
      machine m2 present: it joined
      a.service on m2, leaving m1: m1 is being drained; fewest units (1) of the machines that may run it [launched@m2]
      log.service on 2 of 2: global: on every machine that qualifies [launched@m2]
    agents:
      a.service m2 has started it [gone@m1]
    agents:
      a.service on m2: m1 is being drained; fewest units (1) of the machines that may run it [-@m1]
      log.service on 1 of 2: global: on every machine that qualifies [gone@m1, 1×the machine is being drained]
    agents:
      log.service its machine has confirmed that it is gone [-@m1]
    plan:
      log.service on 2 of 2: global: on every machine that qualifies [launched@m1]
    ");
}

#[test]
fn a_move_that_fails_leaves_the_unit_where_it_is_well_and_tries_another_machine() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched MachineMetadata=x=y
        patch m1 x=y
        plan
        agents
        patch m2 x=y
        drain m1 1
        machine m3 x=y
        patch m2 x=y
        plan
        fail a.service m2 exit-code: main process exited, status 1/FAILURE
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
      machine m3 present: it joined
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      a.service on m3, leaving m1: m1 is being drained; it failed on m2: exit-code: main process exited, status 1/FAILURE [gone@m2, launched@m3]
    agents:
      a.service m3 has started it [gone@m1, -@m2]
    agents:
      a.service on m3: m1 is being drained; it failed on m2: exit-code: main process exited, status 1/FAILURE [-@m1]
    ");
}

#[test]
fn a_move_that_fails_everywhere_is_tried_again_later() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        plan
        agents
        machine m2
        drain m1
        plan
        fail a.service m2 exit-code
        plan
        agents
        wait 15s
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m2 present: it joined
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      a.service on m1, leaving m2: m1 is being drained, and it stays there: no other machine may run it: it failed there: exit-code [launched@m1, gone@m2, 1×it failed there: exit-code]
    agents:
      a.service on m1: m1 is being drained, and it stays there: no other machine may run it: it failed there: exit-code [-@m2, 1×it failed there: exit-code]
    wait 15s:
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    agents:
      a.service m2 has started it [gone@m1]
    agents:
      a.service on m2: m1 is being drained; fewest units (0) of the machines that may run it [-@m1]
    ");
}

#[test]
fn a_unit_that_restarts_over_and_over_has_not_arrived() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        plan
        agents
        machine m2
        drain m1
        plan
        restarting a.service m2
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m2 present: it joined
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    plan:
    ");
}

#[test]
fn a_drain_that_is_taken_back_keeps_what_has_not_arrived_elsewhere() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        unit b.service launched
        plan
        agents
        machine m2
        drain m1 1
        plan
        open m1
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
      a.service on m2, leaving m1: m1 is being drained; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      a.service on m1, leaving m2: m1 is back and still has it [launched@m1, gone@m2]
    agents:
      a.service on m1: m1 is back and still has it [-@m2]
    agents:
    ");
}
