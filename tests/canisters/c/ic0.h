/* The System API as these canisters use it, declared by hand. */
#ifndef IC0_H
#define IC0_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define IMPORT(name) __attribute__((import_module("ic0"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(name)))

IMPORT(msg_arg_data_size) u32 msg_arg_data_size(void);
IMPORT(msg_arg_data_copy) void msg_arg_data_copy(void *dst, u32 offset, u32 size);
IMPORT(msg_reply_data_append) void msg_reply_data_append(const void *src, u32 size);
IMPORT(msg_reply) void msg_reply(void);
IMPORT(msg_reject) void msg_reject(const void *src, u32 size);
IMPORT(msg_reject_code) u32 msg_reject_code(void);
IMPORT(debug_print) void debug_print(const void *src, u32 size);
IMPORT(trap) void ic0_trap(const void *src, u32 size);
IMPORT(accept_message) void accept_message(void);
IMPORT(time) u64 ic0_time(void);
IMPORT(global_timer_set) u64 global_timer_set(u64 timestamp);
IMPORT(performance_counter) u64 performance_counter(u32 type);
IMPORT(in_replicated_execution) u32 in_replicated_execution(void);
IMPORT(canister_version) u64 canister_version(void);
IMPORT(canister_self_size) u32 canister_self_size(void);
IMPORT(canister_self_copy) void canister_self_copy(void *dst, u32 offset, u32 size);
IMPORT(canister_cycle_balance128) void canister_cycle_balance128(void *dst);
IMPORT(certified_data_set) void certified_data_set(const void *src, u32 size);
IMPORT(data_certificate_present) u32 data_certificate_present(void);
IMPORT(stable64_size) u64 stable64_size(void);
IMPORT(stable64_grow) u64 stable64_grow(u64 pages);
IMPORT(stable64_read) void stable64_read(u64 dst, u64 offset, u64 size);
IMPORT(stable64_write) void stable64_write(u64 offset, u64 src, u64 size);
IMPORT(stable_size) u32 stable_size(void);
IMPORT(stable_grow) u32 stable_grow(u32 pages);
IMPORT(stable_read) void stable_read(u32 dst, u32 offset, u32 size);
IMPORT(stable_write) void stable_write(u32 offset, u32 src, u32 size);
IMPORT(call_new) void call_new(const void *callee, u32 callee_size, const void *method, u32 method_size,
                               u32 on_reply, u32 on_reply_env, u32 on_reject, u32 on_reject_env);
IMPORT(call_data_append) void call_data_append(const void *src, u32 size);
IMPORT(call_on_cleanup) void call_on_cleanup(u32 callback, u32 env);
IMPORT(call_perform) u32 call_perform(void);

/* Replies with one Candid nat64. */
static void reply_nat64(u64 value) {
  u8 bytes[15] = {'D', 'I', 'D', 'L', 0, 1, 0x78};
  for (int i = 0; i < 8; i++) bytes[7 + i] = (u8)(value >> (8 * i));
  msg_reply_data_append(bytes, sizeof bytes);
  msg_reply();
}

/* The one nat64 argument, taken from where Candid puts it. */
static u64 arg_nat64(void) {
  u64 value;
  msg_arg_data_copy(&value, 7, 8);
  return value;
}

#endif
