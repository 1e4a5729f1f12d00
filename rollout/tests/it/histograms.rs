//! Counting, showing and writing latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use rollout::{Arm, Hlog, Recorder, write_hgrm};

#[test]
fn counts_of_many_threads_are_merged_exactly_and_survive_rotation() {
    let recorder = Recorder::new();
    std::thread::scope(|scope| {
        for thread in 0..80_u64 {
            let recorder = &recorder;
            scope.spawn(move || {
                for step in 1..=100 {
                    recorder.record(Arm::Sandboxed, "update", Duration::from_micros(thread * 100 + step));
                }
            });
        }
    });
    let interval = recorder.rotate();
    assert_eq!(interval.series().map(|(_, _, histogram)| histogram.len()).sum::<u64>(), 8_000);
    recorder.record(Arm::Sandboxed, "update", Duration::from_micros(1));
    let total = recorder.total(Arm::Sandboxed, "update").unwrap();
    assert_eq!(total.len(), 8_001);
    assert!(total.value_at_quantile(0.5).abs_diff(4_000_000) < 4_000 * 2, "{}", total.value_at_quantile(0.5));
    assert_eq!(recorder.total(Arm::InProcess, "update"), None);
    assert_eq!(recorder.rotate().series().map(|(_, _, histogram)| histogram.len()).sum::<u64>(), 1);
}

#[test]
fn intervals_of_two_nodes_add_up_and_one_series_can_be_taken_out() {
    let [one, other] = [Recorder::new(), Recorder::new()];
    one.record(Arm::InProcess, "update", Duration::from_micros(1));
    other.record(Arm::InProcess, "update", Duration::from_micros(2));
    other.record(Arm::Sandboxed, "query", Duration::from_micros(2));
    let mut both = one.total_interval();
    both.add(&other.total_interval());
    let updates = both.one(Arm::InProcess, "update").unwrap();
    assert_eq!((updates.len(), updates.min(), updates.max()), (2, 1_000, 2_000));
    assert_eq!(both.one(Arm::Sandboxed, "update"), None);
    let only = both.only(Arm::Sandboxed, "query");
    assert_eq!(
        only.series().map(|(arm, kind, _)| (arm, kind)).collect::<Vec<_>>(),
        [(Arm::Sandboxed, "query")]
    );
    one.clear();
    assert_eq!(one.total_interval().series().count(), 0);
}

#[test]
fn hgrm_has_the_columns_and_the_foot_that_its_readers_look_for() {
    let recorder = Recorder::new();
    for milliseconds in [1, 2, 3, 4] {
        recorder.record(Arm::InProcess, "update", Duration::from_millis(milliseconds));
    }
    let mut text = String::new();
    // Three digits of 4 ms in nanoseconds are told apart by 2048 ns: what is shown is the end of such a step.
    write_hgrm(&mut text, &recorder.total(Arm::InProcess, "update").unwrap(), 1e6).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
    assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
    assert!(lines.contains(&"       4.002 1.000000000000          4"), "{text}");
    assert!(text.contains("#[Max     =        4.002, Total count    =            4]\n"), "{text}");
    assert!(lines[lines.len() - 1].ends_with("SubBuckets     =         2048]"), "{text}");
}

#[test]
fn a_latency_above_the_highest_is_counted_and_saturates() {
    let recorder = Recorder::new();
    recorder.record(Arm::InProcess, "query", Duration::from_secs(61));
    assert_eq!(recorder.saturated(), 1);
    let total = recorder.total(Arm::InProcess, "query").unwrap();
    assert!(total.equivalent(total.max(), 60_000_000_000), "{}", total.max());
}

#[test]
fn the_table_shows_both_modes_and_never_draws_no_data_as_zero() {
    let recorder = Recorder::new();
    for _ in 0..10 {
        recorder.record(Arm::InProcess, "update", Duration::from_micros(100));
        recorder.record(Arm::Sandboxed, "update", Duration::from_micros(150));
    }
    recorder.record(Arm::InProcess, "query", Duration::from_millis(2));
    assert_eq!(
        recorder.table().to_string(),
        "\
kind             mode                 count       p50       p90       p99     p99.9       max
update           in-process              10    100 us    100 us    100 us    100 us    100 us
                 sandboxed               10    150 us    150 us    150 us    150 us    150 us
                 ratio                          1.50x     1.50x     1.50x     1.50x     1.50x
query            in-process               1    2.0 ms    2.0 ms    2.0 ms    2.0 ms    2.0 ms
                 sandboxed                -         -         -         -         -         -
                 ratio                              -         -         -         -         -"
    );
    let json = recorder.table().to_json();
    assert_eq!(json["modes"][0]["sandboxed"]["count"], 10);
    assert!(json["modes"][1]["sandboxed"].is_null());
    assert!(json["modes"][1]["ratio"].is_null());
    let widest = recorder.table().to_string().lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100));
}

#[test]
fn an_empty_table_says_that_there_is_nothing() {
    assert!(Recorder::new().table().to_string().lines().nth(1).unwrap().starts_with('-'));
}

#[test]
fn an_interval_log_is_read_back_with_its_tags_and_values() {
    let recorder = Recorder::new();
    recorder.record(Arm::InProcess, "update", Duration::from_micros(100));
    recorder.record(Arm::Sandboxed, "update", Duration::from_micros(300));
    let first = recorder.rotate();
    recorder.record(Arm::Sandboxed, "query", Duration::from_millis(5));
    let second = recorder.rotate();
    let mut log = Hlog::begin(Vec::new(), &first).unwrap();
    log.write(&first).unwrap();
    log.write(&second).unwrap();
    let log = log.finish();

    assert!(log.starts_with(b"#[Histogram log format version 1.3]\n"));
    assert_eq!(String::from_utf8_lossy(&log).matches("StartTime").count(), 1);
    let mut read = Vec::new();
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            let bytes = base64(interval.encoded_histogram());
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            read.push((interval.tag().unwrap().to_string(), histogram.len(), histogram.max()));
        }
    }
    let value = |arm, kind| recorder.total(arm, kind).unwrap().max();
    assert_eq!(
        read,
        [
            ("in-process.update".to_owned(), 1, value(Arm::InProcess, "update")),
            ("sandboxed.update".to_owned(), 1, value(Arm::Sandboxed, "update")),
            ("sandboxed.query".to_owned(), 1, value(Arm::Sandboxed, "query")),
        ]
    );
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter(|&byte| byte != b'=');
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in digits {
        let value = ALPHABET.iter().position(|&letter| letter == digit).expect("base64");
        bits = bits << 6 | u32::try_from(value).expect("below 64");
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).expect("masked"));
        }
    }
    bytes
}
