//! `fleetctl status` and `fleetctl journal` over machines, without ssh.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use fleet_sandbox::{Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, told};

const PORT: u16 = 49_153;

/// Says a word, and another one whenever somebody writes one into a file.
const TALKER: &str = "[Service]\nExecStart=/bin/sh -c 'touch /run/words-%n; \
                      exec tail -n +1 -F /run/words-%n'\nTimeoutStopSec=2\n";

fn id(cluster: &Cluster, host: usize) -> String {
    cluster.host(host).machine_id().unwrap()
}

/// Has a unit say something where it is.
fn says(cluster: &Cluster, host: usize, unit: &str, word: &str) {
    let command = format!("echo {word} >> /run/words-{unit}");
    cluster.host(host).run(&["sh", "-c", &command]).unwrap();
}

/// How many journalctls a fleetd runs on a host.
fn n_journalctls(cluster: &Cluster, host: usize) -> String {
    let count = "cat /proc/[0-9]*/comm 2>/dev/null | grep -c '^journalctl$'";
    let out = cluster.host(host).exec(&["sh", "-c", count]).unwrap();
    out.stdout.trim().to_owned()
}

/// A journal that is followed, by fleetctl in the first host.
struct Followed {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Followed {
    fn begin(cluster: &Cluster, args: &[&str]) -> Followed {
        let argv: Vec<&str> = ["fleetctl", "journal", "-f"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        let mut command = cluster.host(0).command(&argv).unwrap();
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Followed {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line.
    #[track_caller]
    fn until(&mut self, word: &str) {
        while !self.seen.iter().any(|line| line.contains(word)) {
            match self.lines.recv_timeout(FAILOVER) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("{word}: {error}: {:?}", self.seen),
            }
        }
    }

    /// As Ctrl-C does.
    fn end(mut self, cluster: &Cluster) -> Vec<String> {
        let host = cluster.host(0);
        host.run(&["pkill", "-INT", "-x", "fleetctl"]).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.seen.extend(self.lines.iter());
        self.seen
    }
}

#[test]
fn status_and_journal_of_three_machines() {
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(3)
            .listen(PORT.to_string())
            .fleet_conf("api_insecure=true"),
    );
    for host in 0..3 {
        let unit = format!("talk@{host}.service");
        let text = format!("{TALKER}[X-Fleet]\nMachineID={}\n", id(&cluster, host));
        let path = cluster.file(&unit, &text);
        cluster.ok(&["start", &path]);
        says(&cluster, host, &unit, &format!("word-{host}"));
    }
    let everywhere = cluster.file("all.service", &format!("{TALKER}[X-Fleet]\nGlobal=true\n"));
    cluster.ok(&["start", &everywhere]);

    // Each machine's systemd is asked, by the first one's fleetd.
    for host in 0..3 {
        let unit = format!("talk@{host}.service");
        let word = format!("word-{host}");
        let shown = wait_for("the unit's words in its status", SOON, || {
            let out = cluster.fleetctl(&["status", &unit]);
            match out.success() && out.stdout.contains(&word) {
                true => Ok(out.stdout),
                false => Err(told(&out)),
            }
        });
        let shown = shown.unwrap();
        let pid = ["systemctl", "show", "--value", "-p", "MainPID", &unit];
        let pid = cluster.host(host).run(&pid).unwrap();
        for part in [
            format!("● {unit}"),
            "Active: active (running) since ".to_owned(),
            format!("Machine: {}...", &id(&cluster, host)[..8]),
            "Wish: launched since ".to_owned(),
            format!("Main PID: {} (tail)", pid.trim()),
            format!("CGroup: /system.slice/system-talk.slice/{unit}"),
        ] {
            assert!(shown.contains(&part), "{part}: {shown}");
        }
    }
    let shown = cluster.ok(&["status", "all"]);
    assert_eq!(shown.matches("● all.service").count(), 3, "{shown}");

    // Merged: words that are said one after the other stand in that order.
    let follow = &["-o", "cat", "-n", "100", "talk@*", "all"];
    let mut followed = Followed::begin(&cluster, follow);
    (0..3).for_each(|host| followed.until(&format!("word-{host}")));
    for (word, host) in [("first", 1), ("second", 2), ("third", 0)] {
        says(&cluster, host, "all.service", word);
        followed.until(word);
    }
    let lines = followed.end(&cluster);
    let at = |word: &str| lines.iter().position(|line| line == word);
    assert!(
        at("first") < at("second") && at("second") < at("third"),
        "{lines:?}"
    );
    for host in 0..3 {
        wait_for("the end of journalctl", SOON, || {
            match n_journalctls(&cluster, host) {
                none if none == "0" => Ok(()),
                some => Err(format!("{some} on host {host}")),
            }
        })
        .unwrap();
    }

    // A unit is followed when it moves, and read on by cursor afterwards.
    let roaming = cluster.file(
        "roam.service",
        &format!("{TALKER}[X-Fleet]\nMachineMetadata=x=y\n"),
    );
    for host in [1, 2] {
        cluster.patch(host, "x", "y");
    }
    cluster.ok(&["start", &roaming]);
    let from = cluster.place("roam.service");
    let to = 3 - from;
    says(&cluster, from, "roam.service", "before");
    let mut followed = Followed::begin(&cluster, &["-o", "cat", "roam"]);
    followed.until("before");
    cluster.ok(&["drain", "--no-block", &id(&cluster, from)[..8]]);
    assert_eq!(cluster.wait_for_place("roam.service", SOON), to);
    says(&cluster, to, "roam.service", "after");
    followed.until("after");
    followed.until("Stopped roam.service");
    let lines = followed.end(&cluster);
    assert_eq!(
        lines.iter().filter(|line| *line == "before").count(),
        1,
        "{lines:?}"
    );
    let shown = cluster.ok(&["journal", "-o", "cat", "-n", "1", "--show-cursor", "roam"]);
    let cursor = shown
        .lines()
        .find_map(|line| line.strip_prefix("-- cursor: "));
    let after = format!("--after-cursor={}", cursor.unwrap());
    says(&cluster, to, "roam.service", "later");
    let read = wait_for("what was said later", SOON, || {
        let out = cluster.fleetctl(&["journal", "-o", "cat", &after, "roam"]);
        match out.success() && !out.stdout.is_empty() {
            true => Ok(out.stdout),
            false => Err(told(&out)),
        }
    });
    assert_eq!(read.unwrap(), "later\n");
    // What it said where it was is still there.
    let there = id(&cluster, from);
    let json = cluster.ok(&["journal", "-o", "json", "-m", &there[..8], "roam"]);
    assert!(
        json.contains(&format!("\"FLEET_MACHINE_ID\":\"{there}\"")),
        "{json}"
    );
    assert!(json.contains("\"MESSAGE\":\"before\""), "{json}");

    // A machine without power is said at once, also before the cluster knows.
    cluster.host(to).kill().unwrap();
    let out = cluster.fleetctl(&["status", &format!("talk@{to}.service")]);
    let short = id(&cluster, to)[..8].to_owned();
    assert!(
        out.stderr.contains(&format!("machine {short}")),
        "{}",
        told(&out)
    );
    let out = wait_for("the loss to be told", FAILOVER, || {
        let out = cluster.fleetctl(&["status", &format!("talk@{to}.service")]);
        match out.code == 255 && out.stdout.contains(", lost since ") {
            true => Ok(out),
            false => Err(told(&out)),
        }
    });
    let out = out.unwrap();
    assert!(
        out.stdout.contains("when it was last reported"),
        "{}",
        told(&out)
    );
    let out = cluster.fleetctl(&["journal", "-o", "cat", "-n", "100", "all"]);
    assert_eq!(out.code, 1, "{}", told(&out));
    assert!(out.stdout.contains("third"), "{}", told(&out));
    assert!(
        out.stderr
            .contains(&format!("machine {short} is not present")),
        "{}",
        told(&out)
    );
}
