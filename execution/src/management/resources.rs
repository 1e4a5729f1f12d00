//! What management methods take of a canister and of the subnet: cycles, memory, rates.

use crate::state::CanisterState;
use crate::subnet::Subnet;
use crate::{Cycles, ErrorCode, Instructions, UserError, text};

impl Subnet {
    /// Takes the price of so many instructions from what is above the freezing limit.
    pub(super) fn charge(
        &self,
        canister: &mut CanisterState,
        instructions: Instructions,
    ) -> Result<(), UserError> {
        self.take_cycles(canister, self.config.limits.execution_price(false, instructions))
    }

    /// Takes a price from what is above the freezing limit.
    pub(super) fn take_cycles(&self, canister: &mut CanisterState, price: Cycles) -> Result<(), UserError> {
        let liquid = canister.liquid(&self.config.limits);
        if liquid < price {
            return Err(text::out_of_cycles(canister.id, price - liquid));
        }
        canister.balance -= price;
        Ok(())
    }

    /// Whether a canister may hold what it holds now, `before` bytes of memory being taken for it already.
    pub(super) fn may_hold(&self, canister: &CanisterState, before: u64) -> Result<(), UserError> {
        let limits = &self.config.limits;
        let growth = canister.memory_taken().saturating_sub(before);
        let available = limits.subnet_memory_bytes.saturating_sub(self.state.memory_bytes);
        if growth > available {
            return Err(text::subnet_memory(growth, available));
        }
        let missing = canister.missing(limits);
        if growth > 0 && missing > 0 {
            let text = format!(
                "Canister cannot grow memory by {growth} bytes due to insufficient cycles. At least {missing} additional cycles are required."
            );
            return Err(UserError::new(ErrorCode::CYCLES_MEMORY_GROW, text));
        }
        Ok(())
    }

    /// Whether a canister has written too much ahead of the subnet's rate.
    pub(crate) fn wrote_too_much(&self, canister: &CanisterState) -> bool {
        let rate = self.config.limits.heap_delta_rate;
        rate.is_some_and(|rate| canister.heap_delta.left(self.state.round, rate) >= rate)
    }

    /// Notes what a canister wrote, where the subnet limits that.
    pub(crate) fn note_written(&self, canister: &mut CanisterState, bytes: u64) {
        if let Some(rate) = self.config.limits.heap_delta_rate {
            canister.heap_delta.add(bytes, self.state.round, rate);
        }
    }

    /// Whether a method may write more for a canister.
    pub(super) fn may_write(&self, canister: &CanisterState) -> Result<(), UserError> {
        if !self.wrote_too_much(canister) {
            return Ok(());
        }
        let text = format!(
            "Canister {} is heap delta rate limited. Please retry after several rounds.",
            canister.id
        );
        Err(UserError::new(ErrorCode::HEAP_DELTA_RATE_LIMITED, text))
    }

    /// Whether a canister may be installed again.
    pub(super) fn may_install(&self, canister: &CanisterState) -> Result<(), UserError> {
        let rate = self.config.limits.install_rate;
        if rate.is_none_or(|rate| canister.install_debit.left(self.state.round, rate) == 0) {
            return Ok(());
        }
        let text = format!(
            "Canister {} is rate limited because it executed too many instructions in the previous install_code messages. Please retry installation after several rounds.",
            canister.id
        );
        Err(UserError::new(ErrorCode::INSTALL_RATE_LIMITED, text))
    }

    /// Notes what an install used, where the subnet limits that.
    pub(crate) fn note_installed(&self, canister: &mut CanisterState, instructions: Instructions) {
        if let Some(rate) = self.config.limits.install_rate {
            canister.install_debit.add(instructions, self.state.round, rate);
        }
    }
}
