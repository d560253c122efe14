//! Next hops in trouble: what waits for them keeps its schedule and its end, and nobody else waits for them.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::harness::{HttpSink, Server, Setup, SmtpSink, mail};

fn send(server: &Server, subject: &str) {
    server.send("ann@example.org", &["support@example.com"], &mail(subject, "x")).expect(250);
}

fn attempts(message: &Value) -> Vec<&Value> {
    message["trace"].as_array().unwrap().iter().filter(|event| event["event"] == "attempted").collect()
}

fn was_paused(server: &Server) -> bool {
    server.log.all().iter().any(|line| line.contains("destination_paused"))
}

/// RFC 5321 §4.5.4.1: a site that is down is down for all that waits for it, and each message's time goes on.
#[test]
fn what_waits_for_a_dead_next_hop_comes_to_its_end_together() {
    let gone = SmtpSink::start();
    let server = Setup::relaying_to(&gone).toml("[relay]\nretry = [\"200 ms\"]\nexpire = \"2 s\"").start();
    drop(gone);
    let mut client = server.client();
    for n in 0..30 {
        let message = mail(&format!("gone-{n}"), "x");
        client.send("ann@example.org", &["support@example.com"], &message).expect(250);
    }
    let dead = server.wait_until("all are given up", || {
        let queue = server.queue();
        let dead: Vec<Value> = queue.into_iter().filter(|entry| entry["dead"] == true).collect();
        (dead.len() == 30).then_some(dead)
    });
    for entry in dead {
        assert!(entry["attempts"].as_u64().unwrap() >= 2, "{entry}");
        assert!(entry["last_error"].as_str().unwrap().contains("connect to"), "{entry}");
    }
}

#[test]
fn what_waits_for_a_dead_endpoint_comes_to_its_end_together() {
    let closed = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let webhook = format!("[[webhook]]\nbinding = \"HOOK\"\nurl = \"http://{closed}/hook\"");
    let rules = "fn email(message, env, ctx) { ctx.webhook(\"HOOK\", #{}); }";
    let server = Setup::new().toml(&webhook).rules(rules).start();
    for n in 0..10 {
        send(&server, &format!("gone-{n}"));
    }
    server.wait_until("all are given up", || {
        let queue = server.queue();
        (queue.iter().filter(|entry| entry["dead"] == true && entry["attempts"] == 3).count() == 10).then_some(())
    });
}

fn destination(name: &str, sink: &SmtpSink) -> String {
    format!("{{ name = \"{name}\", smarthost = \"{}\" }}", sink.url())
}

/// It waits for its disk or takes out its garbage: what had no room in memory goes on when it does, and not minutes later.
#[test]
fn a_next_hop_that_halts_for_seconds_has_all_soon_after() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) {
        let count = if message.subject == \"before\" { 1 } else { 90 };
        for n in 0..count { message.forward(`team-${n}@example.net`); }
    }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    send(&server, "before");
    sink.wait_one();
    sink.hold();
    for n in 0..20 {
        send(&server, &format!("meanwhile-{n}"));
    }
    server.wait_until("some are put off again", || {
        let put_off = |entry: &Value| entry["due"].as_i64().unwrap() - entry["queued_at"].as_i64().unwrap() > 4_000;
        server.json(&["queue", "list", "-n", "0"]).iter().any(put_off).then_some(())
    });
    sink.release();
    sink.wait(21);
    server.settled();
}

/// However many lanes of slow hosts wait, another's first has a place.
#[test]
fn hosts_that_do_not_answer_leave_a_place_for_others() {
    let (slow, slower, healthy) = (SmtpSink::start(), SmtpSink::start(), SmtpSink::start());
    let named = [destination("slow", &slow), destination("slower", &slower), destination("healthy", &healthy)];
    let settings = format!("destination = [{}]\n[limits]\ndeliveries = 6", named.join(", "));
    let rules = "fn email(message, env, ctx) { message.forward(message.subject.split(\"-\")[0]); }";
    let server = Setup::new().toml(&settings).rules(rules).start();
    slow.hold();
    slower.hold();
    for n in 0..10 {
        send(&server, &format!("slow-{n}"));
        send(&server, &format!("slower-{n}"));
    }
    slow.wait_command(".");
    slower.wait_command(".");
    send(&server, "healthy-0");
    healthy.wait_one();
    slow.release();
    slower.release();
    slow.wait(10);
    slower.wait(10);
}

/// What waits goes by the configuration in force, each to its own next hop, whatever it was placed with.
#[test]
fn a_smarthost_that_is_taken_away_leaves_each_recipient_its_own_way() {
    let smarthost = SmtpSink::start();
    let a = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 2), 0).into());
    let b = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 3), a.address.port()).into());
    let port = a.address.port();
    let rules = "fn email(message, env, ctx) { message.forward([\"u@a.test\", \"u@b.test\"]); }";
    let setup = Setup::new().toml(&format!("[relay]\nconcurrency = 1\nport = {port}")).rules(rules);
    setup.dns.a("a.test", Ipv4Addr::new(127, 0, 0, 2)).a("b.test", Ipv4Addr::new(127, 0, 0, 3));
    let without = std::fs::read_to_string(setup.write()).unwrap();
    let server = setup.toml(&format!("[relay]\nsmarthost = \"{}\"", smarthost.url())).start();
    smarthost.hold();
    send(&server, "first");
    smarthost.wait_command(".");
    send(&server, "second");
    server.takes_up("mailworker.toml", &without);
    smarthost.release();
    assert_eq!(a.wait_one().recipients(), ["u@a.test"]);
    assert_eq!(b.wait_one().recipients(), ["u@b.test"]);
    assert_eq!(smarthost.wait_one().recipients().len(), 2);
    server.settled();
}

/// RFC 5321 §3.8: many servers count the messages of a connection, and say 421 when there were enough.
#[test]
fn a_421_on_a_connection_that_served_before_is_asked_once_more_on_another() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).toml("[relay]\nconcurrency = 1").start();
    send(&server, "taken");
    sink.wait_one();
    server.settled();
    sink.script("MAIL", ["421 4.7.0 enough of this connection"]);
    send(&server, "on another");
    sink.wait(2);
    assert_eq!(attempts(&server.newest_settled()).len(), 1);
    assert!(!was_paused(&server));

    let mark = server.log.mark();
    sink.script("MAIL", ["421 4.7.0 slow down", "421 4.7.0 slow down"]);
    send(&server, "put off");
    let paused = server.wait_event(mark, "destination_paused", |_| true);
    assert!(paused["reason"].as_str().unwrap().contains("421 4.7.0 slow down"), "{paused}");
    sink.wait(3);
    assert_eq!(attempts(&server.newest_settled()).len(), 2, "no third connection within one attempt");
}

#[test]
fn a_host_that_is_too_busy_at_mail_is_left_alone_and_greylisting_is_no_reason() {
    let sink = SmtpSink::start();
    sink.script("RCPT", ["451 4.7.1 greylisted"]);
    let server = Setup::relaying_to(&sink).start();
    send(&server, "greylisted");
    sink.wait_one();
    server.settled();
    assert!(!was_paused(&server));
    let mark = server.log.mark();
    sink.script("MAIL", ["451 4.7.500 server busy"]);
    send(&server, "busy");
    server.wait_event(mark, "destination_paused", |_| true);
    sink.wait(2);
}

#[test]
fn a_message_over_which_connections_break_holds_up_no_other() {
    let sink = SmtpSink::start();
    // No reply at all: nothing more can be made of the connection.
    sink.always("RCPT TO:<bad@", "what?");
    let rules = "fn email(message, env, ctx) { message.forward(message.subject + \"@example.net\"); }";
    let mut server = Setup::relaying_to(&sink).rules(rules).toml("[relay]\nretry = [\"1 h\"]").start();
    let mark = server.log.mark();
    send(&server, "bad");
    server.wait_event(mark, "attempted", |event| event["outcome"] == "later");
    for n in 0..3 {
        send(&server, &format!("good{n}"));
    }
    sink.wait(3);
    assert!(!was_paused(&server));
    server.leaves_queue();
}

#[test]
fn several_such_messages_in_a_row_are_the_destinations_trouble() {
    let sink = SmtpSink::start();
    sink.always("RCPT", "what?");
    let server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    for n in 0..3 {
        send(&server, &format!("broken-{n}"));
    }
    server.wait_event(mark, "destination_paused", |_| true);
    sink.as_usual();
    sink.wait(3);
}

/// RFC 5321 §4.5.3.1.10: those beyond the server's limit go in further transactions, at once.
#[test]
fn recipients_beyond_a_servers_limit_follow_at_once() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) { let count = if message.subject == \"first\" { 1 } else { 12 }; \
                 for n in 0..count { message.forward(`r${n}@example.net`); } }";
    let settings = "[relay]\nretry = [\"1 h\"]\nconcurrency = 1";
    let server = Setup::relaying_to(&sink).rules(rules).toml(settings).start();
    // While the first is under way all of the second's come to wait.
    sink.hold();
    send(&server, "first");
    sink.wait_command(".");
    send(&server, "second");
    server.wait_until("all wait", || (server.queue().len() == 13).then_some(()));
    let (ok, beyond) = ("250 2.1.5 ok", "452 4.5.3 too many recipients");
    sink.script("RCPT", [ok, ok, ok, ok, ok, beyond, beyond, beyond, beyond, beyond, beyond, beyond])
        .script("RCPT", [ok, ok, ok, ok, ok, "452 too many", "452 too many"]);
    sink.release();
    let newest = server.newest_settled();
    assert_eq!(sink.mails().iter().map(|mail| mail.to.len()).collect::<Vec<_>>(), [1, 5, 5, 2]);
    assert!(attempts(&newest).iter().all(|attempt| attempt["outcome"] == "delivered"), "{newest:#}");
}

/// `Retry-After` holds for the webhook that was answered so, not for what else its host serves.
#[test]
fn a_webhook_that_is_throttled_holds_up_no_other_of_its_host() {
    let hook = HttpSink::start();
    hook.script(["429 Too Many Requests\r\nRetry-After: 40000"]);
    let webhooks = ["SLOW", "FAST"].map(|name| {
        let url = hook.url(&format!("/{name}"));
        format!("[[webhook]]\nbinding = \"{name}\"\nurl = \"{url}\"")
    });
    let rules = "fn email(message, env, ctx) { ctx.webhook(message.subject, #{}); }";
    let mut server = Setup::new().toml(&webhooks.join("\n")).rules(rules).start();
    let mark = server.log.mark();
    send(&server, "SLOW");
    server.wait_event(mark, "destination_paused", |_| true);
    send(&server, "FAST");
    assert_eq!(hook.wait(2)[1].path, "/FAST");
    server.leaves_queue();
}

/// What an endpoint asks for is what it gets: no rest of ours on top, and no message waits for its own schedule behind it.
#[test]
fn a_webhook_rests_for_as_long_as_it_asks() {
    let hook = HttpSink::start();
    hook.script(["429 Too Many Requests\r\nRetry-After: 2"]);
    let webhook = format!("[[webhook]]\nbinding = \"HOOK\"\nurl = \"{}\"", hook.url("/"));
    let rules = "fn email(message, env, ctx) { ctx.webhook(\"HOOK\", #{}); }";
    let server = Setup::new().toml(&webhook).rules(rules).start();
    let mark = server.log.mark();
    send(&server, "first");
    let paused = server.wait_event(mark, "destination_paused", |_| true);
    let rest = paused["until"].as_i64().unwrap() - paused["at"].as_i64().unwrap();
    assert!((1_000..=2_500).contains(&rest), "{paused}");
    send(&server, "second");
    hook.wait(3);
    server.settled();
}

#[test]
fn a_scripts_url_that_is_throttled_holds_up_no_other_of_its_host_for_long() {
    let hook = HttpSink::start();
    hook.script(["429 Too Many Requests\r\nRetry-After: 40000"]);
    let url = hook.url("/");
    let rules = format!("fn email(message, env, ctx) {{ ctx.webhook(\"{url}\" + message.subject, #{{}}); }}");
    let mut server = Setup::new().rules(&rules).start();
    let mark = server.log.mark();
    send(&server, "slow");
    server.wait_event(mark, "destination_paused", |_| true);
    send(&server, "fast");
    assert_eq!(hook.wait(2)[1].path, "/fast");
    server.leaves_queue();
}

/// A message that is gone from the store takes no notice, and its delivery's end is stored nevertheless.
#[test]
fn a_delivery_without_its_message_is_settled() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    sink.always(".", "550 5.7.1 no");
    sink.hold();
    send(&server, "vanishes");
    sink.wait_command(".");
    let store = rusqlite::Connection::open(server.path().join("data/mailworker.db")).unwrap();
    store.busy_timeout(crate::harness::DEADLINE).unwrap();
    assert_eq!(store.execute("DELETE FROM messages", []).unwrap(), 1);
    sink.release();
    server.wait_until("it is dead", || {
        let queue = server.queue();
        queue.iter().any(|entry| entry["dead"] == true).then_some(())
    });
}
