/* What a careless or hostile canister does: memory growth, dirty pages, deep recursion, endless loops, big replies. */
#include "ic0.h"

#define PAGE 65536u
#define WORK_START (1u << 20)

static void have_pages(u64 pages) {
  u32 now = (u32)__builtin_wasm_memory_size(0);
  if (now < pages && __builtin_wasm_memory_grow(0, (u32)pages - now) == (u32)-1) ic0_trap("no memory", 9);
}

EXPORT("canister_query memory_pages") void memory_pages(void) { reply_nat64(__builtin_wasm_memory_size(0)); }

/* The old size, or 2^64 - 1. */
EXPORT("canister_update grow") void grow(void) {
  reply_nat64((u64)(long long)(int)__builtin_wasm_memory_grow(0, (u32)arg_nat64()));
}

EXPORT("canister_query grow_in_query") void grow_in_query(void) {
  reply_nat64((u64)(long long)(int)__builtin_wasm_memory_grow(0, (u32)arg_nat64()));
}

EXPORT("canister_update grow_and_trap") void grow_and_trap(void) {
  __builtin_wasm_memory_grow(0, (u32)arg_nat64());
  ic0_trap("after growing", 13);
}

/* Writes one byte in each 4 KiB page of `n` Wasm pages; the number of pages written. */
EXPORT("canister_update dirty") void dirty(void) {
  u64 pages = arg_nat64();
  have_pages(WORK_START / PAGE + pages);
  for (u64 i = 0; i < pages * 16; i++) ((volatile u8 *)WORK_START)[i * 4096] += 1;
  reply_nat64(pages * 16);
}

/* The sum of those bytes, read in a query. */
EXPORT("canister_query dirty_sum") void dirty_sum(void) {
  u64 pages = arg_nat64(), sum = 0;
  if (__builtin_wasm_memory_size(0) < WORK_START / PAGE + pages) ic0_trap("not there", 9);
  for (u64 i = 0; i < pages * 16; i++) sum += ((volatile u8 *)WORK_START)[i * 4096];
  reply_nat64(sum);
}

__attribute__((noinline)) static u64 descend(u64 n) {
  volatile u64 frame[8];
  frame[n & 7] = n;
  return n ? descend(n - 1) + frame[n & 7] : 0;
}

EXPORT("canister_query recurse") void recurse(void) { reply_nat64(descend(arg_nat64())); }

EXPORT("canister_query loop") void loop(void) {
  u64 turns = arg_nat64(), state = 1;
  for (u64 i = 0; i < turns; i++) state = state * 6364136223846793005ull + i;
  reply_nat64(state);
}

EXPORT("canister_query spin") void spin(void) {
  for (;;) __asm__ volatile("");
}

EXPORT("canister_update spin_update") void spin_update(void) {
  for (;;) __asm__ volatile("");
}

EXPORT("canister_query float_sum") void float_sum(void) {
  u64 terms = arg_nat64();
  double sum = 0;
  for (u64 i = 1; i <= terms; i++) sum += 1.0 / (double)i;
  reply_nat64((u64)(sum * 1e9));
}

/* The bits of a NaN made at run time. */
EXPORT("canister_query nan_bits") void nan_bits(void) {
  volatile double zero = 0;
  double nan = zero / zero;
  u64 bits;
  __builtin_memcpy(&bits, &nan, 8);
  reply_nat64(bits);
}

/* The old size, or 2^64 - 1. */
EXPORT("canister_update stable_grow") void stable_grow_by(void) { reply_nat64(stable64_grow(arg_nat64())); }
EXPORT("canister_query stable_grow_in_query") void stable_grow_in_query(void) { reply_nat64(stable64_grow(1)); }

/* Writes eight bytes in each of the first `n` 4 KiB pages of stable memory. */
EXPORT("canister_update stable_dirty") void stable_dirty(void) {
  u64 pages = arg_nat64();
  for (u64 i = 0; i < pages; i++) stable64_write(i * 4096, (u64)(u32)&i, 8);
  reply_nat64(pages);
}

EXPORT("canister_query stable_past_end") void stable_past_end(void) {
  u64 word = 0;
  stable64_read((u64)(u32)&word, stable64_size() * PAGE - 4, 8);
  reply_nat64(word);
}

/* Replies with `n` bytes. */
EXPORT("canister_update reply_bytes") void reply_bytes(void) {
  u64 size = arg_nat64();
  have_pages(WORK_START / PAGE + size / PAGE + 1);
  msg_reply_data_append((void *)WORK_START, (u32)size);
  msg_reply();
}

EXPORT("canister_query replicated") void replicated(void) { reply_nat64(in_replicated_execution()); }
EXPORT("canister_update replicated_update") void replicated_update(void) { reply_nat64(in_replicated_execution()); }
EXPORT("canister_query version") void version(void) { reply_nat64(canister_version()); }
EXPORT("canister_query certificate_present") void certificate_present(void) { reply_nat64(data_certificate_present()); }

EXPORT("canister_query balance") void balance(void) {
  u64 cycles[2];
  canister_cycle_balance128(cycles);
  reply_nat64(cycles[0]);
}

EXPORT("canister_update certify") void certify(void) {
  u64 size = arg_nat64();
  certified_data_set("0123456789abcdef0123456789abcdef0123456789abcdef", (u32)size);
  reply_nat64(size);
}
