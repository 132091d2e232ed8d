//! What a unit's name tells of it.

/// Units without any requirement are called so.
pub fn is_plain(unit: &str) -> bool {
    unit.starts_with("plain") || is_patient(unit)
}

/// Units with a `LostAfter=` of [`PATIENCE`] are called so.
///
/// [`PATIENCE`]: crate::users::LOST_AFTER
pub fn is_patient(unit: &str) -> bool {
    unit.starts_with("patient")
}

/// Units with `RescheduleOnFailure=` are called so; they may run anywhere.
pub fn moves_when_it_fails(unit: &str) -> bool {
    unit.starts_with("again")
}

/// Units whose users change only where they may run are called so.
pub fn only_moves(unit: &str) -> bool {
    unit.starts_with("moves")
}

/// Global units are called so.
pub fn is_global(unit: &str) -> bool {
    unit.starts_with("global")
}
