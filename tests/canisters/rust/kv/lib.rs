//! A key-value store whose data lives in stable memory, with a heap part that upgrades carry over by hand.

use ic_stable_structures::memory_manager::{MemoryId, MemoryManager, VirtualMemory};
use ic_stable_structures::{DefaultMemoryImpl, StableBTreeMap, StableCell};
use std::cell::RefCell;

type Memory = VirtualMemory<DefaultMemoryImpl>;

thread_local! {
    static MEMORIES: RefCell<MemoryManager<DefaultMemoryImpl>> =
        RefCell::new(MemoryManager::init(DefaultMemoryImpl::default()));
    static ENTRIES: RefCell<StableBTreeMap<String, Vec<u8>, Memory>> = RefCell::new(
        MEMORIES.with_borrow(|memories| StableBTreeMap::init(memories.get(MemoryId::new(0)))),
    );
    static WRITES: RefCell<StableCell<u64, Memory>> = RefCell::new(
        MEMORIES.with_borrow(|memories| StableCell::init(memories.get(MemoryId::new(1)), 0)),
    );
    static NAME: RefCell<StableCell<String, Memory>> = RefCell::new(
        MEMORIES.with_borrow(|memories| StableCell::init(memories.get(MemoryId::new(2)), String::new())),
    );
    static BALLAST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[ic_cdk::init]
fn init(name: Option<String>) {
    let name = name.unwrap_or_else(|| "unnamed".into());
    ic_cdk::api::debug_print(format!("kv: init {name}"));
    NAME.with_borrow_mut(|cell| cell.set(name));
}

/// The heap is lost in an upgrade; its size is what is worth keeping.
#[ic_cdk::pre_upgrade]
fn pre_upgrade() {
    let ballast = BALLAST.with_borrow(Vec::len);
    put("ballast".into(), (ballast as u64).to_le_bytes().to_vec());
    ic_cdk::api::debug_print("kv: pre_upgrade");
}

#[ic_cdk::post_upgrade]
fn post_upgrade(name: Option<String>) {
    if let Some(name) = name {
        NAME.with_borrow_mut(|cell| cell.set(name));
    }
    ic_cdk::api::debug_print(format!("kv: post_upgrade after {} writes", writes()));
}

#[ic_cdk::update]
fn put(key: String, value: Vec<u8>) -> Option<Vec<u8>> {
    WRITES.with_borrow_mut(|cell| {
        let next = *cell.get() + 1;
        cell.set(next)
    });
    ENTRIES.with_borrow_mut(|entries| entries.insert(key, value))
}

#[ic_cdk::update]
fn remove(key: String) -> Option<Vec<u8>> {
    ENTRIES.with_borrow_mut(|entries| entries.remove(&key))
}

/// Inserts `count` entries of 32 bytes.
#[ic_cdk::update]
fn fill(count: u64) -> u64 {
    for index in 0..count {
        put(format!("k{index:08}"), vec![index as u8; 32]);
    }
    len()
}

/// Keeps `bytes` more bytes on the heap; the total so far.
#[ic_cdk::update]
fn grow_heap(bytes: u64) -> u64 {
    BALLAST.with_borrow_mut(|ballast| {
        ballast.resize(ballast.len() + bytes as usize, 7);
        ballast.len() as u64
    })
}

/// Writes to stable memory and to the heap, then panics: neither write may last.
#[ic_cdk::update]
fn panic_after_write(key: String) {
    put(key, vec![1]);
    grow_heap(1);
    panic!("intended panic");
}

#[ic_cdk::query]
fn get(key: String) -> Option<Vec<u8>> {
    ENTRIES.with_borrow(|entries| entries.get(&key))
}

#[ic_cdk::query]
fn keys_from(start: String, limit: u32) -> Vec<String> {
    ENTRIES.with_borrow(|entries| {
        entries.range(start..).take(limit as usize).map(|entry| entry.key().clone()).collect()
    })
}

#[ic_cdk::query]
fn len() -> u64 {
    ENTRIES.with_borrow(StableBTreeMap::len)
}

#[ic_cdk::query]
fn writes() -> u64 {
    WRITES.with_borrow(|cell| *cell.get())
}

#[ic_cdk::query]
fn name() -> String {
    NAME.with_borrow(|cell| cell.get().clone())
}

#[ic_cdk::query]
fn stable_pages() -> u64 {
    ic_cdk::stable::stable_size()
}

#[ic_cdk::query]
fn whoami() -> candid::Principal {
    ic_cdk::api::msg_caller()
}

/// Ingress messages may call anything but `grow_heap`.
#[ic_cdk::inspect_message]
fn inspect_message() {
    if ic_cdk::api::msg_method_name() != "grow_heap" {
        ic_cdk::api::accept_message();
    }
}

ic_cdk::export_candid!();
