//! Tunnels with an ssh that is a script; `tests/ssh` has them with a real one.

use std::sync::Arc;
use std::sync::Mutex as StdMutex;

use fleet_api::client::{Client, Error};

use super::*;

struct Heard(Arc<StdMutex<Vec<String>>>);

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn client(host: &str, is_shared: bool) -> (Client, Heard, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        program: concat!(env!("CARGO_MANIFEST_DIR"), "/src/ssh/tunnel/fake-ssh").into(),
        username: "core".into(),
        timeout: Duration::from_secs(1),
        strict_host_key_checking: true,
        known_hosts_file: dir.path().join("d/known_hosts"),
        tunnel: None,
        control_path: is_shared.then(|| dir.path().join("control")),
    };
    let heard = Arc::new(StdMutex::new(Vec::new()));
    let say: Say = Arc::new({
        let heard = Arc::clone(&heard);
        move |line: &str| heard.lock().unwrap().push(line.to_owned())
    });
    let endpoint = Endpoint::parse("unix:///var/run/fleet.sock").unwrap();
    let through = Destination::parse(host).unwrap();
    let tunnel = Tunnel::new(options, through, endpoint.clone(), say);
    let client = Client::with_dial(endpoint, Arc::new(tunnel));
    (client, Heard(heard), dir)
}

#[track_caller]
fn no_way(error: Error) -> String {
    match error {
        Error::NoWay(no_way) => format!("{}\nhint: {}", no_way.message, no_way.cures.join("\n")),
        other => panic!("{other:?}"),
    }
}

async fn failure(host: &str) -> (String, Vec<String>) {
    let (client, heard, _dir) = client(host, true);
    let error = client.states().await.unwrap_err();
    (no_way(error), heard.take())
}

#[tokio::test]
async fn a_host_that_cannot_be_reached() {
    let (error, heard) = failure("unreachable").await;
    assert_eq!(
        error,
        "Unable to initialize client: failed initializing SSH client: \
         ssh: connect to host unreachable port 22: No route to host\n\
         hint: is core@unreachable up, and is its sshd at this port (--tunnel=host:port)? \
         --ssh-timeout=SECONDS waits longer"
    );
    assert_eq!(heard, [""; 0], "the reason is said once");
}

#[tokio::test]
async fn what_ssh_says_before_the_reason_is_shown() {
    let (error, heard) = failure("locked").await;
    assert!(error.contains("core@locked: Permission denied (publickey)."));
    assert_eq!(heard, ["A banner."]);
}

#[tokio::test]
async fn a_far_side_without_fleetctl() {
    let (error, _) = failure("bare").await;
    assert!(error.contains("Process exited with status 127: bash: line 1: fleetctl: command not found\nhint: install fleetctl on core@bare"), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_is_closed_at_the_far_side() {
    let (error, _) = failure("closed").await;
    assert!(error.starts_with("the tunnel through core@closed reaches no fleetd: channel 0: open failed: connect failed: Connection refused\n"), "{error}");
}

#[tokio::test]
async fn no_ssh() {
    let say: Say = Arc::new(|_: &str| {});
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        program: "/nonexistent/ssh".into(),
        username: String::new(),
        timeout: Duration::ZERO,
        strict_host_key_checking: false,
        known_hosts_file: dir.path().join("k"),
        tunnel: None,
        control_path: None,
    };
    let endpoint = Endpoint::parse("unix:///var/run/fleet.sock").unwrap();
    let tunnel = Tunnel::new(options, Destination::host("h"), endpoint.clone(), say);
    let client = Client::with_dial(endpoint, Arc::new(tunnel));
    let error = no_way(client.states().await.unwrap_err());
    assert!(
        error.contains("failed to run /nonexistent/ssh: No such file"),
        "{error}"
    );
    assert!(error.contains("openssh-client"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_login_is_bounded() {
    // The pause ends with the bound, since nothing else is to come.
    let (error, _) = failure("silent").await;
    assert!(
        error.contains("timed out while initiating SSH connection"),
        "{error}"
    );
}

#[tokio::test]
async fn a_tunnel_that_breaks_says_why_and_may_be_tried_again() {
    let (client, _heard, _dir) = client("breaking", true);
    let error = client.states().await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("the tunnel through core@breaking broke: Process exited with status 255"),
        "{error}"
    );
}

#[tokio::test]
async fn requests_share_a_connection_and_guests_do_not_wait_to_be_told() {
    for is_shared in [true, false] {
        let (client, heard, dir) = client("good", is_shared);
        for _ in 0..3 {
            client.states().await.unwrap();
        }
        let mut said = Vec::new();
        let all_said = async {
            while said.is_empty() {
                said.extend(heard.take());
                tokio::task::yield_now().await;
            }
        };
        let all_said = timeout(Duration::from_secs(10), all_said).await;
        assert!(all_said.is_ok(), "ssh's words have not come");
        assert_eq!(said, ["Warning: a good one."], "one ssh, one login");
        let (a, b) = tokio::join!(client.states(), client.machines());
        a.unwrap();
        b.unwrap();
        assert!(dir.path().join("d").is_dir());
    }
}

#[test]
fn control_paths_are_short_and_never_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let known_hosts = Path::new("/home/me/.fleetctl/known_hosts");
    let first = control_path(Some(dir.path()), known_hosts).unwrap();
    assert_eq!(first.parent(), Some(dir.path()));
    assert_ne!(Some(first), control_path(Some(dir.path()), known_hosts));
    let beside = control_path(Some(Path::new("/nonexistent")), known_hosts).unwrap();
    assert_eq!(beside.parent(), Some(Path::new("/home/me/.fleetctl")));
    let long = format!("/{}/known_hosts", "a".repeat(100));
    assert_eq!(control_path(None, Path::new(&long)), None);
    assert_eq!(control_path(None, Path::new("known_hosts")), None);
}
