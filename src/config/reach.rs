//! What a worker's `fetch` and `ai` may reach: `[fetch]` and `[ai]`.
//!
//! Pure. A pattern is held against a URL that was parsed, never against its text.

use std::time::Duration;

use url::Url;

use super::Secret;
use super::leaf::Leaf;

/// `[fetch]`
#[derive(Debug, Clone)]
pub struct Fetch {
    /// What may be fetched; `None`: whatever has a public address.
    pub allow: Option<Vec<Reachable>>,
    /// For one request that says no other.
    pub timeout: Duration,
    /// Requests at once, of all runs: `fetch`, `ai` and look-ups.
    pub concurrency: usize,
}

impl Fetch {
    /// Whether this URL may be fetched. Whether its address may be connected to is asked when it is known.
    #[must_use]
    pub fn allows(&self, url: &Url) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.iter().any(|pattern| pattern.matches(url)))
    }
}

/// `[ai]`: an endpoint that speaks OpenAI's chat completions.
#[derive(Clone)]
pub struct Ai {
    /// With the path of chat completions.
    pub url: Url,
    pub model: Option<String>,
    pub api_key: Option<Secret>,
    pub timeout: Duration,
}

/// What follows the host may be a key.
impl std::fmt::Debug for Ai {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ai")
            .field("host", &self.url.host_str())
            .field("model", &self.model)
            .field("api_key", &self.api_key)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Where chat completions are, below what is called the base URL.
const CHAT: &str = "/chat/completions";

/// The base URL as servers document it, `https://api.openai.com/v1`, or all of it.
#[must_use]
pub fn chat_url(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(CHAT) {
        url.set_path(&format!("{path}{CHAT}"));
    }
    url
}

/// One entry of `[fetch] allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachable {
    /// With a scheme, port and path count, too.
    base: Option<Base>,
    /// In lower case and A-labels.
    host: String,
    /// `*.host`: what is below it, and not itself.
    below: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Base {
    scheme: String,
    port: Option<u16>,
    /// Ends with `/`, or is all of the path.
    path: String,
}

impl Reachable {
    #[must_use]
    pub fn matches(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        let is_host = if self.below {
            host.strip_suffix(&self.host).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.host
        };
        is_host && self.base.as_ref().is_none_or(|base| base.matches(url))
    }
}

impl Base {
    fn matches(&self, url: &Url) -> bool {
        let path = url.path();
        // `/v1%2f..` is another segment to us and may be none to the server.
        let plain = !path.to_ascii_lowercase().contains("%2f") && !path.to_ascii_lowercase().contains("%2e");
        let below = path.strip_prefix(&self.path);
        let within = below.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'));
        url.scheme() == self.scheme && url.port_or_known_default() == self.port && within && (plain || self.path == "/")
    }
}

impl Leaf for Reachable {
    const WHAT: &'static str = "a host, or a URL that others begin with";
    const EXAMPLE: &'static str = "api.example.com";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{what}\nwrite it as \"api.example.com\", \"*.example.com\" or \"https://api.example.com/v1/\"")
        };
        let has_scheme = text.contains("://");
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        if !matches!(scheme, "http" | "https") {
            return Err(wrong("only http and https can be fetched"));
        }
        let (below, rest) = rest.strip_prefix("*.").map_or((false, rest), |rest| (true, rest));
        if rest.contains('*') {
            return Err(wrong("a `*` stands only before all the rest of a host"));
        }
        let url = Url::parse(&format!("{scheme}://{rest}"))
            .map_err(|error| wrong(&format!("this is no host or URL: {error}")))?;
        if !has_scheme && (url.path() != "/" || url.port().is_some() || rest.contains(['/', '@', '?', '#'])) {
            return Err(wrong("a port or path needs its scheme before it"));
        }
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("nothing but scheme, host, port and path counts"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("the host is missing"))?;
        if below && url.domain().is_none() {
            return Err(wrong("there is nothing below an address"));
        }
        let base = has_scheme.then(|| Base {
            scheme: scheme.to_owned(),
            port: url.port_or_known_default(),
            path: url.path().to_owned(),
        });
        Ok(Self { base, host: host.trim_end_matches('.').to_owned(), below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, url: &str) -> bool {
        Reachable::parse(pattern).unwrap().matches(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_host_is_that_host_on_any_port() {
        for url in ["https://api.example.com/x", "http://API.example.com.:8080", "https://u:p@api.example.com/?q"] {
            assert!(allows("api.example.com", url), "{url}");
        }
        for url in [
            "https://example.com",
            "https://a.api.example.com",
            "https://api.example.com.evil.test",
            "https://evilapi.example.com",
        ] {
            assert!(!allows("api.example.com", url), "{url}");
        }
    }

    #[test]
    fn a_star_is_what_is_below() {
        assert!(allows("*.example.com", "https://a.b.example.com/"));
        for url in
            ["https://example.com", "https://evilexample.com", "https://example.com.evil.test", "https://.example.com"]
        {
            assert!(Url::parse(url).map_or(true, |_| !allows("*.example.com", url)), "{url}");
        }
    }

    #[test]
    fn a_url_is_what_begins_with_it() {
        let pattern = "https://api.example.com/v1";
        for url in
            ["https://api.example.com/v1", "https://api.example.com/v1/users?x=/v2", "https://api.example.com:443/v1/"]
        {
            assert!(allows(pattern, url), "{url}");
        }
        for url in [
            "http://api.example.com/v1",
            "https://api.example.com:8443/v1",
            "https://api.example.com/v10",
            "https://api.example.com/v1/../v2",
            "https://api.example.com/v1/%2e%2e/v2",
            "https://api.example.com/v1/..%2fv2",
            "https://api.example.com@evil.test/v1",
            "https://evil.test/v1",
        ] {
            assert!(!allows(pattern, url), "{url}");
        }
        assert!(allows("http://127.0.0.1:8080/", "http://127.0.0.1:8080/a"));
        assert!(allows("http://[::1]:8080", "http://[::1]:8080/a"));
    }

    #[test]
    fn what_is_no_pattern_says_what_is() {
        for text in [
            "",
            "*",
            "ftp://example.com",
            "example.com/v1",
            "example.com:80",
            "a.*.example.com",
            "https://",
            "https://u:p@h/",
            "*.127.0.0.1",
        ] {
            assert!(Reachable::parse(text).unwrap_err().contains("write it as"), "{text}");
        }
    }

    #[test]
    fn the_base_url_is_enough() {
        for (given, all) in [
            ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
            ("http://127.0.0.1:11434/v1/", "http://127.0.0.1:11434/v1/chat/completions"),
            (
                "https://x.example/openai/chat/completions?api-version=1",
                "https://x.example/openai/chat/completions?api-version=1",
            ),
        ] {
            assert_eq!(chat_url(Url::parse(given).unwrap()).as_str(), all);
        }
    }
}
