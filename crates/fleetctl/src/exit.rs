//! Exit statuses: the one table.
//!
//! | status | when |
//! |---|---|
//! | 0 | everything asked for was done; help and version; the reader of our output went away |
//! | 1 | something asked for was not done (each such thing is named on stderr), or fleetd could not be reached |
//! | 2 | the command line cannot be understood; `verify`, which does nothing any more |
//! | 130 | interrupted while waiting; the request stands |
//! | other | `ssh`, `status`, `journal`: that of the command which they ran |

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// All was done.
    Success,
    /// Something was not done.
    Failure,
    /// The command line makes no sense.
    Usage,
    /// Ctrl-C while waiting.
    Interrupted,
    /// The status of a command that was run for the user.
    Other(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Interrupted => 130,
            Exit::Other(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
