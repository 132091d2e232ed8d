//! `fleetctl sign`

use std::path::{Path, PathBuf};

use crate::commands::Outcome;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::names::UnitArg;
use crate::signing::Signer;
use crate::ui::Ui;

/// Sign unit files, for machines that run nothing else
///
/// The signature is a line in the file's [X-Fleet] section. It covers all other lines and the file's
/// name: whoever changes one of them must sign anew. That of a template covers its instances. Several
/// keys may sign one file. "fleetctl keygen" makes a key.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The secret key
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    key: PathBuf,

    /// Unit files
    #[arg(value_name = "UNIT", value_hint = clap::ValueHint::FilePath)]
    units: Vec<String>,
}

pub(crate) fn run(args: Args, ui: &Ui) -> Outcome {
    if args.units.is_empty() {
        ui.note("No units given");
        return Ok(Exit::Success);
    }
    let signer = Signer::read(&args.key).map_err(CommandError::new)?;
    let id = signer.public_key().id();
    let mut exit = Exit::Success;
    for unit in &args.units {
        let arg = UnitArg::new(unit);
        match sign(&signer, &arg.name, &arg.file()) {
            Ok(()) => ui.line(&format!("Signed {} by key {id}", arg.name)),
            Err(why) => {
                ui.note(&format!("Error signing {}: {why}", arg.arg));
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

/// Replaces the file by one with a signature: whole, or not at all.
fn sign(signer: &Signer, name: &str, path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let signed = signer.sign_text(name, &text)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".signed");
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, signed).and_then(|()| {
        std::fs::set_permissions(&beside, std::fs::metadata(path)?.permissions())?;
        std::fs::rename(&beside, path)
    });
    written.map_err(|error| {
        // It is half of a file at best.
        let _ = std::fs::remove_file(&beside);
        error.to_string()
    })
}
