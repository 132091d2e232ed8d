//! One copy of what many units share: the text of their unit file and its requirements.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use fleet_core::cluster::Wish;
use fleet_core::hash::UnitHash;
use fleet_core::requirements::Requirements;

/// Entries that nobody uses any more are dropped when the table has doubled since the last time,
/// and not below this size.
const SMALLEST_SWEEP: usize = 1_024;

/// Texts and requirements by the hash of the text.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    known: HashMap<UnitHash, Known>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Known {
    text: Weak<str>,
    /// Only of texts whose requirements do not depend on the unit's name.
    requirements: Option<Weak<Requirements>>,
}

impl Interner {
    /// Makes a wish share what others have. The store is where hash and text come from, and two
    /// texts of one hash are compared before they are taken for the same.
    pub(crate) fn share(&mut self, wish: &mut Wish) {
        if let Some(known) = self.known.get(&wish.hash)
            && let Some(text) = known.text.upgrade()
            && text == wish.text
        {
            wish.text = text;
            let requirements = known.requirements.as_ref().and_then(Weak::upgrade);
            if let Some(requirements) = requirements.filter(|known| **known == *wish.requirements) {
                wish.requirements = requirements;
            }
            return;
        }
        self.sweep();
        let known = Known {
            text: Arc::downgrade(&wish.text),
            requirements: Some(Arc::downgrade(&wish.requirements)),
        };
        self.known.insert(wish.hash, known);
    }

    fn sweep(&mut self) {
        if self.known.len() < self.sweep_at.max(SMALLEST_SWEEP) {
            return;
        }
        self.known.retain(|_, known| known.text.strong_count() > 0);
        self.sweep_at = self.known.len() * 2;
    }
}
