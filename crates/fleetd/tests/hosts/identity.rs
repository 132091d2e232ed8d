//! Who belongs to the cluster: a CA, machines that join with tokens, TLS between all of them, and what
//! becomes of a machine that is revoked.

use fleet_pki::{Ca, Grant, KeyAndRequest, Subject};
use fleet_sandbox::{Sandbox, wait_for};

use crate::cluster::{Cluster, SOON, sleeper, told};

const PORT: u16 = 49_153;
const PKI: &str = "/etc/fleet/pki";

fn url(cluster: &Cluster, host: usize) -> String {
    format!("https://{}:{PORT}", cluster.host(host).address().unwrap())
}

fn reload(cluster: &Cluster, host: usize) {
    let reload = ["systemctl", "reload", "fleet.service"];
    cluster.host(host).run(&reload).unwrap();
}

/// Waits until a host with a user's certificate sees all machines over TLS through another one.
fn wait_for_tls(cluster: &Cluster, from: usize, to: usize) {
    let endpoint = format!("--endpoint={}", url(cluster, to));
    wait_for(&format!("TLS from host {from} to {to}"), SOON, || {
        let out = cluster.fleetctl_on(from, &[&endpoint, "list-machines", "--no-legend"]);
        match out.success() && out.stdout.lines().count() == 3 {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
}

/// What the first host's fleetd hears from the unit's machine of it.
fn status(cluster: &Cluster, unit: &str) -> String {
    let path = format!("http://fleet/fleet/v2/units/{unit}/status");
    cluster
        .host(0)
        .run(&["curl", "-s", "--unix-socket", "/run/fleet.sock", &path])
        .unwrap()
}

fn read(cluster: &Cluster, host: usize, file: &str) -> String {
    let text = cluster.host(host).read_file(format!("{PKI}/{file}"));
    String::from_utf8(text.unwrap()).unwrap()
}

#[test]
fn one_command_makes_a_ca_two_let_a_machine_in_and_one_shuts_it_out() {
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(3)
            .listen(format!("0.0.0.0:{PORT}")),
    );
    let address = |host: usize| cluster.host(host).address().unwrap().to_string();
    let id = |host: usize| cluster.host(host).machine_id().unwrap();
    let home = format!("MachineID={}", id(2));
    cluster.start("far.service", &home);
    let before = cluster.invocations(&["far.service"]);

    // One command makes the CA; a second one changes nothing.
    let init = ["init", "--host", &address(0)];
    cluster.ok(&init);
    let again = cluster.fleetctl(&init);
    assert!(again.stderr.contains("Nothing to do"), "{}", told(&again));
    reload(&cluster, 0);
    wait_for_tls(&cluster, 0, 0);

    // Two let a machine in: what the first one prints is the second one.
    for host in 1..3 {
        let printed = cluster.ok(&["join-token"]);
        let command: Vec<&str> = printed.split_whitespace().collect();
        assert_eq!(
            command.last(),
            Some(&url(&cluster, 0).as_str()),
            "{printed}"
        );
        cluster.host(host).run(&command).unwrap();
        reload(&cluster, host);
        wait_for_tls(&cluster, 0, host);
        // Once.
        let replayed = cluster.host(3 - host).exec(&command).unwrap();
        let words = told(&replayed);
        assert!(
            !replayed.success() && words.contains("used already"),
            "{words}"
        );
        if host == 1 {
            // What is made before it is refused must not be in the way of the next one.
            cluster
                .host(2)
                .run(&["sh", "-c", &format!("! test -e {PKI}/machine.pem")])
                .unwrap();
        }
    }

    // Without a certificate nobody gets in, and in plaintext it is said how.
    let ca = format!("--ca-file={PKI}/ca.pem");
    let endpoint = format!("--endpoint={}", url(&cluster, 0));
    let out = cluster.fleetctl_on(1, &[&endpoint, &ca, "list-machines"]);
    assert!(
        out.stderr.contains("wants a certificate of ours"),
        "{}",
        told(&out)
    );
    let plain = format!("http://{}:{PORT}/fleet/v1/machines", address(1));
    let refused = cluster.host(0).run(&["curl", "-s", &plain]).unwrap();
    assert!(
        refused.contains("\"code\":403") && refused.contains("use https://"),
        "{refused}"
    );

    // fleetds ask each other over TLS.
    let told_there = status(&cluster, "far.service");
    assert!(told_there.contains("\"systemd\":{"), "{told_there}");

    // A certificate past half of its life is renewed at once, through a machine with the CA's key.
    let authority = Ca::open(&read(&cluster, 0, "ca.pem"), &read(&cluster, 0, "ca.key")).unwrap();
    let subject = Subject::Machine(id(1));
    let key = KeyAndRequest::again(&read(&cluster, 1, "machine.key"), &subject).unwrap();
    let hour_ms = 3_600_000;
    let grant = Grant {
        subject,
        role: None,
        names: vec![address(1)],
        lifetime_ms: hour_ms,
    };
    let now = cluster.host(1).run(&["date", "+%s"]).unwrap();
    let now_ms: u64 = now.trim().parse::<u64>().unwrap() * 1_000;
    let old = authority.sign(&key.request_pem, &grant, now_ms - hour_ms / 2 - 60_000);
    let old = old.unwrap();
    let host = cluster.host(1);
    host.write_file(format!("{PKI}/machine.pem"), &old).unwrap();
    reload(&cluster, 1);
    wait_for("another certificate", SOON, || {
        match read(&cluster, 1, "machine.pem") {
            pem if pem == old => Err("it is still the old one"),
            _ => Ok(()),
        }
    })
    .unwrap();
    wait_for_tls(&cluster, 0, 1);

    // Files that cannot be used keep a fleetd from TLS and from nothing else.
    let good = read(&cluster, 1, "machine.pem");
    host.write_file(format!("{PKI}/machine.pem"), "half")
        .unwrap();
    host.run(&["systemctl", "restart", "fleet.service"])
        .unwrap();
    cluster.wait_for_machines(1, 3);
    host.write_file(format!("{PKI}/machine.pem"), &good)
        .unwrap();
    reload(&cluster, 1);
    wait_for_tls(&cluster, 0, 1);

    // Who is revoked is out everywhere; what runs there runs on.
    let machine = format!("machine:{}", id(2));
    cluster.ok(&["revoke", &machine, "--why=lost"]);
    wait_for("the revocation", SOON, || {
        let told_there = status(&cluster, "far.service");
        match told_there.contains("was revoked") {
            true => Ok(()),
            false => Err(told_there),
        }
    })
    .unwrap();
    let listed = cluster.ok(&["revoke", "--list"]);
    assert!(
        listed.contains(&machine) && listed.contains("lost"),
        "{listed}"
    );
    assert_eq!(cluster.invocations(&["far.service"]), before);
    let path = cluster.file("more.service", &sleeper(&home));
    cluster.ok(&["start", &path]);
}
