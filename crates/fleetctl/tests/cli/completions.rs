//! Tab in real shells: each runs on a terminal of its own (script(1) makes it) with the completion
//! that `make install` installs, and says what its line has become.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleet_sandbox::wait_for;

use crate::fake::{H1, H2};
use crate::session::{HELLO, Session};

/// A shell on a computer that others share begins and completes within this.
const BOUND: Duration = Duration::from_secs(30);

/// The key that writes the line down: Ctrl-T, in every shell.
const SHOW: &str = "\x14";
/// The key that forgets the line: Ctrl-U.
const CLEAR: &str = "\x15";

/// What is typed before Tab, and the line after it.
fn lines() -> Vec<(String, String)> {
    let pairs = [
        ("fleetctl dest", "fleetctl destroy "),
        ("fleetctl list-mach", "fleetctl list-machines "),
        ("fleetctl stop --no-b", "fleetctl stop --no-block "),
        (
            "fleetctl list-units --output=j",
            "fleetctl list-units --output=json ",
        ),
        ("fleetctl stop hel", "fleetctl stop hello.service "),
        // Characters at which a shell may break words.
        ("fleetctl stop worker@1", "fleetctl stop worker@12.service "),
        ("fleetctl cat odd:n", "fleetctl cat odd:name.service "),
        (
            "fleetctl --debug=true stop hello worker@1",
            "fleetctl --debug=true stop hello worker@12.service ",
        ),
        (
            "fleetctl ssh --unit=worker@1",
            "fleetctl ssh --unit=worker@12.service ",
        ),
        ("fleetctl start loc", "fleetctl start local.timer "),
        (
            "fleetctl submit sub/oth",
            "fleetctl submit sub/other.service ",
        ),
    ];
    let mut lines: Vec<_> = pairs
        .map(|(typed, line)| (typed.to_owned(), line.to_owned()))
        .into();
    for (begun, id) in [("63", H1), ("6a97", H2)] {
        lines.push((
            format!("fleetctl ssh {begun}"),
            format!("fleetctl ssh {id} "),
        ));
    }
    lines.push((
        "fleetctl ssh --machine=63".to_owned(),
        format!("fleetctl ssh --machine={H1} "),
    ));
    lines
}

#[test]
fn bash_completes_commands_flags_files_units_and_machines() {
    let rc = "PS1='READY> '\nsource COMPLETIONS/fleetctl.bash\n\
        show() { printf '%s' \"$READLINE_LINE\" >OUT.new; mv OUT.new OUT; }\n\
        bind -x '\"\\C-t\": show'\n";
    completes("bashrc", rc, "bash --noprofile --rcfile DIR/bashrc -i");
}

#[test]
fn zsh_completes_commands_flags_files_units_and_machines() {
    // As it is installed: in a directory of functions, by the name of what it completes.
    let rc = "PS1='READY> '\nfpath=(DIR/functions $fpath)\nautoload -U compinit\n\
        compinit -D -u\nbindkey -e\n\
        show() { printf '%s' \"$BUFFER\" >OUT.new; mv OUT.new OUT }\n\
        zle -N show\nbindkey '^T' show\n";
    completes(".zshrc", rc, "zsh -d -i");
}

#[test]
fn fish_completes_commands_flags_files_units_and_machines() {
    let rc = "function fish_prompt; echo -n 'READY> '; end\nfunction fish_greeting; end\n\
        source COMPLETIONS/fleetctl.fish\n\
        function show; printf '%s' (commandline | string collect) >OUT.new; mv OUT.new OUT; end\n\
        bind \\ct show\nbind \\cu kill-whole-line\n";
    completes(
        "config.fish",
        rc,
        "fish --no-config --init-command 'source DIR/config.fish' -i",
    );
}

#[test]
fn a_shell_is_told_in_silence_what_fits() {
    let mut session = Session::new();
    session.unit("web.service", HELLO, "launched");
    session
        .run("fleetctl __complete -- fleetctl stop w")
        .run("fleetctl __complete -- fleetctl ssh --machine=6a")
        .run("fleetctl __complete -- fleetctl sta")
        .run("fleetctl __complete -- fleetctl start /")
        .run("fleetctl __complete -- fleetctl --endpoint=unix:///nowhere stop w")
        .run("fleetctl __complete -- fleetctl --tunnel=far stop w")
        .run("fleetctl __complete -- fleetctl bogus z")
        .run("fleetctl __complete")
        .shows(&format!(
            "
$ fleetctl __complete -- fleetctl stop w
words
web.service\tHello World
$ fleetctl __complete -- fleetctl ssh --machine=6a
words
--machine={H2}\t172.30.1.3 hostname=h2 zone=z1
$ fleetctl __complete -- fleetctl sta
words
start\tStart units, and wait until systemd says that they run
status\tShow what systemd says of units, where they are
$ fleetctl __complete -- fleetctl start /
files
$ fleetctl __complete -- fleetctl --endpoint=unix:///nowhere stop w
words
$ fleetctl __complete -- fleetctl --tunnel=far stop w
words
$ fleetctl __complete -- fleetctl bogus z
words
$ fleetctl __complete
words
"
        ));
}

#[test]
fn an_original_fleetd_completes_too() {
    let mut session = Session::with_original();
    session.unit("web.service", HELLO, "launched");
    session.run("fleetctl __complete -- fleetctl stop w").shows(
        "
$ fleetctl __complete -- fleetctl stop w
words
web.service\tHello World
",
    );
}

/// Types each line into a shell and presses Tab.
fn completes(rc: &str, text: &str, shell: &str) {
    let session = Session::new();
    session
        .unit("hello.service", HELLO, "launched")
        .unit("worker@12.service", HELLO, "launched")
        .unit("odd:name.service", HELLO, "launched")
        .file("local.timer", "[Timer]\n")
        .file("sub/other.service", HELLO);
    let completions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/completions");
    let zsh = std::fs::read_to_string(completions.join("fleetctl.zsh")).unwrap();
    session.file("functions/_fleetctl", &zsh);
    let dir = session.path().display().to_string();
    let named = |text: &str| {
        text.replace("COMPLETIONS", &completions.display().to_string())
            .replace("OUT", &format!("{dir}/out"))
            .replace("DIR", &dir)
    };
    session.file(rc, &named(text));
    let mut terminal = Terminal::open(session.path(), &named(shell));
    for (typed, expected) in lines() {
        let line = terminal.tab(&typed);
        assert_eq!(
            line,
            expected,
            "{typed}<Tab> in {shell}\n{}",
            terminal.shown()
        );
    }
}

/// A shell on a terminal.
struct Terminal {
    script: Child,
    out: PathBuf,
    screen: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open(dir: &Path, shell: &str) -> Terminal {
        let binary = Path::new(env!("CARGO_BIN_EXE_fleetctl"));
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", binary.parent().unwrap().display());
        let socket = dir.join("fleet.sock");
        let mut script = Command::new("script")
            .args(["--quiet", "--flush", "--command", shell, "/dev/null"])
            .env_clear()
            .env("PATH", path)
            .env("HOME", dir)
            .env("ZDOTDIR", dir)
            .env("SHELL", "/bin/sh")
            .env("TERM", "dumb")
            .env("LANG", "C.UTF-8")
            .env("FLEETCTL_ENDPOINT", format!("unix://{}", socket.display()))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let screen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut stdout = script.stdout.take().unwrap();
        let shown = screen.clone();
        // Ends with the shell.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n_bytes @ 1..) = stdout.read(&mut bytes) {
                shown.lock().unwrap().extend_from_slice(&bytes[..n_bytes]);
            }
        });
        let terminal = Terminal {
            script,
            out: dir.join("out"),
            screen,
        };
        terminal.wait("a prompt", || {
            terminal.shown().contains("READY> ").then_some(())
        });
        terminal
    }

    /// The line after Tab.
    fn tab(&mut self, typed: &str) -> String {
        let keys = format!("{typed}\t{SHOW}");
        self.script
            .stdin
            .as_mut()
            .unwrap()
            .write_all(keys.as_bytes())
            .unwrap();
        let line = self.wait(typed, || std::fs::read_to_string(&self.out).ok());
        std::fs::remove_file(&self.out).unwrap();
        self.script
            .stdin
            .as_mut()
            .unwrap()
            .write_all(CLEAR.as_bytes())
            .unwrap();
        line
    }

    fn wait<T>(&self, what: &str, ask: impl Fn() -> Option<T>) -> T {
        wait_for(what, BOUND, || ask().ok_or_else(|| self.shown())).unwrap()
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
