//! D: messages in slices, at the slices of an application subnet and at small ones.

use super::check::{Act, Check, Step, after, again, check, cost, look, one, query, spent, update};

/// `long` counts in the heap and says whether time stood still; a turn of the loop takes 14 instructions.
fn counting(turns: u32) -> String {
    format!(
        r#"(global $began (mut i64) (i64.const 0))
        (func $count (local $n i32)
          (loop $l (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
            (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {turns})))))
        (update "long" (global.set $began (call $time)) (call $count)
          (call $put32 (i32.load (i32.const 0))) (call $put32 (i64.eq (global.get $began) (call $time))) (call $reply))
        (update "fail" (call $count) (unreachable))
        (update "short" (i32.store (i32.const 0) (i32.mul (i32.load (i32.const 0)) (i32.const 10))) (call $say32 (i32.load (i32.const 0))))
        (query "get" (call $say32 (i32.load (i32.const 0))))
        (update "fill" (memory.fill (i32.const 0) (i32.const 1) (i32.const 100000)) (call $reply))"#
    )
}

/// What a million turns take: 14 each, 1 for each of `long`, `$count` and the two `$put`s with its `$put32`, 2,000 for two
/// pages, 500 for each of two times and the reply, 900 for each append of 8 bytes, 72 for the rest of the code.
const LONG: u64 = 14_000_000 + 6 + 2_000 + 3 * 500 + 2 * 900 + 71;

/// The same steps whatever the slices are.
fn long(id: &'static str, extra: impl IntoIterator<Item = Step>) -> Check {
    let [before, charged] = spent(0, i128::from(LONG) + 5_000_000 + 1_200_000 + 2_000 * 12);
    let steps = [before, update("long")];
    let answer = [again(0).numbers(&[1_000_000, 1]), charged, query("get").numbers(&[1_000_000])];
    check(id, [&counting(1_000_000)], steps.into_iter().chain(extra).chain(answer))
}

fn act(act: Act) -> Step {
    Step { act, want: super::check::Want::Anything }
}

fn has_in_hand(seen: bool) -> Step {
    look(0, |canister| canister.paused.is_some().to_string(), seen)
}

pub(super) fn checks() -> Vec<Check> {
    vec![
        long("D01 whole", [cost(LONG)]),
        // Five slices: the answer is there within the rounds that a message gets and one more.
        long("D01", [has_in_hand(true), after(1), has_in_hand(false), cost(LONG)])
            .limits(|limits| limits.slice_instructions = 3_000_000),
        one("D01 of a subnet", &counting(360_000_000), update("long").numbers(&[360_000_000, 1])),
        check(
            "D02",
            [&counting(1_000_000), &counting(1)],
            [
                update("long").waits(),
                update("short").waits(),
                update("short").on(1).numbers(&[0]),
                after(1).times(8),
                again(0).numbers(&[1_000_000, 1]),
                again(1).numbers(&[10_000_000]),
            ],
        )
        .limits(|limits| limits.slice_instructions = 1_000_000),
        one("D03", &counting(1), update("fill").error("IC0522", "exceeded the slice limit 40000"))
            .limits(|limits| limits.slice_instructions = 40_000),
        one("D03 fits", &counting(1), update("fill").reply(""))
            .limits(|limits| limits.slice_instructions = 80_000),
        long("D04 given up", [act(Act::Abort), after(1).times(5), has_in_hand(false), cost(LONG)])
            .limits(|limits| limits.slice_instructions = 3_000_000),
        long("D04 restarted", [act(Act::Restart), after(1), has_in_hand(false), cost(LONG)])
            .limits(|limits| limits.slice_instructions = 3_000_000),
        long(
            "D04 both",
            [act(Act::Abort), act(Act::Restart), after(1).times(5), has_in_hand(false), cost(LONG)],
        )
        .limits(|limits| limits.slice_instructions = 3_000_000),
        check(
            "D05",
            [&counting(1_000_000)],
            [
                update("fail").waits(),
                after(1).times(3),
                again(0).error("IC0502", "unreachable"),
                query("get").numbers(&[0]),
            ],
        )
        .limits(|limits| limits.slice_instructions = 2_500_000),
        check(
            "P02",
            [&counting(7)],
            [
                update("long").numbers(&[7, 1]),
                act(Act::Restart),
                query("get").numbers(&[7]),
                update("long").numbers(&[14, 1]),
                act(Act::Restart),
                update("short").numbers(&[140]),
            ],
        ),
    ]
}
