//! `fleetctl import`

use std::collections::BTreeMap;

use fleet_api::client::RegistryError;
use fleet_api::v2::{BatchRequest, MAX_BATCH, UnitWish, WishAnswer};
use fleet_core::validate::UnknownKeys;
use serde::Serialize;

use crate::commands::flags::{Format, OutputFlags};
use crate::commands::{Context, Outcome};
use crate::connect;
use crate::error::{CommandError, cures};
use crate::exit::Exit;
use crate::import::old::{from_etcd, from_fleet};
use crate::import::{Action, MachineStep, Old, Plan, Rules, UnitStep, plan};
use crate::report::{short_id, visible};
use crate::tabwriter::{Filling, Table};
use crate::wishes::request_id;

/// Unit files of one request are not longer than this together: far below what fleetd takes.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// Most etcds that are tried.
const MAX_ETCDS: usize = 16;

/// Between columns.
const GUTTERS: &[usize] = &[2];

/// Bring the units of another cluster here, with their desired states and machines' metadata
///
/// The other cluster is only read. From an original cluster's etcd (its v2 keys):
///
///   fleetctl import --etcd-v2=http://10.0.0.1:2379,http://10.0.0.2:2379 --dry-run
///
/// or from any fleetd's API:
///
///   fleetctl import --from-fleet=http://10.0.0.1:49153 --dry-run
///
/// --dry-run prints what would be done and why not. Without it each unit is created with the
/// state that it is wanted in; what is here already with the same contents is left alone, and
/// with other contents refused unless --replace is given. A unit stays on its machine if that is
/// present here, and may run it: what runs there already is taken over as it is. What fleet does not take is named with
/// the reason, the rest goes on, and the status is 1. It may be run again at any time. Metadata
/// that was set at run time comes along; that of each machine's configuration is shown, for its
/// fleet.conf.
///
/// Keys of etcd are below --etcd-key-prefix (/_coreos.com/fleet/); FLEETCTL_ETCD_USERNAME and
/// FLEETCTL_ETCD_PASSWORD work as the flags do; --ca-file, --cert-file and --key-file serve both
/// clusters. docs/migration.md tells the whole way.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The etcd of an original cluster, with its v2 API enabled; the first that answers is read
    #[arg(long, value_name = "URL[,URL]", conflicts_with = "from_fleet")]
    etcd_v2: Option<String>,

    /// A fleetd of the other cluster: http://host:port or unix:///path
    #[arg(long, value_name = "URL")]
    from_fleet: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Replace units that are here with other contents or another desired state
    #[arg(long)]
    replace: bool,

    /// Set the metadata of machines' configurations here, too, as if it had been set at run time
    #[arg(long)]
    static_metadata: bool,

    /// User of etcd
    #[arg(long, value_name = "USER", requires = "etcd_v2")]
    etcd_username: Option<String>,

    /// Its password; FLEETCTL_ETCD_PASSWORD is seen by fewer people
    #[arg(long, value_name = "PASSWORD", requires = "etcd_v2")]
    etcd_password: Option<String>,

    /// Refuse units with unknown keys in [X-Fleet]
    #[arg(long, conflicts_with = "allow_unknown")]
    strict: bool,

    /// Accept unknown keys in [X-Fleet], those that look like a mistyped one too
    #[arg(long)]
    allow_unknown: bool,

    #[command(flatten)]
    output: OutputFlags,

    #[arg(hide = true)]
    rest: Vec<String>,
}

impl Args {
    fn unknown_keys(&self) -> UnknownKeys {
        match (self.strict, self.allow_unknown) {
            (true, _) => UnknownKeys::Strict,
            (_, true) => UnknownKeys::Allow,
            _ => UnknownKeys::Default,
        }
    }

    fn unknown_keys_word(&self) -> &'static str {
        match self.unknown_keys() {
            UnknownKeys::Default => "",
            UnknownKeys::Strict => "strict",
            UnknownKeys::Allow => "allow",
        }
    }
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    if let Some(word) = args.rest.first() {
        return Err(CommandError::usage(format!(
            "Error: unexpected argument \"{word}\"\nRun 'fleetctl import --help' for usage."
        )));
    }
    let old = read(&args, context).await?;
    let names: Vec<String> = old.units.iter().map(|unit| unit.name.clone()).collect();
    let failed = |error| CommandError::api("Error reading this cluster", &error);
    let here = context.fleet.lookup(&names).await.map_err(failed)?;
    let machines = context.fleet.machines().await.map_err(failed)?;
    let rules = Rules {
        replace: args.replace,
        all_metadata: args.static_metadata,
    };
    let plan = plan(&old, &here, &machines, rules);
    let told = Told {
        context,
        json: args.output.output == Format::Json,
    };
    if args.dry_run {
        told.dry_run(&plan);
        for remark in &old.remarks {
            context.ui.note(&visible(remark));
        }
        let is_refused = plan.has(Action::Refuse);
        return Ok(if is_refused {
            Exit::Failure
        } else {
            Exit::Success
        });
    }
    let mut counts = Counts::default();
    let units = bring_units(&args, context, &told, plan.units, &mut counts).await?;
    let machines = bring_metadata(context, &told, plan.machines, &mut counts).await;
    for remark in &old.remarks {
        context.ui.note(&visible(remark));
    }
    context.ui.note(&counts.words());
    if counts.refused > 0 {
        context.ui.hint(
            "what is refused can be mended where it is, or submitted here by hand; \
             import may be run again at any time",
        );
    }
    Ok(match units && machines {
        true => Exit::Success,
        false => Exit::Failure,
    })
}

async fn read(args: &Args, context: &Context<'_>) -> Result<Old, CommandError> {
    let unknown = args.unknown_keys();
    if let Some(url) = &args.from_fleet {
        let client = connect::other(url, "--from-fleet", context.settings)?;
        let old = from_fleet(&client, unknown).await;
        return old.map_err(|error| CommandError {
            hints: vec![format!(
                "is {url} where a fleetd of the other cluster listens?"
            )],
            ..CommandError::api("Error reading the other cluster", &error)
        });
    }
    let etcd = &context.settings.etcd;
    let Some(urls) = args.etcd_v2.as_deref() else {
        return Err(CommandError::usage(
            "Error: import needs --etcd-v2=URL or --from-fleet=URL\n\
             Run 'fleetctl import --help' for usage.",
        ));
    };
    let username = args.etcd_username.as_ref().or(etcd.username.as_ref());
    let password = args.etcd_password.as_ref().or(etcd.password.as_ref());
    let mut clients = Vec::new();
    for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
        let client = connect::other(url, "--etcd-v2", context.settings)?;
        clients.push(match username {
            Some(user) => client.basic_auth(user, password.map_or("", |password| password)),
            None => client,
        });
    }
    if clients.is_empty() || clients.len() > MAX_ETCDS {
        return Err(CommandError::usage(format!(
            "Error: invalid argument \"{urls}\" for \"--etcd-v2\" flag: \
             it takes 1 to {MAX_ETCDS} URLs such as http://10.0.0.1:2379"
        )));
    }
    let mut skipped = Vec::new();
    let old = from_etcd(&clients, &etcd.key_prefix, unknown, &mut skipped).await;
    if old.is_ok() {
        for skipped in &skipped {
            context
                .ui
                .warning(&visible(&format!("an etcd does not answer: {skipped}")));
        }
    }
    old.map_err(|error| {
        let message = format!("Error reading the other cluster from {urls}: {error}");
        CommandError::new(visible(&message)).hint(match &error {
            RegistryError::Request(_) => "is that where its etcd listens for clients?",
            RegistryError::Refused { code: 401, .. } => {
                "give a user that may read: --etcd-username and FLEETCTL_ETCD_PASSWORD"
            }
            RegistryError::Refused { .. } => "etcd's own log says more",
            RegistryError::NoKeys => {
                "etcd 3.4 and 3.5 have it with --enable-v2=true, newer ones not at all; \
                 --from-fleet reads an original fleetd instead"
            }
            RegistryError::Empty(_) => "--etcd-key-prefix names another prefix",
        })
    })
}

/// Asks fleetd for what is to be done about units. False: something was not done.
async fn bring_units(
    args: &Args,
    context: &Context<'_>,
    told: &Told<'_>,
    steps: Vec<UnitStep>,
    counts: &mut Counts,
) -> Result<bool, CommandError> {
    let mut is_all = true;
    let (to_do, others): (Vec<UnitStep>, Vec<UnitStep>) =
        steps.into_iter().partition(|step| step.wish.is_some());
    for step in &others {
        is_all &= step.action != Action::Refuse;
        counts.note(step.action);
        told.unit(step, step.action.done(), &step.why);
    }
    let mut to_do = to_do.into_iter().peekable();
    while to_do.peek().is_some() {
        let mut part = Vec::new();
        let mut n_bytes = 0;
        while let Some(step) = to_do.next_if(|step| {
            part.is_empty() || part.len() < MAX_BATCH && n_bytes + size(step) <= MAX_REQUEST_BYTES
        }) {
            n_bytes += size(&step);
            part.push(step);
        }
        let request = BatchRequest {
            request_id: request_id(),
            unknown_keys: args.unknown_keys_word().to_owned(),
            units: part.iter().filter_map(|step| step.wish.clone()).collect(),
        };
        let answers = match context.fleet.batch(&request).await {
            Ok(Some(answer)) => answer.units,
            Ok(None) => {
                return Err(CommandError::new(
                    "Error importing units: this cluster's fleetd is an original one",
                )
                .hint("--endpoint names a fleetd of the new cluster"));
            }
            Err(error) => {
                let n_left = part.len() + to_do.count();
                let what = format!("Error importing units: {n_left} of them are not imported");
                let failed = CommandError::api(&what, &error);
                return Err(failed.hint("run it again: what is here already is passed over"));
            }
        };
        is_all &= tell_answers(told, &part, answers, counts);
    }
    Ok(is_all)
}

fn size(step: &UnitStep) -> usize {
    let text = |wish: &UnitWish| wish.text.as_ref().map_or(0, String::len);
    step.name.len() + step.wish.as_ref().map_or(0, text)
}

fn tell_answers(
    told: &Told<'_>,
    part: &[UnitStep],
    answers: Vec<WishAnswer>,
    counts: &mut Counts,
) -> bool {
    let mut answers: BTreeMap<String, WishAnswer> = answers
        .into_iter()
        .map(|answer| (answer.name.clone(), answer))
        .collect();
    let mut is_all = true;
    for step in part {
        let answer = answers.remove(&step.name).unwrap_or_default();
        let why = match answer.outcome.as_str() {
            "" => Some("fleetd did not answer for it".to_owned()),
            "error" => Some(answer.error.unwrap_or_default()),
            _ if answer.differs => Some(
                "somebody has created it with other contents meanwhile; its contents are kept"
                    .to_owned(),
            ),
            _ => None,
        };
        let done = match why {
            None => step.action,
            Some(_) => Action::Refuse,
        };
        is_all &= why.is_none();
        counts.note(done);
        let why = why.as_ref().unwrap_or(&step.why);
        told.unit(step, done.done(), why);
    }
    is_all
}

/// Sets metadata, a request a machine. False: something was not done.
async fn bring_metadata(
    context: &Context<'_>,
    told: &Told<'_>,
    steps: Vec<MachineStep>,
    counts: &mut Counts,
) -> bool {
    let mut is_all = true;
    for machine in steps.chunk_by(|a, b| a.machine == b.machine) {
        let ops: Vec<_> = machine.iter().filter_map(|step| step.op.clone()).collect();
        let failure = match ops.is_empty() {
            true => None,
            false => context.fleet.client.patch_machines(&ops).await.err(),
        };
        for step in machine {
            let (done, why) = match &failure {
                Some(error) if step.op.is_some() => (Action::Refuse, error.original_form()),
                _ => (step.action, step.why.clone()),
            };
            is_all &= done != Action::Refuse;
            counts.note_metadata(done);
            told.metadata(step, done.done(), &why);
        }
        if let Some(error) = &failure {
            cures(error).iter().for_each(|cure| context.ui.hint(cure));
        }
    }
    is_all
}

/// How much was done.
#[derive(Default)]
struct Counts {
    imported: usize,
    same: usize,
    refused: usize,
    metadata: usize,
}

impl Counts {
    fn note(&mut self, action: Action) {
        match action {
            Action::Create | Action::Replace | Action::Set => self.imported += 1,
            Action::Same | Action::Leave => self.same += 1,
            Action::Refuse => self.refused += 1,
        }
    }

    fn note_metadata(&mut self, action: Action) {
        self.metadata += usize::from(action == Action::Set);
    }

    fn words(&self) -> String {
        format!(
            "Units: {} imported, {} here already, {} refused. Metadata: {} set.",
            self.imported, self.same, self.refused, self.metadata
        )
    }
}

/// Where it is told what becomes of each.
struct Told<'a> {
    context: &'a Context<'a>,
    json: bool,
}

/// A unit in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnitLine<'a> {
    unit: &'a str,
    outcome: &'a str,
    hash: &'a str,
    desired_state: &'a str,
    #[serde(rename = "machineID", skip_serializing_if = "Option::is_none")]
    machine_id: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    why: &'a str,
}

/// A key of a machine's metadata in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetadataLine<'a> {
    #[serde(rename = "machineID")]
    machine_id: &'a str,
    outcome: &'a str,
    key: &'a str,
    value: &'a str,
    origin: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    why: &'a str,
}

impl Told<'_> {
    fn dry_run(&self, plan: &Plan) {
        if self.json {
            for step in &plan.units {
                self.unit(step, step.action.verb(), &step.why);
            }
            for step in &plan.machines {
                self.metadata(step, step.action.verb(), &step.why);
            }
            return;
        }
        let units = plan.units.iter().map(|step| {
            let machine = step.machine.as_deref().map(short_id).unwrap_or_default();
            let cells = [
                &*step.name,
                &*step.hash,
                step.desired,
                &*machine,
                step.action.verb(),
                &*step.why,
            ];
            cells.map(or_dash).to_vec()
        });
        self.table(&["UNIT", "HASH", "DSTATE", "ON", "IMPORT", "WHY"], units);
        if plan.machines.is_empty() {
            return;
        }
        self.context.ui.line("");
        let machines = plan.machines.iter().map(|step| {
            let pair = pair(step);
            let origin = step.metadata.origin.as_str();
            let cells = [
                &*step.machine,
                &*pair,
                origin,
                step.action.verb(),
                &*step.why,
            ];
            cells.map(or_dash).to_vec()
        });
        self.table(&["MACHINE", "METADATA", "FROM", "IMPORT", "WHY"], machines);
    }

    fn table(&self, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        let mut table = Table::new(Filling::Blanks(GUTTERS));
        table.row(header.iter().copied());
        rows.for_each(|row| table.row(row.iter().map(String::as_str)));
        self.context.ui.data(&table.finish());
    }

    fn unit(&self, step: &UnitStep, outcome: &str, why: &str) {
        if self.json {
            self.json(&UnitLine {
                unit: &step.name,
                outcome,
                hash: &step.hash,
                desired_state: step.desired,
                machine_id: step.machine.as_deref(),
                why,
            });
            return;
        }
        let ui = self.context.ui;
        let (name, why) = (&*visible(&step.name), &*visible(why));
        let on = step
            .machine
            .as_deref()
            .map(|id| visible(&short_id(id)).into_owned());
        let on = on.map_or_else(String::new, |id| format!(" on {id}"));
        match outcome {
            "refused" => ui.error(&format!("Unit {name} is not imported: {why}")),
            "same" if why.is_empty() => ui.line(&format!("Unit {name} is here already")),
            "same" => ui.line(&format!("Unit {name} is here already: {why}")),
            _ if why.is_empty() => {
                ui.line(&format!("Unit {name} {outcome}, {}{on}", step.desired));
            }
            _ => ui.line(&format!(
                "Unit {name} {outcome}, {}{on} ({why})",
                step.desired
            )),
        }
    }

    fn metadata(&self, step: &MachineStep, outcome: &str, why: &str) {
        if self.json {
            self.json(&MetadataLine {
                machine_id: &step.machine,
                outcome,
                key: &step.metadata.key,
                value: &step.metadata.value,
                origin: step.metadata.origin.as_str(),
                why,
            });
            return;
        }
        let ui = self.context.ui;
        let what = format!(
            "Machine {} metadata {}",
            visible(&short_id(&step.machine)),
            visible(&pair(step))
        );
        let why = &*visible(why);
        match outcome {
            "refused" => ui.error(&format!("{what} is not imported: {why}")),
            "same" => ui.line(&format!("{what} is so here already")),
            "left" => ui.line(&format!("{what} is not imported: {why}")),
            _ if why.is_empty() => ui.line(&format!("{what} {outcome}")),
            _ => ui.line(&format!("{what} {outcome} ({why})")),
        }
    }

    fn json(&self, line: &impl Serialize) {
        match serde_json::to_string(line) {
            Ok(text) => self.context.ui.line(&text),
            Err(error) => self
                .context
                .ui
                .error(&format!("failed to write JSON: {error}")),
        }
    }
}

/// `key=value`, or that the key is hidden.
fn pair(step: &MachineStep) -> String {
    let metadata = &step.metadata;
    match metadata.value.as_str() {
        "" if metadata.key.is_empty() => String::new(),
        "" => format!("{} (removed)", metadata.key),
        value => format!("{}={value}", metadata.key),
    }
}

fn or_dash(cell: &str) -> String {
    match cell {
        "" => "-".to_owned(),
        cell => visible(cell).into_owned(),
    }
}
