//! Scripts and servers that mean no good: what is asked outside ends within the budget, and others don't notice.

use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use crate::harness::http::read_request;
use crate::harness::{Says, Server, Setup, Web, mail};

const TO: &[&str] = &["support@example.com"];

fn failure(server: &Server) -> String {
    let failed = server.wait_event(0, "script_failed", |_| true);
    failed["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_script_that_asks_without_end_is_ended() {
    let web = Web::start(|_| Says::ok("x"));
    let rules = format!(
        "fn email(message, env, ctx) {{\n    loop {{ try {{ ctx.fetch(`{}/${{random_id()}}`); }} catch {{ }} }}\n}}",
        web.url("")
    );
    let server = Setup::new().rules(&rules).start();
    server.send("ann@example.org", TO, &mail("one", "x")).expect_status(451, "4.3.0");
    assert_eq!(web.requests().len(), 20);
    let error = failure(&server);
    assert!(
        error.contains("rules/main.rhai:2:") && error.contains("more than 20 requests outside in one run"),
        "{error}"
    );
}

/// The run's own time ends it, whatever its time-outs say, and a last word is still had.
#[test]
fn a_script_that_waits_without_end_is_ended() {
    let web = Web::start(|_| Says::Nothing);
    let rules = format!(
        r#"
fn email(message, env, ctx) {{
    for n in 0..9 {{ try {{ ctx.fetch("{}", #{{ timeout: 60 }}); }} catch (why) {{ print(why); }} }}
    message.drop();
}}
"#,
        web.url("/")
    );
    let server = Setup::new().toml("[budget]\nwall_clock = \"700 ms\"").rules(&rules).start();
    let began = Instant::now();
    server.send("ann@example.org", TO, &mail("one", "x")).expect_status(451, "4.3.0");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let error = failure(&server);
    assert!(error.contains("no time is left for GET") || error.contains("more than 700ms of time"), "{error}");
    let said = server.wait_event(0, "script_log", |_| true);
    assert!(said["text"].as_str().unwrap().contains("no answer in 600ms"), "{said}");
}

/// An answer that comes octet by octet, and one whose header section has no end.
#[test]
fn answers_that_never_end_are_cut() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let request = read_request(&mut reader)?;
                let (head, more) = match request.path.as_str() {
                    "/drips" => ("HTTP/1.1 200 OK\r\n\r\n", "x"),
                    _ => ("HTTP/1.1 200 OK\r\n", "X-More: and more\r\n"),
                };
                stream.write_all(head.as_bytes()).ok()?;
                while stream.write_all(more.as_bytes()).is_ok() {
                    if request.path == "/drips" {
                        std::thread::park_timeout(Duration::from_millis(20));
                    }
                }
                Some(())
            });
        }
    });
    let rules = format!(
        r"
fn email(message, env, ctx) {{
    try {{ ctx.fetch(`http://{address}/${{message.subject}}`, #{{ timeout: 0.5 }}); }} catch (why) {{ print(why); }}
    message.drop();
}}
"
    );
    let server = Setup::new().rules(&rules).start();
    for (subject, words) in [("drips", "no answer in 500ms"), ("heads", &*format!("{address}: "))] {
        let mark = server.log.mark();
        server.send("ann@example.org", TO, &mail(subject, "x")).expect(250);
        let said = server.wait_event(mark, "script_log", |_| true);
        assert!(said["text"].as_str().unwrap().contains(words), "{said}");
    }
}

/// More runs wait outside than there are places, turns and processors; mail that asks nobody goes through beside them.
#[test]
fn others_do_not_notice_a_worker_that_hangs() {
    let web = Web::start(|_| Says::Nothing);
    let rules = format!(
        r#"
fn email(message, env, ctx) {{
    if message.subject == "hangs" {{ try {{ ctx.fetch("{}", #{{ timeout: 3 }}); }} catch (why) {{ print(why); }} }}
    message.drop();
}}
"#,
        web.url("/")
    );
    let settings = "[fetch]\nconcurrency = 4\n[limits]\nruns = 2\nconnections_per_ip = 100";
    let server = Setup::new().toml(settings).rules(&rules).start();
    std::thread::scope(|scope| {
        let server = &server;
        let hang = |n: usize| scope.spawn(move || server.send("ann@example.org", TO, &mail("hangs", &format!("x{n}"))));
        let hanging: Vec<_> = (0..24).map(hang).collect();
        // A network has half of the places.
        web.wait(2);
        let mut took: Vec<Duration> = (0..50)
            .map(|_| {
                let began = Instant::now();
                server.send("bob@example.org", TO, &mail("quick", "x")).expect(250);
                began.elapsed()
            })
            .collect();
        took.sort();
        assert!(took[48] < Duration::from_secs(1), "{took:?}");
        for one in hanging {
            let code = one.join().unwrap().code;
            assert!(matches!(code, 250 | 451), "{code}");
        }
    });
    server.send("ann@example.org", &["a@example.com", "b@example.com"], &mail("quick", "x")).expect(250);
}
