//! Nothing that the control plane suffers reaches the units.

use fleet_sandbox::wait_for;

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};

const UNITS: [&str; 4] = [
    "u@1.service",
    "u@2.service",
    "u@3.service",
    "everywhere.service",
];

fn loaded_cluster() -> Cluster {
    let cluster = Cluster::up(3);
    cluster.file("u@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/u@.service"]);
    cluster.ok(&["start", "u@1", "u@2", "u@3"]);
    cluster.start("everywhere.service", "Global=true");
    cluster
}

/// The cluster takes and runs a new unit, asked on any host.
fn goes_on(cluster: &Cluster, name: &str) {
    for host in 0..3 {
        let unit = format!("{name}-{host}.service");
        cluster
            .host(host)
            .write_file(format!("/units/{unit}"), sleeper(""))
            .unwrap();
        // The API answers 503 until its store is back.
        wait_for(&format!("host {host} to start {unit}"), FAILOVER, || {
            let out = cluster.fleetctl_on(host, &["start", &format!("/units/{unit}")]);
            if out.success() {
                Ok(())
            } else {
                Err(told(&out))
            }
        })
        .unwrap();
        cluster.place(&unit);
    }
}

#[test]
fn kill_9_of_every_fleetd_touches_no_unit() {
    let cluster = loaded_cluster();
    let before = cluster.invocations(&UNITS);
    for host in cluster.sandbox.hosts() {
        host.run(&[
            "systemctl",
            "kill",
            "--kill-whom=main",
            "-s",
            "KILL",
            "fleet.service",
        ])
        .unwrap();
    }
    cluster.wait_until_complete();
    goes_on(&cluster, "after-kill");
    assert_eq!(cluster.invocations(&UNITS), before);
}

#[test]
fn an_orderly_stop_and_start_of_every_fleetd_touches_no_unit() {
    /// Of one machine and the leader: longer than `lost_after`.
    const RENEWALS: f64 = 12.0;
    let cluster = loaded_cluster();
    let before = cluster.invocations(&UNITS);
    // The leader is the last: nobody who leads sees it leave.
    let leader = leader(&cluster);
    let stop = |host: usize| {
        let stop = ["systemctl", "stop", "fleet.service"];
        cluster.host(host).run(&stop).unwrap();
    };
    let followers: Vec<usize> = (0..3).filter(|host| *host != leader).collect();
    std::thread::scope(|scope| {
        for host in &followers {
            scope.spawn(|| stop(*host));
        }
    });
    stop(leader);
    // Whoever leads next finds nothing of them but what was written down when they left.
    wait_for("every lease to end", FAILOVER, || {
        let get = ["get", "--prefix", "/_coreos.com/fleet/machines/"];
        match cluster.sandbox.etcd(0).etcdctl(&get) {
            Ok(present) if present.is_empty() => Ok(()),
            present => Err(format!("{present:?}")),
        }
    })
    .unwrap();
    let first = followers[0];
    let start = ["systemctl", "start", "fleet.service"];
    cluster.host(first).run(&start).unwrap();
    wait_for("the others to be unsupervised", FAILOVER, || {
        let out = cluster.fleetctl_on(first, &["list-machines"]);
        let is_told = |host: &usize| {
            let id = cluster.host(*host).machine_id().unwrap();
            out.stderr.contains(&format!("{id} (unsupervised)"))
        };
        match [leader, followers[1]].iter().all(is_told) {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
    cluster.wait_for_renewals(RENEWALS);
    assert_eq!(cluster.invocations(&UNITS), before);
    for host in [leader, followers[1]] {
        cluster.host(host).run(&start).unwrap();
    }
    goes_on(&cluster, "after-stop");
    assert_eq!(cluster.invocations(&UNITS), before);
}

#[test]
fn a_restart_of_etcd_touches_no_unit() {
    let cluster = loaded_cluster();
    let before = cluster.invocations(&UNITS);
    let etcd = cluster.sandbox.etcd(0);
    etcd.kill().unwrap();
    wait_for("the API to say that its store is away", SOON, || {
        let out = cluster.fleetctl(&["list-units"]);
        if out.code == 1 && out.stderr.contains("unable to communicate with etcd") {
            Ok(())
        } else {
            Err(told(&out))
        }
    })
    .unwrap();
    assert_eq!(cluster.invocations(&UNITS), before);
    etcd.start().unwrap();
    goes_on(&cluster, "after-etcd");
    assert_eq!(cluster.invocations(&UNITS), before);
}

#[test]
fn another_machine_leads_when_the_leader_is_restarted_or_dies() {
    let cluster = loaded_cluster();
    let before = cluster.invocations(&UNITS);
    let leader = leader(&cluster);
    cluster
        .host(leader)
        .run(&["systemctl", "restart", "fleet.service"])
        .unwrap();
    goes_on(&cluster, "after-restart");
    assert_eq!(cluster.invocations(&UNITS), before);

    let leader = self::leader(&cluster);
    cluster
        .host(leader)
        .run(&[
            "systemctl",
            "kill",
            "--kill-whom=main",
            "-s",
            "KILL",
            "fleet.service",
        ])
        .unwrap();
    goes_on(&cluster, "after-leader-kill");
    assert_eq!(cluster.invocations(&UNITS), before);
}

/// The host whose fleetd leads.
fn leader(cluster: &Cluster) -> usize {
    let ids: Vec<String> = cluster
        .sandbox
        .hosts()
        .iter()
        .map(|host| host.machine_id().unwrap())
        .collect();
    wait_for("a leader", FAILOVER, || {
        let value = cluster
            .sandbox
            .etcd(0)
            .etcdctl(&["get", "--print-value-only", "/_coreos.com/fleet/leader"])
            .map_err(|err| err.to_string())?;
        ids.iter()
            .position(|id| value.contains(id.as_str()))
            .ok_or(value)
    })
    .unwrap()
}

#[test]
fn without_etcd_at_the_start_fleetd_waits_and_says_so() {
    let cluster = loaded_cluster();
    let before = cluster.invocations(&UNITS);
    let etcd = cluster.sandbox.etcd(0);
    etcd.kill().unwrap();
    let host = cluster.host(0);
    host.run(&["systemctl", "restart", "fleet.service"])
        .unwrap();
    let answer = host
        .run(&[
            "curl",
            "-s",
            "-w",
            " %{http_code}",
            "--unix-socket",
            "/run/fleet.sock",
            "http://fleet/fleet/v1/units",
        ])
        .unwrap();
    assert!(answer.ends_with(" 503"), "{answer}");
    assert!(
        answer.contains("\"message\":\"fleet server unable to communicate with etcd\""),
        "{answer}"
    );
    etcd.start().unwrap();
    goes_on(&cluster, "after-absence");
    assert_eq!(cluster.invocations(&UNITS), before);
}

#[test]
fn a_cut_cable_shorter_than_the_time_to_lost_moves_nothing() {
    let cluster = loaded_cluster();
    let before = cluster.invocations(&UNITS);
    let host = cluster.host(2);
    host.cut().unwrap();
    // The cut is real: the host cannot reach etcd any more.
    let url = cluster.sandbox.etcd(0).client_url().unwrap();
    let reached = host
        .exec(&["curl", "-s", "-m", "1", &format!("{url}/health")])
        .unwrap();
    assert!(!reached.success());
    host.heal().unwrap();
    goes_on(&cluster, "after-cut");
    assert_eq!(cluster.invocations(&UNITS), before);
}
