//! API v1 where it is served: several sockets of one fleet.socket, a fleetd that a request
//! starts, metadata set at run time, a store that is away, and the original's client.

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use fleet_sandbox::{Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON};
use crate::original::Fleetctl;

const PORT: u16 = 49_153;

/// More than a request of fleetd's to a store that does not answer may take, on a computer that
/// others share. The original waited up to 25 s.
const BOUNDED: Duration = Duration::from_secs(15);

/// Status, body and seconds of a request made on a host.
fn curl(cluster: &Cluster, host: usize, args: &[&str]) -> (u16, String, f64) {
    let mut argv = vec![
        "curl",
        "-s",
        "-m",
        "20",
        "-w",
        "\n%{http_code} %{time_total}",
    ];
    argv.extend(args);
    let out = cluster.host(host).exec(&argv).unwrap().stdout;
    let (body, numbers) = out.rsplit_once('\n').unwrap();
    let (status, seconds) = numbers.split_once(' ').unwrap();
    let (status, seconds) = (status.parse().unwrap(), seconds.parse().unwrap());
    (status, body.to_owned(), seconds)
}

/// The same over the unix socket.
fn api(cluster: &Cluster, host: usize, path: &str) -> (u16, String, f64) {
    let url = format!("http://fleet{path}");
    curl(cluster, host, &["--unix-socket", "/run/fleet.sock", &url])
}

fn address(cluster: &Cluster, host: usize) -> Ipv4Addr {
    cluster.host(host).address().unwrap()
}

fn restart_fleetd(cluster: &Cluster, host: usize) {
    let restart = ["systemctl", "restart", "fleet.service"];
    cluster.host(host).run(&restart).unwrap();
}

#[test]
fn every_socket_of_fleet_socket_is_served_and_starts_a_fleetd_that_is_stopped() {
    let everywhere = format!("0.0.0.0:{PORT}");
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(1)
            .etcd(0)
            .listen(&everywhere)
            .listen("127.0.0.1:49154"),
    );
    let host = cluster.host(0);
    let local = [
        format!("http://127.0.0.1:{PORT}/fleet/v1/machines"),
        "http://127.0.0.1:49154/v1-alpha/machines".to_owned(),
    ];
    let unix = api(&cluster, 0, "/fleet/v1/machines");
    assert_eq!(unix.0, 200, "{unix:?}");
    for url in &local {
        let (status, body, _) = curl(&cluster, 0, &[url]);
        assert_eq!((status, &body), (200, &unix.1), "{url}");
    }

    // Off loopback anybody would be root everywhere: refused, with the cure, and nothing read.
    let off = format!("http://{}:{PORT}/fleet/v1/machines", address(&cluster, 0));
    for args in [&[off.as_str()][..], &["-X", "PUT", "-d", "{}", &off]] {
        let (status, body, _) = curl(&cluster, 0, args);
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("api_insecure=true"), "{body}");
    }

    // Stopped: a connection to any of the sockets starts it, and the requests that come
    // meanwhile wait in the backlog. All are answered.
    for url in [
        "--unix-socket /run/fleet.sock http://fleet/fleet/v1/machines",
        &local[1],
    ] {
        host.run(&["systemctl", "stop", "fleet.service"]).unwrap();
        let out = host
            .run(&[
                "sh",
                "-c",
                &format!(
                    "for n in 1 2 3 4 5 6 7 8; do curl -s -m 20 -o /dev/null \
                     -w '%{{http_code}} ' {url} & done; wait"
                ),
            ])
            .unwrap();
        assert_eq!(out.trim(), "200 ".repeat(8).trim(), "{url}");
        host.run(&["systemctl", "is-active", "fleet.service"])
            .unwrap();
    }

    // Whoever wants it has it served to the network.
    host.run(&[
        "sh",
        "-c",
        "echo api_insecure=true >> /etc/fleet/fleet.conf",
    ])
    .unwrap();
    restart_fleetd(&cluster, 0);
    let (status, body, _) = curl(&cluster, 0, &[&off]);
    assert_eq!((status, &body), (200, &unix.1));
}

#[test]
fn the_originals_client_drives_a_real_cluster() {
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(3)
            .listen(PORT.to_string())
            .fleet_conf("api_insecure=true"),
    );
    let connect = |host| {
        let stream = TcpStream::connect((address(&cluster, host), PORT)).unwrap();
        Fleetctl::over(stream)
    };
    // Two machines serve the same cluster.
    let (mut one, mut two) = (connect(0), connect(1));
    let hello = &[("Service", "ExecStart", "/bin/sleep 3000")];
    let changed = &[("Service", "ExecStart", "/bin/sleep 4000")];
    one.list_machines();
    assert_eq!(one.printed().len(), 3);

    one.submit("a@1.service", hello, false);
    one.start("a@1.service");
    let home = cluster.place("a@1.service");
    let legend = format!(
        "{}.../{}",
        &cluster.host(home).machine_id().unwrap()[..8],
        address(&cluster, home)
    );
    let printed = one.printed();
    assert_eq!(
        printed,
        [
            "Unit a@1.service inactive".to_owned(),
            format!("Unit a@1.service launched on {legend}"),
        ]
    );
    two.list_units();
    let short = legend.split('/').next().unwrap();
    assert_eq!(
        two.printed(),
        [format!("a@1.service {short} loaded active running")]
    );

    // --replace: down first, then up with the new contents.
    two.submit("a@1.service", changed, true);
    assert_eq!(two.printed(), ["Unit a@1.service inactive"]);
    assert_eq!(cluster.running("a@1.service"), []);
    two.start("a@1.service");
    let home = cluster.place("a@1.service");
    let command = ["systemctl", "show", "-p", "ExecStart", "a@1.service"];
    let command = cluster.host(home).run(&command).unwrap();
    assert!(command.contains("sleep 4000"), "{command}");

    one.stop("a@1.service");
    assert_eq!(cluster.running("a@1.service"), []);
    one.load("a@1.service");
    two.printed();
    two.list_unit_files();
    let short = cluster.host(home).machine_id().unwrap()[..8].to_owned();
    assert_eq!(
        two.printed(),
        [format!("a@1.service loaded loaded {short}...")]
    );
    one.start("a@1.service");
    assert_eq!(cluster.place("a@1.service"), home);
    one.unload("a@1.service");
    assert_eq!(cluster.running("a@1.service"), []);
    one.destroy("a@1.service");
    one.destroy("a@1.service");
    assert_eq!(
        one.printed().last().unwrap(),
        "googleapi: Error 404: unit does not exist"
    );

    let global = &[hello[0], ("X-Fleet", "Global", "true")];
    one.submit("g.service", global, false);
    one.start("g.service");
    wait_for("the global unit on every host", SOON, || {
        let running = cluster.running("g.service");
        let n_active = running.iter().filter(|r| r.active == "active").count();
        (n_active == 3).then_some(()).ok_or(format!("{running:?}"))
    })
    .unwrap();
}

/// What `GET /machines` says of a machine's metadata, on a host.
fn metadata(cluster: &Cluster, host: usize, id: &str) -> String {
    let (status, body, _) = api(cluster, host, "/fleet/v1/machines");
    assert_eq!(status, 200, "{body}");
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    let machines = page["machines"].as_array().unwrap();
    let machine = machines.iter().find(|machine| machine["id"] == id);
    machine.map_or(String::new(), |machine| machine["metadata"].to_string())
}

fn patch(cluster: &Cluster, host: usize, ops: &str) -> u16 {
    let socket = ["--unix-socket", "/run/fleet.sock", "-X", "PATCH", "-d", ops];
    let args = [&socket[..], &["http://fleet/fleet/v1/machines"]].concat();
    curl(cluster, host, &args).0
}

#[test]
fn metadata_set_at_run_time_counts_at_once_and_outlives_everything() {
    let cluster = Cluster::with(Sandbox::builder().hosts(2).metadata(0, "rack=r1,region=eu"));
    let id = cluster.host(0).machine_id().unwrap();
    let op = |op: &str, path: &str, value: &str| {
        format!(r#"{{"op":"{op}","path":"/{id}/{path}","value":{value}}}"#)
    };
    let ops = [
        op("add", "metadata/zone", r#""z1""#),
        op("replace", "metadata/region", r#"{"value":"us"}"#),
        op("remove", "metadata/rack", "null"),
    ];
    assert_eq!(patch(&cluster, 0, &format!("[{}]", ops.join(","))), 204);
    // The override wins, an empty one hides; at once, and whoever is asked.
    let expected = r#"{"region":"us","zone":"z1"}"#;
    for host in [0, 1] {
        assert_eq!(metadata(&cluster, host, &id), expected);
    }
    for (unit, requirement) in [("z.service", "zone=z1"), ("r.service", "region=us")] {
        cluster.start(unit, &format!("MachineMetadata={requirement}"));
        assert_eq!(cluster.place(unit), 0, "{unit}");
    }

    let still_there = |what: &str| {
        wait_for(&format!("the metadata after {what}"), FAILOVER, || {
            let shown = metadata(&cluster, 1, &id);
            (shown == expected).then_some(()).ok_or(shown)
        })
        .unwrap();
    };
    restart_fleetd(&cluster, 0);
    still_there("a restart of fleetd");
    cluster.host(0).kill().unwrap();
    cluster.host(0).boot().unwrap();
    still_there("a power cut of the machine");
    cluster.sandbox.etcd(0).kill().unwrap();
    cluster.sandbox.etcd(0).start().unwrap();
    wait_for("the API to answer again", SOON, || {
        let (status, body, _) = api(&cluster, 1, "/fleet/v1/machines");
        (status == 200).then_some(()).ok_or(body)
    })
    .unwrap();
    still_there("a restart of etcd");

    // The machine's own values come back when the overrides are removed.
    let overrides = ["region", "rack"].map(|key| op("remove", &format!("overrides/{key}"), "null"));
    let zone = op("remove", "metadata/zone", "null");
    let ops = format!("[{},{zone}]", overrides.join(","));
    assert_eq!(patch(&cluster, 1, &ops), 204);
    assert_eq!(metadata(&cluster, 0, &id), r#"{"rack":"r1","region":"eu"}"#);
}

#[test]
fn without_etcd_every_request_is_answered_within_bounds_and_with_it_at_once() {
    let cluster = Cluster::up(1);
    let etcd = cluster.sandbox.etcd(0);
    let away = r#"{"error":{"code":503,"message":"fleet server unable to communicate with etcd"}}"#;
    let put = |path: &str| {
        let url = format!("http://fleet{path}");
        let args = ["--unix-socket", "/run/fleet.sock", "-X", "PUT"];
        let json = ["-H", "Content-Type: application/json"];
        let unit = r#"{"options":[{"section":"Service","name":"ExecStart","value":"/a"}]}"#;
        curl(
            &cluster,
            0,
            &[&args[..], &json, &["-d", unit, &url]].concat(),
        )
    };
    let check = |when: &str| {
        for path in [
            "/machines",
            "/units",
            "/units/a.service",
            "/state",
            "/state/a.service",
        ] {
            let (status, body, seconds) = api(&cluster, 0, &format!("/fleet/v1{path}"));
            assert_eq!((status, body.as_str()), (503, away), "{when}: {path}");
            assert!(
                seconds < BOUNDED.as_secs_f64(),
                "{when}: {path} took {seconds} s"
            );
        }
        for path in ["/metrics", "/fleet/v1/discovery"] {
            assert_eq!(api(&cluster, 0, path).0, 200, "{when}: {path}");
        }
    };
    let recovers = |when: &str| {
        wait_for(&format!("the API after {when}"), SOON, || {
            let (status, body, _) = api(&cluster, 0, "/fleet/v1/units");
            (status == 200).then_some(()).ok_or(body)
        })
        .unwrap();
    };
    etcd.freeze().unwrap();
    check("frozen");
    let (status, body, seconds) = put("/fleet/v1/units/a.service");
    assert_eq!((status, body.as_str()), (503, away));
    assert!(seconds < BOUNDED.as_secs_f64(), "{seconds}");
    etcd.thaw().unwrap();
    recovers("a freeze");
    etcd.kill().unwrap();
    check("dead");
    // A fleetd that has never been registered says the same.
    restart_fleetd(&cluster, 0);
    check("before registration");
    etcd.start().unwrap();
    recovers("a crash");
    assert_eq!(put("/fleet/v1/units/b.service").0, 201);
}
