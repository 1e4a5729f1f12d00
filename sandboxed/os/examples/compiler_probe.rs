//! A compiler that does what a test tells it to: the real start and the real lock, and then each attack by its letter.
//! `tests/launch.rs` builds it as the compiler image is built, and launches it as compilers are launched.

use std::hint::black_box;

use sandbox_os::heap::Heap;
use sandbox_os::lockdown::{self, CompileLock, Exit};
use sandbox_os::{PACKET_BYTES_MAX, Socket};

#[global_allocator]
static HEAP: Heap = Heap;

/// Private memory that it may have.
const MEMORY_BYTES: u64 = 64 << 20;

fn main() {
    let socket = lockdown::enter();
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let lock = CompileLock::build();
    lockdown::reset_signals();
    lockdown::shut_clocks();
    lockdown::bound_memory(MEMORY_BYTES);
    lock.install();
    answer(&socket, 0);
    loop {
        match socket.receive_blocking(&mut buffer) {
            Ok(length) => obey(&buffer[..length], &socket),
            Err(_) => lockdown::exit(Exit::Done),
        }
    }
}

fn answer(socket: &Socket, byte: u8) {
    if socket.send_blocking(&[byte]).is_err() {
        lockdown::exit(Exit::Done);
    }
}

fn obey(order: &[u8], socket: &Socket) {
    match *order {
        // So many MiB of fresh memory, all of it written, in small blocks and in one that grows; given back.
        [b'F', mebibytes] => {
            let blocks: Vec<Vec<u8>> = (0..u32::from(mebibytes) * 128).map(|_| vec![1_u8; 4 << 10]).collect();
            let mut grows = Vec::new();
            for _ in 0..u32::from(mebibytes) / 2 {
                grows.extend_from_slice(&[1; 1 << 20]);
            }
            black_box((blocks, grows));
            answer(socket, 1);
        }
        // A system call by number, all arguments zero.
        [b'S', low, high] => {
            let number = libc::c_long::from(u16::from_le_bytes([low, high]));
            // SAFETY: zero is no address of ours, so the call can't change memory of this process.
            unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
            answer(socket, 2);
        }
        // mmap of a fresh page with the given protection and flags.
        [b'M', protection, flags] => {
            let (protection, flags) = (protection.into(), libc::c_int::from(flags) | libc::MAP_ANONYMOUS);
            // SAFETY: a mapping at a place of the kernel's choice.
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
            answer(socket, 3);
        }
        // The time-stamp counter.
        [b'T'] => {
            // SAFETY: reads a register.
            black_box(unsafe { std::arch::x86_64::_rdtsc() });
            answer(socket, 4);
        }
        // The vDSO's clock, which needs no system call.
        [b'V'] => {
            black_box(std::time::Instant::now());
            answer(socket, 5);
        }
        _ => lockdown::exit(Exit::Request),
    }
}
