use crate::session::Session;

#[test]
fn it_says_who_fleetd_takes_one_for_and_what_one_may_do() {
    let mut session = Session::with_fleetd();
    // Without a policy everybody may do everything.
    session
        .run("fleetctl whoami")
        .run("fleetctl whoami --may unit:start web")
        .run("fleetctl whoami --may machine:drain m1")
        .run("fleetctl whoami --may cluster:thaw")
        .run("fleetctl whoami --may fly")
        .run("fleetctl whoami web")
        .shows(
            "
$ fleetctl whoami
somebody
roles: admin
may:   unit:read unit:submit unit:start unit:stop unit:destroy unit:exec journal:read machine:read machine:drain machine:metadata cluster:read cluster:thaw cluster:accept-store event:read metrics:read certificate:issue certificate:renew certificate:revoke
$ fleetctl whoami --may unit:start web
somebody may unit:start web.service
$ fleetctl whoami --may machine:drain m1
somebody may machine:drain m1
$ fleetctl whoami --may cluster:thaw
somebody may cluster:thaw the cluster
$ fleetctl whoami --may fly
2> Error asking who you are: googleapi: Error 400: no such verb \"fly\": use one of unit:read, unit:submit, unit:start, unit:stop, unit:destroy, unit:exec, journal:read, machine:read, machine:drain, machine:metadata, cluster:read, cluster:thaw, cluster:accept-store, event:read, metrics:read, certificate:issue, certificate:renew, certificate:revoke, other
rc=1
$ fleetctl whoami web
2> what may be done to a unit or machine is asked with --may VERB
rc=2
",
        );
    let mut session = Session::with_original();
    session.run("fleetctl whoami").shows(
        "
$ fleetctl whoami
2> This fleetd is an original fleet 1.0, which knows no such command.
2> hint: upgrade fleetd there, or stop fleetd on a machine to have its units moved
rc=1
",
    );
}
