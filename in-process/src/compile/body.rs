//! Rewriting one function body: instruction counter (`counter.rs`) and write barrier.
//!
//! Barrier (`docs/decisions/0004`, `0014`): after a store, the dirty map's bytes for the pages of its first and last byte
//! are read; unless both are set, they are set and the pages listed. The first of a run of stores does so for all of
//! them (`stores.rs`). A store that says that it is aligned reads one byte and looks at its address instead: it has to
//! say so, and nearly all do. Bulk operations call a function with their range. The store comes first: one that traps
//! writes nothing.

use std::vec;

use execution::InvalidModule;
use wasm_encoder::reencode::Reencode;
use wasm_encoder::{BlockType, Encode, Function, Instruction, MemArg, ValType};
use wasmparser::{FunctionBody, Operator, OperatorsReader};

use super::counter::{self, Counter};
use super::imports::{Imports, Paid, Payer};
use super::stores::{Mark, Stores};
use super::{cost, invalid};
use crate::bookkeeping;

/// Log2 of the bytes that one byte of the dirty map stands for.
const DIRTY_PAGE_BITS: u32 = 12;

/// Indices of what instrumentation adds to a module.
#[derive(Clone, Copy)]
pub(super) struct Additions {
    /// Function `__.out_of_instructions`, imported after all others.
    pub(super) out_of_instructions: u32,
    /// Local function that charges a size operand; only beside a heap.
    pub(super) charge_size: u32,
    /// Local function that marks a range of the heap; only beside a heap.
    pub(super) mark_range: u32,
    /// Memory of [`crate::bookkeeping`].
    pub(super) bookkeeping: u32,
    /// Whether the heap is 64-bit.
    pub(super) memory64: bool,
    /// Largest heap, 64 KiB pages: where things lie in the bookkeeping.
    pub(super) heap_pages_max: u64,
}

/// What instrumentation makes of function indices: they move past the added import, and where somebody else than this
/// module may call, a function whose price the caller pays is replaced by one that pays it.
pub(super) struct Shift<'a> {
    imports: &'a Imports,
}

impl<'a> Shift<'a> {
    pub(super) fn new(imports: &'a Imports) -> Self {
        Self { imports }
    }

    /// The function to call for `function` of the module.
    fn called(&self, function: u32) -> u32 {
        if function < self.imports.count() { function } else { function + 1 }
    }

    /// The function to refer to for `function` of the module: in exports, tables and values.
    pub(super) fn function(&self, function: u32) -> u32 {
        self.imports.payer(function).unwrap_or_else(|| self.called(function))
    }
}

impl Reencode for Shift<'_> {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, wasm_encoder::reencode::Error> {
        Ok(self.function(function))
    }
}

/// Code of a function, as it is written.
#[derive(Default)]
pub(super) struct Code {
    bytes: Vec<u8>,
    /// Where instructions `if` lie that are hardly ever taken.
    unlikely: Vec<usize>,
}

impl Code {
    pub(super) fn emit(&mut self, instruction: &Instruction<'_>) {
        instruction.encode(&mut self.bytes);
    }

    pub(super) fn emit_all(&mut self, instructions: &[Instruction<'_>]) {
        for instruction in instructions {
            self.emit(instruction);
        }
    }

    /// Opens an `if` whose code is kept out of the way.
    pub(super) fn unlikely_if(&mut self) {
        self.unlikely.push(self.bytes.len());
        self.emit(&Instruction::If(BlockType::Empty));
    }
}

/// A rewritten body, its number of instructions, and of locals with the parameters.
pub(super) struct Body {
    pub(super) function: Function,
    /// Where instructions `if` lie that are hardly ever taken, bytes from the start of the body, ascending.
    pub(super) unlikely: Vec<usize>,
    pub(super) instructions: u64,
    pub(super) locals: usize,
}

/// Stores that a module may mark in place, and a function: code that does takes a multiple of the room.
const IN_PLACE_MAX: usize = 250_000;
const IN_PLACE_FUNCTION_MAX: usize = 2_000;

/// Room that a module has for stores that mark in place.
pub(super) struct Room(usize);

impl Room {
    /// Of a module.
    pub(super) fn new() -> Self {
        Self(IN_PLACE_MAX)
    }

    /// Takes room for the stores of a function; whether there was as much.
    fn take(&mut self, stores: usize) -> bool {
        let left = self.0.checked_sub(stores).filter(|_| stores <= IN_PLACE_FUNCTION_MAX);
        left.map(|left| self.0 = left).is_some()
    }
}

/// Rewrites `body`, a function with `params` parameters.
pub(super) fn rewrite(
    body: &FunctionBody<'_>,
    params: usize,
    additions: Additions,
    imports: &Imports,
    room: &mut Room,
) -> Result<Body, InvalidModule> {
    let malformed = |error: wasmparser::Error| invalid(format!("code section: {error}"));
    let mut locals = declared_locals(body)?;
    let count = params as u64 + locals.iter().map(|(count, _)| u64::from(*count)).sum::<u64>();
    let count = u32::try_from(count).map_err(|_| invalid("code section: too many locals"))?;
    let Outline { totals, last, marks } =
        outline(body.get_operators_reader().map_err(malformed)?, additions.memory64).map_err(malformed)?;

    let marking = marks.iter().filter(|mark| **mark != Mark::Earlier).count();
    let in_place = room.take(marking);

    let mut writer = Writer {
        additions,
        shift: Shift::new(imports),
        totals: totals.into_iter(),
        marks: marks.into_iter(),
        in_place,
        counter: Counter::new(additions, count, last),
        scratch: Scratch { first: count + 1, types: Vec::new() },
        code: Code { bytes: Vec::with_capacity(body.as_bytes().len() * 2), unlikely: Vec::new() },
        instructions: 0,
    };
    writer.enter_block(Test::Yes);
    let mut reader = body.get_operators_reader().map_err(malformed)?;
    while !reader.eof() {
        writer.operator(reader.read().map_err(malformed)?)?;
    }
    locals.push((1, ValType::I64));
    locals.extend(writer.scratch.types.iter().map(|ty| (1, *ty)));
    Ok(Body::new(params, locals, writer.code, writer.instructions))
}

impl Body {
    fn new(params: usize, locals: Vec<(u32, ValType)>, code: Code, instructions: u64) -> Self {
        let count = params + locals.iter().map(|(count, _)| *count as usize).sum::<usize>();
        let mut function = Function::new(locals);
        let start = function.byte_len();
        function.raw(code.bytes);
        let unlikely = code.unlikely.iter().map(|at| start + at).collect();
        Self { function, unlikely, instructions, locals: count }
    }

    /// A function of instrumentation's own with `params` parameters.
    fn added(params: usize, locals: &[(u32, ValType)], code: &[Instruction<'_>], instructions: u64) -> Self {
        let mut written = Code::default();
        written.emit_all(code);
        Self::new(params, locals.to_vec(), written, instructions)
    }

    /// The function that stands for an imported one, of `params` parameters as that has.
    pub(super) fn payer(additions: Additions, payer: Payer, params: usize) -> Self {
        use Instruction as I;
        let mut code = Code::default();
        let count = u32::try_from(params).expect("a function of the System API has a few");
        Counter::new(additions, count, Vec::new()).pay(payer.price, &mut code);
        (0..count).for_each(|param| code.emit(&I::LocalGet(param)));
        code.emit_all(&[I::Call(payer.function), I::End]);
        Self::new(params, vec![(1, ValType::I64)], code, 0)
    }

    /// Function `charge_size`.
    pub(super) fn charge_size(additions: Additions) -> Self {
        let code = counter::charge_size(additions);
        Self::added(1, &[(1, ValType::I64)], &code, counter::CHARGE_SIZE_INSTRUCTIONS)
    }

    /// `mark_range(start: i64, length: i64)`: sets the dirty bytes of all pages in the range, and lists those
    /// that were not set. Not counted: it belongs to the barrier.
    pub(super) fn mark_range(additions: Additions) -> Self {
        use Instruction as I;
        let [start, length, page, last, count] = [0, 1, 2, 3, 4];
        let memory = additions.bookkeeping;
        let mark = access(memory, bookkeeping::MARKS_OFFSET);
        let written = access(memory, bookkeeping::COUNT_OFFSET);
        let listed = access(memory, bookkeeping::list_offset(additions.heap_pages_max));
        let to_page = [I::I64Const(i64::from(DIRTY_PAGE_BITS)), I::I64ShrU, I::I32WrapI64];

        let mut code = vec![I::LocalGet(length), I::I64Eqz, I::If(BlockType::Empty), I::Return, I::End];
        code.push(I::LocalGet(start));
        code.extend(to_page.clone());
        code.push(I::LocalSet(page));
        code.extend([I::LocalGet(start), I::LocalGet(length), I::I64Add, I::I64Const(1), I::I64Sub]);
        code.extend(to_page);
        code.push(I::LocalSet(last));
        code.extend([I::Loop(BlockType::Empty), I::LocalGet(page), I::I32Load8U(mark), I::I32Eqz]);
        code.extend([I::If(BlockType::Empty), I::LocalGet(page), I::I32Const(1), I::I32Store8(mark)]);
        // list[count] = page
        code.extend([I::I32Const(0), I::I32Load(written), I::LocalTee(count)]);
        code.extend([I::I32Const(2), I::I32Shl, I::LocalGet(page), I::I32Store(listed)]);
        // count += 1
        code.extend([I::I32Const(0), I::LocalGet(count), I::I32Const(1), I::I32Add]);
        code.extend([I::I32Store(written), I::End]);
        code.extend([I::LocalGet(page), I::LocalGet(last), I::I32Ne, I::If(BlockType::Empty)]);
        code.extend([I::LocalGet(page), I::I32Const(1), I::I32Add, I::LocalSet(page), I::Br(1), I::End]);
        code.extend([I::End, I::End]);
        Self::added(2, &[(3, ValType::I32)], &code, 0)
    }
}

/// An access to a memory, of any alignment.
fn access(memory_index: u32, offset: u64) -> MemArg {
    MemArg { offset, align: 0, memory_index }
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
pub(super) enum Test {
    Yes,
    No,
}

/// Whether a block starts after `operator`, and how.
pub(super) fn block_after(operator: &Operator<'_>) -> Option<Test> {
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

/// What has to be known of a function before it is rewritten.
struct Outline {
    /// The total of each block in the order in which they start. The first holds 1 for the function.
    totals: Vec<u64>,
    /// Of each label, as they are opened: whether nothing comes between its end and the function's.
    last: Vec<bool>,
    /// What is marked at each store.
    marks: Vec<Mark>,
}

fn outline(mut reader: OperatorsReader<'_>, memory64: bool) -> Result<Outline, wasmparser::Error> {
    let (mut totals, mut last) = (Vec::new(), Vec::new());
    let mut total = 1;
    let (mut open, mut just_ended) = (Vec::new(), Vec::new());
    let mut stores = Stores::default();
    while !reader.eof() {
        let operator = reader.read()?;
        total += cost::instructions(&operator, memory64);
        stores.operator(&operator);
        if block_after(&operator).is_some() {
            totals.push(std::mem::take(&mut total));
        }
        match operator {
            Operator::End => just_ended.extend(open.pop()),
            _ => just_ended.clear(),
        }
        if let Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } = operator {
            open.push(last.len());
            last.push(false);
        }
    }
    for label in just_ended {
        last[label] = true;
    }
    Ok(Outline { totals, last, marks: stores.marks() })
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

struct Writer<'a> {
    additions: Additions,
    shift: Shift<'a>,
    totals: vec::IntoIter<u64>,
    marks: vec::IntoIter<Mark>,
    /// Whether stores mark in place, and not by a call.
    in_place: bool,
    counter: Counter,
    scratch: Scratch,
    code: Code,
    instructions: u64,
}

impl Writer<'_> {
    fn emit(&mut self, instruction: &Instruction<'_>) {
        self.code.emit(instruction);
        self.instructions += 1;
    }

    fn operator(&mut self, operator: Operator<'_>) -> Result<(), InvalidModule> {
        let block = block_after(&operator);
        let store = Store::of(&operator);
        let bulk = Bulk::of(&operator);
        let paid = match operator {
            Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                self.shift.imports.paid(function_index)
            }
            _ => None,
        };
        let charges = matches!((&operator, paid), (Operator::Call { .. }, Some(Paid::ByCallee)));
        if let Some(Paid::ByCaller(price)) = paid {
            self.counter.pay(price, &mut self.code);
        }
        self.counter.before(&operator, &mut self.code);
        self.counter.after(&operator, paid);
        let instruction = match operator {
            Operator::Call { function_index } => Instruction::Call(self.shift.called(function_index)),
            Operator::ReturnCall { function_index } => {
                Instruction::ReturnCall(self.shift.called(function_index))
            }
            operator => {
                self.shift.instruction(operator).map_err(|error| invalid(format!("code section: {error}")))?
            }
        };
        match (store, bulk) {
            (Some(store), _) => self.store(&store, &instruction),
            (None, Some(bulk)) => self.bulk(bulk, &instruction),
            (None, None) => self.emit(&instruction),
        }
        if charges {
            // It has taken more than the block has paid, and can't pause the guest itself.
            self.counter.test(&mut self.code);
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
            self.counter.subtract(total, &mut self.code);
            self.instructions += counter::SUBTRACTION_INSTRUCTIONS;
        }
        if kind == Test::Yes {
            self.counter.test(&mut self.code);
            self.instructions += counter::TEST_INSTRUCTIONS;
        }
    }

    fn pointer(&self) -> ValType {
        if self.additions.memory64 { ValType::I64 } else { ValType::I32 }
    }

    /// Emits code that is no part of the module's instructions, of the barrier for example: an install is charged
    /// the same whatever tracks its pages.
    fn emit_barrier(&mut self, code: &[Instruction<'_>]) {
        self.code.emit_all(code);
    }

    /// Keeps the address over the store, then sees to it that the pages of the first and the last byte are
    /// marked: of what it writes, or of what the stores behind it write too.
    fn store(&mut self, store: &Store, instruction: &Instruction<'_>) {
        use Instruction as I;
        let (first, last) = match self.marks.next().expect("the outline has met the same stores") {
            Mark::Earlier => return self.emit(instruction),
            Mark::Run { first, last } => (first, last),
        };
        let address = self.scratch.local(self.pointer(), 0);
        let slot = usize::from(store.value == self.pointer());
        let value = self.scratch.local(store.value, slot);
        self.emit_barrier(&[I::LocalSet(value), I::LocalTee(address), I::LocalGet(value)]);
        self.emit(instruction);
        self.marked(address, first);
        if store.aligned && last == store.last() && first == store.offset {
            // Where it is, as it says, at a multiple of its size, it lies in one page, whose byte is above 0.
            self.address(address, first);
            let narrow = self.additions.memory64.then_some(I::I32WrapI64);
            self.emit_barrier(narrow.as_slice());
            self.emit_barrier(&[I::I32Const(store.bytes as i32 - 1), I::I32And, I::I32LeU]);
        } else {
            self.marked(address, last);
            self.emit_barrier(&[I::I32And, I::I32Eqz]);
        }
        self.code.unlikely_if();
        if self.in_place {
            self.mark(address, first, last);
        } else {
            self.address(address, first);
            let widen = (!self.additions.memory64).then_some(I::I64ExtendI32U);
            self.emit_barrier(widen.as_slice());
            let length = last.wrapping_sub(first).wrapping_add(1).cast_signed();
            self.emit_barrier(&[I::I64Const(length), I::Call(self.additions.mark_range)]);
        }
        self.emit_barrier(&[I::End]);
    }

    /// Marks the pages of `address + first` and `address + last`, and lists those that were not. In place, and not by a
    /// function: a call would cost the code around it the registers that no callee keeps, also where it is never made.
    fn mark(&mut self, address: u32, first: u64, last: u64) {
        use Instruction as I;
        // The value has been stored; its local may be this one.
        let page = self.scratch.local(ValType::I32, 1);
        let count = self.scratch.local(ValType::I32, 2);
        let memory = self.additions.bookkeeping;
        let mark = access(memory, bookkeeping::MARKS_OFFSET);
        let written = access(memory, bookkeeping::COUNT_OFFSET);
        let listed = access(memory, bookkeeping::list_offset(self.additions.heap_pages_max));
        self.emit_barrier(&[I::I32Const(0), I::I32Load(written), I::LocalSet(count)]);
        for offset in [first].into_iter().chain((last > first).then_some(last)) {
            self.page(address, offset);
            self.emit_barrier(&[I::LocalSet(page)]);
            // list[count] = page: it stays if the page was not marked.
            self.emit_barrier(&[I::LocalGet(count), I::I32Const(2), I::I32Shl]);
            self.emit_barrier(&[I::LocalGet(page), I::I32Store(listed)]);
            self.emit_barrier(&[I::LocalGet(count), I::LocalGet(page), I::I32Load8U(mark), I::I32Eqz]);
            self.emit_barrier(&[I::I32Add, I::LocalSet(count)]);
            self.emit_barrier(&[I::LocalGet(page), I::I32Const(1), I::I32Store8(mark)]);
        }
        self.emit_barrier(&[I::I32Const(0), I::LocalGet(count), I::I32Store(written)]);
    }

    /// Pushes `address + offset`. Of a store's own bytes it is in bounds after the store. The last byte of a run is less
    /// than a page from those, so it may be in the page behind the heap, or, where 32-bit addresses end with the heap, in
    /// page 0: then a store of the run traps.
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

    /// Pushes the page of `address + offset`.
    fn page(&mut self, address: u32, offset: u64) {
        use Instruction as I;
        self.address(address, offset);
        if self.additions.memory64 {
            self.emit_barrier(&[I::I64Const(i64::from(DIRTY_PAGE_BITS)), I::I64ShrU, I::I32WrapI64]);
        } else {
            self.emit_barrier(&[I::I32Const(DIRTY_PAGE_BITS.cast_signed()), I::I32ShrU]);
        }
    }

    /// Pushes the dirty byte of the page of `address + offset`.
    fn marked(&mut self, address: u32, offset: u64) {
        self.page(address, offset);
        let mark = access(self.additions.bookkeeping, bookkeeping::MARKS_OFFSET);
        self.emit_barrier(&[Instruction::I32Load8U(mark)]);
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
        self.counter.charge_size(&mut self.code);
        self.instructions += 1;
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
pub(super) struct Store {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Whether it says that its address is a multiple of its size. It need not be.
    aligned: bool,
    value: ValType,
}

impl Store {
    /// Offset of its last byte. Where it wraps, nothing can be written.
    pub(super) fn last(&self) -> u64 {
        self.offset.wrapping_add(self.bytes - 1)
    }

    pub(super) fn of(operator: &Operator<'_>) -> Option<Self> {
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
        let aligned = 1 << memarg.align == bytes;
        Some(Self { offset: memarg.offset, bytes, aligned, value })
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
