//! One request and its reply over a process's socket, bounded in time and in size.

use std::time::{Duration, Instant};

use execution::{BackendError, Violation};
use sandbox_os::{Ended, SocketError};
use sandbox_protocol::{Assembly, Binding, FrameError, PACKET_BYTES, decode, encode, packets};
use serde::{Deserialize, Serialize};

use crate::source::WorkerProcess;

/// The conversation with one process: at most one request is in flight.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The process's number, unique within this node's life.
    number: u64,
    request: Vec<u8>,
    reply: Assembly,
    packet: Vec<u8>,
}

/// Why there is no whole reply.
pub(crate) enum ExchangeError {
    Socket(SocketError),
    Frame(FrameError),
}

/// Why there is no right reply.
pub(crate) enum Failed {
    /// The process hung up, and ended like this.
    Ended(Ended),
    /// Anything else.
    Otherwise(BackendError),
}

impl From<BackendError> for Failed {
    fn from(error: BackendError) -> Self {
        Self::Otherwise(error)
    }
}

impl Exchange {
    pub(crate) fn new(number: u64) -> Self {
        let packet = vec![0; PACKET_BYTES];
        Self { number, request: Vec::new(), reply: Assembly::default(), packet }
    }

    /// Sends a request and waits for its reply, at most `patience` for all of it. After an error the process is not to
    /// be listened to any more, and where it hung up it is dead.
    pub(crate) fn ask<'a, T: Deserialize<'a>>(
        &'a mut self,
        process: &mut dyn WorkerProcess,
        request: &impl Serialize,
        patience: Duration,
    ) -> Result<T, Failed> {
        let binding = Binding { worker: self.number, execution: 0, nonce: rand::random() };
        encode(binding, request, &mut self.request).map_err(too_long)?;
        if let Err(error) = self.exchange(process, patience) {
            return Err(failed(process, error, patience));
        }
        if self.reply.binding() != Some(binding) {
            return Err(violation("a reply to another request").into());
        }
        decode(self.reply.body()).map_err(|error| violation(error.to_string()).into())
    }

    fn exchange(&mut self, process: &dyn WorkerProcess, patience: Duration) -> Result<(), ExchangeError> {
        let start = Instant::now();
        let socket = process.socket();
        for packet in packets(&self.request) {
            socket.send_since(packet, start, patience)?;
        }
        self.reply.restart();
        loop {
            // Packets that keep coming, each just in time, don't make the wait longer.
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(SocketError::Deadline(patience).into());
            }
            socket.set_receive_patience(left)?;
            let bytes = socket.receive_blocking(&mut self.packet)?;
            let packet = self.packet.get(..bytes).ok_or(SocketError::TooLong(PACKET_BYTES))?;
            if self.reply.push(packet)?.is_some() {
                return Ok(());
            }
        }
    }
}

/// The process said what no correct one says.
pub(crate) fn violation(claim: impl Into<String>) -> BackendError {
    Violation(claim.into()).into()
}

/// A request that no frame holds.
pub(crate) fn too_long(error: FrameError) -> BackendError {
    BackendError::Exhausted { limit: "frame bytes", detail: error.to_string() }
}

fn failed(process: &mut dyn WorkerProcess, error: ExchangeError, patience: Duration) -> Failed {
    let error = match error {
        ExchangeError::Socket(SocketError::Closed) => return Failed::Ended(process.kill()),
        ExchangeError::Socket(SocketError::Deadline(_)) => {
            BackendError::Deadline { milliseconds: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX) }
        }
        ExchangeError::Socket(error @ SocketError::TooLong(_)) => violation(error.to_string()),
        ExchangeError::Socket(SocketError::Os(errno)) => {
            BackendError::Engine(format!("the process's socket failed: {errno}"))
        }
        ExchangeError::Frame(error) => violation(error.to_string()),
    };
    Failed::Otherwise(error)
}

impl From<SocketError> for ExchangeError {
    fn from(error: SocketError) -> Self {
        Self::Socket(error)
    }
}

impl From<FrameError> for ExchangeError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}
