/* A counter on the bare System API: no runtime, no allocator, both stable memory interfaces. */
#include "ic0.h"

static u64 count;
static u32 ticks;
static u32 beats;
static u8 buffer[65536];

EXPORT("canister_init") void init(void) {
  debug_print("counter: init", 13);
  count = 1;
}

EXPORT("canister_pre_upgrade") void pre_upgrade(void) {
  if (stable64_size() == 0) stable64_grow(1);
  stable64_write(0, (u64)(u32)&count, sizeof count);
}

EXPORT("canister_post_upgrade") void post_upgrade(void) {
  /* Written through the 64-bit interface, read through the 32-bit one: it is one memory. */
  stable_read((u32)&count, 0, sizeof count);
}

EXPORT("canister_inspect_message") void inspect_message(void) {
  if (msg_arg_data_size() <= sizeof buffer) accept_message();
}

EXPORT("canister_heartbeat") void heartbeat(void) { beats++; }
EXPORT("canister_global_timer") void global_timer(void) { ticks++; }

EXPORT("canister_update inc") void inc(void) { reply_nat64(++count); }
EXPORT("canister_update add") void add(void) { reply_nat64(count += arg_nat64()); }
EXPORT("canister_query get") void get(void) { reply_nat64(count); }
EXPORT("canister_query inc_in_query") void inc_in_query(void) { reply_nat64(++count); }
EXPORT("canister_query ticks") void get_ticks(void) { reply_nat64(ticks); }
EXPORT("canister_query has_beaten") void has_beaten(void) { reply_nat64(beats > 0); }

EXPORT("canister_query echo") void echo(void) {
  u32 size = msg_arg_data_size();
  if (size > sizeof buffer) ic0_trap("argument too large", 18);
  msg_arg_data_copy(buffer, 0, size);
  msg_reply_data_append(buffer, size);
  msg_reply();
}

EXPORT("canister_update trap_after_inc") void trap_after_inc(void) {
  count += 1000;
  ic0_trap("bye", 3);
}

EXPORT("canister_update reject") void reject(void) {
  count++;
  msg_reject("nope", 4);
}

EXPORT("canister_update no_reply") void no_reply(void) { count++; }

EXPORT("canister_update reply_twice") void reply_twice(void) {
  count += 1000;
  msg_reply();
  msg_reply();
}

EXPORT("canister_query out_of_bounds") void out_of_bounds(void) {
  reply_nat64(*(volatile u8 *)0xfffffff0u);
}

EXPORT("canister_query divide") void divide(void) {
  volatile u64 divisor = arg_nat64();
  reply_nat64(1000 / divisor);
}

EXPORT("canister_query unreachable") void unreachable(void) { __builtin_trap(); }

EXPORT("canister_query loop_cost") void loop_cost(void) {
  u64 before = performance_counter(0);
  volatile u64 sum = 0;
  for (int i = 0; i < 100000; i++) sum += i;
  reply_nat64(performance_counter(0) - before);
}

EXPORT("canister_update set_timer") void set_timer(void) {
  reply_nat64(global_timer_set(ic0_time() + 1000000000ull));
}

EXPORT("canister_update stable_grow32") void grow32(void) { reply_nat64(stable_grow((u32)arg_nat64())); }
EXPORT("canister_query stable_size32") void size32(void) { reply_nat64(stable_size()); }

static void on_reply(u32 env) {
  count += env;
  u32 size = msg_arg_data_size();
  if (size > sizeof buffer) ic0_trap("reply too large", 15);
  msg_arg_data_copy(buffer, 0, size);
  msg_reply_data_append(buffer, size);
  msg_reply();
}

static void on_reply_trap(u32 env) {
  count += env;
  ic0_trap("trap in callback", 16);
}

static void on_reject(u32 env) { reply_nat64(env + msg_reject_code()); }
static void on_cleanup(u32 env) { count += env; }

typedef void callback(u32);

static void call_self(const char *method, u32 method_size, callback *reply) {
  u8 self[32];
  u32 size = canister_self_size();
  canister_self_copy(self, 0, size);
  call_new(self, size, method, method_size, (u32)reply, 10, (u32)on_reject, 1000);
  call_on_cleanup((u32)on_cleanup, 7);
  call_data_append("DIDL\0\0", 6);
  if (call_perform() != 0) ic0_trap("call_perform failed", 19);
}

/* Replies what `inc` replied; the callback then adds 10. */
EXPORT("canister_update call_inc") void call_inc(void) { call_self("inc", 3, on_reply); }
/* 1000 and the reject code: 5 for a canister that traps, 4 for one that rejects, 5 for a missing method. */
EXPORT("canister_update call_trap") void call_trap(void) { call_self("trap_after_inc", 14, on_reply); }
EXPORT("canister_update call_reject") void call_reject(void) { call_self("reject", 6, on_reply); }
EXPORT("canister_update call_missing") void call_missing(void) { call_self("missing", 7, on_reply); }
/* The callback's write is lost; the cleanup's 7 stays. */
EXPORT("canister_update call_inc_and_trap") void call_inc_and_trap(void) { call_self("inc", 3, on_reply_trap); }
