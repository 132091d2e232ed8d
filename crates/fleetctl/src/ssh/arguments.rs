//! Options → arguments of `ssh`. Nothing is run here.

use std::path::Path;

use fleet_api::client::Endpoint;

use super::{Destination, Options};

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Session {
    /// `--ssh-port`; None: as ssh itself decides, mostly 22.
    pub(crate) port: Option<u16>,
    /// `--forward-agent`: the far side may use the user's agent.
    pub(crate) forward_agent: bool,
    /// Whether there is a terminal at the far side; None: if there is no command and we have one.
    pub(crate) tty: Option<bool>,
}

/// Arguments that run a command at a host, or a shell if there is none. The far side's shell
/// reads the command.
pub(crate) fn command(
    options: &Options,
    host: &str,
    session: Session,
    command: Option<&str>,
) -> Vec<String> {
    let to = Destination {
        port: session.port,
        ..Destination::host(host)
    };
    let mut arguments = connection(options, &to);
    if let Some(tunnel) = &options.tunnel {
        push_option(&mut arguments, "ProxyCommand", &proxy(options, tunnel));
    }
    if session.forward_agent {
        arguments.push("-A".to_owned());
    }
    if let Some(tty) = session.tty {
        arguments.push(if tty { "-t" } else { "-T" }.to_owned());
    }
    push_destination(&mut arguments, &to);
    arguments.extend(command.map(str::to_owned));
    arguments
}

/// Arguments of a tunnel: bytes on stdin and stdout go to the endpoint as it is seen from there.
/// When the connection is up and before all else, ssh prints an empty line on stdout if
/// `tells_when_up`.
pub(crate) fn tunnel(
    options: &Options,
    through: &Destination,
    endpoint: &Endpoint,
    tells_when_up: bool,
) -> Vec<String> {
    let mut arguments = connection(options, through);
    arguments.push("-T".to_owned());
    if tells_when_up {
        push_option(&mut arguments, "PermitLocalCommand", "yes");
        push_option(&mut arguments, "LocalCommand", "echo");
        // Never a guest on another's connection: guests do not tell when they are up.
        let is_shared = options.control_path.is_some();
        push_option(
            &mut arguments,
            "ControlMaster",
            if is_shared { "yes" } else { "no" },
        );
    } else {
        push_option(&mut arguments, "ControlMaster", "no");
    }
    push_control_path(&mut arguments, options);
    match endpoint {
        Endpoint::Unix(socket) => {
            push_destination(&mut arguments, through);
            let socket = socket.to_string_lossy();
            arguments.push(format!("fleetctl fd-forward {}", quoted(&socket)));
        }
        Endpoint::Tcp(tcp) => {
            arguments.extend(["-W".to_owned(), tcp.authority()]);
            push_destination(&mut arguments, through);
        }
    }
    arguments
}

/// One word for a POSIX shell; bare if nothing in it is special.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// One word in double quotes, as the original sends the arguments of `journal`.
pub(crate) fn double_quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for c in word.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// A destination for people: `core@172.30.1.9`, `core@172.30.1.9:2222`.
pub(crate) fn shown(options: &Options, to: &Destination) -> String {
    let user = to.user.as_deref().unwrap_or(&options.username);
    let at = if user.is_empty() { "" } else { "@" };
    match to.port {
        None => format!("{user}{at}{}", to.host),
        Some(port) if to.host.contains(':') => format!("{user}{at}[{}]:{port}", to.host),
        Some(port) => format!("{user}{at}{}:{port}", to.host),
    }
}

/// What all connections have in common.
fn connection(options: &Options, to: &Destination) -> Vec<String> {
    let mut arguments = Vec::new();
    let user = to.user.as_deref().unwrap_or(&options.username);
    if !user.is_empty() {
        arguments.extend(["-l".to_owned(), user.to_owned()]);
    }
    if let Some(port) = to.port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    if !options.timeout.is_zero() {
        let seconds = options.timeout.as_secs_f64().ceil();
        push_option(&mut arguments, "ConnectTimeout", &seconds.to_string());
    }
    if options.strict_host_key_checking {
        push_option(&mut arguments, "StrictHostKeyChecking", "ask");
        let file = option_value(&options.known_hosts_file);
        push_option(&mut arguments, "UserKnownHostsFile", &file);
    } else {
        push_option(&mut arguments, "StrictHostKeyChecking", "no");
        push_option(&mut arguments, "UserKnownHostsFile", "/dev/null");
        push_option(&mut arguments, "GlobalKnownHostsFile", "/dev/null");
        // Else ssh says that it stored the key, which it did not.
        push_option(&mut arguments, "LogLevel", "ERROR");
    }
    arguments
}

/// The command by which another ssh comes through the tunnel's host. `ProxyJump` will not do:
/// it takes over none of our options.
fn proxy(options: &Options, through: &Destination) -> String {
    let mut words = vec![options.program.clone()];
    words.extend(connection(options, through));
    push_option(&mut words, "ControlMaster", "no");
    push_control_path(&mut words, options);
    words.extend(["-W".to_owned(), TARGET.to_owned()]);
    push_destination(&mut words, through);
    let words: Vec<String> = words
        .iter()
        .map(|word| match word.as_str() {
            TARGET => quoted(TARGET),
            word => quoted(word).replace('%', "%%"),
        })
        .collect();
    words.join(" ")
}

/// ssh puts the target's address and port into it.
const TARGET: &str = "[%h]:%p";

fn push_option(arguments: &mut Vec<String>, key: &str, value: &str) {
    arguments.extend(["-o".to_owned(), format!("{key}={value}")]);
}

fn push_control_path(arguments: &mut Vec<String>, options: &Options) {
    let path = options.control_path.as_deref();
    let path = path.map_or_else(|| "none".to_owned(), option_value);
    push_option(arguments, "ControlPath", &path);
}

/// `--` keeps an address that begins with a dash from being an option.
fn push_destination(arguments: &mut Vec<String>, to: &Destination) {
    arguments.extend(["--".to_owned(), to.host.clone()]);
}

/// A path as the value of an option that expands `%` and splits at blanks.
fn option_value(path: &Path) -> String {
    let path = path.to_string_lossy().replace('%', "%%");
    if path.contains([' ', '\t', '"', '\'', '\\', '#']) {
        format!("\"{}\"", path.replace('\\', r"\\").replace('"', "\\\""))
    } else {
        path
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn options() -> Options {
        Options {
            program: "ssh".into(),
            username: "core".into(),
            timeout: Duration::from_secs(10),
            strict_host_key_checking: true,
            known_hosts_file: "/home/me/.fleetctl/known_hosts".into(),
            tunnel: None,
            control_path: None,
        }
    }

    fn line(arguments: &[String]) -> String {
        arguments.join(" ")
    }

    const STRICT: &str = "-o ConnectTimeout=10 -o StrictHostKeyChecking=ask \
                          -o UserKnownHostsFile=/home/me/.fleetctl/known_hosts";

    #[test]
    fn a_shell_and_a_command() {
        let shell = command(&options(), "172.30.1.3", Session::default(), None);
        assert_eq!(line(&shell), format!("-l core {STRICT} -- 172.30.1.3"));
        let session = Session {
            port: Some(2222),
            forward_agent: true,
            tty: Some(true),
        };
        let uptime = command(&options(), "fd00::3", session, Some("uptime -p"));
        assert_eq!(uptime.last().unwrap(), "uptime -p");
        assert_eq!(
            line(&uptime),
            format!("-l core -p 2222 {STRICT} -A -t -- fd00::3 uptime -p")
        );
    }

    #[test]
    fn without_checks_nothing_is_stored_nor_looked_up() {
        let options = Options {
            username: String::new(),
            timeout: Duration::from_millis(1500),
            strict_host_key_checking: false,
            ..options()
        };
        assert_eq!(
            line(&command(&options, "h", Session::default(), None)),
            "-o ConnectTimeout=2 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             -o GlobalKnownHostsFile=/dev/null -o LogLevel=ERROR -- h"
        );
    }

    #[test]
    fn no_timeout_and_a_file_with_odd_letters() {
        let options = Options {
            timeout: Duration::ZERO,
            known_hosts_file: "/a b/\"100%\"".into(),
            ..options()
        };
        assert_eq!(
            command(&options, "h", Session::default(), None)[2..6],
            [
                "-o",
                "StrictHostKeyChecking=ask",
                "-o",
                r#"UserKnownHostsFile="/a b/\"100%%\"""#
            ]
        );
    }

    #[test]
    fn targets_are_reached_through_the_tunnels_host_with_the_same_options() {
        let options = Options {
            tunnel: Some(Destination::parse("me@gate:2022").unwrap()),
            known_hosts_file: "/a b".into(),
            control_path: Some("/run/user/7/fleetctl-1".into()),
            ..options()
        };
        let arguments = command(&options, "172.30.1.3", Session::default(), Some("true"));
        let proxy = arguments
            .iter()
            .find_map(|argument| argument.strip_prefix("ProxyCommand="));
        assert_eq!(
            proxy.unwrap(),
            r#"ssh -l me -p 2022 -o ConnectTimeout=10 -o StrictHostKeyChecking=ask -o 'UserKnownHostsFile="/a b"' -o ControlMaster=no -o ControlPath=/run/user/7/fleetctl-1 -W '[%h]:%p' -- gate"#
        );
        assert_eq!(arguments[..2], ["-l", "core"], "the target's own user");
    }

    #[test]
    fn tunnels() {
        let gate = Destination::parse("gate").unwrap();
        let unix = Endpoint::parse("unix:///var/run/fleet.sock").unwrap();
        assert_eq!(
            line(&tunnel(&options(), &gate, &unix, true)),
            format!(
                "-l core {STRICT} -T -o PermitLocalCommand=yes -o LocalCommand=echo \
                 -o ControlMaster=no -o ControlPath=none -- gate fleetctl fd-forward /var/run/fleet.sock"
            )
        );
        let shared = Options {
            control_path: Some("/r/c".into()),
            ..options()
        };
        let http = Endpoint::parse("http://[::1]:49153").unwrap();
        assert_eq!(
            line(&tunnel(&shared, &gate, &http, true)),
            format!(
                "-l core {STRICT} -T -o PermitLocalCommand=yes -o LocalCommand=echo \
                 -o ControlMaster=yes -o ControlPath=/r/c -W [::1]:49153 -- gate"
            )
        );
        assert_eq!(
            line(&tunnel(&shared, &gate, &http, false)),
            format!(
                "-l core {STRICT} -T -o ControlMaster=no -o ControlPath=/r/c -W [::1]:49153 -- gate"
            )
        );
    }

    #[test]
    fn words_for_shells() {
        assert_eq!(quoted("/run/fleet.sock"), "/run/fleet.sock");
        assert_eq!(quoted("it's $5"), r"'it'\''s $5'");
        assert_eq!(quoted(""), "''");
        assert_eq!(double_quoted("x.service"), "\"x.service\"");
        assert_eq!(double_quoted(r#"a\x2d"$(b)`"#), r#""a\\x2d\"\$(b)\`""#);
    }

    #[test]
    fn destinations_for_people() {
        for (to, text) in [
            ("h", "core@h"),
            ("me@h:1", "me@h:1"),
            ("[::1]:22", "core@[::1]:22"),
        ] {
            assert_eq!(shown(&options(), &Destination::parse(to).unwrap()), text);
        }
    }
}
