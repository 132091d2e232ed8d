//! fleetd waits, and tells how it goes.

use std::time::Duration;

use fleet_api::client::{Error, WaitStream};
use fleet_api::v2::{MAX_WAIT, Progress, WaitFor, WaitRequest};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Awaited, Bounds, Waited, Waits, is_passing};
use crate::error::cures;
use crate::fleet::Fleet;
use crate::report::Report;

/// A wait that broke off (fleetd was restarted, its store was away) is asked for again so soon.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Waits for units until each is final or its time is over.
pub(crate) async fn wait(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    awaited: Vec<Awaited>,
    bounds: Bounds,
) -> Waited {
    let mut waited = Waited::default();
    for part in awaited.chunks(MAX_WAIT) {
        let mut waits = Waits::new(part.to_vec(), bounds, Instant::now())
            .noticed(fleet.ui.is_watched(), Instant::now());
        follow(fleet, report, &mut waits, &mut waited).await;
        waited.reached.append(&mut waits.reached);
    }
    waited
}

async fn follow(fleet: &Fleet<'_>, report: &Report<'_>, waits: &mut Waits, waited: &mut Waited) {
    let mut is_lost = false;
    while let Some(end) = waits.next_end() {
        let request = WaitRequest {
            units: waits
                .open()
                .map(|unit| WaitFor {
                    name: unit.name.clone(),
                    generation: unit.generation,
                })
                .collect(),
        };
        let broken = match timeout_at(end, fleet.client.wait(&request)).await {
            Ok(Ok(mut stream)) => read(fleet, &mut stream, report, waits, waited).await,
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        for event in waits.expire(Instant::now()) {
            waited.take(event, report);
        }
        match broken {
            Some(error) if is_passing(&error) => {
                if !std::mem::replace(&mut is_lost, true) {
                    fleet.ui.note(&format!("{error}; asking again"));
                }
                sleep(AGAIN_AFTER).await;
            }
            Some(error) => {
                for event in waits.fail_all(&error.original_form()) {
                    waited.take(event, report);
                }
                report.hint_once(&cures(&error));
            }
            None => {}
        }
    }
}

/// Reads lines until all units are final, one's time is over, or the stream breaks.
async fn read(
    fleet: &Fleet<'_>,
    stream: &mut WaitStream<'_>,
    report: &Report<'_>,
    waits: &mut Waits,
    waited: &mut Waited,
) -> Option<Error> {
    while let Some(end) = waits.next_end() {
        let progress: Progress = match timeout_at(end, stream.next()).await {
            Ok(Ok(Some(progress))) => progress,
            Ok(Ok(None)) => {
                return Some(Error::Broken {
                    endpoint: fleet.client.endpoint().to_string(),
                    original: "the wait ended early".to_owned(),
                    reason: "the wait ended early".to_owned(),
                });
            }
            Ok(Err(error)) => return Some(error),
            Err(_) => {
                for event in waits.expire(Instant::now()) {
                    waited.take(event, report);
                }
                continue;
            }
        };
        for event in waits.progress(&progress, Instant::now()) {
            waited.take(event, report);
        }
    }
    None
}
