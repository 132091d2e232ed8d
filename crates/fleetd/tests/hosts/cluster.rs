//! A cluster to test: a sandbox with fleet on its hosts, and what tests ask of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fleet_sandbox::{Builder, Host, Output, Sandbox, built_beside, wait_for};

/// Bound of anything that should take well under a second, on a computer that others share.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Bound of what waits for a lease to end.
pub(crate) const FAILOVER: Duration = Duration::from_secs(45);

pub(crate) struct Cluster {
    pub(crate) sandbox: Sandbox,
}

/// How a unit is, as the systemd of one host says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Running {
    pub(crate) host: usize,
    pub(crate) active: String,
    pub(crate) invocation: String,
}

/// Release binaries, beside the test's own build, or where FLEET_BIN_DIR says.
pub(crate) fn binaries() -> PathBuf {
    let directory = match std::env::var_os("FLEET_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => built_beside(&std::env::current_exe().unwrap()).join("../release"),
    };
    for name in ["fleetd", "fleetctl"] {
        assert!(
            directory.join(name).exists(),
            "{name} is not in {}: cargo build --release --bins",
            directory.display()
        );
    }
    directory
}

impl Cluster {
    /// Hosts in one cluster, each ready to take units.
    pub(crate) fn up(n_hosts: usize) -> Cluster {
        Cluster::with(Sandbox::builder().hosts(n_hosts))
    }

    /// A cluster of whatever the builder says.
    pub(crate) fn with(builder: Builder) -> Cluster {
        let sandbox = builder
            .bin_dir(binaries())
            .fleet_conf("disable_safety_ticks=true")
            .up()
            .unwrap();
        let cluster = Cluster { sandbox };
        cluster.wait_until_complete();
        cluster
    }

    /// Waits until every host sees every machine.
    pub(crate) fn wait_until_complete(&self) {
        let hosts = self.sandbox.hosts();
        for host in 0..hosts.len() {
            self.wait_for_machines(host, hosts.len());
        }
    }

    /// Waits until list-machines on a host has so many rows.
    pub(crate) fn wait_for_machines(&self, host: usize, n: usize) {
        wait_for(
            &format!("{n} machines seen from host {host}"),
            FAILOVER,
            || {
                let out = self.fleetctl_on(host, &["list-machines", "--no-legend"]);
                if out.success() && out.stdout.lines().count() == n {
                    Ok(())
                } else {
                    Err(told(&out))
                }
            },
        )
        .unwrap();
    }

    pub(crate) fn host(&self, idx: usize) -> Host {
        self.sandbox.host(idx)
    }

    /// fleetctl on the first host.
    pub(crate) fn fleetctl(&self, args: &[&str]) -> Output {
        self.fleetctl_on(0, args)
    }

    pub(crate) fn fleetctl_on(&self, host: usize, args: &[&str]) -> Output {
        let argv: Vec<&str> = std::iter::once("fleetctl")
            .chain(args.iter().copied())
            .collect();
        self.host(host).exec(&argv).unwrap()
    }

    /// fleetctl that must succeed; its stdout.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let out = self.fleetctl(args);
        assert!(out.success(), "fleetctl {args:?}: {}", told(&out));
        out.stdout
    }

    /// Puts a unit file where fleetctl on the first host finds it: `/units/<name>`.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = format!("/units/{name}");
        self.host(0).write_file(&path, text).unwrap();
        path
    }

    /// Writes a unit that sleeps, with lines of `[X-Fleet]`, and starts it.
    #[track_caller]
    pub(crate) fn start(&self, name: &str, x_fleet: &str) {
        let path = self.file(name, &sleeper(x_fleet));
        self.ok(&["start", &path]);
    }

    /// Where the unit is not inactive, by the word of each host's systemd. Hosts that are off
    /// run nothing.
    pub(crate) fn running(&self, unit: &str) -> Vec<Running> {
        let mut found = Vec::new();
        for (idx, host) in self.sandbox.hosts().iter().enumerate() {
            if !host.is_on().unwrap() {
                continue;
            }
            let out = host
                .exec(&[
                    "systemctl",
                    "show",
                    "--value",
                    "-p",
                    "ActiveState",
                    "-p",
                    "InvocationID",
                    unit,
                ])
                .unwrap();
            let mut lines = out.stdout.lines();
            // systemctl prints properties in an order of its own: tell them apart by their form.
            let mut running = Running {
                host: idx,
                active: String::new(),
                invocation: String::new(),
            };
            for line in &mut lines {
                if line.len() == 32 && line.bytes().all(|b| b.is_ascii_hexdigit()) {
                    running.invocation = line.to_owned();
                } else if !line.is_empty() {
                    running.active = line.to_owned();
                }
            }
            if running.active != "inactive" {
                found.push(running);
            }
        }
        found
    }

    /// systemd's ActiveState of a unit on one host.
    pub(crate) fn active_on(&self, host: usize, unit: &str) -> String {
        let argv = ["systemctl", "show", "--value", "-p", "ActiveState", unit];
        let out = self.host(host).exec(&argv).unwrap();
        out.stdout.trim().to_owned()
    }

    /// The one host where the unit is active; fails when it is none or several.
    #[track_caller]
    pub(crate) fn place(&self, unit: &str) -> usize {
        let running = self.running(unit);
        assert_eq!(running.len(), 1, "{unit} is to run once: {running:?}");
        assert_eq!(running[0].active, "active", "{unit}");
        running[0].host
    }

    /// Waits until the unit is active on exactly one host, and says which.
    #[track_caller]
    pub(crate) fn wait_for_place(&self, unit: &str, bound: Duration) -> usize {
        wait_for(&format!("{unit} to be active on one host"), bound, || {
            let running = self.running(unit);
            match running.as_slice() {
                [one] if one.active == "active" => Ok(one.host),
                _ => Err(format!("{running:?}")),
            }
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.story()))
    }

    /// The last that every fleetd said, and what the cluster thinks, for whoever reads a failure.
    fn story(&self) -> String {
        let mut story = self.ok(&["list-units"]);
        for host in self.sandbox.hosts() {
            let log = host.journal(&["-u", "fleet.service", "-o", "short-precise", "-n", "60"]);
            story.push_str(&format!("\n{}:\n{}", host.name(), log.unwrap_or_default()));
        }
        story
    }

    /// The invocations of all given units on all hosts: equal before and after means untouched.
    pub(crate) fn invocations(&self, units: &[&str]) -> BTreeMap<String, Vec<Running>> {
        units
            .iter()
            .map(|unit| ((*unit).to_owned(), self.running(unit)))
            .collect()
    }

    /// Sets metadata of a host at run time.
    pub(crate) fn patch(&self, host: usize, key: &str, value: &str) {
        let id = self.host(host).machine_id().unwrap();
        let body = format!(
            "[{{\"op\":\"add\",\"path\":\"/{id}/metadata/{key}\",\"value\":{{\"value\":\"{value}\"}}}}]"
        );
        self.curl(&["-sf", "-X", "PATCH", "-d", &body], "machines");
    }

    /// What API v1 on the first host answers.
    pub(crate) fn curl(&self, args: &[&str], path: &str) -> String {
        let url = format!("http://fleet/fleet/v1/{path}");
        let argv = [
            &["curl", "--unix-socket", "/run/fleet.sock"],
            args,
            &[url.as_str()],
        ]
        .concat();
        self.host(0).run(&argv).unwrap()
    }

    /// How many lines with all these words fleetd has logged on a host.
    #[track_caller]
    pub(crate) fn n_said(&self, host: usize, words: &[&str]) -> usize {
        let args = ["-u", "fleet.service", "-o", "cat"];
        let log = self.host(host).journal(&args).unwrap();
        let found = |line: &&str| words.iter().all(|word| line.contains(word));
        log.lines().filter(found).count()
    }

    /// Lets time pass, by a clock that only counts while machines are well: until so many leases have
    /// been renewed, of all that there are (each machine's twice a second, by default).
    #[track_caller]
    pub(crate) fn wait_for_renewals(&self, n: f64) {
        let etcd = self.sandbox.etcd(0);
        let renewed = || etcd.metric("etcd_debugging_lease_renewed_total").unwrap();
        let before = renewed();
        wait_for("leases to be renewed", FAILOVER, || {
            match renewed() - before {
                done if done >= n => Ok(()),
                done => Err(done),
            }
        })
        .unwrap();
    }

    /// A value of `/metrics` on a host.
    pub(crate) fn metric(&self, host: usize, name: &str) -> f64 {
        let out = self
            .host(host)
            .exec(&[
                "curl",
                "-s",
                "--unix-socket",
                "/run/fleet.sock",
                "http://fleet/metrics",
            ])
            .unwrap();
        let row = out
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        row.unwrap_or_else(|| panic!("no {name} in {}", told(&out)))
            .parse()
            .unwrap()
    }
}

/// A unit that runs until it is stopped.
pub(crate) fn sleeper(x_fleet: &str) -> String {
    let mut text =
        "[Unit]\nDescription=Sleeper\n\n[Service]\nExecStart=/bin/sleep infinity\n".to_owned();
    if !x_fleet.is_empty() {
        text.push_str("\n[X-Fleet]\n");
        text.push_str(x_fleet);
        text.push('\n');
    }
    text
}

/// What a command said, for failures.
pub(crate) fn told(out: &Output) -> String {
    format!(
        "rc={}\nstdout: {}\nstderr: {}",
        out.code, out.stdout, out.stderr
    )
}
