//! Ways into the kernel beside the `syscall` instruction.

use std::arch::asm;

/// The 32-bit entry, with call number `numbers[0]` and zeros.
pub(super) fn int80([number, ..]: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let value: i32;
    // SAFETY: zeros are no addresses of ours. rbx, which the call reads, is LLVM's own and put back.
    unsafe {
        asm!(
            "mov r8, rbx",
            "xor ebx, ebx",
            "int 0x80",
            "mov rbx, r8",
            inlateout("eax") number as u32 => value,
            in("ecx") 0,
            in("edx") 0,
            in("esi") 0,
            in("edi") 0,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            options(nostack),
        );
    }
    // The kernel's answer, an error number or not: the entry was there.
    Ok(vec![value as u32 as u64])
}
