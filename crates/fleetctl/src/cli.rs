//! The command line: what was typed becomes a [`Parsed`], or what to print instead.
//!
//! Flags and arguments may be mixed, `--` ends flags, commands may be abbreviated to a unique
//! prefix, and the flags of one letter may have one dash or two. Of a flag that is given several
//! times the last one counts: aliases and scripts put theirs in front of a person's.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};

use crate::commands::Command;
use crate::global::{GlobalArgs, go_bool};
use crate::man::{Page, pages};
use crate::suggest::suggestions;

const NAME: &str = "fleetctl";

/// fleet: systemd for a whole cluster
#[derive(Parser, Debug)]
#[command(
    name = NAME,
    disable_help_flag = true,
    disable_help_subcommand = true,
    disable_version_flag = true,
    infer_subcommands = true,
    args_override_self = true,
    subcommand_value_name = "COMMAND",
    subcommand_help_heading = "Commands",
    override_usage = "fleetctl [global flags] COMMAND [flags] [arguments]",
    after_help = "Global flags may be given as FLEETCTL_* in the environment, too.\n\
                  \"fleetctl help COMMAND\" says more about a command."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    before: Before,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What may stand before a command.
#[derive(clap::Args, Debug)]
struct Before {
    #[command(flatten)]
    global: GlobalArgs,

    /// Print fleetctl's version; behind a command it prints that command's help
    #[arg(long, global = true)]
    version: bool,

    /// As --version, in front of a command
    #[arg(short = 'v', hide = true)]
    v: bool,

    /// Print help
    #[arg(long, short = 'h', alias = "h", global = true)]
    help: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Run this.
    Run(Box<GlobalArgs>, Command),
    /// Print this text on stdout: help was asked for.
    Help(String),
    /// Print the version.
    Version,
}

/// A command line that makes no sense, in the original's words.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

/// The version as the original prints it.
pub(crate) fn version_line() -> String {
    format!("fleetctl version v{}", env!("CARGO_PKG_VERSION"))
}

/// The help of all commands or, with a name (or a unique prefix), that of one.
pub(crate) fn help(of: Option<&str>) -> Result<String, UsageError> {
    let Some(name) = of else {
        return Ok(clap_command().render_help().to_string());
    };
    let mut cli = clap_command().mut_args(|arg| {
        let is_hidden = arg.is_global_set();
        arg.hide(is_hidden)
    });
    cli.build();
    let names = command_names(&cli);
    let exact = names.iter().find(|known| *known == name);
    let found = exact.or_else(|| {
        let mut matching = names.iter().filter(|known| known.starts_with(name));
        matching.next().filter(|_| matching.next().is_none())
    });
    match found.and_then(|found| cli.find_subcommand_mut(found)) {
        Some(command) => Ok(command.render_help().to_string()),
        None => Err(unknown_command(name)),
    }
}

/// The manual pages of all commands.
pub(crate) fn man_pages() -> Vec<Page> {
    pages(&Cli::command())
}

/// Reads a command line, the program's name included.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, UsageError> {
    // Without the texts that only help shows: all commands' would be put together at every start.
    let mut whole = Cli::command();
    let args = without_bool_values(args, &switches(&whole))?;
    let short_way = alone(&whole, &args).and_then(|mut command| matches(&mut command, &args).ok());
    let found = match short_way {
        Some(found) => Ok(found),
        None => matches(&mut whole, &args),
    };
    // They go with the process, which takes a sixth of its time to take them apart otherwise.
    std::mem::forget(whole);
    let matches = found.map_err(|error| usage_error(&error, &args))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| usage_error(&error, &args))?;
    let Before {
        global,
        version,
        v,
        help: wants_help,
    } = cli.before;
    Ok(match cli.command {
        _ if v => Parsed::Version,
        None if version => Parsed::Version,
        _ if wants_help || version => Parsed::Help(help(matches.subcommand_name())?),
        None => Parsed::Help(help(None)?),
        Some(command) => Parsed::Run(Box::new(global), command),
    })
}

fn matches(
    command: &mut clap::Command,
    args: &[OsString],
) -> Result<clap::ArgMatches, Box<clap::Error>> {
    command.try_get_matches_from_mut(args).map_err(Box::new)
}

/// fleetctl as if it had only the command that is named: clap gets all others ready, too, each with all
/// global flags, which is half of the time until fleetctl begins. None: no command is named plainly.
/// What cannot be read so is to be read by the whole.
fn alone(whole: &clap::Command, args: &[OsString]) -> Option<clap::Command> {
    let mut words = args.iter().skip(1).map(|arg| arg.to_str());
    let is_flag_with_value = |word: &str| word.starts_with("--") && word.contains('=');
    let name = words.find(|word| !word.is_some_and(is_flag_with_value))??;
    let mut known = whole.get_subcommands();
    let named = known.find(|command| command.get_name() == name)?;
    let fleetctl = clap::Command::new(NAME)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args_override_self(true);
    Some(Before::augment_args(fleetctl).subcommand(named.clone()))
}

/// The derived command. A command's own help is its whole doc comment, and the global flags
/// stand in the general help only.
pub(crate) fn clap_command() -> clap::Command {
    let command = Cli::command();
    let names = command_names(&command);
    names.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |command| {
            let long = command.get_long_about().map(ToString::to_string);
            let more = long.as_deref().and_then(|long| long.split_once("\n\n"));
            let more = more.map_or(String::new(), |(_, more)| format!("{more}\n\n"));
            command.after_help(format!("{more}Global flags: see fleetctl --help."))
        })
    })
}

/// The flags that are on or off: each spelling, with its dashes, and the flag that it means.
fn switches(command: &clap::Command) -> BTreeMap<String, String> {
    let subcommands = command.get_subcommands();
    let all = std::iter::once(command).chain(subcommands);
    let switches = all
        .flat_map(clap::Command::get_arguments)
        .filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue));
    let mut names = BTreeMap::new();
    for arg in switches {
        let id = arg.get_id().to_string();
        let short = arg.get_short().map(|short| format!("-{short}"));
        let longs = arg
            .get_long()
            .into_iter()
            .chain(arg.get_all_aliases().unwrap_or_default());
        let longs = longs.map(|long| format!("--{long}"));
        names.extend(
            short
                .into_iter()
                .chain(longs)
                .map(|name| (name, id.clone())),
        );
    }
    names
}

/// Go's switches may have a value: `--no-block=true` is `--no-block`, and `--no-block=false` takes
/// back what was said before.
fn without_bool_values(
    args: impl IntoIterator<Item = OsString>,
    switches: &BTreeMap<String, String>,
) -> Result<Vec<OsString>, UsageError> {
    let mut kept: Vec<OsString> = Vec::new();
    let mut are_flags_over = false;
    for arg in args {
        are_flags_over |= arg == "--";
        let valued = arg.to_str().and_then(|arg| arg.split_once('='));
        match valued.filter(|(name, _)| !are_flags_over && switches.contains_key(*name)) {
            None => kept.push(arg),
            Some((name, value)) => match go_bool(value) {
                Ok(true) => kept.push(name.into()),
                Ok(false) => {
                    let id = switches.get(name);
                    let is_same = |arg: &OsString| arg.to_str().and_then(|arg| switches.get(arg));
                    kept.retain(|arg| is_same(arg) != id);
                }
                Err(reason) => {
                    return Err(UsageError(format!(
                        "Error: invalid argument \"{value}\" for \"{name}\" flag: {reason}"
                    )));
                }
            },
        }
    }
    Ok(kept)
}

fn command_names(command: &clap::Command) -> Vec<String> {
    let names = command.get_subcommands().map(|c| c.get_name().to_owned());
    names.collect()
}

fn usage_error(error: &clap::Error, args: &[OsString]) -> UsageError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        Some(ContextValue::StyledStr(text)) => text.to_string(),
        _ => String::new(),
    };
    if error.kind() == ErrorKind::InvalidSubcommand {
        return unknown_command(&context(ContextKind::InvalidSubcommand));
    }
    let arg = context(ContextKind::InvalidArg);
    // `--block-attempts <N>`
    let flag = arg.split([' ', '[']).next().unwrap_or_default();
    let value = context(ContextKind::InvalidValue);
    let text = match error.kind() {
        ErrorKind::UnknownArgument if arg.starts_with('-') => format!("unknown flag: {arg}"),
        ErrorKind::UnknownArgument => format!("unexpected argument \"{arg}\""),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if value.is_empty() => {
            format!("flag needs an argument: {flag}")
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let valid = context(ContextKind::ValidValue);
            let reason = match std::error::Error::source(error) {
                Some(source) => format!(": {source}"),
                None if !valid.is_empty() => format!(": it is one of {valid}"),
                None => String::new(),
            };
            format!("invalid argument \"{value}\" for \"{flag}\" flag{reason}")
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.trim_start_matches("error: ").to_owned()
        }
    };
    let matches = clap_command()
        .ignore_errors(true)
        .try_get_matches_from(args);
    let help = match matches.ok().as_ref().and_then(|m| m.subcommand_name()) {
        Some(command) => format!("fleetctl {command} --help"),
        None => "fleetctl --help".to_owned(),
    };
    UsageError(format!("Error: {text}\nRun '{help}' for usage."))
}

fn unknown_command(word: &str) -> UsageError {
    let names = command_names(&clap_command());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut text = format!("Error: unknown command \"{word}\" for \"fleetctl\"\n");
    let similar = suggestions(word, &names);
    if !similar.is_empty() {
        text.push_str("\nDid you mean this?\n");
        similar
            .iter()
            .for_each(|name| text.push_str(&format!("\t{name}\n")));
        text.push('\n');
    }
    text.push_str("Run 'fleetctl --help' for usage.");
    UsageError(text)
}
