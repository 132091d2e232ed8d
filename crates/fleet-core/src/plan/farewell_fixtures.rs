//! Machines that say that they go, as text.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn an_orderly_stop_of_fleetd_is_borne_for_its_grace() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        unit only.service launched MachineID=m1
        plan
        agents
        stop m1
        plan
        wait 599s
        wait 1s
        agents
        machine m1
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      only.service on m1: MachineID names this machine [launched@m1]
    agents:
    plan:
      machine m1 unsupervised: fleetd was stopped there in order; its units keep running
    wait 599s:
    wait 1s:
      machine m1 lost: fleetd was stopped there in order, and is not back after 600 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
      only.service on m1: m1 is lost, and it stays there: no other machine may run it: MachineID m1 [1×MachineID m1]
    agents:
      a.service m2 has started it [gone@m1]
    agents:
      machine m1 present: it is back, after it was lost
      a.service on m2: m1 is lost; fewest units (0) of the machines that may run it [-@m1]
      only.service on m1: it stays on m1
    agents:
    ");
}

#[test]
fn who_is_back_before_the_replacement_has_started_keeps_what_it_has() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        stop m1
        plan
        wait 600s
        machine m1
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 unsupervised: fleetd was stopped there in order; its units keep running
    wait 600s:
      machine m1 lost: fleetd was stopped there in order, and is not back after 600 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    plan:
      machine m1 present: it is back, after it was lost
      a.service on m1, leaving m2: m1 is back and still has it [launched@m1, gone@m2]
    agents:
      a.service on m1: m1 is back and still has it [-@m2]
    ");
}

#[test]
fn who_leads_only_after_a_farewell_knows_that_it_was_meant() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        leave m1
        plan
        cut m1
        leader
        wait 599s
        machine m1
        plan
        leave m1
        plan
        machine m1
        plan
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 present: fleetd is being stopped there in order
    leader:
      machine m1 unsupervised: fleetd was stopped there in order; its units keep running
    wait 599s:
    plan:
      machine m1 present: it is back, after it was unsupervised
    plan:
      machine m1 present: fleetd is being stopped there in order
    plan:
      machine m1 present: its fleetd is back
    plan:
    ");
}

#[test]
fn a_new_leader_starts_the_grace_of_the_unsupervised_anew() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        stop m1
        plan
        wait 500s
        leader
        wait 599s
        wait 1s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 unsupervised: fleetd was stopped there in order; its units keep running
    wait 500s:
    leader:
    wait 599s:
    wait 1s:
      machine m1 lost: fleetd was stopped there in order, and is not back after 600 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    ");
}

#[test]
fn units_of_a_machine_that_shuts_down_start_elsewhere_at_once() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        unit b.service launched
        unit c.service launched MachineOf=a.service
        unit only.service launched MachineID=m1
        unit once.service launched Exclusive=yes MachineMetadata=x=y
        unit log.service launched Global=true
        patch m1 x=y
        plan
        agents
        machine m2 x=y
        plan
        shut-down m1
        plan
        agent m2
        cut m1
        plan
        wait 5s
        wait 6s
        agent m2
        machine m1
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (1) of the machines that may run it [launched@m2]
      c.service on m1: MachineOf a.service [launched@m1]
      log.service on 2 of 2: global: on every machine that qualifies [launched@m1, launched@m2]
      once.service on m1: fewest units (3) of the machines that may run it [launched@m1]
      only.service on m1: MachineID names this machine [launched@m1]
    agents:
    plan:
      machine m2 present: it joined
    plan:
      a.service on m2, leaving m1: m1 is shutting down; fewest units (2) of the machines that may run it [launched@m2]
      c.service on m2, leaving m1: m1 is shutting down; MachineOf a.service [launched@m2]
      once.service leaving m1: m1 is shutting down; waits until m1 has stopped it [gone@m1]
      only.service on m1: m1 is shutting down, and it stays there: no other machine may run it: MachineID m1 [1×MachineID m1]
    agent m2:
      a.service m2 has started it [gone@m1]
      c.service m2 has started it [gone@m1]
    plan:
      machine m1 suspect: it was shut down
      once.service on m1: it was still on m1 [launched@m1]
      only.service on m1: it stays on m1
    wait 5s:
      machine m1 lost: it was shut down
      once.service on m1: m1 is lost; it is Exclusive and may still be stopping there: it starts elsewhere at 00:16:51 UTC, when it has certainly ended
      only.service on m1: m1 is lost, and it stays there: no other machine may run it: MachineID m1 [1×MachineID m1]
    wait 6s:
      once.service on m2, leaving m1: m1 is lost; fewest units (4) of the machines that may run it [gone@m1, launched@m2]
    agent m2:
    agents:
      machine m1 present: it is back, after it was lost
      a.service on m2: m1 is shutting down; fewest units (2) of the machines that may run it [-@m1]
      c.service on m2: m1 is shutting down; MachineOf a.service [-@m1]
      once.service on m2: m1 is lost; fewest units (4) of the machines that may run it [-@m1]
      only.service on m1: it stays on m1
    agents:
    ");
}

#[test]
fn all_machines_but_one_may_shut_down_without_a_freeze() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        machine m4
        unit a.service launched
        unit b.service launched
        unit c.service launched
        unit d.service launched
        plan
        agents
        shut-down m1
        shut-down m2
        shut-down m3
        plan
        agents
        cut m1
        cut m2
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
      d.service on m4: fewest units (0) of the machines that may run it [launched@m4]
    agents:
    plan:
      a.service on m4, leaving m1: m1 is shutting down; fewest units (1) of the machines that may run it [launched@m4]
      b.service on m4, leaving m2: m2 is shutting down; fewest units (2) of the machines that may run it [launched@m4]
      c.service on m4, leaving m3: m3 is shutting down; fewest units (3) of the machines that may run it [launched@m4]
    agents:
      a.service m4 has started it [gone@m1]
      b.service m4 has started it [gone@m2]
      c.service m4 has started it [gone@m3]
    plan:
      machine m1 suspect: it was shut down
      machine m2 suspect: it was shut down
      machine m3 suspect: it was shut down
    wait 5s:
      machine m1 lost: it was shut down
      machine m2 lost: it was shut down
      machine m3 lost: it was shut down
    ");
}

#[test]
fn a_freeze_ends_when_somebody_says_that_they_are_gone() {
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
        wait 6s
        thaw
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
      machine m2 suspect: its lease has ended
    wait 6s:
      machine m1 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
      machine m2 suspect: too many machines vanished at once: nothing is moved until they are back, for at most 300 s
    plan:
      machine m1 lost: no sign of life for 6 s
      machine m2 lost: no sign of life for 6 s
      a.service on m3, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m3]
    ");
}
