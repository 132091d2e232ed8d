//! One unit a line, the plan as a snapshot; and what must hold for all of them.
//!
//! A line of a fixture: `assigned => here`, both of them words.
//! A TEXT is `A`, or `A/x` for the same unit with requirements.
//! Assigned: `gone|loaded|launched TEXT @GENERATION[.SEQ] [restarts=N]`, or `-` for nothing.
//! Here: `[file=TEXT] [active|activating|failed|deactivating] [PHASE=TEXT@GENERATION[.SEQ]]
//! [id=INVOCATION] [before=INVOCATION] [stopping|starting|files] [refused@G] [attempt@G|due@G]
//! [unreadable]`.

use super::*;
use crate::records::Order;

mod properties;

#[track_caller]
fn check(fixture: &str, expected: &str) {
    check_under(Circumstances::GOOD, fixture, expected);
}

/// The plan of each line: tasks, what is reached, `?` if that does not stand.
#[track_caller]
fn check_under(circumstances: Circumstances, fixture: &str, expected: &str) {
    let lines = fixture.lines().map(str::trim).filter(|l| !l.is_empty());
    let plans: Vec<String> = lines.map(|line| plan_of(circumstances, line)).collect();
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    assert_eq!(plans, expected);
}

fn plan_of(circumstances: Circumstances, line: &str) -> String {
    let (assigned, here) = line.split_once("=>").unwrap();
    plan_for(circumstances, assigned, &here_of(here))
}

fn plan_for(circumstances: Circumstances, assigned: &str, here: &Observed) -> String {
    let assignment = assignment(assigned.trim());
    let plan = plan_unit(&name(), assignment.as_ref(), here, circumstances);
    let mut words: Vec<String> = plan
        .tasks
        .iter()
        .map(|task| format!("{} ({})", task.kind.as_str(), task.reason))
        .collect();
    if let Some(report) = plan.report {
        let passing = if report.settled { "" } else { "?" };
        words.push(format!("{}{passing}", report.reached.as_str()));
    }
    if plan.remark.is_some() {
        words.push("!".to_owned());
    }
    if words.is_empty() {
        words.push("nothing".to_owned());
    }
    words.join(", ")
}

fn name() -> UnitName {
    UnitName::parse("a.service").unwrap()
}

fn text_hash(word: &str) -> UnitHash {
    UnitHash::of(text(word).as_bytes())
}

fn text(word: &str) -> String {
    let (program, fleet) = word.split_once('/').unwrap_or((word, ""));
    let fleet = match fleet {
        "" => String::new(),
        fleet => format!("\n[X-Fleet]\nMachineMetadata=m={fleet}\n"),
    };
    format!("[Service]\nExecStart=/bin/{program}\n{fleet}")
}

fn decision(text: &str) -> Decision {
    let (generation, seq) = text.split_once('.').unwrap_or((text, "1"));
    Decision {
        generation: generation.parse().unwrap(),
        seq: seq.parse().unwrap(),
    }
}

fn assignment(words: &str) -> Option<AssignmentRecord> {
    let words: Vec<&str> = words.split_whitespace().collect();
    let [order, word, at, rest @ ..] = &words[..] else {
        return None;
    };
    let restarts = rest
        .first()
        .map_or("0", |r| r.strip_prefix("restarts=").unwrap());
    Some(AssignmentRecord {
        text: text(word).into(),
        hash: text_hash(word),
        decision: decision(at.strip_prefix('@').unwrap()),
        order: Order::parse(order).unwrap(),
        restarts: restarts.parse().unwrap(),
        reason: String::new(),
    })
}

fn here_of(words: &str) -> Observed {
    let mut observed = Observed::default();
    for word in words.split_whitespace() {
        match word.split_once(['=', '@']) {
            Some(("file", word)) => {
                observed.file = Some(text_hash(word));
                observed.body = Some(BodyHash::of_text(&text(word)));
            }
            Some(("id", id)) => id.clone_into(&mut observed.invocation_id),
            Some(("before", id)) => {
                id.clone_into(&mut observed.record.as_mut().unwrap().invocation_id);
            }
            Some(("refused", at)) => observed.refused = Some((decision(at), "no".to_owned())),
            Some((word @ ("attempt" | "due"), at)) => {
                observed.attempt = Some(Attempt {
                    decision: decision(at),
                    why: "not yet".to_owned(),
                    due: word == "due",
                });
            }
            Some((phase, done)) => {
                let (text, at) = done.split_once('@').unwrap();
                observed.record = Some(LaunchRecord {
                    decision: decision(at),
                    phase: Phase::parse(phase).unwrap(),
                    hash: text_hash(text),
                    restarts: 0,
                    invocation_id: String::new(),
                });
            }
            None => match word {
                "stopping" => observed.working = Some(Working::Stopping),
                "starting" => observed.working = Some(Working::Starting),
                "files" => observed.working = Some(Working::Files),
                "unreadable" => observed.unreadable = Some("by a newer fleetd".to_owned()),
                active => active.clone_into(&mut observed.active),
            },
        }
    }
    observed
}

/// An older copy of the store was restored, and somebody has said that it counts: what it orders
/// is obeyed though its numbers are lower than those that were acted on.
#[test]
fn an_older_copy_of_the_store_is_obeyed_when_it_is_believed() {
    // What the store says, what is here, and what it says later, if it says nothing now.
    let plan_after = |now: &str, here: &str, later: &str| {
        let mut here = here_of(here);
        let task = believing(&name(), assignment(now).as_ref(), &here);
        let is_changed = task.is_some();
        if let Some(TaskKind::Remember(record)) = task.map(|task| task.kind) {
            here.record = Some(record);
        }
        (is_changed, plan_for(Circumstances::GOOD, later, &here))
    };
    let here = "file=A active launched=A@20.180 id=i";
    let ignored = plan_of(Circumstances::GOOD, &format!("gone A @20.161 => {here}"));
    assert_eq!(ignored, "launched, !");
    for (now, later, expected) in [
        (
            "gone A @20.161",
            "gone A @20.161",
            "stop (unit running but not scheduled here), working?",
        ),
        ("launched A @20.161", "launched A @20.161", "launched"),
        // A restart that the copy knows of has been made.
        (
            "launched A @20.161 restarts=3",
            "launched A @20.161 restarts=3",
            "launched",
        ),
        // The copy does not know it: it is kept, and what is said of it one day is newer, but no
        // restart.
        ("-", "-", "launched, !"),
        (
            "-",
            "launched A @5.6 restarts=3",
            "remember (unit already running with these contents), working?",
        ),
        (
            "-",
            "gone A @5.6",
            "stop (unit running but not scheduled here), working?",
        ),
    ] {
        assert_eq!(
            plan_after(now, here, later),
            (true, expected.to_owned()),
            "{now}"
        );
    }
    // What is as new, and what is in flight, is not touched.
    for here in [
        "file=A active launched=A@20.161 id=i",
        "file=A starting starting=A@20.190",
    ] {
        let assignment = assignment("launched A @20.161");
        assert_eq!(
            believing(&name(), assignment.as_ref(), &here_of(here)),
            None
        );
    }
}

#[test]
fn a_new_unit_is_loaded_and_started() {
    check(
        "
        launched A @1 =>
        loaded A @1 =>
        launched A @1 => file=A loaded=A@1
        loaded A @1 => file=A loaded=A@1
        launched A @1 => file=A active launched=A@1
        gone A @1 =>
        ",
        "
        load (unit scheduled here but not loaded), start (unit currently loaded but desired state is launched), working?
        load (unit scheduled here but not loaded), working?
        start (unit currently loaded but desired state is launched), working?
        loaded
        launched
        gone
        ",
    );
}

#[test]
fn new_contents_wait_until_the_old_process_is_down() {
    check(
        "
        launched B @2 => file=A active launched=A@1
        launched B @2 => file=A deactivating launched=A@1 stopping
        launched B @2 => file=A failed launched=A@1
        launched B @2 => file=A activating launched=A@1 starting
        launched B @2 => file=A files
        loaded B @2 => file=A active launched=A@1
        ",
        "
        stop (unit loaded but hash differs to expected), working?
        working?
        load (unit loaded but hash differs to expected), start (unit currently loaded but desired state is launched), working?
        stop (unit loaded but hash differs to expected), working?
        working?
        stop (unit currently launched but desired state is loaded), working?
        ",
    );
}

#[test]
fn other_requirements_touch_no_process() {
    check(
        "
        launched A/x @2 => file=A active launched=A@1
        launched A @2 => file=A/x activating launched=A/x@1
        launched A/x @2 => file=A active starting=A@1
        launched A/x @2 => file=A activating launched=A@1 starting
        launched A/x @2 restarts=1 => file=A active launched=A@1
        launched A/x @2 restarts=1 => file=A/x active launched=A/x@2
        launched A/x @2 => file=A deactivating launched=A@1
        launched A/x @2 => file=A active stopping=A@1
        launched A/x @2 => file=A inactive launched=A@1
        launched B/x @2 => file=A/x active launched=A/x@1
        ",
        "
        load (only its requirements have changed), working?
        load (only its requirements have changed), working?
        load (only its requirements have changed), working?
        working?
        load (only its requirements have changed), working?
        restart (a restart was asked for), working?
        stop (unit loaded but hash differs to expected), working?
        stop (unit loaded but hash differs to expected), working?
        load (unit loaded but hash differs to expected), start (unit currently loaded but desired state is launched), working?
        stop (unit loaded but hash differs to expected), working?
        ",
    );
    let held = Circumstances {
        hold: true,
        ..Circumstances::GOOD
    };
    check_under(
        held,
        "launched A/x @2 => file=A active launched=A@1",
        "load (only its requirements have changed), working?",
    );
}

#[test]
fn what_finished_or_was_stopped_by_hand_is_left_until_it_is_asked_for_again() {
    check(
        "
        launched A @1 => file=A inactive launched=A@1
        launched A @1 => file=A failed launched=A@1
        launched A @1.9 => file=A inactive launched=A@1.2
        launched A @2 => file=A inactive launched=A@1
        launched A @2 => file=A active launched=A@1
        launched A @2 restarts=1 => file=A active launched=A@1
        launched A @2 restarts=1 => file=A inactive launched=A@1
        ",
        "
        launched
        launched
        remember (same wish, newer placement), working?
        start (a start was asked for again), working?
        remember (unit already running with these contents), working?
        restart (a restart was asked for), working?
        restart (a restart was asked for), working?
        ",
    );
}

#[test]
fn what_fleet_has_stopped_is_started_again_when_it_is_wanted_again() {
    check(
        "
        launched A @1.3 => file=A inactive stopping=A@1.2
        launched A @1.3 => file=A active stopping=A@1.2
        launched A @1.3 => file=A deactivating stopping=A@1.2
        launched A @2 => file=A inactive starting=A@1 id=new before=old
        gone A @2 => file=A active stopping=A@2
        loaded A @2 => file=A active stopping=A@2
        loaded A @2 => file=A inactive stopping=A@2
        ",
        "
        start (unit currently loaded but desired state is launched), working?
        remember (unit already running with these contents), working?
        start (unit currently loaded but desired state is launched), working?
        start (a start was asked for again), working?
        stop (unit running but not scheduled here), working?
        stop (unit currently launched but desired state is loaded), working?
        remember (unit already loaded), working?
        ",
    );
}

/// What was under way when its order was lost, as a stop with the lease, comes to its end: for ever on its
/// way, it would never be told to go.
#[test]
fn what_is_here_without_an_order_is_said_to_be_what_it_is() {
    check(
        "
        - => file=A inactive stopping=A@2
        - => file=A active stopping=A@2
        - => file=A deactivating stopping=A@2
        - => file=A failed starting=A@2
        - => file=A active starting=A@2
        - => file=A activating starting=A@2
        - => inactive stopping=A@2
        ",
        "
        loaded, !
        launched, !
        working?, !
        loaded, !
        launched, !
        working?, !
        working?, !
        ",
    );
}

#[test]
fn a_new_agent_goes_on_where_the_last_one_died() {
    check(
        "
        launched A @1 => file=A active
        launched A @1 => file=A active starting=A@1 id=x
        launched A @1 => file=A inactive starting=A@1
        launched A @1 => file=A inactive starting=A@1 id=new before=old
        launched A @1 => file=A active starting=A@1 id=new before=old
        launched A @1 => file=A active starting=A@1 id=old before=old
        launched A @1 => file=A deactivating starting=A@1 id=old before=old
        launched A @1 => file=A deactivating starting=A@1 id=new before=old
        launched A @1 => active starting=A@1 id=new before=old
        launched A @1 => file=A failed starting=A@1
        launched A @1 => active launched=A@1
        launched A @1 => inactive launched=A@1
        ",
        "
        remember (unit already running with these contents), working?
        remember (the start had happened), working?
        start (the start was interrupted), working?
        remember (the start had happened), working?
        remember (the start had happened), working?
        restart (the restart was interrupted), working?
        start (the start was interrupted), working?
        remember (the start had happened), working?
        load (the file of a running unit is missing), working?
        remember (the start had happened), working?
        load (the file of a running unit is missing), working?
        load (unit scheduled here but not loaded), start (unit currently loaded but desired state is launched), working?
        ",
    );
}

#[test]
fn what_has_to_go_is_stopped_then_removed_then_remembered_as_gone() {
    check(
        "
        gone A @2 => file=A active launched=A@1
        gone A @2 => file=A activating starting=A@1 starting
        gone A @2 => file=A deactivating launched=A@1 stopping
        gone A @2 => file=A failed launched=A@1
        gone A @2 => gone=A@2
        gone A @3 => gone=A@2
        gone A @2 => active
        launched A @3 => gone=A@2
        ",
        "
        stop (unit running but not scheduled here), working?
        stop (unit running but not scheduled here), working?
        working?
        unload (unit loaded but not scheduled here), working?
        gone
        remember (unit already gone), gone
        gone
        load (unit scheduled here but not loaded), start (unit currently loaded but desired state is launched), working?
        ",
    );
}

#[test]
fn only_what_fleet_started_is_stopped_to_be_loaded() {
    check(
        "
        loaded A @2 => file=A active launched=A@1
        loaded A @2 => file=A active loaded=A@2
        loaded A @2 => file=A inactive launched=A@1
        ",
        "
        stop (unit currently launched but desired state is loaded), working?
        loaded
        remember (unit already loaded), working?
        ",
    );
}

#[test]
fn without_an_assignment_or_with_an_old_one_everything_stays() {
    check(
        "
        - => file=A active launched=A@1
        - => file=A active
        - => gone=A@1
        - =>
        gone A @1 => file=A active launched=A@2
        launched B @1.5 => file=A active launched=A@1.6
        ",
        "
        launched, !
        !
        nothing
        nothing
        launched, !
        launched, !
        ",
    );
}

/// A downgrade: nobody knows what the newer fleetd has done with the unit.
#[test]
fn a_unit_of_which_a_newer_fleetd_remembers_something_is_left_alone() {
    check(
        "
        launched A @2 => file=A active unreadable
        launched A @2 => file=A unreadable
        launched B @3 => file=A active unreadable
        gone A @3 => file=A active unreadable
        loaded A @3 => unreadable
        - => file=A active unreadable
        ",
        "
        working, !
        working, !
        working, !
        working, !
        working, !
        !
        ",
    );
    let assigned = assignment("launched A @2").unwrap();
    let here = here_of("file=A active unreadable");
    let plan = plan_unit(&name(), Some(&assigned), &here, Circumstances::GOOD);
    let why = plan.report.unwrap().why;
    assert_eq!(why.as_deref(), Some("by a newer fleetd"));
}

#[test]
fn refusals_and_failed_attempts_stand_until_there_is_a_reason_to_try_again() {
    check(
        "
        launched A @1 => refused@1
        launched A @2 => refused@1
        gone A @1 => refused@1
        launched A @1 => file=A loaded=A@1 attempt@1
        launched A @1 => file=A loaded=A@1 due@1
        gone A @2 => file=A active launched=A@1 attempt@2
        gone A @3 => file=A active launched=A@1 attempt@2
        ",
        "
        refused
        load (unit scheduled here but not loaded), start (unit currently loaded but desired state is launched), working?
        gone
        working
        start (unit currently loaded but desired state is launched), working?
        working
        stop (unit running but not scheduled here), working?
        ",
    );
}

#[test]
fn a_foreign_store_stops_nothing_and_an_uncertain_machine_starts_nothing() {
    let hold = Circumstances {
        hold: true,
        ..Circumstances::GOOD
    };
    check_under(
        hold,
        "
        gone A @2 => file=A active launched=A@1
        loaded A @2 => file=A active launched=A@1
        launched B @2 => file=A active launched=A@1
        launched A @2 restarts=1 => file=A active launched=A@1
        launched A @2 => file=A active launched=A@1
        launched A @1.9 => file=A active launched=A@1.2
        gone A @2 => gone=A@1
        launched A @1 =>
        ",
        "
        working?, !
        working?, !
        working?, !
        working?, !
        launched
        launched
        gone
        load (unit scheduled here but not loaded), start (unit currently loaded but desired state is launched), working?
        ",
    );
    let uncertain = Circumstances {
        start: Start::NotPresent,
        ..Circumstances::GOOD
    };
    check_under(
        uncertain,
        "
        launched A @1 =>
        launched A @1 => file=A loaded=A@1
        launched A @2 restarts=1 => file=A active launched=A@1
        gone A @2 => file=A active launched=A@1
        ",
        "
        working?, !
        working?, !
        working?, !
        stop (unit running but not scheduled here), working?
        ",
    );
}

/// It is not stopped either for what cannot be started afterwards, and its machine says why.
#[test]
fn what_must_not_run_twice_is_not_started_on_the_word_of_a_store_in_doubt() {
    let in_doubt = Circumstances {
        start: Start::InDoubt,
        ..Circumstances::GOOD
    };
    check_under(
        in_doubt,
        "
        launched A @1 =>
        launched A @1 => file=A loaded=A@1
        launched A @2 restarts=1 => file=A active launched=A@1
        launched B @2 => file=A active launched=A@1
        launched A @2 => file=A active launched=A@1 id=i1
        launched A @1 => file=A active launched=A@1
        loaded A @2 =>
        gone A @2 => file=A active launched=A@1
        ",
        "
        working, !
        working, !
        working, !
        working, !
        remember (unit already running with these contents), working?
        launched
        load (unit scheduled here but not loaded), working?
        stop (unit running but not scheduled here), working?
        ",
    );
    let assigned = assignment("launched A @1").unwrap();
    let plan = plan_unit(&name(), Some(&assigned), &Observed::default(), in_doubt);
    let why = plan.report.unwrap().why.unwrap();
    assert!(why.contains("fleetctl accept-store"), "{why}");
}

#[test]
fn a_unit_is_said_to_be_loaded_only_when_its_file_is_there() {
    for (here, said) in [
        // Its file cannot be written: it is loaded as little as one that was never there.
        ("attempt@1", " inactive dead"),
        ("files", " inactive dead"),
        ("file=A attempt@1", "loaded inactive dead"),
        ("file=A active launched=A@1", "loaded active dead"),
        ("refused@1", "not-found inactive dead"),
    ] {
        let observed = here_of(here);
        let assignment = assignment("launched A @1").unwrap();
        let plan = plan_unit(&name(), Some(&assignment), &observed, Circumstances::GOOD);
        let state = state_record(&plan.report.unwrap(), &observed, Some(assignment.hash));
        let words = format!("{} {} {}", state.load, state.active, state.sub);
        assert_eq!(words, said, "{here}");
    }
}

#[test]
fn all_stops_and_files_come_before_all_starts() {
    let unit = |unit: &str| UnitName::parse(unit).unwrap();
    let desired = BTreeMap::from([
        (unit("a.service"), assignment("launched A @1").unwrap()),
        (unit("b.service"), assignment("gone A @2").unwrap()),
        (unit("c.service"), assignment("launched A @1").unwrap()),
        (unit("d.service"), assignment("gone A @2").unwrap()),
    ]);
    let observed = BTreeMap::from([
        (unit("b.service"), here_of("file=A launched=A@1")),
        (unit("d.service"), here_of("file=A active launched=A@1")),
    ]);
    let tasks = plan(&desired, &observed, Circumstances::GOOD);
    let words: Vec<String> = tasks
        .iter()
        .map(|task| format!("{} {}", task.kind.as_str(), task.unit))
        .collect();
    assert_eq!(
        words,
        [
            "stop d.service",
            "unload b.service",
            "load a.service",
            "load c.service",
            "start a.service",
            "start c.service"
        ]
    );
}

/// Each line: whether the plan lets contents count that did not, and what is reached when they are not
/// trusted.
#[test]
fn contents_that_are_not_trusted_start_nothing_and_stop_nothing() {
    for (line, expected) in [
        ("launched A @1 => ", "refused"),
        ("loaded A @1 => ", "refused"),
        (
            "launched B @2 => file=A active launched=A@1 id=i",
            "working",
        ),
        (
            "launched A/x @2 => file=A active launched=A@1 id=i",
            "working",
        ),
        (
            "launched A @2 restarts=1 => file=A active launched=A@1 id=i",
            "working",
        ),
        (
            "launched A @2 => file=A failed launched=A@1 id=i",
            "refused",
        ),
        // Nothing new: what is here stays, and other orders on it are carried out.
        ("launched A @1 => file=A active launched=A@1 id=i", "-"),
        ("launched A @1.2 => file=A active launched=A@1 id=i", "-"),
        ("loaded A @2 => file=A active launched=A@1 id=i", "-"),
        ("gone B @2 => file=A active launched=A@1 id=i", "-"),
        ("gone B @2 => file=A launched=A@1 id=i", "-"),
    ] {
        let (assigned, here) = line.split_once("=>").unwrap();
        let (assigned, here) = (assignment(assigned.trim()).unwrap(), here_of(here));
        let plan = plan_unit(&name(), Some(&assigned), &here, Circumstances::GOOD);
        let reached = match plan.brings_in(&assigned, &here) {
            false => "-".to_owned(),
            true => {
                let instead = UnitPlan::of_untrusted(&assigned, &here, "no".to_owned());
                assert!(instead.tasks.is_empty(), "{line}");
                instead.report.unwrap().reached.as_str().to_owned()
            }
        };
        assert_eq!(reached, expected, "{line}: {:?}", plan.tasks);
    }
}
