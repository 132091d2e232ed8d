//! An ordered map that is small while it holds little.
//!
//! An ordinary unit is on one machine, seldom two; a global unit on thousands. A `BTreeMap` with
//! one entry reserves room for eleven, which among a million units is most of the memory.

use std::collections::BTreeMap;

/// Beyond so many entries, moving the tail of a vector costs more than a tree's node.
const FEW: usize = 16;

/// Up to so many entries have exactly the room that they need: a vector that grows by itself begins with
/// room for four, of which an ordinary unit would use one.
const EXACT: usize = 4;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SmallMap<K, V> {
    Few(Vec<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap::Few(Vec::new())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match self {
            SmallMap::Few(few) => few.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            SmallMap::Many(many) => many.get(key),
        }
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            SmallMap::Few(few) => match few.binary_search_by(|(k, _)| k.cmp(&key)) {
                Ok(at) => Some(std::mem::replace(&mut few[at].1, value)),
                Err(at) => {
                    if few.len() < EXACT {
                        few.reserve_exact(1);
                    }
                    few.insert(at, (key, value));
                    if few.len() > FEW {
                        *self = SmallMap::Many(std::mem::take(few).into_iter().collect());
                    }
                    None
                }
            },
            SmallMap::Many(many) => many.insert(key, value),
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        match self {
            SmallMap::Few(few) => {
                let at = few.iter().position(|(k, _)| k == key)?;
                Some(few.remove(at).1)
            }
            SmallMap::Many(many) => many.remove(key),
        }
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = (&K, &V)> + '_> {
        match self {
            SmallMap::Few(few) => Box::new(few.iter().map(|(k, v)| (k, v))),
            SmallMap::Many(many) => Box::new(many.iter()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            SmallMap::Few(few) => few.is_empty(),
            SmallMap::Many(many) => many.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_order_and_contents_while_it_grows() {
        let mut map = SmallMap::default();
        for n in [5, 3, 9, 1].into_iter().chain(10..40) {
            assert_eq!(map.insert(n, n * 2), None);
        }
        assert_eq!(map.insert(3, 7), Some(6));
        assert_eq!(map.remove(&9), Some(18));
        assert_eq!(map.get(&3), Some(&7));
        let keys: Vec<_> = map.iter().map(|(k, _)| *k).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(keys, sorted);
        assert_eq!(keys.len(), 33);
    }
}
