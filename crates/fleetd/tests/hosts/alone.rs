//! One machine with nothing else installed: the embedded store.

use fleet_sandbox::Sandbox;

use crate::cluster::{Cluster, FAILOVER, sleeper};

#[test]
fn units_states_and_assignments_persist_over_restarts_of_fleetd() {
    let cluster = Cluster::with(Sandbox::builder().hosts(1).etcd(0));
    cluster.start("a.service", "");
    cluster.file("b.service", &sleeper(""));
    cluster.ok(&["submit", "/units/b.service"]);
    let before = cluster.invocations(&["a.service"]);
    let listed = cluster.ok(&["list-units"]);

    let host = cluster.host(0);
    host.run(&["systemctl", "restart", "fleet.service"])
        .unwrap();
    cluster.wait_until_complete();
    assert_eq!(cluster.ok(&["list-units"]), listed);
    host.run(&[
        "systemctl",
        "kill",
        "--kill-whom=main",
        "-s",
        "KILL",
        "fleet.service",
    ])
    .unwrap();
    cluster.wait_until_complete();
    assert_eq!(cluster.ok(&["list-units"]), listed);
    assert_eq!(cluster.invocations(&["a.service"]), before);

    // After a power cut the machine starts what was wanted.
    host.kill().unwrap();
    host.boot().unwrap();
    cluster.wait_until_complete();
    cluster.wait_for_place("a.service", FAILOVER);
    assert_eq!(cluster.running("b.service"), []);
    cluster.ok(&["destroy", "a", "b"]);
    assert_eq!(cluster.running("a.service"), []);
}
