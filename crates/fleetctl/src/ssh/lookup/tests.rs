use fleet_api::v2::StateView;

use super::*;

const A: &str = "63d22e369175433883a37d92cc53f36c";
const B: &str = "63ffee69175433883a37d92cc53f36cc";
const C: &str = "ffc6ee8917544338a37d92cc53f36c11";

fn machines() -> Vec<MachineView> {
    [(A, "172.30.1.2"), (B, "172.30.1.3"), (C, "")]
        .map(|(id, ip)| MachineView {
            id: id.into(),
            primary_ip: ip.into(),
            ..MachineView::default()
        })
        .into()
}

fn unit(name: &str, current: &str, machine: Option<&str>) -> UnitView {
    UnitView {
        name: name.into(),
        current_state: Some(current.into()),
        machine_id: machine.map(str::to_owned),
        ..UnitView::default()
    }
}

fn global(name: &str, on: &[&str]) -> UnitView {
    let states = on.iter().map(|id| StateView {
        machine_id: (*id).into(),
        ..StateView::default()
    });
    UnitView {
        name: name.into(),
        global: true,
        states: states.collect(),
        ..UnitView::default()
    }
}

fn read(machine: &str, unit: &str, args: &[&str]) -> Result<(Wanted, Vec<String>), String> {
    let flag = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Wanted::read(flag(machine), flag(unit), args).map_err(|error| error.message)
}

#[test]
fn flags_and_arguments() {
    let ls = || vec!["ls".to_owned(), "-l".to_owned()];
    assert_eq!(
        read("", "", &["63", "ls", "-l"]),
        Ok((Wanted::Either("63".into()), ls()))
    );
    assert_eq!(
        read("63", "", &["ls", "-l"]),
        Ok((Wanted::Machine("63".into()), ls()))
    );
    assert_eq!(
        read("", "web", &["ls", "-l"]),
        Ok((Wanted::Unit("web".into()), ls()))
    );
    assert_eq!(
        read("", "", &[]).unwrap_err(),
        "Unable to proceed: one machine or unit must be provided"
    );
    assert_eq!(
        read("63", "web", &[]).unwrap_err(),
        "Both machine and unit flags provided, please specify only one."
    );
}

#[track_caller]
fn check(wanted: Wanted, unit: Option<&UnitView>, expected: Result<&str, &str>, hint: &str) {
    let machines = machines();
    match (wanted.address(&machines, unit), expected) {
        (Ok(address), Ok(expected)) => assert_eq!(address, expected),
        (Err(error), Err(expected)) => {
            assert_eq!(error.message, expected);
            let hints = error.hints.join("\n");
            assert!(hints.contains(hint), "{hints:?}");
        }
        (seen, expected) => panic!("expected {expected:?}, seen {seen:?}"),
    }
}

#[test]
fn machines_by_the_beginning_of_their_ids() {
    let machine = |prefix: &str| Wanted::Machine(prefix.into());
    check(machine("63d"), None, Ok("172.30.1.2"), "");
    check(machine(B), None, Ok("172.30.1.3"), "");
    check(
        machine("63"),
        None,
        Err("Unable to proceed: found more than one machine"),
        B,
    );
    check(
        machine("9"),
        None,
        Err("Unable to proceed: machine does not exist"),
        "list-machines",
    );
    check(
        machine("f"),
        None,
        Err("Could not determine address of machine."),
        C,
    );
}

#[test]
fn units_by_name() {
    let web = || Wanted::Unit("web".into());
    check(
        web(),
        Some(&unit("web.service", "launched", Some(B))),
        Ok("172.30.1.3"),
        "",
    );
    check(
        web(),
        None,
        Err("Unable to proceed: unit does not exist"),
        "",
    );
    check(
        web(),
        Some(&global("web.service", &[A])),
        Err("Unable to proceed: global units unsupported"),
        "web.service is on 63d22e36...",
    );
    check(
        web(),
        Some(&unit("web.service", "inactive", None)),
        Err("Could not determine address of machine."),
        "on no machine",
    );
}

#[test]
fn an_argument_is_tried_as_both() {
    let either = |text: &str| Wanted::Either(text.into());
    let web = unit("63d.service", "launched", Some(B));
    check(either("63d"), None, Ok("172.30.1.2"), "");
    check(either("web"), Some(&web), Ok("172.30.1.3"), "");
    check(either("63"), Some(&web), Ok("172.30.1.3"), "");
    check(
        either("63d"),
        Some(&web),
        Err(
            "Unable to proceed: ambiguous argument, both machine and unit found for `63d`.\n\
             Please use flag `--machine` or `--unit` to say which one is meant",
        ),
        "",
    );
    let nothing = Err("Unable to proceed: could not find matching unit or machine");
    check(either("9"), None, nothing, "list-machines");
    check(either("63"), None, nothing, "the beginning of 63d");
    check(
        either("g"),
        Some(&global("g.service", &[A])),
        nothing,
        "g.service is on 63d22e36",
    );
    check(
        either("w"),
        Some(&unit("w.service", "inactive", None)),
        nothing,
        "on no machine",
    );
}

fn steps(units: &[UnitView]) -> Vec<String> {
    let steps = status(units, &machines());
    let show = |step: &Step| match step {
        Step::Refuse(error) => error.message.clone(),
        Step::Show {
            place,
            units,
            heading,
        } => format!(
            "{}{} at {}",
            heading.as_deref().unwrap_or_default(),
            units.join(" "),
            place.legend()
        ),
    };
    steps.iter().map(show).collect()
}

#[test]
fn neighbours_on_one_machine_are_shown_by_one_command() {
    let units = [
        unit("a.service", "launched", Some(A)),
        unit("b.service", "loaded", Some(A)),
        unit("c.service", "launched", Some(B)),
        unit("d.service", "launched", Some(A)),
    ];
    assert_eq!(
        steps(&units),
        [
            "a.service b.service at 63d22e36.../172.30.1.2",
            "c.service at 63ffee69.../172.30.1.3",
            "d.service at 63d22e36.../172.30.1.2",
        ]
    );
}

#[test]
fn units_that_are_nowhere_do_not_hide_the_others() {
    let units = [
        unit("a.service", "launched", Some(A)),
        unit("b.service", "inactive", Some(A)),
        unit("c.service", "inactive", None),
        unit("d.service", "launched", Some("gone")),
    ];
    assert_eq!(
        steps(&units),
        [
            "a.service at 63d22e36.../172.30.1.2",
            "Unit b.service does not appear to be loaded.",
            "Unit c.service does not appear to be loaded.",
            "d.service at gone",
        ]
    );
}

#[test]
fn a_global_unit_is_shown_on_all_its_machines() {
    assert_eq!(
        steps(&[global("g.service", &[A, B]), global("h.service", &[])]),
        [
            "g.service on 63d22e36.../172.30.1.2:g.service at 63d22e36.../172.30.1.2",
            "g.service on 63ffee69.../172.30.1.3:g.service at 63ffee69.../172.30.1.3",
            "Unit h.service does not appear to be loaded.",
        ]
    );
}

#[test]
fn journals() {
    let of = |unit: &UnitView| journal(unit, &machines()).map_err(|error| error.message);
    let place = of(&unit("a.service", "launched", Some(A))).unwrap();
    assert_eq!(
        (place.id.as_str(), place.address.as_str()),
        (A, "172.30.1.2")
    );
    assert_eq!(
        of(&unit("a.service", "inactive", None)).unwrap_err(),
        "Unit a.service does not appear to be running."
    );
    assert_eq!(
        of(&global("g.service", &[A])).unwrap_err(),
        "Unable to retrieve journal of global unit g.service."
    );
}
