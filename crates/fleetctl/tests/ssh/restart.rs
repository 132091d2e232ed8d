//! `fleetctl restart` through a tunnel.

use crate::rig::Rig;

pub(crate) fn a_global_unit_on_all_machines(rig: &Rig) {
    let invocations = || -> Vec<String> {
        let show = ["systemctl", "show", "-P", "InvocationID", "everywhere"];
        let hosts = rig.sandbox.hosts();
        hosts.iter().map(|host| host.run(&show).unwrap()).collect()
    };
    let before = invocations();
    let ran = rig.fleetctl(&["restart", "everywhere"]);
    assert!(
        ran.err.contains("Unit(everywhere.service) was restarted."),
        "{ran:?}"
    );
    ran.ok();
    let after = invocations();
    assert!(
        before.iter().zip(&after).all(|(b, a)| b != a),
        "{before:?} {after:?}"
    );
}
