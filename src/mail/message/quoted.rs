//! What is new in an answer: the text without what it quotes and without the signature.
//!
//! Lines with `>` are quoted, with the line that names their author; so is all that follows what programs put before a
//! message that they answer («-----Original Message-----», a block of From, Sent, Subject). Where nothing new would be
//! left, nothing is taken away. Bound: the first 256 KiB are looked at; no line is looked at more than a few times.
//! Standards: RFC 3676 §4.3 (the signature's `-- `) and §4.5 (quoting).

use serde::Serialize;

/// Octets that are looked at.
const MAX_TEXT: usize = 256 * 1024;
/// Lines that the head of an original may take, empty ones included.
const MAX_HEAD: usize = 14;
/// Lines that one naming of an author may take, and its octets.
const MAX_NAMING: usize = 4;
const MAX_NAMED: usize = 400;

/// «wrote», in a line that ends with a colon and holds a date or an address.
const WROTE: &[&str] = &[
    "wrote",
    "schrieb",
    "a écrit",
    "escribió",
    "escreveu",
    "ha scritto",
    "schreef",
    "skrev",
    "kirjoitti",
    "napisał",
    "pisze",
    "napsal",
    "írta",
    "a scris",
    "yazdı",
    "пишет",
    "писал",
    "написал",
    "пише",
    "έγραψε",
    "写道",
    "寫道",
    "のメール",
    "작성",
];
/// «Original message», between dashes.
const ORIGINAL: &[&str] = &[
    "original message",
    "ursprüngliche nachricht",
    "originalnachricht",
    "message d'origine",
    "message original",
    "message d’origine",
    "mensaje original",
    "mensagem original",
    "messaggio originale",
    "oorspronkelijk bericht",
    "ursprungligt meddelande",
    "oprindelig meddelelse",
    "opprinnelig melding",
    "alkuperäinen viesti",
    "oryginalna wiadomość",
    "wiadomość oryginalna",
    "původní zpráva",
    "исходное сообщение",
    "eredeti üzenet",
    "mesaj original",
    "özgün ileti",
    "元のメッセージ",
    "原始邮件",
    "原始郵件",
    "원본 메시지",
    "forwarded message",
    "weitergeleitete nachricht",
    "message transféré",
    "mensaje reenviado",
    "mensagem encaminhada",
    "messaggio inoltrato",
    "doorgestuurd bericht",
];
/// The fields that head such a block: From, and of the others two.
const FROM: &[&str] = &[
    "from",
    "von",
    "de",
    "da",
    "van",
    "från",
    "fra",
    "od",
    "lähettäjä",
    "от",
    "від",
    "felado",
    "feladó",
    "kimden",
    "发件人",
    "寄件者",
    "差出人",
    "보낸 사람",
];
const OTHERS: &[&str] = &[
    "sent",
    "date",
    "to",
    "subject",
    "cc",
    "gesendet",
    "datum",
    "an",
    "betreff",
    "envoyé",
    "à",
    "objet",
    "enviado",
    "fecha",
    "para",
    "asunto",
    "data",
    "assunto",
    "inviato",
    "a",
    "oggetto",
    "verzonden",
    "aan",
    "onderwerp",
    "skickat",
    "till",
    "ämne",
    "sendt",
    "til",
    "emne",
    "wysłano",
    "do",
    "temat",
    "odesláno",
    "komu",
    "předmět",
    "отправлено",
    "дата",
    "кому",
    "тема",
    "lähetetty",
    "vastaanottaja",
    "aihe",
    "发送时间",
    "收件人",
    "主题",
    "送信日時",
    "宛先",
    "件名",
];
/// A telephone's signature begins so.
const SENT_FROM: &[&str] = &[
    "sent from my ",
    "sent from outlook",
    "get outlook for ",
    "von meinem ",
    "gesendet von ",
    "envoyé de mon ",
    "envoyé depuis ",
    "enviado desde mi ",
    "enviado do meu ",
    "inviato da ",
    "verstuurd vanaf ",
    "skickat från ",
    "sendt fra min ",
    "wysłane z ",
    "odesláno z ",
    "отправлено с ",
    "lähetetty ",
    "iphoneから送信",
    "发自我的",
];

/// An answer, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stripped {
    pub text: String,
    pub signature: String,
    pub quoted: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    New,
    Signature,
    Quoted,
}

/// Takes a text apart; its lines end with LF then.
#[must_use]
pub fn strip(text: &str) -> Stripped {
    let text = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let parts = parts(&lines);
    let of = |part: Part| {
        let kept: Vec<&str> = lines.iter().zip(&parts).filter(|(_, is)| **is == part).map(|(line, _)| *line).collect();
        kept.join("\n").trim_matches('\n').trim_end().to_owned()
    };
    let text = of(Part::New);
    if text.trim().is_empty() {
        return Stripped { text: lines.join("\n").trim_matches('\n').trim_end().to_owned(), ..Stripped::default() };
    }
    Stripped { text, signature: of(Part::Signature), quoted: of(Part::Quoted) }
}

fn parts(lines: &[&str]) -> Vec<Part> {
    let mut parts = vec![Part::New; lines.len()];
    let mut seen_new = false;
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let rest = lines.get(at..).unwrap_or_default();
        let naming = naming(rest);
        let quotes_follow = |after: usize| {
            rest.iter().skip(after).find(|line| !line.trim().is_empty()).is_some_and(|line| is_quoted(line))
        };
        let (part, length) = match naming {
            _ if is_quoted(line) => (Part::Quoted, 1),
            Some(length) if quotes_follow(length) => (Part::Quoted, length),
            // A program that doesn't mark what it quotes: all of it.
            Some(_) if seen_new => (Part::Quoted, rest.len()),
            // Sent on without a word: that is what there is to read.
            _ if !seen_new && begins_original(rest) => (Part::New, rest.len()),
            _ if seen_new && begins_original(rest) => (Part::Quoted, rest.len()),
            _ if seen_new && is_signature(line) => (Part::Signature, signature(rest)),
            _ => (Part::New, 1),
        };
        seen_new |= part == Part::New && !line.trim().is_empty();
        parts.iter_mut().skip(at).take(length).for_each(|one| *one = part);
        at += length.max(1);
    }
    telephone(lines, &mut parts);
    parts
}

fn is_quoted(line: &str) -> bool {
    line.trim_start().starts_with('>')
}

/// How many lines name the author of what follows: `On Tue, 24 Nov 2026, Ann <ann@example.org>` `wrote:`
fn naming(lines: &[&str]) -> Option<usize> {
    let mut joined = String::new();
    for (count, line) in (1..).zip(lines.iter().take(MAX_NAMING)) {
        let line = line.trim();
        if line.is_empty() || is_quoted(line) || joined.len() + line.len() > MAX_NAMED {
            return None;
        }
        joined.push_str(line);
        joined.push(' ');
        let ended = joined.trim_end().trim_end_matches(['\u{a0}', ' ']);
        if !ended.ends_with([':', '：']) {
            continue;
        }
        let lower = ended.to_lowercase();
        let tells = lower.contains(|c: char| c.is_ascii_digit() || c == '@');
        return (tells && WROTE.iter().any(|verb| lower.contains(verb))).then_some(count);
    }
    None
}

fn begins_original(lines: &[&str]) -> bool {
    let lines = lines.get(..MAX_HEAD).unwrap_or(lines);
    let Some(first) = lines.first().map(|line| line.trim()).filter(|line| !line.is_empty()) else { return false };
    let dashed = first.trim_matches(['-', '_', ' ', '*', '=']).to_lowercase();
    let is_marked = first.starts_with("--") || first.starts_with("__") || first.starts_with("==");
    if is_marked && ORIGINAL.iter().any(|words| dashed == *words) {
        return true;
    }
    let is_rule = dashed.is_empty() && first.len() >= 10;
    let block = if is_rule { lines.get(1..).unwrap_or_default() } else { lines };
    let name = |line: &&str| {
        let (name, _) = line.trim().trim_start_matches('*').split_once([':', '：'])?;
        Some(name.trim_matches(['*', ' ', '\u{a0}']).to_lowercase())
    };
    let mut names = block.iter().filter(|line| !line.trim().is_empty()).take(6).map(name);
    let heads = names.next().flatten().is_some_and(|name| FROM.contains(&name.as_str()));
    heads && names.flatten().filter(|name| OTHERS.contains(&name.as_str())).count() >= 2
}

fn is_signature(line: &str) -> bool {
    matches!(line, "-- " | "--")
}

/// To the end, or to what is quoted below it.
fn signature(lines: &[&str]) -> usize {
    let mut at = 1;
    while let Some(rest) = lines.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.first().is_some_and(|line| is_quoted(line)) || naming(rest).is_some() || begins_original(rest) {
            break;
        }
        at += 1;
    }
    at
}

/// The last line of what is new, where a telephone wrote it.
fn telephone(lines: &[&str], parts: &mut [Part]) {
    let is_last = |(line, part): &(&&str, &mut Part)| **part == Part::New && !line.trim().is_empty();
    if let Some((line, part)) = lines.iter().zip(parts.iter_mut()).rev().find(is_last) {
        let lower = line.trim().to_lowercase();
        if lower.chars().count() <= 80 && SENT_FROM.iter().any(|words| lower.starts_with(words)) {
            *part = Part::Signature;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(text: &str) -> String {
        strip(text).text
    }

    #[test]
    fn what_is_quoted_below_goes_in_every_language() {
        for naming in [
            "On Tue, 24 Nov 2026 at 10:00, Ann Author <ann@example.org> wrote:",
            "On Tue, 24 Nov 2026 at 10:00, Ann Author With A Long Name\n<ann@example.org> wrote:",
            "Am 24.11.2026 um 10:00 schrieb Ann Author <ann@example.org>:",
            "Am Di., 24. Nov. 2026 um 10:00 Uhr schrieb Ann Author <\nann@example.org>:",
            "Le mar. 24 nov. 2026 à 10:00, Ann Author <ann@example.org> a écrit\u{a0}:",
            "El mar, 24 nov 2026 a las 10:00, Ann (<ann@example.org>) escribió:",
            "Em ter., 24 de nov. de 2026 às 10:00, Ann <ann@example.org> escreveu:",
            "Il giorno mar 24 nov 2026 alle ore 10:00 Ann <ann@example.org> ha scritto:",
            "Op di 24 nov 2026 om 10:00 schreef Ann <ann@example.org>:",
            "Den tis 24 nov. 2026 kl 10:00 skrev Ann <ann@example.org>:",
            "W dniu 24.11.2026 o 10:00, Ann pisze:",
            "wt., 24 lis 2026 o 10:00 Ann <ann@example.org> napisał(a):",
            "út 24. 11. 2026 v 10:00 odesílatel Ann <ann@example.org> napsal:",
            "вт, 24 нояб. 2026 г. в 10:00, Ann <ann@example.org>:\u{20}пишет:",
            "24 Kas 2026 Sal 10:00 tarihinde Ann <ann@example.org> şunu yazdı:",
            "2026年11月24日(火) 10:00 Ann <ann@example.org> のメール:",
            "Ann <ann@example.org> 于2026年11月24日周二 10:00写道：",
        ] {
            assert_eq!(new(&format!("Yes.\n\nAnn\n\n{naming}\n> Shall we?\n>\n> B\n")), "Yes.\n\nAnn", "{naming}");
            assert_eq!(new(&format!("Yes.\r\n\r\n{naming}\r\n\r\nShall we?\r\n")), "Yes.", "unmarked: {naming}");
        }
    }

    #[test]
    fn what_stands_between_and_below_quotes_stays() {
        let stripped = strip("On 24 Nov, Ann <a@b.example> wrote:\n> One?\nYes.\n> Two?\nNo.\n-- \nB. Editor\n");
        assert_eq!((stripped.text.as_str(), stripped.signature.as_str()), ("Yes.\nNo.", "-- \nB. Editor"));
        assert!(stripped.quoted.starts_with("On 24 Nov") && stripped.quoted.ends_with("> Two?"), "{stripped:?}");
    }

    #[test]
    fn what_programs_put_before_the_original_ends_the_answer() {
        for block in [
            "-----Original Message-----\nFrom: Ann",
            "-----Ursprüngliche Nachricht-----\nVon: Ann",
            "----- Message d'origine -----\nDe: Ann",
            "________________________________\nFrom: Ann <a@b.example>\nSent: Tuesday\nTo: B\nSubject: Hi",
            "Von: Ann <a@b.example>\nGesendet: Dienstag\nAn: B\nBetreff: Hi",
            "*De :* Ann\n*Envoyé :* mardi\n*À :* B\n*Objet :* Hi",
            "From: Ann\n\nDate: Tuesday\n\nSubject: Hi",
        ] {
            assert_eq!(new(&format!("Agreed.\n\n{block}\n\nShall we?\n")), "Agreed.", "{block}");
        }
    }

    #[test]
    fn signatures_go() {
        let stripped = strip("Fine.\n\n-- \nAnn\nExample Ltd\n\nOn 24 Nov 2026 Bob wrote:\n> ok?\n");
        assert_eq!((stripped.text.as_str(), stripped.signature.as_str()), ("Fine.", "-- \nAnn\nExample Ltd"));
        for line in
            ["Sent from my iPhone", "Von meinem iPhone gesendet", "Envoyé de mon iPhone", "Get Outlook for Android"]
        {
            assert_eq!(new(&format!("Fine.\n\n{line}\n\nOn 1 Nov 2026 Bob wrote:\n> ok?\n")), "Fine.", "{line}");
        }
    }

    #[test]
    fn where_nothing_is_new_nothing_goes() {
        for text in [
            "> all\n> quoted",
            "-----Original Message-----\nFrom: Ann\nSent: x\nSubject: y\n\nhi",
            "",
            "-- \nAnn",
            "\n\n",
        ] {
            assert_eq!(new(text), text.trim_matches('\n').trim_end(), "{text:?}");
        }
        for text in
            ["He wrote: yes.", "From: here\nto there it is far", "Things I wrote:\nnone", "a -- b\n--- c", "Total:\n12"]
        {
            assert_eq!(new(text), text, "it is no quote");
        }
    }

    #[test]
    fn a_hostile_text_takes_no_longer() {
        let long = "On 1 wrote ".repeat(100_000);
        assert!(strip(&long).text.len() <= MAX_TEXT);
        assert!(!strip(&">".repeat(MAX_TEXT * 2)).text.is_empty());
        let many = "On 1\n".repeat(200_000) + "wrote:\n> x";
        assert!(!strip(&many).text.is_empty());
    }
}
