//! A state's value as JSON.

use serde_json::{Value as Json, json};
use switchboard::Value;

/// `version` and the value: as `text` where it is text, otherwise as `hex`.
pub(crate) fn as_json(value: &Value) -> Json {
    let mut object = json!({ "version": value.version, "len_bytes": value.bytes.len() });
    let (name, shown) = match std::str::from_utf8(&value.bytes) {
        Ok(text) => ("text", text.to_owned()),
        Err(_) => ("hex", value.bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    };
    object[name] = shown.into();
    if value.restored {
        object["restored"] = true.into();
    }
    object
}

/// What is said of a value that may not be the newest.
pub(crate) const RESTORED: &str = "its memory is damaged: this is the newest value that is whole";
