//! The HTTP API: v1 as the original's, v2 beside it.
//!
//! It is stateless over the store: reads are ranges, writes are guarded transactions on
//! `units/` and `machine-wishes/`, waits are fed by a watch. What is kept here (page
//! boundaries, the shared watch, a listing that is asked for again) is bounded and never
//! authority.
//!
//! The paths are matched by hand, since v1 promises details that routers decide otherwise:
//! 405 on `/`, 301 for unclean paths, no HEAD and no OPTIONS.

use std::sync::atomic::AtomicU16;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use fleet_core::records::MachineId;
use tokio::sync::{Semaphore, watch};

use crate::access::denials::Denials;
use crate::access::{Access, Trust};
use crate::peer::Way;
use crate::pki::Pki;
use crate::shutdown::Shutdown;
use crate::store::{Revision, Store};
use crate::units::UnitManager;

mod batch;
mod boundaries;
mod browser;
mod failure;
mod follow;
mod here;
mod metrics;
mod page;
mod path;
mod permit;
mod read;
mod request;
mod rows;
mod telling;
mod v1;
mod v2;
mod wait;
mod wish;

#[cfg(test)]
mod tests;

use boundaries::Boundaries;
use failure::Failure;
use follow::Followers;
use here::Here;
pub use metrics::ApiMetrics;
use request::RequestIds;
use telling::Telling;

/// What the handlers get.
pub(crate) type Api = Arc<Shared>;

/// What `/metrics` answers.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Everything that the API needs. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    store: Arc<dyn Store>,
    /// Items in a page of v1; it may change.
    token_limit: Arc<AtomicU16>,
    /// The `Server` header.
    server: String,
    metrics: MetricsText,
    counters: Arc<ApiMetrics>,
    /// Ends the waits.
    shutdown: Option<Shutdown>,
    ids: RequestIds,
    boundaries: Boundaries,
    /// The machines at the revision of a listing that goes on. One listing's: another one reads them
    /// again.
    members: Mutex<Option<(Revision, Arc<v2::Members>)>>,
    waits: wait::Hub,
    kept: rows::Kept,
    /// None: nothing is told of who does what.
    telling: Option<Telling>,
    /// None: nothing is told of who may not do what.
    denials: Option<Denials>,
    /// Who may do what.
    access: Access,
    /// Which unit files this machine takes.
    trust: watch::Receiver<Arc<Trust>>,
    followers: Followers,
    /// This machine's certificate, its CA, and who is revoked.
    pki: Arc<Pki>,
    /// None: this API knows the store alone.
    here: Option<Here>,
    /// Places for those who read journals.
    journal_readers: Arc<Semaphore>,
}

/// So many may read journals through this fleetd at the same time.
const MAX_JOURNAL_READERS: usize = 64;

impl Shared {
    /// This machine, and the others.
    fn here(&self) -> Result<&Here, Failure> {
        let nothing = "this API knows the store alone, and no machine";
        self.here.as_ref().ok_or_else(|| Failure::new(503, nothing))
    }
}

impl ApiState {
    /// An API over a store. `version` is fleetd's (without `v`); a `token_limit` of 0 would
    /// never end and counts as 1.
    pub fn new(store: Arc<dyn Store>, token_limit: u16, version: &str) -> ApiState {
        ApiState {
            shared: Arc::new(Shared {
                waits: wait::Hub::new(Arc::clone(&store)),
                kept: rows::Kept::new(Arc::clone(&store)),
                store,
                token_limit: Arc::new(AtomicU16::new(token_limit.max(1))),
                server: format!("fleetd/v{version}"),
                metrics: Arc::new(String::new),
                counters: Arc::new(ApiMetrics::default()),
                shutdown: None,
                ids: RequestIds::new(),
                boundaries: Boundaries::default(),
                members: Mutex::default(),
                telling: None,
                denials: None,
                access: Access::default(),
                trust: watch::Sender::default().subscribe(),
                followers: Followers::default(),
                pki: Pki::off(),
                here: None,
                journal_readers: Arc::new(Semaphore::new(MAX_JOURNAL_READERS)),
            }),
        }
    }

    /// What the API counts itself, for the text of `/metrics`.
    pub fn counters(&self) -> Arc<ApiMetrics> {
        Arc::clone(&self.shared.counters)
    }

    /// Where the items of a page of v1 are changed.
    pub fn token_limit(&self) -> Arc<AtomicU16> {
        Arc::clone(&self.shared.token_limit)
    }

    /// With the text of `/metrics`.
    pub fn with_metrics(self, metrics: MetricsText) -> ApiState {
        self.map(|shared| Shared { metrics, ..shared })
    }

    /// As the API of this machine: what users do through it is told among the events.
    pub fn on(self, machine: MachineId) -> ApiState {
        self.map(|shared| Shared {
            telling: Some(Telling::new(machine.clone())),
            denials: Some(Denials::new(machine, Arc::clone(&shared.store))),
            ..shared
        })
    }

    /// Under this policy; without one whoever reaches the API may do everything.
    pub fn under(self, access: Access) -> ApiState {
        self.map(|shared| Shared { access, ..shared })
    }

    /// With what only machines have: the units of this one, and the way to the others.
    pub fn with_units(
        self,
        machine: MachineId,
        manager: Arc<dyn UnitManager>,
        way: Arc<dyn Way>,
    ) -> ApiState {
        self.map(|shared| Shared {
            here: Some(Here::new(machine, manager, way)),
            ..shared
        })
    }

    /// With this machine's part in who belongs to the cluster.
    pub fn with_pki(self, pki: Arc<Pki>) -> ApiState {
        self.map(|shared| Shared { pki, ..shared })
    }

    /// Units that this machine would not take are not handed in here.
    pub fn trusting(self, trust: watch::Receiver<Arc<Trust>>) -> ApiState {
        self.map(|shared| Shared { trust, ..shared })
    }

    /// With the sign to stop: waits end then, so that they do not hold up fleetd.
    pub fn with_shutdown(self, shutdown: Shutdown) -> ApiState {
        self.map(|shared| Shared {
            shutdown: Some(shutdown),
            ..shared
        })
    }

    /// How many requests wait at present (`POST /fleet/v2/wait`), for metrics.
    pub fn n_waiting(&self) -> usize {
        self.shared.waits.n_waiters()
    }

    /// How many follow events or watch units at present, for metrics.
    pub fn n_following(&self) -> usize {
        self.shared.followers.count()
    }

    /// # Panics
    /// Never: the builder methods consume the only clone.
    fn map(self, change: impl FnOnce(Shared) -> Shared) -> ApiState {
        let shared = Arc::into_inner(self.shared).expect("states are built before they are cloned");
        ApiState {
            shared: Arc::new(change(shared)),
        }
    }
}

/// The whole API. Each request may carry a [`crate::access::Caller`] in its extensions.
pub fn router(state: ApiState) -> Router {
    Router::new().fallback(serve).with_state(state)
}

/// What somebody without a certificate gets over TLS, who has a token.
pub fn newcomers(state: ApiState) -> Router {
    Router::new().fallback(serve_newcomer).with_state(state)
}

async fn serve_newcomer(State(state): State<ApiState>, request: Request) -> Response<Body> {
    request::serve_newcomer(&state.shared, request).await
}

async fn serve(State(state): State<ApiState>, request: Request) -> Response<Body> {
    request::serve(&state.shared, request).await
}
