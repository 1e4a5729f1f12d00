//! What a canister has used ahead of its rate, where a subnet limits rates
//! (`canister-execution.md` section 4.7, last line).

/// An amount that shrinks by a rate each round. It is worked out when it is looked at: a round costs
/// nothing for canisters that do nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debit {
    /// The amount after `round`.
    pub amount: u64,
    /// The round in which something was added last.
    pub round: u64,
}

impl Debit {
    /// What is left of it in `round`, of which `rate` goes in each round.
    #[must_use]
    pub fn left(&self, round: u64, rate: u64) -> u64 {
        self.amount.saturating_sub(round.saturating_sub(self.round).saturating_mul(rate))
    }

    /// Adds to it.
    pub fn add(&mut self, amount: u64, round: u64, rate: u64) {
        *self = Self { amount: self.left(round, rate).saturating_add(amount), round };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debit_is_paid_off_by_its_rate_each_round() {
        let mut debit = Debit::default();
        debit.add(25, 4, 10);
        assert_eq!([4, 5, 6, 7].map(|round| debit.left(round, 10)), [25, 15, 5, 0]);
        debit.add(1, 6, 10);
        assert_eq!((debit.left(6, 10), debit.left(7, 10)), (6, 0));
        debit.add(u64::MAX, 6, 10);
        assert_eq!(debit.left(6, 10), u64::MAX);
    }
}
