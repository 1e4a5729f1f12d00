//! Which stores are marked together.
//!
//! Compilers write a structure by many stores to one address, which is in a local, at different offsets. Where nothing
//! but a trap can come between such stores, the first of them marks what all of them write. Pages are marked exactly:
//! the first and the last byte of at most 4096 lie in all the pages that the others lie in. After a trap each run may
//! have marked a page that was not written; undoing it changes nothing.

use wasmparser::{BlockType, ContType, FrameKind, FuncType, ModuleArity, Operator, RefType, SubType};

use super::body::{Store, block_after};
use execution::memory::PAGE_BYTES;

/// Operands whose origin is remembered, and addresses that are written at, at one time: a bound of the work.
const OPERANDS_MAX: usize = 64;
const OPEN_MAX: usize = 8;

/// What is marked at a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The pages of two bytes, at offsets from its address: the first and the last one that it, and those behind it in
    /// its run, write.
    Run { first: u64, last: u64 },
    /// Nothing: a store before it has.
    Earlier,
}

/// Finds them, from a function's instructions in their order.
#[derive(Default)]
pub(super) struct Stores {
    marks: Vec<Mark>,
    /// What lies on top of the operand stack: the local whose value it is, if it is one's as it is now.
    operands: Vec<Option<u32>>,
    open: Vec<Open>,
}

/// Stores to the address in a local.
struct Open {
    local: u32,
    /// The first one, among all stores.
    store: usize,
    first: u64,
    last: u64,
}

impl Stores {
    /// Takes the function's next instruction.
    pub(super) fn operator(&mut self, operator: &Operator<'_>) {
        if let Some(store) = Store::of(operator) {
            self.pop(1);
            let address = self.operands.pop().flatten();
            let mark = self.store(address, &store);
            self.marks.push(mark);
            return;
        }
        match operator {
            Operator::LocalGet { local_index } => self.push(Some(*local_index)),
            Operator::LocalSet { local_index } => {
                self.pop(1);
                self.written(*local_index);
            }
            Operator::LocalTee { local_index } => {
                self.pop(1);
                self.written(*local_index);
                self.push(Some(*local_index));
            }
            // Runs end at what may go elsewhere than to the next instruction, and at what may be come to from elsewhere.
            operator if block_after(operator).is_some() => self.end(),
            operator => match operator.operator_arity(&Plain) {
                Some((pops, pushes)) => {
                    self.pop(pops);
                    (0..pushes).for_each(|_| self.push(None));
                }
                None => self.end(),
            },
        }
    }

    /// What is marked at each store.
    pub(super) fn marks(self) -> Vec<Mark> {
        self.marks
    }

    fn store(&mut self, address: Option<u32>, store: &Store) -> Mark {
        let (first, last) = (store.offset, store.last());
        let own = Mark::Run { first, last };
        // An offset that wraps traps.
        let Some(local) = address.filter(|_| first <= last) else { return own };
        if let Some(at) = self.open.iter().position(|open| open.local == local) {
            let open = &mut self.open[at];
            let (first, last) = (open.first.min(first), open.last.max(last));
            if last - first < PAGE_BYTES as u64 {
                (open.first, open.last) = (first, last);
                self.marks[open.store] = Mark::Run { first, last };
                return Mark::Earlier;
            }
            self.open.remove(at);
        }
        if self.open.len() == OPEN_MAX {
            self.open.remove(0);
        }
        self.open.push(Open { local, store: self.marks.len(), first, last });
        own
    }

    fn push(&mut self, local: Option<u32>) {
        if self.operands.len() == OPERANDS_MAX {
            self.operands.remove(0);
        }
        self.operands.push(local);
    }

    fn pop(&mut self, count: u32) {
        let rest = self.operands.len().saturating_sub(count as usize);
        self.operands.truncate(rest);
    }

    /// A local has another value.
    fn written(&mut self, local: u32) {
        self.open.retain(|open| open.local != local);
        self.operands
            .iter_mut()
            .filter(|operand| **operand == Some(local))
            .for_each(|operand| *operand = None);
    }

    fn end(&mut self) {
        self.open.clear();
        self.operands.clear();
    }
}

/// For the arity of instructions that doesn't depend on the module: calls, and blocks whose type is the module's, have none
/// and end all runs. Another block's start doesn't: there is one way to it.
struct Plain;

impl ModuleArity for Plain {
    fn sub_type_at(&self, _: u32) -> Option<&SubType> {
        None
    }

    fn tag_type_arity(&self, _: u32) -> Option<(u32, u32)> {
        None
    }

    fn type_index_of_function(&self, _: u32) -> Option<u32> {
        None
    }

    fn func_type_of_cont_type(&self, _: &ContType) -> Option<&FuncType> {
        None
    }

    fn sub_type_of_ref_type(&self, _: &RefType) -> Option<&SubType> {
        None
    }

    fn control_stack_height(&self) -> u32 {
        0
    }

    fn label_block(&self, _: u32) -> Option<(BlockType, FrameKind)> {
        None
    }
}
