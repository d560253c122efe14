//! What a script reads from outside: `fetch`, `ai`, `dns_lookup`, `dnsbl`, of `ctx` and, before `email`, of `session`.
//!
//! Each is a request to whom the caller lent (`reach`), within what is left of the run's time, counted, and told in the
//! trace. That nobody answered is an error a script may catch; a list that doesn't answer lists nobody.
//! Standards: RFC 5782 (lists of addresses); OpenAI's chat completions, as many servers speak them.

use std::time::Duration;

use bytes::Bytes;
use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use serde_json::{Value as Json, json};

use super::bounds::Bounds;
use super::context::{ContextView, field};
use super::functions::json;
use super::octets::Octets;
use super::options::{self, Options};
use super::run::{Handler, Run, ScriptResult, beginning, hidden, refuse};
use super::session::SessionView;
use super::value::{from_json, to_json};
use crate::rules::engine::{self, Left, charge};
use crate::rules::reach::{Answer, Failed, Fetch, Reached, Record, Request, listed_name};

/// Octets of a URL, of a body, of what is said to `ai`; fields.
const MAX_URL: usize = 2048;
const MAX_BODY: usize = 1024 * 1024;
const MAX_FIELDS: usize = 50;
/// Of the time that is left, so much stays for what the script does where nobody answers.
const RESERVE: Duration = Duration::from_millis(100);
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

pub(super) fn register(engine: &mut Engine) {
    engine
        .register_fn("fetch", |context: NativeCallContext, ctx: &mut ContextView, url: ImmutableString| {
            fetch(&context, ctx.run(), &url, Map::new())
        })
        .register_fn(
            "fetch",
            |context: NativeCallContext, ctx: &mut ContextView, url: ImmutableString, options: Map| {
                fetch(&context, ctx.run(), &url, options)
            },
        )
        .register_fn("ai", |context: NativeCallContext, ctx: &mut ContextView, chat: Map| ai(&context, ctx.run(), chat))
        .register_fn(
            "dns_lookup",
            |context: NativeCallContext, ctx: &mut ContextView, name: ImmutableString, kind: ImmutableString| {
                dns_lookup(&context, ctx.run(), &name, &kind)
            },
        )
        .register_fn("dnsbl", |context: NativeCallContext, ctx: &mut ContextView, zone: ImmutableString| {
            dnsbl(&context, ctx.run(), &zone)
        })
        .register_fn("fetch", |context: NativeCallContext, session: &mut SessionView, url: ImmutableString| {
            fetch(&context, session.run(), &url, Map::new())
        })
        .register_fn(
            "fetch",
            |context: NativeCallContext, session: &mut SessionView, url: ImmutableString, options: Map| {
                fetch(&context, session.run(), &url, options)
            },
        )
        .register_fn(
            "dns_lookup",
            |context: NativeCallContext, session: &mut SessionView, name: ImmutableString, kind: ImmutableString| {
                dns_lookup(&context, session.run(), &name, &kind)
            },
        )
        .register_fn("dnsbl", |context: NativeCallContext, session: &mut SessionView, zone: ImmutableString| {
            dnsbl(&context, session.run(), &zone)
        });
}

/// Asks, keeps what the trace tells, and ends the run where it may not ask.
fn ask(
    context: &NativeCallContext,
    run: &Run,
    request: Request,
    timeout: Option<Duration>,
) -> ScriptResult<Result<Answer, String>> {
    let left = match engine::time_left() {
        // Nobody sees what this run has done: it is made anew where it may wait.
        Left::GivesWay => return Err(run.overrun(context, "it asks outside".to_owned())),
        Left::Time(left) => left,
    };
    let most = run.environment.requests;
    let nth = {
        let mut state = run.state();
        if state.requests.len() >= most {
            drop(state);
            return Err(run.overrun(context, format!("more than {most} requests outside in one run")));
        }
        let nth = state.requests.iter().filter(|asked| **asked == request).count();
        state.requests.push(request.clone());
        nth
    };
    let hide = |text: &str| run.hidden(text).into_owned();
    let left = left.saturating_sub(RESERVE);
    if left.is_zero() {
        return Err(run.overrun(context, format!("no time is left for {}", request.shown(hide))));
    }
    let asked = run.reach.ask(&request, nth, timeout.map_or(left, |timeout| timeout.min(left)));
    let answer = match &asked.result {
        Ok(answer) => answer.shown(hide),
        Err(failed) => hide(&failed.to_string()),
    };
    let reached = Reached {
        at: run.place(context),
        what: request.shown(hide),
        answer,
        failed: asked.result.is_err(),
        took: asked.took,
        kept: asked.kept,
    };
    run.state().reached.push(reached);
    match asked.result {
        Ok(answer) => Ok(Ok(answer)),
        Err(Failed::Unanswered(why) | Failed::Limited(why)) => Ok(Err(why)),
        Err(Failed::Ends(why)) => Err(run.overrun(context, format!("{}: {why}", context.fn_name()))),
    }
}

#[allow(clippy::unnecessary_box_returns)] // As the engine takes it.
fn say(context: &NativeCallContext, why: impl std::fmt::Display) -> Box<rhai::EvalAltResult> {
    refuse(context, format!("{}: {why}", context.fn_name()))
}

fn fetch(context: &NativeCallContext, run: &Run, url: &str, options: Map) -> ScriptResult<Map> {
    let bounds = Bounds::of(context);
    let (fetch, timeout) = fetch_of(url, options, bounds).map_err(|why| say(context, why))?;
    charge(fetch.body.len());
    let answer = ask(context, run, Request::Fetch(fetch), timeout)?.map_err(|why| say(context, why))?;
    let Answer::Http { status, headers, body } = answer else { return Err(say(context, "no HTTP answer")) };
    charge(body.len());
    let is_json = headers.iter().any(|(name, value)| name == "content-type" && value.contains("json"));
    let mut fields = Map::new();
    for (name, value) in headers {
        let joined = match fields.remove(name.as_str()) {
            Some(before) => format!("{before}, {value}"),
            None => value,
        };
        fields.insert(name.into(), joined.into());
    }
    let text = std::str::from_utf8(&body).ok();
    let looks_so = || text.is_some_and(|text| text.trim_start().starts_with(['{', '[']));
    let parsed = match text.filter(|_| is_json || looks_so()).map(|text| json::parse(text, bounds)) {
        Some(Ok(value)) => value,
        // What is too large for the budget is told; what is no JSON is none.
        Some(Err(error)) if error.is_data() => return Err(say(context, format_args!("the answer's JSON: {error}"))),
        Some(Err(_)) | None => Dynamic::UNIT,
    };
    let body = text.map_or_else(|| Dynamic::from(Octets::new(body.clone())), |text| Dynamic::from(text.to_owned()));
    Ok(Map::from([
        ("status".into(), Dynamic::from(i64::from(status))),
        ("ok".into(), Dynamic::from((200..300).contains(&status))),
        ("headers".into(), Dynamic::from_map(fields)),
        ("body".into(), body),
        ("json".into(), parsed),
    ]))
}

fn fetch_of(url: &str, options: Map, bounds: Bounds) -> Result<(Fetch, Option<Duration>), String> {
    let shown = || beginning(url, 100);
    let parsed = url::Url::parse(url).map_err(|why| format!("{:?} is no URL: {why}", shown()))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none_or(str::is_empty) {
        return Err(format!("{:?} is no http(s) URL", shown()));
    }
    if url.len() > MAX_URL {
        return Err(format!("a URL is at most {MAX_URL} octets, this has {}", url.len()));
    }
    let mut options = Options::new(options, options::REQUEST)?;
    let given: Map = options.map("headers")?.unwrap_or_default();
    if given.len() > MAX_FIELDS {
        return Err(format!("at most {MAX_FIELDS} headers, these are {}", given.len()));
    }
    let mut headers = given
        .into_iter()
        .map(|(name, value)| field(name.as_str(), &value))
        .collect::<Result<Vec<(String, String)>, _>>()?;
    let body = options.take("body");
    let default = if body.is_some() { "POST" } else { "GET" };
    let method = options.text("method")?.unwrap_or_else(|| default.to_owned()).to_ascii_uppercase();
    if !METHODS.contains(&method.as_str()) {
        return Err(format!("the method is one of {}, not {method:?}", METHODS.join(", ")));
    }
    if body.is_some() && matches!(method.as_str(), "GET" | "HEAD") {
        return Err(format!("a {method} has no body"));
    }
    let (body, kind) = body.map_or(Ok((Bytes::new(), None)), |body| body_of(&body))?;
    if body.len() > MAX_BODY {
        return Err(format!("a body is at most {MAX_BODY} octets, this has {}", body.len()));
    }
    if let Some(kind) = kind.filter(|_| !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"))) {
        headers.push(("content-type".to_owned(), kind.to_owned()));
    }
    let timeout = options.take("timeout").map(|value| seconds(&value)).transpose()?;
    Ok((Fetch { method, url: url.to_owned(), headers, body, timeout, most: bounds.answer() }, timeout))
}

/// The octets, and what they are where the script's value says it.
fn body_of(value: &Dynamic) -> Result<(Bytes, Option<&'static str>), String> {
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok((Bytes::copy_from_slice(text.as_bytes()), Some("text/plain; charset=utf-8")));
    }
    if let Some(octets) = Octets::from_dynamic(value) {
        return Ok((octets.bytes().clone(), Some("application/octet-stream")));
    }
    let json = to_json(value).map_err(|why| format!("body: {why}"))?;
    Ok((json.to_string().into(), Some("application/json")))
}

fn seconds(value: &Dynamic) -> Result<Duration, String> {
    let given =
        value.as_float().ok().or_else(|| value.as_int().ok().and_then(|n| i32::try_from(n).ok()).map(f64::from));
    let given = given.filter(|given| *given > 0.0 && *given <= 3600.0);
    let given = given.ok_or_else(|| format!("timeout is in seconds, from 0.001 to 3600, not {value}"))?;
    Ok(Duration::from_secs_f64(given).max(Duration::from_millis(1)))
}

fn ai(context: &NativeCallContext, run: &Run, chat: Map) -> ScriptResult<Map> {
    let bounds = Bounds::of(context);
    let Some(settings) = &run.environment.ai else {
        let why = "the configuration has no [ai]: url = \"https://api.openai.com/v1\" and its api_key";
        return Err(say(context, why));
    };
    let (model, body) = chat_of(chat, settings.model.as_deref()).map_err(|why| say(context, why))?;
    charge(body.len());
    let request = Request::Ai { model, body, most: bounds.answer() };
    let answer = ask(context, run, request, None)?.map_err(|why| say(context, why))?;
    let Answer::Http { status, body, .. } = answer else { return Err(say(context, "no HTTP answer")) };
    charge(body.len());
    let parsed = std::str::from_utf8(&body).map_err(|_| "no UTF-8".to_owned());
    let parsed = parsed.and_then(|text| json::parse(text, bounds).map_err(|error| error.to_string()));
    if !(200..300).contains(&status) {
        let why = parsed
            .ok()
            .and_then(|value| message_of(&value))
            .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        return Err(say(context, format_args!("the endpoint answered {status}: {}", clean(&why))));
    }
    let parsed = parsed.map_err(|why| say(context, format_args!("the answer is no JSON: {why}")))?;
    let Some(mut answer) = parsed.try_cast::<Map>() else {
        return Err(say(context, "the answer is no object of JSON"));
    };
    let text = text_of(&answer).ok_or_else(|| say(context, "the answer has no choices[0].message"))?;
    answer.insert("text".into(), text.into());
    Ok(answer)
}

/// The model, and the body as it is sent.
fn chat_of(chat: Map, model: Option<&str>) -> Result<(String, String), String> {
    let mut json = to_json(&Dynamic::from_map(chat))?;
    let Json::Object(fields) = &mut json else { return Err("it is a map".to_owned()) };
    if fields.get("messages").and_then(Json::as_array).is_none_or(Vec::is_empty) {
        return Err(
            "messages is an array of #{ role, content }: [#{ role: \"user\", content: message.text }]".to_owned()
        );
    }
    if fields.get("stream").is_some_and(|stream| *stream != Json::Bool(false)) {
        return Err("stream isn't offered: the answer comes whole".to_owned());
    }
    if let (None, Some(model)) = (fields.get("model"), model) {
        fields.insert("model".to_owned(), json!(model));
    }
    let model = fields.get("model").and_then(Json::as_str).unwrap_or_default().to_owned();
    let body = json.to_string();
    if body.len() > MAX_BODY {
        return Err(format!("what is said is at most {MAX_BODY} octets of JSON, this has {}", body.len()));
    }
    Ok((model, body))
}

/// The first choice's words; empty where it calls a tool.
fn text_of(answer: &Map) -> Option<String> {
    let choices = answer.get("choices")?.as_array_ref().ok()?;
    let first = choices.first()?.as_map_ref().ok()?;
    let message = first.get("message")?.as_map_ref().ok()?;
    Some(message.get("content").and_then(|content| content.clone().into_string().ok()).unwrap_or_default())
}

/// `error.message`, as OpenAI has it.
fn message_of(answer: &Dynamic) -> Option<String> {
    let answer = answer.as_map_ref().ok()?;
    let error = answer.get("error")?;
    let message = error.as_map_ref().ok().and_then(|error| error.get("message").cloned());
    message.unwrap_or_else(|| error.clone()).into_string().ok()
}

/// The beginning of what an endpoint says, which may quote the key it was given.
fn clean(text: &str) -> String {
    hidden(text).chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn dns_lookup(context: &NativeCallContext, run: &Run, name: &str, kind: &str) -> ScriptResult<Array> {
    let kind = Record::of(kind).ok_or_else(|| {
        let known = Record::ALL.map(Record::name);
        say(context, format_args!("the type is one of {}, not {kind:?}", known.join(", ")))
    })?;
    let name = host(name).map_err(|why| say(context, why))?;
    // An address is looked up by its name among the pointers.
    let name = match (kind, name.parse::<std::net::IpAddr>()) {
        (Record::Ptr, Ok(ip)) if ip.to_canonical().is_ipv4() => listed_name(ip, "in-addr.arpa"),
        (Record::Ptr, Ok(ip)) => listed_name(ip, "ip6.arpa"),
        _ => name,
    };
    let found = records(context, run, name, kind)?.map_err(|why| say(context, why))?;
    Ok(found.iter().map(from_json).collect())
}

fn records(
    context: &NativeCallContext,
    run: &Run,
    name: String,
    kind: Record,
) -> ScriptResult<Result<Vec<Json>, String>> {
    let answer = ask(context, run, Request::Dns { name, kind }, None)?;
    Ok(answer.map(|answer| match answer {
        Answer::Records(records) => records,
        Answer::Http { .. } => Vec::new(),
    }))
}

/// In lower case, without the final dot.
fn host(name: &str) -> Result<String, String> {
    let name = name.trim_end_matches('.').to_lowercase();
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63;
    if name.len() > 253
        || name.contains(|c: char| c.is_control() || c.is_whitespace())
        || !(name.split('.').all(is_label) || name.parse::<std::net::IpAddr>().is_ok())
    {
        return Err(format!("{:?} is no name of DNS", beginning(&name, 60)));
    }
    Ok(name)
}

/// What a list says of the client (RFC 5782). An answer outside 127.0.0.0/8, and those of 127.255.255.0/24 by which lists
/// refuse whoever asks, list nobody.
fn dnsbl(context: &NativeCallContext, run: &Run, zone: &str) -> ScriptResult<Map> {
    if matches!(run.handler, Handler::Happening(_)) {
        return Err(say(context, format_args!("{} has no client to ask a list about", run.handler.name())));
    }
    let zone = host(zone).map_err(|why| say(context, why))?;
    let name = listed_name(run.client, &zone);
    if name.len() > 253 {
        return Err(say(context, format_args!("{zone:?} is too long")));
    }
    let (found, mut error) = match records(context, run, name.clone(), Record::A)? {
        Ok(found) => (found, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let mut codes = Vec::new();
    for code in found.iter().filter_map(Json::as_str) {
        match code.parse::<std::net::Ipv4Addr>().map(|ip| ip.octets()) {
            Ok([127, 255, 255, _]) => error = Some(format!("{zone} refuses to answer us ({code})")),
            Ok([127, ..]) => codes.push(code.to_owned()),
            _ => error = Some(format!("{zone} answers {code}, which is no answer of a list")),
        }
    }
    let listed = !codes.is_empty();
    let text = if listed {
        let texts = records(context, run, name, Record::Txt)?.unwrap_or_default();
        texts.first().and_then(Json::as_str).map(|text| Bounds::of(context).cut(text.to_owned()))
    } else {
        None
    };
    Ok(Map::from([
        ("listed".into(), Dynamic::from(listed)),
        ("codes".into(), Dynamic::from_array(codes.into_iter().map(Dynamic::from).collect())),
        ("text".into(), text.map_or(Dynamic::UNIT, Dynamic::from)),
        ("error".into(), error.map_or(Dynamic::UNIT, Dynamic::from)),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_anybody_is_asked() {
        assert_eq!(host("Example.COM.").unwrap(), "example.com");
        assert_eq!(host("_dmarc.example.com").unwrap(), "_dmarc.example.com");
        let long = format!("{}.example", "a".repeat(64));
        for bad in ["", ".", "a..b", "a b", "a\r\nb", long.as_str(), &"a.".repeat(128)] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_timeout_is_in_seconds() {
        assert_eq!(seconds(&Dynamic::from(2_i64)).unwrap(), Duration::from_secs(2));
        assert_eq!(seconds(&Dynamic::from(0.5)).unwrap(), Duration::from_millis(500));
        for bad in
            [Dynamic::from(0_i64), Dynamic::from(-1.0), Dynamic::from(f64::NAN), Dynamic::from(i64::MAX), "1".into()]
        {
            assert!(seconds(&bad).unwrap_err().contains("seconds"), "{bad}");
        }
    }
}
