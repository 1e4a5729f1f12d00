//! A worker that does what a test tells it to: the real start, the real locks, and then each attack by its letter.
//! `tests/launch.rs` builds it as the worker image is built, and launches it as workers are launched.

use std::hint::black_box;

use sandbox_os::lockdown::{self, Exit, Locks};
use sandbox_os::{PACKET_BYTES_MAX, Socket};

/// Bytes of heap reserved, as in the worker.
const HEAP_BYTES: usize = 512 << 20;

fn main() {
    let socket = lockdown::enter();
    if !lockdown::reserve_heap(HEAP_BYTES) {
        lockdown::exit(Exit::Engine);
    }
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let locks = Locks::build();
    lockdown::shut_clocks();
    locks.load();
    answer(&socket, &[0]);
    loop {
        match socket.receive_blocking(&mut buffer) {
            Ok(length) => obey(&buffer[..length], &socket, &locks),
            Err(_) => lockdown::exit(Exit::Done),
        }
    }
}

fn answer(socket: &Socket, bytes: &[u8]) {
    if socket.send_blocking(bytes).is_err() {
        lockdown::exit(Exit::Done);
    }
}

fn obey(order: &[u8], socket: &Socket, locks: &Locks) {
    match *order {
        // The RUN lock.
        [b'R'] => {
            locks.run();
            answer(socket, &[1]);
        }
        // LOAD once more instead of RUN: as many filters, but not the same.
        [b'L'] => {
            locks.load();
            answer(socket, &[10]);
        }
        // A page of the heap, filled with one byte: where is it?
        [b'P', fill] => {
            let page = Box::leak(vec![fill; 2 * 4096].into_boxed_slice());
            let address = page.as_ptr().expose_provenance().next_multiple_of(4096);
            answer(socket, &(address as u64).to_le_bytes());
        }
        // Heap in use and given back, far more than any of it at a time.
        [b'H'] => {
            for round in 0..64u8 {
                let block = black_box(vec![round; 8 << 20]);
                let small: Vec<Vec<u8>> = (0..100).map(|size| vec![round; size * 1000]).collect();
                black_box((block, small));
            }
            answer(socket, &[2]);
        }
        // So many MiB of fresh memory, all of it written.
        [b'F', mebibytes] => {
            black_box(vec![1_u8; usize::from(mebibytes) << 20]);
            answer(socket, &[8]);
        }
        // The same, kept.
        [b'K', mebibytes] => {
            black_box(vec![1_u8; usize::from(mebibytes) << 20].leak());
            answer(socket, &[9]);
        }
        // A system call by number, all arguments zero.
        [b'S', low, high] => {
            let number = libc::c_long::from(u16::from_le_bytes([low, high]));
            // SAFETY: zero is no address of ours, so the call can't change memory of this process.
            unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
            answer(socket, &[3]);
        }
        // mmap of a fresh page with the given protection and flags.
        [b'M', protection, flags] => {
            let (protection, flags) = (protection.into(), libc::c_int::from(flags) | libc::MAP_ANONYMOUS);
            // SAFETY: a mapping at a place of the kernel's choice.
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
            answer(socket, &[4]);
        }
        // The time-stamp counter.
        [b'T'] => {
            // SAFETY: reads a register.
            black_box(unsafe { std::arch::x86_64::_rdtsc() });
            answer(socket, &[5]);
        }
        // The vDSO's clock, which needs no system call.
        [b'V'] => {
            black_box(std::time::Instant::now());
            answer(socket, &[6]);
        }
        // The 32-bit entry of the kernel: getpid.
        [b'3'] => {
            // SAFETY: asks for a number; rbx, which the call reads, is not used by it.
            unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20 => _, options(nostack)) };
            answer(socket, &[7]);
        }
        _ => lockdown::exit(Exit::Request),
    }
}
