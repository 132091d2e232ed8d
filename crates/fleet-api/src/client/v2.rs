//! The methods of API v2. From an original fleetd each of them gets [`Error::NoV2`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::v1::found;
use super::{Call, Client, Error, MAX_ANSWER_BYTES, MAX_ITEMS, escape};
use crate::v2::{
    BASE, BatchAnswer, BatchRequest, CertificateAnswer, CertificateRequest, ClusterView, EventLine,
    EventListing, HEARTBEAT, JoinToken, JoinTokenRequest, MAX_BATCH, MAX_PAGE, MachineChange,
    MachineListing, MachineUnitListing, MachineView, Progress, RevocationListing, RevokeRequest,
    UnitChanges, UnitListing, UnitOnMachine, UnitStatus, UnitView, WaitRequest, Whoami,
};

/// A wait's answer that says nothing for so long (not even an empty line) is broken.
const SILENCE: Duration = Duration::from_secs(HEARTBEAT.as_secs() * 3);

/// Longest line of a wait's answer: a state with its log, escaped, is far shorter.
const MAX_LINE_BYTES: usize = 1 << 20;

impl Client {
    /// Submits wishes; more than [`MAX_BATCH`] are sent in several requests, one after the other.
    pub async fn batch(&self, request: &BatchRequest) -> Result<BatchAnswer, Error> {
        let path = format!("{BASE}/units");
        if request.units.len() <= MAX_BATCH {
            return self
                .json(Call::with_json(Method::POST, path, request))
                .await;
        }
        let mut answer = BatchAnswer::default();
        for (part_idx, units) in request.units.chunks(MAX_BATCH).enumerate() {
            let part = BatchRequest {
                request_id: format!("{}.{part_idx}", request.request_id),
                unknown_keys: request.unknown_keys.clone(),
                units: units.to_vec(),
            };
            let call = Call::with_json(Method::POST, path.clone(), &part);
            let part: BatchAnswer = self.json(call).await?;
            answer.units.extend(part.units);
        }
        Ok(answer)
    }

    /// Waits for units: lines as they come, until all are final. Dropping the stream ends the wait.
    pub async fn wait(&self, request: &WaitRequest) -> Result<WaitStream<'_>, Error> {
        let call = Call::with_json(Method::POST, format!("{BASE}/wait"), request);
        let answer = self.send(&call).await?;
        Ok(WaitStream {
            lines: Lines::new(self, call, answer.response.into_body()),
            connection: Some(answer.connection),
            n_open: request
                .units
                .iter()
                .map(|unit| &unit.name)
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
        })
    }

    /// All that is known of one unit; None if it does not exist.
    pub async fn unit_view(&self, name: &str) -> Result<Option<UnitView>, Error> {
        let path = format!("{BASE}/units/{}", escape(name));
        found(self.json(Call::get(path)).await)
    }

    /// A unit as its machines' systemds say at this moment; None if it does not exist.
    pub async fn unit_status(&self, name: &str, lines: usize) -> Result<Option<UnitStatus>, Error> {
        let path = format!("{BASE}/units/{}/status?lines={lines}", escape(name));
        found(self.json(Call::get(path)).await)
    }

    /// What a machine's systemd says of a unit at this moment.
    pub async fn unit_on_machine(
        &self,
        machine: &str,
        name: &str,
        lines: usize,
    ) -> Result<UnitOnMachine, Error> {
        let (machine, name) = (escape(machine), escape(name));
        let path = format!("{BASE}/machines/{machine}/units/{name}?lines={lines}");
        self.json(Call::get(path)).await
    }

    /// A page of units after a name, at the revision of the first page.
    pub async fn unit_page(
        &self,
        after: Option<&str>,
        revision: Option<u64>,
        limit: usize,
    ) -> Result<UnitListing, Error> {
        let mut path = format!("{BASE}/units?limit={limit}");
        if let Some(after) = after {
            path.push_str(&format!("&after={}", escape(after)));
        }
        if let Some(revision) = revision {
            path.push_str(&format!("&revision={revision}"));
        }
        self.json(Call::get(path)).await
    }

    /// All units, at one revision.
    pub async fn unit_views(&self) -> Result<Vec<UnitView>, Error> {
        let mut page = self.unit_page(None, None, MAX_PAGE).await?;
        let mut all = std::mem::take(&mut page.units);
        while page.more {
            let after = all.last().map(|unit| unit.name.clone());
            let next = self
                .unit_page(after.as_deref(), Some(page.revision), MAX_PAGE)
                .await?;
            let Some(first) = next.units.first() else {
                break;
            };
            // By name: a page that does not go on would be read until memory ends.
            if Some(&first.name) <= after.as_ref() || all.len() > MAX_ITEMS {
                return Err(self.endless("units"));
            }
            page.more = next.more;
            all.extend(next.units);
        }
        Ok(all)
    }

    /// All machines, absent ones too.
    pub async fn machine_views(&self) -> Result<MachineListing, Error> {
        self.json(Call::get(format!("{BASE}/machines"))).await
    }

    /// The cluster as a whole, with what is damaged of its records.
    pub async fn checked_cluster(&self) -> Result<ClusterView, Error> {
        self.json(Call::get(format!("{BASE}/cluster?check=true")))
            .await
    }

    /// Some of what was decided and what happened.
    pub async fn events(&self, wanted: &EventsWanted) -> Result<EventListing, Error> {
        self.json(Call::get(wanted.path(false))).await
    }

    /// What is decided and what happens, as it happens. Dropping the stream ends it.
    pub async fn follow_events(&self, wanted: &EventsWanted) -> Result<EventStream<'_>, Error> {
        let call = Call::get(wanted.path(true));
        let answer = self.send(&call).await?;
        Ok(EventStream {
            lines: Lines::new(self, call, answer.response.into_body()),
            _connection: answer.connection,
        })
    }

    /// All units, of each only some [`crate::v2::ROW_FIELDS`], and then each that changes; after a
    /// revision, only what has changed since. Dropping the stream ends it. [`Error::Answer`] with 410
    /// when that is not known any more: then it begins anew.
    pub async fn watch_units(
        &self,
        fields: &[&str],
        after: Option<u64>,
    ) -> Result<UnitStream<'_>, Error> {
        let mut path = format!("{BASE}/watch/units?fields={}", fields.join(","));
        if let Some(revision) = after {
            path.push_str(&format!("&revision={revision}"));
        }
        let call = Call::get(path);
        let answer = self.send(&call).await?;
        let mut lines = Lines::new(self, call, answer.response.into_body());
        // A global unit has a state of each machine.
        lines.max_bytes = MAX_ANSWER_BYTES;
        Ok(UnitStream {
            lines,
            _connection: answer.connection,
        })
    }

    /// Cordons, drains or opens a machine, by its whole id.
    pub async fn change_machine(
        &self,
        id: &str,
        change: &MachineChange,
    ) -> Result<MachineView, Error> {
        let path = format!("{BASE}/machines/{}", escape(id));
        self.json(Call::with_json(Method::POST, path, change)).await
    }

    /// Gives up the machines that are away though too many vanished at once; answers with them.
    pub async fn thaw(&self) -> Result<MachineListing, Error> {
        let path = format!("{BASE}/thaw");
        let nothing = std::collections::BTreeMap::<String, String>::new();
        self.json(Call::with_json(Method::POST, path, &nothing))
            .await
    }

    /// Has machines believe this store.
    pub async fn accept_store(&self) -> Result<(), Error> {
        let path = format!("{BASE}/accept-store");
        let nothing = std::collections::BTreeMap::<String, String>::new();
        let call = Call::with_json(Method::POST, path, &nothing);
        self.status(call).await.map(|_| ())
    }

    /// A token with which somebody may join.
    pub async fn join_token(&self, wanted: &JoinTokenRequest) -> Result<JoinToken, Error> {
        let path = format!("{BASE}/join-tokens");
        self.json(Call::with_json(Method::POST, path, wanted)).await
    }

    /// A certificate for a token; the client is one that has none ([`super::TlsDial::pinned`]).
    pub async fn join(&self, wanted: &CertificateRequest) -> Result<CertificateAnswer, Error> {
        let path = format!("{BASE}/join");
        self.json(Call::with_json(Method::POST, path, wanted)).await
    }

    /// The next certificate for the machine that this client shows the certificate of.
    pub async fn renew(&self, wanted: &CertificateRequest) -> Result<CertificateAnswer, Error> {
        let path = format!("{BASE}/certificates");
        self.json(Call::with_json(Method::POST, path, wanted)).await
    }

    /// Has certificates believed no more.
    pub async fn revoke(&self, wanted: &RevokeRequest) -> Result<(), Error> {
        let path = format!("{BASE}/revocations");
        let call = Call::with_json(Method::POST, path, wanted);
        self.status(call).await.map(|_| ())
    }

    /// Whose certificates are believed no more.
    pub async fn revocations(&self) -> Result<RevocationListing, Error> {
        self.json(Call::get(format!("{BASE}/revocations"))).await
    }

    /// Who we are, and whether we may do something: to a unit, to a machine, or to the cluster.
    pub async fn whoami(
        &self,
        verb: Option<&str>,
        unit: Option<&str>,
        machine: Option<&str>,
    ) -> Result<Whoami, Error> {
        let asked = [("verb", verb), ("unit", unit), ("machine", machine)];
        let asked = asked
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}={}", escape(value?))));
        let asked: Vec<String> = asked.collect();
        let path = format!("{BASE}/whoami?{}", asked.join("&"));
        self.json(Call::get(path)).await
    }

    /// The units that a machine has, or is still to stop.
    pub async fn units_of_machine(&self, id: &str) -> Result<MachineUnitListing, Error> {
        let path = format!("{BASE}/machines/{}/units", escape(id));
        self.json(Call::get(path)).await
    }
}

/// Which events are wanted; what is left out wants all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EventsWanted {
    /// Of units whose names match this pattern.
    pub unit: Option<String>,
    /// Of this machine.
    pub machine: Option<String>,
    /// From this time on, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// After this revision.
    pub after: Option<u64>,
    /// Before this revision.
    pub before: Option<u64>,
    /// At most about so many.
    pub limit: Option<usize>,
}

impl EventsWanted {
    fn path(&self, follow: bool) -> String {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let escaped = |text: &str| escape(text).to_string();
        let limit = self.limit.filter(|_| !follow);
        let parameters = [
            ("follow", follow.then(|| "true".to_owned())),
            ("unit", self.unit.as_deref().map(escaped)),
            ("machine", self.machine.as_deref().map(escaped)),
            ("since", number(self.since_ms)),
            ("after", number(self.after)),
            ("before", number(self.before.filter(|_| !follow))),
            ("limit", limit.map(|limit| limit.to_string())),
        ];
        let given = parameters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let given: Vec<String> = given.collect();
        format!("{BASE}/events?{}", given.join("&"))
    }
}

/// The lines of following events.
pub struct EventStream<'a> {
    lines: Lines<'a>,
    /// It ends with the last of whoever may send on it.
    _connection: SendRequest<Full<Bytes>>,
}

impl EventStream<'_> {
    /// The next line. May be dropped and called again. [`Error::Broken`] when it ends without a last
    /// line: follow on after the last revision, at this or another fleetd.
    pub async fn next(&mut self) -> Result<EventLine, Error> {
        match self.lines.next().await? {
            Some(line) => self.lines.parse(&line),
            None => Err(self.lines.ended("following ended")),
        }
    }
}

/// The lines of watching units.
pub struct UnitStream<'a> {
    lines: Lines<'a>,
    /// It ends with the last of whoever may send on it.
    _connection: SendRequest<Full<Bytes>>,
}

impl UnitStream<'_> {
    /// Has the next line looked at. May be dropped and called again. [`Error::Broken`] when it ends
    /// without a last line: watch on after the last revision, at this or another fleetd.
    pub async fn next<T>(&mut self, look: impl FnOnce(&UnitChanges<'_>) -> T) -> Result<T, Error> {
        let Some(line) = self.lines.next().await? else {
            return Err(self.lines.ended("watching ended"));
        };
        let changes: UnitChanges<'_> = serde_json::from_slice(&line)
            .map_err(|error| self.lines.nonsense(&error.to_string()))?;
        Ok(look(&changes))
    }
}

/// The lines of a wait.
pub struct WaitStream<'a> {
    lines: Lines<'a>,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// So many units are not final yet.
    n_open: usize,
}

impl WaitStream<'_> {
    /// The next line; None when all units are final. May be dropped and called again.
    /// [`Error::Broken`] when fleetd ends the wait before that, as it does when it stops: wait
    /// again, at this or another fleetd.
    pub async fn next(&mut self) -> Result<Option<Progress>, Error> {
        if let Some(line) = self.lines.next().await? {
            let progress: Progress = self.lines.parse(&line)?;
            self.n_open = self.n_open.saturating_sub(usize::from(progress.is_final));
            return Ok(Some(progress));
        }
        if let Some(connection) = self.connection.take() {
            self.lines.client.keep(connection);
        }
        match self.n_open {
            0 => Ok(None),
            _ => Err(self.lines.ended("the wait ended early")),
        }
    }
}

/// The lines of an answer that goes on.
pub(super) struct Lines<'a> {
    client: &'a Client,
    call: Call,
    body: Option<Incoming>,
    buffer: BytesMut,
    /// It is broken when it says nothing for so long.
    silence: Duration,
    /// So many bytes of the buffer hold no line break.
    searched: usize,
    /// Longest line.
    max_bytes: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(client: &'a Client, call: Call, body: Incoming) -> Lines<'a> {
        Lines {
            client,
            call,
            body: Some(body),
            buffer: BytesMut::new(),
            silence: SILENCE,
            searched: 0,
            max_bytes: MAX_LINE_BYTES,
        }
    }

    /// With another bound of a silence.
    pub(super) fn silent_for(self, silence: Duration) -> Lines<'a> {
        Lines { silence, ..self }
    }

    /// The next line that says something; None at the end.
    pub(super) async fn next(&mut self) -> Result<Option<BytesMut>, Error> {
        loop {
            if let Some(line) = self.line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            let Some(body) = &mut self.body else {
                return Ok(None);
            };
            if self.buffer.len() > self.max_bytes {
                let max = self.max_bytes;
                return Err(self.nonsense(&format!("it is longer than {max} bytes")));
            }
            match timeout(self.silence, body.frame()).await {
                Err(_) => {
                    return Err(self.client.timed_out(&self.call, self.silence));
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Ok(Some(Err(error))) => {
                    return Err(self.client.broken_by(&self.call, &error));
                }
                Ok(None) => self.body = None,
            }
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        match self.buffer[self.searched..]
            .iter()
            .position(|b| *b == b'\n')
        {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, line: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(line).map_err(|error| self.nonsense(&error.to_string()))
    }

    fn nonsense(&self, why: &str) -> Error {
        Error::Protocol {
            endpoint: self.client.endpoint.to_string(),
            reason: format!("a line of the answer: {why}"),
        }
    }

    pub(super) fn ended(&self, why: &str) -> Error {
        self.client.broken(&self.call, why)
    }
}
