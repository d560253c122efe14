//! What a worker may reach: `[fetch]` and `[ai]`.

use std::time::Duration;

use super::super::decode::At;
use super::super::defaults::AI_TIMEOUT;
use super::super::reach::chat_url;
use super::super::{Ai, Fetch, raw};
use super::{Checker, plain};

impl Checker<'_> {
    pub(super) fn fetch(&mut self, raw: raw::Fetch) -> Fetch {
        let default = Fetch::default();
        Fetch {
            allow: raw.allow.map(plain),
            timeout: self.time(raw.timeout.as_ref(), default.timeout),
            concurrency: self.count(raw.concurrency.as_ref(), default.concurrency, 1),
        }
    }

    pub(super) fn ai(&mut self, At { value: raw, node }: At<raw::Ai>, wall_clock: Duration) -> Option<Ai> {
        let timeout = self.time(raw.timeout.as_ref(), AI_TIMEOUT);
        if let Some(at) = raw.timeout.as_ref().filter(|at| at.value.0 >= wall_clock) {
            let help = "less than `[budget] wall_clock`, or a script has no time left to do without an answer";
            self.warn(at.node, "a run is over before this has passed", Some(help));
        }
        if let Some(at) = raw.model.as_ref().filter(|at| at.value.trim().is_empty()) {
            self.error(at.node, "the model has no name", Some("leave the key out where each script names its own"));
        }
        let api_key = self.secrets(raw.api_key.as_ref(), false).into_iter().next();
        let Some(url) = raw.url else {
            self.lack(node, &["url"], "[ai] has no `url`", "url = \"https://api.openai.com/v1\"");
            return None;
        };
        let url = chat_url(url.value.0.0);
        Some(Ai { url, model: raw.model.map(|at| at.value), api_key, timeout })
    }
}
