//! The usual design of a sandboxed call, to be compared with: six hops between threads for each round trip. Caller to
//! writer thread, stream socket to reader thread, reader to worker thread; and the same back. Requests and replies are
//! structures, encoded and framed by their length. The process on the other side is warm and does nothing.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::peer::{Peer, Role};

/// Longest frame, bytes.
const FRAME_BYTES_MAX: usize = 1 << 16;

/// What a call says, about: who, what, and what the System API may answer.
#[derive(Serialize, Deserialize)]
struct Request {
    execution: u64,
    canister: Vec<u8>,
    caller: Vec<u8>,
    method: String,
    arg: Vec<u8>,
    /// Limits, times, balances.
    numbers: Vec<u64>,
}

/// What comes of it, about: how it ended, and which pages it wrote.
#[derive(Serialize, Deserialize)]
struct Reply {
    execution: u64,
    result: Result<Vec<u8>, String>,
    pages: Vec<u32>,
    globals: Vec<u64>,
}

impl Request {
    /// An empty update; about as many bytes as the product's.
    fn empty_update(execution: u64) -> Self {
        Self {
            execution,
            canister: vec![1; 10],
            caller: vec![4; 29],
            method: "empty".into(),
            arg: Vec::new(),
            numbers: vec![1 << 50; 56],
        }
    }
}

impl Reply {
    fn to(request: &Request) -> Self {
        let globals = request.numbers[..request.numbers.len() / 2].to_vec();
        Self { execution: request.execution, result: Ok(Vec::new()), pages: vec![1], globals }
    }
}

/// The caller's side of it.
pub(crate) struct Hops {
    requests: Sender<Request>,
    replies: Receiver<Reply>,
    execution: u64,
    _peer: Peer,
}

impl Hops {
    /// Starts the peer and the threads, where the calling thread may run.
    pub(crate) fn start() -> Result<Self, String> {
        let peer = Peer::start(Role::Hops)?;
        let (requests, replies) = hop_threads(stream(peer.socket())?)?;
        Ok(Self { requests, replies, execution: 0, _peer: peer })
    }

    /// One call.
    pub(crate) fn round_trip(&mut self) -> Result<(), String> {
        sandbox_os::tsc::open();
        self.execution += 1;
        self.requests.send(Request::empty_update(self.execution)).map_err(|_| "the writer thread is gone")?;
        let reply = self.replies.recv().map_err(|_| "the reader thread is gone")?;
        if reply.execution == self.execution { Ok(()) } else { Err("a reply to another request".into()) }
    }

    /// Bytes of a request and of its reply.
    pub(crate) fn bytes() -> Result<[usize; 2], String> {
        let request = Request::empty_update(1);
        Ok([encode(&request)?.len(), encode(&Reply::to(&request))?.len()])
    }
}

/// The peer's side: the calling thread is the worker.
pub(crate) fn serve() -> Result<(), String> {
    let (replies, requests) = hop_threads::<Reply, Request>(stream(std::io::stdin())?)?;
    for request in requests {
        if replies.send(Reply::to(&request)).is_err() {
            break;
        }
    }
    Ok(())
}

fn stream(socket: impl AsFd) -> Result<UnixStream, String> {
    let socket = socket.as_fd().try_clone_to_owned().map_err(|error| format!("a socket: {error}"))?;
    Ok(UnixStream::from(socket))
}

/// A writer thread and a reader thread for `socket`: what to write, and what was read.
fn hop_threads<O, I>(socket: UnixStream) -> Result<(Sender<O>, Receiver<I>), String>
where
    O: Serialize + Send + 'static,
    I: DeserializeOwned + Send + 'static,
{
    let (outgoing, to_write) = channel::<O>();
    let (was_read, incoming) = channel::<I>();
    let writer = socket.try_clone().map_err(|error| format!("a socket: {error}"))?;
    // Both end with the socket or with the other end of their channel; nobody waits for that.
    thread::spawn(move || to_write.iter().try_for_each(|message| write_frame(&writer, &message)));
    thread::spawn(move || {
        while let Ok(message) = read_frame(&socket) {
            if was_read.send(message).is_err() {
                break;
            }
        }
    });
    Ok((outgoing, incoming))
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, String> {
    postcard::to_stdvec(message).map_err(|error| error.to_string())
}

fn write_frame(mut socket: &UnixStream, message: &impl Serialize) -> Result<(), String> {
    let body = encode(message)?;
    let frame = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
    socket.write_all(&frame).map_err(|error| error.to_string())
}

fn read_frame<T: DeserializeOwned>(mut socket: &UnixStream) -> Result<T, String> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).map_err(|error| error.to_string())?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err("a frame is too long".into());
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).map_err(|error| error.to_string())?;
    postcard::from_bytes(&body).map_err(|error| error.to_string())
}
