use crate::fake::H1;
use crate::session::{HELLO, Session};

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

#[test]
fn fleetd_asks_the_systemds_of_all_machines_of_a_unit() {
    let mut session = Session::with_machines();
    session.unit("bad.service", HELLO, "launched");
    session
        .run("fleetctl status hello")
        .run("fleetctl status --lines=1 g idle bad nope")
        .run("fleetctl status 'he*'")
        .shows(
            r#"
$ fleetctl status hello
● hello.service - Hello World
     Loaded: loaded (/run/systemd/system/hello.service)
     Active: active (running) since TIME
    Machine: 63d22e36.../172.30.1.2
       Wish: launched, by uid 0
     Placed: least loaded
   Revision: 1 (hash 3141db9)
   Main PID: 42 (sleep)
      Tasks: 1 (limit: 4915)
     Memory: 1.5K (peak: 3.0M)
        CPU: 12ms
     CGroup: /system.slice/hello.service

Nov 14 22:13:21 h1 sh[42]: 1 of hello.service
Nov 14 22:13:22 h1 sh[42]: 2 of hello.service
$ fleetctl status --lines=1 g idle bad nope
● g.service
     Loaded: loaded (/run/systemd/system/g.service)
     Active: active (running) since TIME
    Machine: 63d22e36.../172.30.1.2
       Wish: launched, by uid 0
     Placed: least loaded
   Revision: 3 (hash 534d3b9)
   Main PID: 42 (sleep)
      Tasks: 1 (limit: 4915)
     Memory: 1.5K (peak: 3.0M)
        CPU: 12ms
     CGroup: /system.slice/g.service

Nov 14 22:13:22 h1 sh[42]: 2 of g.service

● g.service
     Loaded: loaded (/run/systemd/system/g.service)
     Active: active (running) since TIME
    Machine: 6a97c281.../172.30.1.3
       Wish: launched, by uid 0
     Placed: least loaded
   Revision: 3 (hash 534d3b9)
   Main PID: 42 (sleep)
      Tasks: 1 (limit: 4915)
     Memory: 1.5K (peak: 3.0M)
        CPU: 12ms
     CGroup: /system.slice/g.service

Nov 14 22:13:22 h2 sh[42]: 2 of g.service

○ idle.service - Hello World
     Active: inactive: it is on no machine
       Wish: inactive, by uid 0
    Pending: least loaded
   Revision: 2 (hash 3141db9)

× bad.service - Hello World
     Loaded: loaded (/run/systemd/system/bad.service)
     Active: failed (failed), exit-code: main process exited, status 1/FAILURE, since TIME
    Machine: 63d22e36.../172.30.1.2
       Wish: launched, by uid 0
     Placed: least loaded
   Revision: 4 (hash 3141db9)
     CGroup: /system.slice/bad.service

Nov 14 22:13:22 h1 sh[42]: 2 of bad.service
2> Unit nope.service does not exist.
2> Unit idle.service does not appear to be loaded.
rc=1
$ fleetctl status 'he*'
● hello.service - Hello World
     Loaded: loaded (/run/systemd/system/hello.service)
     Active: active (running) since TIME
    Machine: 63d22e36.../172.30.1.2
       Wish: launched, by uid 0
     Placed: least loaded
   Revision: 1 (hash 3141db9)
   Main PID: 42 (sleep)
      Tasks: 1 (limit: 4915)
     Memory: 1.5K (peak: 3.0M)
        CPU: 12ms
     CGroup: /system.slice/hello.service

Nov 14 22:13:21 h1 sh[42]: 1 of hello.service
Nov 14 22:13:22 h1 sh[42]: 2 of hello.service
"#,
        );
}

#[test]
fn a_machine_that_fleetd_cannot_ask_is_asked_through_ssh_and_one_that_is_away_is_said() {
    let mut session = Session::with_machines();
    session.cluster().unreachable = vec![H1];
    session.cluster().machines[1].status = "lost".into();
    session
        .run("fleetctl status hello")
        .run("fleetctl status g")
        .run("fleetctl status --ssh hello")
        .shows(
            r#"
$ fleetctl status hello
ssh -l core 172.30.1.2 systemctl status "-l" "hello.service"
2> hint: asked through ssh, since fleetd cannot ask: machine 63d22e36 says nowhere that other machines reach its API; have its fleetd serve machines: api_listen= in fleet.conf
$ fleetctl status g
g.service on 63d22e36.../172.30.1.2:
ssh -l core 172.30.1.2 systemctl status "-l" "g.service"

○ g.service
     Active: active (running) when it was last reported
    Machine: 6a97c281.../172.30.1.3, lost since TIME
       Wish: launched, by uid 0
     Placed: least loaded
   Revision: 3 (hash 534d3b9)
2> machine 6a97c281 is not present
2> hint: asked through ssh, since fleetd cannot ask: machine 63d22e36 says nowhere that other machines reach its API; have its fleetd serve machines: api_listen= in fleet.conf
2> hint: fleetctl why 6a97c281
rc=255
$ fleetctl status --ssh hello
ssh -l core 172.30.1.2 systemctl status "-l" "hello.service"
"#,
        );
}

#[test]
fn programs_get_all_of_a_status() {
    let mut session = Session::with_machines();
    session.run("fleetctl status -o json hello");
    let seen = session.seen();
    let json = seen.split_once('\n').unwrap().1.replace("MS", "0");
    let statuses: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(statuses[0]["unit"]["name"], "hello.service");
    let on = &statuses[0]["machines"][0];
    assert_eq!(on["machineID"], H1);
    assert_eq!(on["systemd"]["mainPID"], 42);
    assert_eq!(on["lines"][1]["message"], "2 of hello.service");
}
