//! Invitations: the events of a message's calendar parts.
//!
//! Standards: RFC 5545 (§3.1 folding, §3.3.11 text, VEVENT), RFC 5546 (METHOD). Bound: so much of a part, so many events
//! and attendees. Times are texts (`2026-11-24T10:00:00Z`), for a zone that a sender made up is nobody's to reckon with.

use serde::Serialize;

use super::Message;

/// Octets of one part that are read; events of one message, attendees of all of them, characters of a text.
const MAX_READ: usize = 256 * 1024;
const MAX_EVENTS: usize = 20;
const MAX_ATTENDEES: usize = 500;
const MAX_TEXT: usize = 1000;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Event {
    /// REQUEST, REPLY, CANCEL, PUBLISH …; empty where none is named.
    pub method: String,
    pub uid: String,
    pub summary: String,
    pub location: String,
    /// CONFIRMED, TENTATIVE, CANCELLED.
    pub status: String,
    /// `2026-11-24T10:00:00Z`, without `Z` where it is local to `timezone`; a day alone is `2026-11-24`.
    pub start: String,
    pub end: String,
    pub timezone: String,
    pub organizer: Option<Person>,
    pub attendees: Vec<Person>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Person {
    pub name: String,
    pub address: String,
    /// ACCEPTED, DECLINED, TENTATIVE, NEEDS-ACTION …
    pub status: String,
}

/// The events of all calendar parts, in order.
#[must_use]
pub fn read(message: &Message) -> Vec<Event> {
    let is_calendar = |kind: &str| matches!(kind, "text/calendar" | "application/ics");
    let mut events = Vec::new();
    let mut room = MAX_ATTENDEES;
    for part in message.attachments().iter().filter(|part| is_calendar(&part.content_type)) {
        let content = part.content(message.raw());
        let text = part.decode(content.get(..MAX_READ).unwrap_or(&content));
        collect(&text, &mut events, &mut room);
    }
    // The same invitation comes as a part and as a file.
    let mut seen: Vec<Event> = Vec::new();
    events.retain(|event| {
        !seen.contains(event) && {
            seen.push(event.clone());
            true
        }
    });
    events
}

fn collect(text: &str, events: &mut Vec<Event>, room: &mut usize) {
    let (mut method, mut open, mut within) = (String::new(), None::<Event>, 0_usize);
    for line in unfolded(text) {
        let Some(property) = Property::of(&line) else { continue };
        match (property.name.as_str(), open.as_mut()) {
            ("METHOD", None) => method = property.text().to_ascii_uppercase(),
            ("BEGIN", None) if property.value.eq_ignore_ascii_case("VEVENT") => {
                open = Some(Event { method: method.clone(), ..Event::default() });
            }
            // An alarm within it has properties of the same names.
            ("BEGIN", Some(_)) => within += 1,
            ("END", Some(_)) if within > 0 => within -= 1,
            ("END", Some(_)) => {
                events.extend(open.take());
                if events.len() >= MAX_EVENTS {
                    return;
                }
            }
            (_, Some(event)) if within == 0 => event.take(&property, room),
            _ => {}
        }
    }
}

impl Event {
    fn take(&mut self, property: &Property, room: &mut usize) {
        match property.name.as_str() {
            "UID" => self.uid = property.text(),
            "SUMMARY" => self.summary = property.text(),
            "LOCATION" => self.location = property.text(),
            "STATUS" => self.status = property.text().to_ascii_uppercase(),
            "DTSTART" => {
                self.start = moment(&property.value);
                self.timezone = property.parameter("TZID");
            }
            "DTEND" => self.end = moment(&property.value),
            "ORGANIZER" => self.organizer = Some(property.person()),
            "ATTENDEE" if *room > 0 => {
                *room -= 1;
                self.attendees.push(property.person());
            }
            _ => {}
        }
    }
}

/// A line that begins with white space goes on with the one before.
fn unfolded(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().map(|line| line.strip_suffix('\r').unwrap_or(line)) {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(more), Some(last)) => last.push_str(more),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

struct Property {
    name: String,
    parameters: Vec<(String, String)>,
    value: String,
}

impl Property {
    /// `NAME;PARAMETER="a:b";OTHER=c:value`
    fn of(line: &str) -> Option<Self> {
        let mut quoted = false;
        let colon = line.char_indices().find(|(_, c)| {
            quoted ^= *c == '"';
            *c == ':' && !quoted
        });
        let (head, value) = line.split_at_checked(colon?.0)?;
        let mut parts = split(head).into_iter();
        let name = parts.next()?.trim().to_ascii_uppercase();
        let parameters = parts.filter_map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim().to_ascii_uppercase(), value.trim_matches('"').to_owned()))
        });
        let (name, parameters) =
            (name.rsplit('.').next().unwrap_or_default().to_owned(), parameters.take(20).collect());
        Some(Self { name, parameters, value: value.strip_prefix(':')?.trim().to_owned() })
    }

    /// Without its escapes (RFC 5545 §3.3.11).
    fn text(&self) -> String {
        let mut text = String::new();
        let mut characters = self.value.chars().take(MAX_TEXT * 2);
        while let Some(c) = characters.next() {
            text.push(match c {
                '\\' => match characters.next() {
                    Some('n' | 'N') | None => '\n',
                    Some(escaped) => escaped,
                },
                c => c,
            });
        }
        text.chars().take(MAX_TEXT).collect::<String>().trim_end().to_owned()
    }

    fn parameter(&self, name: &str) -> String {
        let found = self.parameters.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.chars().take(200).collect()).unwrap_or_default()
    }

    fn person(&self) -> Person {
        let value: String = self.value.chars().take(320).collect();
        let is_mail = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("mailto:"));
        let address = if is_mail { value.get(7..).unwrap_or_default().to_owned() } else { value };
        Person { name: self.parameter("CN"), address, status: self.parameter("PARTSTAT").to_ascii_uppercase() }
    }
}

/// By `;`, but not within quotes.
fn split(head: &str) -> Vec<&str> {
    let mut quoted = false;
    head.split(|c: char| {
        quoted ^= c == '"';
        c == ';' && !quoted
    })
    .collect()
}

/// `20261124T100000Z` is `2026-11-24T10:00:00Z`; what is no time stays as it is.
fn moment(value: &str) -> String {
    let digits = |range: std::ops::Range<usize>| {
        value.get(range).filter(|part| part.bytes().all(|octet| octet.is_ascii_digit()))
    };
    let day = || Some(format!("{}-{}-{}", digits(0..4)?, digits(4..6)?, digits(6..8)?));
    let time = || Some(format!("{}:{}:{}", digits(9..11)?, digits(11..13)?, digits(13..15)?));
    let read = match (day(), value.get(8..9), value.get(15..)) {
        (Some(day), None, _) => Some(day),
        (Some(day), Some("T"), Some(zone @ ("" | "Z"))) => time().map(|time| format!("{day}T{time}{zone}")),
        _ => None,
    };
    read.unwrap_or_else(|| value.chars().take(40).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(calendar: &str) -> Vec<Event> {
        let text = format!(
            "Content-Type: multipart/mixed; boundary=c\n\n--c\n\nhi\n--c\nContent-Type: text/calendar; charset=utf-8\n\n{calendar}\n--c--\n"
        );
        read(&Message::new(text.replace('\n', "\r\n").into()))
    }

    #[test]
    fn an_invitation_is_read() {
        let found = events(
            "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VTIMEZONE\nTZID:Europe/Berlin\nEND:VTIMEZONE\nBEGIN:VEVENT\nUID:1@example.org\n\
             SUMMARY;LANGUAGE=en:Lunch\\, at ten\\nor so and\n  on\nDTSTART;TZID=Europe/Berlin:20261124T100000\nDTEND:20261124T110000Z\n\
             ORGANIZER;CN=\"Ann: Author\":mailto:ann@example.org\nATTENDEE;PARTSTAT=accepted;CN=Bob:MAILTO:bob@example.com\n\
             LOCATION:Room 1\nSTATUS:confirmed\nBEGIN:VALARM\nSUMMARY:alarm\nEND:VALARM\nEND:VEVENT\nEND:VCALENDAR",
        );
        let [event] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (event.method.as_str(), event.uid.as_str(), event.status.as_str()),
            ("REQUEST", "1@example.org", "CONFIRMED")
        );
        assert_eq!(event.summary, "Lunch, at ten\nor so and on");
        assert_eq!((event.start.as_str(), event.end.as_str()), ("2026-11-24T10:00:00", "2026-11-24T11:00:00Z"));
        assert_eq!((event.timezone.as_str(), event.location.as_str()), ("Europe/Berlin", "Room 1"));
        let person = |name: &str, address: &str, status: &str| Person {
            name: name.into(),
            address: address.into(),
            status: status.into(),
        };
        assert_eq!(event.organizer, Some(person("Ann: Author", "ann@example.org", "")));
        assert_eq!(event.attendees, [person("Bob", "bob@example.com", "ACCEPTED")]);
    }

    #[test]
    fn days_stay_days_and_garbage_is_bounded() {
        assert_eq!(events("BEGIN:VEVENT\nDTSTART;VALUE=DATE:20261124\nEND:VEVENT")[0].start, "2026-11-24");
        assert_eq!(events("BEGIN:VEVENT\nDTSTART:tomorrow é\nEND:VEVENT")[0].start, "tomorrow é");
        assert_eq!(events(&"BEGIN:VEVENT\nUID:x\nEND:VEVENT\n".repeat(3)).len(), 1, "the same again");
        let many = (0..99).map(|n| format!("BEGIN:VEVENT\nUID:{n}\nEND:VEVENT")).collect::<Vec<_>>().join("\n");
        assert_eq!(events(&many).len(), MAX_EVENTS);
        let crowd = format!("BEGIN:VEVENT\n{}END:VEVENT", "ATTENDEE:mailto:a@b.example\n".repeat(2000));
        assert_eq!(events(&crowd)[0].attendees.len(), MAX_ATTENDEES);
        for text in
            ["", ":", "BEGIN", "BEGIN:VEVENT", "END:VEVENT", "BEGIN:VEVENT\nBEGIN:VEVENT\nEND:X\n", "\"", ";=:\n =:"]
        {
            assert!(events(text).is_empty(), "{text:?}");
        }
    }
}
