//! No bytes from a peer panic, recurse, or take memory that has not been paid for in bytes.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use sandbox_protocol::{
    Assembly, Binding, Bytes, End, FRAME_BYTES_KEPT, FRAME_BYTES_MAX, Finished, FrameError, HEADER_BYTES,
    List, PACKET_BYTES, PageRun, PageSpan, ToNode, ToWorker, VERSION, decode, encode, heap_pages, packets,
    page_updates, stable_pages,
};

const BINDING: Binding = Binding { worker: 1, execution: 2, nonce: 3 };

fn header(version: u32, length: u32) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&version.to_le_bytes());
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn finished() -> ToNode<'static> {
    ToNode::Finished(Box::new(Finished {
        end: End::Trapped { code: 502, text: "text" },
        instructions: 5,
        heap_pages_dirty: 6,
        stable_pages_dirty: 7,
        logs: List(vec![Bytes(b"line")]),
        effects: None,
        heap_pages: 8,
        stable_pages: 9,
        heap: List(vec![PageSpan { page: 1, count: 2 }]),
        stable: List(vec![]),
        reusable: true,
    }))
}

#[test]
fn a_hundred_thousand_random_frames_are_refused_or_decoded() {
    let mut random = StdRng::seed_from_u64(1);
    let mut decoded = 0;
    let mut bytes = [0; 256];
    for _ in 0..100_000 {
        let length = random.random_range(0..bytes.len());
        random.fill_bytes(&mut bytes[..length]);
        // Half of them start as a message does, so that decoding gets beyond the first byte.
        if length > 0 && random.random() {
            bytes[0] %= 6;
        }
        decoded += usize::from(decode::<ToNode<'_>>(&bytes[..length]).is_ok());
        decoded += usize::from(decode::<ToWorker<'_>>(&bytes[..length]).is_ok());
        let mut assembly = Assembly::default();
        assert!(assembly.push(&bytes[..length]).is_err(), "no random bytes carry the version");
    }
    assert!(decoded > 0, "some short messages come up by chance");
}

#[test]
fn every_truncation_and_every_flipped_byte_of_a_frame_is_survived() {
    let mut frame = Vec::new();
    encode(BINDING, &finished(), &mut frame).unwrap();
    for end in 0..frame.len() {
        assert!(Assembly::default().push(&frame[..end]).is_err(), "cut at {end}");
        assert!(decode::<ToNode<'_>>(frame.get(HEADER_BYTES..end).unwrap_or_default()).is_err());
    }
    for at in 0..frame.len() {
        for flip in 1..=255 {
            let mut changed = frame.clone();
            changed[at] ^= flip;
            let mut assembly = Assembly::default();
            if assembly.push(&changed).is_ok_and(|complete| complete.is_some()) {
                let _either = decode::<ToNode<'_>>(assembly.body());
            }
        }
    }
}

#[test]
fn a_frame_one_byte_over_the_limit_is_refused_at_its_first_packet() {
    let bytes = FRAME_BYTES_MAX + 1;
    let mut packet = header(VERSION, u32::try_from(bytes).unwrap());
    packet.resize(PACKET_BYTES, 0);
    assert_eq!(Assembly::default().push(&packet), Err(FrameError::TooLong { bytes }));
    packet[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Assembly::default().push(&packet), Err(FrameError::TooLong { bytes: u32::MAX as usize }));
    let message = vec![0; FRAME_BYTES_MAX];
    assert!(matches!(encode(BINDING, &Bytes(&message), &mut Vec::new()), Err(FrameError::TooLong { .. })));
}

#[test]
fn another_version_is_refused() {
    let packet = header(VERSION + 1, 40);
    assert_eq!(Assembly::default().push(&packet), Err(FrameError::Version { found: VERSION + 1 }));
}

#[test]
fn a_frame_that_claims_less_than_its_header_is_refused() {
    for length in 0..40 {
        let packet = header(VERSION, length);
        assert_eq!(Assembly::default().push(&packet), Err(FrameError::TooShort { bytes: HEADER_BYTES }));
    }
}

#[test]
fn a_packet_of_the_wrong_length_inside_a_frame_is_refused() {
    let message = vec![0; 2 * PACKET_BYTES];
    let mut frame = Vec::new();
    encode(BINDING, &Bytes(&message), &mut frame).unwrap();
    let mut assembly = Assembly::default();
    assert_eq!(assembly.push(packets(&frame).next().unwrap()), Ok(None));
    let refused = assembly.push(&[0]);
    assert_eq!(refused, Err(FrameError::Packet { found: 1, expected: PACKET_BYTES }));
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let mut frame = Vec::new();
    encode(BINDING, &ToNode::Ready, &mut frame).unwrap();
    assert_eq!(decode::<ToNode<'_>>(&frame[HEADER_BYTES..]), Ok(ToNode::Ready));
    frame.push(0);
    assert_eq!(decode::<ToNode<'_>>(&frame[HEADER_BYTES..]), Err(FrameError::Undecodable));
}

#[test]
fn a_list_that_claims_more_than_its_limit_is_refused_before_its_first_item() {
    // The length 2^64 - 1 as postcard writes it, and nothing behind it.
    let claim = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert!(decode::<List<u64, 10>>(&claim).is_err());
    assert!(decode::<List<u64, 3>>(&[4, 0, 0, 0, 0]).is_err());
    assert_eq!(decode::<List<u64, 4>>(&[4, 0, 0, 0, 0]), Ok(List(vec![0; 4])));
}

#[test]
fn page_runs_out_of_range_are_refused() {
    let run = |page, count, slot| [PageRun { page, count, slot, known: false }];
    assert!(page_updates(&run(0, u32::MAX, None)).is_ok());
    assert!(page_updates(&run(u64::MAX, 1, None)).is_err());
    assert!(page_updates(&run(0, 2, Some(u32::MAX))).is_err());
}

fn span(page: u64, count: u32) -> PageSpan {
    PageSpan { page, count }
}

#[test]
fn written_pages_that_no_correct_worker_claims_are_refused() {
    for (claim, spans) in [
        ("twice", vec![span(5, 1), span(5, 1)]),
        ("overlapping", vec![span(5, 3), span(7, 1)]),
        ("empty span", vec![span(5, 0)]),
        ("outside", vec![span(100, 1)]),
        ("across the end", vec![span(99, 2)]),
        ("index overflow", vec![span(u64::MAX, 1)]),
        ("too many in one", vec![span(0, 11)]),
        ("too many in two", vec![span(0, 6), span(10, 5)]),
        ("four billion", vec![span(0, u32::MAX)]),
    ] {
        assert!(heap_pages(&spans, 100, 10).is_err(), "heap: {claim}");
        assert!(stable_pages(&spans, 100, 10).is_err(), "stable memory: {claim}");
    }
    let unsorted = [span(5, 2), span(4, 1)];
    assert!(heap_pages(&unsorted, 100, 10).is_err());
    assert_eq!(stable_pages(&unsorted, 100, 10), Ok(vec![5, 6, 4]), "the order of first writes");
    assert_eq!(heap_pages(&[span(0, 10)], 100, 10), Ok((0..10).collect()));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _either = decode::<ToNode<'_>>(&bytes);
        let _either = decode::<ToWorker<'_>>(&bytes);
        let _either = Assembly::default().push(&bytes);
    }

    #[test]
    fn no_claim_of_written_pages_panics(
        spans in proptest::collection::vec((any::<u64>(), any::<u32>()), 0..8),
        end in any::<u64>(),
    ) {
        let spans: Vec<PageSpan> = spans.into_iter().map(|(page, count)| span(page, count)).collect();
        if let Ok(pages) = heap_pages(&spans, end, 1000) {
            prop_assert!(pages.len() <= 1000);
            prop_assert!(pages.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(pages.iter().all(|&page| page < end));
            prop_assert_eq!(stable_pages(&spans, end, 1000), Ok(pages));
        }
    }
}

#[test]
fn one_long_frame_does_not_hold_memory_for_good() {
    let mut frame = Vec::new();
    encode(BINDING, &ToNode::Pages(Bytes(&vec![7; 8 << 20])), &mut frame).unwrap();
    let mut assembly = Assembly::default();
    for packet in packets(&frame) {
        assembly.push(packet).unwrap();
    }
    assert!(assembly.capacity() >= 8 << 20);
    assembly.restart();
    assert!(assembly.capacity() <= FRAME_BYTES_KEPT, "{} bytes", assembly.capacity());
}
