//! A state's value, and bytes, as JSON.

use serde_json::{Value as Json, json};
use switchboard::Value;

/// `version` and the value: as `text` where it is text, otherwise as `hex`.
pub(crate) fn as_json(value: &Value) -> Json {
    let mut object = bytes_as_json(&value.bytes);
    object["version"] = value.version.into();
    if value.restored {
        object["restored"] = true.into();
    }
    object
}

/// Bytes, and how many: as `text` where they are text, otherwise as `hex`.
pub(crate) fn bytes_as_json(bytes: &[u8]) -> Json {
    let (name, shown) = match std::str::from_utf8(bytes) {
        Ok(text) => ("text", text.to_owned()),
        Err(_) => ("hex", bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    };
    let mut object = json!({ "len_bytes": bytes.len() });
    object[name] = shown.into();
    object
}

/// What is said of a value that may not be the newest.
pub(crate) const RESTORED: &str = "its memory is damaged: this is the newest value that is whole";
