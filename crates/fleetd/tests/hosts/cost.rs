//! The cost of starting one unit, counted: one agent woken, and a number of store writes that
//! does not depend on the cluster's size.

use fleet_sandbox::wait_for;

use crate::cluster::{Cluster, SOON, sleeper};

/// Counted over one start.
#[derive(PartialEq, Eq, Debug)]
struct Cost {
    /// Revisions of the store.
    revisions: u64,
    /// Wake-ups of each agent, most first, zeros left out.
    wakes: Vec<u64>,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters"
)]
fn wakes(cluster: &Cluster) -> Vec<u64> {
    (0..cluster.sandbox.hosts().len())
        .map(|host| cluster.metric(host, "fleet_agent_wakes_total") as u64)
        .collect()
}

/// Waits until the store's revision stands still: nothing of before is under way.
fn settled(cluster: &Cluster) -> u64 {
    let etcd = cluster.sandbox.etcd(0);
    let mut last = (0, 0);
    wait_for("the store to be idle", SOON, || {
        let revision = etcd.revision().map_err(|err| err.to_string())?;
        last = if last.0 == revision {
            (revision, last.1 + 1)
        } else {
            (revision, 0)
        };
        // Looks are 10 ms apart: idle for half a second.
        if last.1 >= 50 {
            Ok(revision)
        } else {
            Err(format!("revision {revision}"))
        }
    })
    .unwrap()
}

fn cost_of_one_start(n_hosts: usize) -> Cost {
    let cluster = Cluster::up(n_hosts);
    // The first start pays for what is made once; the second one is counted.
    cluster.start("first.service", "");
    let path = cluster.file("second.service", &sleeper(""));
    let revision = settled(&cluster);
    let wakes_before = wakes(&cluster);
    cluster.ok(&["start", &path]);
    cluster.place("second.service");
    let revisions = settled(&cluster) - revision;
    let mut woken: Vec<u64> = wakes(&cluster)
        .iter()
        .zip(&wakes_before)
        .map(|(after, before)| after - before)
        .collect();
    woken.retain(|wakes| *wakes > 0);
    woken.sort_unstable_by(|a, b| b.cmp(a));
    Cost {
        revisions,
        wakes: woken,
    }
}

#[test]
fn one_start_wakes_one_agent_and_costs_the_same_writes_on_3_and_on_20_machines() {
    let small = cost_of_one_start(3);
    let large = cost_of_one_start(20);
    assert_eq!(small.wakes.len(), 1, "one agent is woken: {small:?}");
    assert_eq!(large.wakes.len(), 1, "one agent is woken: {large:?}");
    assert_eq!(
        small.revisions, 3,
        "wish, placement with assignment, state: {small:?}"
    );
    assert_eq!(small.revisions, large.revisions);
}
