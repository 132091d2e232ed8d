//! An etcd of one's own, durable, on a free port of this computer.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fleetd::store::etcd::{EtcdConfig, EtcdStore, TlsFiles};
use fleetd::store::{Range, Store};
use tokio::time::Instant;

/// A million units with all their keys and etcd's copies of them need several GB.
const QUOTA_BYTES: u64 = 8 << 30;
/// How long an etcd may take to start.
const START: Duration = Duration::from_secs(20);
/// An etcd that millions of keys come down on answers late.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A store in the etcd at this URL.
pub(crate) fn store_at(url: &str) -> Result<Arc<EtcdStore>> {
    Ok(EtcdStore::new(EtcdConfig {
        endpoints: vec![url.to_owned()],
        username: String::new(),
        password: String::new(),
        tls: TlsFiles::default(),
        prefix: "/_coreos.com/fleet/".to_owned(),
        request_timeout: REQUEST_TIMEOUT,
    })?)
}

/// Waits for an etcd that has just been started, and makes sure that it is empty.
pub(crate) async fn wait_for(store: &EtcdStore) -> Result<()> {
    let deadline = Instant::now() + START;
    loop {
        let one = Range {
            limit: Some(1),
            ..Range::default()
        };
        match store.read(one).await {
            Ok(found) if found.entries.is_empty() => return Ok(()),
            Ok(_) => bail!("{} is not empty: name another one", store.describe()),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Lives as long as its value.
pub(crate) struct OwnEtcd {
    pub(crate) url: String,
    data: PathBuf,
    child: Child,
}

impl OwnEtcd {
    /// Starts it, with its data below the directory for temporary files.
    pub(crate) fn start() -> Result<OwnEtcd> {
        let ports = [
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        ];
        let [client, peer] = ports.map(|listener| listener.local_addr());
        let (url, peer) = (format!("http://{}", client?), format!("http://{}", peer?));
        let data = std::env::temp_dir().join(format!("fleet-own-etcd-{}", std::process::id()));
        let child = Command::new("etcd")
            .arg(format!("--data-dir={}", data.display()))
            .args([
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                format!("--quota-backend-bytes={QUOTA_BYTES}"),
            ])
            .args(["--logger=zap", "--log-level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("etcd cannot be started: install etcd-server")?;
        Ok(OwnEtcd { url, data, child })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What its database and its whole directory take on disk.
    pub(crate) fn disk_bytes(&self) -> Result<(u64, u64)> {
        let database = std::fs::metadata(self.data.join("member/snap/db"))?.len();
        Ok((database, directory_bytes(&self.data)?))
    }
}

impl Drop for OwnEtcd {
    fn drop(&mut self) {
        // Nothing can be done about a child or directory that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn directory_bytes(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += match metadata.is_dir() {
            true => directory_bytes(&entry.path())?,
            false => metadata.len(),
        };
    }
    Ok(bytes)
}

/// The memory of a process that is in use, in MiB.
pub(crate) fn resident_mb(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line
        .and_then(|rest| rest.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kilobytes.parse::<u64>()? >> 10)
}
