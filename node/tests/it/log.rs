//! What a log may not be: cut, damaged, foreign, of another version, out of order.

use bulkhead_node::log::{
    Admission, Entry, Extent, Head, LogError, MAGIC, Message, RECORD_BYTES_MAX, Reader, Survey, VERSION,
    Writer, survey,
};
use bulkhead_node::node::on_executor_stack;
use bulkhead_node::observation::{Answer, Excerpt, Observation};
use bulkhead_node::replay::{Play, Verdict};
use bulkhead_node::{Node, NodeOptions, Preset};
use execution::Principal;
use proptest::prelude::*;
use rollout::Mode;

use crate::recorded::{METHODS, edited, log};

/// Offsets at which records start or end, and the whole rounds before each.
fn boundaries(log: &[u8]) -> Vec<(usize, u64)> {
    let mut reader = Reader::begin(log).unwrap();
    let mut rounds = 0;
    let mut found = vec![(usize::try_from(reader.offset()).unwrap(), 0)];
    while let Some(entry) = reader.read().unwrap() {
        rounds += u64::from(matches!(entry, Entry::Observed(Observation::Root(_))));
        found.push((usize::try_from(reader.offset()).unwrap(), rounds));
    }
    found
}

#[test]
fn a_whole_log_says_what_it_holds() {
    let Survey { rounds, messages, queries, extent, head, rounds_end } = survey(&log()[..]).unwrap();
    let count = METHODS.len() as u64;
    assert_eq!((rounds, messages, queries), (count + 2, count + 1, count));
    assert!(matches!(extent, Extent::Whole));
    assert!(rounds_end < log().len() as u64, "the last record comes after the last round");
    assert_eq!((head.preset, head.conflict()), (Preset::Application, None));
}

#[test]
fn a_log_cut_anywhere_is_taken_up_to_its_last_whole_round_and_never_for_whole() {
    let log = log();
    let boundaries = boundaries(&log);
    let (head_end, _) = boundaries[1];
    for length in 0..log.len() {
        let cut = survey(&log[..length]);
        if length < head_end {
            match cut.unwrap_err() {
                LogError::Foreign(why) => assert_eq!((length, why), (0, "the file is empty")),
                LogError::Truncated { offset, .. } => {
                    assert!(offset == 0 || offset == 12, "{length}: {offset}")
                }
                other => panic!("{length}: {other}"),
            }
            continue;
        }
        let cut = cut.unwrap();
        let &(start, rounds) = boundaries.iter().rev().find(|(offset, _)| *offset <= length).unwrap();
        let Extent::Until(until, LogError::Truncated { offset, what }) = cut.extent else {
            panic!("{length}: {:?}", cut.extent);
        };
        assert_eq!((cut.rounds, offset), (rounds, start as u64), "{length}");
        assert!(until <= offset, "{length}");
        let boundary = length == start;
        assert_eq!(what == "without its last record", boundary, "{length}: {what}");
    }
}

#[test]
fn a_foreign_file_and_another_version_are_named() {
    for foreign in [&b"install rwlgt-iiaaa-aaaaa-aaaaa-cai x.wasm"[..], b"\0asm\x01\0\0\0", b"x"] {
        let error = survey(foreign).unwrap_err();
        assert!(matches!(error, LogError::Foreign("its first 8 bytes are others")), "{error}");
    }
    let mut newer = log();
    newer[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    assert_eq!(
        survey(&newer[..]).unwrap_err().to_string(),
        format!(
            "offset 8: the log has format 2, and this program reads format {VERSION}; a newer program wrote it"
        )
    );
}

/// A record as a writer frames it.
fn framed(offset: u64, length: u32, payload: &[u8]) -> Vec<u8> {
    let checksum = crc32fast::hash(payload);
    let head = [&offset.to_le_bytes()[..], &length.to_le_bytes(), &checksum.to_le_bytes()].concat();
    let head_checksum = crc32fast::hash(&head);
    [&length.to_le_bytes()[..], &checksum.to_le_bytes(), &head_checksum.to_le_bytes(), payload].concat()
}

#[test]
fn an_oversize_record_is_refused_by_its_length_before_its_content_is_read() {
    let prefix = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
    let oversize = [prefix.clone(), framed(12, RECORD_BYTES_MAX + 1, b"short")].concat();
    let error = survey(&oversize[..]).unwrap_err().to_string();
    assert_eq!(error, "offset 12: damaged record: it has 268435457 bytes, and 268435456 are allowed");
    // One that is allowed and not there costs what is there.
    let missing = [prefix, framed(12, RECORD_BYTES_MAX, b"short")].concat();
    let error = survey(&missing[..]).unwrap_err().to_string();
    assert_eq!(error, "offset 12: the log ends early, in the middle of a record");
}

/// Appends `entries` to a fresh log of a system subnet, and reads it.
fn read(entries: &[Entry<'_>]) -> Result<Survey, LogError> {
    let mut writer = Writer::begin(Vec::new(), Head::new(Preset::System)).unwrap();
    entries.iter().for_each(|entry| writer.append(entry).unwrap());
    survey(&writer.into_inner().unwrap()[..])
}

#[test]
fn records_out_of_place_are_refused() {
    let round = Entry::Round { time: 1, seed: [0; 32] };
    let root = Entry::Observed(Observation::Root([0; 32]));
    let answer = Observation::QueryAnswered(Answer::Reply(Excerpt::of(b"")));
    let answer = Entry::Observed(answer);
    let end = |rounds| Entry::End { rounds, messages: 0, queries: 0 };
    let create = |cycles| Entry::Create {
        creator: Principal::anonymous(),
        cycles,
        created: Ok(Principal::anonymous()),
    };
    assert!(read(&[round.clone(), root.clone(), end(1)]).is_ok());
    assert!(read(&[end(0)]).is_ok(), "a log without rounds is whole");
    for (entries, what) in [
        (vec![Entry::Head(Head::new(Preset::System))], "only the first one says which subnet it is"),
        (vec![round.clone(), round.clone()], "what ran before it has no end"),
        (vec![round.clone(), answer], "it tells of something that didn't run"),
        (vec![root.clone()], "it tells of something that didn't run"),
        (vec![end(1)], "it counts other rounds or messages than the log has"),
        (vec![end(0), round.clone()], "it follows the last one"),
        (vec![round, end(0)], "what ran before it has no end"),
        (vec![Entry::Round { time: u64::MAX, seed: [0; 32] }], "the round's time is after the year 2262"),
        (vec![create(u128::MAX)], "more cycles than there can be"),
    ] {
        let error = read(&entries).unwrap_err();
        assert!(matches!(&error, LogError::Damaged { what: said, .. } if said == what), "{error}");
    }
}

#[test]
fn a_log_must_begin_with_its_subnet() {
    let log = log();
    let boundaries = boundaries(&log);
    // Without its first record; the next isn't where it was written, either.
    let headless = [&log[..12], &log[boundaries[1].0..]].concat();
    let error = survey(&headless[..]).unwrap_err().to_string();
    assert_eq!(error, "offset 12: damaged record: the checksum of its head is wrong");
}

#[test]
fn limits_that_have_changed_since_are_named() {
    let other = edited(&log(), |_, entry| {
        if let Entry::Head(head) = entry {
            head.configuration = head.configuration.replace("nodes: 13", "nodes: 34");
        }
        true
    });
    let conflict = survey(&other[..]).unwrap().head.conflict();
    assert_eq!(conflict, Some(("nodes: 34,".to_owned(), "nodes: 13,".to_owned())));
}

#[test]
fn a_log_that_was_written_again_is_the_same() {
    let log = log();
    assert_eq!(edited(&log, |_, _| true), log);
}

/// What somebody who writes logs by hand may ask for.
fn hostile_entries() -> impl Strategy<Value = Vec<Entry<'static>>> {
    let canister = || Principal::from_text("rwlgt-iiaaa-aaaaa-aaaaa-cai").unwrap();
    let principal = prop_oneof![
        Just(Principal::management_canister()),
        Just(Principal::anonymous()),
        Just(canister()),
        prop::collection::vec(any::<u8>(), 0..=29).prop_map(|bytes| Principal::from_slice(&bytes)),
    ];
    let method = prop_oneof![
        Just("install_code"),
        Just("provisional_create_canister_with_cycles"),
        Just("stop_canister"),
        Just("update_settings"),
        Just("get"),
        Just(""),
    ];
    let bytes = || prop::collection::vec(any::<u8>(), 0..64);
    let message = (principal.clone(), principal.clone(), method, bytes(), bytes()).prop_map(
        |(sender, receiver, method, arg, nonce)| Message {
            sender,
            receiver,
            method: method.into(),
            arg: [b"DIDL", &arg[..]].concat().into(),
            nonce: nonce.into(),
        },
    );
    let round =
        (prop_oneof![0..=i64::MAX.cast_unsigned(), Just(i64::MAX.cast_unsigned())], any::<[u8; 32]>());
    let entries = prop_oneof![
        (principal, 0..=1_u128 << 100)
            .prop_map(|(creator, cycles)| { vec![Entry::Create { creator, cycles, created: Ok(creator) }] }),
        message.clone().prop_map(|message| vec![Entry::Submit { message, admission: Admission::Taken }]),
        message.prop_map(|message| {
            let answer = Observation::QueryAnswered(Answer::Reply(Excerpt::of(b"")));
            vec![Entry::Query { message }, Entry::Observed(answer)]
        }),
        round.prop_map(|(time, seed)| {
            vec![Entry::Round { time, seed }, Entry::Observed(Observation::Root([0; 32]))]
        }),
    ];
    prop::collection::vec(entries, 1..40).prop_map(|entries| entries.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_sound_log_asks_for_two_nodes_answer_alike(entries in hostile_entries()) {
        let mut writer = Writer::begin(Vec::new(), Head::new(Preset::System)).unwrap();
        entries.iter().for_each(|entry| writer.append(entry).unwrap());
        let offset = writer.bytes();
        let log = writer.into_inner().unwrap();
        let verdict = ENGINE.with(|node| {
            let [one, other] = [(), ()].map(|()| node.twin(Mode::InProcess).unwrap());
            on_executor_stack(move || {
                let mut log = Reader::begin(&log[..]).unwrap();
                Play::beside(one, other, ["one", "other"].map(str::to_owned)).run(&mut log, Some(offset)).unwrap()
            })
        });
        prop_assert_eq!(verdict, Verdict::Equal);
    }
}

thread_local! {
    /// Its twins share what takes long to make.
    static ENGINE: Node = Node::new(NodeOptions::fixed(Mode::InProcess, Preset::System)).unwrap();
}

proptest! {
    #[test]
    fn a_changed_byte_anywhere_is_found(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX) {
        thread_local!(static LOG: Vec<u8> = log());
        let mut changed = LOG.with(Clone::clone);
        let at = at.index(changed.len());
        changed[at] ^= flip;
        let error = survey(&changed[..]).unwrap_err();
        match error {
            LogError::Foreign(_) => prop_assert!(at < 8),
            LogError::Version { .. } => prop_assert!((8..12).contains(&at)),
            LogError::Damaged { offset, .. } => prop_assert!(offset <= at as u64 && at >= 12),
            other => prop_assert!(false, "byte {}: {}", at, other),
        }
    }

    #[test]
    fn any_content_in_a_sound_frame_is_taken_or_refused(content in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut writer = Writer::begin(Vec::new(), Head::new(Preset::System)).unwrap();
        let offset = writer.bytes();
        writer.flush().unwrap();
        let mut log = writer.into_inner().unwrap();
        log.extend(framed(offset, u32::try_from(content.len()).unwrap(), &content));
        // The last record is missing: whole it can't be, unless this is it.
        match survey(&log[..]) {
            Ok(survey) => prop_assert_eq!(survey.rounds, 0),
            Err(error) => prop_assert!(matches!(error, LogError::Damaged { .. }), "{}", error),
        }
    }
}
