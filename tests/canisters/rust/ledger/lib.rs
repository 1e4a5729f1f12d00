//! A token ledger in stable memory, with its log.

use candid::{CandidType, Principal};
use ic_stable_structures::memory_manager::{MemoryId, MemoryManager, VirtualMemory};
use ic_stable_structures::{DefaultMemoryImpl, StableBTreeMap, StableCell};
use std::cell::RefCell;

type Memory = VirtualMemory<DefaultMemoryImpl>;

thread_local! {
    static MEMORIES: RefCell<MemoryManager<DefaultMemoryImpl>> =
        RefCell::new(MemoryManager::init(DefaultMemoryImpl::default()));
    static BALANCES: RefCell<StableBTreeMap<Principal, u128, Memory>> = RefCell::new(
        MEMORIES.with_borrow(|memories| StableBTreeMap::init(memories.get(MemoryId::new(0)))),
    );
    static TRANSFERS: RefCell<StableCell<u64, Memory>> = RefCell::new(
        MEMORIES.with_borrow(|memories| StableCell::init(memories.get(MemoryId::new(1)), 0)),
    );
    static SUPPLY: RefCell<StableCell<u128, Memory>> = RefCell::new(
        MEMORIES.with_borrow(|memories| StableCell::init(memories.get(MemoryId::new(2)), 0)),
    );
    static MINTER: RefCell<StableCell<Principal, Memory>> = RefCell::new(
        MEMORIES.with_borrow(|memories| {
            StableCell::init(memories.get(MemoryId::new(3)), Principal::anonymous())
        }),
    );
}

#[derive(CandidType)]
enum Receipt {
    Ok(u64),
    Err(TransferError),
}

#[derive(CandidType)]
enum TransferError {
    InsufficientFunds { balance: u128 },
    ZeroAmount,
}

#[ic_cdk::init]
fn init(supply: u128) {
    let minter = ic_cdk::api::msg_caller();
    MINTER.with_borrow_mut(|cell| cell.set(minter));
    credit(minter, supply);
    SUPPLY.with_borrow_mut(|cell| cell.set(supply));
}

fn balance(account: &Principal) -> u128 {
    BALANCES.with_borrow(|balances| balances.get(account).unwrap_or(0))
}

fn set_balance(account: Principal, amount: u128) {
    BALANCES.with_borrow_mut(|balances| match amount {
        0 => balances.remove(&account),
        _ => balances.insert(account, amount),
    });
}

fn credit(account: Principal, amount: u128) {
    let Some(sum) = balance(&account).checked_add(amount) else {
        ic_cdk::trap("balance out of range");
    };
    set_balance(account, sum);
}

#[ic_cdk::update]
fn transfer(to: Principal, amount: u128) -> Receipt {
    let from = ic_cdk::api::msg_caller();
    let available = balance(&from);
    if amount == 0 {
        return Receipt::Err(TransferError::ZeroAmount);
    }
    if available < amount {
        return Receipt::Err(TransferError::InsufficientFunds { balance: available });
    }
    set_balance(from, available - amount);
    credit(to, amount);
    let index = transfers() + 1;
    TRANSFERS.with_borrow_mut(|cell| cell.set(index));
    Receipt::Ok(index)
}

/// Rejects, with a message of its own, whoever is not the minter.
#[ic_cdk::update(manual_reply = true)]
fn mint(to: Principal, amount: u128) {
    if MINTER.with_borrow(|cell| *cell.get()) != ic_cdk::api::msg_caller() {
        ic_cdk::api::msg_reject("only the minter may mint");
        return;
    }
    credit(to, amount);
    let supply = total_supply() + amount;
    SUPPLY.with_borrow_mut(|cell| cell.set(supply));
    ic_cdk::api::msg_reply(candid::encode_one(supply).expect("a number encodes"));
}

/// Credits first, then traps if the caller has too little: the credit must not last.
#[ic_cdk::update]
fn transfer_or_trap(to: Principal, amount: u128) -> u64 {
    let from = ic_cdk::api::msg_caller();
    credit(to, amount);
    let Some(rest) = balance(&from).checked_sub(amount) else {
        ic_cdk::trap("insufficient funds");
    };
    set_balance(from, rest);
    transfers()
}

#[ic_cdk::query]
fn balance_of(account: Principal) -> u128 {
    balance(&account)
}

#[ic_cdk::query]
fn total_supply() -> u128 {
    SUPPLY.with_borrow(|cell| *cell.get())
}

#[ic_cdk::query]
fn transfers() -> u64 {
    TRANSFERS.with_borrow(|cell| *cell.get())
}

/// The sum of all balances: equal to the supply, or the ledger is broken.
#[ic_cdk::query]
fn audit() -> u128 {
    BALANCES.with_borrow(|balances| balances.iter().map(|entry| entry.value()).sum())
}

ic_cdk::export_candid!();
