//! Documents as listings want them: what a table shows, borrowed from the bytes. A listing of many
//! units would spend most of its time on copies of what it does not show.
//!
//! They are read by the same shapes as whole documents, so that neither calls damaged what the other
//! takes.

use std::borrow::Cow;

use fleet_core::hash::UnitHash;
use fleet_core::records::{DesiredState, Reached};

use super::documents::{self, PlacementDoc, StateDoc, UnitDoc};
use super::{Error, Shape, read_shape};

/// A wish, in brief.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitBrief<'a> {
    /// What is asked for.
    pub desired: DesiredState,
    /// Hash of the unit file.
    pub hash: UnitHash,
    /// The unit file in serial form.
    pub text: Cow<'a, str>,
}

/// A placement, in brief.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacementBrief<'a> {
    /// Where it is placed.
    pub machine: Option<Cow<'a, str>>,
    /// Where it has not yet stopped.
    pub leaving: Option<Cow<'a, str>>,
}

/// A state, in brief.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateBrief<'a> {
    /// LoadState.
    pub load: Cow<'a, str>,
    /// ActiveState.
    pub active: Cow<'a, str>,
    /// SubState.
    pub sub: Cow<'a, str>,
    /// Hash of what the machine has.
    pub hash: UnitHash,
    /// How far the decision was carried out.
    pub reached: Reached,
    /// Description.
    pub description: Cow<'a, str>,
}

impl<'a> UnitBrief<'a> {
    /// Reads the wish of a unit.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the whole document would be.
    pub fn decode(key: &str, bytes: &'a [u8]) -> Result<UnitBrief<'a>, Error> {
        decode(key, bytes, |doc: UnitDoc<'a>| {
            Ok(UnitBrief {
                desired: documents::known("desired", &doc.desired.0, DesiredState::parse)?,
                hash: documents::hash_of(&doc.hash)?,
                text: doc.text,
            })
        })
    }
}

impl<'a> PlacementBrief<'a> {
    /// Reads where a unit is.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the whole document would be.
    pub fn decode(key: &str, bytes: &'a [u8]) -> Result<PlacementBrief<'a>, Error> {
        decode(key, bytes, |doc: PlacementDoc<'a>| {
            Ok(PlacementBrief {
                machine: documents::id_of("on", doc.on)?,
                leaving: documents::id_of("leaving", doc.leaving)?,
            })
        })
    }
}

impl<'a> StateBrief<'a> {
    /// Reads how a unit is on a machine.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the whole document would be.
    pub fn decode(key: &str, bytes: &'a [u8]) -> Result<StateBrief<'a>, Error> {
        decode(key, bytes, |doc: StateDoc<'a>| {
            let (active, sub) = documents::active_and_sub(doc.is)?;
            if let Some(id) = &doc.id {
                documents::invocation_of(id)?;
            }
            Ok(StateBrief {
                load: doc.load.map_or(documents::USUAL_LOAD.into(), |load| load.0),
                active,
                sub,
                hash: documents::hash_of(&doc.hash)?,
                reached: documents::reached_of(doc.did.as_ref())?,
                description: doc.desc,
            })
        })
    }
}

fn decode<'a, S: Shape<'a>, T>(
    key: &str,
    bytes: &'a [u8],
    brief: impl FnOnce(S) -> Result<T, String>,
) -> Result<T, Error> {
    read_shape::<S>(bytes)
        .and_then(brief)
        .map_err(|why| Error::Damaged {
            key: key.to_owned(),
            why,
        })
}

#[cfg(test)]
mod tests {
    use fleet_core::records::{PlacementRecord, StateRecord, UnitRecord};

    use super::*;
    use crate::store::Document;

    /// Documents with all kinds of fields, one a line.
    const DOCUMENTS: &str = r#"{"v":1,"desired":"launched","hash":"3q2-7wAAAAAAAAAAAAAAAAAAAAA","restarts":7,"prefer":"m1","request":"r","earlier":["a"],"by":"uid 0","changed":5,"text":"[Unit]\nDescription=\u00e9\n"}
{"v":1,"desired":"destroyed","hash":"3q2-7wAAAAAAAAAAAAAAAAAAAAA","buried":true}
{"v":1,"on":"m1","leaving":"m2","at":[7,8],"since":3,"reason":"so","refused":[["x",1]],"considered":2}
{"v":2,"at":[7,8],"new":{"a":[1,2]},"moves":3,"failed_on":["m1"],"next":4,"stays":true}
{"v":1,"load":"masked","is":"failed/failed","hash":"3q2-7wAAAAAAAAAAAAAAAAAAAAA","at":[7,8],"did":"working","id":"AAECAwQFBgcICQoLDA0ODw","desc":"\"A\"","why":"no","log":["x"],"leased":9}
{"v":1,"is":"active/running","hash":"3q2-7wAAAAAAAAAAAAAAAAAAAAA","at":[7,8],"invocation":"other"}"#;

    #[test]
    fn what_is_read_in_brief_is_what_the_whole_document_says() {
        let mut n_damaged = 0;
        for document in DOCUMENTS.lines() {
            // Whole, cut, and with each byte exchanged for some that mean something.
            let bytes = document.as_bytes();
            let mut all = vec![bytes.to_vec()];
            all.extend((0..bytes.len()).map(|end| bytes[..end].to_vec()));
            for at in 0..bytes.len() {
                for byte in *b"\"}/x1[" {
                    let mut changed = bytes.to_vec();
                    changed[at] = byte;
                    all.push(changed);
                }
            }
            for bytes in all {
                n_damaged += check(&bytes);
            }
        }
        assert!(n_damaged > 1_000, "{n_damaged}");
    }

    /// Reads it as everything that it may be. How often it was damaged.
    fn check(bytes: &[u8]) -> usize {
        let text = String::from_utf8_lossy(bytes);
        let unit = UnitRecord::decode("k", bytes).ok();
        let brief = UnitBrief::decode("k", bytes).ok();
        let expected = unit.as_ref().map(|unit| UnitBrief {
            desired: unit.desired,
            hash: unit.hash,
            text: (&*unit.text).into(),
        });
        assert_eq!(brief, expected, "{text}");
        let placement = PlacementRecord::decode("k", bytes).ok();
        let brief = PlacementBrief::decode("k", bytes).ok();
        let expected = placement.as_ref().map(|placement| PlacementBrief {
            machine: placement.machine.as_ref().map(|id| id.as_str().into()),
            leaving: placement.leaving.as_ref().map(|id| id.as_str().into()),
        });
        assert_eq!(brief, expected, "{text}");
        let state = StateRecord::decode("k", bytes).ok();
        let brief = StateBrief::decode("k", bytes).ok();
        let expected = state.as_ref().map(|state| StateBrief {
            load: (&*state.load).into(),
            active: (&*state.active).into(),
            sub: (&*state.sub).into(),
            hash: state.hash,
            reached: state.reached,
            description: (&*state.description).into(),
        });
        assert_eq!(brief, expected, "{text}");
        [unit.is_none(), placement.is_none(), state.is_none()]
            .into_iter()
            .filter(|is_damaged| *is_damaged)
            .count()
    }
}
