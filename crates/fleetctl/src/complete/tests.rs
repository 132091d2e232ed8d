use super::*;
use crate::cli;

/// The last word is what is being typed; `_` stands for nothing yet.
fn fits(line: &str) -> Fitting {
    let words = line.split(' ').map(|word| word.replace('_', ""));
    let words: Vec<String> = std::iter::once("fleetctl".to_owned())
        .chain(words)
        .collect();
    fitting(&cli::clap_command(), &words)
}

fn words(line: &str) -> Vec<String> {
    fits(line)
        .words
        .into_iter()
        .map(|candidate| candidate.word)
        .collect()
}

/// Which of files, units, machines fit.
fn kinds(line: &str) -> String {
    let fitting = fits(line);
    let kinds = [
        (fitting.files, "files"),
        (fitting.units, "units"),
        (fitting.machines, "machines"),
    ];
    let named: Vec<&str> = kinds
        .iter()
        .filter(|(fits, _)| *fits)
        .map(|(_, kind)| *kind)
        .collect();
    named.join(" ")
}

#[test]
fn commands_come_first_and_flags_anywhere() {
    assert_eq!(
        words("list"),
        ["list-machines", "list-unit-files", "list-units"]
    );
    assert_eq!(words("--tunnel x st"), ["start", "status", "stop"]);
    assert_eq!(words("help sta"), ["start", "status"]);
    assert_eq!(words("stop --no"), ["--no-block"]);
    assert_eq!(words("list-units web --no"), ["--no-legend"]);
    assert_eq!(words("start --end"), ["--endpoint"]);
    assert_eq!(words("--end"), ["--endpoint"]);
    assert_eq!(words("start -- --no"), [""; 0]);
    assert_eq!(words("_").first().map(String::as_str), Some("accept-store"));
    assert!(!words("_").iter().any(|word| word.starts_with("__")));
}

#[test]
fn values_of_flags_with_and_without_an_equals_sign() {
    assert_eq!(words("list-units --output j"), ["json"]);
    assert_eq!(words("list-units -o _"), ["text", "json"]);
    assert_eq!(words("list-units --output=t"), ["text"]);
    assert_eq!(fits("list-units --output=t").before, "--output=");
    assert_eq!(words("--debug=t"), ["true"]);
    // A value of --debug follows only its =, so this is a command.
    assert_eq!(words("--debug cat"), ["cat"]);
}

#[test]
fn what_kind_of_thing_a_command_takes() {
    for (line, expected) in [
        ("start _", "files units"),
        ("start a.service _", "files units"),
        ("sta _", ""),
        ("star _", "files units"),
        ("stop _", "units"),
        ("cat _", "units"),
        ("status _", "units"),
        ("journal _", "units"),
        ("destroy --no-block a _", "units"),
        ("ssh _", "units machines"),
        ("ssh 148a _", ""),
        ("ssh --machine _", "machines"),
        ("ssh --machine=1", "machines"),
        ("ssh --unit _", "units"),
        ("--ca-file _", "files"),
        ("fd-forward _", "files"),
        ("list-machines _", ""),
        ("version _", ""),
        ("why _", "units machines"),
    ] {
        assert_eq!(kinds(line), expected, "{line}");
    }
}

/// Whoever adds an argument says with its value's name what completes it.
#[test]
fn what_looks_like_a_unit_a_machine_or_a_file_is_completed() {
    const COMPLETED: [&str; 7] = [
        "FILE",
        "SOCKET",
        "UNIT",
        "ID",
        "MACHINE",
        "UNIT|MACHINE",
        "COMMAND",
    ];
    const LOOK: [&str; 5] = ["UNIT", "MACHINE", "FILE", "PATH", "SOCKET"];
    let mut cli = cli::clap_command();
    cli.build();
    let all = std::iter::once(&cli).chain(cli.get_subcommands());
    let mut n_completed = 0;
    for command in all.filter(|command| !command.is_hide_set()) {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            if !arg.get_action().takes_values() {
                continue;
            }
            let name = arg.get_value_names().and_then(|names| names.first());
            let name = name.map_or("", |name| name.as_str());
            let is_completed = COMPLETED.contains(&name) || is_machine_then_command(arg);
            n_completed += usize::from(is_completed);
            assert!(
                is_completed || !LOOK.iter().any(|word| name.to_uppercase().contains(word)),
                "{} {}: {name} is no name that completes; {COMPLETED:?} are",
                command.get_name(),
                arg.get_id()
            );
        }
    }
    assert!(n_completed > 10, "{n_completed}");
}
