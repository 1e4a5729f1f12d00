//! Interval logs and their histograms, as hostile files may have them; and the blocks that they make.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer, V2Serializer};
use proptest::prelude::*;
use rollout::{
    Arm, BlockError, Design, HistogramError, Hlog, INTERVALS_MAX, Latencies, LogReadError, LoggedInterval,
    Recorder, Side, Windows, read_log,
};

const HEAD: &str = "#[Histogram log format version 1.3]\n";

fn histogram(values: &[u64]) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    values.iter().for_each(|&value| histogram.record(value).unwrap());
    histogram
}

fn latencies(values: &[u64]) -> Latencies {
    Latencies::of(&histogram(values)).unwrap()
}

fn read_all(log: &str) -> Result<Vec<LoggedInterval>, LogReadError> {
    let mut read = Vec::new();
    read_log(
        log.as_bytes(),
        |_, _| true,
        |interval| {
            read.push(interval);
            Ok(())
        },
    )?;
    Ok(read)
}

/// Bytes of an uncompressed histogram with these counts, as the format has them.
fn uncompressed(low: u64, high: u64, digits: u32, counts: &[u8]) -> Vec<u8> {
    let mut bytes = 0x1c84_9313_u32.to_be_bytes().to_vec();
    bytes.extend(u32::try_from(counts.len()).unwrap().to_be_bytes());
    bytes.extend(0_u32.to_be_bytes());
    bytes.extend(digits.to_be_bytes());
    bytes.extend(low.to_be_bytes());
    bytes.extend(high.to_be_bytes());
    bytes.extend(1.0_f64.to_be_bytes());
    bytes.extend(counts);
    bytes
}

fn of_node(counts: &[u8]) -> Vec<u8> {
    uncompressed(1, 60_000_000_000, 3, counts)
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    let deflated = encoder.finish().unwrap();
    let mut bytes = 0x1c84_9314_u32.to_be_bytes().to_vec();
    bytes.extend(u32::try_from(deflated.len()).unwrap().to_be_bytes());
    bytes.extend(deflated);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Latencies, HistogramError> {
    Latencies::decode(&STANDARD.encode(bytes))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_histogram_comes_back_from_its_text_as_it_was(
        values in prop::collection::vec(0_u64..=60_000_000_000, 0..200),
    ) {
        let whole = histogram(&values);
        let latencies = Latencies::of(&whole).unwrap();
        prop_assert_eq!(latencies.measurements(), values.len() as u64);
        prop_assert_eq!(&Latencies::decode(&latencies.encode()).unwrap(), &latencies);
        let (mut plain, mut deflated) = (Vec::new(), Vec::new());
        V2Serializer::new().serialize(&whole, &mut plain).unwrap();
        V2DeflateSerializer::new().serialize(&whole, &mut deflated).unwrap();
        prop_assert_eq!(&decode(&plain).unwrap(), &latencies);
        prop_assert_eq!(&decode(&deflated).unwrap(), &latencies);
    }

    #[test]
    fn sums_are_those_of_merged_histograms(
        some in prop::collection::vec(0_u64..100_000, 0..100),
        others in prop::collection::vec(0_u64..100_000, 0..100),
    ) {
        let mut sum = latencies(&some);
        sum.add(&latencies(&others)).unwrap();
        prop_assert_eq!(sum, latencies(&[some, others].concat()));
    }

    #[test]
    fn no_bytes_make_a_histogram_panic(counts in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..40, byte: u8) {
        let mut bytes = of_node(&counts);
        let _refused_or_not = decode(&bytes);
        bytes[at] = byte;
        let _refused_or_not = decode(&bytes);
        let _refused_or_not = decode(&compressed(&bytes));
    }

    #[test]
    fn no_text_makes_a_log_panic(text in "(Tag=[a-z.-]{0,12},|#\\[(Start|Base)Time: )?[0-9.,eN+-]{0,30}[ -~]{0,30}\n?") {
        let _refused_or_not = read_all(&format!("{HEAD}{text}"));
    }
}

#[test]
fn a_histogram_with_other_bounds_is_refused_before_it_is_made() {
    for (low, high, digits) in
        [(1, u64::MAX, 5), (1, 60_000_000_000, 2), (1_000, 60_000_000_000, 3), (0, 0, 0)]
    {
        let refused = decode(&uncompressed(low, high, digits, &[]));
        assert_eq!(refused, Err(HistogramError::Bounds { low, high, digits }));
    }
}

#[test]
fn damaged_histograms_are_refused_with_the_reason() {
    let number = |first: u8| [&[first][..], &[0xff; 8]].concat();
    let with = |at: usize, bytes: &[u8]| {
        let mut whole = of_node(&[2, 2]);
        whole[at..at + bytes.len()].copy_from_slice(bytes);
        whole
    };
    for (what, bytes, reason) in [
        ("nothing", vec![], "its head is cut"),
        ("half a head", of_node(&[])[..20].to_vec(), "its head is cut"),
        ("another format", with(0, &[1, 2, 3, 4]), "it isn't in format V2"),
        ("four gigabytes of counts", with(4, &[0xff; 4]), "its length is another than it says"),
        ("values moved up", with(8, &[0, 0, 0, 1]), "it is normalized, and those of a node are not"),
        (
            "a ratio that is no number",
            with(32, &f64::NAN.to_be_bytes()),
            "it is normalized, and those of a node are not",
        ),
        ("half a count", of_node(&[0x80]), "it ends in the middle of a count"),
        // ZigZag of -2^63: its negation overflows in the crate that decodes.
        ("a run of 2^63 zeros", of_node(&number(0xff)), "it has more counts than there are values"),
        (
            "runs that add up to too many",
            of_node(&number(0xff).repeat(3)),
            "it has more counts than there are values",
        ),
        ("more counts than values", of_node(&[2].repeat(40_000)), "it has more counts than there are values"),
        ("a bomb", compressed(&vec![0; 50_000_000]), "it decompresses to more than the largest histogram"),
        ("half a stream", compressed(&of_node(&[2]))[..20].to_vec(), "its length is another than it says"),
        (
            "a compressed one in a compressed one",
            compressed(&compressed(&of_node(&[2]))),
            "it isn't in format V2",
        ),
    ] {
        assert_eq!(decode(&bytes), Err(HistogramError::Damaged(reason)), "{what}");
    }
    assert_eq!(Latencies::decode("not base64!"), Err(HistogramError::Base64));
    assert_eq!(Latencies::decode(&"A".repeat(600_000)), Err(HistogramError::TooLong(600_000)));
    // 2^62 measurements in one bucket.
    assert_eq!(decode(&of_node(&[&[0x80; 8][..], &[0x80]].concat())), Err(HistogramError::TooMany));
}

#[test]
fn sums_stop_before_they_overflow() {
    let mut many = histogram(&[]);
    many.record_n(5, u32::MAX.into()).unwrap();
    let mut many = Latencies::of(&many).unwrap();
    assert_eq!(many.add(&latencies(&[5])), Err(HistogramError::TooMany));
    assert_eq!(many.measurements(), u64::from(u32::MAX));
}

#[test]
fn a_log_that_we_wrote_is_read_back() {
    let recorder = Recorder::new();
    recorder.record(Arm::InProcess, "update", Duration::from_micros(100));
    recorder.record(Arm::Sandboxed, "query", Duration::from_micros(300));
    let mut interval = recorder.rotate();
    interval.start = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
    interval.duration = Duration::from_secs(10);
    let mut log = Hlog::begin(Vec::new(), &interval).unwrap();
    log.write(&interval).unwrap();
    let log = String::from_utf8(log.finish()).unwrap();

    let read = read_all(&log).unwrap();
    let series: Vec<_> = read.iter().map(|interval| (interval.arm, interval.kind)).collect();
    assert_eq!(series, [(Arm::InProcess, "update"), (Arm::Sandboxed, "query")]);
    for interval in &read {
        assert_eq!(interval.start, Duration::from_millis(1_700_000_000_250));
        assert_eq!(interval.duration, Duration::from_secs(10));
        assert_eq!(interval.latencies.measurements(), 1);
    }
    // What isn't asked for isn't given.
    let mut given = 0;
    let only = |arm, kind: &str| arm == Arm::Sandboxed && kind == "query";
    read_log(log.as_bytes(), only, |_| {
        given += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(given, 1);
}

#[test]
fn a_base_time_moves_what_follows_it() {
    let text = latencies(&[5]).encode();
    let log = format!(
        "{HEAD}#[BaseTime: 1000.5 (seconds since epoch)]\nTag=sandboxed.update,1.000,2.000,5.0,{text}\n"
    );
    assert_eq!(read_all(&log).unwrap()[0].start, Duration::from_millis(1_001_500));
}

#[test]
fn a_bad_line_is_named_with_what_is_wrong_with_it() {
    let good = latencies(&[5]).encode();
    for (line, what) in [
        (format!("0.000,1.000,5.0,{good}\n"), "no tag; tags say MODE.KIND"),
        (format!("Tag=x,0.000,1.000,5.0,{good}\n"), "unknown tag `x`"),
        (format!("Tag=sandboxed.updat,0.000,1.000,5.0,{good}\n"), "unknown tag `sandboxed.updat`"),
        (format!("Tag=fast.update,0.000,1.000,5.0,{good}\n"), "unknown tag `fast.update`"),
        (format!("Tag=sandboxed.update,-1.000,1.000,5.0,{good}\n"), "neither an interval"),
        (format!("Tag=sandboxed.update,NaN,1.000,5.0,{good}\n"), "neither an interval"),
        (format!("Tag=sandboxed.update,0.000,-1.000,5.0,{good}\n"), "neither an interval"),
        (format!("Tag=sandboxed.update,99999999999.000,1.000,5.0,{good}\n"), "after the year 2262"),
        (format!("Tag=sandboxed.update,0.000,99999999999.000,5.0,{good}\n"), "after the year 2262"),
        (format!("Tag=sandboxed.update,18446744073709551615.9,1.0,5.0,{good}\n"), "after the year 2262"),
        (format!("Tag=sandboxed.update,0.000,1.000,NaN,{good}\n"), "a highest latency of NaN"),
        (format!("Tag=sandboxed.update,0.000,1.000,-5.0,{good}\n"), "a highest latency of -5"),
        ("Tag=sandboxed.update,0.000,1.000,5.0,AAAA\n".to_owned(), "a damaged histogram"),
        (format!("Tag=sandboxed.update,0.000,1.000,5.0,{good}"), "it ends in the middle of the line"),
        (format!("Tag=sandboxed.update,0.000,1.000,5.0,{}\n", "A".repeat(1 << 20)), "bytes; "),
        ("hello\n".to_owned(), "neither an interval"),
        ("\n".to_owned(), "neither an interval"),
    ] {
        let refused = read_all(&format!("{HEAD}# a comment\n{line}")).unwrap_err();
        let LogReadError::Line { line: 3, what: said } = &refused else { panic!("{line}: {refused}") };
        assert!(said.contains(what), "{line}: {said}");
    }
    assert_eq!(read_all(""), Err(LogReadError::Foreign));
    assert_eq!(read_all("GIF89a"), Err(LogReadError::Foreign));
}

#[test]
fn a_log_with_too_many_intervals_is_refused() {
    // Of a series that nobody asks for: nothing is decoded.
    let log = HEAD.to_owned() + &"Tag=sandboxed.update,0.0,1.0,5.0,A\n".repeat(INTERVALS_MAX + 1);
    let refused = read_log(log.as_bytes(), |_, _| false, |_| Ok(())).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("line {}: more than 200000 intervals in one log", INTERVALS_MAX + 2)
    );
}

#[test]
fn comments_without_end_take_no_longer_than_they_are_long() {
    // Given all of these at once, the crate looks for a full stop up to the end of the log at each line.
    let log = HEAD.to_owned() + &"#\n".repeat(4_000_000);
    assert_eq!(read_all(&log), Ok(Vec::new()));
}

/// Windows of a minute with so many messages of each side, by minute.
fn windows(design: Design, minutes: &[[usize; 2]]) -> Windows {
    let mut windows = Windows::new(design, Duration::from_secs(60)).unwrap();
    for (minute, counts) in (0_u64..).zip(minutes) {
        for (side, &count) in [Side::Control, Side::Candidate].into_iter().zip(counts) {
            // One message at each ten seconds, up to six.
            for at in 0..count {
                let start = Duration::from_secs(minute * 60 + at as u64 * 10);
                windows.add(side, start, Duration::from_secs(10), &latencies(&[1_000 + minute])).unwrap();
            }
        }
    }
    windows
}

fn counts(windows: &Windows) -> Vec<[u64; 2]> {
    let pairs = windows.pair(7).unwrap().pairs;
    pairs.iter().map(|pair| [pair.control.measurements(), pair.candidate.measurements()]).collect()
}

#[test]
fn a_node_split_compares_blocks_of_the_same_time() {
    let windows = windows(Design::NodeSplit, &[[6, 5], [6, 0], [0, 6], [4, 4]]);
    assert_eq!(counts(&windows), [[6, 5], [4, 4]]);
    assert_eq!(windows.pair(7).unwrap().left_out, 2);
}

#[test]
fn a_switchback_compares_neighbours_and_leaves_out_what_came_just_after_a_change() {
    // Control, candidate, a minute with a change in it, candidate twice, control.
    let windows = windows(Design::Switchback, &[[6, 0], [0, 6], [3, 3], [0, 6], [0, 6], [6, 0]]);
    // The first ten seconds after each change are gone; the fifth minute goes on from the fourth and is
    // whole.
    assert_eq!(counts(&windows), [[5, 5], [5, 6]]);
    assert_eq!(windows.pair(7).unwrap().left_out, 2);
}

#[test]
fn modes_that_follow_each_other_once_make_one_pair_only() {
    let minutes = [vec![[6, 0]; 20], vec![[0, 6]; 20]].concat();
    assert_eq!(windows(Design::Switchback, &minutes).pair(7).unwrap().pairs.len(), 1);
}

#[test]
fn equal_arms_are_halves_of_the_control_by_lot() {
    let minutes: Vec<[usize; 2]> = (0..41).map(|minute| [1 + minute % 2, 6]).collect();
    let windows = windows(Design::Aa, &minutes);
    let pairs = counts(&windows);
    assert_eq!(pairs.len(), 20);
    // Odd minutes have two messages: which half gets them changes.
    assert!(pairs.contains(&[1, 2]) && pairs.contains(&[2, 1]));
    assert_eq!(windows.pair(7), windows.pair(7));
    assert_ne!(windows.pair(7).unwrap().pairs, windows.pair(8).unwrap().pairs);
}

#[test]
fn blocks_have_bounds() {
    let seconds = Duration::from_secs;
    for (design, length) in [
        (Design::NodeSplit, Duration::ZERO),
        (Design::NodeSplit, seconds(86_401)),
        (Design::Switchback, seconds(5)),
    ] {
        assert_eq!(Windows::new(design, length).unwrap_err(), BlockError::Length(length));
    }
    let mut windows = Windows::new(Design::NodeSplit, seconds(60)).unwrap();
    windows.add(Side::Control, seconds(0), seconds(61), &latencies(&[1])).unwrap();
    let left_out = windows.pair(7).unwrap();
    assert_eq!((left_out.pairs.len(), left_out.left_out), (0, 1), "an interval longer than a block");
    let one = latencies(&[1]);
    let many =
        (0..3_000).try_for_each(|minute| windows.add(Side::Control, seconds(minute * 60), seconds(60), &one));
    assert_eq!(many.unwrap_err(), BlockError::TooMany);
}
