//! Random statements: the bodies of a generated canister's functions, as WAT.

use std::fmt::Write as _;

use candid::Principal;
use in_process::{Context, available};

use super::arguments;
use super::dice::Dice;

/// Memory: random writes go below this, two 64 KiB pages; the third is the module's own.
pub(super) const OWN: u64 = 0x20000;
/// One byte: hops that a call may still make. Nine more: more of the argument.
const HOPS: u64 = OWN;
/// Where the id of a callee is put together.
const CALLEE: u64 = OWN + 0x40;
/// Where the text of literals begins.
pub(super) const LITERALS: u64 = OWN + 0x100;
/// A mask that takes any number to eight bytes of the free part.
const FREE: u64 = 0x1_ffe0;
/// Canisters that a call may be for, by number.
const PEERS: u64 = 14;

/// Places in the table: callbacks, and functions from `i64` to `i64`.
pub(super) const ON_REPLY: [u64; 2] = [0, 1];
pub(super) const ON_REJECT: u64 = 2;
pub(super) const ON_CLEANUP: u64 = 3;
pub(super) const COMPOSITE_REPLY: u64 = 4;
pub(super) const COMPOSITE_REJECT: u64 = 5;
pub(super) const LEAVES: [u64; 3] = [6, 7, 8];
/// The table's size; the rest is empty.
pub(super) const TABLE: u64 = 10;

/// Updates that every generated canister has.
pub(super) const UPDATES: [&str; 3] = ["u0", "u1", "u2"];
/// Queries.
pub(super) const QUERIES: [&str; 2] = ["q0", "q1"];
/// Composite queries.
pub(super) const COMPOSITES: [&str; 1] = ["c0"];

/// What bodies of one module have in common.
pub(super) struct Writer<'a> {
    pub(super) dice: &'a mut Dice,
    /// Whether the heap is a 64-bit one.
    pub(super) wide: bool,
    /// Whether there is a passive data segment.
    pub(super) passive: bool,
    /// Bytes of literals so far, each as an escape of three characters.
    pub(super) literals: String,
}

/// A function on its way.
struct Body<'a, 'b> {
    writer: &'a mut Writer<'b>,
    context: Context,
    wat: String,
    labels: u32,
    in_loop: bool,
}

impl Writer<'_> {
    /// A constant address or size.
    pub(super) fn at(&self, value: u64) -> String {
        format!("({}.const {value})", self.pointer())
    }

    /// The type of addresses.
    pub(super) fn pointer(&self) -> &'static str {
        if self.wide { "i64" } else { "i32" }
    }

    /// Address and size of a literal.
    fn literal(&mut self, bytes: &[u8]) -> String {
        let at = LITERALS + self.literals.len() as u64 / 3;
        bytes.iter().for_each(|byte| write!(self.literals, "\\{byte:02x}").expect("a string takes it"));
        format!("{} {}", self.at(at), self.at(bytes.len() as u64))
    }

    /// The locals and statements of a function that runs in `context`. Callbacks have a parameter `$e`.
    pub(super) fn body(&mut self, context: Context) -> String {
        let mut body = Body { writer: self, context, wat: String::new(), labels: 0, in_loop: false };
        body.prelude();
        for _ in 0..3 + body.dice().below(6) {
            body.statement(2);
        }
        body.end();
        body.wat
    }

    /// The body of a function from `i64`, `$x`, to `i64`, called from anywhere.
    pub(super) fn leaf(&mut self) -> String {
        let mut body =
            Body { writer: self, context: Context::Start, wat: String::new(), labels: 0, in_loop: true };
        body.wat.push_str("(local $y f64) (local $i i32) (local $h i32)\n");
        let [first, second] = [body.number(2), body.number(2)];
        let place = body.place();
        writeln!(body.wat, "(local.set $x {first})\n(i64.store {place} {second})\n(local.get $x)")
            .expect("a string takes it");
        body.wat
    }
}

impl Body<'_, '_> {
    fn dice(&mut self) -> &mut Dice {
        self.writer.dice
    }

    fn line(&mut self, line: &str) {
        self.wat.push_str(line);
        self.wat.push('\n');
    }

    /// Whether a function may be used here. Now and then one that may not is used all the same.
    fn may(&mut self, function: &str) -> bool {
        available(function, self.context) == Some(true) || self.dice().one_in(300)
    }

    fn is_composite(&self) -> bool {
        matches!(self.context, Context::CompositeQuery | Context::CompositeReply | Context::CompositeReject)
    }

    /// Hops from the argument or the environment, `$x` from the argument.
    fn prelude(&mut self) {
        self.line("(local $x i64) (local $y f64) (local $i i32) (local $h i32)");
        let pointer = self.writer.pointer();
        let [hops, zero, one, eight] = [HOPS, 0, 1, 8].map(|value| self.writer.at(value));
        let more = self.writer.at(HOPS + 8);
        let callback = matches!(
            self.context,
            Context::Reply
                | Context::Reject
                | Context::CompositeReply
                | Context::CompositeReject
                | Context::Cleanup
        );
        if callback {
            let environment =
                if self.writer.wide { "(i32.wrap_i64 (local.get $e))" } else { "(local.get $e)" };
            self.line(&format!("(local.set $h {environment})"));
        } else if matches!(self.context, Context::Heartbeat | Context::GlobalTimer) {
            self.line("(local.set $h (i32.const 1))");
        }
        if available("msg_arg_data_size", self.context) == Some(true) {
            if !callback {
                self.line(&format!(
                    "(if ({pointer}.gt_u (call $msg_arg_data_size) {zero}) (then
                       (call $msg_arg_data_copy {hops} {zero} {one})
                       (local.set $h (i32.and (i32.load8_u {hops}) (i32.const 3)))))"
                ));
            }
            self.line(&format!(
                "(if ({pointer}.gt_u (call $msg_arg_data_size) {eight}) (then
                   (call $msg_arg_data_copy {more} {one} {eight})
                   (local.set $x (i64.load {more}))))"
            ));
        }
    }

    /// What most messages of the context end with.
    fn end(&mut self) {
        if self.context == Context::Inspect {
            let words = if self.dice().one_in(8) { "(nop)" } else { "(call $accept_message)" };
            self.line(words);
        } else if available("msg_reply", self.context) == Some(true) {
            match self.dice().below(20) {
                0..=14 => {
                    let [at, eight] = [HOPS + 8, 8].map(|value| self.writer.at(value));
                    let mixed = self.number(1);
                    self.line(&format!(
                        "(i64.store {at} {mixed}) (call $msg_reply_data_append {at} {eight}) (call $msg_reply)"
                    ));
                }
                15..=16 => self.reject(),
                _ => {}
            }
        }
    }

    fn reject(&mut self) {
        let text = self.writer.literal(b"not this one");
        self.line(&format!("(call $msg_reject {text})"));
    }

    /// Turns an `i64` into an address or size.
    fn pointer(&self, number: &str) -> String {
        if self.writer.wide { number.to_owned() } else { format!("(i32.wrap_i64 {number})") }
    }

    /// Turns an address or size into an `i64`.
    fn widened(&self, pointer: &str) -> String {
        if self.writer.wide { pointer.to_owned() } else { format!("(i64.extend_i32_u {pointer})") }
    }

    /// An address in the free part, with at least 32 bytes behind it.
    fn place(&mut self) -> String {
        if self.dice().one_in(2) {
            let at = self.dice().below(FREE);
            return self.writer.at(at);
        }
        let number = self.number(1);
        self.pointer(&format!("(i64.and {number} (i64.const {FREE}))"))
    }

    /// A size up to `max`.
    fn size(&mut self, max: u64) -> String {
        let size = self.dice().below(max + 1);
        self.writer.at(size)
    }

    /// An `i64`.
    fn number(&mut self, depth: u32) -> String {
        let kinds = if depth == 0 { 4 } else { 15 };
        match self.dice().below(kinds) {
            0 => format!("(i64.const {})", self.dice().below(100)),
            1 => format!("(i64.const {})", self.dice().number().cast_signed()),
            2 => "(local.get $x)".to_owned(),
            3 => format!("(global.get $g{})", self.dice().below(3)),
            4..=8 => {
                let op = *self.dice().pick(&["add", "sub", "mul", "xor", "rotl", "shr_u", "and"]);
                let [a, b] = [self.number(depth - 1), self.number(depth - 1)];
                format!("(i64.{op} {a} {b})")
            }
            9 | 10 => {
                let place = self.place_at(depth - 1);
                let load = *self.dice().pick(&["load", "load8_s", "load32_u"]);
                format!("(i64.{load} {place})")
            }
            11 => {
                let op = *self.dice().pick(&["div_u", "rem_s"]);
                let [a, b] = [self.number(depth - 1), self.number(depth - 1)];
                if self.dice().one_in(40) {
                    format!("(i64.div_s {a} {b})")
                } else {
                    format!("(i64.{op} {a} (i64.or {b} (i64.const 1)))")
                }
            }
            12 | 13 => self.read(),
            _ => format!("(i64.reinterpret_f64 {})", self.float(depth - 1)),
        }
    }

    fn place_at(&mut self, depth: u32) -> String {
        if depth == 0 {
            let at = self.dice().below(FREE);
            self.writer.at(at)
        } else {
            self.place()
        }
    }

    /// A number that the system gives.
    fn read(&mut self) -> String {
        let reads = [
            ("performance_counter", "(call $performance_counter (i32.const 0))", false),
            ("performance_counter", "(call $performance_counter (i32.const 1))", false),
            ("time", "(call $time)", false),
            ("canister_version", "(call $canister_version)", false),
            ("stable64_size", "(call $stable64_size)", false),
            ("msg_deadline", "(call $msg_deadline)", false),
            ("canister_status", "(i64.extend_i32_u (call $canister_status))", false),
            ("in_replicated_execution", "(i64.extend_i32_u (call $in_replicated_execution))", false),
            ("msg_reject_code", "(i64.extend_i32_u (call $msg_reject_code))", false),
            ("data_certificate_present", "(i64.extend_i32_u (call $data_certificate_present))", false),
            ("env_var_count", "(call $env_var_count)", true),
            ("root_key_size", "(call $root_key_size)", true),
            ("msg_caller_size", "(call $msg_caller_size)", true),
        ];
        let (function, read, sized) = *self.dice().pick(&reads);
        if !self.may(function) {
            return "(local.get $x)".to_owned();
        }
        if sized { self.widened(read) } else { read.to_owned() }
    }

    /// An `f64`.
    fn float(&mut self, depth: u32) -> String {
        match self.dice().below(if depth == 0 { 3 } else { 8 }) {
            0 => {
                let constants =
                    ["nan", "-nan", "nan:0x4000000000001", "inf", "-0", "1.5", "-3e300", "5e-324"];
                format!("(f64.const {})", self.dice().pick(&constants))
            }
            1 => "(local.get $y)".to_owned(),
            2 => "(global.get $f)".to_owned(),
            3..=5 => {
                let op = *self.dice().pick(&["add", "sub", "mul", "div", "min", "max", "copysign"]);
                let [a, b] = [self.float(depth - 1), self.float(depth - 1)];
                format!("(f64.{op} {a} {b})")
            }
            6 => format!("(f64.convert_i64_s {})", self.number(depth - 1)),
            _ => {
                let a = self.float(depth - 1);
                let ops = ["f64.sqrt", "f64.neg", "f64.nearest", "f64.promote_f32 (f32.demote_f64"];
                let op = *self.dice().pick(&ops);
                let close = if op.contains('(') { "))" } else { ")" };
                format!("({op} {a}{close}")
            }
        }
    }

    fn statement(&mut self, depth: u32) {
        match self.dice().below(100) {
            0..=13 => self.store(),
            14..=23 => self.set(),
            24..=33 => self.repeat(depth),
            34..=39 => self.branch(depth),
            40..=47 => self.whole_memory(),
            48..=52 => self.leaf_call(),
            53..=61 => self.stable(),
            62..=66 => self.print(),
            67..=72 => self.system(),
            73..=78 => self.copy(),
            79..=90 => self.call(),
            91..=93 => self.append(),
            94..=96 => self.failure(),
            _ => self.cycles(),
        }
    }

    fn store(&mut self) {
        let place = self.place();
        if self.dice().one_in(4) {
            let value = self.float(2);
            self.line(&format!("(f64.store {place} {value})"));
        } else {
            let store = *self.dice().pick(&["store", "store8", "store32"]);
            let value = self.number(2);
            self.line(&format!("(i64.{store} {place} {value})"));
        }
    }

    fn set(&mut self) {
        match self.dice().below(4) {
            0 => {
                let value = self.number(2);
                self.line(&format!("(local.set $x {value})"));
            }
            1 => {
                let value = self.float(2);
                let to = *self.dice().pick(&["local.set $y", "global.set $f"]);
                self.line(&format!("({to} {value})"));
            }
            _ => {
                let value = self.number(2);
                let global = self.dice().below(3);
                self.line(&format!("(global.set $g{global} {value})"));
            }
        }
    }

    fn repeat(&mut self, depth: u32) {
        if self.in_loop {
            return self.store();
        }
        let times = match self.dice().below(200) {
            0 | 1 => {
                let label = self.label();
                return self.line(&format!("(loop {label} (br {label}))"));
            }
            2..=4 => 100_000,
            5..=19 => 10_000,
            _ => *self.dice().pick(&[3, 30, 300]),
        };
        let label = self.label();
        let stride = *self.dice().pick(&[1, 8, 100, 4096]);
        self.in_loop = true;
        self.line(&format!("(local.set $i (i32.const {times})) (loop {label}"));
        let value = self.number(1);
        let at = format!(
            "(i64.and (i64.add (local.get $x) (i64.mul (i64.extend_i32_u (local.get $i)) (i64.const {stride}))) (i64.const {FREE}))"
        );
        let at = self.pointer(&at);
        self.line(&format!("(i64.store {at} {value})"));
        if times < 1_000 && depth > 0 && self.dice().one_in(3) {
            self.statement(0);
        }
        self.line(&format!(
            "(local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if {label} (local.get $i)))"
        ));
        self.in_loop = false;
    }

    fn label(&mut self) -> String {
        self.labels += 1;
        format!("$l{}", self.labels)
    }

    fn branch(&mut self, depth: u32) {
        if depth == 0 {
            return self.set();
        }
        let compare = *self.dice().pick(&["lt_u", "gt_s", "eq"]);
        let [a, b] = [self.number(1), self.number(1)];
        self.line(&format!("(if (i64.{compare} {a} {b}) (then"));
        self.statement(depth - 1);
        self.line(") (else");
        self.statement(depth - 1);
        self.line("))");
    }

    /// Growth, and what moves many bytes at once.
    fn whole_memory(&mut self) {
        let [to, from] = [self.place(), self.place()];
        let size = self.size(32);
        let kinds = if self.writer.passive { 7 } else { 5 };
        match self.dice().below(kinds) {
            0 if !self.in_loop => {
                let pages = self.size(2);
                let grown = self.widened(&format!("(memory.grow {pages})"));
                self.line(&format!("(local.set $x (i64.add (local.get $x) {grown}))"));
            }
            0 | 1 => self.line(&format!("(memory.fill {to} (i32.const 7) {size})")),
            2 => {
                let start = self.dice().below(0x1000);
                let start = self.writer.at(start);
                let size = self.size(0x10000);
                self.line(&format!("(memory.fill {start} (i32.wrap_i64 (local.get $x)) {size})"));
            }
            3 | 4 => self.line(&format!("(memory.copy {to} {from} {size})")),
            5 if self.dice().one_in(4) => self.line("(data.drop $passive)"),
            _ => {
                let size = self.dice().below(9);
                self.line(&format!("(memory.init $passive {to} (i32.const 0) (i32.const {size}))"));
            }
        }
    }

    fn leaf_call(&mut self) {
        let value = self.number(1);
        // One place in four is empty, or holds a function of another type.
        let last = if self.dice().one_in(12) { 3 } else { 2 };
        let index = format!(
            "(i32.add (i32.const {}) (i32.wrap_i64 (i64.rem_u {value} (i64.const {}))))",
            LEAVES[0],
            last + 1
        );
        let value = self.number(1);
        self.line(&format!("(local.set $x (call_indirect (type $leaf) {value} {index}))"));
    }

    fn stable(&mut self) {
        let place = self.place();
        let place = self.widened(&place);
        let size = self.dice().below(33);
        // Mostly within what a grow before has made sure of.
        let offset = if self.dice().one_in(25) { 0x4_0000 } else { self.dice().below(0xff00) };
        match self.dice().below(8) {
            0 => self.line("(drop (call $stable64_grow (i64.const 1)))"),
            1 if !self.writer.wide => self.line("(drop (call $stable_grow (i32.const 0)))"),
            2 if !self.writer.wide => {
                let narrow = self.dice().below(FREE);
                self.line(&format!(
                    "(if (call $stable_size) (then (call $stable_write (i32.const {offset}) (i32.const {narrow}) (i32.const {size}))))"
                ));
            }
            1..=4 => self.line(&format!(
                "(if (i64.eqz (call $stable64_size)) (then (drop (call $stable64_grow (i64.const 1)))))
                 (call $stable64_write (i64.const {offset}) {place} (i64.const {size}))"
            )),
            _ => self.line(&format!(
                "(if (i64.ne (call $stable64_size) (i64.const 0)) (then
                   (call $stable64_read {place} (i64.const {offset}) (i64.const {size}))))"
            )),
        }
    }

    fn print(&mut self) {
        if self.dice().one_in(3) {
            let [place, size] = [self.place(), self.size(32)];
            self.line(&format!("(call $debug_print {place} {size})"));
        } else {
            let number = self.dice().below(1_000);
            let text = self.writer.literal(format!("line {number}").as_bytes());
            self.line(&format!("(call $debug_print {text})"));
        }
    }

    /// Certified data and the timer.
    fn system(&mut self) {
        if self.dice().one_in(2) && self.may("certified_data_set") {
            let place = self.place();
            let size = if self.dice().one_in(30) { 33 } else { self.dice().below(33) };
            let size = self.writer.at(size);
            self.line(&format!("(call $certified_data_set {place} {size})"));
        } else if self.may("global_timer_set") {
            let seconds = self.dice().below(5);
            self.line(&format!(
                "(local.set $x (i64.xor (local.get $x) (call $global_timer_set (i64.add (call $time) (i64.const {})))))",
                seconds * 1_000_000_000
            ));
        }
    }

    /// Bytes that the system gives.
    fn copy(&mut self) {
        let place = self.place();
        let [zero, one, ten] = [0, 1, 10].map(|value| self.writer.at(value));
        let known = self.writer.literal(b"NAME");
        let nonzero = format!("{}.ne", self.writer.pointer());
        let copies = [
            ("canister_self_copy", format!("(call $canister_self_copy {place} {zero} {ten})")),
            ("subnet_self_copy", format!("(call $subnet_self_copy {place} {zero} {ten})")),
            ("root_key_copy", format!("(call $root_key_copy {place} {one} {ten})")),
            ("msg_caller_copy", format!("(call $msg_caller_copy {place} {zero} (call $msg_caller_size))")),
            ("canister_cycle_balance128", format!("(call $canister_cycle_balance128 {place})")),
            ("canister_liquid_cycle_balance128", format!("(call $canister_liquid_cycle_balance128 {place})")),
            ("msg_cycles_available128", format!("(call $msg_cycles_available128 {place})")),
            ("msg_cycles_refunded128", format!("(call $msg_cycles_refunded128 {place})")),
            ("cost_create_canister", format!("(call $cost_create_canister {place})")),
            (
                "env_var_name_exists",
                format!(
                    "(if (call $env_var_name_exists {known}) (then
                       (call $env_var_value_copy {known} {place} {zero} (call $env_var_value_size {known}))))"
                ),
            ),
            (
                "env_var_name_size",
                format!(
                    "(if ({nonzero} (call $env_var_count) {zero}) (then
                       (call $env_var_name_copy {zero} {place} {zero} (call $env_var_name_size {zero}))))"
                ),
            ),
            (
                "is_controller",
                format!(
                    "(local.set $x (i64.extend_i32_u (call $is_controller {} {ten})))",
                    self.writer.at(CALLEE)
                ),
            ),
            (
                "msg_reject_msg_copy",
                format!("(call $msg_reject_msg_copy {place} {zero} (call $msg_reject_msg_size))"),
            ),
            (
                "msg_method_name_copy",
                format!("(call $msg_method_name_copy {place} {zero} (call $msg_method_name_size))"),
            ),
        ];
        let (function, copy) = self.dice().pick(&copies).clone();
        // The subnet's text of a reject may be longer than what is free behind the place, which then traps.
        if self.may(function) {
            self.line(&copy);
        }
    }

    fn append(&mut self) {
        if self.may("msg_reply_data_append") {
            let [place, size] = [self.place(), self.size(32)];
            self.line(&format!("(call $msg_reply_data_append {place} {size})"));
        }
    }

    fn cycles(&mut self) {
        let place = self.place();
        let amount = *self.dice().pick(&[1_u64, 1_000, 1_000_000_000]);
        let function = *self.dice().pick(&["msg_cycles_accept128", "cycles_burn128"]);
        if self.may(function) {
            self.line(&format!("(call ${function} (i64.const 0) (i64.const {amount}) {place})"));
        }
    }

    /// What ends a message, if a number says so.
    fn failure(&mut self) {
        let number = self.number(1);
        let beyond = self.writer.at(0xfff_fff0);
        let text = self.writer.literal(b"as it happens");
        let failures = [
            format!("(call $trap {text})"),
            "(unreachable)".to_owned(),
            "(local.set $x (i64.div_u (local.get $x) (i64.const 0)))".to_owned(),
            format!("(i64.store {beyond} (local.get $x))"),
            "(local.set $x (i64.trunc_f64_s (f64.const nan)))".to_owned(),
            format!("(drop (call $is_controller {} {}))", self.writer.at(0), self.writer.at(30)),
        ];
        let failure = self.dice().pick(&failures).clone();
        let share = 2 + self.dice().below(6);
        self.line(&format!("(if (i64.eqz (i64.rem_u {number} (i64.const {share}))) (then {failure}))"));
    }

    /// A call, while hops are left.
    fn call(&mut self) {
        if self.in_loop || !self.may("call_new") {
            return self.set();
        }
        self.line("(if (i32.gt_s (local.get $h) (i32.const 0)) (then");
        let management = !self.is_composite() && self.dice().one_in(7);
        let [callee, size] = [if management { 0 } else { CALLEE }, if management { 0 } else { 10 }];
        if !management {
            self.callee();
        }
        let method = self.method(management);
        let name = self.writer.literal(method.as_bytes());
        let [callee, size] = [callee, size].map(|value| self.writer.at(value));
        let environment = "(i32.sub (local.get $h) (i32.const 1))";
        let environment = if self.writer.wide {
            format!("(i64.extend_i32_u {environment})")
        } else {
            environment.to_owned()
        };
        let [on_reply, on_reject] = self.callbacks().map(|index| self.writer.at(index));
        self.line(&format!(
            "(call $call_new {callee} {size} {name} {on_reply} {environment} {on_reject} {environment})"
        ));
        if self.dice().one_in(2) {
            let index = if self.dice().one_in(20) { TABLE - 1 } else { ON_CLEANUP };
            let index = self.writer.at(index);
            self.line(&format!("(call $call_on_cleanup {index} {environment})"));
        }
        self.argument(management, method);
        if self.dice().one_in(4) {
            let seconds = *self.dice().pick(&[1, 60, 100_000]);
            self.line(&format!("(call $call_with_best_effort_response (i32.const {seconds}))"));
        }
        let pays = method == "deposit_cycles" || method == "create_canister" || self.dice().one_in(4);
        if pays && self.may("call_cycles_add128") {
            let amount = match method {
                "create_canister" => 600_000_000_000,
                _ => *self.dice().pick(&[1_u64, 1_000_000, 20_000_000_000]),
            };
            self.line(&format!("(call $call_cycles_add128 (i64.const 0) (i64.const {amount}))"));
        }
        let end = match self.dice().below(20) {
            0 => "(nop)",
            1..=6 => "(if (call $call_perform) (then (unreachable)))",
            _ => "(local.set $x (i64.extend_i32_u (call $call_perform)))",
        };
        self.line(&format!("{end} ))"));
    }

    /// Puts the callee's id in its place: this canister's, mostly with another one's number.
    fn callee(&mut self) {
        let [callee, zero, ten] = [CALLEE, 0, 10].map(|value| self.writer.at(value));
        self.line(&format!("(call $canister_self_copy {callee} {zero} {ten})"));
        let number = match self.dice().below(16) {
            0 => None,
            // There are never so many.
            1 => Some(255),
            _ => Some(self.dice().below(PEERS)),
        };
        if let Some(number) = number {
            let last = self.writer.at(CALLEE + 7);
            self.line(&format!("(i32.store8 {last} (i32.const {number}))"));
        }
    }

    fn method(&mut self, management: bool) -> &'static str {
        if self.dice().one_in(25) {
            return "nope";
        }
        let composite = self.is_composite();
        let dice = self.dice();
        let names: &'static [&'static str] = match (management, composite) {
            (true, _) => &arguments::FOR_CANISTERS,
            (false, true) if dice.one_in(3) => &COMPOSITES,
            (false, true) => &QUERIES,
            (false, false) if dice.one_in(5) => &QUERIES,
            (false, false) => &UPDATES,
        };
        names[dice.below(names.len() as u64) as usize]
    }

    /// Places of the callbacks in the table; now and then of none.
    fn callbacks(&mut self) -> [u64; 2] {
        let composite = self.is_composite();
        let dice = self.dice();
        let [reply, reject] =
            if composite { [COMPOSITE_REPLY, COMPOSITE_REJECT] } else { [*dice.pick(&ON_REPLY), ON_REJECT] };
        if dice.one_in(30) { [TABLE - 1, LEAVES[0]] } else { [reply, reject] }
    }

    fn argument(&mut self, management: bool, method: &str) {
        if management {
            // A record with the id of the canister that was put together last, or of any that never was.
            let bytes = arguments::of_canister(Principal::from_slice(&[0; 10]));
            let (head, id) = bytes.split_at(bytes.len() - 10);
            if arguments::names_canister(method) {
                let head = self.writer.literal(head);
                let [callee, ten] = [CALLEE, id.len() as u64].map(|value| self.writer.at(value));
                self.callee();
                self.line(&format!(
                    "(call $call_data_append {head}) (call $call_data_append {callee} {ten})"
                ));
            } else {
                let nothing = self.writer.literal(b"DIDL\0\0");
                self.line(&format!("(call $call_data_append {nothing})"));
            }
            return;
        }
        let [hops, nine] = [HOPS, 9].map(|value| self.writer.at(value));
        let more = self.writer.at(HOPS + 1);
        let value = self.number(1);
        self.line(&format!(
            "(i32.store8 {hops} (i32.sub (local.get $h) (i32.const 1))) (i64.store {more} {value})
             (call $call_data_append {hops} {nine})"
        ));
    }
}
