//! What can be done, in words.

use std::fmt;

macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident = $word:literal,)*) => {
        /// Something that a caller may or may not do.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Verb {
            $($(#[$doc])* $verb,)*
        }

        impl Verb {
            /// All of them.
            pub const ALL: &'static [Verb] = &[$(Verb::$verb),*];

            /// The word: `kind:what`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Verb::$verb => $word,)*
                }
            }
        }
    };
}

verbs! {
    /// See units: what is wished, where they are, how they are, why.
    UnitRead = "unit:read",
    /// Hand in new units, or new contents.
    UnitSubmit = "unit:submit",
    /// Want a unit loaded or launched, or restarted.
    UnitStart = "unit:start",
    /// Want less of a unit than before.
    UnitStop = "unit:stop",
    /// Destroy a unit.
    UnitDestroy = "unit:destroy",
    /// Run a command beside a unit, on its machine.
    UnitExec = "unit:exec",
    /// Read the logs of units.
    JournalRead = "journal:read",
    /// See machines.
    MachineRead = "machine:read",
    /// Cordon and drain machines, and trust them again.
    MachineDrain = "machine:drain",
    /// Set metadata of machines at run time.
    MachineMetadata = "machine:metadata",
    /// See the cluster as a whole: who leads, counts, damage.
    ClusterRead = "cluster:read",
    /// End a freeze.
    ClusterThaw = "cluster:thaw",
    /// Say that machines shall believe a store.
    ClusterAcceptStore = "cluster:accept-store",
    /// See what was decided and what happened.
    EventRead = "event:read",
    /// Read fleetd's metrics.
    MetricsRead = "metrics:read",
    /// Let somebody have a certificate: tokens to join with, and signatures.
    CertificateIssue = "certificate:issue",
    /// Have one's own certificate renewed.
    CertificateRenew = "certificate:renew",
    /// Revoke certificates.
    CertificateRevoke = "certificate:revoke",
    /// Ask for what there is not: a method that a resource does not know.
    Other = "other",
}

impl Verb {
    /// The reverse of [`Verb::as_str`].
    pub fn parse(word: &str) -> Option<Verb> {
        Verb::ALL.iter().copied().find(|verb| verb.as_str() == word)
    }

    /// Whether it is asked for units one by one.
    fn is_of_units(self) -> bool {
        let kinds = ["unit:", "journal:", "event:"];
        kinds.iter().any(|kind| self.as_str().starts_with(kind))
    }

    /// Whether it is asked for machines one by one.
    fn is_of_machines(self) -> bool {
        self.as_str().starts_with("machine:")
    }

    /// Whether it is done to the cluster as a whole.
    pub fn is_of_cluster(self) -> bool {
        !self.is_of_units() && !self.is_of_machines()
    }

    const fn bit(self) -> u64 {
        1 << self as u64
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Some verbs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verbs(u64);

impl Verbs {
    /// All of them.
    pub const ALL: Verbs = Verbs(u64::MAX);

    /// These.
    pub const fn of(verbs: &[Verb]) -> Verbs {
        let mut bits = 0;
        let mut idx = 0;
        while idx < verbs.len() {
            bits |= verbs[idx].bit();
            idx += 1;
        }
        Verbs(bits)
    }

    /// Those of a word: `unit:read`, `unit:*`, `*:read` or `*`. None: it names none.
    pub fn parse(word: &str) -> Option<Verbs> {
        if word == "*" {
            return Some(Verbs::ALL);
        }
        let (kind, what) = word.split_once(':')?;
        let is_named = |verb: &&Verb| {
            let Some((its_kind, its_what)) = verb.as_str().split_once(':') else {
                return false;
            };
            (kind == "*" || kind == its_kind) && (what == "*" || what == its_what)
        };
        let named = Verb::ALL.iter().filter(is_named);
        let verbs = named.fold(Verbs::default(), |verbs, verb| {
            verbs.with(Verbs::of(&[*verb]))
        });
        (verbs != Verbs::default()).then_some(verbs)
    }

    /// These and those.
    pub const fn with(self, more: Verbs) -> Verbs {
        Verbs(self.0 | more.0)
    }

    /// Whether it is among them.
    pub const fn has(self, verb: Verb) -> bool {
        self.0 & verb.bit() != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL
            .iter()
            .copied()
            .filter(move |verb| self.has(*verb))
    }
}
