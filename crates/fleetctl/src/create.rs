//! Create-if-needed, the first step of submit, load and start: whether a unit is created or
//! replaced, and from which text.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::Path;

use fleet_api::client::Error;
use fleet_api::v2::UnitView;
use fleet_core::name::UnitName;
use fleet_core::requirements::Requirements;
use fleet_core::unit_file::{MAX_FILE_BYTES, UnitFile};
use fleet_core::validate::{UnknownKeys, ValidateError, validate_unit};

use crate::fleet::Fleet;
use crate::names::UnitArg;
use crate::report::{Goal, Report};
use crate::signing::Signer;

/// What is to be done about a unit before its desired state is set.
#[derive(Debug)]
pub(crate) enum Step {
    /// It exists; its contents stay.
    Keep,
    /// It does not exist yet.
    Create(UnitFile),
    /// It exists with other contents.
    Replace(UnitFile),
}

impl Step {
    /// The new contents' word on whether the unit is global; None: there are no new ones.
    pub(crate) fn is_global(&self) -> Option<bool> {
        match self {
            Step::Keep => None,
            Step::Create(file) | Step::Replace(file) => {
                Some(Requirements::parse(file, None).0.global)
            }
        }
    }
}

/// Decides the steps of a command.
pub(crate) struct Creator<'a> {
    fleet: &'a Fleet<'a>,
    report: &'a Report<'a>,
    replace: bool,
    unknown_keys: UnknownKeys,
    /// Who signs what is handed in.
    signer: Option<&'a Signer>,
    /// Desired states in which the command may replace a unit.
    replaceable: &'static [Goal],
    /// Templates of the registry that have been asked for.
    templates: BTreeMap<String, Option<UnitFile>>,
}

/// A request failed, or the unit cannot be created.
#[derive(Debug)]
pub(crate) enum CreateError {
    Api(Error),
    /// What follows `Error creating units: `.
    Unit(String),
    /// The whole line.
    NotReplaceable(String),
}

impl CreateError {
    fn text(&self) -> String {
        match self {
            CreateError::Api(error) => error.original_form(),
            CreateError::Unit(text) | CreateError::NotReplaceable(text) => text.clone(),
        }
    }
}

impl<'a> Creator<'a> {
    pub(crate) fn new(
        fleet: &'a Fleet<'a>,
        report: &'a Report<'a>,
        replace: bool,
        unknown_keys: UnknownKeys,
        signer: Option<&'a Signer>,
        replaceable: &'static [Goal],
    ) -> Creator<'a> {
        Creator {
            fleet,
            report,
            replace,
            unknown_keys,
            signer,
            replaceable,
            templates: BTreeMap::new(),
        }
    }

    /// What is to be done about the unit; `existing` is what fleetd has of it.
    pub(crate) async fn step(
        &mut self,
        arg: &UnitArg,
        existing: Option<&UnitView>,
    ) -> Result<Step, CreateError> {
        let step = match existing {
            Some(existing) if self.replace => self.replacement(arg, existing).await?,
            Some(existing) => {
                self.warn_if_different(arg, existing);
                Step::Keep
            }
            None => Step::Create(self.new_file(arg).await?),
        };
        if let Step::Create(file) | Step::Replace(file) = &step {
            self.check(arg, file)?;
        }
        Ok(step)
    }

    async fn replacement(
        &mut self,
        arg: &UnitArg,
        existing: &UnitView,
    ) -> Result<Step, CreateError> {
        let file = match self.local(arg)? {
            Some((file, _)) => file,
            None => match arg.template() {
                None => return Err(CreateError::Unit(missing(&arg.file()))),
                Some(template) => match self.template(&template).await? {
                    Some(file) => file,
                    None => {
                        let file = arg.template_file().unwrap_or_default();
                        return Err(CreateError::Unit(missing(&file)));
                    }
                },
            },
        };
        if file.hash().to_string() == existing.hash {
            self.report.same(&existing.name);
            return Ok(Step::Keep);
        }
        let state = existing.desired_state.as_str();
        if !self.replaceable.iter().any(|goal| goal.as_str() == state) {
            return Err(CreateError::NotReplaceable(format!(
                "Warning: can not replace Unit({}) in state '{state}', use the appropriate command",
                existing.name
            )));
        }
        Ok(Step::Replace(file))
    }

    fn warn_if_different(&self, arg: &UnitArg, existing: &UnitView) {
        match self.local(arg) {
            Ok(Some((local, kind))) if local.hash().to_string() != existing.hash => {
                warn_of_difference(self.report, &existing.name, kind, &arg.arg);
            }
            Ok(_) => {}
            // What fleet has does not depend on it.
            Err(error) => {
                let text = error.text();
                self.report.ui.warning(&format!(
                    "Unit {} cannot be compared with its local file: {text}",
                    existing.name
                ));
            }
        }
    }

    /// The text of a unit that does not exist: its own file, the registry's template, the
    /// template's file.
    async fn new_file(&mut self, arg: &UnitArg) -> Result<UnitFile, CreateError> {
        if let Some(file) = read_unit_file(&arg.file()).map_err(|e| of_file(arg, &e))? {
            return Ok(self.signed(&arg.name, file));
        }
        let Some(template) = arg.template() else {
            return Err(CreateError::Unit(format!(
                "unable to find Unit({}) in Registry or on filesystem",
                arg.name
            )));
        };
        let local = arg.template_file().unwrap_or_default();
        let local = read_unit_file(&local).map_err(|error| {
            CreateError::Unit(format!(
                "failed getting Unit({}) from template: unable to load template \
                 Unit({template}) from file: {error}",
                arg.arg
            ))
        });
        let local = local.map(|file| file.map(|file| self.signed(&template, file)));
        match (self.template(&template).await?, local) {
            (Some(file), local) => {
                if local.is_ok_and(|local| local.is_some_and(|local| local.hash() != file.hash())) {
                    warn_of_difference(self.report, &template, Kind::Template, &arg.arg);
                }
                Ok(file)
            }
            (None, Ok(Some(file))) => Ok(file),
            (None, Err(error)) => Err(error),
            (None, Ok(None)) => Err(CreateError::Unit(format!(
                "failed getting Unit({}) from template: unable to find template \
                 Unit({template}) in Registry or on filesystem",
                arg.arg
            ))),
        }
    }

    /// The local file of a unit, or that of its template.
    fn local(&self, arg: &UnitArg) -> Result<Option<(UnitFile, Kind)>, CreateError> {
        if let Some(file) = read_unit_file(&arg.file()).map_err(|e| of_file(arg, &e))? {
            return Ok(Some((self.signed(&arg.name, file), Kind::Unit)));
        }
        let (Some(name), Some(path)) = (arg.template(), arg.template_file()) else {
            return Ok(None);
        };
        let file = read_unit_file(&path).map_err(|e| of_file(arg, &e))?;
        Ok(file.map(|file| (self.signed(&name, file), Kind::Template)))
    }

    /// A file as it is handed in. That of a template is signed under the template's name, so that it is
    /// the same for all instances.
    fn signed(&self, name: &str, file: UnitFile) -> UnitFile {
        match self.signer {
            Some(signer) => signer.sign(name, &file),
            None => file,
        }
    }

    async fn template(&mut self, name: &str) -> Result<Option<UnitFile>, CreateError> {
        if let Some(known) = self.templates.get(name) {
            return Ok(known.clone());
        }
        let file = self.fleet.unit_file(name).await.map_err(CreateError::Api)?;
        let file = file.map(|file| self.signed(name, file));
        self.templates.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn check(&self, arg: &UnitArg, file: &UnitFile) -> Result<(), CreateError> {
        let name = UnitName::parse(&arg.name)
            .map_err(|error| CreateError::Unit(format!("{error} (unit {})", arg.name)))?;
        if file.options().is_empty() {
            return Err(CreateError::Unit(format!(
                "failed creating unit {name}: googleapi: Error 409: \
                 unit does not exist and options field empty"
            )));
        }
        let warnings = validate_unit(Some(&name), file, self.unknown_keys).map_err(|error| {
            CreateError::Unit(match &error {
                // As the original's warning of such a key.
                ValidateError::UnknownKey { .. } => format!("Unit {name}: {error}"),
                error => format!("{error} (unit {name})"),
            })
        })?;
        for warning in warnings {
            self.report.ui.warning(&format!("Unit {name}: {warning}"));
        }
        Ok(())
    }
}

/// What a local file is to a unit.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Unit,
    Template,
}

/// Tells that a local file is not what fleet has.
pub(crate) fn warn_of_difference(report: &Report<'_>, name: &str, kind: Kind, arg: &str) {
    let kind = match kind {
        Kind::Unit => "unit file",
        Kind::Template => "template unit file",
    };
    report.ui.warning(&format!(
        "Unit {name} in registry differs from local {kind} {arg}. Add --replace to override."
    ));
}

/// The local file of a unit, if there is one of its own with nothing to be said against it: it can
/// be handed in without knowing whether fleet has the unit.
pub(crate) fn faultless_file(arg: &UnitArg, unknown_keys: UnknownKeys) -> Option<UnitFile> {
    let name = UnitName::parse(&arg.name).ok()?;
    let file = read_unit_file(&arg.file()).ok()??;
    let warnings = validate_unit(Some(&name), &file, unknown_keys).ok()?;
    let is_faultless = warnings.is_empty() && !file.options().is_empty() && !name.is_template();
    is_faultless.then_some(file)
}

fn of_file(arg: &UnitArg, error: &str) -> CreateError {
    CreateError::Unit(format!(
        "failed getting Unit({}) from file: {error}",
        arg.arg
    ))
}

fn missing(file: &Path) -> String {
    format!("stat {}: no such file or directory", file.display())
}

/// None: there is no such file (or it is a directory).
fn read_unit_file(path: &Path) -> Result<Option<UnitFile>, String> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut text = Vec::new();
    // One byte more than may be, so that the parser sees that it is too much.
    let read = file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut text);
    match read {
        Err(error) if error.kind() == ErrorKind::IsADirectory => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(_) => {}
    }
    let file = UnitFile::parse(&text).and_then(|file| file.normalized());
    file.map(Some).map_err(|error| error.to_string())
}
