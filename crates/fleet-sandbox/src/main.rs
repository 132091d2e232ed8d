//! `fleet-sandbox`: boots, breaks and removes real systemd machines on one computer.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use fleet_sandbox::{Host, Loss, Member, Record, Sandbox};

/// fleetd has said READY on all hosts within this, or something is wrong with it.
const FLEETD_BOUND: Duration = Duration::from_secs(60);

/// Real systemd machines on one computer: for demos, tests and benchmarks. Needs root.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot hosts NAME-1, NAME-2, … with a network and etcd
    Up(Up),
    /// Remove everything of a sandbox; nothing to remove is no error
    Down {
        /// The sandbox
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Show all sandboxes and their hosts
    List {
        /// How
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Run a command inside a host; its exit code is the command's
    Exec {
        /// The host, as `list` shows it (demo-1)
        host: String,
        /// The command and its arguments, after --
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Cut a host's power, or kill a member of etcd (demo-etcd1)
    Kill {
        /// The host, or the member
        host: String,
    },
    /// Boot a host whose power was cut: same machine id, address, /etc and /var; /run empty.
    /// Or start a member of etcd on the data that it had
    Boot {
        /// The host, or the member
        host: String,
    },
    /// Take the network cable of a host or of a member of etcd out, or have it lose what is sent
    /// while its link stays up
    Cut {
        /// The host, or the member
        host: String,
        /// Only what is sent to the host is lost: it is deaf
        #[arg(long, group = "loss")]
        to: bool,
        /// Only what the host sends is lost: it is mute
        #[arg(long, group = "loss")]
        from: bool,
        /// All is lost, and the link stays up: nobody gets an error
        #[arg(long, group = "loss")]
        silent: bool,
    },
    /// Put the network cable of a host or of a member of etcd back, and have it carry everything
    Heal {
        /// The host, or the member
        host: String,
    },
    /// Write a snapshot of a sandbox's etcd to a file
    SaveEtcd {
        /// The sandbox
        #[arg(long, default_value = "demo")]
        name: String,
        /// The file
        file: PathBuf,
    },
    /// Restore a sandbox's etcd, all members, from a snapshot
    RestoreEtcd {
        /// The sandbox
        #[arg(long, default_value = "demo")]
        name: String,
        /// The file
        file: PathBuf,
    },
    /// Show a host's journal, all boots, also when it is off
    Logs {
        /// The host
        host: String,
        /// What its console said, instead
        #[arg(long)]
        console: bool,
        /// Arguments for journalctl, after --
        #[arg(last = true)]
        journalctl: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Up {
    /// Name of the sandbox and beginning of its hosts' names
    #[arg(long, default_value = "demo")]
    name: String,
    /// How many hosts (1 to 50)
    #[arg(long, default_value_t = 3)]
    hosts: usize,
    /// How many members of etcd (0 to 3); 0: fleetd uses its embedded store, one host only
    #[arg(long, default_value_t = 1)]
    etcd: usize,
    /// Metadata, once for each host in their order (region=us-west,disk=ssd; empty: none)
    #[arg(long)]
    metadata: Vec<String>,
    /// Machine ids, once for each host in their order; those not given follow from the name
    #[arg(long)]
    machine_id: Vec<String>,
    /// Where fleetd and fleetctl are; default: beside this program
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Boot hosts without fleet
    #[arg(long, conflicts_with = "bin_dir")]
    no_fleetd: bool,
    /// A line to add to every host's fleet.conf; may be repeated
    #[arg(long)]
    fleet_conf: Vec<String>,
    /// A further address that fleet.socket listens on (49153); may be repeated
    #[arg(long)]
    listen: Vec<String>,
    /// Hosts where packages can be installed, each for itself
    #[arg(long)]
    packages: bool,
    /// Directory for the hosts' disks; default /var/lib/fleet-sandbox
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A table
    Text,
    /// The records
    Json,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when stderr is closed.
            let _ = writeln!(std::io::stderr(), "fleet-sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up(options),
        Command::Down { name } => Ok(fleet_sandbox::down(&name)?),
        Command::List { output } => list(output),
        Command::Exec { host, command } => {
            // Becomes the command: streams, signals and exit code are its own.
            let error = Host::find(&host)?.command(&command)?.exec();
            Err(error).context("failed to run nsenter")
        }
        Command::Kill { host } => on(&host, Host::kill, Member::kill),
        Command::Boot { host } => on(&host, Host::boot, Member::start),
        Command::Cut {
            host,
            to,
            from,
            silent,
        } => {
            let loss = match (to, from, silent) {
                (true, ..) => Loss::To,
                (_, true, _) => Loss::From,
                (.., true) => Loss::Both,
                _ => return on(&host, Host::cut, Member::cut),
            };
            on(&host, |host| host.lose(loss), |member| member.lose(loss))
        }
        Command::Heal { host } => on(&host, Host::heal, Member::heal),
        Command::SaveEtcd { name, file } => {
            Ok(Sandbox::open(&name)?.save_etcd(&std::path::absolute(file)?)?)
        }
        Command::RestoreEtcd { name, file } => {
            Ok(Sandbox::open(&name)?.restore_etcd(&std::path::absolute(file)?)?)
        }
        Command::Logs {
            host,
            console,
            journalctl,
        } => {
            let host = Host::find(&host)?;
            if console {
                let path = host.record()?.console;
                let bytes = std::fs::read(&path)
                    .with_context(|| format!("failed to read {}", path.display()))?;
                return print(&bytes);
            }
            let arguments: Vec<&str> = journalctl.iter().map(String::as_str).collect();
            print(host.journal(&arguments)?.as_bytes())
        }
    }
}

/// Does something to a host or to a member of etcd, whichever has the name.
fn on(
    name: &str,
    host: impl FnOnce(&Host) -> fleet_sandbox::Result<()>,
    member: impl FnOnce(&Member) -> fleet_sandbox::Result<()>,
) -> anyhow::Result<()> {
    match Member::find(name)? {
        Some(found) => member(&found)?,
        None => host(&Host::find(name)?)?,
    }
    Ok(())
}

fn up(options: Up) -> anyhow::Result<()> {
    let mut builder = Sandbox::builder()
        .name(&options.name)
        .hosts(options.hosts)
        .etcd(options.etcd);
    for (index, metadata) in options
        .metadata
        .iter()
        .enumerate()
        .filter(|(_, m)| !m.is_empty())
    {
        builder = builder.metadata(index, metadata);
    }
    for (index, id) in options.machine_id.iter().enumerate() {
        builder = builder.machine_id(index, id);
    }
    for line in &options.fleet_conf {
        builder = builder.fleet_conf(line);
    }
    for address in &options.listen {
        builder = builder.listen(address);
    }
    if options.packages {
        builder = builder.installs_packages();
    }
    if let Some(directory) = &options.dir {
        builder = builder.directory(std::path::absolute(directory)?);
    }
    if !options.no_fleetd {
        let own = std::env::current_exe().context("failed to find this program's own directory")?;
        builder = builder.bin_dir(
            options
                .bin_dir
                .unwrap_or_else(|| fleet_sandbox::built_beside(&own)),
        );
    }
    let sandbox = builder.up()?;
    let fleetd = if options.no_fleetd {
        Ok(())
    } else {
        sandbox.wait_for_fleetd(FLEETD_BOUND)
    };
    let name = sandbox.name().to_owned();
    // Kept also when fleetd is not ready: its journal is in there.
    sandbox.keep()?;
    fleetd.with_context(|| {
        format!("the hosts are up, fleetd is not (`fleet-sandbox down --name {name}` removes them)")
    })?;
    let record = fleet_sandbox::load(&name)?;
    print(table(std::slice::from_ref(&record)).as_bytes())
}

fn list(output: Format) -> anyhow::Result<()> {
    let records = fleet_sandbox::list()?;
    match output {
        Format::Text => print(table(&records).as_bytes()),
        Format::Json => print(format!("{}\n", serde_json::to_string_pretty(&records)?).as_bytes()),
    }
}

/// What runs and how its cable is, in words.
fn state_of(on: bool, cut: bool, loss: Option<Loss>) -> &'static str {
    match (on, cut, loss) {
        (false, ..) => "off",
        (true, true, _) => "on, cable cut",
        (true, false, None) => "on",
        (true, false, Some(Loss::To)) => "on, hears nothing",
        (true, false, Some(Loss::From)) => "on, is not heard",
        (true, false, Some(Loss::Both)) => "on, cable silent",
    }
}

/// Hosts and members of etcd, one line each.
fn table(records: &[Record]) -> String {
    let mut rows = vec![["HOST", "ADDRESS", "STATE", "MACHINE", "METADATA"].map(str::to_owned)];
    for record in records {
        for host in &record.hosts {
            let on = Host::find(&host.name)
                .and_then(|h| h.is_on())
                .unwrap_or(false);
            let state = state_of(on, host.cut, host.loss);
            let metadata = if host.metadata.is_empty() {
                "-".to_owned()
            } else {
                host.metadata.join(",")
            };
            rows.push([
                host.name.clone(),
                host.address.to_string(),
                state.to_owned(),
                host.machine_id.clone(),
                metadata,
            ]);
        }
        for (index, member) in record.etcd.iter().enumerate() {
            let running = Sandbox::open(&record.name).and_then(|s| s.etcd(index).process());
            let on = matches!(running, Ok(Some(_)));
            let state = state_of(on, member.cut, member.loss);
            let row =
                [&member.name, &member.address.to_string(), state, "-", "-"].map(str::to_owned);
            rows.push(row);
        }
        if !record.up || record.is_orphan() {
            rows.push([&record.name, "-", record.state(), "-", "-"].map(str::to_owned));
        }
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|c| rows.iter().map(|r| r[c].len()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 5]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(bytes) {
        // Whoever reads has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
