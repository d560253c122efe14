//! What somebody writes who comes from JavaScript, and how it is said here.

/// Names that are there in a Worker.
const NAMES: &[(&str, &str)] = &[
    ("console", "print(…) writes a line of the message's trace"),
    ("JSON", "json_parse(text) reads JSON, json_stringify(value) writes it"),
    ("Date", "the time is ctx.now(), in milliseconds; format_date and parse_date write and read one"),
    ("Object", "a map has keys(), values(), len and contains(key)"),
    ("Number", "parse_int(text) and parse_float(text) read numbers"),
    ("crypto", "sha256, hmac_sha256 and random_id are functions"),
    ("undefined", "what isn't there is ()"),
    ("PostalMime", "message is parsed already: message.subject, text, html, attachments"),
    ("Promise", "there is nothing to wait for"),
    ("process", "variables and secrets are env.NAME"),
    ("Math", "numbers have floor(), ceiling(), round() and abs(); max(a, b), min(a, b)"),
    ("String", "x.to_string() is a text, and so is `${x}`"),
    ("typeof", "type_of(x) says what a value is"),
    ("delete", "map.remove(key) takes a key out of a map, env.NAMESPACE.delete(key) one out of KV"),
    ("finally", "what is to be done in any case stands after try { … } catch (e) { … }"),
];
/// Words that Rhai keeps for itself, or doesn't know.
const WORDS: &[(&str, &str)] = &[
    ("await", "there is nothing to wait for: leave it out"),
    ("async", "there is nothing to wait for: fn email(message, env, ctx) { … }"),
    ("new", "a map is #{ a: 1 }, an array [1, 2], an error throw \"…\""),
    ("var", "a variable is declared with let"),
    ("null", "what isn't there is ()"),
    ("default", "a worker is fn email(message, env, ctx) { … }"),
    ("case", "switch x { \"a\" | \"b\" => …, _ => … }"),
    ("void", "what isn't there is ()"),
    ("match", "regex_match(text, pattern) says whether, regex_captures(text, pattern) what was found"),
];
/// What a parser's error begins with.
const BEGINNINGS: &[(&str, &str)] = &[
    ("Unknown operator: '?'", "a choice is if a { b } else { c }; a ?? b is b where a is ()"),
    ("Unknown operator: '++'", "one more is i += 1"),
    ("Unknown operator: '--'", "one less is i -= 1"),
    ("'...' is a reserved symbol", "lists and maps are joined by a + b"),
    ("Invalid character", "a text is in double quotes, or between backticks with ${…} in it"),
    ("Expecting '{' to start a statement block", "what follows a condition stands in braces: if a { b }"),
    ("Expecting ':' to follow the property", "each key has its value: #{ a: a }"),
    ("This switch case cannot have a condition", "where each case has one, write if a { b } else if c { d }"),
];
/// Members of a kind.
const MEMBERS: &[(&str, &str, &str)] = &[
    ("ctx", "waitUntil", "leave it out: what is asked for is queued on disk; a request to others is ctx.webhook"),
    ("ctx", "passThroughOnException", "leave it out: a script that fails is 451, and the sender tries again"),
    ("headers", "set", "message.set_header(name, value) sets a field for what is forwarded from here on"),
    ("headers", "append", "message.set_header(name, value) sets a field for what is forwarded from here on"),
    ("headers", "delete", "message.remove_header(name) takes a field out of what is forwarded from here on"),
    ("headers", "entries", "for field in message.headers { … } has each as [name, value]"),
    ("headers", "forEach", "for field in message.headers { … } has each as [name, value]"),
    ("env", "get", "what is bound is env.NAME"),
    ("string", "length", "write len"),
    ("array", "length", "write len"),
];

/// Arguments that are not wanted.
const ARGUMENTS: &[(&str, &str, &str)] =
    &[("kv", "get", "a value comes back as what was put, whatever its type: nothing says which")];

/// What is to be said of too many arguments.
pub fn arguments(kind: &str, name: &str) -> Option<&'static str> {
    ARGUMENTS.iter().find(|(of, known, _)| *of == kind && *known == name).map(|(.., help)| *help)
}

/// How a name that isn't there is said.
pub fn name(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, help)| *help)
}

/// The same of a member.
pub fn member(kind: &str, name: &str) -> Option<&'static str> {
    MEMBERS.iter().find(|(of, known, _)| *of == kind && *known == name).map(|(.., help)| *help)
}

/// What a parser's error may come of: its words, and the line from where it stands on.
pub fn syntax(error: &str, before: &str, rest: &str) -> Option<&'static str> {
    let word =
        error.strip_prefix('\'').and_then(|error| error.split_once("' is a reserved keyword")).map(|(word, _)| word);
    if let Some(word) = word {
        let after = rest.strip_prefix(word).unwrap_or_default().trim_start();
        let is_key = after.starts_with(':') && !after.starts_with("::");
        if is_key || before.ends_with('.') && !after.starts_with('(') {
            return Some("as a key it stands in quotes: #{ \"key\": 1 }, map[\"key\"]");
        }
        return WORDS.iter().find(|(known, _)| *known == word).map(|(_, help)| *help);
    }
    if let Some((_, help)) = BEGINNINGS.iter().find(|(beginning, _)| error.starts_with(beginning)) {
        return Some(help);
    }
    if error.starts_with("Expecting literal expression") && rest.starts_with("case") {
        return WORDS.iter().find(|(known, _)| *known == "case").map(|(_, help)| *help);
    }
    if error.starts_with("Expecting name of a variable") && rest.starts_with(['[', '{']) {
        return Some("each variable is declared by itself: let a = list[0];");
    }
    if error.starts_with("Expecting name of a variable") && before.trim_end().ends_with('(') {
        return Some("a loop is for item in list { … }");
    }
    None
}

/// A name that isn't there, in a line that says what it was meant for.
pub fn variable(name: &str, before: &str, rest: &str) -> Option<&'static str> {
    let after = rest.strip_prefix(name)?.trim_start();
    let before = before.trim_end();
    if before.ends_with('{') && after.starts_with(':') && !after.starts_with("::") {
        return Some("a map is #{ a: 1 }");
    }
    if (before.ends_with('(') && after.starts_with(')') || before.ends_with(['=', ',', '('])) && after.contains("=>") {
        return Some("a function without a name is |x| x + 1");
    }
    if before.ends_with("function(") {
        return Some("a function without a name is |x| x + 1, one with a name fn f(x) { … }");
    }
    self::name(name)
}
