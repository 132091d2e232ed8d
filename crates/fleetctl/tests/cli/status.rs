use crate::session::Session;

#[test]
fn systemctl_is_asked_on_the_units_machines() {
    Session::with_units_and_ssh()
        .run("fleetctl status hello")
        .run("fleetctl status g")
        .run("fleetctl status")
        .run("fleetctl status nope idle hello")
        .shows(
            "
$ fleetctl status hello
ssh -l core 172.30.1.2 systemctl status \"-l\" \"hello.service\"
$ fleetctl status g
g.service on 63d22e36.../172.30.1.2:
ssh -l core 172.30.1.2 systemctl status \"-l\" \"g.service\"

g.service on 6a97c281.../172.30.1.3:
ssh -l core 172.30.1.3 systemctl status \"-l\" \"g.service\"
$ fleetctl status
2> No units given
$ fleetctl status nope idle hello
ssh -l core 172.30.1.2 systemctl status \"-l\" \"hello.service\"
2> Unit nope.service does not exist.
2> Unit idle.service does not appear to be loaded.
rc=1
",
        );
}

#[test]
fn the_first_status_that_is_not_0_is_ours() {
    Session::with_units_and_ssh()
        .run("SSH_STATUS=3 fleetctl status hello")
        .run("SSH_STATUS=4 fleetctl status g nope")
        .run("SSH_STATUS=255 fleetctl status --ssh-port=2222 hello g")
        .shows(
            r#"
$ SSH_STATUS=3 fleetctl status hello
ssh -l core 172.30.1.2 systemctl status "-l" "hello.service"
rc=3
$ SSH_STATUS=4 fleetctl status g nope
g.service on 63d22e36.../172.30.1.2:
ssh -l core 172.30.1.2 systemctl status "-l" "g.service"

g.service on 6a97c281.../172.30.1.3:
ssh -l core 172.30.1.3 systemctl status "-l" "g.service"
2> Unit nope.service does not exist.
rc=1
$ SSH_STATUS=255 fleetctl status --ssh-port=2222 hello g
ssh -l core -p 2222 172.30.1.2 systemctl status "-l" "hello.service"

g.service on 63d22e36.../172.30.1.2:
ssh -l core -p 2222 172.30.1.2 systemctl status "-l" "g.service"

g.service on 6a97c281.../172.30.1.3:
ssh -l core -p 2222 172.30.1.3 systemctl status "-l" "g.service"
2> Unable to SSH to remote host: 63d22e36.../172.30.1.2: Process exited with status 255
2> Unable to SSH to remote host: 63d22e36.../172.30.1.2: Process exited with status 255
2> Unable to SSH to remote host: 6a97c281.../172.30.1.3: Process exited with status 255
rc=255
"#,
        );
}
