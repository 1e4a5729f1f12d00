//! What each instruction costs (`canister-execution.md` section 3.2) and weighs (1.5).

use wasmparser::Operator;
use wasmparser::Operator::*;

/// Instructions charged for `operator`, without the size operand of bulk operations.
pub(super) fn instructions(operator: &Operator<'_>, memory64: bool) -> u64 {
    match operator {
        Block { .. } | Loop { .. } | Else | End => 0,
        operator if accesses_memory(operator) => {
            if memory64 {
                2
            } else {
                1
            }
        }

        F32Add | F32Sub | F32Mul | F32Ceil | F32Floor | F32Trunc | F32Nearest | F32Copysign => 2,
        F64Add | F64Sub | F64Mul | F64Ceil | F64Floor | F64Trunc | F64Nearest => 2,
        GlobalGet { .. } | GlobalSet { .. } | If { .. } | Br { .. } | BrIf { .. } | BrTable { .. } => 2,

        F32Eq | F32Ne | F32Lt | F32Gt | F32Le | F32Ge | F64Eq | F64Ne | F64Lt | F64Gt | F64Le | F64Ge => 3,
        F32Div | F64Copysign | ReturnCall { .. } => 3,
        F32ConvertI32S | F32ConvertI64S | F64ConvertI32S | F64ConvertI64S => 3,

        F64Div | F32Sqrt | Call { .. } | TableGet { .. } | RefIsNull => 5,
        F64Sqrt => 8,
        F32Min | F32Max | F64Min | F64Max => 18,

        I32DivS | I32DivU | I32RemS | I32RemU | I64DivS | I64DivU | I64RemS | I64RemU => 10,
        CallIndirect { .. } => 10,
        F32ConvertI32U | F32ConvertI64U | F64ConvertI32U | F64ConvertI64U => 16,
        operator if truncates_float(operator) => 20,
        MemorySize { .. } => 20,

        ReturnCallIndirect { .. } => 60,
        TableSize { .. } | TableFill { .. } | TableCopy { .. } | TableInit { .. } => 100,
        MemoryFill { .. } | MemoryCopy { .. } | MemoryInit { .. } => 100,
        RefFunc { .. } => 130,
        MemoryGrow { .. } | TableGrow { .. } | DataDrop { .. } | ElemDrop { .. } => 300,

        operator => vector_instructions(operator),
    }
}

/// The SIMD part of the table; 1 for all that it doesn't name.
fn vector_instructions(operator: &Operator<'_>) -> u64 {
    match operator {
        I8x16LtU | I8x16GtU | I16x8LtU | I16x8GtU | I32x4LtU | I32x4GtU => 2,
        I8x16ShrU | I16x8Shl | I16x8ShrS | I16x8ShrU | I32x4Shl | I32x4ShrS | I32x4ShrU => 2,
        I64x2Shl | I64x2ShrU => 2,
        I16x8ExtAddPairwiseI8x16U | I16x8ExtMulHighI8x16S | I16x8ExtMulHighI8x16U => 2,
        I32x4Mul | I32x4ExtMulLowI16x8S | I32x4ExtMulHighI16x8S => 2,
        I32x4ExtMulLowI16x8U | I32x4ExtMulHighI16x8U => 2,
        F32x4Ceil | F32x4Floor | F32x4Trunc | F32x4Nearest | F32x4Abs | F32x4Neg => 2,
        F64x2Ceil | F64x2Floor | F64x2Trunc | F64x2Nearest | F64x2Abs | F64x2Neg => 2,
        F32x4Add | F32x4Sub | F32x4Mul | F64x2Add | F64x2Sub | F64x2Mul => 2,
        I32x4TruncSatF32x4S | I32x4TruncSatF64x2SZero => 2,

        I8x16Shuffle { .. } | I8x16Popcnt | I8x16Shl | I8x16ShrS | I64x2ShrS => 3,
        I32x4ExtAddPairwiseI16x8U | I32x4TruncSatF64x2UZero => 3,

        I64x2Mul | F32x4Min | F32x4Max | F64x2Min => 4,
        I32x4TruncSatF32x4U | F32x4ConvertI32x4U => 4,

        F32x4Sqrt | F64x2Max => 5,
        F32x4Div => 10,
        F64x2Div => 12,
        F64x2Sqrt => 14,

        _ => 1,
    }
}

/// How much `operator` weighs towards the limit on a function's complexity.
pub(super) fn complexity(operator: &Operator<'_>) -> u64 {
    match operator {
        Block { .. } | Loop { .. } | If { .. } | Br { .. } | BrIf { .. } | BrTable { .. } => 50,
        Call { .. } | CallIndirect { .. } | MemoryGrow { .. } => 50,
        TableGet { .. } => 14,
        RefFunc { .. } => 8,
        RefIsNull => 6,

        I32TruncF32S | I32TruncF32U | I32TruncF64S | I32TruncF64U => 5,
        I64TruncF32S | I64TruncF32U | I64TruncF64S | I64TruncF64U => 5,
        F32ConvertI32S | F32ConvertI32U | F32ConvertI64S | F32ConvertI64U | F32DemoteF64 => 5,
        F64ConvertI32S | F64ConvertI32U | F64ConvertI64S | F64ConvertI64U => 5,
        I64ExtendI32S | I64ExtendI32U => 5,

        F32Neg | F32Abs | F64Neg | F64Abs | MemoryCopy { .. } => 4,

        operator if scalar_load(operator) => 3,
        I32DivS | I32DivU | I32RemS | I32RemU | I64DivS | I64DivU | I64RemS | I64RemU => 3,
        operator if truncates_float(operator) => 3,
        F32Copysign | F64Copysign | F64Eq | MemoryFill { .. } => 3,

        operator if scalar_store(operator) || compares(operator) => 2,
        GlobalGet { .. } | I32Popcnt | I64Popcnt | Select | TypedSelect { .. } | MemorySize { .. } => 2,
        F32Ceil | F32Floor | F32Sqrt | F32Trunc | F64Ceil | F64Floor | F64Sqrt | F64Trunc => 2,
        I32ReinterpretF32 | I64ReinterpretF64 | F32ReinterpretI32 | F64ReinterpretI64 => 2,
        I32WrapI64 | F64PromoteF32 => 2,
        I32Extend8S | I32Extend16S | I64Extend8S | I64Extend16S | I64Extend32S => 2,

        _ => 1,
    }
}

/// Loads and stores, of vectors too.
pub(super) fn accesses_memory(operator: &Operator<'_>) -> bool {
    scalar_load(operator) || scalar_store(operator) || vector_access(operator)
}

fn scalar_load(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        I32Load { .. }
            | I64Load { .. }
            | F32Load { .. }
            | F64Load { .. }
            | I32Load8S { .. }
            | I32Load8U { .. }
            | I32Load16S { .. }
            | I32Load16U { .. }
            | I64Load8S { .. }
            | I64Load8U { .. }
            | I64Load16S { .. }
            | I64Load16U { .. }
            | I64Load32S { .. }
            | I64Load32U { .. }
    )
}

fn scalar_store(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        I32Store { .. }
            | I64Store { .. }
            | F32Store { .. }
            | F64Store { .. }
            | I32Store8 { .. }
            | I32Store16 { .. }
            | I64Store8 { .. }
            | I64Store16 { .. }
            | I64Store32 { .. }
    )
}

fn vector_access(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        V128Load { .. }
            | V128Load8x8S { .. }
            | V128Load8x8U { .. }
            | V128Load16x4S { .. }
            | V128Load16x4U { .. }
            | V128Load32x2S { .. }
            | V128Load32x2U { .. }
            | V128Load8Splat { .. }
            | V128Load16Splat { .. }
            | V128Load32Splat { .. }
            | V128Load64Splat { .. }
            | V128Load32Zero { .. }
            | V128Load64Zero { .. }
            | V128Load8Lane { .. }
            | V128Load16Lane { .. }
            | V128Load32Lane { .. }
            | V128Load64Lane { .. }
            | V128Store { .. }
            | V128Store8Lane { .. }
            | V128Store16Lane { .. }
            | V128Store32Lane { .. }
            | V128Store64Lane { .. }
    )
}

/// Float to integer, trapping or saturating. (Saturating ones alone weigh 3 towards complexity: the
/// trapping ones are matched before.)
fn truncates_float(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        I32TruncF32S
            | I32TruncF32U
            | I32TruncF64S
            | I32TruncF64U
            | I64TruncF32S
            | I64TruncF32U
            | I64TruncF64S
            | I64TruncF64U
            | I32TruncSatF32S
            | I32TruncSatF32U
            | I32TruncSatF64S
            | I32TruncSatF64U
            | I64TruncSatF32S
            | I64TruncSatF32U
            | I64TruncSatF64S
            | I64TruncSatF64U
    )
}

/// Scalar comparisons, tests for zero included.
fn compares(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        I32Eqz
            | I32Eq
            | I32Ne
            | I32LtS
            | I32LtU
            | I32GtS
            | I32GtU
            | I32LeS
            | I32LeU
            | I32GeS
            | I32GeU
            | I64Eqz
            | I64Eq
            | I64Ne
            | I64LtS
            | I64LtU
            | I64GtS
            | I64GtU
            | I64LeS
            | I64LeU
            | I64GeS
            | I64GeU
            | F32Eq
            | F32Ne
            | F32Lt
            | F32Gt
            | F32Le
            | F32Ge
            | F64Eq
            | F64Ne
            | F64Lt
            | F64Gt
            | F64Le
            | F64Ge
    )
}
