//! `explain ID`: what became of a message that came in, and what the rules as they are now would make of it.

use std::sync::Arc;

use serde_json::json;

use super::inquiry;
use super::recorder::Recorder;
use super::{as_json, tell, tell_lines};
use crate::cli::args::Explain;
use crate::cli::print::{self, BOLD, DIM, Painted, plain};
use crate::cli::{Done, Failure, access, messages};
use crate::clock;
use crate::intake::Snapshot;
use crate::intake::foresee::{Past, again};
use crate::mail::{Message, MessageId};
use crate::replay::{Since, since};
use crate::rules::{KvView, Seed};

pub fn run(options: &Explain, snapshot: &Arc<Snapshot>, id: MessageId, recorder: &Recorder) -> Done {
    let is_other = options.from.is_some() || options.to.is_some() || options.message.is_some();
    if is_other || options.ip.is_some() || options.helo.is_some() {
        let text = "a message that came in has its own envelope, client and octets: leave --from, --to, --ip, --helo and \
                    --message";
        return Err(Failure::Usage(text.to_owned()));
    }
    let reader = access::reader(&snapshot.config)?;
    let detail = reader.message(id)?;
    if !options.machine.json {
        messages::one(&detail)?;
    }
    let body = reader.body(id)?;
    let client = body.client.ok_or_else(|| Failure::failed("a message of our own: no rules decided on it"))?;
    let message = Arc::new(Message::new(body.raw.load()?));
    let reach = inquiry::reach(&snapshot.config, options.offline);
    let past = Past { id, envelope: body.envelope, client, message, seed: Seed::default().of(&id), reach };
    let keys: KvView = Arc::new(reader);
    let seen = {
        let _then = clock::stop(id.timestamp());
        again(snapshot, &past, &recorder.watching(keys, snapshot))
    };
    let compared = since(&detail.trace, &past, &seen);
    let lines = recorder.take();
    if options.machine.json {
        let now: Vec<_> = compared
            .iter()
            .zip(&seen)
            .map(|((recipient, since), seen)| {
                let change = match since {
                    Since::Same => json!(null),
                    Since::Unrecorded => json!("not recorded"),
                    Since::Changed(kind) => json!(kind),
                };
                as_json(seen, snapshot, [("recipient", json!(recipient)), ("change", change)])
            })
            .collect();
        return print::json(&json!({ "message": detail, "now": now, "lines": lines }));
    }
    let note = "by its own time; keys as they are now, limits from none";
    print::line(format_args!("\n{}  {}", Painted(BOLD, "now, by the rules as they are"), Painted(DIM, note)))?;
    for ((recipient, since), seen) in compared.iter().zip(&seen) {
        let change = match since {
            Since::Same => "as it was".to_owned(),
            Since::Unrecorded => "the trace has no decision to compare with".to_owned(),
            Since::Changed(kind) => kind.clone(),
        };
        print::line(format_args!("{}  {change}", Painted(BOLD, plain(recipient.as_str()))))?;
        tell(seen)?;
    }
    tell_lines(&lines)
}
