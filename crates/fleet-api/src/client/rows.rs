//! A listing in rows: pages as they come, however many answers they take.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{Call, Client, Error, MAX_ANSWER_BYTES, MAX_ITEMS, MAX_WARNINGS, escape, lock};
use crate::v2::{BASE, RowPage};

/// How far a listing has come.
#[derive(Default)]
struct Progress {
    after: Option<String>,
    revision: Option<u64>,
    n_units: usize,
    is_over: bool,
}

impl Client {
    /// All units at one revision, of each only some [`crate::v2::ROW_FIELDS`]; `each` gets the pages
    /// as they come. An answer that is cut off is taken up again behind its last whole page. A fleetd
    /// that knows no rows sends more than was asked for, a page an answer.
    ///
    /// # Errors
    /// Of whatever comes before the first page, and where it does not go on. [`Error::Answer`] with
    /// 410 when the store has forgotten the revision meanwhile.
    pub async fn unit_rows(
        &self,
        fields: &[&str],
        mut each: impl FnMut(&RowPage<'_>),
    ) -> Result<(), Error> {
        let mut progress = Progress::default();
        while !progress.is_over {
            let call = Call::get(progress.path(fields));
            let before = progress.n_units;
            let answer = self.send(&call).await?;
            let mut body = answer.response.into_body();
            match self
                .row_pages(&call, &mut body, &mut progress, &mut each)
                .await
            {
                Ok(()) => self.keep(answer.connection),
                // What has come is whole, and the rest is asked for.
                Err(Error::Broken { .. }) if progress.n_units > before => {}
                Err(error) => return Err(error),
            }
            if !progress.is_over && progress.n_units == before {
                return Err(self.broken(&call, "the listing ended early"));
            }
        }
        Ok(())
    }

    /// The pages of one answer.
    async fn row_pages(
        &self,
        call: &Call,
        body: &mut Incoming,
        progress: &mut Progress,
        each: &mut impl FnMut(&RowPage<'_>),
    ) -> Result<(), Error> {
        let bound: Duration = self.answer_timeout;
        let mut buffer = BytesMut::new();
        let mut searched = 0;
        loop {
            let frame = match timeout(bound, body.frame()).await {
                Err(_) => return Err(self.timed_out(call, bound)),
                Ok(Some(frame)) => frame.map_err(|error| self.broken_by(call, &error))?,
                // A single page needs no line break.
                Ok(None) if buffer.trim_ascii().is_empty() => return Ok(()),
                Ok(None) => return self.row_page(call, &buffer, progress, each),
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            buffer.extend_from_slice(&data);
            while let Some(at) = buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + at;
                self.row_page(call, &buffer[..end], progress, each)?;
                buffer.advance(end + 1);
                searched = 0;
            }
            searched = buffer.len();
            if searched > MAX_ANSWER_BYTES {
                return Err(self.nonsense(call, "a page is longer than any can be"));
            }
        }
    }

    fn row_page(
        &self,
        call: &Call,
        line: &[u8],
        progress: &mut Progress,
        each: &mut impl FnMut(&RowPage<'_>),
    ) -> Result<(), Error> {
        let page: RowPage<'_> = serde_json::from_slice(line)
            .map_err(|error| self.nonsense(call, &error.to_string()))?;
        let goes_on = match (page.units.first(), &progress.after) {
            (Some(first), Some(after)) => *first.name > **after,
            (None, _) => !page.more,
            (Some(_), None) => true,
        };
        // By name: a page that does not go on would be read until memory ends.
        if !goes_on || progress.n_units > MAX_ITEMS || progress.is_over {
            return Err(self.endless("units"));
        }
        progress.revision.get_or_insert(page.revision);
        progress.n_units += page.units.len();
        progress.is_over = !page.more;
        if let Some(last) = page.units.last() {
            progress.after = Some(last.name.to_string());
        }
        let mut warnings = lock(&self.warnings);
        let room = MAX_WARNINGS.saturating_sub(warnings.len());
        warnings.extend(page.warnings.iter().take(room).cloned());
        drop(warnings);
        each(&page);
        Ok(())
    }

    fn nonsense(&self, call: &Call, why: &str) -> Error {
        Error::Protocol {
            endpoint: self.endpoint.to_string(),
            reason: format!("{} {}: {why}", call.method, call.path),
        }
    }
}

impl Progress {
    fn path(&self, fields: &[&str]) -> String {
        let fields = fields.join(",");
        let mut path = format!("{BASE}/units?fields={fields}");
        if let Some(after) = &self.after {
            path.push_str(&format!("&after={}", escape(after)));
        }
        if let Some(revision) = self.revision {
            path.push_str(&format!("&revision={revision}"));
        }
        path
    }
}
