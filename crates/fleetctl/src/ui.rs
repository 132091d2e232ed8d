//! The one place that prints. Data goes to stdout, everything else to stderr.
//!
//! A reader of stdout that has gone away is no error: what was asked for goes on, unheard.

use std::cell::RefCell;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Read, Write};

/// No answer to a question is longer.
const MAX_ANSWER_BYTES: u64 = 1024;

/// Where a command's words go.
pub(crate) struct Ui {
    out: RefCell<Out>,
    err: RefCell<Box<dyn Write>>,
    /// Escape codes on stderr.
    colour: bool,
    debug: bool,
}

struct Out {
    to: Box<dyn Write>,
    /// Why nothing more is written.
    broken: Option<io::Error>,
}

impl Ui {
    /// The process's own stdout and stderr; coloured on a terminal unless `NO_COLOR` is set to
    /// something.
    pub(crate) fn stdio(no_color: bool, debug: bool) -> Ui {
        let colour = !no_color && io::stderr().is_terminal();
        Ui {
            out: RefCell::new(Out {
                to: Box::new(io::stdout()),
                broken: None,
            }),
            err: RefCell::new(Box::new(io::stderr())),
            colour,
            debug,
        }
    }

    /// A line of data.
    pub(crate) fn line(&self, text: &str) {
        self.data(&format!("{text}\n"));
    }

    /// Data as it is.
    pub(crate) fn data(&self, text: &str) {
        let mut out = self.out.borrow_mut();
        if out.broken.is_none()
            && let Err(error) = out
                .to
                .write_all(text.as_bytes())
                .and_then(|()| out.to.flush())
        {
            out.broken = Some(error);
        }
    }

    /// A line that says how things go.
    pub(crate) fn note(&self, text: &str) {
        self.say(text);
    }

    /// Something that was not done; the text begins as the original's does.
    pub(crate) fn error(&self, text: &str) {
        self.say(&self.paint("31", text));
    }

    /// Something to look at, though the command goes on.
    pub(crate) fn warning(&self, text: &str) {
        self.say(&self.paint("33", &format!("WARNING: {text}")));
    }

    /// What can be done about the error above.
    pub(crate) fn hint(&self, text: &str) {
        self.say(&self.paint("36", &format!("hint: {text}")));
    }

    /// Whether somebody sees stderr as it is written.
    pub(crate) fn is_watched(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Whether somebody is there who can answer.
    pub(crate) fn is_interactive(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks on stderr; true only for `y` or `yes`.
    pub(crate) fn confirms(&self, question: &str) -> bool {
        let mut err = self.err.borrow_mut();
        // There is nobody to ask when stderr is closed, and nobody answers.
        let _ = err.write_all(format!("{question} (yes/no) ").as_bytes());
        let mut answer = String::new();
        let read = io::stdin()
            .lock()
            .take(MAX_ANSWER_BYTES)
            .read_line(&mut answer);
        let answer = answer.trim().to_lowercase();
        read.is_ok() && matches!(answer.as_str(), "y" | "yes")
    }

    /// Only with `--debug`.
    pub(crate) fn debug(&self, text: &str) {
        if self.debug {
            self.say(&format!("DEBUG {text}"));
        }
    }

    /// Whether data is not written any more: whoever would go on for ever may end.
    pub(crate) fn is_unheard(&self) -> bool {
        self.out.borrow().broken.is_some()
    }

    /// Why data could not be written, unless its reader has simply gone.
    pub(crate) fn finish(&self) -> Result<(), io::Error> {
        match self.out.borrow_mut().broken.take() {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    fn say(&self, text: &str) {
        // There is nobody left to tell when stderr is closed.
        let _ = self
            .err
            .borrow_mut()
            .write_all(format!("{text}\n").as_bytes());
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A line on stderr from a task that outlives every `Ui`: what an ssh of ours says.
pub(crate) fn say_to_stderr(line: &str) {
    // There is nobody left to tell when stderr is closed.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
