//! `auth` of a route: who the sender has to have proved to be, by what was found out when the message was there.
//!
//! Pure. Where nobody looks into a client every result is `none`, as a worker reads it. `temperror` (DNS did not answer) is
//! neither a pass nor a failure: what doesn't name it isn't known then.
//! Standards: RFC 8601 §2.7 (the words).

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::decode::At;
use super::super::leaf::Leaf;
use super::{Held, Many};
use crate::diagnostic::suggest;
use crate::mail::Authentication;
use crate::mail::authentication::Check;

/// As it is written: all of it must hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// true: SPF or DKIM speaks for the domain of From; false: neither does.
    pub passed: Option<bool>,
    /// Whether the client's address has a name that leads back to it: a result, or a list of them, as for those below.
    pub iprev: Option<At<Many<Check>>>,
    /// Of MAIL FROM.
    pub spf: Option<At<Many<Check>>>,
    /// Of the name in EHLO.
    pub spf_helo: Option<At<Many<Check>>>,
    /// Of any of the signatures; "none" where there is none.
    pub dkim: Option<At<Many<Check>>>,
    /// Of the domain of From.
    pub dmarc: Option<At<Many<Check>>>,
    /// Of the chain of forwarders.
    pub arc: Option<At<Many<Check>>>,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Iprev,
    Spf,
    SpfHelo,
    Dkim,
    Dmarc,
    Arc,
}

impl Method {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Iprev => "iprev",
            Self::Spf => "spf",
            Self::SpfHelo => "spf_helo",
            Self::Dkim => "dkim",
            Self::Dmarc => "dmarc",
            Self::Arc => "arc",
        }
    }

    /// What it never comes to (RFC 8601 §2.7).
    #[must_use]
    pub fn is_never(self, result: Check) -> bool {
        match self {
            Self::Iprev | Self::Dmarc | Self::Arc => {
                matches!(result, Check::SoftFail | Check::Neutral | Check::Policy)
            }
            Self::Spf | Self::SpfHelo => false,
            Self::Dkim => result == Check::SoftFail,
        }
    }

    /// What it came to; of DKIM each signature.
    fn of(self, auth: &Authentication) -> Vec<Check> {
        match self {
            Self::Iprev => vec![auth.iprev.result],
            Self::Spf => vec![auth.spf.result],
            Self::SpfHelo => vec![auth.spf_helo.result],
            Self::Dkim if auth.dkim.is_empty() => vec![Check::None],
            Self::Dkim => auth.dkim.iter().map(|signature| signature.result).collect(),
            Self::Dmarc => vec![auth.dmarc.result],
            Self::Arc => vec![auth.arc.result],
        }
    }
}

/// What has to be proved; nothing where it is empty.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    pub passed: Option<bool>,
    /// Any of the results does.
    pub results: Vec<(Method, Vec<Check>)>,
}

impl Proof {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.passed.is_none() && self.results.is_empty()
    }

    pub(super) fn held(&self, auth: Option<&Authentication>) -> Held {
        let unknown = Authentication::default();
        let auth = auth.unwrap_or(&unknown);
        let spoken_for = self.passed.map_or(Held::Yes, |wanted| match (auth.passed(), wanted) {
            (true, wanted) => Held::when(wanted),
            (false, _) if auth.may_pass_later() => Held::Unknown,
            (false, wanted) => Held::when(!wanted),
        });
        self.results.iter().fold(spoken_for, |held, (method, wanted)| held.and(|| found(*method, wanted, auth)))
    }

    /// What it was that held, in words.
    pub(super) fn why(&self, auth: Option<&Authentication>) -> Vec<String> {
        let unknown = Authentication::default();
        let auth = auth.unwrap_or(&unknown);
        let spoken_for = self.passed.map(|_| passed(auth).to_owned());
        spoken_for.into_iter().chain(self.results.iter().map(|(method, wanted)| told(*method, wanted, auth))).collect()
    }

    /// What it was that didn't.
    pub(super) fn against(&self, auth: Option<&Authentication>) -> Option<String> {
        let unknown = Authentication::default();
        let auth = auth.unwrap_or(&unknown);
        let by_result = || {
            self.results.iter().find(|(method, wanted)| found(*method, wanted, auth) != Held::Yes).map(
                |(method, wanted)| {
                    let words: Vec<&str> = wanted.iter().map(|check| check.word()).collect();
                    format!("{}, not {}", told(*method, wanted, auth), words.join(" or "))
                },
            )
        };
        let alone = Self { passed: self.passed, results: Vec::new() };
        if alone.held(Some(auth)) == Held::Yes { by_result() } else { Some(passed(auth).to_owned()) }
    }
}

/// Whether one of the results is among those that are wanted.
fn found(method: Method, wanted: &[Check], auth: &Authentication) -> Held {
    let results = method.of(auth);
    if results.iter().any(|result| wanted.contains(result)) {
        Held::Yes
    } else if results.contains(&Check::TempError) {
        Held::Unknown
    } else {
        Held::No
    }
}

/// `dmarc=fail`; of several signatures what was wanted, else all of them.
fn told(method: Method, wanted: &[Check], auth: &Authentication) -> String {
    let results = method.of(auth);
    let shown = match results.iter().find(|result| wanted.contains(result)) {
        Some(one) => one.word().to_owned(),
        None => results.iter().map(|result| result.word()).collect::<Vec<_>>().join("+"),
    };
    format!("{}={shown}", method.name())
}

fn passed(auth: &Authentication) -> &'static str {
    match (auth.passed(), auth.may_pass_later()) {
        (true, _) => "sender proved",
        (false, true) => "sender not proved, for want of an answer from DNS",
        (false, false) => "sender not proved",
    }
}

impl Written {
    /// The results that are wanted, each method's with its place.
    pub fn results(self) -> impl Iterator<Item = (Method, At<Many<Check>>)> {
        let Self { passed: _, iprev, spf, spf_helo, dkim, dmarc, arc } = self;
        let named = [
            (Method::Iprev, iprev),
            (Method::Spf, spf),
            (Method::SpfHelo, spf_helo),
            (Method::Dkim, dkim),
            (Method::Dmarc, dmarc),
            (Method::Arc, arc),
        ];
        named.into_iter().filter_map(|(method, wanted)| Some((method, wanted?)))
    }
}

impl Leaf for Check {
    const WHAT: &'static str = "a result such as \"pass\"";
    const EXAMPLE: &'static str = "pass";
    const CHOICES: &'static [&'static str] =
        &["none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror"];

    fn parse(text: &str) -> Result<Self, String> {
        Self::of_word(text).ok_or_else(|| {
            let help = match suggest(text, Self::CHOICES.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("the results are {}", Self::CHOICES.join(", ")),
            };
            format!("`{}` is no result of a check\n{help}", text.escape_debug())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::authentication::{Dkim, Dmarc, Spf};

    fn proof(results: &[(Method, &[Check])]) -> Proof {
        let results = results.iter().map(|(method, wanted)| (*method, wanted.to_vec())).collect();
        Proof { passed: None, results }
    }

    #[test]
    fn every_word_can_be_written() {
        assert_eq!(Check::ALL.map(Check::word), Check::CHOICES);
    }

    #[test]
    fn any_signature_does_and_none_stands_for_no_signature() {
        let signature = |result| Dkim { result, ..Dkim::default() };
        let wanted = proof(&[(Method::Dkim, &[Check::Pass])]);
        let mut auth = Authentication::default();
        assert_eq!(wanted.held(Some(&auth)), Held::No);
        assert_eq!(proof(&[(Method::Dkim, &[Check::None])]).held(Some(&auth)), Held::Yes);
        auth.dkim = vec![signature(Check::Fail), signature(Check::TempError)];
        assert_eq!(wanted.held(Some(&auth)), Held::Unknown);
        assert_eq!(wanted.against(Some(&auth)).unwrap(), "dkim=fail+temperror, not pass");
        auth.dkim.push(signature(Check::Pass));
        assert_eq!(wanted.held(Some(&auth)), Held::Yes);
        assert_eq!(wanted.why(Some(&auth)), ["dkim=pass"]);
    }

    #[test]
    fn a_dns_that_does_not_answer_is_neither_a_pass_nor_a_failure_but_where_it_is_named() {
        let dmarc = Dmarc { result: Check::TempError, ..Dmarc::default() };
        let auth = Authentication { dmarc, ..Authentication::default() };
        for (wanted, held) in [
            (&[Check::Pass][..], Held::Unknown),
            (&[Check::Fail], Held::Unknown),
            (&[Check::Fail, Check::TempError], Held::Yes),
        ] {
            assert_eq!(proof(&[(Method::Dmarc, wanted)]).held(Some(&auth)), held, "{wanted:?}");
        }
        for wanted in [true, false] {
            let proof = Proof { passed: Some(wanted), results: Vec::new() };
            assert_eq!(proof.held(Some(&auth)), Held::Unknown, "{wanted}");
        }
        let spf = Spf { result: Check::Fail, ..Spf::default() };
        let auth = Authentication { spf, ..auth };
        let both = proof(&[(Method::Dmarc, &[Check::Pass]), (Method::Spf, &[Check::Pass])]);
        assert_eq!(both.held(Some(&auth)), Held::No, "whatever DMARC comes to");
    }

    /// Whose DNS it is that doesn't answer is for the sender to choose, where it isn't that of the author.
    #[test]
    fn a_dns_of_somebody_elses_leaves_nothing_open() {
        let refused = Proof { passed: Some(false), results: Vec::new() };
        let spf = |result, domain: &str| Spf { result, domain: domain.into(), ..Spf::default() };
        let dmarc = |result| Dmarc { result, domain: "bank.example".into(), ..Dmarc::default() };
        let foreign = Dkim { result: Check::TempError, domain: "evil.example".into(), ..Dkim::default() };
        let own = Dkim { aligned: true, domain: "bank.example".into(), ..foreign.clone() };
        let away = Check::TempError;
        for (spf, dkim, dmarc, held) in [
            (spf(away, "evil.example"), None, dmarc(Check::None), Held::Yes),
            (spf(Check::Fail, "evil.example"), Some(&foreign), dmarc(Check::Fail), Held::Yes),
            (spf(away, "evil.example"), Some(&foreign), dmarc(Check::PermError), Held::Yes),
            (spf(away, "bank.example"), Some(&own), dmarc(Check::Fail), Held::Yes),
            (spf(away, ""), None, Dmarc::default(), Held::Yes),
            (spf(Check::None, ""), Some(&own), dmarc(Check::None), Held::Unknown),
            (spf(away, "Mail.Bank.example"), None, dmarc(Check::None), Held::Unknown),
            (spf(Check::Fail, "evil.example"), None, dmarc(away), Held::Unknown),
        ] {
            let auth = Authentication { spf, dkim: dkim.into_iter().cloned().collect(), dmarc, ..Default::default() };
            assert_eq!(refused.held(Some(&auth)), held, "{auth:?}");
            let wants_of_dns = passed(&auth).contains("for want of an answer");
            assert_eq!(wants_of_dns, held == Held::Unknown, "{auth:?}");
        }
    }
}
