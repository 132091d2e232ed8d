//! Where processes of the sandbox live: cgroups of their own, so that they can be counted,
//! killed and found again, also when nobody knows their numbers.
//!
//! Each host needs this for its own sake, too: hosts in one cgroup tree would share units of
//! the same name, and the first systemd's TasksMax would limit them all.
//!
//! Where the computer's PID 1 is systemd, cgroups are its property: each scope is then a
//! transient service with `Delegate=yes`. Elsewhere the directories are made directly, in the
//! unified tree and in each v1 hierarchy that is mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::error::At;
use crate::process::Process;
use crate::program::{SETSID, SYSTEMCTL, SYSTEMD_RUN, output_of, tail};
use crate::record::{Lock, lock};
use crate::{Error, Result, wait_for};

/// Killed processes are gone within milliseconds; a computer that swaps takes longer.
const KILL_BOUND: Duration = Duration::from_secs(30);
/// Of a program's output, what an error shows.
const SHOWN: usize = 3000;
/// Of a limited share of a processor.
const CPU_PERIOD_US: u64 = 100_000;
/// Top of all sandboxes in each hierarchy.
const TOP: &str = "fleet-sandbox";

/// Cgroups of one host or one member of etcd.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Directories that the sandbox makes itself, one in each hierarchy.
    Cgroups(Vec<PathBuf>),
    /// A transient service of the computer's systemd.
    Unit(String),
}

impl Scope {
    /// The scope that `what` of sandbox `name` gets on this computer.
    pub(crate) fn plan(name: &str, what: &str) -> Scope {
        // As sd_booted(3) finds out.
        if Path::new("/run/systemd/system").is_dir() {
            return Scope::Unit(format!("fleet-sandbox-{what}.service"));
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        Scope::Cgroups(
            hierarchies(&mounts)
                .iter()
                .map(|top| top.join(TOP).join(name).join(what))
                .collect(),
        )
    }

    /// Gives all of it so many percent of one processor, None: as much as there is. What is used up
    /// within a tenth of a second is waited for in the next.
    pub(crate) fn limit_cpu(&self, percent: Option<u32>) -> Result<()> {
        let directories = match self {
            Scope::Unit(unit) => {
                let quota = percent.map_or_else(String::new, |percent| format!("{percent}%"));
                let mut command = SYSTEMCTL.command()?;
                command
                    .args(["set-property", "--runtime", unit])
                    .arg(format!("CPUQuota={quota}"));
                return output_of(command, "").map(|_| ());
            }
            Scope::Cgroups(directories) => directories,
        };
        let quota = percent.map(|percent| u64::from(percent) * CPU_PERIOD_US / 100);
        let period = format!("{CPU_PERIOD_US}");
        for directory in directories {
            // The v1 hierarchy, and the unified one.
            let (v1, v2) = (
                directory.join("cpu.cfs_quota_us"),
                directory.join("cpu.max"),
            );
            if v1.exists() {
                fs::write(directory.join("cpu.cfs_period_us"), &period).at("write", &v1)?;
                let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
                return fs::write(&v1, quota).at("write", v1);
            }
            if v2.exists() {
                let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                return fs::write(&v2, format!("{quota} {period}")).at("write", v2);
            }
        }
        Err(Error::Invalid(
            "this computer has no cgroup controller for processors".to_owned(),
        ))
    }

    /// Starts a program in it, in a session of its own, as nobody's child, with its output
    /// appended to a file. Returns as soon as it is on its way.
    pub(crate) fn start(
        &self,
        argv: &[String],
        env: &[(&str, String)],
        output: &Path,
    ) -> Result<()> {
        match self {
            Scope::Cgroups(directories) => {
                make_cgroups(directories, &lock()?)?;
                let file = fs::File::options()
                    .create(true)
                    .append(true)
                    .open(output)
                    .at("open", output)?;
                let errors = file.try_clone().at("open", output)?;
                // The shell moves itself before it becomes the program: there is no moment at
                // which the program runs elsewhere. When a cgroup was removed meanwhile
                // (`down` beside us), it ends here.
                let mut command = Command::new("sh");
                command
                    .args(["-ec", r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@""#, "sh"])
                    .args(directories)
                    .arg("--")
                    .arg(SETSID.path()?)
                    .arg("--fork")
                    .args(argv)
                    .envs(env.iter().map(|(k, v)| (k, v)))
                    .stdin(std::process::Stdio::null())
                    .stdout(file)
                    .stderr(errors);
                let status = command.status().at("start", &argv[0])?;
                if !status.success() {
                    return Err(Error::Command {
                        command: argv.join(" "),
                        status: status.to_string(),
                        stderr: end_of(output),
                    });
                }
                Ok(())
            }
            Scope::Unit(unit) => {
                let output = format!("StandardOutput=append:{}", output.display());
                let properties = [
                    "Delegate=yes",
                    "TasksMax=infinity",
                    "KillMode=mixed",
                    // nspawn ends so when its host reboots.
                    "RestartForceExitStatus=133",
                    "SuccessExitStatus=133",
                    output.as_str(),
                    "StandardError=inherit",
                ];
                let mut command = SYSTEMD_RUN.command()?;
                command
                    .args(["--quiet", "--collect", "--service-type=exec"])
                    .arg(format!("--unit={unit}"))
                    .args(properties.map(|property| format!("--property={property}")))
                    .args(
                        env.iter()
                            .map(|(key, value)| format!("--setenv={key}={value}")),
                    )
                    .arg("--")
                    .args(argv);
                output_of(command, "").map(|_| ())
            }
        }
    }

    /// Its processes, as the unified tree (or the first hierarchy) shows them.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mut pids: Vec<i32> = Vec::new();
        if let Some(directory) = self.directory() {
            visit(&directory, &mut |directory| {
                let list = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
                pids.extend(
                    list.split_whitespace()
                        .filter_map(|pid| pid.parse::<i32>().ok()),
                );
            });
        }
        pids.into_iter()
            .filter_map(Process::find)
            .filter(Process::is_alive)
            .collect()
    }

    /// Signals every process in it.
    pub(crate) fn signal(&self, signal: Signal) {
        for process in self.processes() {
            process.signal(signal);
        }
    }

    /// Kills everything in it and removes it. Nothing to do is no error.
    pub(crate) fn kill(&self) -> Result<()> {
        match self {
            Scope::Cgroups(directories) => {
                for directory in directories {
                    wait_for(
                        &format!("the end of cgroup {}", directory.display()),
                        KILL_BOUND,
                        || kill_and_remove(directory),
                    )?;
                }
                let lock = lock()?;
                for directory in directories {
                    remove_parents(directory, &lock);
                }
                Ok(())
            }
            Scope::Unit(unit) => {
                // Exit codes tell "not loaded", too, which is what is wanted.
                let _ = SYSTEMCTL.run(&["kill", "--signal=KILL", "--kill-whom=all", unit]);
                let _ = SYSTEMCTL.run(&["stop", unit]);
                let _ = SYSTEMCTL.run(&["reset-failed", unit]);
                wait_for(&format!("the end of {unit}"), KILL_BOUND, || {
                    match self.processes().len() {
                        0 => Ok(()),
                        n => Err(format!("{n} processes")),
                    }
                })
            }
        }
    }

    /// Its directory in the unified tree, or in the first hierarchy where there is none.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        match self {
            Scope::Cgroups(directories) => directories
                .iter()
                .find(|d| d.join("cgroup.events").exists())
                .or(directories.first())
                .cloned(),
            Scope::Unit(unit) => {
                let path = SYSTEMCTL
                    .run(&["show", "--property=ControlGroup", "--value", unit])
                    .ok()?;
                let path = path.trim().trim_start_matches('/');
                (!path.is_empty()).then(|| unified_mount().join(path))
            }
        }
    }
}

/// Where the unified hierarchy is mounted.
pub(crate) fn unified_mount() -> &'static Path {
    static MOUNT: OnceLock<PathBuf> = OnceLock::new();
    MOUNT.get_or_init(|| {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        hierarchies(&mounts)
            .into_iter()
            .next()
            .unwrap_or_else(|| "/sys/fs/cgroup".into())
    })
}

/// Where hierarchies are mounted, the unified one first.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    let mounted = |kind: &str| {
        let kind = kind.to_owned();
        mounts.lines().filter_map(move |line| {
            let mut fields = line.split(' ').skip(1);
            let (at, fs_type) = (fields.next()?, fields.next()?);
            // Only the usual place: a container engine may have mounted others for its own.
            (fs_type == kind && at.starts_with("/sys/fs/cgroup")).then(|| PathBuf::from(at))
        })
    };
    mounted("cgroup2").chain(mounted("cgroup")).collect()
}

/// Makes cgroups and those above them, each so that it accepts processes.
///
/// Under the lock: v1's cpuset starts empty, an empty one accepts no process, and between two
/// sandboxes that are made at the same instant one would copy the other's while that is empty.
fn make_cgroups(directories: &[PathBuf], _: &Lock) -> Result<()> {
    for directory in directories {
        let mut chain: Vec<&Path> = directory.ancestors().collect();
        chain.reverse();
        for path in chain {
            match fs::create_dir(path) {
                Err(e) if path.exists() || e.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other.at("make cgroup", path)?,
            }
            fill_cpuset(path)?;
        }
    }
    Ok(())
}

/// Gives an empty cpuset what the one above has.
fn fill_cpuset(path: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = path.join(file);
        if let Some(above) = path.parent()
            && path.join("cgroup.clone_children").exists()
            && fs::read_to_string(&own).is_ok_and(|value| value.trim().is_empty())
            && let Ok(value) = fs::read_to_string(above.join(file))
        {
            fs::write(&own, value).at("write", own)?;
        }
    }
    Ok(())
}

/// The end of what a program has said.
fn end_of(output: &Path) -> String {
    let said = fs::read(output).unwrap_or_default();
    tail(&String::from_utf8_lossy(&said), SHOWN)
}

/// One look: kills what is in the cgroup, removes it and those below. `Err` says what is left.
fn kill_and_remove(directory: &Path) -> std::result::Result<(), String> {
    if !directory.exists() {
        return Ok(());
    }
    // Kills the whole subtree at once, forks included; v1 and kernels before 5.14 have it not.
    if fs::write(directory.join("cgroup.kill"), "1").is_err() {
        visit(directory, &mut |directory| {
            let list = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            for process in list
                .split_whitespace()
                .filter_map(|pid| Process::find(pid.parse().ok()?))
            {
                process.signal(Signal::KILL);
            }
        });
    }
    let mut left = Ok(());
    visit(directory, &mut |directory| {
        if let Err(e) = fs::remove_dir(directory)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            left = Err(format!("{}: {e}", directory.display()));
        }
    });
    left
}

/// Removes the directories above, as far as they are empty. Under the lock: another sandbox may be
/// making its own in there.
fn remove_parents(directory: &Path, _: &Lock) {
    for path in directory.ancestors().skip(1) {
        let inside = path.file_name().is_some_and(|n| n == TOP)
            || path.parent().is_some_and(|p| p.ends_with(TOP));
        if !inside || fs::remove_dir(path).is_err() {
            return;
        }
    }
}

/// Calls `see` for each directory of a cgroup tree, the deepest first.
fn visit(directory: &Path, see: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            visit(&entry.path(), see);
        }
    }
    see(directory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_that_are_made_at_the_same_instant_can_all_start_processes() {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let directory = tempfile::tempdir().unwrap();
        for round in 0..20 {
            // A top of its own, which none of them finds made.
            let top = format!("{TOP}-race-{}-{round}", std::process::id());
            let scope = |of: usize| {
                let paths = hierarchies(&mounts);
                let own = |mount: &PathBuf| mount.join(&top).join(of.to_string()).join("etcd");
                Scope::Cgroups(paths.iter().map(own).collect())
            };
            let at_once = std::sync::Barrier::new(4);
            let results: Vec<Result<()>> = std::thread::scope(|threads| {
                let threads: Vec<_> = (0..4)
                    .map(|of| {
                        let (scope, output) = (scope(of), directory.path().join(of.to_string()));
                        let at_once = &at_once;
                        threads.spawn(move || {
                            at_once.wait();
                            scope.start(&["true".to_owned()], &[], &output)
                        })
                    })
                    .collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            for of in 0..results.len() {
                scope(of).kill().unwrap();
            }
            for mount in hierarchies(&mounts) {
                for of in 0..results.len() {
                    let _ = fs::remove_dir(mount.join(&top).join(of.to_string()));
                }
                let _ = fs::remove_dir(mount.join(&top));
            }
            for result in results {
                result.unwrap();
            }
        }
    }

    #[test]
    fn the_unified_hierarchy_comes_first() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup /elsewhere/pids cgroup rw,pids 0 0\n";
        assert_eq!(
            hierarchies(mounts),
            [
                PathBuf::from("/sys/fs/cgroup/unified"),
                PathBuf::from("/sys/fs/cgroup/cpu")
            ]
        );
    }
}
