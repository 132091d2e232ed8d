use crate::session::Session;

#[test]
fn journalctl_is_asked_on_the_units_machine() {
    Session::with_units_and_ssh()
        .run("fleetctl journal hello")
        .run("fleetctl journal --lines=3 --f --sudo --output=cat hello")
        .run("fleetctl journal -n 3 -f hello")
        .shows("
$ fleetctl journal hello
ssh -l core -T 172.30.1.2 journalctl \"--unit\" \"hello.service\" \"--no-pager\" \"-n\" \"10\" \"--output\" \"short\"
$ fleetctl journal --lines=3 --f --sudo --output=cat hello
ssh -l core -T 172.30.1.2 sudo journalctl \"--unit\" \"hello.service\" \"--no-pager\" \"-n\" \"3\" \"--output\" \"cat\" \"-f\"
$ fleetctl journal -n 3 -f hello
ssh -l core -T 172.30.1.2 journalctl \"--unit\" \"hello.service\" \"--no-pager\" \"-n\" \"3\" \"--output\" \"short\" \"-f\"
");
}

#[test]
fn what_has_no_journal() {
    Session::with_units_and_ssh()
        .run("fleetctl journal")
        .run("fleetctl journal a b")
        .run("fleetctl journal nope")
        .run("fleetctl journal g")
        .run("fleetctl journal idle")
        .shows(
            "
$ fleetctl journal
2> One unit file must be provided.
rc=1
$ fleetctl journal a b
2> One unit file must be provided.
rc=1
$ fleetctl journal nope
2> Unit nope.service does not exist.
rc=1
$ fleetctl journal g
2> Unable to retrieve journal of global unit g.service.
2> hint: take one machine at a time: fleetctl ssh 63d22e36 -- journalctl --unit g.service
rc=1
$ fleetctl journal idle
2> Unit idle.service does not appear to be running.
rc=1
",
        );
}

#[test]
fn journalctls_status_is_ours() {
    Session::with_units_and_ssh()
        .run("fleetctl ssh 63d22e36 -- journalctl --unit g.service")
        .run("SSH_STATUS=1 fleetctl journal hello")
        .run("SSH_STATUS=255 fleetctl journal hello")
        .shows(
            r#"
$ fleetctl ssh 63d22e36 -- journalctl --unit g.service
ssh -l core -T 172.30.1.2 journalctl --unit g.service
$ SSH_STATUS=1 fleetctl journal hello
ssh -l core -T 172.30.1.2 journalctl "--unit" "hello.service" "--no-pager" "-n" "10" "--output" "short"
rc=1
$ SSH_STATUS=255 fleetctl journal hello
ssh -l core -T 172.30.1.2 journalctl "--unit" "hello.service" "--no-pager" "-n" "10" "--output" "short"
2> Unable to SSH to remote host: 63d22e36.../172.30.1.2: Process exited with status 255
rc=255
"#,
        );
}
