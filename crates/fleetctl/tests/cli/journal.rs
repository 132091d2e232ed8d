use crate::fake::H1;
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
2> Unit a.service does not exist.
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

#[test]
fn fleetd_merges_the_journals_of_all_machines() {
    Session::with_machines()
        .run("fleetctl journal hello")
        .run("fleetctl journal -n 3 g")
        .run("fleetctl journal -o cat hello 'g*'")
        .run("fleetctl journal -o json -m 6a97 -n 1 g")
        .run("fleetctl journal -o cat --show-cursor --since 2023-11-14 g")
        .run("fleetctl journal idle")
        .run("fleetctl journal nope hello")
        .shows(
            r#"
$ fleetctl journal hello
Nov 14 22:13:21 h1 sh[42]: 1 of hello.service
Nov 14 22:13:22 h1 sh[42]: 2 of hello.service
$ fleetctl journal -n 3 g
Nov 14 22:13:21 h2 sh[42]: 1 of g.service
Nov 14 22:13:22 h1 sh[42]: 2 of g.service
Nov 14 22:13:22 h2 sh[42]: 2 of g.service
$ fleetctl journal -o cat hello 'g*'
1 of g.service
1 of hello.service
1 of g.service
2 of g.service
2 of hello.service
2 of g.service
$ fleetctl journal -o json -m 6a97 -n 1 g
{"FLEET_MACHINE_ID":"6a97c281d654404fb1ef271dfcd36920","MESSAGE":"2","_SYSTEMD_UNIT":"g.service"}
$ fleetctl journal -o cat --show-cursor --since 2023-11-14 g
1 of g.service
1 of g.service
2 of g.service
2 of g.service
-- cursor: fleet1~0~63d22e369175433883a37d92cc53f36c~s=h1,i=2~6a97c281d654404fb1ef271dfcd36920~s=h2,i=2
$ fleetctl journal idle
2> Unit idle.service does not appear to be running.
rc=1
$ fleetctl journal nope hello
2> Unit nope.service does not exist.
rc=1
"#,
        );
}

#[test]
fn a_journal_goes_on_after_a_cursor_and_is_followed_though_fleetd_ends_it() {
    let mut session = Session::with_machines();
    session
        .run("fleetctl journal -o cat --after-cursor=fleet1~7~63d22e369175433883a37d92cc53f36c~s=h1,i=2 hello")
        .run("fleetctl journal --after-cursor=nonsense hello")
        .run("fleetctl journal --since tomorrow hello");
    session.shows(
        r#"
$ fleetctl journal -o cat --after-cursor=fleet1~7~63d22e369175433883a37d92cc53f36c~s=h1,i=2 hello
3 of hello.service
$ fleetctl journal --after-cursor=nonsense hello
2> invalid cursor "nonsense": take one that fleetctl journal --show-cursor printed
rc=1
$ fleetctl journal --since tomorrow hello
2> invalid --since "tomorrow"
2> hint: use 30s, 10m, 2h or 3d, or a time in UTC as 2026-11-28 11:20 or 2026-11-28
rc=1
"#,
    );
    // Cut off after two lines, it reads on after them; then Ctrl-C.
    let mut follow = session
        .process("fleetctl journal -f -o cat hello")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let out = std::io::BufReader::new(follow.stdout.take().unwrap());
    let lines = std::io::BufRead::lines(out).take(3);
    let lines: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(
        lines,
        [
            "1 of hello.service",
            "2 of hello.service",
            "3 of hello.service"
        ]
    );
    let pid = rustix::process::Pid::from_child(&follow);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(follow.wait().unwrap().success());
}

#[test]
fn a_machine_whose_journal_fleetd_cannot_read_is_asked_through_ssh_or_said() {
    let mut session = Session::with_machines();
    session.cluster().unreachable = vec![H1];
    session
        .run("fleetctl journal hello")
        .run("fleetctl journal -o cat g")
        .run("fleetctl journal -o verbose hello")
        .run("fleetctl journal --ssh -n 3 hello")
        .shows(
            r#"
$ fleetctl journal hello
ssh -l core -T 172.30.1.2 journalctl "--unit" "hello.service" "--no-pager" "-n" "10" "--output" "short"
2> hint: asked through ssh, since fleetd cannot ask: machine 63d22e36 says nowhere that other machines reach its API; have its fleetd serve machines: api_listen= in fleet.conf
$ fleetctl journal -o cat g
1 of g.service
2 of g.service
2> WARNING: machine 63d22e36 says nowhere that other machines reach its API
2> hint: have its fleetd serve machines: api_listen= in fleet.conf
rc=1
$ fleetctl journal -o verbose hello
ssh -l core -T 172.30.1.2 journalctl "--unit" "hello.service" "--no-pager" "-n" "10" "--output" "verbose"
$ fleetctl journal --ssh -n 3 hello
ssh -l core -T 172.30.1.2 journalctl "--unit" "hello.service" "--no-pager" "-n" "3" "--output" "short"
"#,
        );
}
