//! The commands: one file each. A file has the command's flags (`Args`, whose doc comments are
//! the help) and what it does (`run`).

use clap::Subcommand;

use crate::error::CommandError;
use crate::exit::Exit;
use crate::fleet::Fleet;
use crate::global::Settings;
use crate::ssh::Options;
use crate::ui::Ui;

mod accept_store;
mod cat;
mod complete;
mod cordon;
mod destroy;
mod doctor;
mod drain;
mod events;
mod fd_forward;
mod flags;
mod help;
mod import;
mod init;
mod join;
mod join_token;
mod journal;
mod keygen;
mod launch;
mod list_machines;
mod list_unit_files;
mod list_units;
pub(crate) mod listing;
mod load;
mod man;
mod put_down;
mod restart;
mod revoke;
mod sign;
mod ssh;
mod start;
mod status;
mod stop;
mod submit;
mod thaw;
mod uncordon;
mod unload;
mod verify;
mod version;
mod whoami;
mod why;

/// How every command ends.
pub(crate) type Outcome = Result<Exit, CommandError>;

/// What a command has to work with.
pub(crate) struct Context<'a> {
    pub(crate) ui: &'a Ui,
    pub(crate) fleet: &'a Fleet<'a>,
    pub(crate) ssh: &'a Options,
    pub(crate) settings: &'a Settings,
}

/// The table of commands. They stand in alphabetical order; those for programs come last.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    AcceptStore(accept_store::Args),
    Cat(cat::Args),
    Cordon(cordon::Args),
    Destroy(destroy::Args),
    Doctor(doctor::Args),
    Drain(drain::Args),
    Events(events::Args),
    FdForward(fd_forward::Args),
    Help(help::Args),
    // The largest ones: they would make all of them so.
    Import(Box<import::Args>),
    Init(init::Args),
    Join(join::Args),
    JoinToken(join_token::Args),
    Journal(Box<journal::Args>),
    Keygen(keygen::Args),
    ListMachines(list_machines::Args),
    ListUnitFiles(list_unit_files::Args),
    ListUnits(list_units::Args),
    Load(load::Args),
    Restart(restart::Args),
    Revoke(revoke::Args),
    Sign(sign::Args),
    Ssh(ssh::Args),
    Start(start::Args),
    Status(status::Args),
    Stop(stop::Args),
    Submit(submit::Args),
    Thaw(thaw::Args),
    Uncordon(uncordon::Args),
    Unload(unload::Args),
    Verify(verify::Args),
    Version(version::Args),
    Whoami(whoami::Args),
    Why(why::Args),
    #[command(name = "__complete", hide = true)]
    Complete(complete::Args),
    #[command(name = "__man", hide = true)]
    Man(man::Args),
}

impl Command {
    /// Runs what needs no cluster; gives the others back.
    pub(crate) fn run_alone(self, ui: &Ui) -> Result<Outcome, Command> {
        match self {
            Command::FdForward(args) => Ok(fd_forward::run(args)),
            Command::Help(args) => Ok(help::run(args, ui)),
            Command::Init(args) => Ok(init::run(args, ui)),
            Command::Keygen(args) => Ok(keygen::run(args, ui)),
            Command::Sign(args) => Ok(sign::run(args, ui)),
            Command::Verify(args) => Ok(verify::run(args, ui)),
            Command::Version(args) => Ok(version::run(args, ui)),
            Command::Man(args) => Ok(man::run(args)),
            Command::Complete(args) if complete::run_alone(&args, ui) => Ok(Ok(Exit::Success)),
            other => Err(other),
        }
    }

    /// Runs what needs a cluster.
    pub(crate) async fn run(self, context: &Context<'_>) -> Outcome {
        match self {
            Command::AcceptStore(args) => accept_store::run(args, context).await,
            Command::Cat(args) => cat::run(args, context).await,
            Command::Cordon(args) => cordon::run(args, context).await,
            Command::Destroy(args) => destroy::run(args, context).await,
            Command::Doctor(args) => doctor::run(args, context).await,
            Command::Drain(args) => drain::run(args, context).await,
            Command::Events(args) => events::run(args, context).await,
            Command::Import(args) => import::run(*args, context).await,
            Command::Join(args) => {
                let dir = context.settings.user_directory.as_deref();
                join::run(args, dir, context.ui).await
            }
            Command::JoinToken(args) => join_token::run(args, context).await,
            Command::Journal(args) => journal::run(*args, context).await,
            Command::ListMachines(args) => list_machines::run(args, context).await,
            Command::ListUnitFiles(args) => list_unit_files::run(args, context).await,
            Command::ListUnits(args) => list_units::run(args, context).await,
            Command::Load(args) => load::run(args, context).await,
            Command::Restart(args) => restart::run(args, context).await,
            Command::Revoke(args) => revoke::run(args, context).await,
            Command::Ssh(args) => ssh::run(args, context).await,
            Command::Start(args) => start::run(args, context).await,
            Command::Status(args) => status::run(args, context).await,
            Command::Stop(args) => stop::run(args, context).await,
            Command::Submit(args) => submit::run(args, context).await,
            Command::Thaw(args) => thaw::run(args, context).await,
            Command::Uncordon(args) => uncordon::run(args, context).await,
            Command::Unload(args) => unload::run(args, context).await,
            Command::Whoami(args) => whoami::run(args, context).await,
            Command::Why(args) => why::run(args, context).await,
            Command::FdForward(args) => fd_forward::run(args),
            Command::Help(args) => help::run(args, context.ui),
            Command::Init(args) => init::run(args, context.ui),
            Command::Keygen(args) => keygen::run(args, context.ui),
            Command::Sign(args) => sign::run(args, context.ui),
            Command::Verify(args) => verify::run(args, context.ui),
            Command::Version(args) => version::run(args, context.ui),
            Command::Man(args) => man::run(args),
            Command::Complete(args) => complete::run(args, context).await,
        }
    }
}
