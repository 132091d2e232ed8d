//! `fleetctl ssh`

use fleet_core::name::with_default_type;

use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::ssh::arguments::Session;
use crate::ssh::lookup::Wanted;
use crate::ssh::run;

/// Open a shell or run a command on a machine, or where a unit is
///
/// The machine is named by any beginning of its id, or by a unit that is placed on it. What
/// follows is joined with blanks and read by the shell there; a command with flags of its own
/// stands after "--":
///
///   fleetctl ssh 148a -- df -h /
///
///   fleetctl ssh --unit=hello.service 'ps aux | grep sleep'
///
/// It runs your own ssh (or the program that FLEETCTL_SSH names), so ~/.ssh/config, agents and
/// jump hosts work as usual, and ends with the status of the command or shell; 255 if the
/// connection fails.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The machine, by any beginning of its id; all arguments are the command
    #[arg(long, value_name = "ID")]
    machine: Option<String>,

    /// The unit whose machine is meant; all arguments are the command
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,

    /// Let the machine use your ssh-agent
    #[arg(long, short = 'A', alias = "A")]
    forward_agent: bool,

    #[command(flatten)]
    port: SshPort,

    /// The machine or unit, unless a flag names it, and a command
    #[arg(value_name = "MACHINE|UNIT [--] COMMAND")]
    args: Vec<String>,
}

/// The port of machines, for all commands that go to them.
#[derive(clap::Args, Debug)]
pub(crate) struct SshPort {
    /// Port of sshd on the machine [default: 22, or what ~/.ssh/config says]
    #[arg(long = "ssh-port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ssh_port: Option<u16>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let (wanted, command) = Wanted::read(args.machine, args.unit, args.args)?;
    let failed = |error| CommandError::api("Unable to proceed", &error);
    let machines = context.fleet.machines().await.map_err(failed)?;
    let unit = match wanted.unit() {
        Some(unit) => {
            let name = with_default_type(unit);
            context.fleet.unit(&name).await.map_err(failed)?
        }
        None => None,
    };
    let address = wanted.address(&machines, unit.as_ref())?;
    let session = Session {
        port: args.port.ssh_port,
        forward_agent: args.forward_agent,
        tty: None,
    };
    let command = (!command.is_empty()).then(|| command.join(" "));
    run::remote(context.ssh, address, session, command.as_deref()).await
}
