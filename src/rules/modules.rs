//! Modules of rules: which file an `import` means, and the compiled modules that every run shares.
//!
//! The sources are all there is: a path names one of them or nothing. `import "lib/spam"` means `lib/spam.rhai` in the
//! importing file's folder, or else in the nearest folder above it; a path that goes up or starts at the root is
//! refused.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use rhai::{Engine, EvalAltResult, Module, ModuleResolver, Position};

/// The file that `path` means in `importer`.
///
/// # Errors
/// What is wrong with the path.
pub(super) fn resolve<'a>(
    importer: &str,
    path: &str,
    files: &'a BTreeMap<String, String>,
) -> Result<Option<&'a str>, String> {
    let path = path.strip_suffix(".rhai").unwrap_or(path);
    let path = path.strip_prefix("./").unwrap_or(path);
    let proper = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    if !path.split('/').all(proper) {
        return Err(format!("{path:?} is no path of a module: it is relative, without .. and \\"));
    }
    let mut folder = importer.rsplit_once('/').map(|(folder, _)| folder);
    loop {
        let wanted = folder.map_or_else(|| format!("{path}.rhai"), |folder| format!("{folder}/{path}.rhai"));
        if let Some((found, _)) = files.get_key_value(&wanted) {
            return Ok(Some(found));
        }
        let Some(current) = folder else { return Ok(None) };
        folder = current.rsplit_once('/').map(|(above, _)| above);
    }
}

type Compiled = BTreeMap<String, Arc<Module>>;

/// The compiled modules by importing file and path as written, filled while a release is made and fixed from then on.
#[derive(Clone, Default)]
pub(super) struct Modules(Arc<RwLock<BTreeMap<String, Compiled>>>);

impl Modules {
    /// From now on, `import path` in `importer` is `module`.
    pub fn add(&self, importer: &str, path: &str, module: Arc<Module>) {
        let mut modules = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        modules.entry(importer.to_owned()).or_default().insert(path.to_owned(), module);
    }
}

impl ModuleResolver for Modules {
    fn resolve(
        &self,
        _: &Engine,
        source: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Arc<Module>, Box<EvalAltResult>> {
        let modules = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = modules.get(source.unwrap_or_default()).and_then(|compiled| compiled.get(path)).map(Arc::clone);
        found.ok_or_else(|| Box::new(EvalAltResult::ErrorModuleNotFound(path.to_owned(), position)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_looked_for_beside_and_above_the_file() {
        let names = ["rules/main.rhai", "rules/lib/spam.rhai", "rules/lib/words.rhai", "rules/words.rhai"];
        let files = names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        let found = |importer, path| resolve(importer, path, &files).unwrap();
        assert_eq!(found("rules/main.rhai", "lib/spam"), Some("rules/lib/spam.rhai"));
        assert_eq!(found("rules/main.rhai", "./lib/spam.rhai"), Some("rules/lib/spam.rhai"));
        assert_eq!(found("rules/lib/spam.rhai", "words"), Some("rules/lib/words.rhai"));
        assert_eq!(found("rules/lib/spam.rhai", "lib/words"), Some("rules/lib/words.rhai"));
        assert_eq!(found("rules/main.rhai", "words"), Some("rules/words.rhai"));
        assert_eq!(found("rules/main.rhai", "spam"), None);
    }

    #[test]
    fn no_path_leads_out() {
        for path in ["../x", "lib/../../x", "/etc/passwd", "a//b", "", ".", "..", "a\\b", "a/./b", "a/"] {
            assert!(resolve("rules/main.rhai", path, &BTreeMap::new()).is_err(), "{path:?}");
        }
    }
}
