//! `fleetctl cat`

use fleet_core::name::with_default_type;

use crate::commands::flags::{Format, OutputFlags};
use crate::commands::listing::to_json;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;

/// Print a unit's file as fleet has it
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The unit
    #[arg(value_name = "UNIT")]
    units: Vec<String>,

    #[command(flatten)]
    output: OutputFlags,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let [unit] = args.units.as_slice() else {
        return Err(CommandError::new("One unit file must be provided"));
    };
    let name = with_default_type(unit);
    let file = context.fleet.unit_file(&name).await;
    match file {
        Ok(Some(file)) if args.output.output == Format::Json => {
            let hash = file.hash().to_string();
            let unit = serde_json::json!({"unit": name, "hash": hash, "text": file.to_text()});
            context.ui.data(&to_json(&unit)?);
        }
        Ok(Some(file)) => context.ui.data(&file.to_text()),
        Ok(None) => return Err(CommandError::new(format!("Unit {name} not found"))),
        Err(error) => {
            return Err(CommandError::api(
                &format!("Error retrieving Unit {name}"),
                &error,
            ));
        }
    }
    Ok(Exit::Success)
}
