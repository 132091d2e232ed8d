//! A real etcd for tests: on free ports of the loopback, in a directory of its own, and gone with
//! its value.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{EtcdConfig, EtcdStore, TlsFiles};
use crate::store::conformance::PATIENCE;
use crate::store::{Range, Store};

/// Another program may take a port between its choice and etcd's start.
const PORT_TRIES: usize = 5;

/// One running member.
pub(in crate::store) struct Server {
    dir: tempfile::TempDir,
    child: Option<Child>,
    client: u16,
    scheme: &'static str,
    arguments: Vec<String>,
}

impl Server {
    /// An etcd of one member, ready to be used.
    pub(in crate::store) async fn start() -> Server {
        Server::start_with(&[]).await
    }

    pub(in crate::store) async fn start_with(arguments: &[&str]) -> Server {
        for _ in 0..PORT_TRIES {
            let [client, peer] = free_ports();
            let peer = format!("http://127.0.0.1:{peer}");
            let mut all = vec![
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
            ];
            all.extend(arguments.iter().map(|&argument| argument.to_owned()));
            let mut server = Server::prepare(client, "http", all);
            server.run();
            if server.is_ready().await {
                return server;
            }
        }
        panic!("etcd does not start; is etcd-server installed?");
    }

    /// The members of a cluster.
    pub(in crate::store) async fn start_cluster<const N: usize>() -> [Server; N] {
        let peers: [[u16; 2]; N] = std::array::from_fn(|_| free_ports());
        let url = |n: usize| format!("http://127.0.0.1:{}", peers[n][1]);
        let cluster: Vec<_> = (0..N).map(|n| format!("m{n}={}", url(n))).collect();
        let cluster = cluster.join(",");
        let mut servers = std::array::from_fn(|n| {
            let arguments = vec![
                format!("--name=m{n}"),
                format!("--listen-peer-urls={}", url(n)),
                format!("--initial-advertise-peer-urls={}", url(n)),
                format!("--initial-cluster={cluster}"),
            ];
            Server::prepare(peers[n][0], "http", arguments)
        });
        servers.iter_mut().for_each(Server::run);
        for server in &mut servers {
            assert!(
                server.is_ready().await,
                "a member of the cluster does not start"
            );
        }
        servers
    }

    /// An etcd that speaks TLS to clients with a certificate; the files are in `dir`.
    pub(in crate::store) async fn start_tls(files: &Path) -> Server {
        let [client, peer] = free_ports();
        let peer = format!("http://127.0.0.1:{peer}");
        let file = |name: &str| files.join(name).display().to_string();
        let arguments = vec![
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            format!("--cert-file={}", file("server.pem")),
            format!("--key-file={}", file("server.key")),
            format!("--trusted-ca-file={}", file("ca.pem")),
            "--client-cert-auth".to_owned(),
        ];
        let mut server = Server::prepare(client, "https", arguments);
        server.run();
        server
    }

    pub(in crate::store) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client)
    }

    pub(in crate::store) fn config(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![self.url()],
            username: String::new(),
            password: String::new(),
            tls: TlsFiles::default(),
            prefix: "/_coreos.com/fleet/".to_owned(),
            // Generous: the computer is shared. Tests that wait for it set their own.
            request_timeout: Duration::from_secs(10),
        }
    }

    pub(in crate::store) fn store(&self, prefix: &str) -> Arc<EtcdStore> {
        EtcdStore::new(EtcdConfig {
            prefix: prefix.to_owned(),
            ..self.config()
        })
        .unwrap()
    }

    /// Kills it as a power cut would; what it has acknowledged stays in its directory.
    pub(in crate::store) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again after [`Server::kill`].
    pub(in crate::store) fn run(&mut self) {
        let url = self.url();
        let child = Command::new("etcd")
            .arg(format!(
                "--data-dir={}",
                self.dir.path().join("data").display()
            ))
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .args(&self.arguments)
            .args(["--logger=zap", "--log-level=error", "--unsafe-no-fsync"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Removes all its data, as if another etcd had been set up at its address.
    pub(in crate::store) fn forget(&self) {
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
    }

    /// Stops it from running without closing its connections, as a cable cut would; or goes on.
    pub(in crate::store) fn freeze(&self, frozen: bool) {
        let signal = if frozen {
            rustix::process::Signal::STOP
        } else {
            rustix::process::Signal::CONT
        };
        let child = self.child.as_ref().unwrap();
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).unwrap();
        if frozen {
            // The signal stops its threads one by one; this ends when the last one stands.
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED).unwrap();
        }
    }

    /// Waits until it answers; false when it has ended instead.
    async fn is_ready(&mut self) -> bool {
        let store = self.store("/");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = store
                .read(Range {
                    limit: Some(1),
                    ..Range::default()
                })
                .await;
            if answer.is_ok() {
                return true;
            }
            if self
                .child
                .as_mut()
                .is_some_and(|child| child.try_wait().unwrap().is_some())
            {
                return false;
            }
            assert!(Instant::now() < deadline, "etcd is not ready: {answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn prepare(client: u16, scheme: &'static str, arguments: Vec<String>) -> Server {
        Server {
            dir: tempfile::tempdir().unwrap(),
            child: None,
            client,
            scheme,
            arguments,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Two ports that nobody listens on.
pub(in crate::store) fn free_ports() -> [u16; 2] {
    let both = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    both.map(|listener| listener.local_addr().unwrap().port())
}
