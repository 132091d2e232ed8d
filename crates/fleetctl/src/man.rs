//! Manual pages: the command line's definition, written in man(7)'s macros. One page for fleetctl
//! and one for each command.

use clap::{Arg, Command};

/// What no definition says: the top page's own words, in man(7).
const INTRODUCTION: &str = include_str!("man/introduction.man");
const REST: &str = include_str!("man/rest.man");

/// The date on the pages: that of their last thorough reading.
const WRITTEN: &str = "2026-11-25";

/// A page.
pub(crate) struct Page {
    /// `fleetctl-start.1`
    pub(crate) file: String,
    pub(crate) text: String,
}

/// All pages of a command line.
pub(crate) fn pages(fleetctl: &Command) -> Vec<Page> {
    let mut fleetctl = fleetctl.clone();
    fleetctl.build();
    let mut pages = vec![Page {
        file: "fleetctl.1".to_owned(),
        text: top(&fleetctl),
    }];
    pages.extend(commands(&fleetctl).map(|command| Page {
        file: format!("fleetctl-{}.1", command.get_name()),
        text: page(command),
    }));
    pages
}

fn top(fleetctl: &Command) -> String {
    let mut text = header("fleetctl", "systemd for a whole cluster");
    text.push_str(".SH SYNOPSIS\n.B fleetctl\n[\\fIglobal flags\\fR]\n.I command\n[\\fIflags\\fR]\n[\\fIarguments\\fR]\n");
    text.push_str(INTRODUCTION);
    text.push_str(".SH COMMANDS\n");
    for command in commands(fleetctl) {
        let name = escape(command.get_name());
        text.push_str(&format!(".TP\n.BR fleetctl\\-{name} (1)\n"));
        text.push_str(&line(&about(command)));
    }
    text.push_str(".SH GLOBAL FLAGS\nThey may stand before or after the command.\n");
    let flags = || fleetctl.get_arguments().filter(|arg| is_flag(arg));
    flags().for_each(|flag| text.push_str(&flag_entry(flag)));
    text.push_str(
        ".SH ENVIRONMENT\nFlags win over variables. A value that cannot be read is ignored.\n",
    );
    for flag in flags().filter(|flag| flag.get_short().is_none()) {
        let long = flag.get_long().unwrap_or_default();
        let variable = format!("FLEETCTL_{}", long.replace('-', "_").to_uppercase());
        text.push_str(&format!(".TP\n.B {variable}\n\\-\\-{}\n", escape(long)));
    }
    text + REST
}

fn page(command: &Command) -> String {
    let name = command.get_name();
    let mut text = header(&format!("fleetctl-{name}"), &about(command));
    let flags = || {
        command
            .get_arguments()
            .filter(|arg| is_flag(arg) && !arg.is_global_set())
    };
    let arguments = || command.get_positionals().filter(|arg| !arg.is_hide_set());
    text.push_str(&format!(".SH SYNOPSIS\n.B fleetctl {}\n", escape(name)));
    if flags().next().is_some() {
        text.push_str("[\\fIflags\\fR]\n");
    }
    for argument in arguments() {
        let dots = if is_many(argument) { "..." } else { "" };
        text.push_str(&format!(
            "[\\fI{}\\fR]{dots}\n",
            escape(&value_name(argument))
        ));
    }
    text.push_str(".SH DESCRIPTION\n");
    let long = command.get_long_about().map(ToString::to_string);
    let paragraphs = long.unwrap_or_else(|| about(command));
    for (index, paragraph) in paragraphs.split("\n\n").enumerate() {
        let dot = if index == 0 { "." } else { "" };
        match paragraph.trim() {
            // What is to be typed.
            typed if typed.starts_with("fleetctl ") => {
                text.push_str(&format!(".PP\n.RS 4\n.EX\n{}.EE\n.RE\n", line(typed)));
            }
            prose => {
                let begin = if index == 0 { "" } else { ".PP\n" };
                text.push_str(&format!("{begin}{}", line(&format!("{prose}{dot}"))));
            }
        }
    }
    if arguments().next().is_some() {
        text.push_str(".SH ARGUMENTS\n");
    }
    for argument in arguments() {
        let name = escape(&value_name(argument));
        text.push_str(&format!(".TP\n.I {name}\n{}", line(&help(argument))));
    }
    if flags().next().is_some() {
        text.push_str(".SH FLAGS\n");
    }
    flags().for_each(|flag| text.push_str(&flag_entry(flag)));
    text.push_str(
        ".PP\nFlags that every command has, and exit statuses, are in\n.BR fleetctl (1).\n",
    );
    text.push_str(".SH SEE ALSO\n.BR fleetctl (1),\n.BR fleet.unit (5)\n");
    text
}

fn header(name: &str, about: &str) -> String {
    format!(
        ".\\\" Written by fleetctl itself, of its own command line.\n\
         .TH {} 1 \"{WRITTEN}\" \"fleet {}\" \"fleet\"\n.SH NAME\n{} \\- {}",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        escape(name),
        line(about)
    )
}

fn commands(fleetctl: &Command) -> impl Iterator<Item = &Command> {
    fleetctl
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
}

fn is_flag(arg: &Arg) -> bool {
    !arg.is_positional() && !arg.is_hide_set()
}

fn is_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::Append)
        || arg
            .get_num_args()
            .is_some_and(|range| range.max_values() > 1)
}

fn flag_entry(flag: &Arg) -> String {
    let mut names = Vec::new();
    if let Some(short) = flag.get_short() {
        names.push(format!("\\fB\\-{short}\\fR"));
    }
    let long = flag.get_long().unwrap_or_default();
    let value = match flag.get_action().takes_values() {
        true => {
            let name = format!("=\\fI{}\\fR", escape(&value_name(flag)));
            let is_optional = flag
                .get_num_args()
                .is_some_and(|range| range.min_values() == 0);
            if is_optional {
                format!("[{name}]")
            } else {
                name
            }
        }
        false => String::new(),
    };
    names.push(format!("\\fB\\-\\-{}\\fR{value}", escape(long)));
    let mut help = help(flag);
    let possible: Vec<_> = flag.get_possible_values();
    if flag.get_action().takes_values()
        && !possible.is_empty()
        && !flag.is_hide_possible_values_set()
    {
        let names: Vec<&str> = possible
            .iter()
            .map(clap::builder::PossibleValue::get_name)
            .collect();
        help.push_str(&format!(" ({})", names.join(", ")));
    }
    let default = flag.get_default_values();
    if !default.is_empty() && flag.get_action().takes_values() && !flag.is_hide_default_value_set()
    {
        let values: Vec<_> = default
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        help.push_str(&format!(" [default: {}]", values.join(",")));
    }
    format!(".TP\n{}\n{}", names.join(", "), line(&help))
}

fn value_name(arg: &Arg) -> String {
    match arg.get_value_names() {
        Some(names) if !names.is_empty() => names.join(" "),
        _ => arg.get_id().as_str().to_uppercase(),
    }
}

fn about(command: &Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// A flag's whole help; the first paragraph is the short one.
fn help(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help());
    help.map(ToString::to_string).unwrap_or_default()
}

/// Text as one line of its own.
fn line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{}\n", escape(&text))
}

/// Text in which nothing means anything to man(7).
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    if text.starts_with(['.', '\'']) {
        escaped.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '…' => escaped.push_str("..."),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_what_the_definition_says() {
        let cli = Command::new("fleetctl")
            .disable_help_flag(true)
            .disable_help_subcommand(true)
            .subcommand(
                Command::new("list-x")
                    .about("List x")
                    .long_about("List x\n\n.so they are listed\n\nfleetctl list-x a\\b")
                    .arg(
                        Arg::new("full")
                            .long("full")
                            .short('l')
                            .help("In full")
                            .action(clap::ArgAction::SetTrue),
                    )
                    .arg(
                        Arg::new("n")
                            .long("no-n")
                            .value_name("N")
                            .help("How many")
                            .default_value("3"),
                    )
                    .arg(Arg::new("hidden").long("hidden").hide(true))
                    .arg(
                        Arg::new("units")
                            .value_name("UNIT")
                            .help("Which…")
                            .num_args(0..),
                    ),
            )
            .subcommand(Command::new("__hidden").hide(true));
        let pages = pages(&cli);
        let files: Vec<&str> = pages.iter().map(|page| page.file.as_str()).collect();
        assert_eq!(files, ["fleetctl.1", "fleetctl-list-x.1"]);
        let text = &pages[1].text;
        let begin = text.find(".SH NAME").unwrap();
        assert_eq!(
            &text[begin..],
            ".SH NAME
fleetctl\\-list\\-x \\- List x
.SH SYNOPSIS
.B fleetctl list\\-x
[\\fIflags\\fR]
[\\fIUNIT\\fR]...
.SH DESCRIPTION
List x.
.PP
\\&.so they are listed
.PP
.RS 4
.EX
fleetctl list\\-x a\\eb
.EE
.RE
.SH ARGUMENTS
.TP
.I UNIT
Which...
.SH FLAGS
.TP
\\fB\\-l\\fR, \\fB\\-\\-full\\fR
In full
.TP
\\fB\\-\\-no\\-n\\fR=\\fIN\\fR
How many [default: 3]
.PP
Flags that every command has, and exit statuses, are in
.BR fleetctl (1).
.SH SEE ALSO
.BR fleetctl (1),
.BR fleet.unit (5)
"
        );
    }
}
