//! Plans as text: a few lines in, what is written and why out.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn units_spread_over_the_machines_least_loaded_first() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        unit a.service launched
        unit b.service launched
        unit c.service loaded
        unit d.service launched
        unit e.service inactive
        plan
        agents
        machine m4
        plan
        unit f.service launched
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (0) of the machines that may run it [launched@m2]
      c.service on m3: fewest units (0) of the machines that may run it [loaded@m3]
      d.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m4 present: it joined
    plan:
      f.service on m4: fewest units (0) of the machines that may run it [launched@m4]
    ");
}

#[test]
fn a_unit_that_is_brought_over_goes_where_it_ran_if_it_may() {
    assert_snapshot!(run("
        machine m1
        machine m2 zone=z2
        unit a.service launched @m2
        unit b.service launched @m2
        unit c.service launched @m2 MachineMetadata=zone=z1
        unit d.service launched @m9
        unit e.service launched @m2 Conflicts=b.service
        unit f.service launched @m1 MachineOf=a.service
        plan
        agents
        cut m2
        plan
        wait 6s
        agents
        machine m2 zone=z2
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m2: it ran there when it was brought over [launched@m2]
      b.service on m2: it ran there when it was brought over [launched@m2]
      c.service pending: no machine may run it: MachineMetadata zone=z1 [2×MachineMetadata zone=z1]
      d.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      e.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      f.service on m2: MachineOf a.service [launched@m2]
    agents:
    plan:
      machine m2 suspect: its lease has ended
    wait 6s:
      machine m2 lost: no sign of life for 6 s
      a.service on m1, leaving m2: m2 is lost; fewest units (2) of the machines that may run it [launched@m1]
      b.service on m2: m2 is lost, and it stays there: no other machine may run it: e.service conflicts with it [1×e.service conflicts with it]
      c.service pending: no machine of 2 may run it: MachineMetadata zone=z1 (1), the machine is lost (1) [1×MachineMetadata zone=z1, 1×the machine is lost]
      f.service on m1, leaving m2: m2 is lost; MachineOf a.service [launched@m1]
    agents:
      a.service m1 has started it [gone@m2]
      f.service m1 has started it [gone@m2]
    agents:
      machine m2 present: it is back, after it was lost
      a.service on m1: m2 is lost; fewest units (2) of the machines that may run it [-@m2]
      b.service on m2: it stays on m2
      f.service on m1: m2 is lost; MachineOf a.service [-@m2]
    ");
}

#[test]
fn a_machine_that_was_never_here_refuses_nothing() {
    let shown = run("
        machine m1
        cordon m9
        unit a.service launched MachineMetadata=zone=z1
        plan
    ");
    assert!(shown.contains("[1×MachineMetadata zone=z1]"), "{shown}");
    assert!(!shown.contains("is lost"), "{shown}");
}

#[test]
fn a_unit_goes_where_its_machine_id_says() {
    assert_snapshot!(run("
        machine aaaaaaaa1
        machine aaaaaaaa2
        machine bbbbbbbb1
        unit whole.service launched MachineID=bbbbbbbb1
        unit short.service launched MachineID=aaaaaaaa
        unit part.service launched MachineID=bbbb
        plan
    "), @r"
    plan:
      machine aaaaaaaa1 present: it joined
      machine aaaaaaaa2 present: it joined
      machine bbbbbbbb1 present: it joined
      part.service pending: no machine may run it: MachineID bbbb [3×MachineID bbbb]
      short.service on aaaaaaaa1: MachineID names this machine [launched@aaaaaaaa1]
      whole.service on bbbbbbbb1: MachineID names this machine [launched@bbbbbbbb1]
    ");
}

#[test]
fn metadata_is_or_within_a_key_and_and_between_keys() {
    assert_snapshot!(run("
        machine m1 region=eu disk=hdd
        machine m2 region=us disk=ssd
        machine m3 region=asia disk=ssd
        unit a.service launched MachineMetadata=disk=ssd MachineMetadata=region=eu MachineMetadata=region=us
        unit b.service launched MachineMetadata=disk=ssd MachineMetadata=region=eu
        plan
        machine m4 region=eu disk=ssd
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service on m2: fewest units (0) of the machines that may run it [launched@m2]
      b.service pending: no machine of 3 may run it: MachineMetadata region=eu (2), MachineMetadata disk=ssd (1) [2×MachineMetadata region=eu, 1×MachineMetadata disk=ssd]
    plan:
      machine m4 present: it joined
      b.service on m4: fewest units (0) of the machines that may run it [launched@m4]
    ");
}

#[test]
fn conflicts_hold_in_both_directions_and_with_globs() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit web@1.service launched Conflicts=web@*.service
        unit web@2.service launched Conflicts=web@*.service
        unit web@3.service launched Conflicts=web@*.service
        plan
        agents
        unit loner.service launched Conflicts=web*
        unit target.service launched
        plan
        want web@1.service inactive
        plan
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      web@1.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      web@2.service on m2: fewest units (0) of the machines that may run it [launched@m2]
      web@3.service pending: no machine may run it: Conflicts with web@*.service [2×Conflicts with web@*.service]
    agents:
    plan:
      loner.service pending: no machine may run it: Conflicts with web* [2×Conflicts with web*]
      target.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    plan:
      web@1.service leaving m1: it was unloaded; m1 has not yet confirmed its stop [gone@m1]
    agents:
      loner.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      web@1.service its machine has confirmed that it is gone [-@m1, placement removed]
    agents:
    ");
}

#[test]
fn changed_metadata_starts_elsewhere_before_it_stops() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=eu
        unit a.service launched MachineMetadata=region=eu
        unit side.service launched MachineOf=a.service
        unit b.service launched MachineMetadata=region=us
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
      b.service pending: no machine may run it: MachineMetadata region=us [2×MachineMetadata region=us]
      side.service on m1: MachineOf a.service [launched@m1]
    agents:
    plan:
      a.service on m2, leaving m1: it no longer fits m1: MachineMetadata region=eu; fewest units (0) of the machines that may run it [launched@m2]
      b.service on m1: fewest units (2) of the machines that may run it [launched@m1]
      side.service on m2, leaving m1: it no longer fits m1: MachineOf a.service is on another machine; MachineOf a.service [launched@m2]
    agents:
      a.service m2 has started it [gone@m1]
      side.service m2 has started it [gone@m1]
    ");
}

#[test]
fn a_refusal_is_tried_elsewhere_and_later_again() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        refuse a.service m1 systemd there has a unit of this name
        plan
        refuse a.service m2 disk is full
        agent m1
        agent m2
        wait 15s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    plan:
      a.service on m2, leaving m1: m1 has refused it: systemd there has a unit of this name [gone@m1, launched@m2]
    agent m1:
      a.service leaving m2: no machine of 2 may run it: the machine refused it: disk is full (1), the machine refused it: systemd there has a unit of this name (1) [-@m1, gone@m2, 1×the machine refused it: disk is full, 1×the machine refused it: systemd there has a unit of this name]
    agent m2:
      a.service pending: no machine of 2 may run it: the machine refused it: disk is full (1), the machine refused it: systemd there has a unit of this name (1) [-@m2, 1×the machine refused it: disk is full, 1×the machine refused it: systemd there has a unit of this name]
    wait 15s:
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    ");
}

#[test]
fn stop_and_start_again_at_once_goes_back_to_the_same_machine() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit a.service launched
        plan
        agents
        want a.service inactive
        plan
        want a.service launched
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service leaving m1: it was unloaded; m1 has not yet confirmed its stop [gone@m1]
    plan:
      a.service on m1: it was still on m1 [launched@m1]
    agents:
    ");
}

#[test]
fn destroy_removes_everything_once_the_stop_is_confirmed() {
    assert_snapshot!(run("
        machine m1
        unit a.service launched
        plan
        agents
        want a.service destroyed
        plan
        agents
        unit b.service inactive
        want b.service destroyed
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service leaving m1: it was destroyed; m1 has not yet confirmed its stop [gone@m1]
    agents:
      a.service its machine has confirmed that it is gone [-@m1, placement removed, tombstone removed]
    plan:
      b.service destroyed [tombstone removed]
    ");
}

#[test]
fn cordoned_troubled_and_drained_machines_take_nothing() {
    assert_snapshot!(run("
        machine m1
        machine m2
        machine m3
        cordon m1
        drain m2
        trouble m3 systemd cannot be reached
        unit a.service launched
        plan
        open m2
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      a.service pending: no machine of 3 may run it: systemd cannot be reached (1), the machine is being drained (1), the machine is cordoned (1) [1×systemd cannot be reached, 1×the machine is being drained, 1×the machine is cordoned]
    plan:
      a.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    ");
}

#[test]
fn a_template_is_placed_nowhere() {
    assert_snapshot!(run("
        machine m1
        unit a@.service launched
        unit a@1.service launched
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a@1.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    ");
}

#[test]
fn a_cluster_without_machines_says_so() {
    assert_snapshot!(run("
        unit a.service launched
        plan
        machine m1
        plan
    "), @r"
    plan:
      a.service pending: the cluster has no machine
    plan:
      machine m1 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    ");
}
