//! Header scan and MIME, on good and on hostile messages.

use std::fmt::Write as _;

use super::*;

fn message(text: &str) -> Message {
    Message::new(Bytes::from(text.replace('\n', "\r\n")))
}

#[test]
fn header_fields_are_found_in_order_with_their_folding() {
    let message = message("A: 1\nSubject: one\n two\nA : 3\nno field\n\nB: body\n");
    let found: Vec<_> = message.headers().collect();
    assert_eq!(found, [("A", &b" 1"[..]), ("Subject", &b" one\r\n two"[..]), ("A", &b" 3"[..])]);
    assert_eq!(message.count_header("a"), 2);
    assert_eq!(message.subject().as_deref(), Some("one two"));
    assert_eq!(&message.raw()[message.headers_end()..], b"B: body\r\n");
}

#[test]
fn encoded_words_are_decoded_and_raw_utf8_kept() {
    assert_eq!(
        message("Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= aus =?utf-8?b?S8O2bG4=?=\n\n").subject().unwrap(),
        "Grüße aus Köln"
    );
    assert_eq!(message("Subject: Grüße = gut\n\n").subject().unwrap(), "Grüße = gut");
    assert_eq!(message("Subject:\n\n").subject().unwrap(), "");
    assert_eq!(message("X: 1\n\n").subject(), None);
}

#[test]
fn addresses_come_with_their_names_and_groups_are_taken_apart() {
    let message = message(
        "From: =?utf-8?q?J=C3=BCrgen?= <j@example.com>\nTo: a@example.com, Team: b@example.com, \"C, D\" <c@example.com>;\n\n",
    );
    assert_eq!(message.header_from().as_deref(), Some("j@example.com"));
    assert_eq!(message.addresses("from")[0].name.as_deref(), Some("Jürgen"));
    let to: Vec<_> = message.addresses("To").into_iter().filter_map(|mailbox| mailbox.address).collect();
    assert_eq!(to, ["a@example.com", "b@example.com", "c@example.com"]);
}

#[test]
fn a_message_without_header_or_body_is_one_too() {
    for raw in ["", "\r\n", "\r\nbody", "Subject: x", ": \r\n\r\n", "\0\u{ff}"] {
        let message = Message::new(Bytes::from(raw.to_owned()));
        assert!(message.headers_end() <= raw.len());
        let _ = (message.subject(), message.text(), message.html(), message.attachments().len(), message.date());
    }
}

#[test]
fn text_html_and_attachments_are_told_apart() {
    let message = message(
        "Content-Type: multipart/mixed; boundary=m\n\npreamble\n--m\nContent-Type: multipart/alternative; boundary=a\n\n--a\n\nplain\n--a\nContent-Type: text/html\n\n<p>rich</p>\n--a--\n--m\nContent-Type: application/pdf; name=\"a.pdf\"\nContent-Disposition: attachment; filename*=utf-8''%C3%BCber.pdf\nContent-Transfer-Encoding: base64\n\naGFs\nbG8=\n--m\nContent-Type: image/png\nContent-ID: <logo@x>\n\nPNG\n--m--\nepilogue\n",
    );
    assert_eq!(message.text().as_deref(), Some("plain"));
    assert_eq!(message.html().as_deref(), Some("<p>rich</p>"));
    let [pdf, image] = message.attachments() else { panic!("{:?}", message.attachments()) };
    assert_eq!((pdf.content_type.as_str(), pdf.filename.as_deref()), ("application/pdf", Some("über.pdf")));
    assert_eq!(&pdf.content(message.raw())[..], b"hallo");
    assert!(!pdf.inline && image.inline);
    assert_eq!(image.content_id.as_deref(), Some("logo@x"));
    assert_eq!(&image.content(message.raw())[..], b"PNG");
}

#[test]
fn html_alone_gives_a_text() {
    let message = message(
        "Content-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n<p>Gr=FC=DFe</p>\n",
    );
    assert_eq!(message.text().unwrap().trim(), "Grüße");
}

#[test]
fn bounces_lists_and_automatic_mail_are_known_by_their_fields() {
    assert!(message("Content-Type: multipart/report; report-type=\"delivery-status\"; boundary=x\n\n").is_bounce());
    assert!(message("List-Id: <x.example.com>\n\n").is_list());
    assert!(message("Auto-Submitted: auto-replied (vacation)\n\n").is_auto());
    assert!(!message("Auto-Submitted: no\n\n").is_auto());
    assert!(message("Precedence: Bulk\n\n").is_auto());
    assert!(!message("Subject: hello\n\n").is_auto());
}

#[test]
fn a_thousand_nested_multiparts_are_one_attachment_beyond_the_bound() {
    let mut text = String::new();
    for level in 0..1000 {
        writeln!(text, "Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}").unwrap();
    }
    text.push_str("\ndeep\n");
    let message = message(&text);
    assert!(message.content().cut);
    assert_eq!(message.attachments().len(), 1);
}

#[test]
fn ten_thousand_parts_are_bounded() {
    let message = message(&format!(
        "Content-Type: multipart/mixed; boundary=b\n\n{}",
        "--b\nContent-Type: a/b\n\nx\n".repeat(10_000)
    ));
    assert!(message.content().cut);
    assert!(message.attachments().len() <= 1000);
}

#[test]
fn a_mebibyte_of_header_is_read_in_linear_time() {
    let mut text = "a:\n".repeat(1024 * 1024 / 3);
    writeln!(text, "Subject: {}\n", "=?utf-8?q?".repeat(100_000)).unwrap();
    let message = message(&text);
    assert_eq!(message.headers().count(), MAX_FIELDS);
    let message = Message::new(Bytes::from(format!(
        "Subject: {}\r\nTo: {}\r\n\r\n",
        "=?utf-8?q?".repeat(100_000),
        "<\"(".repeat(300_000)
    )));
    let _ = (message.subject(), message.addresses("to"));
}

#[test]
fn nested_messages_stay_whole() {
    let message = message(&"Content-Type: message/rfc822\n\n".repeat(20_000));
    assert_eq!(message.attachments().len(), 1);
    assert_eq!(message.attachments()[0].content_type, "message/rfc822");
}

#[test]
fn a_boundary_counts_at_the_start_of_a_line_alone() {
    let message = message(
        "Content-Type: multipart/mixed; boundary=\"-\"\n\n---\n\na ---\n----- \n---x\n---\nContent-Type: a/b\n\nb\n----- \n---- --\nnever\n-----\n",
    );
    assert_eq!(message.text().as_deref(), Some("a ---"));
    assert!(message.attachments().is_empty());
}

#[test]
fn a_field_is_one_line_whatever_an_encoding_hides() {
    let raw = "Subject: =?utf-8?q?a=0D=0Ab=0Ac=1B[31m?=\r\nX-Tab: one\ttwo\r\nFrom: =?utf-8?q?a=0Db?= <a@example.org>\r\n\
               Content-Type: multipart/mixed; boundary=x\r\n\r\n\
               --x\r\nContent-Disposition: attachment; filename*=utf-8''a%0d%0ab\r\n\r\nz\r\n--x--\r\n";
    let message = Message::new(Bytes::from_static(raw.as_bytes()));
    assert_eq!(message.subject().unwrap(), "a b c [31m");
    assert_eq!(message.header("X-Tab").unwrap(), "one two");
    assert_eq!(message.addresses("From")[0].name.as_deref(), Some("a b"));
    assert_eq!(message.attachments()[0].filename.as_deref(), Some("a b"));
}

#[test]
fn a_nul_that_an_encoding_hides_reaches_no_text() {
    let raw = "Subject: =?utf-8?b?YQBi?=\r\nFrom: =?utf-8?q?a=00b?= <a@example.org>\r\n\
               Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\nYQBi\r\n\
               --x\r\nContent-Disposition: attachment; filename*=utf-8''a%00b\r\n\r\nz\r\n--x--\r\n";
    let message = Message::new(Bytes::from_static(raw.as_bytes()));
    assert_eq!(message.subject().unwrap(), "a\u{fffd}b");
    assert_eq!(message.addresses("From")[0].name.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(message.text().unwrap().trim_end(), "a\u{fffd}b");
    assert_eq!(message.attachments()[0].filename.as_deref(), Some("a\u{fffd}b"));
    let html = Message::new(Bytes::from_static(b"Content-Type: text/html\r\n\r\n<p>a&#0;b</p>\r\n"));
    assert!(!html.text().unwrap().contains('\0'), "{:?}", html.text());
}

#[test]
fn a_nul_in_a_field_reaches_no_id_and_no_type() {
    let raw = b"Message-ID: <a\0b@x>\r\nReferences: <c\0@x> <d@x>\r\nContent-Type: te\0xt/pl\0ain\r\n\r\nz\r\n";
    let message = Message::new(Bytes::from_static(raw));
    assert_eq!(message.message_id().as_deref(), Some("a\u{fffd}b@x"));
    assert_eq!(message.ids("References"), ["c\u{fffd}@x", "d@x"]);
    assert!(message.attachments().iter().all(|part| !part.content_type.contains('\0')), "{:?}", message.attachments());
}
