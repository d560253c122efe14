//! From file, environment and flags to a [`Config`], or diagnostics that point.
//!
//! The one part of `config` that reads files and asks the machine for its name. Input: [`Options`]. Output: [`Loaded`],
//! with where each value came from and which files to watch; or every finding at once. Never prints a secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Config;
use super::check::{Checker, check};
use super::decode::decode;
use super::raw;
use super::secret::{KeptSecrets, Surroundings, read};
pub use super::secret::{NoSecret, Reading};
use super::tree::{Kind, Node, Origin, Sight, Source, Tree};
use super::variable::PREFIX;
use super::{Secret, dev_vars};
use crate::diagnostic::{Diagnostic, suggest};

/// What the command line and the process' environment say.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--config FILE`
    pub file: Option<PathBuf>,
    /// `--env NAME`
    pub env: Option<String>,
    /// The process' environment.
    pub environment: BTreeMap<String, String>,
    pub secrets: Reading,
    /// `[tls]` isn't looked at: nobody is served with a certificate.
    pub without_tls: bool,
    /// The rules' files needn't be there: what runs lies in the store, or nothing is to run.
    pub without_rules: bool,
    /// How the secrets of a store are read; without it, no name of one is known.
    pub kept: Option<Kept>,
    /// Values come from `.dev.vars` beside the file in place of what the store keeps.
    pub dev_vars: bool,
}

type ReadKept = dyn Fn(&Path, &str, Option<&Secret>) -> Result<KeptSecrets, String> + Send + Sync;

/// Reads the secrets that the store in a directory keeps for an environment: their names, and with a key their values.
#[derive(Clone)]
pub struct Kept(Arc<ReadKept>);

impl Kept {
    #[must_use]
    pub fn new(
        read: impl Fn(&Path, &str, Option<&Secret>) -> Result<KeptSecrets, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(read))
    }

    /// As it would be without one of them.
    #[must_use]
    pub fn without(self, name: String) -> Self {
        Self::new(move |data_dir, env, key| {
            let mut kept = (self.0)(data_dir, env, key)?;
            kept.remove(&name);
            Ok(kept)
        })
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

impl Options {
    /// Names the file that is found now, so that a reload reads it again and no other one: while an editor or a
    /// deployment has taken it away, there is none.
    #[must_use]
    pub fn pinned(mut self) -> Self {
        self.file = find(&self).ok().or(self.file);
        self
    }
}

/// A configuration, and what is to be known of how it came to be.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub file: PathBuf,
    /// Every value that isn't a default: key, value (dots for a secret), where it came from.
    pub origins: Vec<(String, String, String)>,
    pub warnings: Vec<Diagnostic>,
    /// The file and all that it names: when one changes, so may the configuration.
    pub watched: Vec<PathBuf>,
    /// Where `[tls]` names its certificate, for what is found in the files.
    pub tls: Option<Diagnostic>,
}

const IN_ETC: &str = "/etc/mailworker/mailworker.toml";
/// A file larger than this is no configuration.
const LARGEST: u64 = 4 << 20;

impl Config {
    /// Finds the file (`--config`, `./mailworker.toml`, `$MAILWORKER_CONFIG`, `/etc/mailworker/mailworker.toml`), reads
    /// it, lays `[env.NAME]` and `MAILWORKER__…` over it, and checks all of it.
    ///
    /// # Errors
    /// Every finding.
    pub fn load(options: &Options) -> Result<Loaded, Vec<Diagnostic>> {
        let (loaded, found) = Self::examined(options)?;
        if found.is_empty() { Ok(loaded) } else { Err(found) }
    }

    /// As much of it as can be told in spite of its errors, for who looks for its store to say more of them; nobody runs by
    /// it.
    #[must_use]
    pub fn surmised(options: &Options) -> Option<Self> {
        Self::examined(options).ok().map(|(loaded, _)| loaded.config)
    }

    fn examined(options: &Options) -> Result<(Loaded, Vec<Diagnostic>), Vec<Diagnostic>> {
        let file = find(options).map_err(|finding| vec![*finding])?;
        let name = file.display().to_string();
        let text = read_text(&file).map_err(|error| {
            vec![in_all(&name, &format!("can't be read: {error}"), "--config FILE names another".to_owned())]
        })?;
        let full = std::path::absolute(&file).unwrap_or_else(|_| file.clone());
        let base = full.parent().unwrap_or(Path::new("/")).to_path_buf();
        let places = options.dev_vars.then(|| dev_vars_places(&base, options.env.as_deref()));
        let values = places.as_deref().map(read_dev_vars).transpose()?;
        let machine = Machine { options, looks: true, dev_vars: values };
        let (mut loaded, found) = examine(&text, &name, &base, &machine);
        loaded.watched.insert(0, full.clone());
        loaded.watched.extend(places.into_iter().flatten());
        loaded.file = full;
        Ok((loaded, found))
    }

    /// The same from a text in memory. Secrets are read; whether workers and certificates are there isn't looked at.
    ///
    /// # Errors
    /// Every finding.
    pub fn from_toml(
        text: &str,
        file_name: &str,
        base_dir: &Path,
        options: &Options,
    ) -> Result<Loaded, Vec<Diagnostic>> {
        let machine = Machine { options, looks: false, dev_vars: None };
        let (loaded, found) = examine(text, file_name, base_dir, &machine);
        if found.is_empty() { Ok(loaded) } else { Err(found) }
    }
}

/// The key for the secrets that a store keeps, as it is now.
///
/// # Errors
/// That there is none, or what is wrong with it.
pub fn sealing_key(config: &Config, options: &Options) -> Result<Secret, NoSecret> {
    read(&config.secrets_key, &config.base_dir, &Machine { options, looks: true, dev_vars: None })
}

/// `.dev.vars.NAME` alone where an environment has one, else `.dev.vars`, as wrangler does it.
fn dev_vars_places(base: &Path, env: Option<&str>) -> Vec<PathBuf> {
    let of_env = env.map(|env| base.join(format!(".dev.vars.{env}")));
    of_env.into_iter().chain([base.join(".dev.vars")]).collect()
}

fn read_dev_vars(places: &[PathBuf]) -> Result<BTreeMap<String, Secret>, Vec<Diagnostic>> {
    let Some(path) = places.iter().find(|path| path.is_file()) else { return Ok(BTreeMap::new()) };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = read_text(path).map_err(|error| vec![Diagnostic::unplaced(&name, format!("can't be read: {error}"))])?;
    dev_vars::parse(&name, &text)
}

fn find(options: &Options) -> Result<PathBuf, Box<Diagnostic>> {
    if let Some(file) = &options.file {
        return Ok(file.clone());
    }
    let named = options.environment.get("MAILWORKER_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
    let places = [Some(PathBuf::from("mailworker.toml")), named.clone(), Some(PathBuf::from(IN_ETC))];
    // A variable that names a file means that file: an error there is shown, not passed over.
    places.into_iter().flatten().find(|place| place.is_file() || Some(place) == named.as_ref()).ok_or_else(|| {
        let help = format!("`mailworker init` writes one; --config FILE or $MAILWORKER_CONFIG names one; or {IN_ETC}");
        Box::new(in_all("mailworker.toml", "there is no configuration here", help))
    })
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > LARGEST {
        return Err(format!("{size} bytes are too many for a configuration"));
    }
    let octets = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(octets).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.split(|octet| *octet == b'\n').count();
        format!("line {line} is no UTF-8 text")
    })
}

fn in_all(file: &str, message: &str, help: String) -> Diagnostic {
    Diagnostic { help: Some(help), ..Diagnostic::unplaced(file, message) }
}

/// Octets of a file that the configuration names.
const LARGEST_NAMED: u64 = 512 << 20;

/// This machine.
struct Machine<'a> {
    options: &'a Options,
    looks: bool,
    dev_vars: Option<BTreeMap<String, Secret>>,
}

impl Surroundings for Machine<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.options.environment.get(name).cloned()
    }
    fn read(&self, path: &Path) -> Result<String, String> {
        read_text(path)
    }
    fn reading(&self) -> Reading {
        self.options.secrets
    }
    fn kept(&self, data_dir: &Path, env: &str, key: Option<&Secret>) -> Result<KeptSecrets, String> {
        self.options.kept.as_ref().map_or_else(|| Ok(KeptSecrets::new()), |kept| (kept.0)(data_dir, env, key))
    }
    fn dev_vars(&self) -> Option<&BTreeMap<String, Secret>> {
        self.dev_vars.as_ref()
    }
    fn has_tls(&self) -> bool {
        !self.options.without_tls
    }
    fn has_file(&self, path: &Path) -> Option<bool> {
        self.looks.then(|| path.is_file())
    }
    fn has_worker(&self, path: &Path) -> Option<bool> {
        self.has_file(path).filter(|_| !self.options.without_rules)
    }
    fn octets(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        // What isn't there is told already.
        if !self.looks || !path.is_file() {
            return Ok(None);
        }
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if size > LARGEST_NAMED {
            return Err(format!("{size} bytes are more than {LARGEST_NAMED}"));
        }
        std::fs::read(path).map(Some).map_err(|error| error.to_string())
    }
    fn is_open_to_all(&self, path: &Path) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let readable = |metadata: std::fs::Metadata| metadata.permissions().mode() & 0o004 != 0;
        self.looks && std::fs::metadata(path).is_ok_and(readable)
    }
}

/// What it says, and every error in it.
fn examine(text: &str, name: &str, base: &Path, machine: &Machine<'_>) -> (Loaded, Vec<Diagnostic>) {
    let env = machine.options.env.as_deref();
    let mut tree = Tree::parse(name, text);
    overlays(&mut tree, name, text, env);
    for (variable, value) in machine.options.environment.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        if variable.strip_prefix(PREFIX).is_some_and(|key| key.split("__").next() == Some("ENV")) {
            let help =
                "set the key itself: MAILWORKER__LIMITS__CONNECTIONS; --env NAME chooses an environment".to_owned();
            let place = format!("environment variable {variable}");
            tree.found.push(in_all(&place, "an environment of the file isn't set by a variable", help));
            continue;
        }
        tree.set(variable, value);
    }
    let origins = origins(&tree, env.unwrap_or_default());
    let file: raw::File = decode(&mut tree);
    let places = tree.places();
    let hostname = hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut checker = Checker {
        source: &tree.source,
        places: &places,
        around: machine,
        base,
        machine: &hostname,
        errors: Vec::new(),
        holes: &tree.holes,
        warnings: Vec::new(),
        watched: Vec::new(),
        tls: None,
        kept: KeptSecrets::new(),
    };
    let config = check(file, env.unwrap_or_default(), &mut checker);
    let Checker { errors, warnings, mut watched, tls, .. } = checker;
    let mut found = std::mem::take(&mut tree.found);
    // Where the parser gave up, what is said of the rest would mislead.
    if !tree.torn {
        found.extend(errors);
    }
    for main in config.rules_mains() {
        let directory = base.join(main).parent().map(Path::to_path_buf).unwrap_or_default();
        if !watched.contains(&directory) {
            watched.push(directory);
        }
    }
    (Loaded { config, file: base.join(name), origins, warnings, watched, tls }, in_order(found))
}

/// In the order of the file; each once.
pub(super) fn in_order(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    found.sort_by(|a, b| (a.line == 0, a.line, a.column, &a.message).cmp(&(b.line == 0, b.line, b.column, &b.message)));
    found.dedup();
    found
}

/// Checks every `[env.NAME]` by itself, and lays the chosen one over the rest.
fn overlays(tree: &mut Tree<'_>, name: &str, text: &str, env: Option<&str>) {
    let overlays = tree.take_overlays();
    let Some(node) = overlays else {
        if let Some(env) = env {
            let help = format!("the file has no [env.{env}]");
            tree.found.push(in_all(name, &format!("there is no environment `{}`", env.escape_debug()), help));
        }
        return;
    };
    let Kind::Table(entries) = node.kind else {
        tree.found.push(tree.source.at(&node.origin, "expected a table", Some("[env.staging]".to_owned())));
        return;
    };
    let names: Vec<String> = entries.iter().map(|(name, _)| name.clone()).collect();
    let mut chosen = None;
    for (overlay, mut node) in entries {
        refuse_nested(tree, &mut node);
        let mut alone = Tree::parse(name, text);
        alone.found.clear();
        alone.root = node.clone();
        let _checked: raw::File = decode(&mut alone);
        tree.found.append(&mut alone.found);
        if env == Some(overlay.as_str()) {
            chosen = Some(alone.root);
        }
    }
    match (chosen, env) {
        (Some(node), _) => tree.overlay(node),
        (None, Some(env)) => {
            let help = match suggest(env, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the file has {}", names.join(", ")),
            };
            tree.found.push(in_all(name, &format!("there is no environment `{}`", env.escape_debug()), help));
        }
        (None, None) => {}
    }
}

fn refuse_nested(tree: &mut Tree<'_>, node: &mut Node) {
    let Kind::Table(entries) = &mut node.kind else { return };
    if let Some(at) = entries.iter().position(|(name, _)| name == "env") {
        let (_, nested) = entries.remove(at);
        tree.found.push(tree.source.at(&nested.key, "an environment has no environments of its own", None));
    }
}

/// Key, value and place of every value that was given.
fn origins(tree: &Tree<'_>, env: &str) -> Vec<(String, String, String)> {
    struct Walk<'a> {
        source: &'a Source<'a>,
        env: &'a str,
        found: Vec<(String, String, String)>,
    }
    fn walk(node: &Node, key: &str, sight: Sight, into: &mut Walk<'_>) {
        let value = match &node.kind {
            Kind::Table(entries) => {
                for (name, entry) in entries {
                    let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    let alone = !matches!(entry.kind, Kind::Table(_) | Kind::Array(_));
                    walk(entry, &path, sight.below(name, alone), into);
                }
                return;
            }
            Kind::Array(items) if items.iter().any(|item| matches!(item.kind, Kind::Table(_) | Kind::Array(_))) => {
                for (at, item) in items.iter().enumerate() {
                    walk(item, &format!("{key}[{at}]"), sight, into);
                }
                return;
            }
            Kind::Array(items) => {
                format!("[{}]", items.iter().map(|item| show(&item.kind)).collect::<Vec<_>>().join(", "))
            }
            kind => show(kind),
        };
        let hidden = sight.is_hidden() || super::tree::has_password(&value);
        let place = match &node.origin {
            Origin::Variable(name) => format!("environment variable {name}"),
            Origin::File { overlay, .. } => {
                let line = into.source.line_of(&node.origin).unwrap_or_default();
                let env = into.env;
                format!("{}:{line}{}", into.source.name, if *overlay { format!(" [env.{env}]") } else { String::new() })
            }
        };
        into.found.push((key.to_owned(), if hidden { "••••••".to_owned() } else { value }, place));
    }
    let mut into = Walk { source: &tree.source, env, found: Vec::new() };
    walk(&tree.root, "", Sight::Shown, &mut into);
    into.found
}

fn show(kind: &Kind) -> String {
    match kind {
        Kind::String(text) | Kind::Text(text) => format!("{text:?}"),
        Kind::Integer(number) => number.to_string(),
        Kind::Float(number) => number.to_string(),
        Kind::Boolean(value) => value.to_string(),
        Kind::Array(_) | Kind::Table(_) => "…".to_owned(),
    }
}
