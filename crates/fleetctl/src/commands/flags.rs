//! Flags that several commands have.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fleet_core::validate::UnknownKeys;

use crate::error::CommandError;
use crate::report::Report;
use crate::signing::Signer;
use crate::ui::Ui;
use crate::wait::Bounds;
use crate::when;

/// In which form data is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// `-o json`, of every command that prints data.
#[derive(Args, Debug)]
pub(crate) struct OutputFlags {
    /// text, or json: listings are an array, verbs print a line for each unit
    #[arg(
        long,
        short = 'o',
        value_name = "FORMAT",
        default_value = "text",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) output: Format,
}

impl OutputFlags {
    pub(crate) fn report<'a>(&self, ui: &'a Ui) -> Report<'a> {
        Report::new(ui, self.output == Format::Json)
    }
}

/// How long to wait.
#[derive(Args, Debug)]
pub(crate) struct BlockFlags {
    /// Do not wait until it is done
    #[arg(long)]
    no_block: bool,

    /// Wait N times two seconds at most; 0: 10 s while no machine may run a unit, 120 s while one is at work on it
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true,
          allow_negative_numbers = true, value_parser = attempts)]
    block_attempts: u32,
}

impl BlockFlags {
    /// None: do not wait.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        (!self.no_block).then(|| Bounds::of_attempts(self.block_attempts))
    }
}

/// As the original, which takes less than one attempt for no bound.
fn attempts(text: &str) -> Result<u32, String> {
    let attempts: i64 = text.parse().map_err(|_| "not a whole number".to_owned())?;
    Ok(u32::try_from(attempts.max(0)).unwrap_or(u32::MAX))
}

/// Whether to ask before a pattern counts.
#[derive(Args, Debug)]
pub(crate) struct ConfirmFlags {
    /// Do not ask, on a terminal, before all units are taken that a pattern matches
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

/// How units are created.
#[derive(Args, Debug, Default)]
pub(crate) struct CreateFlags {
    /// Replace the contents of units that exist by the local unit files'
    #[arg(long)]
    pub(crate) replace: bool,

    /// Refuse units with unknown keys in [X-Fleet]
    #[arg(long, conflicts_with = "allow_unknown")]
    strict: bool,

    /// Accept unknown keys in [X-Fleet], those that look like a mistyped one too
    #[arg(long)]
    allow_unknown: bool,

    /// Sign the unit files that are handed in by this secret key (fleetctl keygen)
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    sign_key: Option<PathBuf>,

    /// Accepted for the original's sake
    #[arg(long, hide = true)]
    sign: bool,
}

impl CreateFlags {
    /// Who signs; None: nobody does.
    pub(crate) fn signer(&self) -> Result<Option<Signer>, CommandError> {
        let read = self.sign_key.as_deref().map(Signer::read).transpose();
        read.map_err(CommandError::new)
    }

    pub(crate) fn unknown_keys(&self) -> UnknownKeys {
        match (self.strict, self.allow_unknown) {
            (true, _) => UnknownKeys::Strict,
            (_, true) => UnknownKeys::Allow,
            _ => UnknownKeys::Default,
        }
    }
}

/// Milliseconds since 1970 of `10m` ago or of `2026-11-28 11:20:03`.
pub(crate) fn since_ms(text: &str) -> Result<u64, CommandError> {
    let ago = when::while_of(text).map(|ms| when::now_ms().saturating_sub(ms));
    ago.or_else(|| when::time_of(text)).ok_or_else(|| {
        CommandError::new(format!("invalid --since {text:?}"))
            .hint("use 30s, 10m, 2h or 3d, or a time in UTC as 2026-11-28 11:20 or 2026-11-28")
    })
}
