//! Counting instructions inside one function (`canister-execution.md` section 3.1): each block's total is subtracted
//! where the block is entered; "below zero?" is tested at function entry, at loop headers, before bulk operations, and
//! where calls of the System API are paid: before them if the caller pays, else after them.
//!
//! The counter is in memory ([`crate::bookkeeping`]). A function works on a copy in a local, and writes that back
//! only before what could show the counter to somebody: a call, a return, or an instruction that may trap. So the
//! value in memory is exact whenever anybody can look, and a block without any of those costs one subtraction of a
//! register (`docs/decisions/0009`).

use std::vec;

use wasm_encoder::{BlockType, Instruction, MemArg};
use wasmparser::Operator;

use super::body::{Additions, Code};
use super::cost;
use super::imports::Paid;
use crate::bookkeeping::COUNTER_OFFSET;

/// What an install is charged for: instructions that the reference's instrumentation has for a subtraction, for a test
/// and for the function that charges a size. How many there really are is this implementation's affair.
pub(super) const SUBTRACTION_INSTRUCTIONS: u64 = 4;
pub(super) const TEST_INSTRUCTIONS: u64 = 6;
pub(super) const CHARGE_SIZE_INSTRUCTIONS: u64 = 16;

/// Larger size operands are charged as this: it exceeds all limits, and no counter wraps by it.
const SIZE_CHARGE_MAX: i64 = 1 << 62;

/// Where the counter's value is at a point of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// In memory alone: somebody else has had the counter.
    InMemory,
    /// In memory and in the local.
    InBoth,
    /// In the local alone.
    InLocal,
    /// The point is never reached.
    Unreachable,
}

impl Value {
    /// Where it is after either of two ways. Not one in memory alone and the other in the local alone: a label has
    /// the value in one place that is the same for all who go there.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unreachable, value) | (value, Self::Unreachable) => value,
            (Self::InBoth, value) | (value, Self::InBoth) => value,
            (value, _) => value,
        }
    }
}

/// A block, loop or `if` that is open.
struct Label {
    is_loop: bool,
    /// Whether the function ends where it ends: the value has to be in memory there, else in the local.
    is_last: bool,
    /// Where the value is after the `end`, by the branches so far that go there.
    at_end: Value,
    /// Where it is when an `if` goes the other way; `None` once there was an `else`.
    otherwise: Option<Value>,
}

impl Label {
    fn new(is_loop: bool, is_last: bool) -> Self {
        Self { is_loop, is_last, at_end: Value::Unreachable, otherwise: None }
    }
}

/// Emits one function's counter code, in the order of the function's instructions.
pub(super) struct Counter {
    additions: Additions,
    local: u32,
    value: Value,
    /// Open labels, the function's own not among them.
    labels: Vec<Label>,
    /// [`Label::is_last`] of those that are still to come.
    last: vec::IntoIter<bool>,
}

impl Counter {
    /// For a function in which `local` is free, an `i64`. `last` says of each label, as they are opened, whether
    /// nothing comes between its end and the function's.
    pub(super) fn new(additions: Additions, local: u32, last: Vec<bool>) -> Self {
        Self { additions, local, value: Value::InMemory, labels: Vec::new(), last: last.into_iter() }
    }

    /// Subtracts the total of the block that starts here.
    pub(super) fn subtract(&mut self, total: u64, code: &mut Code) {
        use Instruction as I;
        self.read(code);
        // At most 1,000,000 instructions of 300 each.
        let total = I::I64Const(total.cast_signed());
        code.emit_all(&[I::LocalGet(self.local), total, I::I64Sub, I::LocalSet(self.local)]);
        self.set(Value::InLocal);
    }

    /// Pays the price of a function that is called next, and tests the counter, also where the price is 0. Memory has it
    /// then, for the function may look, or trap; and the local, for the function leaves it as it is.
    pub(super) fn pay(&mut self, price: u64, code: &mut Code) {
        self.read(code);
        if price > 0 {
            self.subtract(price, code);
        }
        self.test(code);
        self.write(code);
    }

    /// Tests the counter.
    pub(super) fn test(&mut self, code: &mut Code) {
        use Instruction as I;
        self.read(code);
        code.emit_all(&[I::LocalGet(self.local), I::I64Const(0), I::I64LtS]);
        code.unlikely_if();
        if self.value == Value::InLocal {
            self.store(code);
        }
        code.emit_all(&[I::Call(self.additions.out_of_instructions)]);
        self.load(code);
        code.emit_all(&[I::End]);
    }

    /// Charges a size operand, which is on the stack as an `i64`, and tests the counter.
    pub(super) fn charge_size(&mut self, code: &mut Code) {
        self.write(code);
        code.emit_all(&[Instruction::Call(self.additions.charge_size)]);
        self.set(Value::InMemory);
    }

    /// Comes before each of the function's instructions.
    pub(super) fn before(&mut self, operator: &Operator<'_>, code: &mut Code) {
        use Operator as O;
        match operator {
            O::If { .. } if self.last.as_slice().first() == Some(&true) => self.write(code),
            O::Loop { .. } | O::If { .. } => self.read(code),
            O::Else | O::End => match self.labels.last() {
                Some(label) if !label.is_last => self.read(code),
                _ => self.write(code),
            },
            O::Br { relative_depth } => self.before_branch([*relative_depth], code),
            O::BrIf { relative_depth } => self.before_branch([*relative_depth], code),
            O::BrTable { targets } => {
                // An error has been reported when the operator was read.
                let depths = targets.targets().filter_map(Result::ok).chain([targets.default()]);
                self.before_branch(depths, code);
            }
            operator if shows_counter(operator) => self.write(code),
            _ => {}
        }
    }

    /// Comes after each of the function's instructions. `paid`: who pays for the imported function that it calls.
    pub(super) fn after(&mut self, operator: &Operator<'_>, paid: Option<Paid>) {
        use Operator as O;
        match operator {
            O::Block { .. } => self.open(false),
            O::Loop { .. } => {
                self.open(true);
                // Later turns come from branches that are not known yet.
                self.set(Value::InLocal);
            }
            O::If { .. } => {
                self.open(false);
                if let Some(label) = self.labels.last_mut() {
                    label.otherwise = Some(self.value);
                }
            }
            O::Else => {
                if let Some(label) = self.labels.last_mut() {
                    label.at_end = label.at_end.or(self.value);
                    self.value = label.otherwise.take().unwrap_or(self.value);
                }
            }
            O::End => {
                if let Some(label) = self.labels.pop() {
                    let otherwise = label.otherwise.unwrap_or(Value::Unreachable);
                    self.value = self.value.or(label.at_end).or(otherwise);
                }
            }
            O::Br { .. } | O::BrTable { .. } | O::Return | O::Unreachable => self.value = Value::Unreachable,
            O::ReturnCall { .. } | O::ReturnCallIndirect { .. } => self.value = Value::Unreachable,
            O::Call { .. } if matches!(paid, Some(Paid::ByCaller(_))) => {}
            O::Call { .. } | O::CallIndirect { .. } => self.set(Value::InMemory),
            _ => {}
        }
    }

    fn open(&mut self, is_loop: bool) {
        let is_last = self.last.next().unwrap_or(false);
        self.labels.push(Label::new(is_loop, is_last));
    }

    /// Puts the value where a branch may need it. Where it goes on if it doesn't branch, the local has it.
    fn before_branch(&mut self, depths: impl IntoIterator<Item = u32>, code: &mut Code) {
        self.read(code);
        for depth in depths {
            let depth = depth as usize;
            if self.labels.iter().nth_back(depth).is_none_or(|label| label.is_last && !label.is_loop) {
                self.write(code);
            }
            if let Some(label) = self.labels.iter_mut().nth_back(depth).filter(|label| !label.is_loop) {
                label.at_end = label.at_end.or(self.value);
            }
        }
    }

    fn set(&mut self, value: Value) {
        if self.value != Value::Unreachable {
            self.value = value;
        }
    }

    /// Sees to it that the local has the value.
    fn read(&mut self, code: &mut Code) {
        if self.value == Value::InMemory {
            self.load(code);
            self.value = Value::InBoth;
        }
    }

    /// Sees to it that memory has the value.
    fn write(&mut self, code: &mut Code) {
        if self.value == Value::InLocal {
            self.store(code);
            self.value = Value::InBoth;
        }
    }

    fn load(&self, code: &mut Code) {
        code.emit_all(&load(self.additions));
        code.emit_all(&[Instruction::LocalSet(self.local)]);
    }

    fn store(&self, code: &mut Code) {
        use Instruction as I;
        code.emit_all(&[I::I32Const(0), I::LocalGet(self.local), I::I64Store(place(self.additions))]);
    }
}

/// Code of function `charge_size(size: i64)`, with a local `i64`: subtracts an unsigned size from the counter and tests
/// it.
pub(super) fn charge_size(additions: Additions) -> Vec<Instruction<'static>> {
    use Instruction as I;
    let [size, left] = [0, 1];
    let mut code = vec![I::I32Const(0)];
    code.extend(load(additions));
    code.extend([I::LocalGet(size), I::I64Const(SIZE_CHARGE_MAX)]);
    code.extend([I::LocalGet(size), I::I64Const(SIZE_CHARGE_MAX), I::I64LtU, I::Select]);
    code.extend([I::I64Sub, I::LocalTee(left), I::I64Store(place(additions))]);
    code.extend([I::LocalGet(left), I::I64Const(0), I::I64LtS, I::If(BlockType::Empty)]);
    code.extend([I::Call(additions.out_of_instructions), I::End, I::End]);
    code
}

/// Where the counter lies.
fn place(additions: Additions) -> MemArg {
    MemArg { offset: COUNTER_OFFSET, align: 3, memory_index: additions.bookkeeping }
}

fn load(additions: Additions) -> [Instruction<'static>; 2] {
    [Instruction::I32Const(0), Instruction::I64Load(place(additions))]
}

/// Whether somebody may look at the counter while `operator` runs: another function, or whoever finds that it has
/// trapped.
fn shows_counter(operator: &Operator<'_>) -> bool {
    use Operator::*;
    match operator {
        Call { .. } | CallIndirect { .. } | ReturnCall { .. } | ReturnCallIndirect { .. } => true,
        Return | Unreachable => true,
        I32DivS | I32DivU | I32RemS | I32RemU | I64DivS | I64DivU | I64RemS | I64RemU => true,
        I32TruncF32S | I32TruncF32U | I32TruncF64S | I32TruncF64U => true,
        I64TruncF32S | I64TruncF32U | I64TruncF64S | I64TruncF64U => true,
        MemoryGrow { .. } | MemoryFill { .. } | MemoryCopy { .. } | MemoryInit { .. } => true,
        TableGet { .. } | TableSet { .. } | TableGrow { .. } => true,
        TableFill { .. } | TableCopy { .. } | TableInit { .. } => true,
        operator => cost::accesses_memory(operator),
    }
}
