//! Settings, what is allocated by them, and what they limit (sections 3.6, 4.1, 4.4, 4.7 and 5).

use super::check::{Check, check, one, reinstall, settings, update};
use super::management::{Settings, Variable};

const OK: &[u8] = b"DIDL\0\0";
const TERA: u128 = 1_000_000_000_000;

fn variables(count: usize, name: &str, value: &str) -> Settings {
    let variable = |n| Variable { name: format!("{name}{n}"), value: value.to_owned() };
    Settings { environment_variables: Some((0..count).map(variable).collect()), ..Settings::default() }
}

fn compute(percent: u64) -> Settings {
    Settings { compute_allocation: Some(percent.into()), ..Settings::default() }
}

fn memory(bytes: u64) -> Settings {
    Settings { memory_allocation: Some(bytes.into()), ..Settings::default() }
}

pub(super) fn checks() -> Vec<Check> {
    let long = "x".repeat(127);
    vec![
        check(
            "L22 bounds",
            [""],
            [
                settings(0, variables(20, &long[..120], &format!("{long}y"))).reply(OK),
                settings(0, variables(21, "a", "")).error("IC0408", "21"),
                settings(0, variables(1, &format!("{long}y"), "")).error("IC0408", "128"),
                settings(0, variables(1, "a", &format!("{long}yz"))).error("IC0408", "128"),
            ],
        ),
        // 1 % for 30 days costs 25.92 T, 100 GiB as long 32.9 T.
        check(
            "L allocations",
            ["", ""],
            [
                settings(0, compute(101)).error("IC0504", "at most 100"),
                settings(0, compute(3)).reply(OK),
                settings(1, compute(1)).error("IC0530", "additional cycles"),
                settings(1, memory(100 << 30)).error("IC0531", "additional cycles"),
                settings(1, memory((1 << 48) + 1)).error("IC0504", ""),
                settings(1, memory(1 << 48)).error("IC0101", ""),
                settings(1, memory(10 << 30)).reply(OK),
                settings(1, memory(0)).reply(OK),
            ],
        )
        .cycles(1, 20 * TERA),
        check(
            "L compute of the subnet",
            ["", "", ""],
            [
                settings(0, compute(100)).reply(OK),
                settings(1, compute(100)).reply(OK),
                settings(2, compute(51)).error("IC0101", "50 left"),
                settings(0, compute(99)).reply(OK),
                settings(2, compute(51)).reply(OK),
            ],
        )
        .cycles(0, 10_000 * TERA)
        .cycles(1, 10_000 * TERA)
        .cycles(2, 10_000 * TERA)
        .limits(|limits| limits.subnet_compute_percent = 250),
        // Fee, prepayment and response of a call of one byte; 2 MiB of message memory for 30 days.
        one(
            "Y message memory",
            r#"(update "go" (call $liquid (i32.const 0)) (call $own (lit "x")) (call $sent) (call $liquid (i32.const 16))
              (call $put (i64.sub (i64.load (i32.const 0)) (i64.load (i32.const 16)))) (call $reply))"#,
            update("go").numbers(&[261_000 + 1_000 * 2_097_152 + 40_005_000_000 + 127_000 * 2_592_000 / 512]),
        ),
        one(
            "Y message memory with a deadline",
            r#"(update "go" (call $liquid (i32.const 0)) (call $own (lit "x")) (call $best_effort (i32.const 10)) (call $sent) (call $liquid (i32.const 16))
              (call $put (i64.sub (i64.load (i32.const 0)) (i64.load (i32.const 16)))) (call $reply))"#,
            update("go").numbers(&[261_000 + 1_000 * 2_097_152 + 40_005_000_000]),
        ),
        one(
            "C message memory of the subnet",
            r#"(update "go" (call $own (lit "x")) (call $put32 (call $perform)) (call $own (lit "x")) (call $put32 (call $perform))
              (call $own (lit "x")) (call $put32 (call $perform)) (call $reply))"#,
            update("go").numbers(&[0, 0, 2]),
        )
        .limits(|limits| limits.message_memory_bytes = 5 << 20),
        one(
            "C callback slots",
            r#"(update "go" (local $n i32)
              (loop $more (call $own (lit "x")) (if (i32.eqz (call $perform)) (then (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $more))))
              (call $say32 (local.get $n)))"#,
            update("go").numbers(&[57]),
        )
        .limits(|limits| limits.callbacks_shared = 7),
        check(
            "IC0209",
            [r#"(update "go" (call $reply))"#],
            [
                reinstall(0, r#"(update "go" (call $reply))"#).error("IC0209", "rate limited"),
                update("go").reply(""),
            ],
        )
        .limits(|limits| limits.install_rate = Some(1)),
    ]
}
