//! What the modules of the checks have in common, so that a check is one line of WAT.
//!
//! Memory: 0 to 0x3000 free, 0x3000 the text of a reject, 0x4000 the argument, 0x8000/0x8010/0x8020 the ids
//! of canisters 0, 1 and 2, 0xc000 literals, 0xff00 scratch.

use std::fmt::Write as _;

/// Alias, name and type of each imported function.
const IMPORTS: &str = "
    arg_size msg_arg_data_size (result i32)
    arg_copy msg_arg_data_copy (param i32 i32 i32)
    caller_size msg_caller_size (result i32)
    caller_copy msg_caller_copy (param i32 i32 i32)
    reject_code msg_reject_code (result i32)
    reject_size msg_reject_msg_size (result i32)
    reject_copy msg_reject_msg_copy (param i32 i32 i32)
    deadline msg_deadline (result i64)
    method_size msg_method_name_size (result i32)
    method_copy msg_method_name_copy (param i32 i32 i32)
    accept accept_message
    append msg_reply_data_append (param i32 i32)
    reply msg_reply
    reject msg_reject (param i32 i32)
    self_size canister_self_size (result i32)
    self_copy canister_self_copy (param i32 i32 i32)
    status canister_status (result i32)
    version canister_version (result i64)
    is_controller is_controller (param i32 i32) (result i32)
    replicated in_replicated_execution (result i32)
    time time (result i64)
    counter performance_counter (param i32) (result i64)
    root_key_size root_key_size (result i32)
    certificate_present data_certificate_present (result i32)
    certificate_size data_certificate_size (result i32)
    certificate_copy data_certificate_copy (param i32 i32 i32)
    certified_data_set certified_data_set (param i32 i32)
    timer_set global_timer_set (param i64) (result i64)
    env_count env_var_count (result i32)
    env_exists env_var_name_exists (param i32 i32) (result i32)
    env_size env_var_value_size (param i32 i32) (result i32)
    env_copy env_var_value_copy (param i32 i32 i32 i32 i32)
    env_name_size env_var_name_size (param i32) (result i32)
    env_name_copy env_var_name_copy (param i32 i32 i32 i32)
    print debug_print (param i32 i32)
    trap trap (param i32 i32)
    balance canister_cycle_balance128 (param i32)
    balance64 canister_cycle_balance (result i64)
    liquid canister_liquid_cycle_balance128 (param i32)
    available msg_cycles_available128 (param i32)
    refunded msg_cycles_refunded128 (param i32)
    accept_cycles msg_cycles_accept128 (param i64 i64 i32)
    burn cycles_burn128 (param i64 i64 i32)
    new call_new (param i32 i32 i32 i32 i32 i32 i32 i32)
    on_cleanup call_on_cleanup (param i32 i32)
    data call_data_append (param i32 i32)
    best_effort call_with_best_effort_response (param i32)
    attach call_cycles_add128 (param i64 i64)
    perform call_perform (result i32)
    size stable64_size (result i64)
    grow stable64_grow (param i64) (result i64)
    read stable64_read (param i64 i64 i64)
    write stable64_write (param i64 i64 i64)
    size32 stable_size (result i32)
    grow32 stable_grow (param i32) (result i32)
    read32 stable_read (param i32 i32 i32)
    write32 stable_write (param i32 i32 i32)
    cost_ecdsa cost_sign_with_ecdsa (param i32 i32 i32 i32) (result i32)
    cost_http cost_http_request (param i64 i64 i32)
";

/// Functions of ours that bodies use.
const FUNCTIONS: &str = r#"
    (type $callback (func (param i32)))
    (table 8 funcref)
    (elem (i32.const 0) $through $told)
    (func $say (param i32 i32) (call $append (local.get 0) (local.get 1)) (call $reply))
    (func $put (param i64) (i64.store (i32.const 0xff00) (local.get 0)) (call $append (i32.const 0xff00) (i32.const 8)))
    (func $put32 (param i32) (call $put (i64.extend_i32_u (local.get 0))))
    (func $put128 (param i32) (call $append (local.get 0) (i32.const 16)))
    (func $say64 (param i64) (call $put (local.get 0)) (call $reply))
    (func $say32 (param i32) (call $put32 (local.get 0)) (call $reply))
    (func $arg (result i32) (call $arg_copy (i32.const 0x4000) (i32.const 0) (call $arg_size)) (call $arg_size))
    (func $peer (param i32 i32)
      (call $new (i32.const 0x8010) (i32.const 10) (local.get 0) (local.get 1) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)))
    (func $own (param i32 i32)
      (call $new (i32.const 0x8000) (i32.const 10) (local.get 0) (local.get 1) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)))
    (func $peer_to (param i32 i32 i32 i32)
      (call $new (i32.const 0x8010) (i32.const 10) (local.get 0) (local.get 1) (local.get 2) (i32.const 0) (local.get 3) (i32.const 0)))
    (func $sent (if (call $perform) (then (call $trap (lit "call_perform failed")))))
    (func $through (param i32) (call $say (i32.const 0x4000) (call $arg)))
    (func $told (param i32)
      (i32.store8 (i32.const 0x3000) (i32.add (call $reject_code) (i32.const 48)))
      (i32.store8 (i32.const 0x3001) (i32.const 32))
      (call $reject_copy (i32.const 0x3002) (i32.const 0) (call $reject_size))
      (call $say (i32.const 0x3000) (i32.add (call $reject_size) (i32.const 2))))
"#;

/// Forwards: argument is cycles (8 bytes), callee, method (both with a length byte) and payload; the answer
/// goes back as a reply, a reject as its code and text.
pub(super) const PASS: &str = r#"
    (update "pass" (local $end i32) (local $name i32)
      (local.set $end (i32.add (call $arg) (i32.const 0x4000)))
      (local.set $name (i32.add (i32.const 0x400a) (i32.load8_u (i32.const 0x4008))))
      (call $new (i32.const 0x4009) (i32.load8_u (i32.const 0x4008))
        (local.get $name) (i32.load8_u (i32.sub (local.get $name) (i32.const 1)))
        (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
      (local.set $name (i32.add (local.get $name) (i32.load8_u (i32.sub (local.get $name) (i32.const 1)))))
      (call $data (local.get $name) (i32.sub (local.get $end) (local.get $name)))
      (call $attach (i64.const 0) (i64.load (i32.const 0x4000)))
      (if (call $perform) (then (call $say (lit "not sent")))))
"#;

/// The module of a check: 32-bit, two pages of memory, everything imported.
///
/// `(update "x" ...)`, `(query "x" ...)`, `(composite "x" ...)` and `(on "init" ...)` are functions exported so;
/// `(lit "abc")` is the address and length of a literal.
pub(super) fn module(body: &str, ids: [&[u8]; 3]) -> String {
    let mut wat = String::from("(module\n");
    for line in IMPORTS.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.splitn(3, ' ');
        let (alias, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let types = words.next().unwrap_or_default();
        writeln!(wat, "(import \"ic0\" \"{name}\" (func ${alias} {types}))").expect("a string takes it");
    }
    if !body.contains("(memory ") {
        wat.push_str("(memory 2)\n");
    }
    for (id, at) in ids.iter().zip([0x8000, 0x8010, 0x8020]) {
        writeln!(wat, "(data (i32.const {at}) \"{}\")", escaped(id)).expect("a string takes it");
    }
    let mut literals = String::new();
    wat.push_str(&expand(&format!("{FUNCTIONS}{body}"), &mut literals));
    writeln!(wat, "(data (i32.const 0xc000) \"{literals}\"))").expect("a string takes it");
    wat
}

fn expand(body: &str, literals: &mut String) -> String {
    let mut out = String::new();
    let mut rest = body;
    while let Some(open) = rest.find('(') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let named = [
            ("(update \"", "canister_update "),
            ("(query \"", "canister_query "),
            ("(composite \"", "canister_composite_query "),
            ("(on \"", "canister_"),
            ("(lit \"", ""),
        ];
        let Some((opening, prefix)) = named.into_iter().find(|(opening, _)| rest.starts_with(opening)) else {
            out.push('(');
            rest = &rest[1..];
            continue;
        };
        rest = &rest[opening.len()..];
        let end = rest.find('"').expect("a closing quote");
        let (name, after) = rest.split_at(end);
        rest = &after[1..];
        if opening == "(lit \"" {
            let at = 0xc000 + literals.len();
            literals.push_str(name);
            write!(out, "(i32.const {at}) (i32.const {})", name.len()).expect("a string takes it");
            rest = rest.strip_prefix(')').expect("a literal ends");
        } else {
            write!(out, "(func (export \"{prefix}{name}\")").expect("a string takes it");
        }
    }
    out + rest
}

/// Bytes as a WAT string.
pub(super) fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").expect("a string takes it");
        text
    })
}

/// `park` answers half a minute later: until then it calls `tick` over and over.
pub(super) const PARK: &str = r#"
    (global $until (mut i64) (i64.const 0))
    (elem (i32.const 6) $held)
    (func $keep
      (call $self_copy (i32.const 0x3f00) (i32.const 0) (i32.const 10))
      (call $new (i32.const 0x3f00) (i32.const 10) (lit "tick") (i32.const 6) (i32.const 0) (i32.const 6) (i32.const 0))
      (call $sent))
    (func $held (param i32)
      (if (i64.lt_u (call $time) (global.get $until)) (then (call $keep)) (else (call $say (lit "at last")))))
    (update "tick" (call $reply))
    (update "park" (global.set $until (i64.add (call $time) (i64.const 30000000000))) (call $keep))
"#;
