//! One host: commands inside it, its files, its power and its cable.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rustix::fs::{
    CWD, FlockOperation, Mode, OFlags, ResolveFlags, flock, mkdirat, openat, openat2, renameat,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::error::At;
use crate::process::Process;
use crate::program::{JOURNALCTL, NSENTER, tail};
use crate::record::{HostRecord, Loss, claim_for_use, load, update_host};
use crate::scope::unified_mount;
use crate::tree::PATH;
use crate::wait::Deadline;
use crate::{Error, Result, network, nspawn, wait_for};

/// A command inside a host that takes longer hangs, unless the caller gives it more.
const EXEC_BOUND: Duration = Duration::from_secs(60);
/// How often a command that has not ended is told to go on, should it have been stopped.
const NUDGE_EVERY: Duration = Duration::from_millis(200);
/// What is kept of a command's output, for each of its two streams.
const OUTPUT_MAX: u64 = 64 << 20;
/// Of a failed command's output, what an error shows.
const SHOWN: usize = 4000;

/// A host of a sandbox. Cheap: it reads the record whenever it needs to know.
#[derive(Clone, Debug)]
pub struct Host {
    sandbox: String,
    name: String,
}

/// What a command inside a host left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Its exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// True for exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

impl Host {
    /// The host of this name in any sandbox.
    ///
    /// # Errors
    /// [`Error::NoSuchHost`].
    pub fn find(name: &str) -> Result<Host> {
        crate::record::list()?
            .into_iter()
            .find(|r| r.hosts.iter().any(|h| h.name == name))
            .map(|record| Host::new(&record.name, name))
            .ok_or_else(|| Error::NoSuchHost {
                host: name.to_owned(),
            })
    }

    pub(crate) fn new(sandbox: &str, name: &str) -> Host {
        Host {
            sandbox: sandbox.to_owned(),
            name: name.to_owned(),
        }
    }

    /// What is recorded of it.
    ///
    /// # Errors
    /// When its sandbox is gone.
    pub fn record(&self) -> Result<HostRecord> {
        let record = load(&self.sandbox)?;
        let host = record.hosts.into_iter().find(|h| h.name == self.name);
        host.ok_or_else(|| Error::NoSuchHost {
            host: self.name.clone(),
        })
    }

    /// One after the other switches it on and off and plugs its cable; freed when dropped.
    fn turn(&self) -> Result<File> {
        let root = self.record()?.root;
        let directory = File::open(&root).at("open", &root)?;
        flock(&directory, FlockOperation::LockExclusive).at("lock", root)?;
        Ok(directory)
    }

    /// Its name, also its hostname.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its machine id: 32 hexadecimal digits, the same at every boot.
    ///
    /// # Errors
    /// When its sandbox is gone.
    pub fn machine_id(&self) -> Result<String> {
        Ok(self.record()?.machine_id)
    }

    /// Its address, the same at every boot.
    ///
    /// # Errors
    /// When its sandbox is gone.
    pub fn address(&self) -> Result<Ipv4Addr> {
        Ok(self.record()?.address)
    }

    /// True while its systemd runs.
    ///
    /// # Errors
    /// When its sandbox is gone.
    pub fn is_on(&self) -> Result<bool> {
        Ok(nspawn::leader(&self.record()?).is_ok())
    }

    /// Runs a command inside, at most for a minute. An exit code other than 0 is no error.
    ///
    /// # Errors
    /// [`Error::HostOff`]; [`Error::Timeout`].
    pub fn exec<A: AsRef<OsStr>>(&self, argv: &[A]) -> Result<Output> {
        self.exec_with(argv, None, EXEC_BOUND)
    }

    /// The same with bytes for its standard input (None: nothing) and another bound.
    ///
    /// # Errors
    /// As `exec`.
    pub fn exec_with<A: AsRef<OsStr>>(
        &self,
        argv: &[A],
        input: Option<&[u8]>,
        bound: Duration,
    ) -> Result<Output> {
        run_inside(&self.record()?, argv, input, bound)
    }

    /// Runs a command inside that must succeed; returns its standard output without the last newline.
    ///
    /// # Errors
    /// [`Error::Command`] with what it said when its exit code is not 0.
    pub fn run<A: AsRef<OsStr>>(&self, argv: &[A]) -> Result<String> {
        let output = self.exec(argv)?;
        if output.success() {
            return Ok(output.stdout.trim_end_matches('\n').to_owned());
        }
        let line: Vec<_> = argv.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        Err(Error::Command {
            command: format!("{}: {}", self.name, line.join(" ")),
            status: format!("exit code {}", output.code),
            stderr: tail(&format!("{}\n{}", output.stdout, output.stderr), SHOWN),
        })
    }

    /// A command that will run inside with the caller's own standard streams, to `exec` or to spawn.
    ///
    /// # Errors
    /// [`Error::HostOff`].
    pub fn command<A: AsRef<OsStr>>(&self, argv: &[A]) -> Result<Command> {
        inside(&self.record()?, argv)
    }

    /// Waits until a command inside succeeds; a failure shows what it said last.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_until<A: AsRef<OsStr>>(&self, bound: Duration, argv: &[A]) -> Result<Output> {
        let line: Vec<_> = argv.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        wait_for(
            &format!("`{}` on {}", line.join(" "), self.name),
            bound,
            || match self.exec(argv) {
                Ok(output) if output.success() => Ok(output),
                Ok(output) => Err(format!(
                    "exit code {}: {}{}",
                    output.code, output.stdout, output.stderr
                )),
                Err(e) => Err(e.to_string()),
            },
        )
    }

    /// Cuts its power: every process dies at once, the network hears no farewell.
    ///
    /// # Errors
    /// When something of it could not be ended.
    pub fn kill(&self) -> Result<()> {
        let claim = claim_for_use(&self.sandbox)?;
        let _turn = self.turn()?;
        nspawn::power_off(&claim.record, &self.record()?)?;
        update_host(&self.sandbox, &self.name, |h| h.leader = None)
    }

    /// Boots it: same machine id, same address, /etc and /var as they were, /run empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is on; [`Error::Boot`] with the end of its console.
    pub fn boot(&self) -> Result<()> {
        let claim = claim_for_use(&self.sandbox)?;
        let _turn = self.turn()?;
        let host = self.record()?;
        if nspawn::leader(&host).is_ok() {
            return Err(Error::Invalid(format!(
                "host {0} is on: `fleet-sandbox kill {0}` cuts its power",
                self.name
            )));
        }
        nspawn::power_on(&claim.record, &host)
    }

    /// Takes its network cable out. It stays out over power cut and boot.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn cut(&self) -> Result<()> {
        self.set_cable(true, None)
    }

    /// Has frames lost in its network cable, while its link stays up: nobody gets an error, and
    /// what was sent before is never acknowledged. It stays so over power cut and boot.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn lose(&self, loss: Loss) -> Result<()> {
        self.set_cable(false, Some(loss))
    }

    /// Puts its network cable back, and has it carry everything.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn heal(&self) -> Result<()> {
        self.set_cable(false, None)
    }

    fn set_cable(&self, cut: bool, loss: Option<Loss>) -> Result<()> {
        let _claim = claim_for_use(&self.sandbox)?;
        let _turn = self.turn()?;
        update_host(&self.sandbox, &self.name, |h| {
            (h.cut, h.loss) = (cut, loss);
        })?;
        let host = self.record()?;
        // A host that is off gets its cable at boot.
        if host.leader.is_some() {
            network::set_cable(&host)
        } else {
            Ok(())
        }
    }

    /// Gives it so many percent of one processor, all its processes together; None: as much as there
    /// is.
    ///
    /// # Errors
    /// When the computer cannot do so.
    pub fn limit_cpu(&self, percent: Option<u32>) -> Result<()> {
        self.record()?.scope.limit_cpu(percent)
    }

    /// Its journal, all boots, as journalctl prints it with these arguments; also when it is off.
    ///
    /// # Errors
    /// When journalctl fails.
    pub fn journal(&self, args: &[&str]) -> Result<String> {
        let directory = self.record()?.root.join("var/log/journal");
        let mut all = vec![
            "--directory",
            directory.to_str().unwrap_or_default(),
            "--no-pager",
            "--quiet",
        ];
        all.extend(args);
        JOURNALCTL.run(&all)
    }

    /// Writes a file inside (on its disk when it is off), directories too; the file is there whole or as before.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_file(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> Result<()> {
        self.write_with_mode(path.as_ref(), contents.as_ref(), 0o644)
    }

    /// Puts a file of the computer into it as a program (mode 0755), replacing what is there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn install(&self, from: &Path, to: impl AsRef<Path>) -> Result<()> {
        let bytes = std::fs::read(from).at("read", from)?;
        self.write_with_mode(to.as_ref(), &bytes, 0o755)
    }

    fn write_with_mode(&self, path: &Path, contents: &[u8], mode: u32) -> Result<()> {
        let root = self.root()?;
        let parent = make_directories(&root, path.parent().unwrap_or(Path::new("/")))?;
        let name = path.file_name().unwrap_or_default();
        let mut new = name.to_owned();
        new.push(".new");
        let flags =
            OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, &new, flags, Mode::from_raw_mode(mode)).at("make", path)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).at("set the mode of", path)?;
        File::from(file).write_all(contents).at("write", path)?;
        renameat(&parent, &new, &parent, name).at("rename", path)
    }

    /// Reads a file inside (from its disk when it is off).
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let file = open_in(&self.root()?, path, OFlags::RDONLY).at("read", path)?;
        let mut bytes = Vec::new();
        File::from(file)
            .take(OUTPUT_MAX)
            .read_to_end(&mut bytes)
            .at("read", path)?;
        Ok(bytes)
    }

    /// The root directory as the host sees it, /run and /tmp included while it is on.
    /// Where a path of this host is on the computer, until its power is cut: for who connects to one
    /// of its unix sockets, `/run` included.
    ///
    /// # Errors
    /// The host has no record.
    pub fn on_computer(&self, path: &str) -> Result<PathBuf> {
        Ok(self.root_path()?.join(path.trim_start_matches('/')))
    }

    fn root_path(&self) -> Result<PathBuf> {
        let host = self.record()?;
        Ok(match nspawn::leader(&host) {
            Ok(Process { pid, .. }) => format!("/proc/{pid}/root").into(),
            Err(_) => host.root,
        })
    }

    fn root(&self) -> Result<OwnedFd> {
        let path = self.root_path()?;
        openat(
            CWD,
            &path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .at("open", path)
    }
}

/// Opens a path as the host would: absolute links stay inside its root.
fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
}

fn make_directories(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    if let Ok(directory) = open_in(root, path, flags) {
        return Ok(directory);
    }
    let parent = make_directories(root, path.parent().unwrap_or(Path::new("/")))?;
    match mkdirat(
        &parent,
        path.file_name().unwrap_or_default(),
        Mode::from_raw_mode(0o755),
    ) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e).at("make directory", path),
    }
    open_in(root, path, flags).at("open", path)
}

/// The command line that runs something inside a host: a shell that joins a cgroup of the
/// host's own (so that a power cut and the accounts include it), then becomes nsenter.
fn inside<A: AsRef<OsStr>>(host: &HostRecord, argv: &[A]) -> Result<Command> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let leader = nspawn::leader(host)?;
    let pid = leader.pid.to_string();
    let nsenter = NSENTER.path()?;
    let mut command = Command::new("sh");
    match exec_cgroup(leader) {
        Some(cgroup) => command
            .args(["-c", r#"echo $$ >"$0/cgroup.procs"; exec "$@""#])
            .arg(cgroup)
            .arg(nsenter),
        None => command.args(["-c", r#"exec "$@""#, "sh"]).arg(nsenter),
    };
    command
        .args([
            "--target", &pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root",
            "--wd", "--",
        ])
        .args(argv)
        .env_clear()
        .envs([
            ("PATH", PATH),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("USER", "root"),
            ("LOGNAME", "root"),
        ])
        .env(
            "TERM",
            std::env::var_os("TERM").unwrap_or_else(|| "dumb".into()),
        );
    Ok(command)
}

/// `exec.scope`, a sibling of the host's init.scope: its systemd leaves it alone.
fn exec_cgroup(leader: Process) -> Option<std::path::PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", leader.pid)).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = unified_mount()
        .join(path.strip_suffix("/init.scope").unwrap_or(path))
        .join("sandbox-exec");
    let _ = std::fs::create_dir(&path);
    path.exists().then_some(path)
}

pub(crate) fn run_inside<A: AsRef<OsStr>>(
    host: &HostRecord,
    argv: &[A],
    input: Option<&[u8]>,
    bound: Duration,
) -> Result<Output> {
    let deadline = Deadline::after(bound);
    let mut command = inside(host, argv)?;
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .at("start", "sh")?;
    let (done, ended) = mpsc::channel();
    if let (Some(mut stdin), Some(bytes)) = (child.stdin.take(), input.map(<[u8]>::to_vec)) {
        // A command need not read its input.
        std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    }
    for (index, stream) in [
        child.stdout.take().map(into_read),
        child.stderr.take().map(into_read),
    ]
    .into_iter()
    .enumerate()
    {
        let (done, mut stream) = (
            done.clone(),
            stream.unwrap_or_else(|| Box::new(std::io::empty())),
        );
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = (&mut stream).take(OUTPUT_MAX).read_to_end(&mut bytes);
            // Nobody listens any more when the bound has passed.
            let _ = done.send((index, bytes));
        });
    }
    let mut streams = [Vec::new(), Vec::new()];
    for _ in 0..streams.len() {
        let Some((index, bytes)) = receive(&ended, deadline, || go_on(&child)) else {
            let _ = child.kill();
            let _ = child.wait();
            let line: Vec<_> = argv.iter().map(|a| a.as_ref().to_string_lossy()).collect();
            return Err(deadline.error(
                &format!("`{}` on {}", line.join(" "), host.name),
                "it still runs",
            ));
        };
        streams[index] = bytes;
    }
    let status = child.wait().at("wait for", "nsenter")?;
    let [stdout, stderr] = streams.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Output {
        code: exit_code(status),
        stdout,
        stderr,
    })
}

/// The next message until the deadline; `nudge` is called now and then as long as there is none.
fn receive<T>(from: &mpsc::Receiver<T>, deadline: Deadline, nudge: impl Fn()) -> Option<T> {
    loop {
        let remaining = deadline.remaining();
        match from.recv_timeout(remaining.min(NUDGE_EVERY)) {
            Ok(message) => return Some(message),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if remaining.is_zero() => return None,
            Err(RecvTimeoutError::Timeout) => nudge(),
        }
    }
}

/// Has a stopped nsenter go on: it stops itself with its command, and a host that shuts down stops
/// whatever runs in it. The host is gone then, and nobody is left to say so to nsenter.
fn go_on(nsenter: &Child) {
    // It may have ended meanwhile; it has not been waited for, so that its number is still its own.
    let _ = kill_process(Pid::from_child(nsenter), Signal::CONT);
}

fn into_read<R: Read + Send + 'static>(stream: R) -> Box<dyn Read + Send> {
    Box::new(stream)
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .unwrap_or(-1)
}
