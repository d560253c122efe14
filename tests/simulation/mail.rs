//! What is sent, and what must come of it: the worker that runs in every simulation is small enough to be foretold.

use bytes::Bytes;

use crate::plan::{HOUR, Plan, QUICK, text};

/// The worker. The last part of each local part is the mail's group, which must be found again wherever it goes.
pub const WORKER: &str = r#"
fn rcpt_to(session, rcpt, env) {
    if rcpt.local.starts_with("nobody") { session.reject("Nobody of that name"); }
}

fn email(message, env, ctx) {
    let parts = message.to.local.split(".");
    let group = parts[parts.len() - 1];
    let hop = `${group}@hop${parts[1]}.example`;
    switch parts[0] {
        "to" => message.forward(hop),
        "hook" => {
            ctx.webhook(`http://ear${parts[1]}.example/${group}`, #{ group: group });
            message.drop();
        }
        "named" => {
            ctx.webhook(env.EAR, #{ group: group });
            message.drop();
        }
        "both" => {
            message.forward(hop);
            ctx.webhook(env.EAR, #{ group: group });
        }
        "count" => {
            env.COUNTS.put("all", (env.COUNTS.get("all") ?? 0) + 1);
            message.forward(hop, #{ "X-Counted": "yes" });
        }
        "moody" => {
            if env.COUNTS.get("open") == () { message.defer("not in the mood"); return; }
            message.forward(hop);
        }
        "open" => {
            env.COUNTS.put("open", true);
            message.store();
        }
        "keep" => message.store(),
        "no" => message.set_reject("No"),
        _ => throw "what?",
    }
}
"#;

#[derive(Debug, Clone)]
pub struct Mail {
    /// Those that are alike in every octet.
    pub group: usize,
    pub client: usize,
    /// When it is first sent.
    pub at: u64,
    pub recipients: Vec<String>,
    pub octets: Bytes,
    pub expects: Vec<Expect>,
}

/// What comes of a message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// It goes on to this one of that hop's.
    Hop { hop: usize, recipient: String },
    /// That endpoint is told of the group. `named` by the configuration.
    Ear { ear: usize, named: bool },
    /// It is counted.
    Counted,
    /// The worker isn't always in the mood; then as `Hop`.
    Moody { hop: usize, recipient: String },
    /// The sender is told that it was refused.
    Refused,
}

impl Mail {
    pub fn sender(&self) -> String {
        format!("me@client{}.example", self.client)
    }

    /// All of it is refused, by decision.
    pub fn is_refused(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.starts_with("no"))
    }
}

pub fn draw(rng: &mut fastrand::Rng, plan: &Plan) -> Vec<Mail> {
    let mut mails: Vec<Mail> = Vec::new();
    for group in 0..rng.usize(10..80) {
        let client = rng.usize(0..plan.clients.len());
        let at = rng.u64(0..plan.calm_from);
        // Now and then all at once.
        let at = if rng.u8(0..3) == 0 { mails.last().map_or(at, |last| last.at) } else { at };
        let mail = mail(rng, plan, group, client, at);
        let twins = if rng.u8(0..8) == 0 { rng.usize(1..4) } else { 0 };
        for _ in 0..twins {
            // An equal one by the same sender, soon or late.
            let later = if rng.bool() { 0 } else { rng.u64(0..HOUR) };
            mails.push(Mail { at: (at + later).min(plan.calm_from), ..mail.clone() });
        }
        mails.push(mail);
    }
    // Once the worker is in the mood it stays so.
    let group = mails.last().map_or(0, |last| last.group + 1);
    let at = rng.u64(0..=plan.calm_from);
    let mut open = mail(rng, plan, group, 0, at);
    (open.recipients, open.expects) = (vec![format!("open.g{group}@sim.example")], Vec::new());
    mails.push(open);
    mails
}

fn mail(rng: &mut fastrand::Rng, plan: &Plan, group: usize, client: usize, at: u64) -> Mail {
    let size = match rng.usize(0..12) {
        0 => rng.usize(0..4),
        1 => rng.usize(60_000..200_000),
        _ => rng.usize(50..4000),
    };
    let mut octets = format!("Subject: g{group}\r\nX-Group: g{group}\r\n\r\n").into_bytes();
    octets.extend_from_slice(&text(rng, size));
    let (mut recipients, mut expects) = (Vec::new(), Vec::new());
    let many = if rng.u8(0..3) == 0 { rng.usize(2..6) } else { 1 };
    for _ in 0..many {
        let (recipient, expected) = recipient(rng, plan, group);
        if !recipients.contains(&recipient) {
            recipients.push(recipient);
            expects.extend(expected);
        }
    }
    Mail { group, client, at, recipients, octets: octets.into(), expects }
}

fn recipient(rng: &mut fastrand::Rng, plan: &Plan, group: usize) -> (String, Vec<Expect>) {
    let hop = if rng.u8(0..4) == 0 { QUICK } else { rng.usize(0..plan.hops.len()) };
    let ear = rng.usize(0..plan.ears.len());
    let onward = Expect::Hop { hop, recipient: format!("g{group}@hop{hop}.example") };
    let named = Expect::Ear { ear: 0, named: true };
    let (local, expects) = match rng.usize(0..20) {
        0..10 => (format!("to.{hop}"), vec![onward]),
        10 | 11 => (format!("hook.{ear}"), vec![Expect::Ear { ear, named: false }]),
        12 => ("named".to_owned(), vec![named]),
        13 => (format!("both.{hop}"), vec![onward, named]),
        14 | 15 => (format!("count.{hop}"), vec![onward, Expect::Counted]),
        16 => (format!("moody.{hop}"), vec![Expect::Moody { hop, recipient: format!("g{group}@hop{hop}.example") }]),
        17 => ("keep".to_owned(), Vec::new()),
        18 => ("no".to_owned(), vec![Expect::Refused]),
        _ => ("nobody".to_owned(), Vec::new()),
    };
    (format!("{local}.g{group}@sim.example"), expects)
}
