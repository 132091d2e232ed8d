//! Calls to the fleetds of other machines: to read what only they have, and nothing else.
//!
//! What the cluster decides goes through the store and never through here: a call that fails, or is
//! answered wrongly, misleads whoever looks, and moves no unit. Whoever is asked answers for himself and
//! asks nobody else ([`HOP_HEADER`]), so that no call goes in circles.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fleet_api::HOP_HEADER;
use fleet_api::client::{self, ByteStream, Client, Dial, Dialing, Endpoint, TcpEndpoint};
use fleet_core::records::{MachineId, MachineRecord};
use tokio::net::TcpStream;

use crate::access::BEHALF_HEADER;
use crate::listen::Listener;

/// A machine in the same cluster accepts a connection within milliseconds, or has gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Whoever is asked asks its systemd and its journal, each of which is given up earlier.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// Why another machine cannot be asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("machine {} is not present", .0.short())]
    Absent(MachineId),
    #[error("machine {} says nowhere that other machines reach its API", .0.short())]
    Unpublished(MachineId),
    #[error("machine {} at {at}: {why}", .machine.short())]
    Failed {
        machine: MachineId,
        at: String,
        why: String,
        hint: String,
        is_silent: bool,
    },
}

impl Error {
    /// Nothing came from the machine.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(
            self,
            Error::Absent(_)
                | Error::Failed {
                    is_silent: true,
                    ..
                }
        )
    }

    /// What can be done about it.
    pub(crate) fn hint(&self) -> String {
        match self {
            Error::Absent(machine) => format!(
                "fleetctl why {} says since when; its journal is kept there until it is back",
                machine.short()
            ),
            Error::Unpublished(machine) => format!(
                "have its fleetd serve machines: api_listen= in fleet.conf on {} (and TLS, or \
                 api_insecure=true on a network that is all yours)",
                machine.short()
            ),
            Error::Failed { hint, .. } => hint.clone(),
        }
    }
}

/// How bytes get to another machine's fleetd.
pub trait Way: Send + Sync + 'static {
    /// The way to this machine, which is to be found at that address.
    fn to(&self, machine: &MachineId, at: &TcpEndpoint) -> Arc<dyn Dial>;
}

/// TCP as it is: only fleetds with `api_insecure` answer to it.
#[derive(Debug)]
pub struct Plaintext;

impl Way for Plaintext {
    fn to(&self, _: &MachineId, at: &TcpEndpoint) -> Arc<dyn Dial> {
        Arc::new(PlainDial { at: at.clone() })
    }
}

struct PlainDial {
    at: TcpEndpoint,
}

impl Dial for PlainDial {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let stream = TcpStream::connect((self.at.host.as_str(), self.at.port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }

    fn describe(&self) -> String {
        format!("dial tcp {}", self.at.authority())
    }

    fn bound(&self) -> Duration {
        CONNECT_TIMEOUT
    }
}

/// The other machines, as this one asks them.
#[derive(Clone)]
pub(crate) struct Peers {
    machine: MachineId,
    way: Arc<dyn Way>,
}

/// One of them. Nothing has been asked yet.
pub(crate) struct Peer {
    pub(crate) client: Client,
    machine: MachineId,
    at: String,
}

impl Peers {
    /// As asked by this machine.
    pub(crate) fn new(machine: MachineId, way: Arc<dyn Way>) -> Peers {
        Peers { machine, way }
    }

    /// A client of a machine; `record` is its presence, `behalf` tells for whom it is asked
    /// ([`BEHALF_HEADER`]).
    pub(crate) fn peer(
        &self,
        machine: &MachineId,
        record: Option<&MachineRecord>,
        behalf: Option<&str>,
    ) -> Result<Peer, Error> {
        let record = record.ok_or_else(|| Error::Absent(machine.clone()))?;
        let at = endpoint(record).ok_or_else(|| Error::Unpublished(machine.clone()))?;
        let shown = at.authority();
        let way = self.way.to(machine, &at);
        let client = Client::with_dial(Endpoint::Tcp(at), way)
            .answer_timeout(ANSWER_TIMEOUT)
            .with_header(HOP_HEADER, self.machine.as_str());
        let client = match behalf {
            Some(behalf) => client.with_header(BEHALF_HEADER, behalf),
            None => client,
        };
        Ok(Peer {
            client,
            machine: machine.clone(),
            at: shown,
        })
    }
}

impl Peer {
    /// What a request to it came to.
    pub(crate) fn failed(&self, error: &client::Error) -> Error {
        let (why, hint) = match error {
            client::Error::Connect { source, .. } => (
                format!("no connection: {source}"),
                match source.kind() {
                    io::ErrorKind::ConnectionRefused => "does fleetd run there, and is that its api_listen?",
                    _ => "is there a route between the machines, and does a firewall let it through?",
                }
                .to_owned(),
            ),
            client::Error::Timeout { after, .. } => (
                format!("no answer within {} s", after.as_secs()),
                "it may be down or cut off; whether it is given up shows fleetctl list-machines --all".to_owned(),
            ),
            client::Error::Broken { reason, .. } => (
                format!("the connection broke: {reason}"),
                String::new(),
            ),
            client::Error::Answer { code, message, .. } if *code != 404 => {
                (format!("{code}: {message}"), String::new())
            }
            client::Error::NoV2 | client::Error::Answer { .. } => (
                "its fleetd does not know the question".to_owned(),
                "upgrade fleetd there".to_owned(),
            ),
            error => (error.to_string(), String::new()),
        };
        Error::Failed {
            machine: self.machine.clone(),
            at: self.at.clone(),
            why,
            hint,
            is_silent: matches!(error, client::Error::Timeout { .. }),
        }
    }
}

/// Where the machine's API is; None: it does not say.
pub(crate) fn endpoint(record: &MachineRecord) -> Option<TcpEndpoint> {
    let (host, port) = record.api.rsplit_once(':')?;
    let host = match host.trim_start_matches('[').trim_end_matches(']') {
        "" => record.public_ip.as_str(),
        host => host,
    };
    (!host.is_empty()).then_some(TcpEndpoint {
        host: host.to_owned(),
        port: port.parse().ok()?,
        base: String::new(),
        tls: false,
    })
}

/// What a machine says of where its API is: the first TCP socket that is not for this machine alone.
pub(crate) fn published(listeners: &[Listener]) -> String {
    let addresses = listeners.iter().filter_map(|listener| match listener {
        Listener::Tcp(listener) => listener.local_addr().ok(),
        Listener::Unix(_) => None,
    });
    let mut shown = addresses.filter_map(|address| published_as(&address));
    shown.next().unwrap_or_default()
}

fn published_as(address: &SocketAddr) -> Option<String> {
    let ip = address.ip().to_canonical();
    match ip {
        ip if ip.is_loopback() => None,
        ip if ip.is_unspecified() => Some(format!(":{}", address.port())),
        IpAddr::V4(ip) => Some(format!("{ip}:{}", address.port())),
        IpAddr::V6(ip) => Some(format!("[{ip}]:{}", address.port())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(api: &str, public_ip: &str) -> MachineRecord {
        MachineRecord {
            api: api.into(),
            public_ip: public_ip.into(),
            ..MachineRecord::default()
        }
    }

    #[test]
    fn a_machine_is_where_it_says_that_it_is() {
        let at = |api, ip| endpoint(&record(api, ip)).map(|at| at.authority());
        assert_eq!(at(":49153", "10.0.0.7").as_deref(), Some("10.0.0.7:49153"));
        assert_eq!(at(":49153", "fd00::7").as_deref(), Some("[fd00::7]:49153"));
        assert_eq!(at("10.1.0.7:1", "10.0.0.7").as_deref(), Some("10.1.0.7:1"));
        assert_eq!(
            at("[fd00::8]:1", "10.0.0.7").as_deref(),
            Some("[fd00::8]:1")
        );
        for (api, ip) in [
            ("", "10.0.0.7"),
            (":49153", ""),
            (":x", "10.0.0.7"),
            ("1", "10.0.0.7"),
        ] {
            assert_eq!(at(api, ip), None, "{api}");
        }
    }

    #[test]
    fn sockets_for_this_machine_alone_are_not_told_to_others() {
        let shown = |address: &str| published_as(&address.parse().unwrap());
        assert_eq!(shown("127.0.0.1:49153"), None);
        assert_eq!(shown("[::1]:49153"), None);
        assert_eq!(shown("[::ffff:127.0.0.1]:49153"), None);
        assert_eq!(shown("0.0.0.0:49153").as_deref(), Some(":49153"));
        assert_eq!(shown("[::]:49153").as_deref(), Some(":49153"));
        assert_eq!(shown("10.0.0.7:1").as_deref(), Some("10.0.0.7:1"));
        assert_eq!(shown("[fd00::7]:1").as_deref(), Some("[fd00::7]:1"));
    }

    #[tokio::test]
    async fn what_went_wrong_names_machine_address_cause_and_cure() {
        let peers = Peers::new(MachineId::new("m1"), Arc::new(Plaintext));
        let other = MachineId::new("63d22e369175433883a37d92cc53f36c");
        let error =
            |record: Option<&MachineRecord>| peers.peer(&other, record, None).err().unwrap();
        let absent = error(None);
        assert_eq!(absent.to_string(), "machine 63d22e36 is not present");
        assert!(absent.hint().contains("fleetctl why 63d22e36"));
        let silent = error(Some(&MachineRecord::default()));
        assert!(silent.to_string().contains("63d22e36"));
        assert!(silent.hint().contains("api_listen="), "{}", silent.hint());
        // Nobody listens on a port that was just given back.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap().to_string();
        drop(free);
        let peer = peers
            .peer(
                &other,
                Some(&record(&at, "")),
                Some("roles=admin; who=uid 0"),
            )
            .unwrap();
        let refused = peer
            .client
            .unit_on_machine(other.as_str(), "a.service", 1)
            .await;
        let refused = peer.failed(&refused.unwrap_err());
        let told = refused.to_string();
        assert!(
            told.starts_with(&format!("machine 63d22e36 at {at}: no connection: ")),
            "{told}"
        );
        assert!(
            refused.hint().contains("does fleetd run there"),
            "{}",
            refused.hint()
        );
    }
}
