//! How fleetd's progress reads for people.

use fleet_api::v2::{Progress, RefusalView, StateView};

use crate::report::legend;

/// `0 of 3 machines may run x.service: MachineMetadata region=mars refused 3`
pub(super) fn pending_text(progress: &Progress) -> String {
    let refusals: Vec<String> = progress
        .refusals
        .iter()
        .map(
            |RefusalView {
                 requirement,
                 machines,
             }| format!("{requirement} refused {machines}"),
        )
        .collect();
    let refused: u32 = progress
        .refusals
        .iter()
        .map(|refusal| refusal.machines)
        .sum();
    let why = match refusals.is_empty() {
        true => progress.reason.clone(),
        false => refusals.join(", "),
    };
    let considered = progress.considered;
    let mut text = match considered > 0 && refused >= considered {
        true => format!("0 of {considered} machines may run {}", progress.name),
        // None was asked, or not all have refused it one by one: the reason has the rest.
        false => format!("no machine runs {} yet", progress.name),
    };
    if !why.is_empty() {
        text.push_str(": ");
        text.push_str(&why);
    }
    text
}

/// `activating (start) on 63d22e36.../172.30.1.2`: why a machine is still at work on it. Why it is
/// there is no reason to wait.
pub(super) fn doing(progress: &Progress) -> String {
    let machine = progress.machine.as_ref();
    let on = machine.map(|m| format!(" on {}", legend(&m.id, &m.primary_ip, false)));
    match (&progress.state, on) {
        (Some(state), on) if !state.active.is_empty() => {
            let on = on.unwrap_or_default();
            format!("{} ({}){on}", state.active, state.sub)
        }
        (_, Some(on)) => format!("placed{on}"),
        (_, None) => progress.reason.clone(),
    }
}

/// `unit bad.service failed on 63d22e36.../172.30.1.2: exit code 1`
pub(super) fn trouble(progress: &Progress) -> String {
    let verb = match progress.phase.as_str() {
        "refused" => "was refused",
        _ => "failed",
    };
    let mut text = format!("unit {} {verb}", progress.name);
    if let Some(machine) = &progress.machine {
        text.push_str(&format!(
            " on {}",
            legend(&machine.id, &machine.primary_ip, false)
        ));
    }
    let state = progress.state.as_ref();
    let why = state.and_then(|state| state.why.clone());
    // The reason may go on where systemd's ends: with what is done about it.
    let goes_on = |why: &String| !progress.reason.starts_with(why.as_str());
    let why = why
        .filter(goes_on)
        .unwrap_or_else(|| progress.reason.clone());
    if !why.is_empty() {
        text.push_str(&format!(": {why}"));
    } else if let Some(StateView {
        load, active, sub, ..
    }) = state
    {
        text.push_str(&format!(": systemd says {load}/{active}/{sub}"));
    }
    text
}

pub(super) fn log(progress: &Progress) -> Vec<String> {
    let state = progress.state.as_ref();
    state.map(|state| state.log.clone()).unwrap_or_default()
}
