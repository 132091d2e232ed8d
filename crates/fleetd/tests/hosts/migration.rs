//! Moving on from an original cluster on the same machines: a real etcd with its v2 API holds the
//! recorded registry, and what the original had started still runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use fleet_sandbox::{Host, Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, told};

/// The committed data set, which fleetctl's own tests use, too.
const RECORDED: &str = include_str!("../../../fleetctl/tests/data/original-registry.txt");

/// The machines in it that are present.
const MACHINES: [&str; 2] = [
    "63d22e369175433883a37d92cc53f36c",
    "6a97c281d654404fb1ef271dfcd36920",
];

const PREFIX: &str = "/_coreos.com/fleet";

/// What the original's agents have started, and on which machine.
const STARTED: [(&str, usize); 6] = [
    ("b@1.service", 1),
    ("custom.service", 0),
    ("enabled.service", 1),
    ("tick.timer", 0),
    ("g.service", 0),
    ("g.service", 1),
];

/// The etcd of the original cluster.
struct OldEtcd {
    address: String,
    process: Child,
    _data: tempfile::TempDir,
}

impl OldEtcd {
    /// At the port that etcd once had, where every host can reach it.
    fn up(sandbox: &Sandbox) -> OldEtcd {
        let gateway = sandbox.record().unwrap().subnet.gateway();
        let address = format!("{gateway}:4001");
        let data = tempfile::tempdir().unwrap();
        let url = format!("http://{address}");
        let process = Command::new("etcd")
            .arg("--enable-v2=true")
            .arg(format!("--data-dir={}", data.path().display()))
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg("--listen-peer-urls=http://127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = OldEtcd {
            address,
            process,
            _data: data,
        };
        wait_for("the old etcd", FAILOVER, || {
            match etcd.request("GET", "/health", "") {
                Ok(answer) if answer.contains("\"true\"") => Ok(()),
                Ok(answer) => Err(answer),
                Err(error) => Err(error.to_string()),
            }
        })
        .unwrap();
        etcd
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn load(&self, registry: &str) {
        for line in registry.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let path = format!("/v2/keys{PREFIX}/{}", encoded(key.trim_end_matches('/')));
            let body = match key.ends_with('/') {
                true => "dir=true".to_owned(),
                false => format!("value={}", encoded(value)),
            };
            let answer = self.request("PUT", &path, &body).unwrap();
            assert!(answer.starts_with("HTTP/1.1 201"), "{line}: {answer}");
        }
    }

    /// Grows by one with each write.
    fn index(&self) -> u64 {
        let answer = self.request("GET", "/v2/keys/", "").unwrap();
        let index = answer
            .lines()
            .find_map(|line| line.strip_prefix("X-Etcd-Index: "));
        index.unwrap().trim().parse().unwrap()
    }

    /// The whole answer.
    fn request(&self, method: &str, path: &str, form: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(SOON))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            form.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for OldEtcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Percent-encoded, slashes kept.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// The unit file of a unit of the data set.
fn contents(unit: &str) -> String {
    let value = |key: &str| -> serde_json::Value {
        let line = RECORDED
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} ")));
        serde_json::from_str(line.unwrap()).unwrap()
    };
    let object = value(&format!("job/{unit}/object"));
    let bytes = object["UnitHash"].as_array().unwrap().iter();
    let hash: String = bytes
        .map(|byte| format!("{:02x}", byte.as_u64().unwrap()))
        .collect();
    let file = value(&format!("unit/{hash}"));
    file["Raw"].as_str().unwrap().to_owned()
}

/// What an agent of the original leaves of a unit when it is killed: file, link, enablement.
fn leave_loaded(host: &Host, unit: &str) {
    let file = format!("/run/fleet/units/{unit}");
    host.write_file(&file, contents(unit)).unwrap();
    let link = format!("/run/systemd/system/{unit}");
    host.run(&["ln", "-s", &file, &link]).unwrap();
    if unit == "enabled.service" {
        let wants = "/run/systemd/system/multi-user.target.wants";
        host.run(&["mkdir", "-p", wants]).unwrap();
        host.run(&["ln", "-s", &file, &format!("{wants}/{unit}")])
            .unwrap();
    }
    host.run(&["systemctl", "daemon-reload"]).unwrap();
}

/// And the unit runs.
fn leave_running(host: &Host, unit: &str) {
    leave_loaded(host, unit);
    host.run(&["systemctl", "start", unit]).unwrap();
}

#[test]
fn a_cluster_moves_on_without_a_restart_of_what_runs() {
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(2)
            .machine_id(0, MACHINES[0])
            .machine_id(1, MACHINES[1]),
    );
    let old = OldEtcd::up(&cluster.sandbox);
    old.load(RECORDED);
    // Fleetds that start where the original was killed.
    for host in cluster.sandbox.hosts() {
        host.run(&["systemctl", "stop", "fleet.service"]).unwrap();
    }
    // The timer's service.
    leave_loaded(&cluster.host(0), "tick.service");
    for (unit, host) in STARTED {
        leave_running(&cluster.host(host), unit);
    }
    leave_running(&cluster.host(1), "blanks.service");
    let units = STARTED.map(|(unit, _)| unit);
    let before = cluster.invocations(&units);
    let blanks = cluster.running("blanks.service");
    for host in cluster.sandbox.hosts() {
        host.run(&["systemctl", "start", "fleet.service"]).unwrap();
    }
    cluster.wait_until_complete();
    assert_eq!(
        cluster.invocations(&units),
        before,
        "nobody asked for anything"
    );

    let index = old.index();
    let url = format!("--etcd-v2={}", old.url());
    let dry_run = cluster.fleetctl(&["import", &url, "--dry-run"]);
    assert_eq!(dry_run.code, 1, "{}", told(&dry_run));
    for row in [
        "b@1.service      b506889  launched  6a97c281...  create  -",
        "torn.service     -        -         -            refuse  its unit file is missing",
        "63d22e369175433883a37d92cc53f36c  zone=z1         set         set     -",
    ] {
        assert!(dry_run.stdout.contains(row), "{row}: {}", told(&dry_run));
    }
    assert_eq!(cluster.ok(&["list-unit-files", "--no-legend"]), "");

    let import = cluster.fleetctl(&["import", &url]);
    assert_eq!(import.code, 1, "{}", told(&import));
    let sum = "Units: 14 imported, 0 here already, 7 refused. Metadata: 2 set.";
    assert!(import.stderr.contains(sum), "{}", told(&import));
    // All are where they were, and as they are wanted: waiting for them starts nothing anew.
    let rows = "legacy.service   0d930cb  loaded    loaded    63d22e369175433883a37d92cc53f36c";
    wait_for("all to be as they are wanted", FAILOVER, || {
        let files = cluster.ok(&["list-unit-files"]);
        let lines = files.lines().skip(1);
        let open: Vec<&str> = lines
            .filter(|line| {
                let cells: Vec<&str> = line.split_whitespace().collect();
                cells[3] != "-" && cells[2] != cells[3]
            })
            .collect();
        match open.is_empty() && files.contains(rows) {
            true => Ok(()),
            false => Err(files),
        }
    })
    .unwrap();
    assert_eq!(cluster.invocations(&units), before);
    // Its contents are read anew, so it is started anew, there.
    wait_for("blanks.service to be restarted", FAILOVER, || match cluster
        .running("blanks.service")
        .as_slice()
    {
        [one] if one.host == 1 && one.active == "active" && *one != blanks[0] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    // Again: nothing changes. And the old cluster was only read.
    let again = cluster.fleetctl(&["import", &url]);
    let sum = "Units: 0 imported, 14 here already, 7 refused.";
    assert!(again.stderr.contains(sum), "{}", told(&again));
    assert_eq!(cluster.invocations(&units), before);
    assert_eq!(old.index(), index);
    // They are fleet's now, as all others.
    cluster.ok(&["stop", "custom", "b@1"]);
    assert_eq!(cluster.running("custom.service"), []);
    cluster.ok(&["destroy", "enabled", "g"]);
    assert_eq!(cluster.running("g.service"), []);
    let left = [
        "sh",
        "-c",
        "find /run/systemd/system /run/fleet/units | grep enabled",
    ];
    assert_eq!(cluster.host(1).exec(&left).unwrap().stdout, "");
}
