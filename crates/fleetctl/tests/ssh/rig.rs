//! Two hosts with fleetd and sshd, and a user with keys in an agent.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleet_sandbox::{Host, Sandbox, built_beside, wait_for};

/// Bound of anything that should take well under a second, on a computer that others share.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// fleetd's API on the hosts' loopback.
pub(crate) const API_PORT: u16 = 49_153;

/// An sshd whose logins find no fleetctl.
pub(crate) const BARE_PORT: u16 = 2022;

const PATH: &str = "/opt/fleet/bin:/usr/local/bin:/usr/bin:/bin";

pub(crate) struct Rig {
    pub(crate) sandbox: Sandbox,
    pub(crate) home: tempfile::TempDir,
    agent: Child,
}

/// How fleetctl ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.out
    }
}

impl Rig {
    pub(crate) fn up() -> Rig {
        let sandbox = Sandbox::builder()
            .hosts(2)
            // What is said of both comes in this order.
            .machine_id(0, "63d22e369175433883a37d92cc53f36c")
            .machine_id(1, "6a97c281d654404fb1ef271dfcd36920")
            .bin_dir(binaries())
            .listen(format!("127.0.0.1:{API_PORT}"))
            .up()
            .unwrap();
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).display().to_string();
        shell(&format!(
            "ssh-keygen -q -t ed25519 -N '' -C fleet-test-key -f {}",
            path("key")
        ));
        let agent = Command::new("ssh-agent")
            .args(["-D", "-a", &path("agent")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let rig = Rig {
            sandbox,
            home,
            agent,
        };
        wait_for("the agent's socket", SOON, || {
            match rig.path("agent").exists() {
                true => Ok(()),
                false => Err("absent".to_owned()),
            }
        })
        .unwrap();
        shell(&format!(
            "SSH_AUTH_SOCK={} ssh-add -q {}",
            rig.path("agent").display(),
            rig.path("key").display()
        ));
        fs::write(rig.path("config"), "HashKnownHosts no\n").unwrap();
        let public = fs::read_to_string(rig.path("key.pub")).unwrap();
        for host in rig.sandbox.hosts() {
            start_sshd(&host, &public);
        }
        let all = "test $(fleetctl list-machines --no-legend | wc -l) = 2";
        rig.sandbox
            .wait_ready(SOON * 2, &["sh", "-c", all])
            .unwrap();
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn address(&self, host: usize) -> String {
        self.sandbox.host(host).address().unwrap().to_string()
    }

    pub(crate) fn id(&self, host: usize) -> String {
        self.sandbox.host(host).machine_id().unwrap()
    }

    /// fleetctl as the user runs it: through the first host, as root there.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetctl"));
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ssh");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.home.path())
            .env("SSH_AUTH_SOCK", self.path("agent"))
            .env("SSH_CONFIG", self.path("config"))
            .env("SSH_RUNS", self.path("runs"))
            .env("SSH_ASKPASS", format!("{here}/answer"))
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("SSH_QUESTIONS", self.path("questions"))
            .env("SSH_ANSWER", "no")
            .env("FLEETCTL_SSH", format!("{here}/counted-ssh"))
            .env("FLEETCTL_SSH_USERNAME", "root")
            .env("FLEETCTL_TUNNEL", self.address(0))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn fleetctl(&self, args: &[&str]) -> Ran {
        ran(&mut self.command(args))
    }

    /// What a person sees of a command: its name, stdout, `2> ` and stderr, and the status unless
    /// it is 0. Ids, addresses, moments and numbers of this run are replaced.
    pub(crate) fn seen(&self, args: &[&str]) -> String {
        let ran = self.fleetctl(args);
        let mut seen = format!("$ fleetctl {}\n{}", args.join(" "), ran.out);
        for line in ran.err.lines() {
            seen.push_str(&format!("2> {line}\n"));
        }
        if ran.status != 0 {
            seen.push_str(&format!("rc={}\n", ran.status));
        }
        for host in 0..2 {
            let n = host + 1;
            let id = self.id(host);
            seen = seen
                .replace(&id, &format!("ID{n}"))
                .replace(&id[..8], &format!("ID{n}"))
                .replace(&self.address(host), &format!("IP{n}"))
                .replace(&self.hostname(host), &format!("HOST{n}"));
        }
        plain(&seen)
    }

    fn hostname(&self, host: usize) -> String {
        let name = self.sandbox.host(host).run(&["uname", "-n"]).unwrap();
        name.trim().to_owned()
    }

    /// How often ssh was run since the last time.
    pub(crate) fn runs(&self) -> Vec<String> {
        let runs = fs::read_to_string(self.path("runs")).unwrap_or_default();
        let _ = fs::remove_file(self.path("runs"));
        runs.lines().map(str::to_owned).collect()
    }

    pub(crate) fn known_hosts(&self) -> String {
        fs::read_to_string(self.path(".fleetctl/known_hosts")).unwrap_or_default()
    }

    /// How often users have logged in at a host.
    pub(crate) fn logins(&self, host: usize) -> usize {
        let unit = ["--unit=sshd-test.service", "--output=cat"];
        let journal = self.sandbox.host(host).journal(&unit).unwrap();
        journal.matches("Accepted publickey").count()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// Only what is the same in every run: of systemctl's words the first ones, of the journal's lines
/// no time and no process.
fn plain(seen: &str) -> String {
    let mut plain = String::new();
    for line in seen.lines() {
        let trimmed = line.trim_start();
        let changes = [
            "Main PID:",
            "Tasks:",
            "Memory:",
            "CPU:",
            "CGroup:",
            "└─",
            "├─",
        ];
        let is_journal = trimmed.contains(" HOST1 ") || trimmed.contains(" HOST2 ");
        // Behind a tunnel two ssh say why one of them failed, in any order.
        let sshs = ["channel ", "Stdio ", "kex_", "Connection closed", "ssh: "];
        let is_sshs = trimmed
            .strip_prefix("2> ")
            .is_some_and(|line| sshs.iter().any(|start| line.starts_with(start)));
        if is_sshs || changes.iter().any(|start| trimmed.starts_with(start)) {
            continue;
        }
        let line = match (line.split_once(" since "), is_journal) {
            (Some((before, _)), _) => format!("{before} since WHEN"),
            (None, true) => {
                let after = line.split_once(" HOST").map_or("", |(_, after)| after);
                let (host, words) = after.split_once(' ').unwrap_or((after, ""));
                let (who, said) = words.split_once("]: ").unwrap_or(("", words));
                let who = who.split('[').next().unwrap_or_default();
                format!("WHEN HOST{host} {who}: {said}")
            }
            (None, false) => line.to_owned(),
        };
        plain.push_str(&line);
        plain.push('\n');
    }
    plain
}

#[track_caller]
pub(crate) fn assert_seen(seen: &[String], expected: &str) {
    let seen = seen.concat();
    let expected = expected.strip_prefix('\n').unwrap_or(expected);
    if seen != expected {
        panic!("expected:\n{expected}\nseen:\n{seen}\nas text: {seen:?}");
    }
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Makes a new host key and lets sshd have it.
pub(crate) fn new_host_key(host: &Host) {
    host.run(&[
        "sh",
        "-c",
        "rm -f /etc/sshd-key* && ssh-keygen -q -t ed25519 -N '' -f /etc/sshd-key \
         && systemctl restart sshd-test.service",
    ])
    .unwrap();
    wait_for_sshd(host);
}

fn start_sshd(host: &Host, public_key: &str) {
    let common = "HostKey /etc/sshd-key\nAuthorizedKeysFile /etc/sshd-authorized\n\
                  StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n\
                  KbdInteractiveAuthentication no\n";
    host.write_file("/etc/sshd-authorized", public_key).unwrap();
    for (name, port, more) in [
        ("sshd-test", 22, format!("SetEnv PATH={PATH}\n")),
        (
            "sshd-bare",
            BARE_PORT,
            "SetEnv PATH=/usr/bin:/bin\n".to_owned(),
        ),
    ] {
        let config = format!("Port {port}\n{common}{more}");
        host.write_file(format!("/etc/{name}.conf"), config)
            .unwrap();
        let unit = format!(
            "[Service]\nRuntimeDirectory=sshd\nRuntimeDirectoryPreserve=yes\nKillMode=process\n\
             ExecStart=/usr/sbin/sshd -D -e -f /etc/{name}.conf\n"
        );
        host.write_file(format!("/etc/systemd/system/{name}.service"), unit)
            .unwrap();
    }
    new_host_key(host);
    host.run(&["systemctl", "restart", "sshd-bare.service"])
        .unwrap();
    wait_for_sshd(host);
}

fn wait_for_sshd(host: &Host) {
    let listening = "ss -Hltn 'sport = :22' | grep -q .";
    host.wait_until(SOON, &["bash", "-c", listening]).unwrap();
}

fn shell(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// Release binaries, beside the test's own build, or where FLEET_BIN_DIR says.
fn binaries() -> PathBuf {
    match std::env::var_os("FLEET_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => built_beside(&std::env::current_exe().unwrap()).join("../release"),
    }
}
