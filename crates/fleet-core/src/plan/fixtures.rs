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
