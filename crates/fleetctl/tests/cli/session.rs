//! Terminal sessions: the real binary against a fake fleetd. A session's text is what a person
//! would see: `$ command`, what it prints on stdout, `2> ` and what it prints on stderr, and the
//! exit status unless it is 0.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use tokio::net::UnixListener;

use crate::fake::{self, Cluster, H1, H2, Shared, machine};
use crate::{engine, stage};

pub(crate) const HELLO: &str =
    "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/sleep 9\n";

/// Prints the options that tell who is meant, and the command.
const SSH: &str = "#!/bin/sh
shown=ssh
while [ \"$1\" != -- ]; do
    case $1 in
    -o)
        shift
        [ -z \"$SSH_SHOWS\" ] || shown=\"$shown $1\" ;;
    *) shown=\"$shown $1\" ;;
    esac
    shift
done
shift
echo \"$shown $*\"
exit ${SSH_STATUS:-0}
";

/// A directory with unit files, a cluster, and what has been typed.
pub(crate) struct Session {
    dir: tempfile::TempDir,
    pub(crate) cluster: Shared,
    /// Ends with the session.
    server: Option<(
        tokio::sync::oneshot::Sender<()>,
        std::thread::JoinHandle<()>,
    )>,
    transcript: String,
    /// What is typed and shown in the place of what differs from run to run.
    names: Vec<(&'static str, String)>,
}

impl Session {
    /// Two machines, and a fleetd that speaks v2.
    pub(crate) fn new() -> Session {
        Session::start(true)
    }

    /// Two machines, and an original fleetd.
    pub(crate) fn with_original() -> Session {
        Session::start(false)
    }

    /// fleetd's own API over a store in memory, with somebody who plays engine and agent.
    pub(crate) fn with_fleetd() -> Session {
        Session::served_by(Cluster::default(), |_, listener| stage::serve(listener))
    }

    /// As [`Session::with_fleetd`], with fleetd's engine over two machines.
    pub(crate) fn with_engine() -> Session {
        Session::served_by(Cluster::default(), engine::serve)
    }

    /// [`Session::new`] with [`Session::three_units`] and [`Session::with_ssh`].
    pub(crate) fn with_units_and_ssh() -> Session {
        let mut session = Session::new();
        session.with_ssh().three_units();
        session
    }

    /// [`Session::with_units_and_ssh`], and a fleetd that asks machines.
    pub(crate) fn with_machines() -> Session {
        let mut session = Session::with_units_and_ssh();
        session.cluster().asks_machines = true;
        session
    }

    pub(crate) fn cluster(&mut self) -> std::sync::MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }

    fn start(has_v2: bool) -> Session {
        let metadata = [("zone", "z1"), ("hostname", "h2")];
        let cluster = Cluster {
            has_v2,
            machines: vec![
                machine(H1, "172.30.1.2", "present", &[("hostname", "h1")]),
                machine(H2, "172.30.1.3", "present", &metadata),
            ],
            ..Cluster::default()
        };
        Session::served_by(cluster, fake::serve)
    }

    fn served_by<Serving: Future<Output = ()>>(
        cluster: Cluster,
        serve: impl FnOnce(Shared, UnixListener) -> Serving + Send + 'static,
    ) -> Session {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Arc::new(Mutex::new(cluster));
        let socket = dir.path().join("fleet.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = std::thread::spawn({
            let cluster = cluster.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(async {
                    let listener = UnixListener::from_std(listener).unwrap();
                    tokio::select! {
                        () = serve(cluster, listener) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        let dir_shown = dir.path().display().to_string();
        Session {
            dir,
            cluster,
            server: Some((stop, server)),
            transcript: String::new(),
            names: vec![("DIR", dir_shown)],
        }
    }

    /// From now on `name` stands for `value`, in what is typed and in what is shown.
    pub(crate) fn name(&mut self, name: &'static str, value: &str) -> &mut Session {
        self.names.push((name, value.to_owned()));
        self
    }

    pub(crate) fn file(&self, path: &str, text: &str) -> &Session {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// From now on `ssh` is a script that says what it is asked for.
    pub(crate) fn with_ssh(&mut self) -> &mut Session {
        use std::os::unix::fs::PermissionsExt;
        self.file("ssh", SSH);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.dir.path().join("ssh"), mode).unwrap();
        self
    }

    /// One that is launched, one that is not, and a global one.
    pub(crate) fn three_units(&self) -> &Session {
        self.unit("hello.service", HELLO, "launched")
            .unit("idle.service", HELLO, "inactive")
            .unit(
                "g.service",
                "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
                "launched",
            )
    }

    /// A unit that the cluster has.
    pub(crate) fn unit(&self, name: &str, text: &str, desired: &str) -> &Session {
        self.cluster.lock().unwrap().add(name, text, desired);
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Types a command; `'`, blanks and `NAME=value` in front mean what they mean to a shell.
    pub(crate) fn run(&mut self, command: &str) -> &mut Session {
        let output = self.process(command).output().unwrap();
        self.note(command, &output);
        self
    }

    /// Types a command and, when fleetd has got this request, Ctrl-C.
    pub(crate) fn interrupt(&mut self, command: &str, request: &str) -> &mut Session {
        let mut process = self.process(command);
        let process = process.stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = process.spawn().unwrap();
        let begin = tokio::time::Instant::now();
        let has_come = || {
            let cluster = self.cluster.lock().unwrap();
            cluster.requests.iter().any(|known| known == request)
        };
        while !has_come() {
            assert!(begin.elapsed().as_secs() < 10, "{:?}", self.requests());
            std::thread::yield_now();
        }
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = process.wait_with_output().unwrap();
        self.note(command, &output);
        self
    }

    pub(crate) fn process(&self, command: &str) -> Command {
        let endpoint = format!("unix://{}", self.dir.path().join("fleet.sock").display());
        let mut process = Command::new(env!("CARGO_BIN_EXE_fleetctl"));
        process
            .env_clear()
            .env("FLEETCTL_ENDPOINT", endpoint)
            .env("FLEETCTL_SSH", self.dir.path().join("ssh"))
            .env("HOME", self.dir.path());
        let command = self.names.iter().fold(command.to_owned(), |command, name| {
            command.replace(name.0, &name.1)
        });
        let mut words = words(&command);
        for word in words.by_ref().take_while(|word| word != "fleetctl") {
            let (name, value) = word.split_once('=').unwrap();
            process.env(name, value);
        }
        process
            .args(words)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        process
    }

    fn note(&mut self, command: &str, output: &Output) {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.names.iter().fold(without_times(&text), |text, name| {
                text.replace(&name.1, name.0)
            })
        };
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        self.transcript.push_str(&format!("$ {command}\n{out}"));
        for line in err.lines() {
            self.transcript.push_str(&format!("2> {line}\n"));
        }
        if !output.status.success() {
            self.transcript
                .push_str(&format!("rc={}\n", output.status.code().unwrap()));
        }
    }

    /// What was seen since the last time.
    #[track_caller]
    pub(crate) fn shows(&mut self, expected: &str) {
        let seen = std::mem::take(&mut self.transcript);
        let expected = expected.strip_prefix('\n').unwrap_or(expected);
        if seen != expected {
            panic!("expected:\n{expected}\nseen:\n{seen}\nas text: {seen:?}");
        }
    }

    /// What was seen since the last time, if it is too much to be shown.
    pub(crate) fn seen(&mut self) -> String {
        std::mem::take(&mut self.transcript)
    }

    /// The requests since the last time.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.cluster.lock().unwrap().requests)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some((stop, server)) = self.server.take() {
            drop(stop);
            // A panic there has been printed already.
            let _ = server.join();
        }
    }
}

fn words(command: &str) -> impl Iterator<Item = String> {
    command.split(' ').map(|word| word.replace('\'', ""))
}

/// `TIME` for each `2026-11-28 11:20:03 UTC (4 min ago)`, `MS` for each number of milliseconds since
/// 1970.
fn without_times(text: &str) -> String {
    const IN_JSON: &str = "Ms\": ";
    let mut parts = text.split(IN_JSON);
    let first = parts.next().unwrap_or_default().to_owned();
    let text = parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{text}{IN_JSON}MS{rest}")
    });
    let text = text.as_str();
    const UTC: &str = " UTC (";
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(UTC) {
        let begin = before.len() - "2026-11-28 11:20:03".len();
        let (_, after) = after.split_once(')').unwrap();
        shown.push_str(&before[..begin]);
        shown.push_str("TIME");
        rest = after;
    }
    without_plain_times(&(shown + rest))
}

/// `TIME` for each `2026-11-28 11:20:03`.
fn without_plain_times(text: &str) -> String {
    const LIKE: &[u8] = b"dddd-dd-dd dd:dd:dd";
    let is_time = |at: usize| {
        let bytes = text.as_bytes().get(at..at + LIKE.len());
        bytes.is_some_and(|bytes| {
            bytes.iter().zip(LIKE).all(|(byte, like)| match like {
                b'd' => byte.is_ascii_digit(),
                like => byte == like,
            })
        })
    };
    let mut shown = String::new();
    let mut rest = 0;
    for (at, _) in text.char_indices() {
        if at >= rest && is_time(at) {
            shown.push_str(&text[rest..at]);
            shown.push_str("TIME");
            rest = at + LIKE.len();
        }
    }
    shown + &text[rest..]
}
