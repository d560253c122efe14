//! `mailworker import`: an export of each service ─► routes that `check` takes, and what isn't carried over.
//!
//! `UPDATE=1 cargo test --test import` rewrites what is expected, `tests/import/*.expected`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

const EXPORTS: [(&str, &str); 5] = [
    ("cloudflare", "cloudflare.json"),
    ("mailgun", "mailgun.json"),
    ("forwardemail", "forwardemail.json"),
    ("forwardemail", "forwardemail.txt"),
    ("postfix-virtual", "postfix-virtual.txt"),
];

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailworker"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MAILWORKER") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// A folder with the exports and a worker.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (_, file) in EXPORTS {
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(file), dir.path().join(file))
            .unwrap();
    }
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    std::fs::write(dir.path().join("rules/main.rhai"), "fn email(message, env, ctx) { message.drop(); }\n").unwrap();
    dir
}

#[test]
fn each_export_becomes_routes_that_check_takes() {
    for (service, file) in EXPORTS {
        let dir = folder();
        let made = run(dir.path(), &["import", service, file, "--postmaster", "admin@example.net"]);
        assert!(made.status.success(), "{file}: {}", text(&made.stderr));
        let shown = format!("{}\n--- not carried over\n{}", text(&made.stdout), text(&made.stderr));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(format!("{file}.expected"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(&path).unwrap_or_default(), "{file}: UPDATE=1 writes it");
        let config = format!("hostname = \"mx.example.com\"\n{}", text(&made.stdout));
        std::fs::write(dir.path().join("mailworker.toml"), config).unwrap();
        let checked = run(dir.path(), &["check"]);
        assert!(checked.status.success(), "{file}: {}", text(&checked.stderr));
    }
}

#[test]
fn they_are_put_at_the_end_of_a_configuration_that_stays_as_it_is() {
    let dir = folder();
    let before = "# Ours.\nhostname = \"mx.example.com\"\n[[domain]]\nname = \"example.com\"\npostmaster = \"me@example.net\" # me\n";
    std::fs::write(dir.path().join("mailworker.toml"), before).unwrap();
    let written = run(dir.path(), &["import", "cloudflare", "cloudflare.json", "--write"]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let after = std::fs::read_to_string(dir.path().join("mailworker.toml")).unwrap();
    assert!(after.starts_with(before), "{after}");
    assert_eq!(after.matches("[[domain]]").count(), 1, "{after}");
    let told = run(dir.path(), &["explain", "support@example.com"]);
    assert!(text(&told.stdout).contains("route 2 (support@example.com)"), "{}", text(&told.stdout));
    let again = run(dir.path(), &["import", "forwardemail", "forwardemail.txt", "--write"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(std::fs::read_to_string(dir.path().join("mailworker.toml")).unwrap().starts_with(&after));
}

#[test]
fn what_is_no_export_is_told_and_nothing_written() {
    let dir = folder();
    for (content, said) in [
        ("{\"result\": 7}", "`result` is no list"),
        ("{\n  \"result\": [,]}", "this is no JSON"),
        ("{\"rules\": []}", "there is no `result` in it"),
        ("[]", "nothing in it can be carried over"),
    ] {
        std::fs::write(dir.path().join("bad.json"), content).unwrap();
        let refused = run(dir.path(), &["import", "cloudflare", "bad.json"]);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{content}");
        assert!(text(&refused.stderr).contains(said), "{content}: {}", text(&refused.stderr));
    }
    let missing = run(dir.path(), &["import", "mailgun", "nowhere.json"]);
    assert!(text(&missing.stderr).contains("nowhere.json can't be read"), "{}", text(&missing.stderr));
    // A name with a control character or a line's end can't leave its comment.
    let hostile = "[{\"name\": \"x\\n[[domain]]\\n\\u0007\", \"matchers\": [{\"type\": \"literal\", \"field\": \"to\", \"value\": \
                   \"a@example.com\"}], \"actions\": [{\"type\": \"forward\", \"value\": [\"b@example.net\"]}]}]";
    std::fs::write(dir.path().join("bad.json"), hostile).unwrap();
    let made = text(&run(dir.path(), &["import", "cloudflare", "bad.json"]).stdout);
    assert!(made.contains("# line 1: x[[domain]]\n[[route]]"), "{made}");
}

/// Whatever stands in an export, `check` takes what is made of it; the rest is told.
#[test]
fn what_no_configuration_takes_is_left_and_told() {
    let literal = |address: &str| {
        format!(
            "{{\"matchers\": [{{\"type\": \"literal\", \"field\": \"to\", \"value\": \"{address}\"}}], \
             \"actions\": [{{\"type\": \"forward\", \"value\": [\"b@example.net\"]}}]}}"
        )
    };
    let rules = format!("[{}, {}]", literal("a@exa/mple.com"), literal("b@example.com"));
    let aliases = "[{\"name\": \"a\", \"domain\": \"exa mple\", \"recipients\": [\"x@example.net\"]}, \
                   {\"name\": \"b\", \"domain\": \"example.com\", \"recipients\": [\"x@example.net\"]}]";
    let table = "exa\"mple.com anything\nb@example.com x@example.net\n@[192.0.2.1] x@example.net\n";
    let no_domain = "is no domain";
    for (service, export, why) in [
        ("cloudflare", rules.as_str(), "\"a@exa/mple.com\" is no address"),
        ("forwardemail", aliases, no_domain),
        ("postfix-virtual", table, no_domain),
    ] {
        let (routes, said) = imported(service, export, &[]);
        assert_eq!(routes.matches("[[route]]").count(), 1, "{service}: {routes}");
        assert!(routes.contains("name = \"example.com\"") && routes.contains("match = \"b@example.com\""), "{routes}");
        assert!(said.contains(why), "{service}: {said}");
        let dir = folder();
        std::fs::write(dir.path().join("mailworker.toml"), format!("hostname = \"mx.example.com\"\n{routes}")).unwrap();
        let checked = run(dir.path(), &["check"]);
        assert!(checked.status.success(), "{service}: {}", text(&checked.stderr));
    }
}

/// What a service's rules come to: the routes that are printed, and what is said of the rest.
fn imported(service: &str, export: &str, options: &[&str]) -> (String, String) {
    let dir = folder();
    std::fs::write(dir.path().join("export"), export).unwrap();
    let made =
        run(dir.path(), &[&["import", service, "export", "--postmaster", "admin@example.net"], options].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    (text(&made.stdout), text(&made.stderr))
}

#[test]
fn what_was_done_with_mail_and_cannot_be_is_for_the_worker_and_never_drops_it() {
    let actions = "\"forward('\\\\1@example.net')\", \"stop()\"";
    let export = format!(
        "{{\"items\": [{{\"expression\": \"match_recipient('a@example.com')\", \"actions\": [{actions}]}}, \
         {{\"expression\": \"match_recipient('b@example.com')\", \"actions\": [\"stop()\"]}}]}}"
    );
    let (routes, said) = imported("mailgun", &export, &[]);
    assert!(routes.contains("match = \"a@example.com\"\naction = \"worker\"\n"), "{routes}");
    assert!(routes.contains("match = \"b@example.com\"\naction = \"drop\"\n"), "{routes}");
    assert!(said.contains("all that this rule does: the route hands its mail to this domain's worker"), "{said}");
}

#[test]
fn a_catch_all_takes_no_mail_that_was_never_its_own() {
    let (routes, said) = imported("postfix-virtual", "info@ex.com info@ex.com\n@ex.com boss@other.net\n", &[]);
    let (own, all) = (routes.find("match = \"info@ex.com\"\naction = \"worker\""), routes.find("match = \"*@ex.com\""));
    assert!(own.is_some() && own < all, "{routes}");
    assert!(said.contains("stays in its own mailbox") && said.contains("to this domain's worker"), "{said}");
    let records = "ex.com. TXT \"forward-email=info:mail.other.net,boss@other.net\"\n";
    let (routes, _) = imported("forwardemail", records, &[]);
    assert!(routes.contains("match = \"info@ex.com\"\naction = \"worker\""), "{routes}");
}

#[test]
fn one_page_of_several_is_told_to_be_one() {
    let rule = "{\"matchers\": [{\"type\": \"literal\", \"field\": \"to\", \"value\": \"a@ex.com\"}], \
                \"actions\": [{\"type\": \"forward\", \"value\": [\"b@example.net\"]}]}";
    let page =
        |total: u64| format!("{{\"result\": [{rule}], \"result_info\": {{\"count\": 1, \"total_count\": {total}}}}}");
    let (routes, said) = imported("cloudflare", &page(51), &[]);
    assert!(
        routes.contains("a@ex.com") && said.contains("not carried over: 50 of 51 rules: this is one page"),
        "{said}"
    );
    assert_eq!(imported("cloudflare", &page(1), &[]).1, "");
    let routes = "{\"total_count\": 3, \"items\": [{\"expression\": \"match_recipient('a@ex.com')\", \
                  \"actions\": [\"forward('b@example.net')\", \"stop()\"]}]}";
    let (_, said) = imported("mailgun", routes, &[]);
    assert!(said.contains("not carried over: 2 of 3 rules"), "{said}");
}

#[test]
fn a_catch_all_of_mailgun_s_is_for_what_nothing_matched_before() {
    let export = "{\"items\": [
        {\"priority\": 1, \"expression\": \"match_recipient('a@ex.com')\", \"actions\": [\"forward('x@example.net')\"]},
        {\"priority\": 2, \"expression\": \"match_recipient('b@ex.com')\", \"actions\": [\"forward('x@example.net')\", \"stop()\"]},
        {\"priority\": 3, \"expression\": \"catch_all()\", \"actions\": [\"forward('all@example.net')\", \"stop()\"]}]}";
    let (routes, said) = imported("mailgun", export, &[]);
    assert!(
        routes.contains("match = \"*@ex.com\"\nunless = { match = [\"a@ex.com\"] }\naction = \"forward\""),
        "{routes}"
    );
    assert_eq!(said, "");
    let export = export.replace("match_recipient('a@ex.com')", "match_header('subject', 'x')");
    let (_, said) = imported("mailgun", &export, &[]);
    assert!(said.contains("not carried over: catch_all() for what a route further up matched"), "{said}");
}

#[test]
fn what_a_regular_expression_of_forward_email_captured_is_no_address() {
    let records = "forward-email=/^sales-(.*)$/:$1@example.net,info:i@example.net\nforward-email-port=1337\n";
    let (routes, said) = imported("forwardemail", records, &["--domain", "ex.com"]);
    assert!(!routes.contains("$1@") && routes.contains("action = \"worker\""), "{routes}");
    assert!(said.contains("\"$1@example.net\": what the regular expression captured"), "{said}");
    assert!(said.contains("port 1337"), "{said}");
}

#[test]
fn a_name_without_a_domain_is_of_the_machine_s_own() {
    let table = "abuse root\nroot admin@example.net\nann ann@example.org\nann@ex.com ann@example.net\n@other.example x@example.net\n";
    let (routes, said) = imported("postfix-virtual", table, &[]);
    assert!(!routes.contains("abuse") && !routes.contains("root"), "{routes}");
    assert!(said.contains("\"abuse\": a name without a domain") && said.contains("--domain NAME"), "{said}");
    let (routes, said) = imported("postfix-virtual", table, &["--domain", "ex.com"]);
    for name in ["abuse", "root", "ann"] {
        let whole = format!("match = \"{name}@ex.com\"\naction = \"forward\"\nto = [");
        assert_eq!(routes.matches(&whole).count(), 1, "{routes}");
    }
    assert!(routes.contains("\"*@other.example\"") && !routes.contains("example.org"), "{routes}");
    assert!(said.contains("ann@ex.com stands in the table as an address"), "{said}");
}

#[test]
fn a_user_s_name_alone_on_the_right_is_of_the_machine_s_own() {
    let table = "a@ex.com Carol\nb@ex.com ann\nann ann@example.net\nc@ex.com dave, x@example.net\nd@all.example nobody@all.example\n@all.example all@example.net\n";
    let (routes, said) = imported("postfix-virtual", table, &["--domain", "ex.com"]);
    for (name, to) in [
        ("a@ex.com", "\"Carol@ex.com\""),
        ("b@ex.com", "\"ann@example.net\""),
        ("c@ex.com", "\"dave@ex.com\", \"x@example.net\""),
        ("d@all.example", "\"all@example.net\""),
    ] {
        let whole = format!("match = \"{name}\"\naction = \"forward\"\nto = [{to}]");
        assert!(routes.contains(&whole), "{whole}: {routes}");
    }
    assert!(said.is_empty(), "{said}");
    // Whose it is isn't known: no part of it is guessed, and the rest is done.
    let (routes, said) = imported("postfix-virtual", table, &[]);
    assert!(routes.contains("match = \"a@ex.com\"\naction = \"worker\""), "{routes}");
    assert!(routes.contains("match = \"c@ex.com\"\naction = \"forward\"\nto = [\"x@example.net\"]"), "{routes}");
    for name in ["Carol", "dave"] {
        assert!(said.contains(&format!("\"{name}\": a name without a domain is for a user of the machine")), "{said}");
    }
}
