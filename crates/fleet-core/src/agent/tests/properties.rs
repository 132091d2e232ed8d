//! What holds for whatever is assigned and whatever is there.

use proptest::prelude::*;

use super::*;

/// What a systemd that always succeeds would make of a task.
fn carry_out(observed: &mut Observed, kind: &TaskKind, invocation: &mut u32) {
    match kind {
        TaskKind::Stop(record) => {
            observed.record = Some(record.clone());
            "inactive".clone_into(&mut observed.active);
            observed.working = None;
        }
        TaskKind::Unload(record) => {
            *observed = Observed {
                record: Some(record.clone()),
                ..Observed::default()
            };
        }
        TaskKind::Load(record, text) => {
            observed.file = Some(record.hash);
            observed.body = Some(BodyHash::of_text(text));
            observed.record = Some(record.clone());
        }
        TaskKind::Remember(record) => observed.record = Some(record.clone()),
        TaskKind::Forget => observed.record = None,
        TaskKind::Start(record) | TaskKind::Restart(record) => {
            *invocation += 1;
            "active".clone_into(&mut observed.active);
            observed.invocation_id = invocation.to_string();
            observed.record = Some(LaunchRecord {
                phase: Phase::Launched,
                invocation_id: observed.invocation_id.clone(),
                ..record.clone()
            });
        }
    }
    observed.attempt = None;
    observed.refused = None;
}

fn any_assigned() -> impl Strategy<Value = AssignmentRecord> {
    ("(gone|loaded|launched) [AB](/x)? @[12]\\.[12]", 0u64..2)
        .prop_map(|(words, restarts)| assignment(&format!("{words} restarts={restarts}")).unwrap())
}

fn any_start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Allowed),
        Just(Start::NotPresent),
        Just(Start::InDoubt)
    ]
}

fn any_here() -> impl Strategy<Value = Observed> {
    (
        "(file=[AB](/x)?)?",
        "(active|activating|failed|inactive|deactivating)?",
        "((loaded|starting|launched|gone)=[AB](/x)?@[12]\\.[12])?",
        "(id=x)?",
        "(refused@[12]|attempt@[12]|due@[12])?",
    )
        .prop_map(|(file, active, record, id, result)| {
            here_of(&format!("{file} {active} {record} {id} {result}"))
        })
}

proptest! {
    #[test]
    fn carrying_out_plans_comes_to_an_end_and_there_is_what_was_ordered(
        assigned in any_assigned(), here in any_here(),
    ) {
        let (mut observed, mut invocation) = (here.clone(), 0);
        // What stands in the way is another test's matter.
        observed.attempt = None;
        observed.refused = None;
        for _ in 0..6 {
            let plan = plan_unit(&name(), Some(&assigned), &observed, Circumstances::GOOD);
            if plan.tasks.is_empty() {
                break;
            }
            for task in &plan.tasks {
                carry_out(&mut observed, &task.kind, &mut invocation);
            }
        }
        let plan = plan_unit(&name(), Some(&assigned), &observed, Circumstances::GOOD);
        prop_assert_eq!(&plan.tasks, &[], "{:?}", observed);
        let newer = here.record.as_ref().is_some_and(|r| r.decision > assigned.decision);
        if !newer {
            let reached = plan.report.unwrap().reached;
            let wanted = match assigned.order {
                Order::Gone => Reached::Gone,
                Order::Loaded => Reached::Loaded,
                Order::Launched => Reached::Launched,
            };
            prop_assert_eq!(reached, wanted);
            prop_assert_eq!(observed.file.is_some(), assigned.order != Order::Gone);
        }
    }

    #[test]
    fn absence_is_no_command(here in any_here()) {
        prop_assert_eq!(plan_unit(&name(), None, &here, Circumstances::GOOD).tasks, []);
    }

    #[test]
    fn what_runs_is_touched_only_by_an_order_to(assigned in any_assigned(), here in any_here()) {
        let plan = plan_unit(&name(), Some(&assigned), &here, Circumstances::GOOD);
        let restarts = here.record.as_ref().is_some_and(|r| assigned.restarts > r.restarts);
        let same = here.file.is_none_or(|hash| hash == assigned.hash);
        if assigned.order == Order::Launched && same && !restarts && !here.is_down() {
            for task in &plan.tasks {
                prop_assert!(!matches!(task.kind, TaskKind::Stop(_) | TaskKind::Unload(_) | TaskKind::Restart(_)));
            }
        }
    }

    #[test]
    fn contents_change_only_while_the_unit_is_down(assigned in any_assigned(), here in any_here()) {
        let plan = plan_unit(&name(), Some(&assigned), &here, Circumstances::GOOD);
        let changes = plan.tasks.iter().any(|task| match &task.kind {
            TaskKind::Load(_, text) => {
                here.body.is_some_and(|body| body != BodyHash::of_text(text))
            }
            TaskKind::Unload(_) => true,
            _ => false,
        });
        prop_assert!(!changes || here.is_down());
    }

    #[test]
    fn the_circumstances_bind(
        assigned in any_assigned(), here in any_here(),
        systemd: bool, start in any_start(), hold: bool,
    ) {
        let circumstances = Circumstances { systemd, start, hold };
        let plan = plan_unit(&name(), Some(&assigned), &here, circumstances);
        for task in &plan.tasks {
            prop_assert!(systemd);
            let kind = &task.kind;
            prop_assert!(start == Start::Allowed || !matches!(kind, TaskKind::Start(_) | TaskKind::Restart(_)));
            let stops = matches!(kind, TaskKind::Stop(_) | TaskKind::Unload(_))
                || (matches!(kind, TaskKind::Restart(_)) && !here.is_down());
            prop_assert!(!hold || !stops);
        }
    }
}
