//! `env.limit`: whether something may happen once more, counted at once and not with the message.
//!
//! The counting is lent by the caller, as keys are. A run that is repeated asks the same question again, and counts
//! once.

use rhai::{Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::env::EnvView;
use super::run::{ScriptResult, beginning, refuse};
use crate::kv::{Limit, MAX_KEY};

/// Questions of one run; octets of a name; how many of what, and for how long.
const MAX_QUESTIONS: u64 = 100;
const MAX_NAME: usize = 64;
const MAX_COUNT: u32 = 1_000_000;
const MAX_DAYS: u64 = 31;

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("limit", limit);
}

fn limit(
    context: NativeCallContext,
    env: &mut EnvView,
    name: ImmutableString,
    key: ImmutableString,
    rate: ImmutableString,
) -> ScriptResult<Map> {
    let run = env.run();
    let wrong = |why: String| refuse(&context, format!("limit: {why}"));
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(wrong(format!("the name has 1 to {MAX_NAME} octets, this has {}", name.len())));
    }
    if key.len() > MAX_KEY {
        return Err(wrong(format!("the key has at most {MAX_KEY} octets, this has {}", key.len())));
    }
    let (most, per) = rated(&rate).map_err(wrong)?;
    let mut state = run.state();
    state.questions += 1;
    let nth = state.questions;
    drop(state);
    if nth > MAX_QUESTIONS {
        return Err(run.overrun(&context, format!("more than {MAX_QUESTIONS} limits asked for in one run")));
    }
    let once = run.seed.mark(nth);
    let counted = run.keys(|keys| keys.count(&Limit { name: &name, key: &key, most, per, now: run.now, once }));
    Ok(Map::from([
        ("allowed".into(), counted.allowed.into()),
        ("remaining".into(), Dynamic::from(i64::from(counted.remaining))),
        ("reset_at".into(), Dynamic::from(counted.reset_at.as_millis())),
    ]))
}

/// `100/hour`, `5/10 minutes`: how many, in how many milliseconds.
fn rated(rate: &str) -> Result<(u32, u64), String> {
    let help = || {
        let shown = beginning(rate, 40);
        format!("{shown:?} is no rate: write \"100/hour\", \"5/10 minutes\", \"1/day\"")
    };
    let (most, per) = rate.split_once('/').ok_or_else(help)?;
    let most: u32 = most.trim().parse().ok().filter(|most| (1..=MAX_COUNT).contains(most)).ok_or_else(help)?;
    let per = per.trim();
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
    let per = humantime::parse_duration(&per).map_err(|_| help())?;
    if per.as_secs() == 0 || per.as_secs() > MAX_DAYS * 86_400 {
        return Err(format!("a limit is for a second to {MAX_DAYS} days"));
    }
    Ok((most, per.as_secs().saturating_mul(1000)))
}
