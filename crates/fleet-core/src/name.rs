//! Unit names: what is a valid one, what its parts are, and the one list of unit types.
//!
//! The rules are the original's, tightened to systemd's own: at most 255 bytes, and something
//! must stand before the type. Whoever holds a [`UnitName`] holds a name that systemd accepts.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::text::{Quoted, QuotedChar};

/// systemd's limit: `UNIT_NAME_MAX` is 256, the final NUL included.
pub const MAX_NAME_BYTES: usize = 255;

/// A valid unit name such as `web@1.service`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(Arc<str>);

/// Why a text is not a unit name. The messages are the original's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is the empty string.
    #[error("unit name cannot be empty")]
    Empty,
    /// The name is longer than [`MAX_NAME_BYTES`].
    #[error("unit name exceeds maximum length ({MAX_NAME_BYTES})")]
    TooLong,
    /// The name has no type because it has no dot.
    #[error("unit name must contain \".\"")]
    NoDot,
    /// Nothing follows the last dot.
    #[error("unit name cannot end in \".\"")]
    EndsInDot,
    /// What follows the last dot is not a unit type.
    #[error("invalid unit type: {}", Quoted(.0))]
    UnknownType(String),
    /// The name contains `@`, but units of its type cannot be instantiated.
    #[error("invalid unit type for template: {}", Quoted(.0.as_str()))]
    NoTemplateType(UnitType),
    /// A character that may not stand in a unit name.
    #[error("invalid character {} in unit name", QuotedChar(*.0))]
    InvalidCharacter(char),
    /// A template or instance of nothing.
    #[error("unit name cannot start in \"@\"")]
    StartsInAt,
    /// Nothing stands before the type. The original accepts it, systemd does not.
    #[error("unit name needs characters before \".{}\"", .0.as_str())]
    NothingBeforeType(UnitType),
}

impl UnitName {
    /// Checks `text`; the first rule that is broken is the error.
    pub fn parse(text: &str) -> Result<UnitName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong);
        }
        let (stem, suffix) = text.rsplit_once('.').ok_or(NameError::NoDot)?;
        if suffix.is_empty() {
            return Err(NameError::EndsInDot);
        }
        let unit_type = UnitType::from_suffix(suffix)
            .ok_or_else(|| NameError::UnknownType(suffix.to_owned()))?;
        if stem.contains('@') && !unit_type.can_be_template() {
            return Err(NameError::NoTemplateType(unit_type));
        }
        if let Some(c) = stem.chars().find(|&c| !is_name_character(c)) {
            return Err(NameError::InvalidCharacter(c));
        }
        if stem.starts_with('@') {
            return Err(NameError::StartsInAt);
        }
        if stem.is_empty() {
            return Err(NameError::NothingBeforeType(unit_type));
        }
        Ok(UnitName(text.into()))
    }

    /// The full name (`%n`): `web@1.service`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its type (`%N`): `web@1`.
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(stem, _)| stem)
    }

    /// What stands before the first `@`, or all of the stem (`%p`): `web`.
    pub fn prefix(&self) -> &str {
        let stem = self.stem();
        stem.split_once('@').map_or(stem, |(prefix, _)| prefix)
    }

    /// What stands after the first `@` (`%i`): `1`. `None` for plain units and for templates.
    pub fn instance(&self) -> Option<&str> {
        let (_, instance) = self.stem().split_once('@')?;
        (!instance.is_empty()).then_some(instance)
    }

    /// The template that this is an instance of: `web@.service`; a template's is itself.
    /// `None` for plain units.
    pub fn template(&self) -> Option<UnitName> {
        if self.is_template() {
            return Some(self.clone());
        }
        self.instance()?;
        let template = format!("{}@.{}", self.prefix(), self.unit_type());
        Some(UnitName(template.into()))
    }

    /// Whether this is a template, such as `web@.service`.
    pub fn is_template(&self) -> bool {
        self.stem()
            .split_once('@')
            .is_some_and(|(_, instance)| instance.is_empty())
    }

    /// Whether this is an instance, such as `web@1.service`.
    pub fn is_instance(&self) -> bool {
        self.instance().is_some()
    }

    /// The type: what stands after the last dot.
    pub fn unit_type(&self) -> UnitType {
        self.0
            .rsplit_once('.')
            .and_then(|(_, suffix)| UnitType::from_suffix(suffix))
            .expect("parse accepts no name without a known type")
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for UnitName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for UnitName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for UnitName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<UnitName, NameError> {
        UnitName::parse(text)
    }
}

/// The types of units. There is this one list for the API, the agent and fleetctl.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)] // They are systemd's words.
pub enum UnitType {
    Automount,
    /// Gone from today's systemd; kept since the original accepts it.
    Busname,
    Device,
    Mount,
    Path,
    Scope,
    Service,
    Slice,
    /// Gone from today's systemd; kept since the original accepts it.
    Snapshot,
    Socket,
    Swap,
    Target,
    Timer,
}

impl UnitType {
    /// Every type, in alphabetical order.
    pub const ALL: [UnitType; 13] = [
        UnitType::Automount,
        UnitType::Busname,
        UnitType::Device,
        UnitType::Mount,
        UnitType::Path,
        UnitType::Scope,
        UnitType::Service,
        UnitType::Slice,
        UnitType::Snapshot,
        UnitType::Socket,
        UnitType::Swap,
        UnitType::Target,
        UnitType::Timer,
    ];

    /// The type named by what follows a name's last dot.
    pub fn from_suffix(suffix: &str) -> Option<UnitType> {
        UnitType::ALL.into_iter().find(|t| t.as_str() == suffix)
    }

    /// The suffix, without the dot.
    pub fn as_str(self) -> &'static str {
        match self {
            UnitType::Automount => "automount",
            UnitType::Busname => "busname",
            UnitType::Device => "device",
            UnitType::Mount => "mount",
            UnitType::Path => "path",
            UnitType::Scope => "scope",
            UnitType::Service => "service",
            UnitType::Slice => "slice",
            UnitType::Snapshot => "snapshot",
            UnitType::Socket => "socket",
            UnitType::Swap => "swap",
            UnitType::Target => "target",
            UnitType::Timer => "timer",
        }
    }

    /// What to use in the place of a unit of this type, if systemd loads none from a file: it
    /// makes devices and scopes itself, and has dropped the other two. The original takes such
    /// names, so they can be submitted, but no machine can run them.
    pub fn cure_if_not_loadable(self) -> Option<&'static str> {
        Some(match self {
            UnitType::Busname => "use a service with BusName=",
            UnitType::Device => "use a service that depends on the device",
            UnitType::Scope => "use a service or a slice",
            UnitType::Snapshot => "use a target",
            _ => return None,
        })
    }

    /// Whether systemd allows templates and instances of this type.
    pub fn can_be_template(self) -> bool {
        matches!(
            self,
            UnitType::Path
                | UnitType::Service
                | UnitType::Socket
                | UnitType::Target
                | UnitType::Timer
        )
    }
}

impl fmt::Display for UnitType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The unit name that a person means by `arg`: the base name of the path, with `.service`
/// appended unless it ends in a known type. The result is not checked.
pub fn with_default_type(arg: &str) -> String {
    let base = base_name(arg);
    match base.rsplit_once('.') {
        Some((_, suffix)) if UnitType::from_suffix(suffix).is_some() => base.to_owned(),
        _ => format!("{base}.service"),
    }
}

/// What follows the last slash; slashes at the end do not count.
fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').map_or(path, |(_, base)| base)
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@')
}

#[cfg(test)]
mod tests;
