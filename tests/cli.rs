//! The command line through the built program: help, exit codes, what it writes and what it refuses.
//!
//! What needs a running server stands in `tests/it`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The program in `dir`, with nothing of the environment that bears on it.
fn run(dir: &Path, arguments: &[&str]) -> Output {
    program(dir, arguments).output().unwrap()
}

fn program(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailworker"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MAILWORKER") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    command
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Its standard output; it must have exited with `code`.
#[track_caller]
fn exits(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", out(output), err(output));
    out(output)
}

fn empty() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A configuration with a namespace, and a directory for the store.
fn configured() -> TempDir {
    let dir = empty();
    let text = "hostname = \"mx.example.com\"\n\
                [[listener]]\naddress = \"127.0.0.1:0\"\n\
                [[domain]]\nname = \"example.com\"\npostmaster = \"admin@example.net\"\n\
                [[kv_namespaces]]\nbinding = \"EMAILS\"\n";
    std::fs::write(dir.path().join("mailworker.toml"), text).unwrap();
    std::fs::create_dir_all(dir.path().join("rules")).unwrap();
    std::fs::write(dir.path().join("rules/main.rhai"), "fn email(message, env, ctx) { message.drop(); }\n").unwrap();
    dir
}

#[test]
fn help_teaches_by_example_and_every_command_has_some() {
    let dir = empty();
    let help = exits(&run(dir.path(), &["--help"]), 0);
    assert!(help.contains("Examples:") && help.contains("Exit codes: 0"), "{help}");
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let help = exits(&run(dir.path(), &[name, "--help"]), 0);
        assert!(help.contains("--config <FILE>") && help.contains("--env <NAME>"), "{name}: {help}");
        // A line that is short and goes on was broken before it was wrapped.
        let lines: Vec<&str> = help.lines().collect();
        for pair in lines.windows(2) {
            let goes_on = pair.iter().all(|line| line.starts_with(|first: char| !first.is_whitespace()));
            assert!(!goes_on || pair[0].len() + pair[1].split(' ').next().unwrap().len() > 98, "{name}: {pair:?}");
        }
    }
}

/// RFC 5321 §4.5.1
#[test]
fn postmaster_alone_is_an_address() {
    let dir = configured();
    let explained = exits(&run(dir.path(), &["explain", "Postmaster", "--json"]), 0);
    let explained: serde_json::Value = serde_json::from_str(&explained).unwrap();
    assert_eq!(explained["rcpt"]["code"], 250, "{explained}");
    assert!(explained["deliveries"][0]["what"].as_str().unwrap().contains("admin@example.net"), "{explained}");
    exits(&run(dir.path(), &["explain", "root"]), 2);
}

#[test]
fn wrong_usage_is_2() {
    let dir = configured();
    let all = run(dir.path(), &["queue", "drop"]);
    exits(&all, 2);
    assert!(err(&all).contains("--all"), "{}", err(&all));
    exits(&run(dir.path(), &["no-such-command"]), 2);
    exits(&run(dir.path(), &["messages", "show", "no-id"]), 2);
    let unbound = run(dir.path(), &["kv", "get", "EMAIL", "k"]);
    exits(&unbound, 2);
    assert!(err(&unbound).contains("did you mean EMAILS?"), "{}", err(&unbound));
}

#[test]
fn no_configuration_is_78_and_says_how_to_get_one() {
    let dir = empty();
    let output = run(dir.path(), &["messages", "list", "--config", "missing.toml"]);
    exits(&output, 78);
    assert!(err(&output).contains("missing.toml"), "{}", err(&output));
}

#[test]
fn a_wrong_configuration_is_78_with_place_and_caret() {
    let dir = configured();
    let path = dir.path().join("mailworker.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("postmaster", "postmastr");
    std::fs::write(&path, text).unwrap();
    let output = run(dir.path(), &["queue", "list"]);
    exits(&output, 78);
    let said = err(&output);
    assert!(said.contains("mailworker.toml:6:1") && said.contains("^^^^") && said.contains("postmaster"), "{said}");
    assert!(!said.contains('\u{1b}'), "no colour but on a terminal: {said:?}");
}

#[test]
fn colour_is_as_asked_for() {
    let dir = empty();
    let output = run(dir.path(), &["messages", "list", "--config", "missing.toml", "--color", "always"]);
    assert!(err(&output).contains('\u{1b}'), "{:?}", err(&output));
    // As on a terminal: where nothing is said, NO_COLOR decides, and not by being empty.
    for (no_color, coloured) in [("1", false), ("", true)] {
        let mut command = program(dir.path(), &["messages", "list", "--config", "missing.toml"]);
        let output = command.env("CLICOLOR_FORCE", "1").env("NO_COLOR", no_color).output().unwrap();
        assert_eq!(err(&output).contains('\u{1b}'), coloured, "NO_COLOR={no_color}: {:?}", err(&output));
    }
}

#[test]
fn completions_and_man_page_name_every_command() {
    let dir = empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = exits(&run(dir.path(), &["completions", shell]), 0);
        assert!(script.contains("messages") && script.contains("queue"), "{shell}");
    }
    let page = exits(&run(dir.path(), &["man"]), 0);
    assert!(page.contains(".TH mailworker") && page.contains("MAILWORKER QUEUE DROP"), "{page}");
    let configuration = page.split(".SH CONFIGURATION").nth(1).unwrap();
    assert!(configuration.contains("#messages_per_connection = 100"), "{configuration}");
}

#[test]
fn a_store_that_is_not_there_is_told_and_not_made() {
    let dir = configured();
    for arguments in [&["messages", "list"][..], &["kv", "put", "EMAILS", "k", "v"], &["backup", "copy"]] {
        let output = run(dir.path(), arguments);
        exits(&output, 1);
        assert!(err(&output).contains("there is no store"), "{}", err(&output));
    }
    assert!(!dir.path().join("data").exists());
    let tail = run(dir.path(), &["tail"]);
    exits(&tail, 1);
    assert!(err(&tail).contains("no server runs"), "{}", err(&tail));
}

#[test]
fn keys_are_written_and_read_without_a_server() {
    let dir = configured();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    exits(&run(dir.path(), &["kv", "put", "EMAILS", "greeting", "hello"]), 0);
    exits(&run(dir.path(), &["kv", "put", "EMAILS", "numbers", "[1,2]", "--ttl", "1h"]), 0);
    assert_eq!(exits(&run(dir.path(), &["kv", "get", "EMAILS", "greeting"]), 0), "hello\n");
    let json = exits(&run(dir.path(), &["kv", "get", "EMAILS", "numbers", "--json"]), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["type"], &json["value"][1]), (&"json".into(), &2.into()), "{json}");
    assert!(json["expires_at"].as_i64() > Some(1_700_000_000_000), "{json}");
    exits(&run(dir.path(), &["kv", "put", "EMAILS", "odd", "a\tb\u{9b}\u{202e}"]), 0);
    assert_eq!(exits(&run(dir.path(), &["kv", "get", "EMAILS", "odd"]), 0), "a\tb\u{9b}\u{202e}\n", "as it was put");
    let json = exits(&run(dir.path(), &["kv", "get", "EMAILS", "odd", "--json"]), 0);
    assert!(json.contains("a\\tb\\u009b\\u202e"), "{json}");
    assert_eq!(exits(&run(dir.path(), &["kv", "list", "EMAILS", "--prefix", "gr"]), 0), "greeting\n");
    exits(&run(dir.path(), &["kv", "put", "EMAILS", "count:suport", "7"]), 0);
    exits(&run(dir.path(), &["kv", "put", "EMAILS", "long", &"two\nlines ".repeat(50)]), 0);
    let values = exits(&run(dir.path(), &["kv", "list", "EMAILS", "--values"]), 0);
    assert!(values.contains("count:suport  7\n") && values.contains("long  two lines two"), "{values}");
    assert!(values.contains("…\n") && values.lines().all(|line| line.len() < 120), "{values}");
    let values = exits(&run(dir.path(), &["kv", "list", "EMAILS", "--values", "--prefix", "c", "--json"]), 0);
    assert!(values.contains("\"key\":\"count:suport\"") && values.contains("\"value\":7"), "{values}");
    exits(&run(dir.path(), &["kv", "delete", "EMAILS", "greeting"]), 0);
    exits(&run(dir.path(), &["kv", "get", "EMAILS", "greeting"]), 1);
    exits(&run(dir.path(), &["backup", "copy"]), 0);
    assert!(dir.path().join("copy").is_dir());
    assert_eq!(exits(&run(dir.path(), &["queue", "retry", "--all"]), 0), "0 deliveries due now\n");
    assert_eq!(exits(&run(dir.path(), &["messages", "list"]), 0), "no messages\n");
}

#[test]
fn init_writes_what_check_passes_and_never_overwrites() {
    let dir = empty();
    let wrote = exits(&run(dir.path(), &["init", "mail"]), 0);
    let mail = dir.path().join("mail");
    let files = ["mailworker.toml", "mailworker.schema.json", "rules/main.rhai", "rules/lib/spam.rhai", "webhook.key"];
    for file in files.into_iter().chain(["rules/mailworker.d.rhai"]) {
        assert!(wrote.contains(file) && mail.join(file).is_file(), "{file}: {wrote}");
    }
    let good = run(&mail, &["check"]);
    let printed = exits(&good, 0);
    let definitions = std::fs::read_to_string(mail.join("rules/mailworker.d.rhai")).unwrap();
    assert_eq!(exits(&run(&mail, &["definitions"]), 0), definitions, "what editors read is of this version");
    assert!(printed.contains("good") && printed.contains("mailworker.toml:"), "{printed}");
    assert_eq!(err(&good), "", "nothing to warn of");
    let tested = exits(&run(&mail, &["test", "--json"]), 0);
    let results: Vec<serde_json::Value> = tested.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(results.len() >= 8 && results.iter().all(|test| test["result"] == "passed"), "{tested}");
    let key = |folder: &str| std::fs::read_to_string(dir.path().join(folder).join("webhook.key")).unwrap();
    exits(&run(dir.path(), &["init", "other"]), 0);
    assert_ne!(key("mail"), key("other"));
    let mode = std::fs::metadata(mail.join("webhook.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    std::fs::write(mail.join("rules/main.rhai"), "mine").unwrap();
    std::fs::remove_file(mail.join("mailworker.toml")).unwrap();
    let again = run(dir.path(), &["init", "mail"]);
    exits(&again, 1);
    assert!(err(&again).contains("rules/main.rhai"), "{}", err(&again));
    assert_eq!(std::fs::read_to_string(mail.join("rules/main.rhai")).unwrap(), "mine");
    assert!(!mail.join("mailworker.toml").exists(), "nothing was written");
}

#[test]
fn check_tells_programs_too() {
    let dir = configured();
    let good: serde_json::Value = serde_json::from_str(&exits(&run(dir.path(), &["check", "--json"]), 0)).unwrap();
    assert_eq!(good["ok"], true);
    assert!(good["origins"].as_array().unwrap().iter().any(|origin| origin["key"] == "hostname"), "{good}");
    std::fs::write(dir.path().join("rules/main.rhai"), "fn email(message, env, ctx) {\n  let x = ;\n}\n").unwrap();
    let broken: serde_json::Value = serde_json::from_str(&exits(&run(dir.path(), &["check", "--json"]), 78)).unwrap();
    assert_eq!((&broken["ok"], &broken["findings"][0]["line"]), (&false.into(), &2.into()), "{broken}");
    let words = run(dir.path(), &["check"]);
    exits(&words, 78);
    assert!(err(&words).contains("rules/main.rhai:2:") && err(&words).contains('^'), "{}", err(&words));
}

#[test]
fn check_tells_of_a_worker_that_answers_no_mail() {
    let dir = configured();
    std::fs::write(dir.path().join("rules/main.rhai"), "fn connect(session, env) { }\n").unwrap();
    let silent = run(dir.path(), &["check"]);
    exits(&silent, 0);
    let told = "the worker has no handler `email`, and mail for example.com goes to it";
    assert!(err(&silent).contains(told) && err(&silent).contains("rules/main.rhai"), "{}", err(&silent));
    let mut text = std::fs::read_to_string(dir.path().join("mailworker.toml")).unwrap();
    text += "[[route]]\nmatch = \"*@example.com\"\naction = \"store\"\n";
    std::fs::write(dir.path().join("mailworker.toml"), text).unwrap();
    assert_eq!(err(&run(dir.path(), &["check"])), "", "all of its mail is taken by a route");
}

#[test]
fn a_link_that_leads_nowhere_is_missed_by_nobody_but_who_imports_it() {
    let dir = configured();
    std::os::unix::fs::symlink("gone.rhai", dir.path().join("rules/old.rhai")).unwrap();
    let checked = run(dir.path(), &["check"]);
    exits(&checked, 0);
    assert!(err(&checked).contains("this link leads nowhere: gone.rhai isn't there"), "{}", err(&checked));
    let importing = "import \"old\" as old;\nfn email(message, env, ctx) { message.drop(); }\n";
    std::fs::write(dir.path().join("rules/main.rhai"), importing).unwrap();
    let checked = run(dir.path(), &["check"]);
    exits(&checked, 78);
    assert!(err(&checked).contains("no module \"old\""), "{}", err(&checked));
}

#[test]
fn the_patterns_decide_as_their_tests_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for command in ["check", "test"] {
        let done = run(root, &[command, "--config", "rules/patterns/mailworker.toml"]);
        assert_eq!(done.status.code(), Some(0), "{}{}", out(&done), err(&done));
    }
}

/// They may lie beside the rules, where editors look for them.
#[test]
fn the_editors_definitions_are_no_script() {
    let dir = configured();
    let definitions = exits(&run(dir.path(), &["definitions"]), 0);
    assert!(
        definitions.contains("fn forward(message: message, to: String | Array, headers: Map) -> ();"),
        "{definitions}"
    );
    assert!(definitions.contains("fn regex_match(text: String, pattern: String) -> bool;"), "{definitions}");
    std::fs::write(dir.path().join("rules/mailworker.d.rhai"), definitions).unwrap();
    exits(&run(dir.path(), &["check"]), 0);
}

#[test]
fn the_demonstration_shows_what_became_of_each_message() {
    let dir = empty();
    let shown = exits(&run(dir.path(), &["dev", "--demo"]), 0);
    let parts = [
        ("support", "team@example.net"),
        ("sales", "sales@example.net"),
        ("general address", "office@example.net"),
        ("no rule names", "office@example.net"),
        ("spam", "550 5."),
        ("isn't ours", "550 5.7.1"),
    ];
    for ((what, became), number) in parts.iter().zip(1..) {
        let story = shown.split("\n\n").find(|story| story.starts_with(&format!("{number}. "))).unwrap_or_default();
        assert!(story.contains(became), "{number} {what}: {shown}");
    }
    assert!(shown.contains("rules/main.rhai:") && shown.contains(", signed,"), "{shown}");
    assert!(shown.contains("done: 6 messages"), "{shown}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}

/// Rules that name a secret don't compile without it, and nothing starts that could take it.
#[test]
fn what_rules_need_is_there_before_a_server_has_ever_started() {
    let dir = configured();
    let rules = "fn email(message, env, ctx) { if env.API_TOKEN != \"\" { message.drop(); } }\n";
    std::fs::write(dir.path().join("rules/main.rhai"), rules).unwrap();
    let checked = err(&run(dir.path(), &["check"]));
    assert!(checked.contains("no variable or binding API_TOKEN"), "{checked}");
    assert!(checked.contains("`mailworker secret put API_TOKEN`"), "{checked}");

    std::fs::write(dir.path().join("value"), "s3cr3t").unwrap();
    let mut put = program(dir.path(), &["secret", "put", "API_TOKEN"]);
    let put = put.stdin(std::fs::File::open(dir.path().join("value")).unwrap()).output().unwrap();
    exits(&put, 0);
    assert!(err(&put).contains("is new"), "{}", err(&put));
    exits(&run(dir.path(), &["check"]), 0);

    let deployed = run(dir.path(), &["deploy"]);
    exits(&deployed, 0);
    assert!(!err(&deployed).contains("is new"), "{}", err(&deployed));

    // Whoever takes it away again would be told by the next start.
    std::fs::write(dir.path().join("rules/main.rhai"), "fn email(message, env, ctx) { message.drop(); }\n").unwrap();
    let needed = run(dir.path(), &["secret", "delete", "API_TOKEN"]);
    exits(&needed, 1);
    assert!(err(&needed).contains("API_TOKEN is needed, so it wasn't deleted"), "{}", err(&needed));
    exits(&run(dir.path(), &["deploy"]), 0);
    exits(&run(dir.path(), &["secret", "delete", "API_TOKEN"]), 0);
}

#[test]
fn a_secret_that_the_configuration_names_stays_unless_it_is_forced_away() {
    let dir = configured();
    let path = dir.path().join("mailworker.toml");
    std::fs::write(dir.path().join("value"), "whsec_dW5yZWFkIHVucmVhZCB1bnJlYWQgdW5yZWFk").unwrap();
    let mut put = program(dir.path(), &["secret", "put", "HOOK_KEY"]);
    exits(&put.stdin(std::fs::File::open(dir.path().join("value")).unwrap()).output().unwrap(), 0);
    let text = std::fs::read_to_string(&path).unwrap();
    let webhook = "\n[[webhook]]\nbinding = \"HOOK\"\nurl = \"https://hooks.example.net/in\"\nsecret = { secret = \"HOOK_KEY\" }\n";
    std::fs::write(&path, text + webhook).unwrap();
    exits(&run(dir.path(), &["secret", "delete", "HOOK_KEY"]), 1);
    assert!(exits(&run(dir.path(), &["secret", "list"]), 0).contains("HOOK_KEY"));
    exits(&run(dir.path(), &["secret", "delete", "HOOK_KEY", "--force"]), 0);
    assert_eq!(exits(&run(dir.path(), &["secret", "list"]), 0), "");
}

#[test]
fn a_release_is_there_before_a_server_has_ever_started() {
    let dir = configured();
    exits(&run(dir.path(), &["deploy"]), 0);
    assert!(exits(&run(dir.path(), &["versions", "list"]), 0).contains("active"));
}

/// An admin's shell has none of the service's secrets, and needs none to look at the queue.
#[test]
fn looking_needs_no_secret() {
    let dir = configured();
    let path = dir.path().join("mailworker.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let webhook = "\n[[webhook]]\nbinding = \"HOOK\"\nurl = \"https://hooks.example.net/in\"\nsecret = { env = \"NOT_SET_HERE\" }\n";
    std::fs::write(&path, text + webhook).unwrap();
    assert!(err(&run(dir.path(), &["check"])).contains("NOT_SET_HERE"));
    let looked = run(dir.path(), &["queue", "list"]);
    exits(&looked, 1);
    assert!(err(&looked).contains("there is no store"), "{}", err(&looked));
}

/// `check` is run from a shell, `serve` by a service that has its secrets.
#[test]
fn a_secret_that_is_not_to_be_had_here_is_a_warning_of_check() {
    let dir = configured();
    let path = dir.path().join("mailworker.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let more = "[tls]\ncertificate = { credential = \"chain\" }\nkey = { credential = \"tls-key\" }\n\
                [webhook_defaults]\nsecret = { env = \"NOT_SET_HERE\" }\n\
                [relay]\nsmarthost = \"smtps://me@relay.example.net\"\npassword = { file = \"relay.password\" }\n";
    std::fs::write(&path, text + more).unwrap();
    let checked = run(dir.path(), &["check"]);
    assert!(exits(&checked, 0).contains("4 warnings"), "{}", err(&checked));
    for missing in ["NOT_SET_HERE", "LoadCredential=tls-key", "LoadCredential=chain", "relay.password"] {
        assert!(err(&checked).contains(missing), "{missing}: {}", err(&checked));
    }
    for demands in [&["check", "--secrets"][..], &["serve"]] {
        let refused = run(dir.path(), demands);
        exits(&refused, 78);
        assert!(err(&refused).contains("NOT_SET_HERE") && err(&refused).contains("tls-key"), "{}", err(&refused));
    }
    // One that is there and wrong is an error, whoever asks.
    std::fs::write(dir.path().join("relay.password"), "two\nlines\n").unwrap();
    exits(&run(dir.path(), &["check"]), 78);
}

#[test]
fn a_certificate_may_be_a_credential() {
    let dir = configured();
    let path = dir.path().join("mailworker.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let tls = "[tls]\ncertificate = { credential = \"chain\" }\nkey = { credential = \"tls-key\" }\n";
    std::fs::write(&path, text + tls).unwrap();
    let made = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()]).unwrap();
    let credentials = empty();
    std::fs::write(credentials.path().join("chain"), made.cert.pem()).unwrap();
    std::fs::write(credentials.path().join("tls-key"), made.signing_key.serialize_pem()).unwrap();
    let mut command = program(dir.path(), &["check", "--secrets"]);
    let checked = command.env("CREDENTIALS_DIRECTORY", credentials.path()).output().unwrap();
    exits(&checked, 0);
    assert_eq!(err(&checked), "");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("credential = \"chain\"", "env = \"X\""))
        .unwrap();
    let refused = run(dir.path(), &["check"]);
    exits(&refused, 78);
    assert!(err(&refused).contains("are files") && err(&refused).contains("^^^"), "{}", err(&refused));
}

#[test]
fn an_environment_of_the_file_is_chosen_by_name() {
    let dir = configured();
    let path = dir.path().join("mailworker.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "[vars]\nTEAM = \"live\"\n[env.staging.vars]\nTEAM = \"test\"\n").unwrap();
    assert!(exits(&run(dir.path(), &["check"]), 0).contains("\"live\""));
    let staging = exits(&run(dir.path(), &["check", "--env", "staging"]), 0);
    assert!(staging.contains("\"test\"") && staging.contains("[env.staging]"), "{staging}");
    let wrong = run(dir.path(), &["check", "--env", "stagin"]);
    exits(&wrong, 78);
    assert!(err(&wrong).contains("did you mean `staging`?"), "{}", err(&wrong));
}

#[test]
fn a_certificate_that_is_none_is_told_with_its_line() {
    let dir = configured();
    let file = dir.path().join("mailworker.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}[tls]\ncertificate = \"none.pem\"\nkey = \"none.pem\"\n")).unwrap();
    std::fs::write(dir.path().join("none.pem"), "no PEM\n").unwrap();
    let output = run(dir.path(), &["check"]);
    exits(&output, 78);
    let said = err(&output);
    assert!(said.contains("none.pem: no certificate in it") && said.contains("mailworker.toml:10:15"), "{said}");
    assert!(said.contains("10 | certificate = \"none.pem\"") && said.contains("^^^^"), "{said}");
}

#[test]
fn init_into_a_file_says_that_it_is_no_folder() {
    let dir = empty();
    std::fs::write(dir.path().join("here"), "").unwrap();
    let output = run(dir.path(), &["init", "here"]);
    exits(&output, 1);
    assert!(err(&output).contains("here is no folder"), "{}", err(&output));
}

/// Each connection is an open file; what a shell grants is fewer than `[limits] connections`.
#[test]
fn serve_opens_as_many_files_as_the_system_grants() {
    use std::io::BufRead as _;
    let dir = configured();
    let file = dir.path().join("mailworker.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}[http]\naddress = \"\"\n")).unwrap();
    let script = "ulimit -Sn 128; ulimit -Hn 512; exec \"$0\" serve";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_mailworker")]).current_dir(dir.path());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(open_files.split_whitespace().nth(3), Some("512"), "{line}{open_files}");
}

/// The first block of this language behind this heading.
fn block(document: &str, heading: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let behind = text.split(&format!("\n{heading}\n")).nth(1).unwrap();
    let block = behind.split(&format!("```{language}\n")).nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

/// README's configuration with README's worker, and with the one that `init` writes.
#[test]
fn what_the_readme_shows_passes_the_check() {
    let dir = empty();
    exits(&run(dir.path(), &["init", "."]), 0);
    let made = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()]).unwrap();
    std::fs::create_dir(dir.path().join("tls")).unwrap();
    let files = [
        ("mailworker.toml", block("README.md", "## As a real MX", "toml")),
        ("tls/fullchain.pem", made.cert.pem()),
        ("tls/key.pem", made.signing_key.serialize_pem()),
        ("smarthost.password", "x".to_owned()),
    ];
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    for worker in [None, Some(block("README.md", "## A worker", "rhai"))] {
        if let Some(text) = worker {
            std::fs::write(dir.path().join("rules/main.rhai"), text).unwrap();
        }
        let checked = run(dir.path(), &["check", "--secrets"]);
        exits(&checked, 0);
        assert_eq!(err(&checked), "");
    }
}

/// The steps of deploy/README.md as they stand there, with another root.
#[test]
fn the_steps_to_a_systemd_service_lead_to_a_good_configuration() {
    let root = empty();
    let at = |path: &str| format!("{}{path}", root.path().display());
    let steps = block("deploy/README.md", "## With systemd", "sh");
    let steps = steps.replace("target/release/mailworker", env!("CARGO_BIN_EXE_mailworker"));
    let steps =
        steps.replace(" /usr/bin/", &format!(" {}", at("/usr/bin/"))).replace(" /etc/", &format!(" {}", at("/etc/")));
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", at("/usr/bin"), std::env::var("PATH").unwrap());
    let done = shell.args(["-ec", &steps]).env("PATH", path).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    exits(&done, 0);
    let config = at("/etc/mailworker/mailworker.toml");
    let checked = run(root.path(), &["check", "--config", &config]);
    let printed = exits(&checked, 0);
    assert!(
        err(&checked).contains("LoadCredential=webhook") && printed.contains("1 warning"),
        "{printed}{}",
        err(&checked)
    );
    assert!(printed.contains("\"fd:smtp\"") && printed.contains("\"/var/lib/mailworker\""), "{printed}");
    let unit = std::fs::read_to_string(at("/etc/systemd/system/mailworker.service")).unwrap();
    let credential = unit.lines().find_map(|line| line.strip_prefix("LoadCredential=webhook:")).unwrap();
    let secrets = Path::new(&at(credential)).parent().unwrap().to_owned();
    let mut service = program(root.path(), &["check", "--secrets", "--config", &config]);
    let checked = service.env("CREDENTIALS_DIRECTORY", secrets).output().unwrap();
    exits(&checked, 0);
    assert_eq!(err(&checked), "");
}
