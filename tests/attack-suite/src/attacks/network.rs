//! Sockets.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU64, Ordering};

use hostile::{buffer, call, result, text};
use libc::{EACCES, ECONNREFUSED, ENETUNREACH, ENOENT, EPERM};
use sandbox_os::Layers;

use super::Attack;
use crate::stage::{Hostile, Said, Stage};
use crate::trial::{Alone, Scene, Stop, Trial, Way};

pub(super) fn attacks() -> Vec<Attack> {
    vec![connects()]
}

/// A socket of `family` and `kind` that connects to `address`.
fn connects_to(family: i32, kind: i32, address: &[u8], accepted: impl FnMut() -> bool + 'static) -> Scene {
    let mut accepted = accepted;
    let calls = [
        call(libc::SYS_socket, &[family as u64, kind as u64, 0]),
        call(libc::SYS_connect, &[result(0), text(0), address.len() as u64]),
        call(libc::SYS_sendto, &[result(0), text(0), 2, libc::MSG_NOSIGNAL as u64]),
    ];
    Scene::calls(&calls, address, move |_, _| accepted())
}

/// An address of this machine, of the family of IPv4.
fn loopback(port: u16) -> Vec<u8> {
    let mut address = vec![2, 0];
    address.extend(port.to_be_bytes());
    address.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    address
}

fn unix(name: &[u8]) -> Vec<u8> {
    [&[1, 0], name].concat()
}

fn connects() -> Attack {
    let tcp = |_: &Stage, _: &Hostile| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("it is ours");
        let port = listener.local_addr().expect("it is bound").port();
        connects_to(libc::AF_INET, libc::SOCK_STREAM, &loopback(port), move || listener.accept().is_ok())
    };
    let udp = |_: &Stage, _: &Hostile| {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        receiver.set_nonblocking(true).expect("it is ours");
        let port = receiver.local_addr().expect("it is bound").port();
        connects_to(libc::AF_INET, libc::SOCK_DGRAM, &loopback(port), move || {
            receiver.recv(&mut [0; 8]).is_ok()
        })
    };
    let abstract_name = |_: &Stage, _: &Hostile| {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let name = format!("attack-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let listener = UnixListener::bind_addr(&address).expect("a free name");
        listener.set_nonblocking(true).expect("it is ours");
        let address = unix(&[b"\0", name.as_bytes()].concat());
        connects_to(libc::AF_UNIX, libc::SOCK_STREAM, &address, move || listener.accept().is_ok())
    };
    let path = |_: &Stage, _: &Hostile| {
        let place = tempfile::tempdir().expect("room for temporary files");
        let path = place.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a free name");
        listener.set_nonblocking(true).expect("it is ours");
        let address = unix(&[path.as_os_str().as_bytes(), b"\0"].concat());
        connects_to(libc::AF_UNIX, libc::SOCK_STREAM, &address, move || {
            place.path().exists() && listener.accept().is_ok()
        })
    };
    // Asks for the first interface, which is up on every machine and down in a new namespace.
    let netlink = |_: &Stage, _: &Hostile| {
        const FLAGS: usize = 16 + 8;
        let mut request = vec![0; 32];
        request[0] = 32; // length
        request[4] = 18; // RTM_GETLINK
        request[6] = 1; // NLM_F_REQUEST
        request[20] = 1; // interface 1
        let calls = [
            call(libc::SYS_socket, &[libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, 0]),
            call(libc::SYS_sendto, &[result(0), text(0), 32, 0, 0, 0]),
            call(libc::SYS_recvfrom, &[result(0), buffer(0), 4096, 0, 0, 0]),
        ];
        Scene::calls(
            &calls,
            &request,
            |said, _| matches!(said, Said::Done { buffer, .. } if buffer[FLAGS] & libc::IFF_UP as u8 != 0),
        )
    };
    // No transport to speak of is here: that the family exists is what can be seen.
    let vsock = |_: &Stage, _: &Hostile| {
        let calls = [call(libc::SYS_socket, &[libc::AF_VSOCK as u64, libc::SOCK_STREAM as u64, 0])];
        Scene::calls(&calls, &[], |said, _| matches!(said, Said::Done { .. }))
    };
    let trial = Trial::of_calls(vec![
        Way::new("TCP", tcp),
        Way::new("UDP", udp),
        Way::new("abstract name", abstract_name),
        Way::new("path", path),
        Way::new("netlink", netlink),
        Way::new("vsock", vsock),
    ])
    .alone(Alone::layer("SETUP filter alone", Layers::SETUP, Stop::Sigsys))
    .alone(
        Alone::layer("network namespace alone", Layers::NET, Stop::Errno(&[ENETUNREACH, ECONNREFUSED]))
            .only(&["TCP", "UDP", "abstract name"]),
    )
    .alone(Alone::layer("network namespace alone", Layers::NET, Stop::NoEffect).only(&["netlink"]))
    .alone(
        Alone::layer("Landlock alone", Layers::LANDLOCK, Stop::Errno(&[EACCES, EPERM]))
            .only(&["TCP", "abstract name"]),
    )
    .alone(Alone::layer("empty root alone", Layers::MOUNT, Stop::Errno(&[ENOENT])).only(&["path"]));
    Attack::worker("A8", "connects to the node or the network", trial)
}
