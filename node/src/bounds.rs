//! From what the policy file says of the node's bounds to the options of what they bound.

use std::path::PathBuf;
use std::time::Duration;

use execution::MemoryOptions;
use execution::memory::Budget;
use in_process::InProcessOptions;
use rollout::Bounds;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sandbox_host::{CompilerOptions, SandboxOptions};

use crate::code_cache::CodeCacheOptions;

/// What `[memory]` says, and what is built in where it is silent: half of the memory that this process may use.
#[must_use]
pub fn memory(bounds: &Bounds) -> MemoryOptions {
    let built_in = MemoryOptions::default();
    MemoryOptions {
        arena_bytes: bounds.arena_bytes.unwrap_or(built_in.arena_bytes),
        budget: bounds.memory_bytes.or_else(half_of_machine).map_or(built_in.budget, Budget::new),
    }
}

/// Half of the memory that this process may use, bytes; `None`: it can't be told.
fn half_of_machine() -> Option<u64> {
    sandbox_host::machine_memory_bytes().ok().map(|bytes| bytes / 2)
}

/// What holds on this machine where a policy file is silent. Only `code_cache_directory` has nothing built in.
#[must_use]
pub fn built_in() -> Bounds {
    let (memory, sandbox) = (MemoryOptions::default(), SandboxOptions::default());
    let (in_process, code_cache) = (InProcessOptions::default(), CodeCacheOptions::new(PathBuf::new()));
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).ok();
    Bounds {
        memory_bytes: half_of_machine(),
        arena_bytes: Some(memory.arena_bytes),
        workers_max: Some(sandbox.workers_max as u64),
        worker_memory_bytes: Some(sandbox.worker_memory_bytes()),
        pool: Some(sandbox.pool as u64),
        query_workers: Some(sandbox.query_workers as u64),
        idle_ms: milliseconds(sandbox.idle_max),
        step_patience_ms: milliseconds(sandbox.step_patience),
        instructions_per_second_min: Some(sandbox.instructions_per_second_min),
        private_images: Some(u64::from(sandbox.private_images)),
        instances_max: Some(in_process.instances_max as u64),
        code_max: Some(in_process.code_max as u64),
        code_cache_directory: None,
        code_cache_bytes: Some(code_cache.bytes_max),
        code_cache_modules: Some(code_cache.modules_max as u64),
    }
}

/// What `[sandbox]` says, and what is built in where it is silent.
#[must_use]
pub fn sandbox(bounds: &Bounds) -> SandboxOptions {
    let built_in = SandboxOptions::default();
    SandboxOptions {
        workers_max: count(bounds.workers_max, built_in.workers_max),
        worker_memory_bytes_max: bounds.worker_memory_bytes.or(built_in.worker_memory_bytes_max),
        pool: count(bounds.pool, built_in.pool),
        query_workers: count(bounds.query_workers, built_in.query_workers),
        idle_max: duration(bounds.idle_ms, built_in.idle_max),
        step_patience: duration(bounds.step_patience_ms, built_in.step_patience),
        instructions_per_second_min: bounds
            .instructions_per_second_min
            .unwrap_or(built_in.instructions_per_second_min),
        private_images: bounds.private_images.map_or(built_in.private_images, |flag| flag != 0),
        ..built_in
    }
}

/// The same for compilers.
#[must_use]
pub fn compiler(bounds: &Bounds) -> CompilerOptions {
    let built_in = CompilerOptions::default();
    CompilerOptions { step_patience: duration(bounds.step_patience_ms, built_in.step_patience), ..built_in }
}

/// What `[in_process]` says, and what is built in where it is silent.
#[must_use]
pub fn in_process(bounds: &Bounds) -> InProcessOptions {
    let built_in = InProcessOptions::default();
    InProcessOptions {
        instances_max: count(bounds.instances_max, built_in.instances_max),
        code_max: count(bounds.code_max, built_in.code_max),
    }
}

/// What `[code_cache]` says, and what is built in where it is silent; `None`: nothing is kept on disk.
#[must_use]
pub fn code_cache(bounds: &Bounds) -> Option<CodeCacheOptions> {
    let built_in = CodeCacheOptions::new(bounds.code_cache_directory.clone()?);
    Some(CodeCacheOptions {
        bytes_max: bounds.code_cache_bytes.unwrap_or(built_in.bytes_max),
        modules_max: count(bounds.code_cache_modules, built_in.modules_max),
        ..built_in
    })
}

fn count(said: Option<u64>, built_in: usize) -> usize {
    said.map_or(built_in, |said| usize::try_from(said).unwrap_or(usize::MAX))
}

fn duration(said: Option<u64>, built_in: Duration) -> Duration {
    said.map_or(built_in, Duration::from_millis)
}

/// Lets this process have as many descriptors as it may: a canister takes one to four for its arena, its code one
/// and another while it is mapped in-process, a worker two.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where the kernel refuses, the limit stays, and is respected.
        let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_file_reaches_its_option() {
        let text = "schema = 1\n[memory]\ntotal = \"9GiB\"\ncanister = \"1GiB\"\n[sandbox]\nworkers_max = 11\nworker_memory = \"64MiB\"\npool = 12\nquery_workers = 13\nidle = \"14s\"\nstep_patience = \"15s\"\ninstructions_per_second_min = 16_000_000\nprivate_images = true\n[in_process]\ninstances_max = 17\ncode_max = 18\n[code_cache]\ndirectory = \"/code\"\nsize = \"19MiB\"\nmodules_max = 20\n";
        let policy = rollout::Policy::parse("p.toml", text).unwrap();
        let bounds = policy.bounds();
        let memory = memory(bounds);
        assert_eq!(memory.arena_bytes, 1 << 30);
        assert!(format!("{:?}", memory.budget).contains(&(9_u64 << 30).to_string()), "{memory:?}");
        let sandbox = sandbox(bounds);
        assert_eq!((sandbox.workers_max, sandbox.pool, sandbox.query_workers), (11, 12, 13));
        assert_eq!(sandbox.worker_memory_bytes_max, Some(64 << 20));
        assert_eq!(
            (sandbox.idle_max, sandbox.step_patience),
            (Duration::from_secs(14), Duration::from_secs(15))
        );
        assert_eq!(sandbox.instructions_per_second_min, 16_000_000);
        assert!(sandbox.private_images);
        assert_eq!(in_process(bounds), InProcessOptions { instances_max: 17, code_max: 18 });
        let cache = CodeCacheOptions { directory: "/code".into(), bytes_max: 19 << 20, modules_max: 20 };
        assert_eq!(code_cache(bounds), Some(cache));
    }

    #[test]
    fn a_silent_file_leaves_what_is_built_in() {
        let policy = rollout::Policy::parse("p.toml", "schema = 1\n[sandbox]\n").unwrap();
        let bounds = policy.bounds();
        assert_eq!(format!("{:?}", sandbox(bounds)), format!("{:?}", SandboxOptions::default()));
        assert_eq!(in_process(bounds), InProcessOptions::default());
        assert_eq!(code_cache(bounds), None);
        let half = sandbox_host::machine_memory_bytes().unwrap() / 2;
        assert!(format!("{:?}", memory(bounds).budget).contains(&half.to_string()), "{half}");
    }
}
