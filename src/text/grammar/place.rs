//! Finds the part of a schema that is at fault, for who has to change it.

use serde_json::{Map, Value};

use super::{GrammarError, Schema};

/// Parts that are tried alone.
const TRIES_MAX: usize = 64;
/// And the bytes of those: a long one may take seconds.
const TRIED_BYTES_MAX: usize = 512 << 10;
/// A longer way is told as far as this.
pub const PLACE_BYTES_MAX: usize = 200;
/// Of what the library says, which may repeat a part of the schema.
const REASON_BYTES_MAX: usize = 300;

/// Keywords whose value is a schema, and those whose values are.
const ONE: &[&str] = &["items", "additionalProperties"];
const MANY: &[&str] = &[
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "anyOf",
    "oneOf",
    "allOf",
    "prefixItems",
];
/// What other parts refer to.
const SHARED: &[&str] = &["$schema", "$defs", "definitions"];

/// The error for a schema that was refused for this reason. `refusal` says why a schema is, if it is.
pub fn error(
    schema: &Schema,
    reason: String,
    refusal: impl Fn(&Value) -> Option<String>,
) -> GrammarError {
    let place = place(&schema.value, &reason, &refusal);
    let mut reason = reason;
    if reason.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or(0));
        reason.push('…');
    }
    GrammarError::Schema { field: schema.field.clone(), place, reason }
}

/// The innermost part that is refused for the same reason when it stands alone.
fn place(schema: &Value, reason: &str, refusal: &impl Fn(&Value) -> Option<String>) -> String {
    let mut place = String::new();
    let mut part = schema;
    let mut tries = 0;
    let mut tried_bytes = 0;
    'inwards: loop {
        for (step, child) in children(part) {
            let is_enough = tries == TRIES_MAX || tried_bytes > TRIED_BYTES_MAX;
            if is_enough || place.len() > PLACE_BYTES_MAX {
                return place;
            }
            tries += 1;
            let alone = alone(child, schema);
            tried_bytes += alone.to_string().len();
            if refusal(&alone).as_deref() == Some(reason) {
                place.push_str(&step);
                part = child;
                continue 'inwards;
            }
        }
        return place;
    }
}

/// The schemas within a schema, with the way there.
fn children(schema: &Value) -> Vec<(String, &Value)> {
    let mut children = Vec::new();
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        if ONE.contains(&keyword.as_str()) {
            children.push((format!("/{keyword}"), value));
        } else if MANY.contains(&keyword.as_str()) {
            match value {
                Value::Object(parts) => children.extend(
                    parts
                        .iter()
                        .map(|(name, part)| (format!("/{keyword}/{}", escaped(name)), part)),
                ),
                Value::Array(parts) => children.extend(
                    parts.iter().enumerate().map(|(n, part)| (format!("/{keyword}/{n}"), part)),
                ),
                _ => (),
            }
        }
    }
    children
}

/// A part with what it may refer to.
fn alone(part: &Value, root: &Value) -> Value {
    let Value::Object(fields) = part else { return part.clone() };
    let shared =
        SHARED.iter().filter_map(|name| Some(((*name).to_owned(), root.get(name)?.clone())));
    let mut whole: Map<String, Value> = shared.collect();
    whole.extend(fields.clone());
    whole.into()
}

/// As RFC 6901 has it; a long name is told by its length.
pub fn escaped(name: &str) -> String {
    const NAME_BYTES_MAX: usize = 60;
    match name.len() > NAME_BYTES_MAX {
        true => format!("(a name of {} bytes)", name.len()),
        false => name.replace('~', "~0").replace('/', "~1"),
    }
}
