//! The configuration, from its file to what the program sees: the errors as people read them, overlays, the
//! environment, secrets, and what is looked up in it.
//!
//! `tests/config/NAME.toml` is a wrong file, `NAME.txt` what is said of it. `UPDATE=1` rewrites the latter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;

use mailworker::config::Config;
use mailworker::config::load::{Loaded, Options};
use mailworker::config::route::{Facts, Whence};
use mailworker::diagnostic::{Diagnostic, render};

fn options(environment: &[(&str, &str)]) -> Options {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Options { environment, ..Options::default() }
}

fn parse(text: &str, options: &Options) -> Result<Loaded, Vec<Diagnostic>> {
    Config::from_toml(text, "mailworker.toml", Path::new("/srv/mail"), options)
}

fn text_of(findings: &[Diagnostic]) -> String {
    findings.iter().map(|finding| render(finding, false)).collect::<Vec<_>>().join("\n")
}

#[test]
fn wrong_files_are_explained() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut cases: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in cases {
        let text = std::fs::read_to_string(&case).unwrap();
        // Its first lines may set the scene: `#! env staging`, `#! set NAME=VALUE`.
        let mut options = options(&[]);
        for line in text.lines().filter_map(|line| line.strip_prefix("#! ")) {
            match line.split_once(' ').unwrap() {
                ("env", name) => options.env = Some(name.to_owned()),
                ("set", pair) => {
                    let (name, value) = pair.split_once('=').unwrap();
                    options.environment.insert(name.to_owned(), value.to_owned());
                }
                other => panic!("{}: {other:?}", case.display()),
            }
        }
        let said = match parse(&text, &options) {
            Err(findings) => text_of(&findings),
            Ok(loaded) => format!("accepted\n\n{}", text_of(&loaded.warnings)),
        };
        assert!(!said.contains("hunter2"), "{} shows the secret:\n{said}", case.display());
        let expected = case.with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &said).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "not as recorded (UPDATE=1 rewrites):\n{}", wrong.join("\n"));
}

const WHOLE: &str = include_str!("config/whole.ok");

#[test]
fn the_whole_example_loads() {
    let key = format!("whsec_{}", "A".repeat(32));
    let environment = options(&[("TICKETS_SECRET", &key)]);
    let loaded = parse(WHOLE, &environment).map_err(|findings| text_of(&findings)).unwrap();
    assert_eq!(loaded.warnings.len(), 0, "{}", text_of(&loaded.warnings));
    let config = loaded.config;
    assert_eq!(config.hostname, "mx.example.com");
    assert_eq!(config.data_dir, Path::new("/srv/mail/data"));
    assert_eq!(config.limits.message_size, 25 << 20);
    assert_eq!(config.vars["SUPPORT_EMAIL"], "team@example.net");
    let _: BTreeMap<String, serde_json::Value> = config.vars;
}

/// The least that loads.
const LEAST: &str = "[[domain]]\nname = \"example.com\"\npostmaster = \"admin@example.net\"\n";

fn loaded(text: &str, options: &Options) -> Loaded {
    parse(text, options).unwrap_or_else(|findings| panic!("{}", text_of(&findings)))
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = loaded(LEAST, &options(&[])).config;
    let default = Config::default();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", default.limits));
    assert_eq!(format!("{:?}", config.relay), format!("{:?}", default.relay));
    assert_eq!(config.domains[0].subaddress, "+");
}

#[test]
fn an_overlay_merges_tables_and_replaces_lists() {
    let text = format!(
        "{LEAST}[vars]\nA = 1\nB = {{ c = 1, d = [1, 2] }}\n[[kv_namespaces]]\nbinding = \"K\"\n\
         [webhook_defaults]\nsecret = {{ file = \"nowhere\" }}\n\
         [env.staging]\nvars = {{ A = 2, B = {{ d = [3] }} }}\nkv_namespaces = [{{ binding = \"S\" }}]\n\
         [env.staging.webhook_defaults]\nsecret = {{ env = \"KEY\" }}\n"
    );
    let key = format!("whsec_{}", "A".repeat(32));
    let staging = Options { env: Some("staging".to_owned()), ..options(&[("KEY", &key)]) };
    let found = loaded(&text, &staging);
    assert_eq!(found.config.vars["A"], 2);
    assert_eq!(found.config.vars["B"], serde_json::json!({ "c": 1, "d": [3] }));
    assert_eq!(found.config.kv_namespaces, ["S"]);
    // Where a secret is read from is replaced as one value.
    assert_eq!(found.config.webhook_defaults.secrets[0].expose(), key);
    assert_eq!(found.config.env_name, "staging");
    let of_a = found.origins.iter().find(|(name, ..)| name == "vars.A").unwrap();
    assert_eq!((of_a.1.as_str(), of_a.2.as_str()), ("2", "mailworker.toml:12 [env.staging]"));
}

#[test]
fn the_environment_sets_any_scalar() {
    let found = loaded(
        LEAST,
        &options(&[
            ("MAILWORKER__LIMITS__MESSAGE_SIZE", "1 MiB"),
            ("MAILWORKER__LIMITS__CONNECTIONS", "7"),
            ("MAILWORKER__DOMAIN__0__CASE_SENSITIVE", "true"),
            ("MAILWORKER__LISTENER__0__ADDRESS", "127.0.0.1:0"),
            ("MAILWORKER__VARS__SUPPORT_EMAIL", "team@example.net"),
            ("MAILWORKER__HTTP__ADDRESS", ""),
            ("MAILWORKER_CONFIG", "elsewhere.toml"),
        ]),
    );
    assert_eq!(found.config.limits.message_size, 1 << 20);
    assert_eq!(found.config.limits.connections, 7);
    assert!(found.config.domains[0].case_sensitive);
    assert_eq!(format!("{:?}", found.config.listeners[0].address), "Socket(127.0.0.1:0)");
    assert_eq!(found.config.vars["SUPPORT_EMAIL"], "team@example.net");
    assert!(found.config.http.address.is_none());
    let origin = found.origins.iter().find(|(name, ..)| name == "limits.connections").unwrap();
    assert_eq!(origin.2, "environment variable MAILWORKER__LIMITS__CONNECTIONS");
}

#[test]
fn a_variable_keeps_the_type_of_what_it_replaces() {
    let text = format!("{LEAST}[vars]\nFLAG = true\nCOUNT = 5\nSHARE = 0.5\nNAME = \"a\"\nLIST = [{{ On = true }}]\n");
    let set = |name: &str, value: &str| options(&[(&format!("MAILWORKER__VARS__{name}"), value)]);
    let vars = |options: &Options| loaded(&text, options).config.vars;
    assert_eq!(vars(&set("FLAG", "false"))["FLAG"], false);
    assert_eq!(vars(&set("COUNT", "7"))["COUNT"], 7);
    assert_eq!(vars(&set("COUNT", "2.5"))["COUNT"], 2.5);
    assert_eq!(vars(&set("SHARE", "1"))["SHARE"], 1);
    assert_eq!(vars(&set("NAME", "7"))["NAME"], "7");
    assert_eq!(vars(&set("NEW", "true"))["NEW"], "true", "where there is none, a string");
    assert_eq!(vars(&set("LIST__0__ON", "0"))["LIST"][0]["On"], false);
    assert_eq!(vars(&set("LIST__0__Off", "x"))["LIST"][0]["Off"], "x");
    for (name, value) in [("FLAG", "perhaps"), ("COUNT", "many"), ("SHARE", "inf")] {
        let said = text_of(&parse(&text, &set(name, value)).unwrap_err());
        assert!(said.contains("to something else") && said.contains(name), "{said}");
    }
}

/// Header fields are listed as dots, whatever their names; where a value comes from is told.
#[test]
fn header_fields_are_never_listed() {
    let text = format!(
        "{LEAST}[vars]\nAPI_TOKEN = \"hunter2\"\n[[webhook]]\nbinding = \"A\"\nurl = \"https://example.net/a\"\n\
         headers = {{ X-Team = \"hunter2\", Authorization = {{ env = \"TOKEN\" }} }}\n"
    );
    let found = loaded(&text, &options(&[("TOKEN", "hunter2"), ("MAILWORKER__WEBHOOK__0__HEADERS__X_API", "hunter2")]));
    let shown = format!("{:?}", found.origins);
    assert!(!shown.contains("hunter2") && shown.contains("TOKEN"), "{shown}");
}

/// Where a header field is read from is one value: it is replaced, not mixed.
#[test]
fn a_variable_replaces_where_a_header_field_is_read_from() {
    let text = format!(
        "{LEAST}[webhook_defaults]\nsecret = {{ env = \"KEY\" }}\n\
         [[webhook]]\nbinding = \"A\"\nurl = \"https://example.net/a\"\nheaders = {{ X-Key = {{ file = \"nowhere\" }} }}\n"
    );
    let key = format!("whsec_{}", "A".repeat(32));
    let by_variable =
        [("KEY", key.as_str()), ("TOKEN", "new"), ("MAILWORKER__WEBHOOK__0__HEADERS__X-KEY__ENV", "TOKEN")];
    let found = loaded(&text, &options(&by_variable));
    assert_eq!(found.config.webhook("A").unwrap().headers, [("X-Key".to_owned(), "new".to_owned())]);
}

#[test]
fn secrets_come_from_each_source_and_are_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let key = |fill: &str| format!("whsec_{}", fill.repeat(32));
    std::fs::write(directory.path().join("webhook.key"), key("B") + "\n").unwrap();
    std::fs::write(directory.path().join("relay"), "hunter2\r\n").unwrap();
    let text = format!(
        "{LEAST}[relay]\nsmarthost = \"smtps://me%40example.com@relay.example.net\"\npassword = {{ credential = \"relay\" }}\n\
         [webhook_defaults]\nsecret = {{ file = \"webhook.key\" }}\n\
         [[webhook]]\nbinding = \"A\"\nurl = \"https://example.net/a\"\n\
         [[webhook]]\nbinding = \"B\"\nurl = \"https://example.net/b\"\n\
         secret = [{{ env = \"NEW\" }}, {{ file = \"webhook.key\" }}]\n\
         headers = {{ Authorization = {{ env = \"TOKEN\" }}, X-Team = \"mail\" }}\n"
    );
    let credentials = directory.path().to_str().unwrap();
    let environment =
        options(&[("NEW", &key("C")), ("TOKEN", "Bearer hunter2"), ("CREDENTIALS_DIRECTORY", credentials)]);
    let found = Config::from_toml(&text, "mailworker.toml", directory.path(), &environment).unwrap();
    let config = &found.config;
    let login = config.relay.smarthost.as_ref().unwrap().login.as_ref().unwrap();
    assert_eq!((login.user.as_str(), login.password.expose()), ("me@example.com", "hunter2"));
    assert_eq!(config.webhook("A").unwrap().secrets[0].expose(), key("B"));
    let keys: Vec<_> = config.webhook("B").unwrap().secrets.iter().map(|secret| secret.expose().to_owned()).collect();
    assert_eq!(keys, [key("C"), key("B")]);
    assert_eq!(config.webhook("B").unwrap().headers[0], ("Authorization".to_owned(), "Bearer hunter2".to_owned()));
    let shown = format!("{found:?} {:?}", found.origins);
    for secret in ["hunter2", "BBBBBB", "CCCCCC"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
    assert!(found.watched.contains(&directory.path().join("webhook.key")), "{:?}", found.watched);
}

#[test]
fn the_file_is_found_where_it_is_said_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mail.toml");
    std::fs::write(&path, LEAST).unwrap();
    let named = Options { file: Some(path.clone()), ..options(&[]) };
    // The worker isn't there yet.
    let said = text_of(&Config::load(&named).unwrap_err());
    assert!(said.contains("rules/main.rhai isn't there"), "{said}");
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/main.rhai"), "fn email(message, env, ctx) {}").unwrap();
    let found = Config::load(&named).unwrap();
    assert_eq!(found.file, path);
    assert_eq!(found.config.base_dir, directory.path());
    assert!(found.watched.contains(&path) && found.watched.contains(&directory.path().join("rules")));
    assert!(!found.config.hostname.is_empty());
    let by_variable = options(&[("MAILWORKER_CONFIG", path.to_str().unwrap())]);
    assert_eq!(Config::load(&by_variable).unwrap().file, path);
    // One that is named and not there is an error, never passed over for another.
    let wrong = Options { file: Some(directory.path().join("none.toml")), ..by_variable };
    assert!(text_of(&Config::load(&wrong).unwrap_err()).contains("can't be read"));
}

fn address(text: &str) -> mailworker::mail::Address {
    mailworker::mail::Address::parse(text).unwrap()
}

#[test]
fn domains_are_found_by_name_then_by_wildcard() {
    let text = "[[domain]]\nname = \"example.com\"\npostmaster = \"a@example.net\"\n\
                [[domain]]\nname = \"*.example.com\"\npostmaster = \"b@example.net\"\n\
                [[domain]]\nname = \"*.deep.example.com\"\npostmaster = \"c@example.net\"\n\
                [[domain]]\nname = \"bücher.example\"\npostmaster = \"d@example.net\"\n";
    let config = loaded(text, &options(&[])).config;
    let postmaster = |of: &str| config.domain_for(&address(of)).map(|domain| domain.postmaster.local().to_owned());
    assert_eq!(postmaster("x@EXAMPLE.com").as_deref(), Some("a"));
    assert_eq!(postmaster("x@sub.example.com").as_deref(), Some("b"));
    assert_eq!(postmaster("x@a.b.example.com").as_deref(), Some("b"));
    assert_eq!(postmaster("x@a.deep.example.com").as_deref(), Some("c"));
    assert_eq!(postmaster("x@xn--bcher-kva.example").as_deref(), Some("d"));
    assert_eq!(postmaster("x@BÜCHER.example").as_deref(), Some("d"));
    for foreign in ["x@example.net", "x@notexample.com", "x@com", "x@[192.0.2.1]", "x@[IPv6:2001:db8::1]"] {
        assert_eq!(postmaster(foreign), None, "{foreign}");
    }
    assert!(config.domain_for(&mailworker::mail::Address::bare_postmaster("Postmaster").unwrap()).is_none());
    assert!(config.domain_by_key("example.com.").is_none());
}

#[test]
fn the_first_enabled_route_that_matches_counts() {
    let route = |line: &str| format!("[[route]]\naction = \"store\"\n{line}\n");
    let text = format!(
        "{LEAST}[[domain]]\nname = \"strict.example\"\npostmaster = \"a@example.net\"\ncase_sensitive = true\n{}{}{}{}{}{}",
        route("match = \"billing@example.com\"\nenabled = false"),
        route("match = \"billing@example.com\""),
        route("match = \"abuse@*\""),
        route("match = \"/^news-[0-9]+@/\""),
        route("match = \"Exact@strict.example\""),
        route("match = \"*@strict.example\""),
    );
    let config = loaded(&text, &options(&[])).config;
    let which = |of: &str| {
        let (recipient, ip) = (address(of), std::net::Ipv4Addr::LOCALHOST.into());
        let client = Whence { ip, origin: &mailworker::mail::Origin::default() };
        let taken =
            config.routes_for(&Facts { recipient: &recipient, sender: None, client, message: None, auth: None });
        taken.first().map(|taken| taken.at)
    };
    assert_eq!(which("Billing@EXAMPLE.com"), Some(1));
    assert_eq!(which("billing+2026@example.com"), Some(1));
    assert_eq!(which("\"billing\"@example.com"), Some(1), "the same mailbox in quotes");
    assert_eq!(which("\"bil\\ling+2026\"@example.com"), Some(1));
    assert_eq!(which("\"news-7\"@example.com"), Some(3));
    assert_eq!(which("\"Exact\"@strict.example"), Some(4));
    assert_eq!(which("ABUSE@strict.example"), Some(5), "the case counts in this domain");
    assert_eq!(which("abuse@strict.example"), Some(2));
    assert_eq!(which("NEWS-7@example.com"), Some(3));
    assert_eq!(which("news-x@example.com"), None);
    assert_eq!(which("Exact@strict.example"), Some(4));
    assert_eq!(which("exact@strict.example"), Some(5));
    assert_eq!(which("billing@example.net"), None);
}

#[test]
fn names_lead_to_what_they_name() {
    let key = format!("whsec_{}", "A".repeat(32));
    let config = loaded(WHOLE, &options(&[("TICKETS_SECRET", &key)])).config;
    assert_eq!(config.named_webhook(None, "https://tickets.example.net:443/hook").unwrap().binding, "TICKETS");
    assert!(config.named_webhook(None, "https://tickets.example.net/other").is_none());
    assert!(config.named_webhook(None, "no url").is_none());
    assert_eq!(config.destination("archive").unwrap().smarthost.port, 24);
    let domain = config.domain_for(&address("x@example.com"));
    assert_eq!(config.main_for(domain, None), "rules/sales.rhai");
    assert_eq!(config.main_for(None, None), "rules/main.rhai");
    assert_eq!(config.rules_mains(), ["rules/main.rhai", "rules/sales.rhai"]);
    assert!(config.is_local_host("MX.example.com.") && config.is_local_host("localhost"));
    assert!(!config.is_local_host("example.com"));
}

#[test]
fn the_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/mailworker.schema.json");
    let made = format!("{}\n", serde_json::to_string_pretty(&mailworker::config::schema()).unwrap());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == made, "UPDATE=1 writes {}", path.display());
}

/// Every key that the schema knows, by its path.
fn keys(schema: &serde_json::Value, node: &serde_json::Value, path: &str, into: &mut Vec<String>) {
    let node = match node.get("$ref").and_then(|reference| reference.as_str()) {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => node,
    };
    if let Some(properties) = node.get("properties").and_then(|properties| properties.as_object()) {
        for (name, property) in properties {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            into.push(path.clone());
            keys(schema, property.get("items").unwrap_or(property), &path, into);
        }
    }
}

/// Uncomments the lines that show a default: `#key = value`, no space after the `#`.
fn with_defaults_said(reference: &str) -> String {
    let key = regex::Regex::new(r"^#(\[|[a-z_]+ *= )").unwrap();
    reference.lines().map(|line| if key.is_match(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_has_every_key_and_the_right_defaults() {
    const REFERENCE: &str = include_str!("../deploy/mailworker.toml");
    let key = format!("whsec_{}", "A".repeat(32));
    let environment =
        options(&[("TICKETS_SECRET", &key), ("WEBHOOK_SECRET", &key), ("RELAY_PASSWORD", "x"), ("AI_KEY", "x")]);
    let found = loaded(REFERENCE, &environment);
    assert_eq!(found.warnings.len(), 0, "{}", text_of(&found.warnings));
    let said = loaded(&with_defaults_said(REFERENCE), &environment);
    assert_eq!(format!("{:#?}", found.config), format!("{:#?}", said.config));

    let schema = mailworker::config::schema();
    let mut known = Vec::new();
    keys(&schema, &schema, "", &mut known);
    // What this version doesn't offer, and what is a map of the admin's own names, has no line.
    known.retain(|key| !["tls.acme", "env"].contains(&key.as_str()));
    known.retain(|key| !key.starts_with("tls.sni."));
    let given: Vec<String> = said
        .origins
        .iter()
        .map(|(key, ..)| regex::Regex::new(r"\[\d+\]").unwrap().replace_all(key, "").into_owned())
        .collect();
    let below = |key: &str| given.iter().any(|given| given == key || given.starts_with(&format!("{key}.")));
    // Keys without a default of their own are shown behind `# ` in their section.
    let shown = |key: &str| REFERENCE.contains(&format!("# {} ", key.rsplit('.').next().unwrap()));
    let missing: Vec<_> = known.iter().filter(|key| !below(key) && !shown(key)).collect();
    assert!(missing.is_empty(), "deploy/mailworker.toml says nothing of {missing:?}");
}

#[test]
fn a_secret_that_everybody_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (file, key) = (dir.path().join("mailworker.toml"), dir.path().join("webhook.key"));
    let text = "main = \"main.rhai\"\n[[domain]]\nname = \"example.com\"\npostmaster = \"a@example.net\"\n\
                [webhook_defaults]\nsecret = { file = \"webhook.key\" }\n";
    std::fs::write(&file, text).unwrap();
    std::fs::write(dir.path().join("main.rhai"), "").unwrap();
    std::fs::write(&key, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let warnings_with = |mode: u32| {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        Config::load(&Options { file: Some(file.clone()), ..options(&[]) }).unwrap().warnings
    };
    assert_eq!(warnings_with(0o640), []);
    let warnings = warnings_with(0o644);
    assert!(matches!(&warnings[..], [one] if one.line == 6 && one.message.contains("can read")), "{warnings:?}");
}

#[test]
fn octets_that_are_no_text_are_told_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mailworker.toml");
    std::fs::write(&file, b"hostname = \"a\"\nmain = \"\xff\"\n").unwrap();
    let findings = Config::load(&Options { file: Some(file), ..options(&[]) }).unwrap_err();
    assert!(findings[0].message.contains("line 2 is no UTF-8"), "{findings:?}");
}
