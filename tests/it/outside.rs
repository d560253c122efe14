//! What workers read from outside while they run: `fetch`, `ai`, `dns_lookup`, `dnsbl`; and where they may not reach.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::watched::Watched;
use crate::harness::{Says, Server, Setup, SmtpSink, Web, mail};

const TO: &[&str] = &["support@example.com"];

/// The trace's lines of what was asked, of the newest message.
fn asked(server: &Server) -> Vec<serde_json::Value> {
    let newest = server.newest();
    let events = newest["trace"].as_array().unwrap().clone();
    events.into_iter().filter(|event| event["event"] == "reached").collect()
}

#[test]
fn a_worker_fetches_and_decides_by_the_answer() {
    let web = Web::start(|request| match request.path.as_str() {
        "/users/key-in-the-path?key=k1" => Says::json(&json!({ "team": "blue" })),
        path => panic!("{path}"),
    });
    let sink = SmtpSink::start();
    let rules = format!(
        r#"
fn email(message, env, ctx) {{
    let answer = ctx.fetch("{}", #{{ body: #{{ from: message.from }}, headers: #{{ "X-Token": "secret-token" }} }});
    message.forward("team@example.net", #{{ "X-Team": `${{answer.status}} ${{answer.ok}} ${{answer.json.team}}` }});
}}
"#,
        web.url("/users/key-in-the-path?key=k1")
    );
    let server = Setup::relaying_to(&sink).rules(&rules).start();
    let message = mail("one", "x");
    server.send("ann@example.org", TO, &message).expect(250);
    let head = String::from_utf8_lossy(sink.wait_one().prepended_to(&message)).into_owned();
    assert!(head.contains("X-Team: 200 true blue\r\n"), "{head}");
    let [request] = <[_; 1]>::try_from(web.requests()).unwrap();
    assert_eq!((request.method.as_str(), request.header("content-type")), ("POST", "application/json"));
    assert_eq!((request.header("x-token"), &request.json()), ("secret-token", &json!({ "from": "ann@example.org" })));
    assert!(request.header("user-agent").starts_with("mailworker/"));
    let [told] = <[_; 1]>::try_from(asked(&server)).unwrap();
    assert_eq!(told["what"], format!("POST http://{}/…", web.address));
    assert_eq!((&told["answer"], &told["failed"], &told["line"]), (&"200, 15 octets".into(), &false.into(), &3.into()));
    assert!(told["millis"].is_u64(), "{told}");
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    let shown = server.stdout(&["messages", "show", &id]);
    assert!(
        shown.contains("asked") && shown.contains("200, 15 octets") && shown.contains("rules/main.rhai:3"),
        "{shown}"
    );
    let log = server.log.all().join("\n");
    for secret in ["key-in-the-path", "k1", "secret-token"] {
        assert!(!shown.contains(secret) && !log.contains(secret), "{secret}");
    }
}

/// A directory refuses at RCPT; where it is away, the script goes on without.
#[test]
fn rcpt_asks_a_directory() {
    let web = Web::start(|request| match request.path.as_str() {
        "/nobody" => Says::status("404 Not Found"),
        "/slow" => Says::Nothing,
        _ => Says::ok("{}"),
    });
    let rules = format!(
        r#"
fn rcpt_to(session, rcpt, env) {{
    try {{
        if session.fetch(`http://{}/${{rcpt.base}}`, #{{ timeout: 0.2 }}).status == 404 {{
            session.reject(550, "5.1.1", "No such user here");
        }}
    }} catch (why) {{
        print(`away: ${{why}}`);
    }}
}}
fn email(message, env, ctx) {{ message.drop(); }}
"#,
        web.address
    );
    let server = Setup::new().rules(&rules).start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    client.command("RCPT TO:<nobody@example.com>").expect_status(550, "5.1.1");
    client.command("RCPT TO:<somebody@example.com>").expect(250);
    client.command("RCPT TO:<slow@example.com>").expect(250);
    let told = server.wait_event(0, "script_log", |event| event["text"].as_str().unwrap().contains("away"));
    assert!(told["text"].as_str().unwrap().contains("no answer in 200ms"), "{told}");
    server.wait_event(0, "reached", |event| {
        event["recipient"] == "nobody@example.com" && event["answer"] == "404, 0 octets"
    });
}

#[test]
fn a_client_on_a_list_is_refused_before_it_speaks() {
    let rules = r#"
fn connect(session, env) {
    let found = session.dnsbl("list.example");
    if found.listed { session.reject(`${found.codes[0]} ${found.text}`); }
    for zone in ["refuses.example", "broken.example", "empty.example"] {
        let found = session.dnsbl(zone);
        if found.listed { session.reject("listed by none"); }
        if found.error != () { print(`${zone}: ${found.error}`); }
    }
}
fn email(message, env, ctx) {
    let records = ctx.dns_lookup("example.org", "MX").map(|mx| `${mx.preference} ${mx.host}`);
    print(`${records} ${ctx.dns_lookup("example.org", "TXT")} ${ctx.dns_lookup("nowhere.example", "A")}`);
    try { ctx.dns_lookup("broken.example", "A"); } catch (why) { print(why); }
    message.drop();
}
"#;
    let server = Setup::new().rules(rules).start();
    server
        .dns
        .mx("example.org", 20, "b.example.org")
        .mx("example.org", 10, "a.example.org")
        .txt("example.org", "v=spf1 -all");
    server.dns.a("1.0.0.127.refuses.example", Ipv4Addr::new(127, 255, 255, 254));
    server.dns.fail("1.0.0.127.broken.example").fail("broken.example");
    server.send("ann@example.org", TO, &mail("in", "x")).expect(250);
    for words in [
        "refuses.example: refuses.example refuses to answer us (127.255.255.254)",
        "broken.example: DNS look-up of 1.0.0.127.broken.example failed",
        r#"["10 a.example.org", "20 b.example.org"] ["v=spf1 -all"] []"#,
        "dns_lookup: DNS look-up of broken.example failed",
    ] {
        let escaped = words.replace('"', "\\\"");
        server.log.find(words, 0, |line| line.contains(&escaped).then_some(()));
    }
    server.dns.a("1.0.0.127.list.example", Ipv4Addr::new(127, 0, 0, 4)).txt("1.0.0.127.list.example", "Listed");
    server.wait_until("it is refused", || {
        let mut client = crate::harness::Client::connect(server.smtp()).unwrap();
        let reply = client.reply();
        (reply.code == 554 && reply.text().contains("127.0.0.4 Listed")).then_some(())
    });
}

const TRIAGE: &str = r#"
fn email(message, env, ctx) {
    let kind = "unsorted";
    try {
        kind = ctx.ai(#{ messages: [#{ role: "user", content: message.subject }] }).text;
    } catch (why) {
        print(`no answer: ${why}`);
    }
    message.tag(kind);
    message.drop();
}
"#;

#[test]
fn a_language_model_sorts_and_mail_goes_on_without_it() {
    let web = Web::start(|request| {
        let chat = request.json();
        match chat["messages"][0]["content"].as_str().unwrap() {
            "bug" => Says::chat("urgent"),
            "hangs" => Says::Nothing,
            "garbage" => Says::Raw(b"\x00\x01 no HTTP at all\r\n\r\n".to_vec()),
            "html" => Says::ok("<html>busy</html>"),
            "error" => Says::Answer(
                "500 Oops\r\nContent-Type: application/json".to_owned(),
                json!({ "error": { "message": "out of\r\nmemory" } }).to_string().into_bytes(),
            ),
            "huge" => Says::NoEnd,
            "large" => Says::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec()),
            "elsewhere" => Says::redirect("http://169.254.169.254/latest/meta-data/"),
            "cut" => Says::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
            other => panic!("{other}"),
        }
    });
    let settings = format!(
        "[ai]\nurl = \"{}\"\nmodel = \"small\"\napi_key = {{ env = \"AI_KEY\" }}\ntimeout = \"300 ms\"",
        web.url("/v1")
    );
    let server = Setup::new().toml(&settings).environment("AI_KEY", "sk-secret-key").rules(TRIAGE).start();
    for (subject, tag, why) in [
        ("bug", "urgent", ""),
        ("hangs", "unsorted", "no answer in 300ms"),
        ("garbage", "unsorted", "invalid HTTP version"),
        ("html", "unsorted", "the answer is no JSON"),
        ("error", "unsorted", "the endpoint answered 500: out of  memory"),
        ("huge", "unsorted", "the answer has more than 262144 octets"),
        ("large", "unsorted", "the answer has more than 262144 octets"),
        ("elsewhere", "unsorted", "the endpoint answered 302"),
        ("cut", "unsorted", "the answer broke off"),
    ] {
        server.send("ann@example.org", TO, &mail(subject, "x")).expect(250);
        let newest = server.newest();
        let events = newest["trace"].as_array().unwrap();
        let decided = events.iter().find(|event| event["event"] == "decided").unwrap();
        assert_eq!(decided["tags"], json!([tag]), "{subject}: {newest}");
        let told = events.iter().find(|event| event["event"] == "script_log");
        let told = told.map_or("", |event| event["text"].as_str().unwrap());
        assert!(told.contains(why) && why.is_empty() == told.is_empty(), "{subject}: {told}");
        assert_eq!(asked(&server)[0]["what"], "ai small");
    }
    let first = web.requests().remove(0);
    assert_eq!((first.path.as_str(), first.header("authorization")), ("/v1/chat/completions", "Bearer sk-secret-key"));
    assert_eq!(first.json(), json!({ "messages": [{ "role": "user", "content": "bug" }], "model": "small" }));
    assert!(!server.log.all().join("\n").contains("sk-secret-key"));
}

/// Endpoints quote the key they refuse, and anything else they were sent.
#[test]
fn the_key_of_a_language_model_is_shown_nowhere() {
    let quotes = |request: &crate::harness::http::Request| format!("wrong: {}", request.header("authorization"));
    let web = Web::start(move |request| {
        let pad = "x".repeat(200 - 25);
        let told = quotes(request);
        match request.json()["messages"][0]["content"].as_str().unwrap() {
            "words" => Says::Answer("401 No".to_owned(), format!("{pad}{told}").into_bytes()),
            "json" => Says::Answer("401 No".to_owned(), json!({ "error": format!("{pad}{told}") }).to_string().into()),
            _ => Says::chat(&told),
        }
    });
    let settings = format!("[ai]\nurl = \"{}\"\napi_key = {{ env = \"AI_KEY\" }}", web.url("/v1"));
    let rules = r#"
fn email(message, env, ctx) {
    let text = ctx.ai(#{ messages: [#{ role: "user", content: message.subject }] }).text;
    print(text);
    message.drop();
}
"#;
    let server = Setup::new().toml(&settings).environment("AI_KEY", "sk-secret-key-of-ours").rules(rules).start();
    for (subject, code) in [("words", 451), ("json", 451), ("chat", 250)] {
        let mark = server.log.mark();
        server.send("ann@example.org", TO, &mail(subject, "x")).expect(code);
        let shown = "[secret ai.";
        server.log.find(shown, mark, |line| line.contains(shown).then_some(()));
    }
    let log = server.log.all().join("\n");
    assert!(!log.contains("sk-s"), "{log}");
}

/// What a worker is told of a URL that it may not fetch, or gets from one that it may.
fn fetched(server: &Server, url: &str) -> String {
    server.send("ann@example.org", TO, &mail("fetch", url)).expect(250);
    let newest = server.newest();
    let events = newest["trace"].as_array().unwrap();
    let told = events.iter().find(|event| event["event"] == "script_log").unwrap();
    told["text"].as_str().unwrap().to_owned()
}

const FETCHES: &str = r#"
fn email(message, env, ctx) {
    let url = message.text;
    url.trim();
    try { print(ctx.fetch(url, #{ headers: #{ "X-Key": "k", Authorization: "a", Accept: "text/x" } }).body); } catch (why) { print(why); }
    message.drop();
}
"#;

#[test]
fn private_addresses_are_not_reached_by_name_by_number_or_by_redirect() {
    let outer = Web::start(|request| {
        let to = request.path.strip_prefix("/to/").unwrap_or_default();
        if to.is_empty() { Says::ok("public") } else { Says::redirect(&format!("http://{to}")) }
    });
    let server = Setup::new().toml("[egress]\nallow = [\"127.0.0.1\"]").rules(FETCHES).start();
    let port = outer.address.port();
    server.dns.a("both.example", Ipv4Addr::new(10, 9, 8, 7)).a("both.example", Ipv4Addr::LOCALHOST);
    server.dns.a("inner.example", Ipv4Addr::new(169, 254, 169, 254)).a("far.example", Ipv4Addr::new(127, 0, 0, 2));
    server.dns.cname("alias.example", "inner.example");
    let base = format!("http://127.0.0.1:{port}");
    for (url, words) in [
        (format!("{base}/"), "public"),
        (format!("http://both.example:{port}/"), "public"),
        (
            "http://169.254.169.254/latest/".to_owned(),
            "169.254.169.254 is at 169.254.169.254, which is no public address",
        ),
        ("http://10.0.0.1/".to_owned(), "no public address"),
        ("http://2852039166/".to_owned(), "169.254.169.254, which is no public address"),
        ("http://0x7f.2/".to_owned(), "127.0.0.2, which is no public address"),
        ("http://[::1]/".to_owned(), "no public address"),
        ("http://[::ffff:169.254.169.254]/".to_owned(), "no public address"),
        ("http://[64:ff9b::a9fe:a9fe]/".to_owned(), "no public address"),
        ("http://localhost/".to_owned(), "localhost"),
        (format!("http://far.example:{port}/"), "far.example is at 127.0.0.2, which is no public address"),
        ("http://alias.example/".to_owned(), "alias.example is at 169.254.169.254"),
        (format!("{base}/to/169.254.169.254/latest/"), "169.254.169.254, which is no public address"),
        (format!("{base}/to/inner.example/"), "inner.example is at 169.254.169.254"),
        (format!("{base}/to/both.example:{port}/to/alias.example/"), "alias.example is at 169.254.169.254"),
        (format!("{base}/to/[::1]:{port}/"), "no public address"),
        ("http://nowhere.example/".to_owned(), "fetch: nowhere.example: no such host"),
    ] {
        let told = fetched(&server, &url);
        assert!(told.contains(words), "{url}: {told}");
    }
}

/// What was checked is what is connected to: a name that answers otherwise the next time gains nothing.
#[test]
fn a_name_that_changes_its_address_is_not_followed() {
    let web = Web::start(|_| Says::ok("ours"));
    let server = Setup::new().toml("[egress]\nallow = [\"127.0.0.1\"]").rules(FETCHES).start();
    server.dns.a("turns.example", Ipv4Addr::LOCALHOST);
    let url = format!("http://turns.example:{}/", web.address.port());
    assert_eq!(fetched(&server, &url), "ours");
    server.dns.replace_a("turns.example", Ipv4Addr::new(169, 254, 169, 254));
    let told = server.wait_until("its old address is forgotten", || {
        let told = fetched(&server, &url);
        (told != "ours").then_some(told)
    });
    assert!(told.contains("turns.example is at 169.254.169.254"), "{told}");
}

#[test]
fn the_configuration_says_what_may_be_fetched() {
    let web = Web::start(|request| match request.path.as_str() {
        "/v1/away" => Says::redirect("/v2/x"),
        path => Says::ok(path),
    });
    let port = web.address.port();
    let settings = format!("[fetch]\nallow = [\"http://127.0.0.1:{port}/v1/\", \"*.friends.example\"]");
    let server = Setup::new().toml(&settings).rules(FETCHES).start();
    server.dns.a("a.friends.example", Ipv4Addr::LOCALHOST).a("friends.example", Ipv4Addr::LOCALHOST);
    for (url, words) in [
        (format!("http://127.0.0.1:{port}/v1/x"), "/v1/x"),
        (format!("http://a.friends.example:{port}/any"), "/any"),
        (format!("http://127.0.0.1:{port}/v2/x"), "127.0.0.1:"),
        (format!("http://127.0.0.1:{port}/v1/../v2/x"), "isn't in [fetch] allow"),
        (format!("http://127.0.0.1:{port}/v1/away"), "isn't in [fetch] allow"),
        (format!("http://friends.example:{port}/"), "friends.example"),
        (format!("http://127.0.0.1:{port}@a.enemies.example/v1/"), "a.enemies.example isn't in [fetch] allow"),
    ] {
        let told = fetched(&server, &url);
        assert!(told.contains(words), "{url}: {told}");
        assert!(words.starts_with('/') || told.contains("isn't in [fetch] allow"), "{url}: {told}");
    }
}

#[test]
fn redirects_are_followed_so_far_and_take_no_key_along() {
    let other = Web::start(|_| Says::ok("other"));
    let target = other.url("/there");
    let web = Web::start(move |request| match request.path.as_str() {
        "/there" => Says::redirect(&target),
        "/near" => Says::redirect("/home"),
        "/round" => Says::redirect("/round"),
        "/file" => Says::redirect("file:///etc/passwd"),
        "/nothing" => Says::status("302 Found"),
        _ => Says::ok("home"),
    });
    let server = Setup::new().rules(FETCHES).start();
    assert_eq!(fetched(&server, &web.url("/near")), "home");
    let near = web.requests().remove(1);
    assert_eq!((near.header("x-key"), near.header("authorization")), ("k", "a"), "the same host");
    assert_eq!(fetched(&server, &web.url("/there")), "other");
    let there = other.requests().remove(0);
    let of = |name: &str| there.header(name).to_owned();
    assert_eq!((of("x-key"), of("authorization"), of("accept")), (String::new(), String::new(), "text/x".to_owned()));
    assert!(fetched(&server, &web.url("/round")).contains("more than 5 redirects"));
    assert!(fetched(&server, &web.url("/file")).contains("no http(s) URL"));
    assert_eq!(fetched(&server, &web.url("/nothing")), "");
}

/// WORKER: what it fetched is kept for the second run.
#[test]
fn a_run_that_is_repeated_asks_nobody_again() {
    let (arrived, arrival) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let (arrived, wait) = (Mutex::new(arrived), Mutex::new(wait));
    let web = Web::start(move |_| {
        let _ = arrived.lock().unwrap().send(());
        let _ = wait.lock().unwrap().recv();
        Says::ok("once")
    });
    let rules = format!(
        r#"
fn email(message, env, ctx) {{
    let seen = env.STATE.get("seen") ?? "nothing";
    let body = ctx.fetch("{}", #{{ timeout: 4 }}).body;
    print(`${{body}} ${{seen}}`);
    env.STATE.put("seen", message.id);
    message.drop();
}}
"#,
        web.url("/")
    );
    let server = Setup::new().toml("[[kv_namespaces]]\nbinding = \"STATE\"").rules(&rules).start();
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| server.send("ann@example.org", TO, &mail("one", "x")));
        arrival.recv().unwrap();
        server.stdout(&["kv", "put", "STATE", "seen", "meanwhile"]);
        go.send(()).unwrap();
        sent.join().unwrap().expect(250);
    });
    assert_eq!(web.requests().len(), 1);
    let newest = server.newest();
    let events = newest["trace"].as_array().unwrap();
    let decided = events.iter().find(|event| event["event"] == "decided").unwrap();
    assert_eq!(decided["runs"], 2, "{newest}");
    assert_eq!(events.iter().find(|event| event["event"] == "script_log").unwrap()["text"], "once meanwhile");
    assert_eq!(asked(&server)[0]["kept"], true);
}

#[test]
fn recipients_of_one_message_share_what_was_asked() {
    let web = Web::start(|_| Says::ok("x"));
    let rules = format!(
        "fn email(message, env, ctx) {{ ctx.fetch(\"{0}\"); ctx.fetch(\"{0}\"); message.drop(); }}",
        web.url("/")
    );
    let server = Setup::new().rules(&rules).start();
    let all = ["a@example.com", "b@example.com", "c@example.com"];
    server.send("ann@example.org", &all, &mail("one", "x")).expect(250);
    assert_eq!(web.requests().len(), 2, "twice in a run is asked twice");
    assert_eq!(asked(&server).iter().filter(|told| told["kept"] == true).count(), 4);
}

/// A refusal of our own, or a run whose time was at its end, says nothing of whoever was asked: the next run asks itself.
#[test]
fn what_we_stood_in_the_way_of_is_asked_again() {
    let web = Web::start(|request| if request.path == "/broken" { Says::Raw(b"x".to_vec()) } else { Says::Nothing });
    let rules = format!(
        r#"
fn email(message, env, ctx) {{
    for url in ["http://169.254.169.254/", "{}", "{}"] {{
        try {{ ctx.fetch(url, #{{ timeout: 60 }}); }} catch (why) {{ print(why); }}
    }}
    message.drop();
}}
"#,
        web.url("/broken"),
        web.url("/slow")
    );
    let server =
        Setup::new().toml("[egress]\nallow = [\"127.0.0.1\"]\n[budget]\nwall_clock = \"1 s\"").rules(&rules).start();
    server.send("ann@example.org", &["a@example.com", "b@example.com"], &mail("one", "x"));
    let paths: Vec<String> = web.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/broken", "/slow", "/slow"]);
    let told = |what: &str| -> Vec<bool> {
        let all = asked(&server);
        all.iter().filter(|told| told["what"] == what).map(|told| told["kept"].as_bool().unwrap()).collect()
    };
    assert_eq!(told("GET http://169.254.169.254"), [false, false]);
    let ours = format!("GET http://{}/…", web.address);
    assert_eq!(told(&ours), [false, false, true, false]);
}

/// What a request carries is for the host that it was written for; by 307 and 308 it would go on unasked.
#[test]
fn a_body_is_handed_on_to_no_other_host() {
    let other = Web::start(|_| Says::ok("other"));
    let target = other.url("/there");
    let web = Web::start(move |request| match request.path.as_str() {
        "/307" => Says::status(&format!("307 Temporary Redirect\r\nLocation: {target}")),
        "/308" => Says::status(&format!("308 Permanent Redirect\r\nLocation: {target}")),
        "/303" => Says::status(&format!("303 See Other\r\nLocation: {target}")),
        "/near" => Says::status("308 Permanent Redirect\r\nLocation: /home"),
        _ => Says::ok(&format!("{} {}", request.method, String::from_utf8_lossy(&request.body))),
    });
    let rules = r"
fn email(message, env, ctx) {
    let asked = json_parse(message.text);
    try { print(ctx.fetch(asked.url, asked.options).body); } catch (why) { print(why); }
    message.drop();
}
";
    let server = Setup::new().rules(rules).start();
    let posted =
        |path: &str| fetched(&server, &json!({ "url": web.url(path), "options": { "body": "ours" } }).to_string());
    let bare = |path: &str| fetched(&server, &json!({ "url": web.url(path), "options": {} }).to_string());
    assert_eq!(posted("/near"), "POST ours");
    for path in ["/307", "/308"] {
        let told = posted(path);
        let says = format!("leads to {} ({}), and what a request carries", other.address, &path[1..]);
        assert!(told.contains(&says), "{told}");
    }
    assert!(other.requests().is_empty());
    assert_eq!((posted("/303"), bare("/307")), ("other".to_owned(), "other".to_owned()));
    assert!(other.requests().iter().all(|request| request.method == "GET" && request.body.is_empty()));
}

/// Who waits outside holds no turn that others need.
#[test]
fn others_are_decided_while_a_run_waits() {
    let gate = Arc::new(Watched::new(false));
    let opened = Arc::clone(&gate);
    let web = Web::start(move |_| {
        opened.wait(|open| open.then_some(()));
        Says::ok("late")
    });
    let rules = format!(
        r#"
fn email(message, env, ctx) {{
    if message.subject == "waits" {{ ctx.fetch("{}", #{{ timeout: 4 }}); }}
    message.drop();
}}
"#,
        web.url("/")
    );
    let server = Setup::new().toml("[limits]\nruns = 1").rules(&rules).start();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| server.send("ann@example.org", TO, &mail("waits", "x")));
        web.wait(1);
        // Several recipients take a turn, and there is but one.
        server.send("bob@example.org", &["a@example.com", "b@example.com"], &mail("passes", "x")).expect(250);
        assert!(server.metric("mailworker_worker_requests_open", &[]) >= 1.0);
        gate.change(|open| *open = true);
        waits.join().unwrap().expect(250);
    });
}

#[test]
fn explain_asks_and_a_test_of_rules_does_not() {
    let web = Web::start(|_| Says::chat("urgent"));
    let settings = format!("[ai]\nurl = \"{}\"\napi_key = {{ env = \"AI_KEY\" }}", web.url("/v1"));
    let server = Setup::new().toml(&settings).environment("AI_KEY", "sk-secret").rules(TRIAGE).start();
    let told = server.stdout(&["explain", "support@example.com"]);
    assert!(told.contains("ai: 200, ") && told.contains("rules/main.rhai:5"), "{told}");
    assert_eq!(web.requests().len(), 1);
    server.write(
        "rules/tests/ai.toml",
        r#"
[[test]]
name = "sorted"
raw = "Subject: bug\n\nx"
to = "support@example.com"
expect.tag = "urgent"
[[test.ai]]
contains = "other"
text = "nothing"
[[test.ai]]
contains = "bug"
text = "urgent"

[[test]]
name = "away"
raw = "Subject: bug\n\nx"
to = "support@example.com"
ai = [{ error = "no answer in 4s" }]
expect.tag = "unsorted"
expect.log = "no answer: ai: no answer in 4s"
"#,
    );
    let passed = server.stdout(&["test"]);
    assert!(passed.contains("2 passed"), "{passed}");
    assert_eq!(web.requests().len(), 1);
}
