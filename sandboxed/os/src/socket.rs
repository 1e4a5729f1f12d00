//! One end of a sequenced-packet socket. A packet arrives whole or not at all (unix(7)), so a peer can't
//! make the other end wait for the rest of one.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Bytes in the largest packet. Longer frames are sent as several packets.
///
/// Well below the kernel's default socket buffer (`net.core.wmem_default`, 212,992), which bounds a packet.
pub const PACKET_BYTES_MAX: usize = 128 * 1024;

/// Descriptors that one packet may carry: code and all segments of an arena.
pub const PACKET_FILES_MAX: usize = 5;

/// What went wrong on a socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The other end is closed.
    #[error("the other end closed the socket")]
    Closed,
    /// Nothing arrived, or nothing could be sent, in time.
    #[error("no progress within {0:?}")]
    Deadline(Duration),
    /// A packet was longer than the buffer offered.
    #[error("a packet was longer than {0} bytes")]
    TooLong(usize),
    /// The kernel refused.
    #[error("socket: {0}")]
    Os(#[from] Errno),
}

/// One end of a socket pair between two processes.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl From<OwnedFd> for Socket {
    fn from(file: OwnedFd) -> Self {
        Self(file)
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Socket {
    /// Makes a connected pair. Both ends are close-on-exec and blocking.
    ///
    /// # Errors
    /// [`SocketError::Os`], for example when descriptors have run out (RLIMIT_NOFILE).
    pub fn pair() -> Result<(Self, Self), SocketError> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Makes the other end unable to pass descriptors to this one (SO_PASSRIGHTS, Linux 6.16).
    ///
    /// Older kernels don't know it: there, [`Socket::receive`] offers no room for descriptors and the
    /// kernel drops them.
    pub fn refuse_files(&self) {
        const SO_PASSRIGHTS: libc::c_int = 83;
        let off: libc::c_int = 0;
        // SAFETY: the option value is a c_int that outlives the call; the descriptor is ours.
        unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PASSRIGHTS,
                (&raw const off).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
    }

    /// Sends one packet, waiting at most `patience` for room.
    ///
    /// # Errors
    /// [`SocketError::Deadline`] when the peer doesn't read, [`SocketError::Closed`] when it is gone.
    pub fn send(&self, packet: &[u8], patience: Duration) -> Result<(), SocketError> {
        self.send_since(packet, Instant::now(), patience)
    }

    /// Sends one of several packets that have `patience` together, from `start` on. Where there is room it doesn't look
    /// at the clock.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub fn send_since(&self, packet: &[u8], start: Instant, patience: Duration) -> Result<(), SocketError> {
        loop {
            match rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, start, patience)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(gone(errno)),
            }
        }
    }

    /// Sends one packet, waiting for room as long as it takes: one call with no flag but `MSG_NOSIGNAL`, which
    /// is all that a worker's RUN lock allows.
    ///
    /// # Errors
    /// [`SocketError::Closed`] when the peer is gone.
    pub fn send_blocking(&self, packet: &[u8]) -> Result<(), SocketError> {
        loop {
            match rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(gone(errno)),
            }
        }
    }

    /// Sends one packet with descriptors.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub fn send_with_files(&self, packet: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), SocketError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FILES_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(SocketError::TooLong(PACKET_FILES_MAX));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)
            .map(|_| ())
            .map_err(gone)
    }

    /// Receives one packet into `buffer`, waiting at most `patience`; returns its length.
    ///
    /// One syscall when the packet is there in time: the wait is the kernel's (SO_RCVTIMEO is not used,
    /// because a changed deadline would cost a call each time).
    ///
    /// # Errors
    /// [`SocketError::Deadline`], [`SocketError::Closed`], [`SocketError::TooLong`].
    pub fn receive(&self, buffer: &mut [u8], patience: Duration) -> Result<usize, SocketError> {
        let start = Instant::now();
        loop {
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok(received) => return whole(received.1, buffer.len()),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, start, patience)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(gone(errno)),
            }
        }
    }

    /// Sets how long [`Socket::receive_blocking`] waits in the kernel before it gives up.
    ///
    /// # Errors
    /// [`SocketError::Os`].
    pub fn set_receive_patience(&self, patience: Duration) -> Result<(), SocketError> {
        Ok(rustix::net::sockopt::set_socket_timeout(
            &self.0,
            rustix::net::sockopt::Timeout::Recv,
            Some(patience),
        )?)
    }

    /// Receives one packet in one syscall, waiting as long as [`Socket::set_receive_patience`] said
    /// (for ever if it was never called).
    ///
    /// # Errors
    /// As [`Socket::receive`].
    pub fn receive_blocking(&self, buffer: &mut [u8]) -> Result<usize, SocketError> {
        loop {
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::TRUNC) {
                Ok(received) => return whole(received.1, buffer.len()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(SocketError::Deadline(Duration::ZERO)),
                Err(errno) => return Err(gone(errno)),
            }
        }
    }

    /// Receives one packet and the descriptors that came with it, waiting for ever.
    ///
    /// # Errors
    /// As [`Socket::receive`]; `EMFILE` when descriptors were lost, with the packet in `buffer` all the same.
    pub fn receive_with_files(&self, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), SocketError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FILES_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let length = buffer.len();
        let received = loop {
            match rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(buffer)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(gone(errno)),
            }
        };
        let files = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            })
            .flatten()
            .collect();
        if received.bytes == 0 {
            return Err(SocketError::Closed);
        }
        if received.flags.contains(rustix::net::ReturnFlags::TRUNC) {
            return Err(SocketError::TooLong(length));
        }
        if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
            // This process has no number left for them (RLIMIT_NOFILE), or they were more than fit.
            return Err(SocketError::Os(Errno::MFILE));
        }
        Ok((received.bytes, files))
    }

    fn wait(&self, what: PollFlags, start: Instant, patience: Duration) -> Result<(), SocketError> {
        let left = patience.checked_sub(start.elapsed()).ok_or(SocketError::Deadline(patience))?;
        let left =
            Timespec { tv_sec: left.as_secs().min(1 << 30) as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.0, what)], Some(&left)) {
            Ok(0) => Err(SocketError::Deadline(patience)),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Length of a packet that fitted. A packet of no bytes is how a closed end looks (recv(2)).
fn whole(length: usize, room: usize) -> Result<usize, SocketError> {
    match length {
        0 => Err(SocketError::Closed),
        length if length > room => Err(SocketError::TooLong(room)),
        length => Ok(length),
    }
}

fn gone(errno: Errno) -> SocketError {
    match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => SocketError::Closed,
        other => SocketError::Os(other),
    }
}
