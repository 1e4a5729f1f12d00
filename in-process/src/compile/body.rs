//! Rewriting one function body: instruction counter and write barrier.
//!
//! Counter (`canister-execution.md` section 3.1): each block's total is subtracted where the block is
//! entered; "below zero?" is tested at function entry, at loop headers, before bulk operations and after calls of
//! the System API.
//! Barrier: after a store, the dirty map's bytes for the pages of its first and last byte are read; unless
//! both are set, a function is called that sets them and lists the pages. Bulk operations call it with their
//! range. The store comes first: one that traps writes nothing.

use std::vec;

use execution::InvalidModule;
use wasm_encoder::reencode::Reencode;
use wasm_encoder::{BlockType, Encode, Function, Instruction, MemArg, ValType};
use wasmparser::{FunctionBody, Operator, OperatorsReader};

use super::{cost, invalid};
use crate::dirty;

/// Log2 of the bytes that one byte of the dirty map stands for.
const DIRTY_PAGE_BITS: u32 = 12;
/// Index of the dirty map's memory.
pub(super) const DIRTY_MEMORY: u32 = 1;

/// Larger size operands are charged as this: it exceeds all limits, and no counter wraps by it.
const SIZE_CHARGE_MAX: i64 = 1 << 62;

/// Indices of what instrumentation adds to a module.
#[derive(Clone, Copy)]
pub(super) struct Additions {
    /// Function `__.out_of_instructions`, imported after all others.
    pub(super) out_of_instructions: u32,
    /// Local function that charges a size operand; only beside a heap.
    pub(super) charge_size: u32,
    /// Local function that marks a range of the heap; only beside a heap.
    pub(super) mark_range: u32,
    /// Local functions that mark a store of 1, 2, 4, 8 and 16 bytes; only beside a heap.
    pub(super) mark_store: u32,
    /// Global with the instructions left.
    pub(super) counter: u32,
    /// Whether the heap is 64-bit.
    pub(super) memory64: bool,
    /// Largest heap, 64 KiB pages: where things lie in the dirty map.
    pub(super) heap_pages_max: u64,
}

/// Moves function indices past the added import.
pub(super) struct Shift {
    /// Index of the added import.
    pub(super) import: u32,
}

impl Shift {
    /// Index of a function of the module in the instrumented one.
    pub(super) fn function(&self, function: u32) -> u32 {
        if function < self.import { function } else { function + 1 }
    }
}

impl Reencode for Shift {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, wasm_encoder::reencode::Error> {
        Ok(self.function(function))
    }
}

/// A rewritten body, its number of instructions, and of locals with the parameters.
pub(super) struct Body {
    pub(super) function: Function,
    pub(super) instructions: u64,
    pub(super) locals: usize,
}

/// Rewrites `body`, a function with `params` parameters.
pub(super) fn rewrite(
    body: &FunctionBody<'_>,
    params: usize,
    additions: Additions,
) -> Result<Body, InvalidModule> {
    let malformed = |error: wasmparser::Error| invalid(format!("code section: {error}"));
    let mut locals = declared_locals(body)?;
    let count = params as u64 + locals.iter().map(|(count, _)| u64::from(*count)).sum::<u64>();
    let count = u32::try_from(count).map_err(|_| invalid("code section: too many locals"))?;
    let totals = block_totals(body.get_operators_reader().map_err(malformed)?, additions.memory64)
        .map_err(malformed)?;

    let mut writer = Writer {
        additions,
        shift: Shift { import: additions.out_of_instructions },
        totals: totals.into_iter(),
        scratch: Scratch { first: count, types: Vec::new() },
        code: Vec::with_capacity(body.as_bytes().len() * 2),
        instructions: 0,
    };
    writer.enter_block(Test::Yes);
    let mut reader = body.get_operators_reader().map_err(malformed)?;
    while !reader.eof() {
        writer.operator(reader.read().map_err(malformed)?)?;
    }
    locals.extend(writer.scratch.types.iter().map(|ty| (1, *ty)));
    let mut function = Function::new(locals);
    function.raw(writer.code);
    let locals = count as usize + writer.scratch.types.len();
    Ok(Body { function, instructions: writer.instructions, locals })
}

/// The code that subtracts a constant from the counter.
fn subtract(counter: u32, amount: i64) -> [Instruction<'static>; 4] {
    use Instruction as I;
    [I::GlobalGet(counter), I::I64Const(amount), I::I64Sub, I::GlobalSet(counter)]
}

/// The code that tests the counter.
fn test(additions: Additions) -> [Instruction<'static>; 6] {
    use Instruction as I;
    [
        I::GlobalGet(additions.counter),
        I::I64Const(0),
        I::I64LtS,
        I::If(BlockType::Empty),
        I::Call(additions.out_of_instructions),
        I::End,
    ]
}

impl Body {
    fn added(locals: &[(u32, ValType)], code: &[Instruction<'_>], instructions: u64) -> Self {
        let mut function = Function::new(locals.iter().copied());
        for instruction in code {
            function.instruction(instruction);
        }
        Self { function, instructions, locals: locals.len() }
    }

    /// `charge_size(size: i64)`: subtracts an unsigned size from the counter and tests it.
    pub(super) fn charge_size(additions: Additions) -> Self {
        use Instruction as I;
        let counter = additions.counter;
        let mut code = vec![I::GlobalGet(counter), I::LocalGet(0), I::I64Const(SIZE_CHARGE_MAX)];
        code.extend([I::LocalGet(0), I::I64Const(SIZE_CHARGE_MAX), I::I64LtU, I::Select]);
        code.extend([I::I64Sub, I::GlobalSet(counter)]);
        code.extend(test(additions));
        code.push(I::End);
        let instructions = code.len() as u64;
        Self::added(&[], &code, instructions)
    }

    /// `mark_store_N(address: pointer)`: marks `bytes` bytes from `address` on.
    pub(super) fn mark_store(additions: Additions, bytes: i64) -> Self {
        use Instruction as I;
        let widen = (!additions.memory64).then_some(I::I64ExtendI32U);
        let code: Vec<_> = [I::LocalGet(0)]
            .into_iter()
            .chain(widen)
            .chain([I::I64Const(bytes), I::Call(additions.mark_range), I::End])
            .collect();
        Self::added(&[], &code, 0)
    }

    /// `mark_range(start: i64, length: i64)`: sets the dirty bytes of all pages in the range, and lists those
    /// that were not set. Not counted: it belongs to the barrier.
    pub(super) fn mark_range(additions: Additions) -> Self {
        use Instruction as I;
        let [start, length, page, last, count] = [0, 1, 2, 3, 4];
        let offset = |bytes: u64| u32::try_from(bytes).expect("a map of at most 2^21 pages").cast_signed();
        let count_at = offset(dirty::count_offset(additions.heap_pages_max));
        let to_page = [I::I64Const(i64::from(DIRTY_PAGE_BITS)), I::I64ShrU, I::I32WrapI64];

        let mut code = vec![I::LocalGet(length), I::I64Eqz, I::If(BlockType::Empty), I::Return, I::End];
        code.push(I::LocalGet(start));
        code.extend(to_page.clone());
        code.push(I::LocalSet(page));
        code.extend([I::LocalGet(start), I::LocalGet(length), I::I64Add, I::I64Const(1), I::I64Sub]);
        code.extend(to_page);
        code.push(I::LocalSet(last));
        code.extend([I::Loop(BlockType::Empty), I::LocalGet(page), I::I32Load8U(dirty_map(0)), I::I32Eqz]);
        code.extend([I::If(BlockType::Empty), I::LocalGet(page), I::I32Const(1), I::I32Store8(dirty_map(0))]);
        // list[count] = page
        code.extend([I::I32Const(count_at), I::I32Load(dirty_map(0)), I::LocalTee(count)]);
        code.extend([I::I32Const(2), I::I32Shl, I::LocalGet(page)]);
        code.push(I::I32Store(dirty_map(dirty::list_offset(additions.heap_pages_max))));
        // count += 1
        code.extend([I::I32Const(count_at), I::LocalGet(count), I::I32Const(1), I::I32Add]);
        code.extend([I::I32Store(dirty_map(0)), I::End]);
        code.extend([I::LocalGet(page), I::LocalGet(last), I::I32Ne, I::If(BlockType::Empty)]);
        code.extend([I::LocalGet(page), I::I32Const(1), I::I32Add, I::LocalSet(page), I::Br(1), I::End]);
        code.extend([I::End, I::End]);
        Self::added(&[(3, ValType::I32)], &code, 0)
    }
}

/// Bytes of the stores that there are.
pub(super) const STORE_BYTES: [i64; 5] = [1, 2, 4, 8, 16];

/// An access to the dirty map.
fn dirty_map(offset: u64) -> MemArg {
    MemArg { offset, align: 0, memory_index: DIRTY_MEMORY }
}

fn declared_locals(body: &FunctionBody<'_>) -> Result<Vec<(u32, ValType)>, InvalidModule> {
    let mut locals = Vec::new();
    for group in body.get_locals_reader().map_err(|error| invalid(format!("code section: {error}")))? {
        let (count, ty) = group.map_err(|error| invalid(format!("code section: {error}")))?;
        let ty = ValType::try_from(ty).map_err(|error| invalid(format!("code section: {error}")))?;
        locals.push((count, ty));
    }
    Ok(locals)
}

/// Whether a block's entry tests the counter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Test {
    Yes,
    No,
}

/// Whether a block starts after `operator`, and how.
fn block_after(operator: &Operator<'_>) -> Option<Test> {
    match operator {
        Operator::Loop { .. } => Some(Test::Yes),
        Operator::If { .. }
        | Operator::Else
        | Operator::End
        | Operator::Br { .. }
        | Operator::BrIf { .. }
        | Operator::BrTable { .. }
        | Operator::Return
        | Operator::Unreachable
        | Operator::ReturnCall { .. }
        | Operator::ReturnCallIndirect { .. } => Some(Test::No),
        _ => None,
    }
}

/// The total of each block in the order in which they start. The first holds 1 for the function.
fn block_totals(mut reader: OperatorsReader<'_>, memory64: bool) -> Result<Vec<u64>, wasmparser::Error> {
    let mut totals = Vec::new();
    let mut total = 1;
    while !reader.eof() {
        let operator = reader.read()?;
        total += cost::instructions(&operator, memory64);
        if block_after(&operator).is_some() {
            totals.push(std::mem::take(&mut total));
        }
    }
    Ok(totals)
}

/// Locals for operands, one for each type and slot, made when first used.
struct Scratch {
    first: u32,
    types: Vec<ValType>,
}

impl Scratch {
    /// The `slot`th local of type `ty`.
    fn local(&mut self, ty: ValType, slot: usize) -> u32 {
        loop {
            // At most three slots for each of five types.
            let mut known = (self.first..).zip(&self.types).filter(|(_, known)| **known == ty);
            if let Some((local, _)) = known.nth(slot) {
                return local;
            }
            self.types.push(ty);
        }
    }
}

struct Writer {
    additions: Additions,
    shift: Shift,
    totals: vec::IntoIter<u64>,
    scratch: Scratch,
    code: Vec<u8>,
    instructions: u64,
}

impl Writer {
    fn emit(&mut self, instruction: &Instruction<'_>) {
        instruction.encode(&mut self.code);
        self.instructions += 1;
    }

    fn emit_all(&mut self, code: &[Instruction<'_>]) {
        for instruction in code {
            self.emit(instruction);
        }
    }

    fn operator(&mut self, operator: Operator<'_>) -> Result<(), InvalidModule> {
        let block = block_after(&operator);
        let store = Store::of(&operator);
        let bulk = Bulk::of(&operator);
        let system_call = matches!(
            operator,
            Operator::Call { function_index } if function_index < self.additions.out_of_instructions
        );
        let instruction =
            self.shift.instruction(operator).map_err(|error| invalid(format!("code section: {error}")))?;
        match (store, bulk) {
            (Some(store), _) => self.store(&store, &instruction),
            (None, Some(bulk)) => self.bulk(bulk, &instruction),
            (None, None) => self.emit(&instruction),
        }
        if system_call {
            // It charges more than the block has paid, and can't pause the guest itself.
            self.emit_barrier(&test(self.additions));
        }
        if let Some(kind) = block {
            self.enter_block(kind);
        }
        Ok(())
    }

    /// Subtracts the total of the block that starts here. None starts after a function's last `end`.
    fn enter_block(&mut self, kind: Test) {
        let Some(total) = self.totals.next() else { return };
        if total > 0 {
            // At most 1,000,000 instructions of 300 each.
            self.emit_all(&subtract(self.additions.counter, total.cast_signed()));
        }
        if kind == Test::Yes {
            self.emit_all(&test(self.additions));
        }
    }

    fn pointer(&self) -> ValType {
        if self.additions.memory64 { ValType::I64 } else { ValType::I32 }
    }

    /// Emits code that is no part of the module's instructions, of the barrier for example: an install is charged
    /// the same whatever tracks its pages.
    fn emit_barrier(&mut self, code: &[Instruction<'_>]) {
        for instruction in code {
            instruction.encode(&mut self.code);
        }
    }

    /// Keeps the address over the store, then sees to it that the pages of the first and the last byte are
    /// marked.
    fn store(&mut self, store: &Store, instruction: &Instruction<'_>) {
        use Instruction as I;
        let address = self.scratch.local(self.pointer(), 0);
        let slot = usize::from(store.value == self.pointer());
        let value = self.scratch.local(store.value, slot);
        self.emit_barrier(&[I::LocalSet(value), I::LocalTee(address), I::LocalGet(value)]);
        self.emit(instruction);
        self.marked(address, store.offset);
        if store.bytes > 1 {
            self.marked(address, store.offset.wrapping_add(store.bytes - 1));
            self.emit_barrier(&[I::I32And]);
        }
        self.emit_barrier(&[I::I32Eqz, I::If(BlockType::Empty)]);
        self.address(address, store.offset);
        let mark = self.additions.mark_store + store.bytes.trailing_zeros();
        self.emit_barrier(&[I::Call(mark), I::End]);
    }

    /// Pushes `address + offset`, which is in bounds after the store; it can't wrap.
    fn address(&mut self, address: u32, offset: u64) {
        use Instruction as I;
        self.emit_barrier(&[I::LocalGet(address)]);
        if offset > 0 {
            // 32-bit addresses are computed modulo 2^32; an offset beyond has trapped before.
            let offset = if self.additions.memory64 {
                [I::I64Const(offset.cast_signed()), I::I64Add]
            } else {
                [I::I32Const((offset as u32).cast_signed()), I::I32Add]
            };
            self.emit_barrier(&offset);
        }
    }

    /// Pushes the dirty byte of the page of `address + offset`.
    fn marked(&mut self, address: u32, offset: u64) {
        use Instruction as I;
        self.address(address, offset);
        if self.additions.memory64 {
            self.emit_barrier(&[I::I64Const(i64::from(DIRTY_PAGE_BITS)), I::I64ShrU, I::I32WrapI64]);
        } else {
            self.emit_barrier(&[I::I32Const(DIRTY_PAGE_BITS.cast_signed()), I::I32ShrU]);
        }
        self.emit_barrier(&[I::I32Load8U(dirty_map(0))]);
    }

    /// Charges the size operand, tests the counter, runs the operation, marks what it wrote.
    fn bulk(&mut self, bulk: Bulk, instruction: &Instruction<'_>) {
        let pointer = self.pointer();
        let [second_type, size_type] = match bulk {
            Bulk::Fill => [ValType::I32, pointer],
            Bulk::Copy => [pointer, pointer],
            Bulk::Init => [ValType::I32, ValType::I32],
        };
        let destination = self.scratch.local(pointer, 0);
        let size = self.scratch.local(size_type, 1);
        let second = self.scratch.local(second_type, 2);
        let kept = [size, second, destination].map(Instruction::LocalSet);
        self.emit_barrier(&kept);
        self.widened(size, size_type);
        self.emit(&Instruction::Call(self.additions.charge_size));
        let operands = [destination, second, size].map(Instruction::LocalGet);
        self.emit_barrier(&operands);
        self.emit(instruction);
        self.widened(destination, pointer);
        self.widened(size, size_type);
        self.emit_barrier(&[Instruction::Call(self.additions.mark_range)]);
    }

    /// Pushes an unsigned operand as `i64`.
    fn widened(&mut self, local: u32, ty: ValType) {
        self.emit_barrier(&[Instruction::LocalGet(local)]);
        if ty == ValType::I32 {
            self.emit_barrier(&[Instruction::I64ExtendI32U]);
        }
    }
}

/// An instruction that writes a value at an address.
struct Store {
    offset: u64,
    bytes: u64,
    value: ValType,
}

impl Store {
    fn of(operator: &Operator<'_>) -> Option<Self> {
        use Operator as O;
        let (memarg, bytes, value) = match operator {
            O::I32Store { memarg } => (memarg, 4, ValType::I32),
            O::I32Store8 { memarg } => (memarg, 1, ValType::I32),
            O::I32Store16 { memarg } => (memarg, 2, ValType::I32),
            O::I64Store { memarg } => (memarg, 8, ValType::I64),
            O::I64Store8 { memarg } => (memarg, 1, ValType::I64),
            O::I64Store16 { memarg } => (memarg, 2, ValType::I64),
            O::I64Store32 { memarg } => (memarg, 4, ValType::I64),
            O::F32Store { memarg } => (memarg, 4, ValType::F32),
            O::F64Store { memarg } => (memarg, 8, ValType::F64),
            O::V128Store { memarg } => (memarg, 16, ValType::V128),
            O::V128Store8Lane { memarg, .. } => (memarg, 1, ValType::V128),
            O::V128Store16Lane { memarg, .. } => (memarg, 2, ValType::V128),
            O::V128Store32Lane { memarg, .. } => (memarg, 4, ValType::V128),
            O::V128Store64Lane { memarg, .. } => (memarg, 8, ValType::V128),
            _ => return None,
        };
        Some(Self { offset: memarg.offset, bytes, value })
    }
}

/// An instruction that writes a range; its size is the last of three operands.
#[derive(Clone, Copy)]
enum Bulk {
    /// Destination, byte, size.
    Fill,
    /// Destination, source, size.
    Copy,
    /// Destination, source in the segment, size.
    Init,
}

impl Bulk {
    fn of(operator: &Operator<'_>) -> Option<Self> {
        match operator {
            Operator::MemoryFill { .. } => Some(Self::Fill),
            Operator::MemoryCopy { .. } => Some(Self::Copy),
            Operator::MemoryInit { .. } => Some(Self::Init),
            _ => None,
        }
    }
}
