//! Bytes from a socket: no packets make the node panic or take memory that hasn't been paid for in bytes, and what
//! decodes says the same when it is said again.

use sandbox_protocol::{
    Assembly, Binding, FRAME_BYTES_KEPT, HEADER_BYTES, ToNode, ToWorker, decode, encode, heap_pages,
    stable_pages,
};

/// What came of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// No message.
    Refused,
    /// A message of a worker's or of the node's.
    Decoded,
}

const BINDING: Binding = Binding { worker: 1, execution: 2, nonce: 3 };

/// Takes any bytes as packets of a peer, as a message of a worker, and as one of the node.
pub fn run(input: &[u8]) -> Came {
    let mut assembly = Assembly::default();
    // Packets of as many bytes as the first one says.
    let (&length, bytes) = input.split_first().unwrap_or((&0, &[]));
    for packet in bytes.chunks(usize::from(length).max(1)) {
        if assembly.push(packet).is_err() {
            break;
        }
        assert!(
            assembly.capacity() <= FRAME_BYTES_KEPT + 4 * input.len(),
            "memory for bytes that never came"
        );
    }
    let mut frame = Vec::new();
    let mut came = Came::Refused;
    if let Ok(message) = decode::<ToNode<'_>>(input) {
        came = Came::Decoded;
        encode(BINDING, &message, &mut frame).expect("what fitted fits");
        assert_eq!(decode::<ToNode<'_>>(&frame[HEADER_BYTES..]).as_ref(), Ok(&message));
        if let ToNode::Finished(finished) = message {
            for (pages, end) in
                [(&finished.heap, finished.heap_pages), (&finished.stable, finished.stable_pages)]
            {
                let end = end.saturating_mul(16);
                if let Ok(pages) = heap_pages(&pages.0, end, 1_000) {
                    assert!(pages.len() <= 1_000 && pages.iter().all(|page| *page < end));
                    assert!(pages.windows(2).all(|pair| pair[0] < pair[1]));
                }
                if let Ok(pages) = stable_pages(&pages.0, end, 1_000) {
                    assert!(pages.len() <= 1_000 && pages.iter().all(|page| *page < end));
                }
            }
            // The judgement of effects comes later; here they only have to be ones that it can be made of.
            let _either = finished.effects.map(execution::Effects::try_from);
        }
    }
    if let Ok(message) = decode::<ToWorker<'_>>(input) {
        came = Came::Decoded;
        encode(BINDING, &message, &mut frame).expect("what fitted fits");
        assert_eq!(decode::<ToWorker<'_>>(&frame[HEADER_BYTES..]), Ok(message));
    }
    came
}
