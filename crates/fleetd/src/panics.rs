//! A panic of any task ends the process.
//!
//! A fleetd that has lost one of its parts looks alive and does not do its work: its machine would
//! be present with nobody to start a unit. systemd starts the next one within half a second, and
//! that one goes on with the same lease and touches no unit.

/// From now on a panic on any thread is told as ever, and then ends the process as a crash.
pub fn end_the_process() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Set for the process that is to end.
    const CHILD: &str = "FLEET_TEST_PANICS";
    const SIGABRT: i32 = 6;

    #[test]
    fn a_panic_of_any_task_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            end_the_process();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                tokio::spawn(async { panic!("a task that nobody waits for") });
                std::future::pending::<()>().await
            });
        }
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "panics::tests::a_panic_of_any_task_ends_the_process",
            ])
            .arg("--nocapture")
            .env(CHILD, "1")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&child.stderr);
        assert_eq!(
            child.status.signal(),
            Some(SIGABRT),
            "{:?} {stderr}",
            child.status
        );
        assert!(stderr.contains("a task that nobody waits for"), "{stderr}");
    }
}
