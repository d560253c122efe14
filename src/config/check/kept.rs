//! Secrets that the store keeps, and what stands in `.dev.vars` in their place: opened once, before anything needs one.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::secret::{KeptSecrets, KeySource, one_line};
use super::{At, Checker, NoSecret, Reading, Secret, SecretSource, placeholder, read};
use crate::config::{Destination, Webhook};
use crate::diagnostic::{Diagnostic, Severity, suggest};

impl Checker<'_> {
    /// Opens what is kept for this environment. Returns where the key for it is.
    pub(super) fn open_kept(&mut self, data_dir: &Path, env: &str, key: Option<At<KeySource>>) -> SecretSource {
        let node = key.as_ref().map(|at| at.node);
        let source = key.map_or_else(|| super::Config::default().secrets_key, |at| at.value.0);
        self.kept = match (self.around.kept(data_dir, env, None), self.around.dev_vars()) {
            (names, Some(values)) => self.for_development(names.unwrap_or_default(), values.clone()),
            (Ok(names), None) if names.is_empty() || self.around.reading() == Reading::Unread => names,
            (Ok(names), None) => self.opened(names, (data_dir, env), &source, node),
            (Err(_), None) if self.around.reading() == Reading::Unread => KeptSecrets::new(),
            (Err(why), None) => {
                self.not_opened(node, &why);
                KeptSecrets::new()
            }
        };
        source
    }

    fn opened(
        &mut self,
        names: KeptSecrets,
        (data_dir, env): (&Path, &str),
        source: &SecretSource,
        node: Option<u32>,
    ) -> KeptSecrets {
        if let SecretSource::File(path) = source {
            let path = self.base.join(path);
            self.warn_if_open(node.unwrap_or_default(), &path);
            self.watched.push(path);
        }
        let key = read(source, self.base, self.around).map_err(|(NoSecret::Missing(why) | NoSecret::Wrong(why))| {
            let (what, help) = why.split_once('\n').unwrap_or((why.as_str(), ""));
            let first = names.keys().next().map(String::as_str).unwrap_or_default();
            format!("the secrets that the store keeps ({first}, …) can't be opened: {what}\n{help}")
        });
        match key.and_then(|key| self.around.kept(data_dir, env, Some(&key))) {
            Ok(values) => values,
            Err(why) => {
                self.not_opened(node, &why);
                names
            }
        }
    }

    /// In development a value comes from `.dev.vars` or isn't there; a name that the server knows is known here, too.
    fn for_development(&mut self, mut names: KeptSecrets, values: BTreeMap<String, Secret>) -> KeptSecrets {
        for name in names.keys().filter(|name| !values.contains_key(*name)) {
            if self.around.reading() != Reading::Unread {
                let help = Some(format!("write {name}=… into .dev.vars beside the configuration"));
                let message = format!("the secret {name} has no value here: a placeholder stands for it");
                let finding = Diagnostic::unplaced(".dev.vars", message);
                self.warnings.push(Diagnostic { severity: Severity::Warning, help, ..finding });
            }
        }
        names.extend(values.into_iter().map(|(name, value)| (name, Some(value))));
        names
    }

    fn not_opened(&mut self, node: Option<u32>, why: &str) {
        if let Some(node) = node {
            return self.missing(node, why);
        }
        let (message, help) = why.split_once('\n').unwrap_or((why, ""));
        let finding = Diagnostic::unplaced(self.source.name, message);
        let finding = Diagnostic { help: Some(help.to_owned()).filter(|help| !help.is_empty()), ..finding };
        if self.around.reading() == Reading::Needed {
            self.errors.push(finding);
        } else {
            self.warnings.push(Diagnostic { severity: Severity::Warning, ..finding });
        }
    }

    /// What `{ secret = "NAME" }` means.
    pub(super) fn kept_secret(&self, name: &str) -> Result<Secret, NoSecret> {
        match self.kept.get(name) {
            Some(Some(value)) => one_line(value.expose()),
            Some(None) => Ok(placeholder()),
            None => {
                let meant = suggest(name, self.kept.keys().map(String::as_str));
                let help = meant.map_or_else(
                    || "put it: mailworker secret put NAME".to_owned(),
                    |meant| format!("did you mean {meant}? or put it: mailworker secret put NAME"),
                );
                Err(NoSecret::Missing(format!("no secret of this name is kept\n{help}")))
            }
        }
    }

    /// The variables without those for which `.dev.vars` has a value. A secret and something else of one name are an
    /// error.
    pub(super) fn without_secrets(
        &mut self,
        mut vars: BTreeMap<String, At<serde_json::Value>>,
        namespaces: &[At<String>],
        webhooks: &[At<Webhook>],
        destinations: &[At<Destination>],
    ) -> BTreeMap<String, At<serde_json::Value>> {
        if let Some(values) = self.around.dev_vars() {
            vars.retain(|name, _| !values.contains_key(name));
        }
        let all = (vars.iter().map(|(name, at)| (name.as_str(), at.node)))
            .chain(namespaces.iter().map(|at| (at.value.as_str(), at.node)))
            .chain(webhooks.iter().map(|at| (at.value.binding.as_str(), at.node)))
            .chain(destinations.iter().map(|at| (at.value.name.as_str(), at.node)));
        for (name, node) in all.filter(|(name, _)| self.kept.contains_key(*name)).collect::<Vec<_>>() {
            let help =
                format!("a worker finds both as env.NAME: rename this one, or `mailworker secret delete {name}`");
            self.error(node, &format!("`{name}` is the name of a secret already"), Some(&help));
        }
        vars
    }

    /// All that is kept, with a placeholder where there is no value.
    pub(super) fn take_kept(&mut self) -> BTreeMap<String, Secret> {
        let kept = std::mem::take(&mut self.kept);
        kept.into_iter().map(|(name, value)| (name, value.unwrap_or_else(placeholder))).collect()
    }
}
