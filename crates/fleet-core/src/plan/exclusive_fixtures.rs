//! Exclusive units whose machine is lost: how long they are waited for, and what is said.

use insta::assert_snapshot;

use super::model::run;

#[test]
fn an_exclusive_unit_starts_elsewhere_only_when_it_has_certainly_stopped() {
    // Lost after 5 s; the lease of 3 s, twice 3 s for its stop and 2 s of margin: after 11 s.
    assert_snapshot!(run("
        machine m1
        machine m2
        unit once.service launched Exclusive=yes
        plan
        agents
        cut m1
        plan
        wait 5s
        wait 5s
        leader
        wait 10s
        wait 1s
        agents
        machine m1
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      once.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 5s:
      machine m1 lost: no sign of life for 5 s
      once.service on m1: m1 is lost; it is Exclusive and may still be stopping there: it starts elsewhere at 00:16:51 UTC, when it has certainly ended
    wait 5s:
    leader:
      once.service on m1: m1 is lost; it is Exclusive and may still be stopping there: it starts elsewhere at 00:17:01 UTC, when it has certainly ended
    wait 10s:
    wait 1s:
      once.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [gone@m1, launched@m2]
    agents:
    agents:
      machine m1 present: it is back, after it was lost
      once.service on m2: m1 is lost; fewest units (0) of the machines that may run it [-@m1]
    plan:
    ");
}

#[test]
fn an_exclusive_unit_whose_machine_is_back_in_time_stays() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit once.service launched Exclusive=yes
        plan
        agents
        cut m1
        plan
        wait 6s
        machine m1
        plan
        wait 20s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      once.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 6s:
      machine m1 lost: no sign of life for 6 s
      once.service on m1: m1 is lost; it is Exclusive and may still be stopping there: it starts elsewhere at 00:16:51 UTC, when it has certainly ended
    plan:
      machine m1 present: it is back, after it was lost
      once.service on m1: it stays on m1
    wait 20s:
    ");
}

#[test]
fn a_fleetd_that_was_stopped_in_order_has_said_how_long_it_keeps_its_exclusive_units() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit once.service launched Exclusive=yes
        plan
        agents
        leased once.service m1 603000
        stop m1
        plan
        wait 599s
        wait 1s
        wait 10s
        wait 1s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      once.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 unsupervised: fleetd was stopped there in order; its units keep running
    wait 599s:
    wait 1s:
      machine m1 lost: fleetd was stopped there in order, and is not back after 600 s
      once.service on m1: m1 is lost; it is Exclusive and may still be stopping there: it starts elsewhere at 00:26:51 UTC, when it has certainly ended
    wait 10s:
    wait 1s:
      once.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [gone@m1, launched@m2]
    ");
}

#[test]
fn what_is_bound_to_no_lease_waits_for_its_machine() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit once.service launched Exclusive=yes
        plan
        agents
        leased once.service m1
        cut m1
        plan
        wait 1000s
        machine m1
        agents
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      once.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 1000s:
      machine m1 lost: no sign of life for 1000 s
      once.service on m1: m1 is lost; it was started there before it was Exclusive, or its stop has no end: nobody knows whether it still runs, and it waits until m1 is back
    agents:
      machine m1 present: it is back, after it was lost
      once.service on m1: it stays on m1
    ");
}

#[test]
fn a_drained_exclusive_unit_whose_machine_is_then_lost_waits_as_long() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit once.service launched Exclusive=yes
        plan
        agents
        drain m1
        plan
        cut m1
        plan
        wait 10s
        wait 1s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      once.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      once.service leaving m1: m1 is being drained; waits until m1 has stopped it [gone@m1]
    plan:
      machine m1 suspect: its lease has ended
    wait 10s:
      machine m1 lost: no sign of life for 10 s
      once.service leaving m1: m1 is lost; it is Exclusive and may still be stopping there: it starts elsewhere at 00:16:51 UTC, when it has certainly ended
    wait 1s:
      once.service on m2, leaving m1: fewest units (0) of the machines that may run it [launched@m2]
    ");
}

#[test]
fn an_exclusive_unit_whose_assignment_vanished_is_not_started_elsewhere_before_its_time() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit once.service launched Exclusive=yes
        plan
        agents
        cut m1
        plan
        wait 6s
        lose-assignment m1 once.service
        plan
        wait 4s
        wait 1s
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      once.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m1 suspect: its lease has ended
    wait 6s:
      machine m1 lost: no sign of life for 6 s
      once.service on m1: m1 is lost; it is Exclusive and may still be stopping there: it starts elsewhere at 00:16:51 UTC, when it has certainly ended
    plan:
      once.service on m1: m1 is lost; it is Exclusive and may still be stopping there: it starts elsewhere at 00:16:51 UTC, when it has certainly ended [launched@m1]
    wait 4s:
    wait 1s:
      once.service on m2, leaving m1: m1 is lost; fewest units (0) of the machines that may run it [gone@m1, launched@m2]
    ");
}

/// It may run where a machine does not believe the store, whatever the store says of it.
#[test]
fn an_exclusive_unit_gets_no_new_place_while_a_machine_that_is_there_doubts_the_store() {
    assert_snapshot!(run("
        machine m1
        machine m2
        unit old.service launched Exclusive=yes
        plan
        agents
        doubt m2
        unit once.service launched Exclusive=yes
        unit other.service launched
        plan
        agents
        machine m2
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      old.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      once.service pending: no machine may run it: Exclusive, and m2 does not believe this store and may run it (fleetctl accept-store) [2×Exclusive, and m2 does not believe this store and may run it (fleetctl accept-store)]
      other.service on m2: fewest units (0) of the machines that may run it [launched@m2]
    agents:
    plan:
      once.service on m1: fewest units (1) of the machines that may run it [launched@m1]
    ");
}

/// It may have had it when it vanished, and its systemd stops it only when its lease has ended.
#[test]
fn an_exclusive_unit_waits_for_a_machine_that_doubted_the_store_and_vanished() {
    // Nothing is known of its lease: 30 s, and 6 s for the stop, and 2 s of margin.
    assert_snapshot!(run("
        machine m1
        machine m2
        doubt m2
        unit once.service launched Exclusive=yes
        plan
        cut m2
        plan
        wait 20s
        leader
        wait 37s
        wait 1s
        agents
        machine m2
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      once.service pending: no machine may run it: Exclusive, and m2 does not believe this store and may run it (fleetctl accept-store) [2×Exclusive, and m2 does not believe this store and may run it (fleetctl accept-store)]
    plan:
      machine m2 suspect: its lease has ended; it did not believe this store
      once.service pending: no machine may run it: Exclusive, and m2 did not believe this store when it was seen last: what may run there has not surely stopped yet [2×Exclusive, and m2 did not believe this store when it was seen last: what may run there has not surely stopped yet]
    wait 20s:
      machine m2 lost: no sign of life for 20 s; it did not believe this store
    leader:
    wait 37s:
    wait 1s:
      once.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
      machine m2 present: it is back, after it was lost
    ");
}

/// Who has gone in doubt and is back in none can be asked.
#[test]
fn an_exclusive_unit_gets_its_place_when_who_doubted_is_back_and_believes() {
    assert_snapshot!(run("
        machine m1
        machine m2
        doubt m2
        unit once.service launched Exclusive=yes
        plan
        cut m2
        plan
        wait 6s
        machine m2
        plan
        agents
        plan
    "), @r"
    plan:
      machine m1 present: it joined
      machine m2 present: it joined
      once.service pending: no machine may run it: Exclusive, and m2 does not believe this store and may run it (fleetctl accept-store) [2×Exclusive, and m2 does not believe this store and may run it (fleetctl accept-store)]
    plan:
      machine m2 suspect: its lease has ended; it did not believe this store
      once.service pending: no machine may run it: Exclusive, and m2 did not believe this store when it was seen last: what may run there has not surely stopped yet [2×Exclusive, and m2 did not believe this store when it was seen last: what may run there has not surely stopped yet]
    wait 6s:
      machine m2 lost: no sign of life for 6 s; it did not believe this store
    plan:
      machine m2 present: it is back, after it was lost
      once.service on m1: fewest units (0) of the machines that may run it [launched@m1]
    agents:
    plan:
    ");
}
