//! A mail that a worker wrote, as a test says it.

use serde_json::{Map, Value, json};

use crate::mail::Draft;
use crate::mail::draft::{Named, Purpose};

/// What is there of it, field by field.
#[must_use]
pub fn shown(draft: &Draft) -> Value {
    let mut item = Map::new();
    let mut put = |name: &str, value: Option<Value>| item.extend(value.map(|value| (name.to_owned(), value)));
    put("from", Some(json!(draft.from.to_string())));
    put("to", people(&draft.to));
    put("cc", people(&draft.cc));
    put("bcc", people(&draft.bcc));
    put("reply_to", people(&draft.reply_to));
    if let Purpose::Reply { in_reply_to, references, .. } = &draft.purpose {
        put("in_reply_to", in_reply_to.as_ref().map(|id| json!(id)));
        put("references", Some(json!(references)));
    }
    put("subject", Some(json!(draft.subject)));
    put("text", draft.text.as_ref().map(|text| json!(text)));
    put("html", draft.html.as_ref().map(|html| json!(html)));
    if !draft.headers.is_empty() {
        put(
            "headers",
            Some(draft.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>().into()),
        );
    }
    if !draft.attachments.is_empty() {
        let files = draft.attachments.iter().map(|one| {
            let mut file = Map::from_iter([
                ("content_type".to_owned(), json!(one.content_type)),
                ("size".to_owned(), json!(one.content.len())),
            ]);
            file.extend(one.filename.iter().map(|name| ("filename".to_owned(), json!(name))));
            Value::Object(file)
        });
        put("attachments", Some(files.collect()));
    }
    Value::Object(item)
}

/// One stands for itself.
fn people(people: &[Named]) -> Option<Value> {
    match people {
        [] => None,
        [one] => Some(json!(one.to_string())),
        several => Some(several.iter().map(|one| json!(one.to_string())).collect()),
    }
}
