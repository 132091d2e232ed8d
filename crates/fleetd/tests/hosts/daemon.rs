//! fleetd as a daemon: it is reconfigured, asked and stopped without touching what runs.

use std::time::Duration;

use fleet_sandbox::{Sandbox, wait_for};
use tokio::time::Instant;

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};
use crate::package;

const CONF: &str = "/etc/fleet/fleet.conf";

/// What an orderly stop may take: fleetd's own bound is 10 s.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// What fleetd on a host is configured with.
pub(crate) fn conf(cluster: &Cluster, host: usize) -> String {
    String::from_utf8(cluster.host(host).read_file(CONF).unwrap()).unwrap()
}

/// Has fleetd on a host read another configuration.
pub(crate) fn reload(cluster: &Cluster, host: usize, conf: &str) {
    cluster.host(host).write_file(CONF, conf).unwrap();
    cluster
        .host(host)
        .run(&["systemctl", "reload", "fleet.service"])
        .unwrap();
}

/// Waits until fleetd has logged this.
#[track_caller]
fn logged(cluster: &Cluster, host: usize, what: &str, priority: &str) -> String {
    wait_for(&format!("{what:?} in the journal"), SOON, || {
        let journal = cluster
            .host(host)
            .journal(&["-u", "fleet.service", "-o", "cat", "-p", priority])
            .map_err(|error| error.to_string())?;
        match journal.lines().rev().find(|line| line.contains(what)) {
            Some(line) => Ok(line.to_owned()),
            None => Err(journal.lines().rev().take(5).collect::<Vec<_>>().join("\n")),
        }
    })
    .unwrap()
}

#[track_caller]
fn show(cluster: &Cluster, host: usize, property: &str) -> String {
    let show = [
        "systemctl",
        "show",
        "--value",
        "-p",
        property,
        "fleet.service",
    ];
    cluster.host(host).run(&show).unwrap()
}

/// What fleetd holds in memory, by its own word.
fn dump(cluster: &Cluster, host: usize) -> serde_json::Value {
    let dumps = || {
        let journal = ["-u", "fleet.service", "-o", "cat"];
        let journal = cluster.host(host).journal(&journal).unwrap();
        let lines = journal
            .lines()
            .filter(|line| line.starts_with("{\"Agent\":"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = dumps().len();
    let kill = [
        "systemctl",
        "kill",
        "--kill-whom=main",
        "-s",
        "USR1",
        "fleet.service",
    ];
    cluster.host(host).run(&kill).unwrap();
    let line = wait_for("a dump in the journal", SOON, || {
        let dumps = dumps();
        match dumps.len() > before {
            true => Ok(dumps.last().unwrap().clone()),
            false => Err("none".to_owned()),
        }
    });
    serde_json::from_str(&line.unwrap()).unwrap()
}

#[track_caller]
fn metadata_becomes(cluster: &Cluster, seen_from: usize, host: usize, metadata: &str) {
    let id = cluster.host(host).machine_id().unwrap();
    wait_for(&format!("metadata {metadata}"), SOON, || {
        let out = cluster.fleetctl_on(seen_from, &["list-machines", "--no-legend"]);
        let row = out.stdout.lines().find(|row| row.starts_with(&id));
        match row.and_then(|row| row.split_whitespace().nth(2)) {
            Some(shown) if shown == metadata => Ok(()),
            _ => Err(told(&out)),
        }
    })
    .unwrap();
}

#[test]
fn a_reload_changes_what_can_change_and_touches_nothing_that_runs() {
    let cluster = Cluster::up(2);
    cluster.start("a.service", "");
    cluster.start("b.service", "");
    cluster.start("everywhere.service", "Global=true");
    let units = ["a.service", "b.service", "everywhere.service"];
    let before = cluster.invocations(&units);
    let pid = show(&cluster, 0, "MainPID");
    let socket = |cluster: &Cluster| {
        cluster
            .host(0)
            .run(&["stat", "-c", "%i", "/run/fleet.sock"])
    };
    let inode = socket(&cluster).unwrap();
    let first = dump(&cluster, 0);
    let epoch = &first["Presence"]["Epoch"];
    assert!(epoch.is_number(), "{first}");
    let original = conf(&cluster, 0);

    // A request that takes as long as its unit starts is under way all the time.
    let slow = sleeper("").replace("ExecStart=", "ExecStartPre=/bin/sleep 6\nExecStart=");
    let slow = cluster.file("slow.service", &slow);
    let mut request = cluster
        .host(0)
        .command(&["fleetctl", "start", &slow])
        .unwrap();
    let request = request
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the slow unit to be starting", SOON, || {
        let running = cluster.running("slow.service");
        match running.first().map(|unit| unit.active.as_str()) {
            Some("activating") => Ok(()),
            _ => Err(format!("{running:?}")),
        }
    })
    .unwrap();

    let changed = "metadata=rack=7\nverbosity=1\nagent_ttl=10s\nunits_directory=/elsewhere\n";
    reload(&cluster, 0, &format!("{original}{changed}"));
    metadata_becomes(&cluster, 1, 0, "rack=7");
    let warning = logged(
        &cluster,
        0,
        "units_directory cannot change while fleetd runs",
        "warning",
    );
    assert!(warning.contains("systemctl restart fleet"), "{warning}");
    logged(&cluster, 0, "presence lives under a new lease", "info");
    // Debug lines, and none any more.
    reload(
        &cluster,
        0,
        &format!("{original}{changed}disable_engine=true\n"),
    );
    wait_for("the engine to be off", SOON, || {
        let role = dump(&cluster, 0)["Engine"]["Role"].clone();
        if role == "disabled" {
            Ok(())
        } else {
            Err(role.to_string())
        }
    })
    .unwrap();
    logged(
        &cluster,
        0,
        "Not starting engine; disable-engine is set",
        "info",
    );
    // The other one leads now, and places.
    cluster.start("c.service", "");

    // A broken file changes nothing.
    reload(&cluster, 0, "metadata=rack=8\nnonsense\n");
    logged(&cluster, 0, "the configuration was not taken", "err");
    logged(&cluster, 0, "iniparser: syntax error at ':2'.", "err");
    metadata_becomes(&cluster, 1, 0, "rack=7");
    // What is removed falls back to its default.
    reload(&cluster, 0, &original);
    metadata_becomes(&cluster, 1, 0, "-");

    let out = request.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.contains("slow.service"), "{out}");
    cluster.wait_for_place("slow.service", SOON);
    assert_eq!(cluster.invocations(&units), before);
    assert_eq!(show(&cluster, 0, "MainPID"), pid);
    assert_eq!(show(&cluster, 0, "ActiveState"), "active");
    assert_eq!(socket(&cluster).unwrap(), inode);
    let last = dump(&cluster, 0);
    assert_eq!(&last["Presence"]["Epoch"], epoch, "presence never blinked");
    assert_eq!(last["Config"]["agent_ttl"], "3s");
    assert_ne!(last["Engine"]["Role"], "disabled");
}

#[test]
fn the_lines_that_people_look_for_are_in_the_journal_with_their_fields() {
    let cluster = Cluster::up(2);
    for host in 0..2 {
        for line in [
            "Starting fleetd version v",
            "Using default config file /etc/fleet/fleet.conf",
            "Establishing etcd connectivity",
            "Starting server components",
        ] {
            logged(&cluster, host, line, "info");
        }
    }
    let leads = |host: usize| dump(&cluster, host)["Engine"]["Role"] == "leading";
    let (leader, other) = if leads(0) { (0, 1) } else { (1, 0) };
    logged(&cluster, leader, "Engine leadership acquired", "info");
    let id = cluster.host(leader).machine_id().unwrap();
    logged(&cluster, other, &format!("Engine leader is {id}"), "info");
    // Each field can be asked for.
    let field = format!("F_LEADER={id}");
    let lines = cluster.host(other).journal(&["-o", "cat", &field]).unwrap();
    assert!(lines.contains(&format!("Engine leader is {id}")), "{lines}");
    // What is decided and done names the unit in the line that journalctl shows, and why.
    cluster.file("s@.service", &sleeper(""));
    cluster.ok(&["start", "/units/s@1"]);
    let scheduled = logged(
        &cluster,
        leader,
        "Scheduled Unit(s@1.service) to Machine(",
        "info",
    );
    assert!(
        scheduled.contains(" order=launched reason=\"fewest units"),
        "{scheduled}"
    );
    let here = (0..2).find(|host| scheduled.contains(&cluster.host(*host).machine_id().unwrap()));
    let here = here.unwrap();
    for (task, reason) in [
        ("Load", "unit scheduled here but not loaded"),
        (
            "Start",
            "unit currently loaded but desired state is launched",
        ),
    ] {
        let line = format!("AgentReconciler task: type={task}Unit job=s@1.service");
        let line = logged(&cluster, here, &line, "info");
        assert!(line.ends_with(&format!("reason={reason:?}")), "{line}");
    }
    cluster.ok(&["destroy", "s@1"]);
    logged(
        &cluster,
        leader,
        "Unscheduled Job(s@1.service) from Machine(",
        "info",
    );
    // The next leader says whose place it took.
    let stop = ["systemctl", "stop", "fleet.service"];
    cluster.host(leader).run(&stop).unwrap();
    logged(&cluster, leader, "Gracefully shutting down", "info");
    logged(&cluster, other, "Engine leadership acquired", "info");
}

#[test]
fn sigusr1_prints_what_fleetd_holds_as_the_original_did() {
    let cluster = Cluster::up(1);
    cluster.file("s@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/s@.service"]);
    cluster.ok(&["start", "s@1"]);
    let dump = dump(&cluster, 0);
    let id = cluster.host(0).machine_id().unwrap();
    assert_eq!(
        dump["Agent"]["Cache"]["TargetStates"],
        serde_json::json!({"s@1.service": "launched"})
    );
    let state = &dump["UnitStatePublisher"]["Cache"]["s@1.service"];
    for (field, value) in [
        ("LoadState", "loaded"),
        ("ActiveState", "active"),
        ("SubState", "running"),
        ("MachineID", id.as_str()),
    ] {
        assert_eq!(state[field], value, "{dump}");
    }
    assert_eq!(state["UnitHash"].as_str().unwrap().len(), 40, "{dump}");
    assert_eq!(
        dump["UnitStatePublisher"]["ToPublish"],
        serde_json::json!({})
    );
    assert_eq!(
        dump["UnitStateGenerator"]["Subscribed"],
        serde_json::json!(["s@1.service"])
    );
    assert_eq!(dump["Engine"]["Role"], "leading");
    assert_eq!(dump["Engine"]["Leader"], id.as_str());
    let store = dump["Store"]["Description"].as_str().unwrap();
    assert!(store.starts_with("etcd http://"), "{store}");
    assert_eq!(dump["Config"]["disable_safety_ticks"], "true");
}

#[test]
fn a_clone_of_a_machine_ends_with_an_error_and_the_first_is_not_disturbed() {
    let cluster = Cluster::up(2);
    let (first, second) = (cluster.host(0), cluster.host(1));
    let (id, own) = (first.machine_id().unwrap(), second.machine_id().unwrap());
    cluster.start("a.service", &format!("MachineID={id}"));
    let before = cluster.invocations(&["a.service"]);
    let pid = show(&cluster, 0, "MainPID");
    let epoch = dump(&cluster, 0)["Presence"]["Epoch"].clone();

    // Under a running fleetd the id is not taken, and that is said.
    second
        .write_file("/etc/machine-id", format!("{id}\n"))
        .unwrap();
    second
        .run(&["systemctl", "reload", "fleet.service"])
        .unwrap();
    logged(&cluster, 1, "the machine id has changed", "warning");
    cluster.wait_for_machines(0, 2);

    second.run(&["systemctl", "stop", "fleet.service"]).unwrap();
    second
        .run(&["systemctl", "start", "--no-block", "fleet.service"])
        .unwrap();
    let error = logged(
        &cluster,
        1,
        "another machine is registered with this machine's id",
        "err",
    );
    for address in [first.address().unwrap(), second.address().unwrap()] {
        assert!(error.contains(&address.to_string()), "{error}");
    }
    wait_for("fleetd to have ended with status 1", SOON, || {
        match show(&cluster, 1, "NRestarts").parse() {
            Ok(1..) => Ok(()),
            n => Err(format!("{n:?} restarts")),
        }
    })
    .unwrap();
    assert_eq!(show(&cluster, 0, "MainPID"), pid);
    assert_eq!(dump(&cluster, 0)["Presence"]["Epoch"], epoch);
    assert_eq!(cluster.invocations(&["a.service"]), before);
    cluster.start("b.service", &format!("MachineID={id}"));

    // The cure.
    second
        .write_file("/etc/machine-id", format!("{own}\n"))
        .unwrap();
    cluster.wait_for_machines(0, 2);
    assert_eq!(cluster.invocations(&["a.service"]), before);
}

#[test]
fn the_address_is_that_of_the_default_route_of_either_family() {
    let cluster = Cluster::up(1);
    let host = cluster.host(0);
    let address_becomes = |address: &str| {
        wait_for(&format!("address {address}"), SOON, || {
            let out = cluster.fleetctl(&["list-machines", "--no-legend"]);
            match out.stdout.split_whitespace().nth(1) {
                Some(shown) if shown == address => Ok(()),
                _ => Err(told(&out)),
            }
        })
        .unwrap();
    };
    let original = conf(&cluster, 0);
    let lines = original
        .lines()
        .filter(|line| !line.starts_with("public_ip"));
    let detecting: String = lines.map(|line| format!("{line}\n")).collect();
    reload(&cluster, 0, &format!("{original}public_ip=192.0.2.77\n"));
    address_becomes("192.0.2.77");
    reload(&cluster, 0, &detecting);
    address_becomes(&host.address().unwrap().to_string());

    // A machine that is reached by IPv6 only.
    let route = host
        .run(&["ip", "-o", "-4", "route", "show", "default"])
        .unwrap();
    let device = route
        .split_whitespace()
        .skip_while(|word| *word != "dev")
        .nth(1)
        .unwrap();
    for command in [
        format!("ip -6 address add fd5e::7/64 dev {device} nodad"),
        format!("ip -6 route add default via fd5e::1 dev {device}"),
        "ip -4 route del default".to_owned(),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        host.run(&words).unwrap();
    }
    reload(&cluster, 0, &detecting);
    address_becomes("fd5e::7");
}

#[test]
fn an_orderly_stop_ends_in_time_while_etcd_hangs_and_units_stay() {
    let cluster = Cluster::up(1);
    cluster.start("a.service", "");
    let before = cluster.invocations(&["a.service"]);
    cluster.sandbox.etcd(0).freeze().unwrap();
    // It is reconfigured and asked all the same.
    let original = conf(&cluster, 0);
    reload(&cluster, 0, &format!("{original}verbosity=1\n"));
    logged(&cluster, 0, "verbosity has changed", "info");
    assert_eq!(dump(&cluster, 0)["Config"]["verbosity"], "1");
    let stop = ["systemctl", "stop", "fleet.service"];
    let out = cluster.host(0).exec_with(&stop, None, STOP_WITHIN).unwrap();
    assert!(out.success(), "{}", told(&out));
    assert_eq!(show(&cluster, 0, "Result"), "success");
    assert_eq!(show(&cluster, 0, "ExecMainStatus"), "0");
    assert_eq!(cluster.invocations(&["a.service"]), before);
    cluster.sandbox.etcd(0).thaw().unwrap();
    cluster
        .host(0)
        .run(&["systemctl", "start", "fleet.service"])
        .unwrap();
    cluster.wait_for_machines(0, 1);
    assert_eq!(cluster.invocations(&["a.service"]), before);
}

#[test]
fn a_crash_is_no_absence_and_a_broken_configuration_is_tried_again_without_haste() {
    // Time enough for a computer that others share; that the shipped times fit is another test.
    let cluster = Cluster::with(Sandbox::builder().hosts(2).fleet_conf("agent_ttl=10s"));
    cluster.start("everywhere.service", "Global=true");
    let before = cluster.invocations(&["everywhere.service"]);
    let (epoch, pid) = (package::epoch(&cluster), show(&cluster, 0, "MainPID"));
    let kill = [
        "systemctl",
        "kill",
        "--kill-whom=main",
        "-s",
        "KILL",
        "fleet.service",
    ];
    cluster.host(0).run(&kill).unwrap();
    let comes_back = |what: &str| {
        wait_for(what, FAILOVER, || {
            let (now, state) = (
                show(&cluster, 0, "MainPID"),
                show(&cluster, 0, "ActiveState"),
            );
            let is_back = state == "active" && now != pid;
            is_back.then_some(()).ok_or(format!("{state} {now}"))
        })
        .unwrap();
    };
    comes_back("another fleetd");
    cluster.wait_until_complete();
    assert_eq!(
        package::epoch(&cluster),
        epoch,
        "presence ended for a moment"
    );

    let original = conf(&cluster, 0);
    cluster.host(0).write_file(CONF, "nonsense\n").unwrap();
    cluster.host(0).run(&kill).unwrap();
    let restarts = || show(&cluster, 0, "NRestarts").parse::<u32>().unwrap();
    let (first, begin) = (restarts(), Instant::now());
    wait_for("four more attempts", FAILOVER, || {
        let now = restarts();
        (now >= first + 4).then_some(()).ok_or(now.to_string())
    })
    .unwrap();
    // A fifth of a second each; the first may have begun before.
    assert!(begin.elapsed() >= Duration::from_millis(600));
    // Whoever mends the file needs to do no more.
    cluster.host(0).write_file(CONF, &original).unwrap();
    comes_back("fleetd with its configuration mended");
    assert_eq!(cluster.invocations(&["everywhere.service"]), before);
}
