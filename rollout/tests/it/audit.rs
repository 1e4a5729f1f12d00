//! The chain of the audit log: what it is, what shows in it, and how it is read.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use proptest::prelude::*;
use rollout::audit::{
    AUDIT_BYTES_MAX, Audit, AuditError, Broken, Entry, LINE_BYTES_MAX, LineHash, READ_BYTES_MAX, Source,
    Verified, VerifyError, Why, last_seq, read_after, verify,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub(crate) fn time() -> Timestamp {
    "2026-11-27T12:00:00.125Z".parse().unwrap()
}

/// Something that is told apart from others by its number.
pub(crate) fn numbered(number: usize) -> Entry {
    Entry { to: Some(number.to_string()), ..Entry::new(time(), "node", Source::Node, "reload") }
}

pub(crate) fn open(path: &Path) -> Audit {
    Audit::open(path, AUDIT_BYTES_MAX).unwrap().0
}

/// A log of so many entries.
pub(crate) fn log_of(entries: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut audit = open(&path);
    (1..=entries).for_each(|number| _ = audit.append(numbered(number)).unwrap());
    (folder, path)
}

/// Its lines, each with its line feed.
pub(crate) fn lines_of(entries: usize) -> Vec<String> {
    let (_folder, path) = log_of(entries);
    fs::read_to_string(path).unwrap().split_inclusive('\n').map(str::to_owned).collect()
}

/// A line with this body and the hash that belongs to it.
fn sealed(body: &str) -> String {
    format!("{body},\"hash\":\"{}\"}}\n", hex::encode(Sha256::digest(body)))
}

/// The line with something else in it, and the hash that belongs to that.
fn forged(line: &str, old: &str, new: &str) -> String {
    let (body, _) = line.rsplit_once(",\"hash\"").unwrap();
    assert!(body.contains(old), "{body}");
    sealed(&body.replace(old, new))
}

fn hash_of(line: &str) -> LineHash {
    LineHash::from_hex(&line[line.len() - 67..line.len() - 3]).unwrap()
}

fn broken(log: impl AsRef<[u8]>, expected: Option<LineHash>) -> Broken {
    match verify(log.as_ref(), expected) {
        Err(VerifyError::Broken(broken)) => broken,
        verified => panic!("{verified:?}"),
    }
}

#[test]
fn a_line_is_its_body_and_the_hash_of_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let entry = Entry {
        time: time(),
        actor: "uid 0".to_owned(),
        source: Source::KillSwitch,
        action: "kill-engaged".to_owned(),
        subject: Some("r1".to_owned()),
        from: Some("shadow".to_owned()),
        to: Some("in-process".to_owned()),
        reason: Some("INC-482: \"stop\"\n".to_owned()),
        generation: Some(7),
        details: vec!["default.mode".to_owned(), "\u{1b}[31m".to_owned()],
    };
    let written = open(&path).append(entry.clone()).unwrap();
    let body = concat!(
        r#"{"seq":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000","#,
        r#""time":"2026-11-27T12:00:00.125Z","actor":"uid 0","source":"kill-switch","action":"kill-engaged","#,
        r#""subject":"r1","from":"shadow","to":"in-process","reason":"INC-482: \"stop\"\n","generation":7,"#,
        r#""details":["default.mode","\u001b[31m"]"#
    );
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, sealed(body));
    let [record] = read_after(&path, 0, 9).unwrap().try_into().unwrap();
    assert_eq!((record.seq, record.prev, record.hash), (1, LineHash::START, written.hash));
    assert_eq!((record.entry, record.line + "\n"), (entry, text));
}

#[test]
fn a_log_is_appended_to_after_each_start_and_verified() {
    let (_folder, path) = log_of(0);
    let nothing = Verified { entries: 0, last: None, expected: None };
    assert_eq!(verify(&*fs::read(&path).unwrap(), None).unwrap(), nothing);
    let mut hashes = Vec::new();
    for number in 1..=5 {
        let (mut audit, opened) = Audit::open(&path, AUDIT_BYTES_MAX).unwrap();
        assert_eq!((opened.entries, opened.torn, audit.seq()), (number - 1, None, number - 1));
        let written = audit.append(numbered(0)).unwrap();
        assert_eq!((written.seq, written.hash), (number, audit.hash()));
        hashes.push(written.hash);
    }
    let verified = verify(&*fs::read(&path).unwrap(), Some(hashes[2])).unwrap();
    assert_eq!(verified, Verified { entries: 5, last: Some(hashes[4]), expected: Some(3) });
}

#[test]
fn what_was_done_to_a_log_shows_where_it_was_done() {
    let lines = lines_of(6);
    let concat = |order: &[usize]| order.iter().map(|&line| lines[line - 1].as_str()).collect::<String>();
    let with = |line: usize, new: &str| {
        let mut lines = lines.clone();
        lines[line - 1] = new.to_owned();
        lines.concat()
    };
    let resealed = forged(&lines[2], "\"to\":\"3\"", "\"to\":\"4\"");
    let unlinked = |line: usize, before: &str| Why::Unlinked {
        prev: hash_of(&lines[line - 2]),
        before: hash_of(before),
    };
    let zeros = LineHash::START.to_string();
    for (what, log, line, why) in [
        ("removed", concat(&[1, 2, 4, 5, 6]), 3, Why::Missing { first: 3, last: 3 }),
        ("two removed", concat(&[1, 2, 5, 6]), 3, Why::Missing { first: 3, last: 4 }),
        ("the first removed", concat(&[2, 3, 4, 5, 6]), 1, Why::Missing { first: 1, last: 1 }),
        ("swapped", concat(&[1, 2, 4, 3, 5, 6]), 3, Why::Moved { seq: 4, elsewhere: 4 }),
        ("moved to the end", concat(&[1, 3, 4, 5, 6, 2]), 2, Why::Moved { seq: 3, elsewhere: 6 }),
        ("repeated", concat(&[1, 2, 3, 3, 4, 5, 6]), 4, Why::Repeated { seq: 3 }),
        ("changed", with(3, &lines[2].replace("\"to\":\"3\"", "\"to\":\"4\"")), 3, Why::Changed),
        ("changed with its hash", with(3, &resealed), 4, unlinked(4, &resealed)),
        (
            "the first changed with its hash",
            with(1, &forged(&lines[0], &zeros, &"1".repeat(64))),
            1,
            Why::Unlinked { prev: LineHash::from_hex(&"1".repeat(64)).unwrap(), before: LineHash::START },
        ),
        (
            "one inserted with its hash",
            with(3, &(forged(&lines[2], "\"to\":\"3\"", "\"to\":\"x\"") + &lines[2])),
            4,
            Why::Repeated { seq: 3 },
        ),
        ("an empty line inserted", with(3, &format!("\n{}", lines[2])), 3, Why::NoHash),
        ("another file's line", with(3, "{\"level\":\"info\"}\n"), 3, Why::NoHash),
        ("a foreign line with a hash", with(3, &sealed("{\"level\":3")), 3, Why::NoHead),
        (
            "a hash in upper case",
            with(
                6,
                &(lines[5][..lines[5].len() - 67].to_owned()
                    + &lines[5][lines[5].len() - 67..].to_uppercase()),
            ),
            6,
            Why::Changed,
        ),
        ("a leading zero", with(3, &forged(&lines[2], "{\"seq\":3", "{\"seq\":03")), 3, Why::NoHead),
        ("NUL bytes", with(3, "\0\0\0\0\n"), 3, Why::NoHash),
        ("NUL bytes at the end", lines.concat() + "\0\0\0\0", 7, Why::CutShort),
        ("the last line without its end", lines.concat().trim_end().to_owned(), 6, Why::CutShort),
        ("a line without an end", lines.concat() + &"x".repeat(2 * LINE_BYTES_MAX), 7, Why::TooLong),
    ] {
        assert_eq!(broken(&log, None), Broken { line, why }, "{what}");
    }
}

#[test]
fn a_line_in_the_chain_that_is_no_entry_is_told() {
    let line = &lines_of(1)[0];
    for (old, new, told) in [
        ("\"source\":\"node\"", "\"source\":\"nobody\"", "unknown variant `nobody`"),
        ("\"actor\":\"node\",", "", "missing field `actor`"),
        ("\"actor\":\"node\"", "\"actor\":\"node\",\"s\\u0065q\":2", "duplicate field `seq`"),
        ("2026-11-27T", "2026-13-27T", "its time is `2026-13-27T12:00:00.125Z`"),
        ("\"to\":\"1\"", "\"to\":1", "invalid type: integer `1`"),
        ("\"to\":\"1\"", "\"to\":\"1\"}", "trailing characters"),
    ] {
        let Broken { line, why: Why::Foreign(what) } = broken(forged(line, old, new), None) else {
            panic!("{new}")
        };
        assert!(line == 1 && what.contains(told), "{what}");
    }
    let later = forged(line, "\"to\":\"1\"", "\"to\":\"1\",\"request\":\"of a later version\"");
    assert_eq!(verify(later.as_bytes(), None).unwrap().entries, 1);
}

#[test]
fn lines_that_were_cut_off_the_end_are_found_by_a_hash_that_was_noted() {
    let lines = lines_of(6);
    let noted = hash_of(&lines[4]);
    let expected = |log: &[String]| verify(log.concat().as_bytes(), Some(noted));
    assert_eq!(expected(&lines).unwrap().expected, Some(5));
    assert_eq!(expected(&lines[..5]).unwrap().expected, Some(5));
    assert_eq!(verify(lines[..4].concat().as_bytes(), None).unwrap().entries, 4, "nothing shows it");
    for left in 0..=4 {
        let found = broken(lines[..left].concat(), Some(noted));
        assert_eq!(found, Broken { line: left as u64 + 1, why: Why::EndMissing(noted) });
    }
}

#[test]
fn entries_are_read_from_any_place_of_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut audit = open(&path);
    for number in 1..=1_500_usize {
        let details = vec!["x".repeat(500); if number % 7 == 0 { number % 90 } else { 0 }];
        audit.append(Entry { details, ..numbered(number) }).unwrap();
    }
    assert_eq!(last_seq(&path).unwrap(), 1_500);
    for after in (0..1_510).chain([u64::MAX]) {
        let read: Vec<u64> = read_after(&path, after, 3).unwrap().iter().map(|record| record.seq).collect();
        let expected: Vec<u64> = (after.saturating_add(1)..=1_500).take(3).collect();
        assert_eq!(read, expected, "after {after}");
    }
    // As much as may be at once, and then on from there.
    let (mut after, mut times) = (0, 0);
    while after < 1_500 {
        let read = read_after(&path, after, usize::MAX).unwrap();
        let bytes: usize = read.iter().map(|record| record.line.len()).sum();
        assert!(bytes < READ_BYTES_MAX + LINE_BYTES_MAX, "{bytes}");
        assert_eq!(read[0].entry.to, Some((after + 1).to_string()));
        (after, times) = (read.last().unwrap().seq, times + 1);
    }
    assert!(times > 1, "{times}");
}

#[test]
fn a_line_that_is_being_written_is_not_read_yet() {
    let (_folder, path) = log_of(3);
    let whole = fs::read(&path).unwrap();
    let second = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for (length, last) in [(whole.len() - 1, 2), (second + 1, 1), (second, 1), (second - 1, 0), (0, 0)] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(last_seq(&path).unwrap(), last);
        assert_eq!(read_after(&path, 0, 9).unwrap().len() as u64, last);
    }
}

#[test]
fn what_is_read_of_a_broken_log_is_whole_in_itself() {
    let lines = lines_of(6);
    let (_folder, path) = log_of(0);
    let read = |log: &str, after| {
        fs::write(&path, log).unwrap();
        match read_after(&path, after, 9) {
            Ok(records) => Ok(records.len()),
            Err(AuditError::Broken(broken)) => Err(broken),
            Err(error) => panic!("{error}"),
        }
    };
    let changed = [&lines[..2], &[lines[2].replace("\"to\"", "\"To\"")], &lines[3..]].concat().concat();
    assert_eq!(read(&changed, 3), Err(Broken { line: 3, why: Why::Changed }));
    assert_eq!(read(&changed, 2), Err(Broken { line: 3, why: Why::Changed }));
    assert_eq!(read(&changed, 4), Ok(2), "what is before is not looked at");
    assert_eq!(read(&changed, 0), Ok(2), "what is before comes first");
    let removed = [&lines[..2], &lines[3..]].concat().concat();
    assert_eq!(read(&removed, 2), Err(Broken { line: 3, why: Why::Missing { first: 3, last: 3 } }));
    assert_eq!(read(&removed, 3), Err(Broken { line: 3, why: Why::Missing { first: 3, last: 3 } }));
    fs::write(&path, [&lines.concat(), "x\n"].concat()).unwrap();
    let illegible = lines.concat().len() as u64;
    assert!(matches!(last_seq(&path), Err(AuditError::Illegible { offset }) if offset == illegible));
    fs::write(&path, "x".repeat(3 * LINE_BYTES_MAX)).unwrap();
    assert!(matches!(read_after(&path, 1, 1), Err(AuditError::Illegible { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_texts_come_back_as_they_were(
        texts in prop::collection::vec("\\PC{0,40}|[\\x00-\\x7f]{0,40}", 6),
        details in prop::collection::vec(any::<String>().prop_map(|text| text.chars().take(80).collect()), 0..5),
        generation: Option<u64>,
    ) {
        let (_folder, path) = log_of(1);
        let [actor, action, subject, from, to, reason] = texts.try_into().unwrap();
        let [subject, from, to, reason] = [subject, from, to, reason].map(Some);
        let source = Source::Guard;
        let entry = Entry { time: time(), actor, source, action, subject, from, to, reason, generation, details };
        open(&path).append(entry.clone()).unwrap();
        prop_assert_eq!(&read_after(&path, 1, 1).unwrap()[0].entry, &entry);
        prop_assert_eq!(verify(&*fs::read(&path).unwrap(), None).unwrap().entries, 2);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        lines in prop::collection::vec("(\\{\"seq\":[0-9]{1,21},\"prev\":\"[0-9a-f]{64}\",)?[ -~]{0,20}(,\"hash\":\"[0-9a-f]{64}\"\\})?\n?", 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..30),
        after in 0_u64..9,
    ) {
        let (_folder, path) = log_of(0);
        let bytes = [lines.concat().into_bytes(), noise].concat();
        fs::write(&path, &bytes).unwrap();
        let _sound_or_not = verify(&*bytes, Some(LineHash::START));
        let _sound_or_not = (read_after(&path, after, 9), last_seq(&path));
        let _sound_or_not = Audit::open(&path, AUDIT_BYTES_MAX);
    }
}

#[test]
fn a_flipped_bit_is_found_in_its_line() {
    let log = lines_of(3).concat().into_bytes();
    let mut line = 1;
    for at in 0..log.len() {
        for bit in 0..8 {
            let mut log = log.clone();
            log[at] ^= 1 << bit;
            assert_eq!(broken(&log, None).line, line, "bit {bit} of byte {at}");
        }
        line += u64::from(log[at] == b'\n');
    }
    assert_eq!(line, 4);
}
