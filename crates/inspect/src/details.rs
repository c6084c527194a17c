//! What more there is to say of an object: names and values, a few of each, most of them words that are known beforehand.
//!
//! Source: docs/design/inspect.md, "Model". As JSON it is an object.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

type Text = Cow<'static, str>;

/// Values by name, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details(Vec<(Text, Text)>);

impl Details {
    /// The value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.place(name).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// Sets the value of a name.
    pub fn insert(&mut self, name: impl Into<Text>, value: impl Into<Text>) {
        let (name, value) = (name.into(), value.into());
        match self.place(&name) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (name, value)),
        }
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

impl FromIterator<(String, String)> for Details {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(all: I) -> Self {
        let mut details = Self::default();
        for (name, value) in all {
            details.insert(name, value);
        }
        details
    }
}

impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Details {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<String, String>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_map() {
        let mut details = Details::default();
        for (name, value) in [("type", "stream"), ("a", "1"), ("type", "datagram")] {
            details.insert(name, value);
        }
        assert_eq!((details.get("type"), details.get("b")), (Some("datagram"), None));
        let json = serde_json::to_string(&details).expect("JSON");
        assert_eq!(json, r#"{"a":"1","type":"datagram"}"#);
        assert_eq!(serde_json::from_str::<Details>(&json).expect("details"), details);
    }
}
