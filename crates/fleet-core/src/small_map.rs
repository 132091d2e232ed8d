//! An ordered map that is small while it holds little.
//!
//! An ordinary unit is on one machine, seldom two; a global unit on thousands. A `BTreeMap` with
//! one entry reserves room for eleven, which among a million units is most of the memory.

use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};

/// Beyond so many entries, moving the tail of a vector costs more than a tree's node.
const FEW: usize = 16;

/// Up to so many entries there is room for just those: a vector's first room is for four.
const EXACT: usize = 4;

/// The map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmallMap<K, V>(Held<K, V>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Held<K, V> {
    /// In the order of their keys.
    Few(Vec<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap(Held::Few(Vec::new()))
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// What is there of that key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match &self.0 {
            Held::Few(few) => few.iter().find(|(k, _)| k.borrow() == key).map(|(_, v)| v),
            Held::Many(many) => many.get(key),
        }
    }

    /// Puts it in; what was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match &mut self.0 {
            Held::Few(few) => match few.binary_search_by(|(k, _)| k.cmp(&key)) {
                Ok(at) => Some(std::mem::replace(&mut few[at].1, value)),
                Err(at) => {
                    if few.len() < EXACT {
                        few.reserve_exact(1);
                    }
                    few.insert(at, (key, value));
                    if few.len() > FEW {
                        self.0 = Held::Many(std::mem::take(few).into_iter().collect());
                    }
                    None
                }
            },
            Held::Many(many) => many.insert(key, value),
        }
    }

    /// Takes it out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match &mut self.0 {
            Held::Few(few) => {
                let at = few.iter().position(|(k, _)| k.borrow() == key)?;
                Some(few.remove(at).1)
            }
            Held::Many(many) => many.remove(key),
        }
    }

    /// All, in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        match &self.0 {
            Held::Few(few) => Iter::Few(few.iter()),
            Held::Many(many) => Iter::Many(many.iter()),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Held::Few(few) => few.is_empty(),
            Held::Many(many) => many.is_empty(),
        }
    }
}

/// Goes through a [`SmallMap`].
#[derive(Debug)]
pub enum Iter<'a, K, V> {
    /// Of a few.
    Few(std::slice::Iter<'a, (K, V)>),
    /// Of many.
    Many(btree_map::Iter<'a, K, V>),
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Iter::Few(few) => few.next().map(|(key, value)| (key, value)),
            Iter::Many(many) => many.next(),
        }
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a SmallMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
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

    #[test]
    fn one_entry_has_room_for_one() {
        let mut map = SmallMap::default();
        for n in 1..=EXACT {
            map.insert(n, n);
            let Held::Few(few) = &map.0 else {
                panic!("{n} are few")
            };
            assert_eq!(few.capacity(), n);
        }
    }
}
