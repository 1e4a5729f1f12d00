//! A node whose files may not grow. Its own program: the limit is a whole process's.

use bulkhead_node::code_cache::{CodeCache, CodeCacheOptions, Fingerprint};
use execution::module::Interface;
use execution::{Module, ModuleHash};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn a_limit_on_the_size_of_files_costs_compilations_and_not_the_node() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = CodeCache::open(CodeCacheOptions::new(folder.path().join("code")), Fingerprint([1; 32]));
    let module = Module::new(b"m", Interface::default(), &[0; 10_000]).expect("a memory file");
    let all = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(5_000), ..all }).expect("lower is always allowed");
    // Past the limit, the kernel would end this process with SIGXFSZ.
    cache.store(&module);
    let failure = cache.status().failure.expect("it is told");
    assert!(failure.ends_with("fit into 5000 bytes (RLIMIT_FSIZE)"), "{failure}");
    setrlimit(Resource::Fsize, all).expect("up to where it was");
    cache.store(&module);
    assert_eq!(cache.status().failure, None);
    assert!(cache.load(ModuleHash::of(b"m"), 1).expect("memory").is_some());
}
