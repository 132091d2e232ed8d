use crate::session::Session;

#[test]
fn the_general_help_in_all_its_forms() {
    let mut session = Session::new();
    session.run("fleetctl help");
    let help = session.seen();
    let (_, help) = help.split_once('\n').unwrap();
    for form in ["", " --help", " --h", " -h", " --debug", " he"] {
        session.run(&format!("fleetctl{form}"));
        assert_eq!(session.seen(), format!("$ fleetctl{form}\n{help}"));
    }
    session.run("fleetctl help").shows(
        "
$ fleetctl help
fleet: systemd for a whole cluster

Usage: fleetctl [global flags] COMMAND [flags] [arguments]

Commands:
  accept-store     Have machines believe this store, though their units came from another one
  cat              Print a unit's file as fleet has it
  cordon           Let machines take no new units
  destroy          Stop units, take them off their machines, and forget them
  doctor           Say what is wrong with the cluster, and what would cure it
  drain            Move all units off machines, and let them take no new ones
  events           Show what was decided and what happened, when, why, and by whom
  fd-forward       Connect stdin and stdout to a unix socket
  help             Print help on a command
  import           Bring the units of another cluster here, with their desired states and machines'
                   metadata
  init             Make the cluster's CA, this machine's certificate and an admin's
  join             Get a certificate with a token that an admin has made
  join-token       Let a machine or a user in, once
  journal          Print the last lines of units' journals, from all machines that have them
  keygen           Make a key that unit files are signed with
  list-machines    List the machines that are present
  list-unit-files  List all units and templates that fleet has, with what is wished for them
  list-units       List units with what systemd says of them
  load             Give units to machines without starting them
  restart          Stop units and start them again, on all machines that run them
  revoke           Do not believe certificates any more
  sign             Sign unit files, for machines that run nothing else
  ssh              Open a shell or run a command on a machine, or where a unit is
  start            Start units, and wait until systemd says that they run
  status           Show what systemd says of units, where they are
  stop             Stop units, and wait until they have stopped
  submit           Hand units to the cluster without running them
  thaw             Give up the machines that are away, though too many vanished at once
  uncordon         Let machines take units again
  unload           Take units off their machines, and wait until they are gone
  verify           DEPRECATED - No longer works
  version          Print fleetctl's version
  whoami           Say who fleetd takes you for, and what you may do
  why              Say why a unit is where it is, or waits, and how a machine stands

Global flags:
      --endpoint <URL>
          Where fleetd listens: unix:///path, http://host:port[/base] or https://… [default:
          unix:///var/run/fleet.sock, or $XDG_RUNTIME_DIR/fleet.sock]
      --driver <DRIVER>
          How to reach the cluster; API is the only one
      --tunnel <[USER@]HOST[:PORT]>
          Reach the endpoint, and all machines, through SSH on this host; it runs your own ssh, so
          ~/.ssh/config, agents and jump hosts work, and needs fleetctl there for a unix endpoint
      --ssh-username <USER>
          User of SSH connections; empty: whom ~/.ssh/config says [default: core]
      --ssh-timeout <SECONDS>
          Seconds in which an SSH host must answer; 0: as long as the system waits [default: 10]
      --strict-host-key-checking[=<BOOL>]
          Ask about unknown SSH host keys and refuse changed ones; false: accept all, store none
          [default: true]
      --known-hosts-file <FILE>
          Where SSH host keys are kept; ~ and ~user are expanded [default: ~/.fleetctl/known_hosts]
      --request-timeout <SECONDS>
          Seconds in which each answer must come [default: 30]
      --ca-file <FILE>
          Certificates of the CAs by which fleetd's is verified, over https:// [default: ca.pem
          beside our certificate, else those that this computer trusts]
      --cert-file <FILE>
          Our certificate, for a fleetd that wants one [default: user.pem in ~/.config/fleet or
          /etc/fleet/pki, where fleetctl join and fleetctl init put it]
      --key-file <FILE>
          Our certificate's key
      --debug[=<BOOL>]
          Say on stderr what is asked of fleetd
      --version
          Print fleetctl's version; behind a command it prints that command's help
  -h, --help
          Print help

Global flags may be given as FLEETCTL_* in the environment, too.
\"fleetctl help COMMAND\" says more about a command.
",
    );
}

#[test]
fn the_help_of_a_command_in_all_its_forms() {
    let mut session = Session::new();
    session.run("fleetctl help stop").shows(
        "
$ fleetctl help stop
Stop units, and wait until they have stopped

Usage: fleetctl stop [OPTIONS] [UNIT]...

Arguments:
  [UNIT]...  Names of units, or patterns of them

Options:
      --no-block            Do not wait until it is done
      --block-attempts <N>  Wait N times two seconds at most; 0: 10 s while no machine may run a
                            unit, 120 s while one is at work on it
  -y, --yes                 Do not ask, on a terminal, before all units are taken that a pattern
                            matches
  -o, --output <FORMAT>     text, or json: listings are an array, verbs print a line for each unit

They stay on their machines, ready to be started.

Global flags: see fleetctl --help.
",
    );
    session.run("fleetctl help stop");
    let help = session.seen();
    let (_, help) = help.split_once('\n').unwrap();
    for form in [
        "sto --help",
        "stop --h",
        "stop -h",
        "-h stop",
        "help sto",
        "stop a --help",
    ] {
        session.run(&format!("fleetctl {form}"));
        assert_eq!(session.seen(), format!("$ fleetctl {form}\n{help}"));
    }
}

#[test]
fn there_is_no_help_on_what_does_not_exist() {
    Session::new()
        .run("fleetctl help nope")
        .run("fleetctl help st")
        .shows(
            "
$ fleetctl help nope
2> Error: unknown command \"nope\" for \"fleetctl\"
2> Run 'fleetctl --help' for usage.
rc=2
$ fleetctl help st
2> Error: unknown command \"st\" for \"fleetctl\"
2> 
2> Did you mean this?
2> \tcat
2> \tssh
2> \tstart
2> \tstatus
2> \tstop
2> 
2> Run 'fleetctl --help' for usage.
rc=2
",
        );
}
