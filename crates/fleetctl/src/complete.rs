//! What may follow on a command line that is being typed: found in the same definition that
//! reads it. The shells only ask and show; see contrib/completions.

use clap::builder::PossibleValue;
use clap::{Arg, Command, ValueHint};

/// A word that may be typed, and what it means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) word: String,
    pub(crate) meaning: String,
}

impl Candidate {
    pub(crate) fn new(word: impl Into<String>, meaning: impl Into<String>) -> Candidate {
        Candidate {
            word: word.into(),
            meaning: meaning.into(),
        }
    }
}

/// What fits at the end of a command line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fitting {
    /// What every candidate begins with though it is not part of the value: `--unit=`.
    pub(crate) before: String,
    /// What has been typed of the value.
    pub(crate) begun: String,
    /// Known without asking anybody.
    pub(crate) words: Vec<Candidate>,
    /// Files fit; the shell knows better how to complete them.
    pub(crate) files: bool,
    /// Names of the cluster's units fit.
    pub(crate) units: bool,
    /// Ids of its machines fit.
    pub(crate) machines: bool,
}

/// What fits as the last of the words; the first is the program's name.
pub(crate) fn fitting(fleetctl: &Command, words: &[String]) -> Fitting {
    let Some((current, typed)) = words.split_last() else {
        return Fitting::default();
    };
    let mut fleetctl = fleetctl.clone();
    fleetctl.build();
    let line = Line::read(&fleetctl, typed.get(1..).unwrap_or_default());
    let mut fitting = match (&line.open_flag, current.split_once('=')) {
        (Some(flag), _) => values(&fleetctl, flag, current),
        (None, _) if line.are_flags_over || !current.starts_with('-') => line.positional(current),
        (None, Some((name, value))) => match line.flag(name) {
            Some(flag) => Fitting {
                before: format!("{name}="),
                ..values(&fleetctl, flag, value)
            },
            None => Fitting::default(),
        },
        (None, None) => line.flags(current),
    };
    fitting
        .words
        .retain(|candidate| candidate.word.starts_with(&fitting.begun));
    fitting
}

/// What has been typed, up to where something shall follow.
struct Line<'c> {
    fleetctl: &'c Command,
    command: Option<&'c Command>,
    /// A flag whose value comes next.
    open_flag: Option<&'c Arg>,
    n_positionals: usize,
    are_flags_over: bool,
}

impl<'c> Line<'c> {
    fn read(fleetctl: &'c Command, words: &[String]) -> Line<'c> {
        let mut line = Line {
            fleetctl,
            command: None,
            open_flag: None,
            n_positionals: 0,
            are_flags_over: false,
        };
        for word in words {
            if line.open_flag.take().is_some() {
                continue;
            }
            match word.as_str() {
                "--" => line.are_flags_over = true,
                flag if flag.starts_with('-') && !line.are_flags_over => {
                    line.open_flag = line.flag(flag).filter(|arg| takes_next_word(arg));
                }
                name if line.command.is_none() => line.command = command(fleetctl, name),
                _ => line.n_positionals += 1,
            }
        }
        line
    }

    /// The arguments that may be given here, the global ones too.
    fn arguments(&self) -> impl Iterator<Item = &'c Arg> {
        self.command.unwrap_or(self.fleetctl).get_arguments()
    }

    /// The flag of this name, dashes and all.
    fn flag(&self, name: &str) -> Option<&'c Arg> {
        let bare = name.trim_start_matches('-');
        self.arguments().find(|arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(bare)
                || aliases.contains(&bare)
                || arg
                    .get_short()
                    .is_some_and(|short| bare.chars().eq([short]))
        })
    }

    fn flags(&self, begun: &str) -> Fitting {
        let flags = self.arguments().filter(|arg| !arg.is_hide_set());
        let words = flags.filter_map(|arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            Some(Candidate::new(format!("--{}", arg.get_long()?), help))
        });
        Fitting {
            begun: begun.to_owned(),
            words: words.collect(),
            ..Fitting::default()
        }
    }

    fn positional(&self, begun: &str) -> Fitting {
        let Some(command) = self.command else {
            return Fitting {
                begun: begun.to_owned(),
                words: commands(self.fleetctl),
                ..Fitting::default()
            };
        };
        let positionals: Vec<&Arg> = command.get_positionals().collect();
        let fits = |arg: &&&Arg| {
            arg.get_num_args()
                .is_some_and(|range| range.max_values() > 1)
                || matches!(arg.get_action(), clap::ArgAction::Append)
        };
        let argument = positionals
            .get(self.n_positionals)
            .or_else(|| positionals.last().filter(fits));
        match argument {
            // A command for a machine is that machine's affair.
            Some(arg) if is_machine_then_command(arg) && self.n_positionals > 0 => {
                Fitting::default()
            }
            Some(arg) => values(self.fleetctl, arg, begun),
            None => Fitting::default(),
        }
    }
}

/// What fits as an argument's value, by its name in the definition.
fn values(fleetctl: &Command, arg: &Arg, begun: &str) -> Fitting {
    let name = arg.get_value_names().and_then(|names| names.first());
    let name = name.map_or("", |name| name.as_str());
    let possible = arg.get_possible_values();
    let words = match name {
        "BOOL" => vec![Candidate::new("true", ""), Candidate::new("false", "")],
        "COMMAND" => commands(fleetctl),
        _ => possible.iter().map(possible_value).collect(),
    };
    Fitting {
        begun: begun.to_owned(),
        words,
        files: matches!(name, "FILE" | "SOCKET") || arg.get_value_hint() == ValueHint::FilePath,
        units: matches!(name, "UNIT" | "UNIT|MACHINE") || is_machine_then_command(arg),
        machines: matches!(name, "ID" | "MACHINE" | "UNIT|MACHINE") || is_machine_then_command(arg),
        ..Fitting::default()
    }
}

fn possible_value(value: &PossibleValue) -> Candidate {
    let help = value.get_help().map(ToString::to_string);
    Candidate::new(value.get_name(), help.unwrap_or_default())
}

fn is_machine_then_command(arg: &Arg) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    names
        .first()
        .is_some_and(|name| name.starts_with("MACHINE|UNIT"))
}

fn takes_next_word(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

fn commands(fleetctl: &Command) -> Vec<Candidate> {
    let shown = fleetctl
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let candidates = shown.map(|command| {
        let about = command.get_about().map(ToString::to_string);
        Candidate::new(command.get_name(), about.unwrap_or_default())
    });
    candidates.collect()
}

/// The command of this name or unique abbreviation.
fn command<'c>(fleetctl: &'c Command, name: &str) -> Option<&'c Command> {
    let exact = fleetctl.find_subcommand(name);
    exact.or_else(|| {
        let mut matching = fleetctl
            .get_subcommands()
            .filter(|command| command.get_name().starts_with(name));
        matching.next().filter(|_| matching.next().is_none())
    })
}

#[cfg(test)]
mod tests;
