//! Plans as text, rule by rule: what the original's scheduling promises and where ours is stricter.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn what_systemd_loads_from_no_file_is_tried_on_no_machine() {
    assert_snapshot!(run("
        machine m1
        unit a.scope launched
        unit b.device loaded
        unit c.snapshot launched Global=true
        unit d.busname inactive
        plan
        agents
        want a.scope destroyed
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      a.scope pending: no machine may run it: systemd loads no scope units from files (use a service or a slice) [1×systemd loads no scope units from files (use a service or a slice)]
      b.device pending: no machine may run it: systemd loads no device units from files (use a service that depends on the device) [1×systemd loads no device units from files (use a service that depends on the device)]
      c.snapshot pending: global: on every machine that qualifies [1×systemd loads no snapshot units from files (use a target)]
    agents:
    plan:
      a.scope destroyed [placement removed, tombstone removed]
    ");
}

#[test]
fn a_unit_that_no_machine_may_keep_is_stopped_and_waits_with_the_reason() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2
        unit a.service launched MachineMetadata=region=eu
        plan
        agents
        patch m1 region=us
        plan
        agents
        patch m2 region=eu
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service leaving m1: it may not stay on m1: MachineMetadata region=eu; waits until m1 has stopped it [gone@m1]
    agents:
      a.service pending: no machine may run it: MachineMetadata region=eu [-@m1, 2×MachineMetadata region=eu]
    plan:
      a.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    ");
}

#[test]
fn global_units_with_conflicts_on_machines_that_join_later() {
    assert_snapshot!(run("
        machine m1
        unit db.service launched
        unit idle.service inactive Global=true Conflicts=*
        unit apart.service launched Global=true Conflicts=db.service
        unit other.service launched Global=true Conflicts=apart.service
        plan
        agents
        machine m2
        plan
        agents
        want apart.service inactive
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      apart.service on 1 of 1: global: on every machine that qualifies [launched@m1]
      db.service pending: no machine may run it: apart.service conflicts with it [1×apart.service conflicts with it]
      other.service pending: global: on every machine that qualifies [1×Conflicts with apart.service]
    agents:
    plan:
      machine m2 present: it joined
      apart.service on 2 of 2: global: on every machine that qualifies [launched@m2]
      other.service pending: global: on every machine that qualifies [2×Conflicts with apart.service]
    agents:
    plan:
      apart.service leaving m1: it was unloaded; m1 has not yet confirmed its stop [gone@m1, gone@m2]
      other.service pending: global: on every machine that qualifies [2×Conflicts with apart.service (still stopping)]
    agents:
      apart.service its machine has confirmed that it is gone [-@m1, -@m2, placement removed]
      db.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      other.service on 2 of 2: global: on every machine that qualifies [launched@m1, launched@m2]
    ");
}

#[test]
fn conflicts_name_instances_and_count_whichever_of_the_two_says_so() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit web@1.service launched
        unit cache.service launched Conflicts=web@?.service
        unit web@2.service launched
        unit web@10.service launched
        unit self@1.service launched Conflicts=self@1.service
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      cache.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      self@1.service on m2: fewest units (0) of the machines that may run it [launched@m2]
      web@1.service on m2: fewest units (1) of the machines that may run it [launched@m2]
      web@10.service on m1: fewest units (1) of the machines that may run it [launched@m1]
      web@2.service on m2: fewest units (2) of the machines that may run it [launched@m2]
    ");
}

#[test]
fn a_follower_of_a_global_unit_goes_where_that_is() {
    assert_snapshot!(run("
        machine m1
        machine m2 disk=ssd
        unit log.service launched Global=true MachineMetadata=disk=ssd
        unit side.service launched MachineOf=log.service
        unit both.service launched MachineOf=log.service MachineOf=side.service
        unit apart.service launched MachineOf=log.service Conflicts=side.service
        plan
        agents
        patch m2 disk=hdd
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      apart.service on m2: MachineOf log.service [launched@m2]
      both.service pending: no machine of 2 may run it: MachineOf log.service is on another machine (1), MachineOf side.service is not placed (1) [1×MachineOf log.service is on another machine, 1×MachineOf side.service is not placed]
      log.service on 1 of 2: global: on every machine that qualifies [launched@m2, 1×MachineMetadata disk=ssd]
      side.service pending: no machine of 2 may run it: MachineOf log.service is on another machine (1), apart.service conflicts with it (1) [1×MachineOf log.service is on another machine, 1×apart.service conflicts with it]
    agents:
    plan:
      apart.service leaving m2: it may not stay on m2: MachineOf log.service is not placed; waits until m2 has stopped it [gone@m2]
      both.service pending: no machine may run it: MachineOf log.service is not placed [2×MachineOf log.service is not placed]
      log.service pending: global: on every machine that qualifies [gone@m2, 2×MachineMetadata disk=ssd]
      side.service pending: no machine may run it: MachineOf log.service is not placed [2×MachineOf log.service is not placed]
    agents:
      apart.service pending: no machine may run it: MachineOf log.service is not placed [-@m2, 2×MachineOf log.service is not placed]
      log.service its machine has confirmed that it is gone [-@m2]
    ");
}

#[test]
fn a_machine_that_refuses_a_global_unit_is_asked_again_later() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit log.service launched Global=true
        plan
        refuse log.service m1 this machine has a log.service of its own: /etc/systemd/system/log.service
        plan
        agents
        wait 14s
        wait 1s
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      log.service on 2 of 2: global: on every machine that qualifies [launched@m1, launched@m2]
    plan:
      log.service on 1 of 2: global: on every machine that qualifies [gone@m1, 1×the machine refused it: this machine has a log.service of its own: /etc/systemd/system/log.service]
    agents:
      log.service its machine has confirmed that it is gone [-@m1]
    wait 14s:
    wait 1s:
      log.service on 2 of 2: global: on every machine that qualifies [launched@m1]
    agents:
    ");
}

#[test]
fn who_replaces_by_a_pattern_moves_all_that_it_names_and_only_on_its_machine() {
    assert_snapshot!(run("
        machine m1 spot=here
        machine m2
        machine m3
        unit old@1.service launched
        unit old@2.service launched
        unit old@3.service launched
        unit far.service launched
        plan
        agents
        unit new.service launched Replaces=old@*.service MachineMetadata=spot=here
        plan
        agents
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      far.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      old@1.service on m2: fewest units (0) of the machines that may run it [launched@m2]
      old@2.service on m3: fewest units (0) of the machines that may run it [launched@m3]
      old@3.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    agents:
    plan:
      new.service on m1: fewest units (2) of the machines that may run it [launched@m1]
      old@3.service on m2, leaving m1: new.service replaces it on m1; fewest units (1) of the machines that may run it [launched@m2]
    agents:
      old@3.service m2 has started it [gone@m1]
    agents:
      old@3.service on m2: new.service replaces it on m1; fewest units (1) of the machines that may run it [-@m1]
    ");
}

#[test]
fn a_peer_counts_when_it_is_placed_whether_or_not_it_is_started() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit loaded.service loaded
        unit idle.service inactive
        unit a.service launched MachineOf=loaded.service
        unit b.service launched MachineOf=idle.service
        unit c.service launched MachineOf=unknown.service
        plan
        agents
        want idle.service loaded
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: MachineOf loaded.service [launched@m1]
      b.service pending: no machine may run it: MachineOf idle.service is not placed [2×MachineOf idle.service is not placed]
      c.service pending: no machine may run it: MachineOf unknown.service is not placed [2×MachineOf unknown.service is not placed]
      loaded.service on m1: fewest units (0) of the machines that may run it [loaded@m1]
    agents:
    plan:
      b.service on m2: MachineOf idle.service [launched@m2]
      idle.service on m2: fewest units (0) of the machines that may run it [loaded@m2]
    ");
}

#[test]
fn the_metadata_table_of_the_original() {
    assert_snapshot!(run("
        machine m1 region=us-east-1 diskType=SSD
        machine m2 region=us-west-1 diskType=SSD
        machine m3 region=eu-1 diskType=SSD
        machine m4 region=us-east-1 diskType=HDD
        machine m5 region=us-east-1
        machine m6 diskType=SSD
        unit all.service launched Global=true MachineMetadata=region=us-east-1 MachineMetadata=diskType=SSD MachineMetadata=region=us-west-1
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      machine m3 present: it joined
      machine m4 present: it joined
      machine m5 present: it joined
      machine m6 present: it joined
      all.service on 2 of 6: global: on every machine that qualifies [launched@m1, launched@m2, 2×MachineMetadata diskType=SSD, 2×MachineMetadata region=us-east-1 or region=us-west-1]
    ");
}

#[test]
fn other_requirements_of_a_running_unit_move_it_only_if_it_may_not_stay() {
    assert_snapshot!(run("
        machine m1 region=eu
        machine m2 region=us
        unit a.service launched
        unit b.service launched
        plan
        agents
        unit a.service launched MachineMetadata=region=eu
        plan
        agents
        unit a.service launched MachineMetadata=region=us
        plan
        agents
        unit a.service launched Conflicts=b.service
        plan
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
      b.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    agents:
    plan:
      a.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      a.service on m2, leaving m1: it no longer fits m1: MachineMetadata region=us; fewest units (1) of the machines that may run it [launched@m2]
    agents:
      a.service m2 has started it [gone@m1]
    plan:
      a.service on m1, leaving m2: it no longer fits m2: Conflicts with b.service; fewest units (0) of the machines that may run it [launched@m1]
    agents:
      a.service m1 has started it [gone@m2]
    ");
}
