//! What a reader of a state with a living writer knows: the newest value of each key, and which of them the
//! program has not looked at.

use std::collections::{HashMap, VecDeque};

/// A value, as it came.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) version: u64,
    pub(crate) bytes: Vec<u8>,
    /// The program has not looked at it.
    is_new: bool,
}

#[derive(Debug, Default)]
pub(crate) struct KnownValues {
    values: HashMap<String, Known>,
    /// Keys that have changed, in that order; some were looked at since.
    changed: VecDeque<String>,
}

impl KnownValues {
    /// Takes a value. `false`: what is known is newer.
    pub(crate) fn put(&mut self, key: &str, version: u64, bytes: &[u8]) -> bool {
        let known = match self.values.get_mut(key) {
            Some(known) => known,
            None => {
                let known = Known { version: 0, bytes: Vec::new(), is_new: false };
                self.values.entry(key.to_owned()).or_insert(known)
            }
        };
        if version <= known.version {
            return false;
        }
        known.version = version;
        known.bytes.clear();
        known.bytes.extend_from_slice(bytes);
        if !std::mem::replace(&mut known.is_new, true) {
            self.changed.push_back(key.to_owned());
        }
        true
    }

    /// Looks at a value.
    pub(crate) fn look(&mut self, key: &str) -> Option<&Known> {
        let known = self.values.get_mut(key)?;
        known.is_new = false;
        Some(known)
    }

    pub(crate) fn is_new(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|known| known.is_new)
    }

    /// The key that changed longest ago of those that were not looked at.
    pub(crate) fn next_changed(&mut self) -> Option<String> {
        while let Some(key) = self.changed.pop_front() {
            if self.is_new(&key) {
                return Some(key);
            }
        }
        None
    }

    /// All that is there counts as looked at.
    pub(crate) fn look_at_all(&mut self) {
        self.changed.clear();
        self.values.values_mut().for_each(|known| known.is_new = false);
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
