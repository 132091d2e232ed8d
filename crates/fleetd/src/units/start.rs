//! Starts: the intent is remembered, the job is asked for and waited for, and its outcome is
//! remembered.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::agent::{Failure, LaunchRecord, Phase, Working};
use fleet_core::name::UnitName;
use futures_util::future::{BoxFuture, OptionFuture, join};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::dbus::{CallError, Manager, SERVICE, unit_object};
use super::failure;
use super::systemd::Driver;
use super::work::Start;
use crate::ticks::Ticks;

/// The pauses between looks at a program that has not yet shown that it runs; the last one is
/// repeated. One start costs a look or two; what takes long is not looked at all the time.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
];
/// The first looks, while hardly anything else is started, are this far apart: a program shows that
/// it runs about one millisecond after systemd calls it started, and the runtime's own clock
/// counts in milliseconds.
const FINE_LOOK: Duration = Duration::from_micros(250);
/// How many of them; three milliseconds, in which nearly every program has begun.
const FINE_LOOKS: usize = 12;
/// When more jobs are under way, nobody waits for a single start, and a look costs time.
const FINE_JOBS: usize = 4;
/// A process that is not yet the program (`Type=idle` waits on purpose) is looked at for so long.
const NOT_BEGUN_FOR: Duration = Duration::from_millis(300);
/// A program that has not yet paused is looked at for so long.
const BUSY_FOR: Duration = Duration::from_millis(120);
/// Holds the process's name and state: a name has 64 bytes at most.
const STAT_BYTES: usize = 128;
/// systemd reaps what has ended, and says so, when it has no more jobs to run.
const ENDED_FOR: Duration = Duration::from_secs(5);
/// What is reaped already is told with the next messages.
const REAPED_FOR: Duration = Duration::from_millis(100);
/// What a unit needs may be about to be loaded by fleet, too; after that many attempts it is
/// refused.
const MAX_MISSING_ATTEMPTS: u32 = 4;

impl Driver {
    /// Asks for a start or restart, and sees it through.
    pub(crate) async fn start(
        self: Arc<Self>,
        manager: Manager,
        start: Start,
        slot: OwnedSemaphorePermit,
    ) {
        let Start {
            unit,
            id,
            record,
            restart,
        } = start;
        // Who was overtaken while it waited for its turn writes over what is remembered since.
        if !self.shared.is_current(&unit, id) {
            return;
        }
        // The intent first: whoever comes after us must know that a start may have happened.
        if let Err(error) = self.files.write_record(&unit, &record) {
            self.attempt_failed(&unit, id, &record, &error.to_string());
            return;
        }
        self.shared.update(&unit, |entry| {
            if entry.work_id == id {
                entry.observed.working = Some(Working::Starting);
            }
            entry.observed.record = Some(record.clone());
            entry.start_anew();
        });
        let exclusive = self
            .shared
            .update(&unit, |entry| entry.observed.is_exclusive);
        // What is rare has memory of its own: each start would have room for it.
        if exclusive && let Err(error) = Box::pin(self.enter_lease(&manager, &unit)).await {
            if !matches!(error, CallError::Lost(_)) {
                self.attempt_failed(&unit, id, &record, &error.to_string());
            }
            return;
        }
        let n_reloads = *self.reloads.lock().await;
        let asking = self.shared.update(&unit, |entry| Arc::clone(&entry.asking));
        let ask = || async {
            let _asking = asking.lock().await;
            // It may have waited long: for its turn, for the lease, for a reload.
            if !self.shared.is_current(&unit, id) {
                return Err(CallError::Overtaken);
            }
            if restart {
                return manager.restart_unit(unit.as_str()).await;
            }
            // On the heels of the call, so that nothing is left to ask when the job is done.
            let start = manager.start_unit(unit.as_str());
            join(start, self.describe(&manager, &unit)).await.0
        };
        let mut result = self.job(&unit, slot, ask()).await;
        if let Err(CallError::NoSuchUnit(_)) = result {
            // It has not noticed the file: then everything is read anew, once.
            match Box::pin(self.reload_since(&manager, n_reloads)).await {
                Ok(()) => match self.slot().await {
                    Ok(slot) => result = Box::pin(self.job(&unit, slot, ask())).await,
                    Err(error) => result = Err(error),
                },
                Err(error) => result = Err(error),
            }
        }
        match result {
            Ok(result) => {
                self.started(&manager, &unit, id, record, &result).await;
            }
            Err(CallError::Lost(_) | CallError::Overtaken) => {}
            Err(CallError::NoSuchUnit(why)) => {
                let missing = self.is_missing_something(&manager, &unit, id, &record, why);
                Box::pin(missing).await;
            }
            Err(CallError::BadUnit(answer)) => {
                let why = Box::pin(failure::not_loaded(&unit, &answer, self.user)).await;
                Box::pin(self.refuse(&manager, &unit, id, &record, why)).await;
            }
            Err(CallError::Permanent(why)) => {
                Box::pin(self.refuse(&manager, &unit, id, &record, why)).await;
            }
            Err(CallError::Transient(why)) => self.attempt_failed(&unit, id, &record, &why),
        }
    }

    /// The job of a start is done: sees what became of it, and remembers it.
    async fn started(
        self: &Arc<Self>,
        manager: &Manager,
        unit: &UnitName,
        id: u64,
        mut record: LaunchRecord,
        result: &str,
    ) {
        // Whose end would be told while systemd is asked is heard of, too.
        let settling = self.shared.update(unit, |entry| {
            entry.simple.then(|| {
                let (tell, told) = oneshot::channel();
                entry.settling = Some(tell);
                told
            })
        });
        let before = &record.invocation_id;
        let is_told = result == "done" && self.shared.update(unit, |entry| entry.is_told(before));
        let look = async {
            match is_told {
                true => Ok(()),
                false => Box::pin(self.look_at_started(manager, unit)).await,
            }
        };
        let pid = self.main_pid(manager, unit, settling.is_some());
        let (looked, pid) = tokio::join!(look, pid);
        if let Err(error) = looked {
            tracing::debug!(%unit, %error, "state after a start is not known yet");
        }
        if result == "unsupported" {
            let why = failure::job_result(result);
            return Box::pin(self.refuse(manager, unit, id, &record, why)).await;
        }
        if result == "failed" && self.nothing_ran(unit, &record) {
            let why = Box::pin(failure::not_begun(manager, unit)).await;
            let missing = self.is_missing_something(manager, unit, id, &record, why);
            return Box::pin(missing).await;
        }
        if let (Some(told), Some(pid)) = (settling, pid)
            && self.shared.update(unit, |entry| entry.is_running())
        {
            let n_fine = match self.shared.n_jobs() < FINE_JOBS {
                true => FINE_LOOKS,
                false => 0,
            };
            settle(pid, told, n_fine).await;
        }
        let (is_current, invocation_id) = {
            let state = self.shared.lock();
            let entry = state.units.get(unit);
            (
                entry.is_some_and(|entry| entry.work_id == id),
                entry.map(|entry| entry.observed.invocation_id.clone()),
            )
        };
        if !is_current {
            return;
        }
        record.phase = Phase::Launched;
        record.invocation_id = invocation_id.unwrap_or_default();
        if let Err(error) = self.files.write_record(unit, &record) {
            tracing::warn!(%unit, %error, "launch record cannot be written");
        }
        let mut wants_lookup = false;
        self.shared.finish(unit, id, |entry| {
            entry.attempts_over();
            entry.observed.record = Some(record);
            wants_lookup = entry.wants_lookup_after_start();
            let well = matches!(result, "done" | "skipped");
            // Of a failed unit systemd knows more, and that is being looked up.
            if !well && entry.observed.active != "failed" {
                entry.observed.failure = Some(Failure {
                    why: failure::job_result(result),
                    log: Vec::new(),
                });
            }
        });
        if wants_lookup {
            self.spawn_look_up(manager, unit.clone());
        }
    }

    /// [`Driver::await_orphan`] with a type of known size: looking at units and seeing starts
    /// through call each other.
    pub(crate) fn boxed_await_orphan(
        self: Arc<Self>,
        manager: Manager,
        unit: UnitName,
        job: String,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.await_orphan(manager, unit, job))
    }

    /// A start that an earlier process asked for is still under way: sees it through.
    async fn await_orphan(self: Arc<Self>, manager: Manager, unit: UnitName, job: String) {
        let wait = self.shared.wait_for_job(&unit, Some(job.clone()));
        let (id, record) = self.shared.update(&unit, |entry| {
            entry.work_id = wait.id;
            (wait.id, entry.observed.record.clone())
        });
        let path = job.as_str();
        // It may have ended before we took our place.
        let job_interface = "org.freedesktop.systemd1.Job";
        let told = match manager
            .property::<String>(path, job_interface, "JobType")
            .await
        {
            Ok(_) => wait.told.await,
            Err(_) => {
                self.shared.forget_job(&unit, wait.id);
                Ok("done".to_owned())
            }
        };
        if let (Ok(result), Some(record)) = (told, record) {
            self.started(&manager, &unit, id, record, &result).await;
        }
    }

    /// The main process of a unit that was started, if it `matters`; 0: it has none any more. systemd has
    /// told it as it has told how the unit is, but on a bus, and where nothing was changed by the start.
    async fn main_pid(&self, manager: &Manager, unit: &UnitName, matters: bool) -> Option<u32> {
        if !matters {
            return None;
        }
        let told = {
            let state = self.shared.lock();
            state.units.get(unit).and_then(|entry| entry.main_pid)
        };
        match told {
            Some(pid) => Some(pid),
            None => {
                let path = unit_object(unit.as_str());
                Box::pin(manager.property(&path, SERVICE, "MainPID"))
                    .await
                    .ok()
            }
        }
    }

    /// Whether systemd has not even begun with the start.
    fn nothing_ran(&self, unit: &UnitName, record: &LaunchRecord) -> bool {
        let state = self.shared.lock();
        state.units.get(unit).is_some_and(|entry| {
            entry.observed.active == "inactive"
                && entry.observed.invocation_id == record.invocation_id
        })
    }

    /// What a unit needs is not there (yet): tried again a few times, then refused.
    async fn is_missing_something(
        &self,
        manager: &Manager,
        unit: &UnitName,
        id: u64,
        record: &LaunchRecord,
        why: String,
    ) {
        let n_failed = self
            .shared
            .update(unit, |entry| entry.n_failed(record.decision));
        if n_failed < MAX_MISSING_ATTEMPTS {
            self.attempt_failed(unit, id, record, &why);
        } else {
            self.refuse(manager, unit, id, record, why).await;
        }
    }
}

/// Waits until a program that systemd calls started has shown that it runs, or has ended and
/// systemd has `told` so.
///
/// systemd calls it started when its process is made; whether there is such a program at all, and
/// whether it ends at once, comes out a moment later. Waiting for a fixed time would cost every
/// start that time, so the process itself is looked at: its first pause is when it waits for
/// something to do.
async fn settle(pid: u32, mut told: oneshot::Receiver<()>, n_fine: usize) {
    let mut fine = None;
    let mut n_fine = n_fine;
    let mut waited = Duration::ZERO;
    let mut looks = LOOKS.into_iter();
    let mut pause = LOOKS[0];
    loop {
        let bound = match first_run(pid) {
            FirstRun::NotBegun => NOT_BEGUN_FOR,
            FirstRun::Busy => BUSY_FOR,
            FirstRun::Paused => return,
            FirstRun::Ended => {
                // Whoever waited may have had enough.
                let _ = tokio::time::timeout(ENDED_FOR, told).await;
                return;
            }
            FirstRun::Reaped => {
                let _ = tokio::time::timeout(REAPED_FOR, told).await;
                return;
            }
        };
        if n_fine > 0 {
            n_fine -= 1;
            if fine.is_none() {
                fine = Ticks::every(FINE_LOOK);
            }
            let ticked = OptionFuture::from(fine.as_mut().map(Ticks::next));
            tokio::select! {
                _ = &mut told => return,
                ticked = ticked => if !matches!(ticked, Some(Ok(_))) { n_fine = 0 },
            }
            continue;
        }
        if waited >= bound {
            return;
        }
        pause = looks.next().unwrap_or(pause);
        if tokio::time::timeout(pause, &mut told).await.is_ok() {
            return;
        }
        waited += pause;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FirstRun {
    /// systemd's child has not yet become the program: its name is in parentheses.
    NotBegun,
    /// The program has not yet paused.
    Busy,
    /// It waits for something.
    Paused,
    /// It has ended, and systemd has not yet looked at that.
    Ended,
    /// There is no such process any more.
    Reaped,
}

fn first_run(pid: u32) -> FirstRun {
    // The kernel makes the line at the first read, and what counts is at its beginning.
    let mut line = [0; STAT_BYTES];
    let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut stat| stat.read(&mut line));
    match read {
        Ok(n_bytes) => first_run_of(&String::from_utf8_lossy(&line[..n_bytes])),
        Err(_) => FirstRun::Reaped,
    }
}

/// `123 (name) S …`; the name may contain anything.
fn first_run_of(stat: &str) -> FirstRun {
    let (Some(begin), Some(end)) = (stat.find('('), stat.rfind(')')) else {
        return FirstRun::Reaped;
    };
    match stat[end..].chars().nth(2) {
        Some('Z' | 'X') => FirstRun::Ended,
        _ if stat[begin + 1..].starts_with('(') => FirstRun::NotBegun,
        Some('R' | 'D') => FirstRun::Busy,
        _ => FirstRun::Paused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_come_to_is_read_from_the_kernels_line() {
        for (stat, come_to) in [
            ("7 ((sleep)) R 1 7 7 0", FirstRun::NotBegun),
            ("7 ((sleep)) S 1 7 7 0", FirstRun::NotBegun),
            ("7 (sleep) R 1 7 7 0", FirstRun::Busy),
            ("7 (a b) D 1 7 7 0", FirstRun::Busy),
            ("7 (a) R) S 1 7 7 0", FirstRun::Paused),
            ("7 (sleep) S 1 7 7 0", FirstRun::Paused),
            ("7 (sleep) Z 1 7 7 0", FirstRun::Ended),
            ("7 ((sleep)) Z 1 7 7 0", FirstRun::Ended),
            ("", FirstRun::Reaped),
        ] {
            assert_eq!(first_run_of(stat), come_to, "{stat}");
        }
    }

    /// A process that has ended is dead for certain, however late systemd says so.
    #[tokio::test(start_paused = true)]
    async fn the_word_is_awaited_of_a_process_that_has_ended() {
        let mut ended = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = ended.id();
        while first_run(pid) != FirstRun::Ended {
            std::thread::yield_now();
        }
        let (tell, told) = oneshot::channel();
        let settling = tokio::spawn(settle(pid, told, 0));
        tokio::time::sleep(ENDED_FOR / 2).await;
        assert!(!settling.is_finished());
        tell.send(()).unwrap();
        settling.await.unwrap();
        ended.wait().unwrap();
    }

    /// A look takes some microseconds: half a minute and more.
    const MAX_LOOKS: usize = 5_000_000;

    /// A shell that ends with its test, however that ends.
    struct Shell(std::process::Child);

    impl Drop for Shell {
        fn drop(&mut self) {
            // It may have ended by itself.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A shell that has come to this, and how long it is waited for.
    async fn settled_after(script: &str, come_to: FirstRun) -> Duration {
        let shell = std::process::Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let shell = Shell(shell);
        let pid = shell.0.id();
        let mut looks = 0;
        while first_run(pid) != come_to {
            looks += 1;
            assert!(looks < MAX_LOOKS, "{script} has not come to {come_to:?}");
            std::thread::yield_now();
        }
        let (_tell, told) = oneshot::channel();
        let began = tokio::time::Instant::now();
        settle(pid, told, FINE_LOOKS).await;
        began.elapsed()
    }

    /// What never shows that it runs is not waited for for ever.
    #[tokio::test(start_paused = true)]
    async fn each_wait_for_a_sign_of_life_has_an_end() {
        let longest = LOOKS[LOOKS.len() - 1];
        let waited = settled_after("while :; do :; done", FirstRun::Busy).await;
        assert!(
            (BUSY_FOR..=BUSY_FOR + longest).contains(&waited),
            "{waited:?}"
        );
        let waits = "echo '(sh)' > /proc/$$/comm; read line";
        let waited = settled_after(waits, FirstRun::NotBegun).await;
        let bound = NOT_BEGUN_FOR..=NOT_BEGUN_FOR + longest;
        assert!(bound.contains(&waited), "{waited:?}");

        let mut reaped = std::process::Command::new("/bin/true").spawn().unwrap();
        reaped.wait().unwrap();
        let (_tell, told) = oneshot::channel();
        let began = tokio::time::Instant::now();
        settle(reaped.id(), told, FINE_LOOKS).await;
        assert_eq!(began.elapsed(), REAPED_FOR);
    }

    /// What waits for something is well, and nobody waits for its sake.
    #[tokio::test(start_paused = true)]
    async fn a_program_that_pauses_is_not_waited_for() {
        let mut sleeper = std::process::Command::new("/bin/sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        while first_run(sleeper.id()) != FirstRun::Paused {
            std::thread::yield_now();
        }
        let (_tell, told) = oneshot::channel();
        let began = tokio::time::Instant::now();
        settle(sleeper.id(), told, FINE_LOOKS).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
