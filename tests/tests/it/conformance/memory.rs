//! S and M: stable memory, heap, globals.

use super::check::{Check, check, one, query, settings, update};
use super::management::Settings;

const STATE: &str = r#"
    (global $g (mut i64) (i64.const 1)) (global $x (export "x") (mut f64) (f64.const 1.5))
    (data (i32.const 64) "data")
    (query "get" (call $put (global.get $g)) (call $put (i64.reinterpret_f64 (global.get $x))) (call $put32 (i32.load (i32.const 0))) (call $reply))
    (query "data" (call $say (i32.const 64) (i32.const 4)))
    (func $set (global.set $g (i64.const 7)) (global.set $x (f64.const 2)) (i32.store (i32.const 0) (i32.const 7)) (i32.store8 (i32.const 64) (i32.const 88)))
    (update "set" (call $set) (call $reply))
    (update "fail" (global.set $g (i64.const 8)) (global.set $x (f64.const 3)) (i32.store (i32.const 0) (i32.const 8)) (unreachable))
    (query "ask" (call $set) (call $reply))
"#;
const F15: i64 = 0x3ff8_0000_0000_0000;
const F20: i64 = 0x4000_0000_0000_0000;
const NAN: i64 = 0x7ff8_0000_0000_0000;

pub(super) fn checks() -> Vec<Check> {
    let stable = |id, body: &str, step| one(id, body, step);
    vec![
        stable(
            "S01",
            r#"(query "go" (call $put (call $size)) (call $put32 (call $size32)) (call $reply))"#,
            query("go").numbers(&[0, 0]),
        ),
        stable(
            "S02",
            r#"(update "go" (call $put (call $grow (i64.const 2))) (call $put (call $size))
            (i64.store (i32.const 0) (i64.const -1)) (call $read (i64.const 0) (i64.const 131064) (i64.const 8)) (call $put (i64.load (i32.const 0)))
            (call $put (call $grow (i64.const 0))) (call $reply))"#,
            update("go").numbers(&[0, 2, 0, 2]),
        ),
        stable(
            "S06",
            r#"(update "go" (call $put32 (call $grow32 (i32.const 65537))) (call $put32 (call $size32)) (call $reply))"#,
            update("go").numbers(&[0xffff_ffff, 0]),
        ),
        stable(
            "S07",
            r#"(update "go" (drop (call $grow (i64.const 65537))) (call $say32 (call $size32)))"#,
            update("go").error("IC0502", "32 bit stable memory api"),
        ),
        stable(
            "S08",
            r#"(update "go" (call $put (call $grow (i64.const 8192001))) (call $reply))"#,
            update("go").numbers(&[-1]),
        ),
        stable(
            "S11",
            r#"(update "go" (drop (call $grow (i64.const 1))) (call $read (i64.const 0) (i64.const 0) (i64.const 20480)) (call $reply))"#,
            update("go").error("IC0524", "Canister exceeded memory access limits"),
        )
        .limits(|limits| limits.stable_access_pages = [4, 8, 2]),
        stable(
            "S11 fits",
            r#"(update "go" (drop (call $grow (i64.const 1))) (call $read (i64.const 0) (i64.const 0) (i64.const 16384)) (call $reply))"#,
            update("go").reply(""),
        )
        .limits(|limits| limits.stable_access_pages = [4, 8, 2]),
        stable(
            "S12",
            r#"(update "go" (drop (call $grow32 (i32.const 1))) (i64.store (i32.const 0) (i64.const 77))
            (call $write32 (i32.const 5) (i32.const 0) (i32.const 8)) (call $read (i64.const 16) (i64.const 5) (i64.const 8)) (call $say64 (i64.load (i32.const 16))))"#,
            update("go").numbers(&[77]),
        ),
        check(
            "S13",
            [
                r#"(update "go" (call $say64 (call $grow (i64.const 6553600)))) (query "size" (call $say64 (call $size)))"#,
            ],
            [update("go").error("IC0532", ""), query("size").numbers(&[0])],
        ),
        check(
            "S09",
            [r#"(update "grow" (drop (call $grow (i64.const 1))) (call $reply))
            (query "go" (i64.store (i32.const 0) (i64.const 9)) (call $write (i64.const 0) (i64.const 0) (i64.const 8))
              (call $read (i64.const 8) (i64.const 0) (i64.const 8)) (call $say64 (i64.load (i32.const 8))))
            (query "see" (call $read (i64.const 8) (i64.const 0) (i64.const 8)) (call $say64 (i64.load (i32.const 8))))"#],
            [update("grow").reply(""), query("go").numbers(&[9]), query("see").numbers(&[0])],
        ),
        check(
            "S05",
            [
                r#"(update "grow" (drop (call $grow (i64.const 1))) (i64.store (i32.const 0) (i64.const 9)) (call $write (i64.const 0) (i64.const 0) (i64.const 8)) (call $reply))
            (update "fail" (drop (call $grow (i64.const 5))) (i64.store (i32.const 0) (i64.const 8)) (call $write (i64.const 0) (i64.const 0) (i64.const 8)) (unreachable))
            (query "see" (call $read (i64.const 8) (i64.const 0) (i64.const 8)) (call $put (i64.load (i32.const 8))) (call $put (call $size)) (call $reply))"#,
            ],
            [update("grow").reply(""), update("fail").error("IC0502", ""), query("see").numbers(&[9, 1])],
        ),
        check(
            "M01",
            [
                r#"(memory 2 4) (update "grow" (call $say32 (memory.grow (i32.const 1)))) (query "size" (call $say32 (memory.size)))
            (update "fail" (drop (memory.grow (i32.const 1))) (i32.store (i32.const 196608) (i32.const 1)) (unreachable))
            (query "ask" (call $say32 (memory.grow (i32.const 1))))"#,
            ],
            [
                update("grow").numbers(&[2]),
                query("size").numbers(&[3]),
                update("fail").error("IC0502", "unreachable"),
                query("size").numbers(&[3]),
                query("ask").numbers(&[3]),
                query("size").numbers(&[3]),
                update("grow").numbers(&[3]),
                update("grow").numbers(&[0xffff_ffff]),
                query("size").numbers(&[4]),
            ],
        ),
        check(
            "M02",
            [
                r#"(update "grow" (call $say32 (memory.grow (i32.const 5)))) (query "ask" (call $say32 (memory.grow (i32.const 5))))"#,
            ],
            [
                settings(0, Settings { wasm_memory_limit: Some(200_000_u64.into()), ..Settings::default() })
                    .reply(b"DIDL\0\0"),
                update("grow").error("IC0539", ""),
                query("ask").numbers(&[2]),
            ],
        ),
        check(
            "M03",
            [STATE],
            [query("get").numbers(&[1, F15, 0]), update("set").reply(""), query("get").numbers(&[7, F20, 7])],
        ),
        check(
            "M04",
            [STATE],
            [update("set").reply(""), update("fail").error("IC0502", ""), query("get").numbers(&[7, F20, 7])],
        ),
        check(
            "Q01",
            [STATE],
            [query("ask").reply(""), query("get").numbers(&[1, F15, 0]), update("get").numbers(&[1, F15, 0])],
        ),
        check(
            "M09",
            [STATE],
            [
                query("data").reply("data"),
                update("set").reply(""),
                query("data").reply("Xata"),
                update("fail").error("IC0502", ""),
                query("data").reply("Xata"),
            ],
        ),
        one(
            "M05",
            r#"(update "go" (local $zero f64)
            (call $put (i64.reinterpret_f64 (f64.div (local.get $zero) (local.get $zero))))
            (call $put (i64.reinterpret_f64 (f64.sqrt (f64.sub (local.get $zero) (f64.const 1)))))
            (call $put (i64.reinterpret_f64 (f64.add (f64.reinterpret_i64 (i64.const 0x7ff4000000000001)) (local.get $zero))))
            (call $put32 (i32.reinterpret_f32 (f32.div (f32.demote_f64 (local.get $zero)) (f32.const 0))))
            (call $reply))"#,
            update("go").numbers(&[NAN, NAN, NAN, 0x7fc0_0000]),
        ),
        one(
            "M08",
            r#"(update "go" (call $say32 (memory.grow (i32.const 1000))))"#,
            update("go").error("IC0507", ""),
        )
        .limits(|limits| limits.subnet_memory_bytes = 20 << 20),
        check(
            "T01",
            [
                r#"(update "go" (call $put (i64.sub (call $time) (call $time))) (call $put32 (i64.gt_u (call $time) (i64.load (i32.const 0)))) (i64.store (i32.const 0) (call $time)) (call $reply))"#,
            ],
            [update("go").numbers(&[0, 1]), update("go").numbers(&[0, 1])],
        ),
    ]
}
