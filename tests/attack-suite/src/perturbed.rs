//! Calls made from a filter's own rules: for each rule one that it alone allows, and for each condition of it calls that
//! break that condition and that no rule allows (Firecracker's method, `confinement` section 5).

use hostile::{Call, List, text};
use sandbox_os::filter::{Rule, Test};

/// A call that breaks a condition.
#[derive(Clone, Debug)]
pub struct Perturbed {
    /// The rule, by its place in the list.
    pub rule: u8,
    /// The condition, by its place in the rule.
    pub condition: u8,
    /// Whether it differs in the upper half of the argument alone.
    pub upper: bool,
    /// The call.
    pub call: Call,
}

/// Whether a list allows a call.
#[must_use]
pub fn allowed(rules: &[Rule], call: &Call) -> bool {
    rules.iter().any(|rule| allows(rule, call))
}

fn allows(rule: &Rule, call: &Call) -> bool {
    let holds = |index: u8, test: &Test| holds(test, call[1 + usize::from(index)]);
    rule.number as u64 == call[0]
        && rule.arguments.iter().all(|argument| holds(argument.index, &argument.test))
}

fn holds(test: &Test, value: u64) -> bool {
    match *test {
        Test::Is(expected) => value == expected,
        Test::Without(bits) => value & bits == 0,
        Test::Not(other) => value != other,
        Test::Below(bound) => value < bound,
        Test::Masked(mask, expected) => value & mask == expected,
    }
}

/// Values that a condition allows.
fn kept(test: &Test) -> Vec<u64> {
    let candidates: Vec<u64> = match *test {
        Test::Is(value) | Test::Masked(_, value) => vec![value],
        Test::Without(_) | Test::Not(_) => vec![0, 1, 2, 4, 5],
        Test::Below(bound) => vec![0, bound - 1],
    };
    candidates.into_iter().filter(|&value| holds(test, value)).collect()
}

/// Values that it forbids: each bit that it looks at, the neighbours, and the same in the upper half.
fn broken(test: &Test) -> Vec<u64> {
    let bits = |mask: u64| (0..64).map(|bit| 1 << bit).filter(move |bit| mask & bit != 0);
    let candidates: Vec<u64> = match *test {
        Test::Is(value) => bits(u64::MAX).map(|bit| value ^ bit).chain([0, u64::MAX]).collect(),
        Test::Without(mask) => bits(mask).chain([mask, 6, u64::MAX]).collect(),
        Test::Masked(mask, value) => bits(mask).map(|bit| value ^ bit).collect(),
        Test::Not(value) => vec![value],
        Test::Below(bound) => vec![bound, bound | 1 << 32, 1 << 32, u64::MAX],
    };
    candidates.into_iter().filter(|&value| !holds(test, value)).collect()
}

/// Arguments that no rule looks at, such that the call harms nobody and comes back.
fn harmless(rule: &Rule) -> Call {
    let mut call = [rule.number as u64, 0, 0, 0, 0, 0, 0];
    if rule.number == libc::SYS_sendto {
        // An empty packet would look like the end.
        (call[2], call[3]) = (text(0), 1);
    }
    call
}

/// Calls that `rule` allows: each combination of the values that its conditions keep.
fn calls_of(rule: &Rule) -> Vec<Call> {
    rule.arguments.iter().fold(vec![harmless(rule)], |calls, argument| {
        let values = kept(&argument.test);
        calls
            .iter()
            .flat_map(|call| {
                values.iter().map(|&value| {
                    let mut call = *call;
                    call[1 + usize::from(argument.index)] = value;
                    call
                })
            })
            .collect()
    })
}

/// For each rule of a list a call that this rule alone allows.
///
/// # Panics
/// If there is none: then the rule is redundant.
#[must_use]
pub fn needed(list: List) -> Vec<(u8, Call)> {
    let rules = list.rules();
    let of = |(at, rule): (usize, &Rule)| {
        let alone = |call: &Call| rules.iter().filter(|rule| allows(rule, call)).count() == 1;
        let call = calls_of(rule).into_iter().find(alone);
        (at as u8, call.unwrap_or_else(|| panic!("{} rule {at} is redundant", rule.name)))
    };
    rules.iter().enumerate().map(of).collect()
}

/// For each condition of each rule of a list the calls that break it and that no other rule allows.
///
/// # Panics
/// If a condition has none: then it is redundant.
#[must_use]
pub fn perturbed(list: List) -> Vec<Perturbed> {
    let rules = list.rules();
    let mut all = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        for (condition, argument) in rule.arguments.iter().enumerate() {
            let before = all.len();
            let index = 1 + usize::from(argument.index);
            for call in calls_of(rule) {
                for value in broken(&argument.test) {
                    let mut other = call;
                    other[index] = value;
                    let upper = value as u32 == call[index] as u32;
                    // With the condition gone, this rule would allow it: so it is this condition that forbids it.
                    let others = rule.arguments.iter().enumerate().all(|(place, argument)| {
                        place == condition || holds(&argument.test, other[1 + usize::from(argument.index)])
                    });
                    if others && !allowed(rules, &other) {
                        let perturbed =
                            Perturbed { rule: at as u8, condition: condition as u8, upper, call: other };
                        all.push(perturbed);
                    }
                }
            }
            let found = &all[before..];
            assert!(!found.is_empty(), "{} rule {at}: condition {condition} is redundant", rule.name);
            let whole = matches!(argument.test, Test::Is(_) | Test::Below(_));
            assert!(!whole || found.iter().any(|call| call.upper), "{} rule {at}: the upper half", rule.name);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_and_every_condition_has_a_call_that_only_it_decides() {
        for list in [List::Load, List::Run] {
            assert_eq!(needed(list).len(), list.rules().len());
            let conditions = list.rules().iter().map(|rule| rule.arguments.len()).sum::<usize>();
            let mut decided: Vec<_> =
                perturbed(list).iter().map(|call| (call.rule, call.condition)).collect();
            decided.dedup();
            assert_eq!(decided.len(), conditions);
        }
    }

    #[test]
    fn what_breaks_a_condition_is_forbidden_and_its_rule_without_it_allows_it() {
        for list in [List::Load, List::Run] {
            for broken in perturbed(list) {
                assert!(!allowed(list.rules(), &broken.call));
                let change = hostile::Change::Wider(list, broken.rule, broken.condition);
                assert!(allowed(&list.changed(change), &broken.call), "{broken:?}");
            }
        }
    }
}
