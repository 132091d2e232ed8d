use crate::session::Session;

#[test]
fn a_machine_or_a_units_machine() {
    Session::with_units_and_ssh()
        .run("fleetctl ssh 63d2 uptime")
        .run("fleetctl ssh hello uptime")
        .run("fleetctl ssh --machine=6a97 -- ls -l '/tmp'")
        .run("fleetctl ssh --unit=hello --ssh-port=2222 --A")
        .shows(
            "
$ fleetctl ssh 63d2 uptime
ssh -l core -T 172.30.1.2 uptime
$ fleetctl ssh hello uptime
ssh -l core -T 172.30.1.2 uptime
$ fleetctl ssh --machine=6a97 -- ls -l '/tmp'
ssh -l core -T 172.30.1.3 ls -l /tmp
$ fleetctl ssh --unit=hello --ssh-port=2222 --A
ssh -l core -p 2222 -A -T 172.30.1.2
",
        );
}

#[test]
fn who_is_not_found() {
    Session::with_units_and_ssh()
        .run("fleetctl ssh")
        .run("fleetctl ssh nope")
        .run("fleetctl ssh --machine=nope")
        .run("fleetctl ssh --machine=6 --unit=hello")
        .run("fleetctl ssh --unit=nope")
        .run("fleetctl ssh --unit=g")
        .run("fleetctl ssh idle")
        .shows(
            "
$ fleetctl ssh
2> Unable to proceed: one machine or unit must be provided
rc=1
$ fleetctl ssh nope
2> Unable to proceed: could not find matching unit or machine
2> hint: fleetctl list-machines and list-units show what there is
rc=1
$ fleetctl ssh --machine=nope
2> Unable to proceed: machine does not exist
2> hint: fleetctl list-machines shows the ids; any beginning of one will do
rc=1
$ fleetctl ssh --machine=6 --unit=hello
2> Both machine and unit flags provided, please specify only one.
rc=1
$ fleetctl ssh --unit=nope
2> Unable to proceed: unit does not exist
rc=1
$ fleetctl ssh --unit=g
2> Unable to proceed: global units unsupported
2> hint: g.service is on 63d22e36..., 6a97c281...; name one
rc=1
$ fleetctl ssh idle
2> Unable to proceed: could not find matching unit or machine
2> hint: idle.service is on no machine that answers
rc=1
",
        );
}

#[test]
fn the_far_sides_status_is_ours() {
    Session::with_units_and_ssh()
        .run("SSH_STATUS=7 fleetctl ssh hello exit 7")
        .run("SSH_STATUS=5 fleetctl ssh hello")
        .run("SSH_STATUS=255 fleetctl ssh hello true")
        .run("SSH_STATUS=255 fleetctl ssh hello")
        .run("FLEETCTL_SSH=/nowhere/ssh fleetctl ssh hello")
        .shows(
            r#"
$ SSH_STATUS=7 fleetctl ssh hello exit 7
ssh -l core -T 172.30.1.2 exit 7
rc=7
$ SSH_STATUS=5 fleetctl ssh hello
ssh -l core -T 172.30.1.2
rc=5
$ SSH_STATUS=255 fleetctl ssh hello true
ssh -l core -T 172.30.1.2 true
2> Failed running command over SSH: ssh to core@172.30.1.2 ended with status 255
rc=255
$ SSH_STATUS=255 fleetctl ssh hello
ssh -l core -T 172.30.1.2
2> Failed opening shell over SSH: ssh to core@172.30.1.2 ended with status 255
rc=255
$ FLEETCTL_SSH=/nowhere/ssh fleetctl ssh hello
2> Failed building SSH client: failed to run /nowhere/ssh: No such file or directory (os error 2)
2> hint: install ssh (Debian: openssh-client), or name it in FLEETCTL_SSH
rc=1
"#,
        );
}

#[test]
fn flags_and_their_variables() {
    let variables = "SSH_SHOWS=all FLEETCTL_SSH_USERNAME=me FLEETCTL_SSH_TIMEOUT=2.5 \
                     FLEETCTL_STRICT_HOST_KEY_CHECKING=false FLEETCTL_KNOWN_HOSTS_FILE=DIR/a";
    Session::with_units_and_ssh()
        .run("SSH_SHOWS=all HOME=DIR fleetctl ssh hello")
        .run(&format!("{variables} fleetctl ssh hello"))
        .run(&format!("{variables} fleetctl --ssh-username=you --ssh-timeout=7 --strict-host-key-checking --known-hosts-file=DIR/b ssh hello"))
        .run("SSH_SHOWS=all HOME=DIR fleetctl ssh hello --ssh-username= --ssh-timeout=0 --known-hosts-file=~/k")
        .shows(
            r#"
$ SSH_SHOWS=all HOME=DIR fleetctl ssh hello
ssh -l core ConnectTimeout=10 StrictHostKeyChecking=ask UserKnownHostsFile=DIR/.fleetctl/known_hosts -T 172.30.1.2
$ SSH_SHOWS=all FLEETCTL_SSH_USERNAME=me FLEETCTL_SSH_TIMEOUT=2.5 FLEETCTL_STRICT_HOST_KEY_CHECKING=false FLEETCTL_KNOWN_HOSTS_FILE=DIR/a fleetctl ssh hello
ssh -l me ConnectTimeout=3 StrictHostKeyChecking=no UserKnownHostsFile=/dev/null GlobalKnownHostsFile=/dev/null LogLevel=ERROR -T 172.30.1.2
$ SSH_SHOWS=all FLEETCTL_SSH_USERNAME=me FLEETCTL_SSH_TIMEOUT=2.5 FLEETCTL_STRICT_HOST_KEY_CHECKING=false FLEETCTL_KNOWN_HOSTS_FILE=DIR/a fleetctl --ssh-username=you --ssh-timeout=7 --strict-host-key-checking --known-hosts-file=DIR/b ssh hello
ssh -l you ConnectTimeout=7 StrictHostKeyChecking=ask UserKnownHostsFile=DIR/b -T 172.30.1.2
$ SSH_SHOWS=all HOME=DIR fleetctl ssh hello --ssh-username= --ssh-timeout=0 --known-hosts-file=~/k
ssh StrictHostKeyChecking=ask UserKnownHostsFile=DIR/k -T 172.30.1.2
"#,
        );
}
