//! Failpoints: at each boundary where something is written or sent, a named place at which a test
//! has fleetd fail, crash or dawdle. Only builds with debug assertions have them; in what is
//! shipped these functions do nothing but their work, and a test looks that it is so.
//!
//! `FLEET_FAILPOINTS=file.unit.rename=crash-before` is one place and what happens there, the first
//! time that it is reached; several are separated by commas, `*` stands for all of them.
//!
//! | | |
//! |---|---|
//! | `error` | nothing is done, and that is told |
//! | `lost` | it is done, and an error is told: the answer was lost |
//! | `crash-before`, `crash-after` | fleetd is killed before or after it is done |
//! | `delay` | it is done late |

#[cfg(all(debug_assertions, not(fleet_sim)))]
pub use armed::POINTS;

/// What a failpoint made of the work.
#[cfg_attr(
    not(all(debug_assertions, not(fleet_sim))),
    expect(dead_code, reason = "nothing fails on purpose in what is shipped")
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It was not done.
    #[error("a failpoint kept it from being done")]
    NotDone,
    /// It was done, and nobody is told.
    #[error("a failpoint lost the answer")]
    Lost,
}

/// Work on files, at a failpoint.
#[cfg(all(debug_assertions, not(fleet_sim)))]
pub(crate) fn file<T>(
    point: &str,
    work: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    let armed = armed::hit(point);
    armed.before(std::io::Error::other)?;
    armed.dawdle();
    let done = work();
    armed.after(std::io::Error::other)?;
    done
}

/// Work that waits for somebody else, at the failpoint `group.name`.
#[cfg(all(debug_assertions, not(fleet_sim)))]
pub(crate) async fn call<T, E>(
    group: &str,
    name: &str,
    work: impl Future<Output = Result<T, E>>,
    error: impl Fn(Failed) -> E,
) -> Result<T, E> {
    let armed = armed::hit(&format!("{group}.{name}"));
    armed.before(&error)?;
    armed.wait().await;
    let done = work.await;
    armed.after(&error)?;
    done
}

/// Only the work.
#[cfg(not(all(debug_assertions, not(fleet_sim))))]
pub(crate) fn file<T>(_: &str, work: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    work()
}

/// Only the work.
#[cfg(not(all(debug_assertions, not(fleet_sim))))]
pub(crate) async fn call<T, E>(
    _: &str,
    _: &str,
    work: impl Future<Output = Result<T, E>>,
    _: impl Fn(Failed) -> E,
) -> Result<T, E> {
    work.await
}

#[cfg(all(debug_assertions, not(fleet_sim)))]
mod armed {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    use super::Failed;

    /// All of them. A place that is not listed here is an error of whoever made it.
    pub const POINTS: &[&str] = &[
        "api.reply",
        "file.bound.remove",
        "file.bound.rename",
        "file.bound.write",
        "file.choice.write",
        "file.leased.remove",
        "file.leased.rename",
        "file.leased.write",
        "file.link.make",
        "file.link.remove",
        "file.link.rename",
        "file.links.touch",
        "file.record.remove",
        "file.record.rename",
        "file.record.write",
        "file.run.rename",
        "file.run.write",
        "file.unit.remove",
        "file.unit.rename",
        "file.unit.write",
        "store.commit.accept-store",
        "store.commit.assignments",
        "store.commit.cluster",
        "store.commit.events",
        "store.commit.leader",
        "store.commit.machine-wishes",
        "store.commit.machines",
        "store.commit.members",
        "store.commit.placements",
        "store.commit.states",
        "store.commit.thaw",
        "store.commit.units",
        "store.compact",
        "store.grant",
        "store.keep_alive",
        "store.read",
        "store.read_keys",
        "store.revoke",
        "store.watch",
        "systemd.DisableUnitFiles",
        "systemd.EnableUnitFiles",
        "systemd.Get",
        "systemd.GetAll",
        "systemd.GetUnit",
        "systemd.ListUnitsByNames",
        "systemd.ListUnitsByPatterns",
        "systemd.Reload",
        "systemd.ResetFailedUnit",
        "systemd.RestartUnit",
        "systemd.StartTransientUnit",
        "systemd.StartUnit",
        "systemd.StopUnit",
        "systemd.Subscribe",
    ];

    /// Where the tests say what shall happen.
    const VARIABLE: &str = "FLEET_FAILPOINTS";
    /// Longer than a keepalive waits for, shorter than a lease lasts.
    const DELAY: Duration = Duration::from_millis(400);

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Mode {
        Error,
        Lost,
        CrashBefore,
        CrashAfter,
        Delay,
    }

    /// What happens this time at a failpoint.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Hit(Option<Mode>);

    /// A failpoint is reached.
    pub(super) fn hit(point: &str) -> Hit {
        static ARMED: OnceLock<Vec<(String, Mode)>> = OnceLock::new();
        static SPENT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        debug_assert!(POINTS.contains(&point), "{point} is no listed failpoint");
        let armed = ARMED.get_or_init(|| parse(&std::env::var(VARIABLE).unwrap_or_default()));
        let is_this = |(name, _): &&(String, Mode)| name == "*" || name == point;
        let Some((_, mode)) = armed.iter().find(is_this) else {
            return Hit(None);
        };
        let mut spent = SPENT.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = spent.insert(point.to_owned());
        drop(spent);
        if is_first {
            // A test sees by this that what it has armed was reached.
            tracing::warn!(point, "failpoint reached");
        }
        Hit(is_first.then_some(*mode))
    }

    /// # Panics
    /// The test is wrong: it would test nothing.
    fn parse(text: &str) -> Vec<(String, Mode)> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        let armed = parts.map(|part| {
            let (point, mode) = part.split_once('=').unwrap_or((part, ""));
            let mode = match mode {
                "error" => Mode::Error,
                "lost" => Mode::Lost,
                "crash-before" => Mode::CrashBefore,
                "crash-after" => Mode::CrashAfter,
                "delay" => Mode::Delay,
                _ => panic!("{VARIABLE}: {part} does not say what shall happen"),
            };
            assert!(
                point == "*" || POINTS.contains(&point),
                "{VARIABLE}: {point}"
            );
            (point.to_owned(), mode)
        });
        armed.collect()
    }

    impl Hit {
        pub(super) fn before<E>(self, error: impl Fn(Failed) -> E) -> Result<(), E> {
            match self.0 {
                Some(Mode::Error) => Err(error(Failed::NotDone)),
                Some(Mode::CrashBefore) => crash(),
                _ => Ok(()),
            }
        }

        pub(super) fn after<E>(self, error: impl Fn(Failed) -> E) -> Result<(), E> {
            match self.0 {
                Some(Mode::Lost) => Err(error(Failed::Lost)),
                Some(Mode::CrashAfter) => crash(),
                _ => Ok(()),
            }
        }

        pub(super) fn dawdle(self) {
            if self.0 == Some(Mode::Delay) {
                #[expect(clippy::disallowed_methods, reason = "the thread is what is slow here")]
                std::thread::sleep(DELAY);
            }
        }

        pub(super) async fn wait(self) {
            if self.0 == Some(Mode::Delay) {
                tokio::time::sleep(DELAY).await;
            }
        }
    }

    /// As `kill -9` does it: nobody gets to tidy up.
    fn crash() -> ! {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// What writes or sends, wherever it stands.
    const BOUNDARIES: [&str; 7] = [
        "fs::write(",
        "fs::rename(",
        "fs::remove_file(",
        "OpenOptions::new()",
        "symlink(",
        "utimensat(",
        ".call_method(",
    ];

    /// Boundaries whose failpoint is not beside them: file, boundary, why.
    const ELSEWHERE: [(&str, &str, &str); 7] = [
        (
            "units/files.rs",
            "OpenOptions::new()",
            "write_new, behind the failpoint of its kind",
        ),
        (
            "units/dbus.rs",
            ".call_method(",
            "in the one function through which all calls go",
        ),
        (
            "units/connection.rs",
            ".call_method(",
            "asks the bus before systemd is reached",
        ),
        (
            "listen.rs",
            "fs::remove_file(",
            "a socket that nobody serves",
        ),
        (
            "units/logind.rs",
            ".call_method(",
            "asks logind for a delay: without it the machine shuts down all the same",
        ),
        (
            "store/embedded/file.rs",
            "OpenOptions::new()",
            "behind store.commit",
        ),
        (
            "store/embedded.rs",
            "OpenOptions::new()",
            "behind store.commit",
        ),
    ];

    fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_of_tests = name.starts_with("tests") || name.starts_with("conformance");
            if is_of_tests || matches!(name, "sim.rs" | "failpoint.rs" | "fuzz.rs") {
                continue;
            }
            if path.is_dir() {
                sources(&path, found);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
                found.push((path.display().to_string(), code.to_owned()));
            }
        }
    }

    /// A new boundary without a failpoint is noticed here.
    #[test]
    fn every_boundary_has_its_failpoint_beside_it() {
        let mut found = Vec::new();
        sources(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        let mut n_boundaries = 0;
        let mut without = Vec::new();
        for (path, code) in &found {
            let lines: Vec<&str> = code.lines().collect();
            for (idx, line) in lines.iter().enumerate() {
                let Some(boundary) = BOUNDARIES.iter().find(|b| line.contains(**b)) else {
                    continue;
                };
                n_boundaries += 1;
                let beside = &lines[idx.saturating_sub(2)..(idx + 2).min(lines.len())];
                let is_listed =
                    |(file, what, _): &(&str, &str, &str)| path.ends_with(file) && what == boundary;
                if !beside.iter().any(|line| line.contains("failpoint::"))
                    && !ELSEWHERE.iter().any(is_listed)
                {
                    without.push(format!("{path}:{}: {}", idx + 1, line.trim()));
                }
            }
        }
        assert!(n_boundaries >= 10, "{n_boundaries}");
        assert_eq!(without, [""; 0]);
    }

    /// All that is asked of the store passes a failpoint.
    #[test]
    fn every_method_of_the_store_has_its_failpoint() {
        let methods = include_str!("store/mod.rs")
            .split("pub trait Store")
            .nth(1)
            .unwrap()
            .lines()
            .filter_map(|line| line.trim().strip_prefix("async fn ")?.split('(').next());
        let measured = include_str!("store/measured.rs");
        let mut n_methods = 0;
        for method in methods {
            n_methods += 1;
            let body = measured.split(&format!("async fn {method}(")).nth(1);
            let body = body.and_then(|rest| rest.split("\n    }").next()).unwrap();
            assert!(body.contains("failpoint::call(\"store"), "{method}");
        }
        assert_eq!(n_methods, 9);
    }
}
