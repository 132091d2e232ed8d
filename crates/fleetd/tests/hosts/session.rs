//! The session of the README, as a user has it.

use fleet_sandbox::Sandbox;

use crate::cluster::Cluster;

const IDS: [&str; 3] = [
    "148a18ff6e954cd892dac9de9bb90d5a",
    "491586a6508f4583a71dbfc4d146e996",
    "c9de9451e6b74b1fb4c5a8b4b0f8a3b1",
];

#[test]
fn submit_start_and_list_look_as_promised() {
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(3)
            .machine_id(0, IDS[0])
            .machine_id(1, IDS[1])
            .machine_id(2, IDS[2])
            .metadata(0, "region=us-west")
            .metadata(1, "region=us-east")
            .metadata(2, "region=us-east"),
    );
    for example in ["hello", "ping", "pong"] {
        let path = format!(
            "{}/../../examples/{example}.service",
            env!("CARGO_MANIFEST_DIR")
        );
        cluster.file(
            &format!("{example}.service"),
            &std::fs::read_to_string(path).unwrap(),
        );
    }

    // Five blanks after the longest machine, three after the longest address.
    let addresses: Vec<String> = cluster
        .sandbox
        .hosts()
        .iter()
        .map(|host| host.address().unwrap().to_string())
        .collect();
    let width = addresses.iter().map(String::len).max().unwrap() + 3;
    let mut expected = format!("{:<37}{:<width$}METADATA\n", "MACHINE", "IP");
    for (idx, region) in ["us-west", "us-east", "us-east"].iter().enumerate() {
        expected.push_str(&format!(
            "{:<37}{:<width$}region={region}\n",
            IDS[idx], addresses[idx]
        ));
    }
    assert_eq!(cluster.ok(&["list-machines"]), expected);

    cluster.ok(&[
        "submit",
        "/units/hello.service",
        "/units/ping.service",
        "/units/pong.service",
    ]);
    cluster.ok(&["start", "hello.service"]);
    assert_eq!(
        cluster.ok(&["list-units"]),
        format!(
            "UNIT           LOAD    ACTIVE  SUB      DESC         MACHINE\n\
             hello.service  loaded  active  running  Hello World  {}\n\
             ping.service   -       -       -        -            -\n\
             pong.service   -       -       -        -            -\n",
            IDS[0]
        )
    );
    assert_eq!(cluster.place("hello.service"), 0);

    // pong follows ping.
    cluster.ok(&["start", "ping", "pong"]);
    assert_eq!(cluster.place("ping.service"), cluster.place("pong.service"));

    say_why(&cluster);
    is_well(&cluster);

    // And all of it goes away again.
    cluster.ok(&["destroy", "hello", "ping", "pong"]);
    for unit in ["hello.service", "ping.service", "pong.service"] {
        assert_eq!(cluster.running(unit), [], "{unit}");
    }
    assert_eq!(cluster.ok(&["list-units", "--no-legend"]), "");
}

/// And the whole is well.
fn is_well(cluster: &Cluster) {
    let said = cluster.ok(&["doctor"]);
    let begins = "All is well: 3 of 3 machines present, 3 of 3 launched units active, ";
    assert!(said.starts_with(begins), "{said}");
    assert!(said.ends_with(" leads.\n"), "{said}");
}

/// Each question has its answer with one command.
fn say_why(cluster: &Cluster) {
    let (ping, address) = (cluster.place("ping.service"), |at: usize| {
        cluster.sandbox.host(at).address().unwrap().to_string()
    });
    let at = format!("{}.../{}", &IDS[ping][..8], address(ping));
    let why = cluster.ok(&["why", "pong"]);
    for line in [
        format!("pong.service is active (running) on {at}\n"),
        "  wished    launched, since 20".to_owned(),
        ", by uid 0\n  placed    since 20".to_owned(),
        ": MachineOf ping.service\n".to_owned(),
        "  asked     3 machines: MachineOf ping.service is on another machine refused 2\n"
            .to_owned(),
        format!("  systemd   loaded, active (running) on {at}\n"),
    ] {
        assert!(why.contains(&line), "{line:?} is not in:\n{why}");
    }
    let why = cluster.ok(&["why", &IDS[ping][..8]]);
    for line in [
        format!("machine {} ({}) is present\n", IDS[ping], address(ping)),
        "  takes     new units\n".to_owned(),
        "pong.service (launched): MachineOf ping.service\n".to_owned(),
    ] {
        assert!(why.contains(&line), "{line:?} is not in:\n{why}");
    }
}
