//! Members of etcd: each is a process of the computer with a network namespace and a cable of its
//! own, so that a host's power cut touches none, and each can be cut off from all others.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::At;
use crate::process::Process;
use crate::program::{ETCD, ETCDCTL, NSENTER, output_of, tail};
use crate::record::{Loss, MemberRecord, Record, claim_for_use, load, update};
use crate::{Error, Result, network, wait_for};

/// Of one HTTP request. A member that elects a leader answers within two seconds.
const REQUEST_BOUND: Duration = Duration::from_secs(5);
/// From start to health: an election, on a shared disk.
const START_BOUND: Duration = Duration::from_secs(30);
/// An orderly stop hands leadership over and syncs.
const STOP_BOUND: Duration = Duration::from_secs(30);
/// /metrics of etcd has about 100 kB.
const ANSWER_MAX: u64 = 8 << 20;
/// Of a log, what an error shows.
const SHOWN: usize = 3000;

/// A member of a sandbox's etcd.
#[derive(Clone, Debug)]
pub struct Member {
    sandbox: String,
    index: usize,
}

impl Member {
    pub(crate) fn new(sandbox: &str, index: usize) -> Member {
        Member {
            sandbox: sandbox.to_owned(),
            index,
        }
    }

    /// The member of this name in any sandbox; None: there is none.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn find(name: &str) -> Result<Option<Member>> {
        let found = crate::record::list()?.into_iter().find_map(|record| {
            let index = record.etcd.iter().position(|m| m.name == name)?;
            Some(Member::new(&record.name, index))
        });
        Ok(found)
    }

    /// What is recorded of it.
    ///
    /// # Errors
    /// When its sandbox is gone.
    pub fn record(&self) -> Result<MemberRecord> {
        let member = load(&self.sandbox)?.etcd.into_iter().nth(self.index);
        member.ok_or_else(|| {
            Error::Invalid(format!(
                "sandbox {} has no etcd member {}",
                self.sandbox, self.index
            ))
        })
    }

    /// Its client URL.
    ///
    /// # Errors
    /// When its sandbox is gone.
    pub fn client_url(&self) -> Result<String> {
        Ok(self.record()?.client_url())
    }

    /// Its process, while it runs.
    ///
    /// # Errors
    /// When its sandbox is gone.
    pub fn process(&self) -> Result<Option<Process>> {
        Ok(self.record()?.scope.processes().into_iter().next())
    }

    /// Starts it on the data that it had, and waits until it is healthy (which needs a majority).
    ///
    /// # Errors
    /// With the end of its log when it does not become healthy.
    pub fn start(&self) -> Result<()> {
        let claim = claim_for_use(&self.sandbox)?;
        let member = self.record()?;
        start(&claim.record, &member)?;
        await_health(&member)
    }

    /// Stops it in order (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn stop(&self) -> Result<()> {
        let member = self.record()?;
        member.scope.signal(Signal::TERM);
        wait_for(
            &format!("the end of {}", member.name),
            STOP_BOUND,
            || match member.scope.processes().len() {
                0 => Ok(()),
                n => Err(format!("{n} processes")),
            },
        )?;
        member.scope.kill()
    }

    /// Kills it (SIGKILL) and waits for its end. Its data stay.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn kill(&self) -> Result<()> {
        self.record()?.scope.kill()
    }

    /// Halts it (SIGSTOP): its connections stay open, nothing answers.
    ///
    /// # Errors
    /// When its sandbox is gone.
    pub fn freeze(&self) -> Result<()> {
        self.record()?.scope.signal(Signal::STOP);
        Ok(())
    }

    /// Lets it go on after `freeze`.
    ///
    /// # Errors
    /// When its sandbox is gone.
    pub fn thaw(&self) -> Result<()> {
        self.record()?.scope.signal(Signal::CONT);
        Ok(())
    }

    /// Takes its network cable out: hosts and other members do not reach it, nor does the computer.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn cut(&self) -> Result<()> {
        self.set_cable(true, None)
    }

    /// Has frames lost in its network cable, while its link stays up; see [`crate::Host::lose`].
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn lose(&self, loss: Loss) -> Result<()> {
        self.set_cable(false, Some(loss))
    }

    /// Puts its network cable back, and has it carry everything.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn heal(&self) -> Result<()> {
        self.set_cable(false, None)
    }

    fn set_cable(&self, cut: bool, loss: Option<Loss>) -> Result<()> {
        let _claim = claim_for_use(&self.sandbox)?;
        update(&self.sandbox, |record| {
            if let Some(member) = record.etcd.get_mut(self.index) {
                (member.cut, member.loss) = (cut, loss);
            }
        })?;
        network::set_cable(&self.record()?)
    }

    /// etcd's revision: grows by one with each transaction that writes.
    ///
    /// # Errors
    /// [`Error::Etcd`] when it does not answer.
    pub fn revision(&self) -> Result<u64> {
        let url = format!("{}/v3/maintenance/status", self.client_url()?);
        let status = self.post_json("/v3/maintenance/status", "{}")?;
        // The gateway writes 64-bit numbers as strings.
        let revision = status["header"]["revision"]
            .as_str()
            .and_then(|r| r.parse().ok());
        revision.ok_or_else(|| Error::Etcd {
            url,
            why: format!("no revision in {status}"),
        })
    }

    /// One number of its /metrics: the first line that starts with this name (and labels, if given).
    ///
    /// # Errors
    /// [`Error::Etcd`] when it does not answer or has no such metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let member = self.record()?;
        let text = request(&member, "GET", "/metrics", "")?;
        metric_in(&text, name).ok_or_else(|| Error::Etcd {
            url: format!("{}/metrics", member.client_url()),
            why: format!("there is no metric {name}"),
        })
    }

    /// Asks the JSON gateway (`/v3/kv/range`, …; keys and values in base64).
    ///
    /// # Errors
    /// [`Error::Etcd`] when it does not answer with JSON.
    pub fn post_json(&self, path: &str, body: &str) -> Result<serde_json::Value> {
        let member = self.record()?;
        let text = request(&member, "POST", path, body)?;
        serde_json::from_str(&text).map_err(|e| Error::Etcd {
            url: format!("{}{path}", member.client_url()),
            why: format!("{e}: {text}"),
        })
    }

    /// Runs etcdctl (v3) against this member; returns its standard output.
    ///
    /// # Errors
    /// [`Error::MissingProgram`]; [`Error::Command`].
    pub fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let mut command = ETCDCTL.command()?;
        command
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(self.client_url()?)
            .args(args);
        output_of(command, "")
    }
}

/// Starts a member; does not wait.
pub(crate) fn start(record: &Record, member: &MemberRecord) -> Result<()> {
    if !member.scope.processes().is_empty() {
        return Err(Error::Invalid(format!(
            "etcd member {} runs already",
            member.name
        )));
    }
    fs::create_dir_all(&member.data).at("make directory", &member.data)?;
    let (client, peer) = (member.client_url(), member.peer_url());
    let mut argv = vec![
        NSENTER.path()?.to_string_lossy().into_owned(),
        format!("--net={}", network::namespace(member).display()),
        "--".to_owned(),
        ETCD.path()?.to_string_lossy().into_owned(),
        format!("--data-dir={}", member.data.display()),
        "--logger=zap".to_owned(),
    ];
    argv.extend(membership(record, member));
    for (flag, value) in [
        ("listen-client-urls", &client),
        ("advertise-client-urls", &client),
        ("listen-peer-urls", &peer),
    ] {
        argv.push(format!("--{flag}={value}"));
    }
    member.scope.start(&argv, &[], &member.log)
}

/// Who a member is and who the others are, as flags that etcd and `etcdctl snapshot restore` share.
fn membership(record: &Record, member: &MemberRecord) -> [String; 4] {
    let peers: Vec<String> = record
        .etcd
        .iter()
        .map(|m| format!("{}={}", m.name, m.peer_url()))
        .collect();
    [
        format!("--name={}", member.name),
        format!("--initial-advertise-peer-urls={}", member.peer_url()),
        format!("--initial-cluster={}", peers.join(",")),
        format!("--initial-cluster-token={}", record.name),
    ]
}

/// Writes a snapshot of all keys and leases to a file, asked of the first member that answers.
pub(crate) fn save_snapshot(record: &Record, file: &Path) -> Result<()> {
    let mut last = Error::Invalid(format!("sandbox {} has no etcd", record.name));
    for member in &record.etcd {
        let mut command = ETCDCTL.command()?;
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", member.client_url()))
            .args(["--dial-timeout=2s", "snapshot", "save"])
            .arg(file);
        match output_of(command, "") {
            Ok(_) => return Ok(()),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Kills all members and starts them on the contents of a snapshot: what etcd has is that of
/// then, and its revision goes backwards. Members that were frozen or down run afterwards.
pub(crate) fn restore_snapshot(record: &Record, file: &Path) -> Result<()> {
    for member in &record.etcd {
        member.scope.kill()?;
    }
    for member in &record.etcd {
        remove_data(member)?;
        let mut command = ETCDCTL.command()?;
        command
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(file)
            .arg(format!("--data-dir={}", member.data.display()))
            .args(membership(record, member));
        output_of(command, "")?;
        start(record, member)?;
    }
    // One that is cut off cannot be asked.
    let asked = record
        .etcd
        .iter()
        .filter(|member| !member.cut && member.loss.is_none());
    asked.clone().try_for_each(await_health)
}

fn remove_data(member: &MemberRecord) -> Result<()> {
    match fs::remove_dir_all(&member.data) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at("remove", &member.data),
    }
}

/// Ends a member and removes its namespace and cable. Nothing to do is no error; its data stay.
pub(crate) fn remove(member: &MemberRecord) -> Result<()> {
    member.scope.kill()?;
    // One that an older build has made has none.
    if member.netns.is_empty() {
        return Ok(());
    }
    network::unplug(member)
}

/// Waits until a member serves, which needs a majority.
pub(crate) fn await_health(member: &MemberRecord) -> Result<()> {
    let healthy = wait_for(
        &format!("health of etcd member {}", member.name),
        START_BOUND,
        || match request(member, "GET", "/health", "") {
            Ok(text) if text.contains(r#""health":"true""#) => Ok(()),
            Ok(text) => Err(text),
            Err(e) => Err(e.to_string()),
        },
    );
    healthy.map_err(|e| {
        let log = fs::read(&member.log).unwrap_or_default();
        let log = tail(&String::from_utf8_lossy(&log), SHOWN);
        Error::Etcd {
            url: member.client_url(),
            why: format!("{e}; end of {}:\n{log}", member.log.display()),
        }
    })
}

/// One HTTP/1.0 request; returns the body of an answer with code 200 or 503 (/health has both).
fn request(member: &MemberRecord, method: &str, path: &str, body: &str) -> Result<String> {
    let url = format!("{}{path}", member.client_url());
    let failed = |why: String| Error::Etcd {
        url: url.clone(),
        why,
    };
    let io = |e: std::io::Error| failed(e.to_string());
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((member.address, 2379)), REQUEST_BOUND)
            .map_err(io)?;
    stream.set_read_timeout(Some(REQUEST_BOUND)).map_err(io)?;
    stream.set_write_timeout(Some(REQUEST_BOUND)).map_err(io)?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
        member.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).map_err(io)?;
    stream.write_all(body.as_bytes()).map_err(io)?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_MAX)
        .read_to_end(&mut answer)
        .map_err(io)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| failed(format!("an odd answer: {answer}")))?;
    match head.split_whitespace().nth(1) {
        Some("200" | "503") => Ok(body.to_owned()),
        _ => Err(failed(format!(
            "{} {body}",
            head.lines().next().unwrap_or_default()
        ))),
    }
}

fn metric_in(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text =
            "# HELP etcd_puts x\netcd_puts_total 7\netcd_puts 3\netcd_rpc{code=\"OK\"} 1.5e3\n";
        assert_eq!(metric_in(text, "etcd_puts"), Some(3.0));
        assert_eq!(metric_in(text, "etcd_rpc"), Some(1500.0));
        assert_eq!(metric_in(text, "etcd_rpc{code=\"OK\"}"), Some(1500.0));
        assert_eq!(metric_in(text, "etcd"), None);
    }
}
