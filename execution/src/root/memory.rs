//! The hash of a memory: size and content, by 4 KiB page and 1 MiB chunk. Absent pages and pages of
//! zeros are the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::memory::{Memory, PAGE_BYTES};
use crate::root::Root;
use crate::root::feed::{Feed, Hasher};

/// Pages in a chunk of 1 MiB.
const CHUNK_PAGES: u64 = (1 << 20) / PAGE_BYTES as u64;

/// Hashes one memory again and again, each time only what changed. Keeps the memory it has seen.
#[derive(Debug, Default)]
pub struct MemoryRoot {
    seen: Memory,
    pages: BTreeMap<u64, Root>,
    chunks: BTreeMap<u64, Root>,
}

impl MemoryRoot {
    /// The hash of `memory`.
    pub fn root(&mut self, memory: &Memory) -> Root {
        let mut touched = BTreeSet::new();
        for change in memory.changes_since(&self.seen) {
            touched.insert(change.page / CHUNK_PAGES);
            let bytes = change.version.as_ref().map(|version| version.bytes());
            match bytes.filter(|bytes| bytes.iter().any(|&byte| byte != 0)) {
                Some(bytes) => {
                    let mut hash = Hasher::new("page");
                    hash.bytes(bytes);
                    self.pages.insert(change.page, hash.finish());
                }
                None => {
                    self.pages.remove(&change.page);
                }
            }
        }
        self.seen = memory.clone();
        for chunk in touched {
            let mut hash = Hasher::new("chunk");
            let mut empty = true;
            for (page, root) in self.pages.range(chunk * CHUNK_PAGES..(chunk + 1) * CHUNK_PAGES) {
                page.feed(&mut hash);
                root.feed(&mut hash);
                empty = false;
            }
            if empty {
                self.chunks.remove(&chunk);
            } else {
                self.chunks.insert(chunk, hash.finish());
            }
        }
        let mut hash = Hasher::new("memory");
        memory.wasm_pages().feed(&mut hash);
        for (chunk, root) in &self.chunks {
            chunk.feed(&mut hash);
            root.feed(&mut hash);
        }
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Arena;

    #[test]
    fn only_size_and_content_count() {
        let arena = Arena::new(1 << 20).unwrap();
        let page = |byte| arena.store(&[byte; PAGE_BYTES]).unwrap();
        let root = |memory: &Memory| MemoryRoot::default().root(memory);
        let one = Memory::zeroed(16).with(16, [(3, page(1)), (255, page(2))]);
        assert_eq!(
            root(&one),
            root(&Memory::zeroed(16).with(16, [(3, page(1)), (255, page(2)), (9, page(0))]))
        );
        assert_ne!(root(&one), root(&one.with(17, [])));
        assert_ne!(root(&one), root(&one.with(16, [(3, page(2))])));
        assert_ne!(root(&one), root(&Memory::zeroed(16).with(16, [(4, page(1)), (255, page(2))])));
    }

    #[test]
    fn hashing_changes_only_gives_the_same_as_hashing_everything() {
        let arena = Arena::new(1 << 22).unwrap();
        let mut kept = MemoryRoot::default();
        let mut memory = Memory::zeroed(64);
        for step in 0..40_u64 {
            let page = arena.store(&[(step % 3) as u8; PAGE_BYTES]).unwrap();
            memory = memory.with(64 + step / 10, [(step * 37 % 600, page)]);
            assert_eq!(kept.root(&memory), MemoryRoot::default().root(&memory));
        }
        assert_eq!(kept.root(&Memory::zeroed(1)), MemoryRoot::default().root(&Memory::zeroed(1)));
    }
}
