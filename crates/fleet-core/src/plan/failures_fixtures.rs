//! Failures as text: units that systemd has given up.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn a_unit_that_is_given_up_is_moved_after_longer_and_longer_pauses_and_then_stays_failed() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        unit a.service launched RescheduleOnFailure=2
        plan
        agents
        fail a.service m1 exit-code
        plan
        wait 1s
        wait 1s
        agents
        fail a.service m2 exit-code
        plan
        wait 4s
        agents
        fail a.service m3 signal
        plan
        wait 700s
        want a.service launched
        plan
        agents
        fail a.service m3 exit-code
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:16:42 UTC, if it has not recovered: move 1 of at most 2
    wait 1s:
    wait 1s:
      a.service on m2, leaving m1: it failed on m1: exit-code; move 1 of at most 2; fewest units (0) of the machines that may run it [gone@m1, launched@m2]
    agents:
      a.service on m2: it failed on m1: exit-code; move 1 of at most 2; fewest units (0) of the machines that may run it [-@m1]
    plan:
      a.service on m2: it failed on m2: exit-code; it is moved at 00:16:46 UTC, if it has not recovered: move 2 of at most 2
    wait 4s:
      a.service on m3, leaving m2: it failed on m2: exit-code; move 2 of at most 2; fewest units (0) of the machines that may run it [gone@m2, launched@m3]
    agents:
      a.service on m3: it failed on m2: exit-code; move 2 of at most 2; fewest units (0) of the machines that may run it [-@m2]
    plan:
      a.service on m3: it failed on m3: signal; it stays failed there after 2 of at most 2 moves, until it is started anew
    wait 700s:
    plan:
      a.service on m3: it stays on m3 [launched@m3]
    agents:
    plan:
      a.service on m3: it failed on m3: exit-code; it is moved at 00:28:28 UTC, if it has not recovered: move 1 of at most 2
    ");
}

#[test]
fn what_systemd_starts_again_itself_has_not_failed() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched RescheduleOnFailure=yes
        plan
        agents
        restarting a.service m1
        wait 700s
        fail a.service m1 exit-code
        plan
        restarting a.service m1
        plan
        wait 700s
        well a.service m1
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    wait 700s:
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:28:22 UTC, if it has not recovered: move 1 of at most 5
    plan:
      a.service on m1: it stays on m1
    wait 700s:
    plan:
    ");
}

#[test]
fn without_the_wish_a_failed_unit_stays() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        unit b.service launched RescheduleOnFailure=no
        unit g.service launched Global=true RescheduleOnFailure=yes
        plan
        agents
        fail a.service m1 exit-code
        fail b.service m2 exit-code
        fail g.service m1 exit-code
        wait 700s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (1) of the machines that may run it [launched@m2]
      g.service on 2 of 2: global: on every machine that qualifies [launched@m1, launched@m2]
    agents:
    wait 700s:
    ");
}

#[test]
fn with_nowhere_else_to_go_it_stays_until_a_machine_comes_or_it_recovers() {
    assert_snapshot!(run("
        machine m1 disk=ssd
        machine m2
        unit a.service launched RescheduleOnFailure=yes MachineMetadata=disk=ssd
        unit b.service launched RescheduleOnFailure=yes MachineMetadata=disk=ssd
        plan
        agents
        fail a.service m1 exit-code
        fail b.service m1 exit-code
        plan
        wait 2s
        well b.service m1
        plan
        leader
        machine m3 disk=ssd
        plan
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:16:42 UTC, if it has not recovered: move 1 of at most 5
      b.service on m1: it failed on m1: exit-code; it is moved at 00:16:42 UTC, if it has not recovered: move 1 of at most 5
    wait 2s:
      a.service on m1: it failed on m1: exit-code, and it stays there: no other machine may run it: MachineMetadata disk=ssd [1×MachineMetadata disk=ssd]
      b.service on m1: it failed on m1: exit-code, and it stays there: no other machine may run it: MachineMetadata disk=ssd [1×MachineMetadata disk=ssd]
    plan:
      b.service on m1: it stays on m1
    leader:
    plan:
      machine m3 present: it joined
      a.service on m3, leaving m1: it failed on m1: exit-code; move 1 of at most 5; fewest units (0) of the machines that may run it [gone@m1, launched@m3]
    agents:
      a.service on m3: it failed on m1: exit-code; move 1 of at most 5; fewest units (0) of the machines that may run it [-@m1]
    agents:
    ");
}

#[test]
fn an_exclusive_unit_is_stopped_first_and_does_not_come_back_to_where_it_failed() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched RescheduleOnFailure=yes Exclusive=yes
        plan
        agents
        fail a.service m1 exit-code
        plan
        wait 2s
        plan
        leader
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:16:42 UTC, if it has not recovered: move 1 of at most 5
    wait 2s:
      a.service leaving m1: it failed on m1: exit-code; move 1 of at most 5; waits until m1 has stopped it [gone@m1]
    plan:
    leader:
    agents:
      a.service on m2: it failed on m1; move 1 of at most 5; fewest units (0) of the machines that may run it [-@m1, launched@m2]
    agents:
    ");
}

#[test]
fn a_group_moves_as_one_and_a_follower_alone_not_at_all() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit db.service launched RescheduleOnFailure=yes
        unit side.service launched MachineOf=db.service RescheduleOnFailure=yes
        plan
        agents
        fail side.service m1 exit-code
        plan
        wait 2s
        well side.service m1
        fail db.service m1 exit-code
        plan
        wait 2s
        agents
        agents
        patch m2 disk=ssd
        unit side.service launched MachineOf=db.service MachineMetadata=disk=ssd
        plan
        agents
        fail db.service m2 exit-code
        plan
        wait 4s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      db.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      side.service on m1: MachineOf db.service [launched@m1]
    agents:
    plan:
      side.service on m1: it failed on m1: exit-code; it is moved at 00:16:42 UTC, if it has not recovered: move 1 of at most 5
    wait 2s:
      side.service on m1: it failed on m1: exit-code, and it stays there: no other machine may run it: MachineOf db.service is on another machine [1×MachineOf db.service is on another machine]
    plan:
      db.service on m1: it failed on m1: exit-code; it is moved at 00:16:44 UTC, if it has not recovered: move 1 of at most 5
      side.service on m1: it stays on m1
    wait 2s:
      db.service on m2, leaving m1: it failed on m1: exit-code; move 1 of at most 5; fewest units (0) of the machines that may run it [gone@m1, launched@m2]
      side.service on m2, leaving m1: it no longer fits m1: MachineOf db.service is on another machine; MachineOf db.service [launched@m2]
    agents:
      db.service on m2: it failed on m1: exit-code; move 1 of at most 5; fewest units (0) of the machines that may run it [-@m1]
      side.service m2 has started it [gone@m1]
    agents:
      side.service on m2: it no longer fits m1: MachineOf db.service is on another machine; MachineOf db.service [-@m1]
    plan:
      side.service on m2: it no longer fits m1: MachineOf db.service is on another machine; MachineOf db.service [launched@m2]
    agents:
    plan:
      db.service on m2: it failed on m2: exit-code; it is moved at 00:16:48 UTC, if it has not recovered: move 2 of at most 5
    wait 4s:
      db.service on m2: it failed on m2: exit-code, and it stays there: no other machine may run it: side.service, which follows it, cannot come along [1×side.service, which follows it, cannot come along]
    ");
}

#[test]
fn a_new_leader_goes_on_counting_and_lasting_success_begins_anew() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched RescheduleOnFailure=2
        plan
        agents
        fail a.service m1 exit-code
        plan
        wait 2s
        agents
        leader
        fail a.service m2 exit-code
        plan
        leader
        wait 4s
        agents
        fail a.service m1 exit-code
        plan
        leader
        well a.service m1
        plan
        wait 599s
        leader
        wait 599s
        wait 1s
        fail a.service m1 exit-code
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:16:42 UTC, if it has not recovered: move 1 of at most 2
    wait 2s:
      a.service on m2, leaving m1: it failed on m1: exit-code; move 1 of at most 2; fewest units (0) of the machines that may run it [gone@m1, launched@m2]
    agents:
      a.service on m2: it failed on m1: exit-code; move 1 of at most 2; fewest units (0) of the machines that may run it [-@m1]
    leader:
    plan:
      a.service on m2: it failed on m2: exit-code; it is moved at 00:16:46 UTC, if it has not recovered: move 2 of at most 2
    leader:
    wait 4s:
      a.service on m1, leaving m2: it failed on m2: exit-code; move 2 of at most 2; fewest units (0) of the machines that may run it [launched@m1, gone@m2]
    agents:
      a.service on m1: it failed on m2: exit-code; move 2 of at most 2; fewest units (0) of the machines that may run it [-@m2]
    plan:
      a.service on m1: it failed on m1: exit-code; it stays failed there after 2 of at most 2 moves, until it is started anew
    leader:
    plan:
      a.service on m1: it stays on m1
    wait 599s:
    leader:
    wait 599s:
    wait 1s:
      a.service on m1: it has run well on m1 for 10 min
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:36:47 UTC, if it has not recovered: move 1 of at most 2
    ");
}

#[test]
fn a_loss_a_drain_and_a_stop_come_before_a_failure() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched RescheduleOnFailure=yes
        plan
        agents
        fail a.service m1 exit-code
        plan
        cut m1
        wait 2s
        wait 6s
        agents
        machine m1
        agents
        fail a.service m2 exit-code
        plan
        drain m2
        plan
        agents
        agents
        fail a.service m1 exit-code
        plan
        want a.service inactive
        plan
        agents
        wait 700s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:16:42 UTC, if it has not recovered: move 1 of at most 5
    wait 2s:
      machine m1 suspect: its lease has ended
      a.service on m1: it stays on m1
    wait 6s:
      machine m1 lost: no sign of life for 6 s
      a.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [launched@m2]
    agents:
      a.service m2 has started it [gone@m1]
    agents:
      machine m1 present: it is back, after it was lost
      a.service on m2: m1 is lost; fewest units (0) of the machines that may run it [-@m1]
    plan:
      a.service on m2: it failed on m2: exit-code; it is moved at 00:16:50 UTC, if it has not recovered: move 1 of at most 5
    plan:
      a.service on m1, leaving m2: m2 is being drained; fewest units (0) of the machines that may run it [launched@m1]
    agents:
      a.service m1 has started it [gone@m2]
    agents:
      a.service on m1: m2 is being drained; fewest units (0) of the machines that may run it [-@m2]
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:16:50 UTC, if it has not recovered: move 1 of at most 5
    plan:
      a.service leaving m1: it was unloaded; m1 has not yet confirmed its stop [gone@m1]
    agents:
      a.service its machine has confirmed that it is gone [-@m1, placement removed]
    wait 700s:
    ");
}

#[test]
fn a_pause_begins_when_a_unit_fails_whatever_it_came_to_before() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched RescheduleOnFailure=2
        plan
        agents
        fail a.service m1 exit-code
        plan
        want a.service inactive
        plan
        agents
        wait 5s
        want a.service launched
        plan
        fail a.service m1 exit-code
        plan
        wait 1s
        wait 1s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:16:42 UTC, if it has not recovered: move 1 of at most 2
    plan:
      a.service leaving m1: it was unloaded; m1 has not yet confirmed its stop [gone@m1]
    agents:
      a.service its machine has confirmed that it is gone [-@m1, placement removed]
    wait 5s:
    plan:
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    plan:
      a.service on m1: it failed on m1: exit-code; it is moved at 00:16:47 UTC, if it has not recovered: move 1 of at most 2
    wait 1s:
    wait 1s:
      a.service on m2, leaving m1: it failed on m1: exit-code; move 1 of at most 2; fewest units (0) of the machines that may run it [gone@m1, launched@m2]
    ");
}

#[test]
fn what_failed_on_a_drained_machine_and_can_go_nowhere_says_that_it_stays() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched RescheduleOnFailure=2
        plan
        agents
        fail a.service m1 exit-code
        drain m1
        plan
        wait 2s
        leader
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m1: m1 is being drained, and it stays there: the cluster has no other machine
    wait 2s:
      a.service on m1: m1 is being drained, and it stays there: the cluster has no other machine
    leader:
    plan:
    ");
}
