//! JSON exports: the list in them, and the line of each of its items, which a parser forgets.

use serde_json::Value;

/// Why a file can't be read, with the line.
pub type Wrong = (usize, String);

/// The items of the list: the document itself, or what stands in it under one of these names; each with its line.
pub fn items(text: &str, names: &[&str]) -> Result<Vec<(usize, Value)>, Wrong> {
    let document: Value =
        serde_json::from_str(text).map_err(|error| (error.line(), format!("this is no JSON: {error}")))?;
    let (name, list) = match document {
        Value::Array(list) => (None, list),
        Value::Object(mut object) => {
            let Some(name) = names.iter().copied().find(|name| object.contains_key(*name)) else {
                let listed = names.join("` or `");
                return Err((1, format!("there is no `{listed}` in it: is it the answer of the list's API?")));
            };
            match object.remove(name) {
                Some(Value::Array(list)) => (Some(name), list),
                Some(one @ Value::Object(_)) => return Ok(vec![(1, one)]),
                _ => return Err((1, format!("`{name}` is no list"))),
            }
        }
        _ => return Err((1, "this is no list of rules".to_owned())),
    };
    let mut lines = lines(text, name).into_iter();
    Ok(list.into_iter().map(|item| (lines.next().unwrap_or(1), item)).collect())
}

/// How many there are in all, where the document says that these are a page of them.
pub fn total(text: &str) -> Option<u64> {
    let document: Value = serde_json::from_str(text).ok()?;
    let total = document.get("total_count").or_else(|| document.get("result_info")?.get("total_count"))?;
    total.as_u64()
}

/// Where each object directly in the list begins.
fn lines(text: &str, name: Option<&str>) -> Vec<usize> {
    let (mut lines, mut line) = (Vec::new(), 1);
    // Of each bracket that is open, whether it is the list.
    let mut open: Vec<bool> = Vec::new();
    let mut word: Option<String> = None;
    let mut last = String::new();
    let mut escaped = false;
    for letter in text.chars() {
        line += usize::from(letter == '\n');
        if let Some(text) = &mut word {
            if letter == '"' && !escaped {
                last = word.take().unwrap_or_default();
            } else {
                text.push(letter);
                escaped = letter == '\\' && !escaped;
            }
            continue;
        }
        match letter {
            '"' => (word, escaped) = (Some(String::new()), false),
            '[' => open.push(match name {
                None => open.is_empty(),
                Some(name) => open.len() == 1 && last == name,
            }),
            '{' => {
                if open.last() == Some(&true) {
                    lines.push(line);
                }
                open.push(false);
            }
            ']' | '}' => {
                open.pop();
            }
            _ => {}
        }
    }
    lines
}

/// A text of an item; empty if there is none.
pub fn text<'v>(item: &'v Value, name: &str) -> &'v str {
    item.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The texts of a list of an item.
pub fn texts(item: &Value, name: &str) -> Vec<String> {
    let list = item.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// By priority, lower first; those of the same one as they stand.
pub fn by_priority(items: &mut [(usize, Value)]) {
    let priority = |item: &Value| item.get("priority").and_then(Value::as_f64).unwrap_or_default();
    items.sort_by(|(_, a), (_, b)| priority(a).total_cmp(&priority(b)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_has_its_line() {
        let text = "{\"errors\": [{\"a\": 1}],\n \"result\": [\n  {\"x\": \"{[\\\"\"},\n  {\"y\": [{\"z\": 1}]}\n]}";
        let found = items(text, &["result"]).unwrap();
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4]);
        let found = items("[{},\n\n{}]", &["result"]).unwrap();
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3]);
        assert!(items("{}", &["result"]).is_err() && items("[", &["result"]).is_err() && items("7", &[]).is_err());
    }
}
