//! Frames: how a message is bounded, bound to its request and cut into packets.

use serde::{Deserialize, Serialize};

use crate::VERSION;

/// Longest packet in bytes; a frame longer than this goes as several.
pub const PACKET_BYTES: usize = 64 * 1024;
/// Length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 40;
/// Longest frame in bytes, header included.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Memory in bytes that an [`Assembly`] keeps from one frame to the next.
pub const FRAME_BYTES_KEPT: usize = 256 * 1024;

/// What a reply must repeat of its request. The nonce is random for each request, so a worker can't answer
/// before it is asked, twice, or for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The worker's number, unique within a node's life.
    pub worker: u64,
    /// The execution; 0 while loading.
    pub execution: u64,
    /// Random, new for each request.
    pub nonce: u128,
}

/// Why bytes are not a frame, or a message not sendable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first packet is shorter than a header.
    #[error("packet of {bytes} bytes where a frame starts")]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// Another protocol version.
    #[error("protocol version {found}, expected {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("frame of {bytes} bytes, the limit is {FRAME_BYTES_MAX}")]
    TooLong {
        /// Its length, header included.
        bytes: usize,
    },
    /// A packet that is longer or shorter than what is left of the frame calls for.
    #[error("packet of {found} bytes inside a frame, expected {expected}")]
    Packet {
        /// Its length.
        found: usize,
        /// The length it must have.
        expected: usize,
    },
    /// The body is not a message, or has bytes behind it.
    #[error("bytes that are no message")]
    Undecodable,
}

/// Encodes a message as a frame into `frame`, replacing what it held. Send its [`packets`] in order.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode(binding: Binding, message: &impl Serialize, frame: &mut Vec<u8>) -> Result<(), FrameError> {
    frame.clear();
    frame.resize(HEADER_BYTES, 0);
    // Writing into a Vec can't fail, and no message holds a type that postcard can't write.
    let mut encoded =
        postcard::to_extend(message, std::mem::take(frame)).map_err(|_| FrameError::Undecodable)?;
    let bytes = encoded.len();
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX);
    let length = length.ok_or(FrameError::TooLong { bytes })?;
    let header = [
        &VERSION.to_le_bytes()[..],
        &length.to_le_bytes(),
        &binding.worker.to_le_bytes(),
        &binding.execution.to_le_bytes(),
        &binding.nonce.to_le_bytes(),
    ]
    .concat();
    encoded[..HEADER_BYTES].copy_from_slice(&header);
    *frame = encoded;
    Ok(())
}

/// The packets of a frame, in order: all of [`PACKET_BYTES`] but the last.
pub fn packets(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    frame.chunks(PACKET_BYTES)
}

/// Decodes a body that an [`Assembly`] gave. Every byte must belong to the message.
///
/// # Errors
/// [`FrameError::Undecodable`].
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(FrameError::Undecodable),
    }
}

/// Puts a frame together from its packets. Memory is taken as bytes arrive, never for bytes that are claimed.
#[derive(Debug, Default)]
pub struct Assembly {
    frame: Vec<u8>,
    length: usize,
}

impl Assembly {
    /// Forgets what came so far and waits for a first packet. Of the memory, no more than
    /// [`FRAME_BYTES_KEPT`] stays: a peer that sent one long frame doesn't hold it for good.
    pub fn restart(&mut self) {
        self.frame.clear();
        self.frame.shrink_to(FRAME_BYTES_KEPT);
        self.length = 0;
    }

    /// Takes the next packet. `Some` when the frame is complete: its binding; then [`Assembly::body`] is the
    /// message.
    ///
    /// # Errors
    /// What is wrong with the packet; the peer is not to be listened to any more.
    pub fn push(&mut self, packet: &[u8]) -> Result<Option<Binding>, FrameError> {
        if self.length == 0 {
            self.length = frame_length(packet)?;
        }
        let left = self.length.saturating_sub(self.frame.len());
        let expected = left.min(PACKET_BYTES);
        if packet.len() != expected {
            return Err(FrameError::Packet { found: packet.len(), expected });
        }
        self.frame.extend_from_slice(packet);
        Ok((self.frame.len() == self.length).then(|| self.binding()).flatten())
    }

    /// The binding, once the first packet has come.
    #[must_use]
    pub fn binding(&self) -> Option<Binding> {
        Some(Binding {
            worker: u64::from_le_bytes(field(&self.frame, 8)?),
            execution: u64::from_le_bytes(field(&self.frame, 16)?),
            nonce: u128::from_le_bytes(field(&self.frame, 24)?),
        })
    }

    /// Memory held for frames, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.frame.capacity()
    }

    /// The message's bytes; empty before the frame is complete.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.frame.get(HEADER_BYTES..).unwrap_or_default()
    }
}

/// Length of the frame that starts with `packet`, checked.
fn frame_length(packet: &[u8]) -> Result<usize, FrameError> {
    let short = FrameError::TooShort { bytes: packet.len() };
    let version = u32::from_le_bytes(field(packet, 0).ok_or(short)?);
    let length = u32::from_le_bytes(field(packet, 4).ok_or(short)?) as usize;
    if packet.len() < HEADER_BYTES || length < HEADER_BYTES {
        return Err(short);
    }
    if version != VERSION {
        return Err(FrameError::Version { found: version });
    }
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: length });
    }
    Ok(length)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
