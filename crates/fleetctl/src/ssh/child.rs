//! An ssh with our pipes on its stdin and stdout.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Takes what an ssh of ours says on stderr, line by line.
pub(crate) type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// A line of stderr is cut there; nobody reads longer ones.
const MAX_LINE_BYTES: u64 = 8 << 10;

/// stderr may stay open in a process that the user's configuration started; what ssh itself
/// said is there at once.
const STDERR_BOUND: Duration = Duration::from_secs(1);

/// ssh's shell for the commands that we give it: they are quoted for this one.
const SHELL: (&str, &str) = ("SHELL", "/bin/sh");

/// How an ssh ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The last line that says why, kept back for the error; may be empty.
    pub(super) last_words: String,
}

/// A running ssh. It is ended when the runtime ends; else it ends when its stdin does.
pub(super) struct SshChild {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) end: oneshot::Receiver<Ended>,
    pub(super) words: Words,
}

impl SshChild {
    /// Starts one.
    ///
    /// # Errors
    /// Those of starting a process.
    pub(super) fn start(program: &str, arguments: &[String], say: Say) -> io::Result<SshChild> {
        let mut child = Command::new(program)
            .args(arguments)
            .env(SHELL.0, SHELL.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("the pipes of ssh are gone"));
        };
        let words = Words {
            kept: Arc::default(),
            say,
        };
        let reader = tokio::spawn(words.clone().read(stderr));
        let (tell, end) = oneshot::channel();
        tokio::spawn(watch(Terminated(child), reader, words.clone(), tell));
        Ok(SshChild {
            stdin,
            stdout,
            end,
            words,
        })
    }
}

/// What an ssh says on stderr. While it may still fail to come up, the newest line is kept back:
/// it is the reason then.
#[derive(Clone)]
pub(super) struct Words {
    kept: Arc<Mutex<Kept>>,
    say: Say,
}

#[derive(Default)]
struct Kept {
    line: Option<String>,
    /// Lines are said as they come.
    is_up: bool,
}

impl Words {
    /// Says what is kept: it was no reason of a failure.
    pub(super) fn release(&self) {
        if let Some(line) = self.lock().line.take() {
            (self.say)(&line);
        }
    }

    /// From now on keeps nothing back.
    pub(super) fn open(&self) {
        self.release();
        self.lock().is_up = true;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self, stderr: ChildStderr) {
        let mut reader = BufReader::new(stderr);
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut reader).take(MAX_LINE_BYTES);
            match limited.read_until(b'\n', &mut line).await {
                Ok(n) if n > 0 => self.hear(&String::from_utf8_lossy(&line)),
                _ => return,
            }
        }
    }

    fn hear(&self, line: &str) {
        let line = line.trim_end();
        // ssh says this after the reason.
        if line.is_empty() || line == "stdio forwarding failed" {
            return;
        }
        if self.lock().is_up {
            (self.say)(line);
            return;
        }
        self.release();
        self.lock().line = Some(line.to_owned());
    }
}

/// Waits for the end and tells it, or says the last words if nobody wants to know.
async fn watch(
    mut child: Terminated,
    mut reader: JoinHandle<()>,
    words: Words,
    tell: oneshot::Sender<Ended>,
) {
    let Ok(status) = child.0.wait().await else {
        return;
    };
    if timeout(STDERR_BOUND, &mut reader).await.is_err() {
        reader.abort();
    }
    let ended = Ended {
        status,
        last_words: words.lock().line.take().unwrap_or_default(),
    };
    if let Err(untold) = tell.send(ended)
        && !untold.last_words.is_empty()
    {
        (words.say)(&untold.last_words);
    }
}

/// A child that is asked to end when it is dropped, so that ssh puts its things away.
struct Terminated(Child);

impl Drop for Terminated {
    fn drop(&mut self) {
        // A number only while nobody has waited for the child: it cannot be another's.
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}
