//! The JSON schema of `mailworker.toml`, for editors: made from the structs that read it.

use serde_json::Value;

/// The schema; `deploy/mailworker.schema.json` is this, held by a test.
#[must_use]
pub fn schema() -> Value {
    let generator = schemars::generate::SchemaSettings::draft07().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<super::raw::File>());
    without_null(&mut schema);
    overlay_is_the_root_again(&mut schema);
    schema
}

/// TOML has no null: what is optional is left out.
fn without_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    map.insert("type".to_owned(), one);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("enum") {
                choices.retain(|choice| !choice.is_null());
            }
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(one)] = choices.as_slice() {
                    let one = one.clone();
                    map.shift_remove("anyOf");
                    for (key, value) in one {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            map.values_mut().for_each(without_null);
        }
        _ => {}
    }
}

/// `[env.NAME]` takes all of the top level but `env`.
fn overlay_is_the_root_again(schema: &mut Value) {
    let Some(Value::Object(properties)) = schema.get("properties").cloned() else { return };
    let properties: serde_json::Map<String, Value> = properties.into_iter().filter(|(name, _)| name != "env").collect();
    if let Some(overlay) = schema.pointer_mut("/definitions/Overlay") {
        *overlay = serde_json::json!({
            "description": "Any of the top level over again.",
            "type": "object", "additionalProperties": false, "properties": properties,
        });
    }
}
