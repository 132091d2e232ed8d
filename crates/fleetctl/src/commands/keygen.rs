//! `fleetctl keygen`

use std::path::PathBuf;

use crate::commands::Outcome;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::signing;
use crate::ui::Ui;

/// Make a key that unit files are signed with
///
/// FILE becomes the secret key, for "fleetctl sign" and --sign-key, and FILE.pub the public one. A
/// machine that has the public one in /etc/fleet/trusted-keys and require_signed_units=true in
/// fleet.conf runs nothing but what this key has signed, whoever has the store or may hand in units.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Where to write the secret key
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
}

pub(crate) fn run(args: Args, ui: &Ui) -> Outcome {
    let (key, public) = signing::generate(&args.file)
        .map_err(|why| CommandError::new(format!("Error making a key: {why}")))?;
    ui.line(&format!("Key {} made.", key.id()));
    ui.note(&format!(
        "{} is secret: keep it off the machines. Copy {} to /etc/fleet/trusted-keys on each of them.",
        args.file.display(),
        public.display()
    ));
    Ok(Exit::Success)
}
