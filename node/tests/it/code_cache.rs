//! Compiled modules on disk: found again, never believed, and never missed when they can't be had.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use bulkhead_node::code_cache::entry::{self, MAGIC};
use bulkhead_node::code_cache::{CachingCompiler, CodeCache, CodeCacheOptions, CodeCacheStatus, Fingerprint};
use bulkhead_node::node::on_executor_stack;
use bulkhead_node::{Node, NodeOptions, PolicySource, Preset};
use execution::module::{CustomSection, DataSegment, Interface, MethodKind};
use execution::{BackendError, Compiler, GlobalValue, InvalidModule, Module, ModuleHash};
use in_process::compile::ModuleCompiler;
use rollout::Mode;
use rustix::fs::FlockOperation;
use rustix::process::geteuid;

use crate::driver::{Driver, EMPTY};

const OURS: Fingerprint = Fingerprint([1; 32]);
const OTHER: Fingerprint = Fingerprint([2; 32]);
const NATIVE: &[u8] = b"native";
/// Bytes of the head in front of the account: both parts of the key.
const KEY_BYTES: usize = 64;

/// Makes something of everything but of what begins with `bad`, and counts.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Compiler for Counting {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if wasm.starts_with(b"bad") {
            return Ok(Err(InvalidModule::new("no module")));
        }
        if wasm.starts_with(b"down") {
            return Err(BackendError::Engine("no compiler".into()));
        }
        let subject = if wasm.starts_with(b"wrong") { &b"another module"[..] } else { wasm };
        Ok(Ok(Arc::new(Module::new(subject, interface(), NATIVE)?)))
    }
}

impl Counting {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Shared, so that it can be asked for its count.
struct Shared(Arc<Counting>);

impl Compiler for Shared {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        self.0.compile(wasm)
    }
}

/// Something of everything that an entry holds.
fn interface() -> Interface {
    Interface {
        has_memory: true,
        heap_pages_min: 1,
        heap_pages_max: 300,
        methods: [("go".to_owned(), MethodKind::Update), ("see".to_owned(), MethodKind::Query)].into(),
        custom_sections: [("candid".to_owned(), CustomSection { public: true, content: b"text".to_vec() })]
            .into(),
        globals: vec![GlobalValue::I32(7), GlobalValue::I64(1 << 40)],
        data: vec![
            DataSegment { offset: 3, bytes: b"data".to_vec() },
            DataSegment { offset: 70, bytes: Vec::new() },
        ],
        compile_instructions: 6_000,
        ..Interface::default()
    }
}

/// A folder with room for a cache's directory.
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("code")
    }

    fn cache(&self, fingerprint: Fingerprint) -> CodeCache {
        CodeCache::open(CodeCacheOptions::new(self.directory()), fingerprint)
    }

    fn file(&self, fingerprint: Fingerprint, wasm: &[u8]) -> PathBuf {
        self.directory().join(format!("{fingerprint}-{:?}.code", ModuleHash::of(wasm)))
    }
}

fn module(wasm: &[u8]) -> Module {
    Module::new(wasm, interface(), NATIVE).expect("a memory file")
}

fn code(module: &Module) -> Vec<u8> {
    let file = File::from(module.code.file().try_clone_to_owned().expect("a descriptor"));
    let mut bytes = vec![0; module.code.len()];
    file.read_exact_at(&mut bytes, 0).expect("the file can be read");
    bytes
}

fn load(cache: &CodeCache, wasm: &[u8]) -> Option<Module> {
    cache.load(ModuleHash::of(wasm), wasm.len() as u64).expect("memory")
}

fn failure(cache: &CodeCache) -> String {
    cache.status().failure.unwrap_or_default()
}

/// Names in the cache's directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// The account and the output of an entry, under a checksum that is right.
fn sealed(key: (Fingerprint, &[u8]), rest: &[u8]) -> Vec<u8> {
    let covered = [&key.0.0[..], &ModuleHash::of(key.1).0, rest].concat();
    [&MAGIC[..], &ModuleHash::of(&covered).0, &covered].concat()
}

/// Lets the file of the module `m` be what `place` makes of its path, and expects that it costs a compilation.
#[track_caller]
fn is_compiled_anew(what: &str, place: impl FnOnce(&Path)) {
    let fixture = Fixture::new();
    let cache = Arc::new(fixture.cache(OURS));
    let file = fixture.file(OURS, b"m");
    place(&file);
    let counting = Arc::new(Counting::default());
    let compiler = CachingCompiler::new(Arc::clone(&cache), Box::new(Shared(Arc::clone(&counting))));
    let compiled = compiler.compile(b"m").expect("a compiler").expect("a module");
    assert_eq!(compiled.interface, interface(), "{what}");
    assert_eq!(counting.count(), 1, "{what}");
    let expected = CodeCacheStatus { missed: 1, bad: 1, stored: 1, ..CodeCacheStatus::default() };
    assert_eq!(cache.status(), expected, "{what}");
    assert!(load(&cache, b"m").is_some(), "{what}: a good one is in its place");
}

#[test]
fn what_one_node_compiled_the_next_one_loads_and_compiles_nothing() {
    let fixture = Fixture::new();
    let counting = Arc::new(Counting::default());
    let node = || {
        let cache = Arc::new(fixture.cache(OURS));
        (Arc::clone(&cache), CachingCompiler::new(cache, Box::new(Shared(Arc::clone(&counting)))))
    };
    for wasm in [&b"one"[..], b"two"] {
        node().1.compile(wasm).expect("a compiler").expect("a module");
    }
    let (cache, compiler) = node();
    for wasm in [&b"one"[..], b"two"] {
        let module = compiler.compile(wasm).expect("a compiler").expect("a module");
        assert_eq!((module.hash, module.wasm_bytes), (ModuleHash::of(wasm), 3));
        assert_eq!(module.interface, interface());
        assert_eq!(code(&module), NATIVE);
    }
    assert_eq!(counting.count(), 2);
    assert_eq!(cache.status(), CodeCacheStatus { loaded: 2, ..CodeCacheStatus::default() });
    let file = fs::metadata(fixture.file(OURS, b"one")).expect("a file");
    assert_eq!(file.mode() & 0o7777, 0o600);
}

#[test]
fn refusals_failures_and_the_code_of_another_module_are_not_kept() {
    let fixture = Fixture::new();
    let counting = Arc::new(Counting::default());
    let compiler =
        CachingCompiler::new(Arc::new(fixture.cache(OURS)), Box::new(Shared(Arc::clone(&counting))));
    for asked in 0..2 {
        assert_eq!(counting.count(), 3 * asked);
        assert!(compiler.compile(b"bad").expect("a compiler").is_err());
        assert!(compiler.compile(b"down").is_err());
        compiler.compile(b"wrong").expect("a compiler").expect("what memory's cache refuses");
    }
    assert_eq!(names(&fixture.directory()), [""; 0]);
}

#[test]
fn another_fingerprint_finds_nothing() {
    let fixture = Fixture::new();
    fixture.cache(OTHER).store(&module(b"m"));
    let cache = fixture.cache(OURS);
    assert!(load(&cache, b"m").is_none());
    assert_eq!(cache.status(), CodeCacheStatus { missed: 1, ..CodeCacheStatus::default() });
    assert!(load(&fixture.cache(OTHER), b"m").is_some(), "the control");
}

#[test]
fn an_entry_that_is_cut_off_anywhere_or_has_a_bit_changed_or_bytes_behind_it_is_compiled_anew() {
    let good = entry::encode(OURS, &module(b"m")).expect("memory");
    assert!(good.len() < 300, "small enough to try everything: {}", good.len());
    for bytes in 0..good.len() {
        is_compiled_anew("cut off", |file| fs::write(file, &good[..bytes]).expect("a file"));
        let mut changed = good.clone();
        changed[bytes] ^= 1 << (bytes % 8);
        is_compiled_anew("changed", |file| fs::write(file, &changed).expect("a file"));
    }
    is_compiled_anew("longer", |file| fs::write(file, [&good[..], b"\0"].concat()).expect("a file"));
}

#[test]
fn a_whole_entry_of_another_module_or_fingerprint_is_compiled_anew() {
    for other in [entry::encode(OURS, &module(b"n")), entry::encode(OTHER, &module(b"m"))] {
        is_compiled_anew("another key", |file| fs::write(file, other.expect("memory")).expect("a file"));
    }
}

#[test]
fn an_entry_whose_checksum_is_right_but_that_no_compiler_made_is_compiled_anew() {
    let good = entry::encode(OURS, &module(b"m")).expect("memory");
    let rest = &good[MAGIC.len() + 32 + KEY_BYTES..];
    assert_eq!(sealed((OURS, b"m"), rest), good, "the control");
    // In front of the native code stands its length; behind it are the four bytes of data.
    let native_at = rest.len() - NATIVE.len() - 4;
    let length = |varint: &[u8]| [&rest[..native_at - 1], varint, &rest[native_at..]].concat();
    let huge = [&[0xff; 9][..], &[1]].concat();
    for (what, rest) in [
        ("more native code than there is", length(&[7])),
        ("less", length(&[5])),
        ("none", length(&[0])),
        ("2^64 - 1 bytes", length(&huge)),
        ("512 MiB", length(&[0x80, 0x80, 0x80, 0x80, 2])),
        ("no head", rest[..10].to_vec()),
        ("nothing", Vec::new()),
        ("bytes that are no account", vec![0xff; 200]),
    ] {
        is_compiled_anew(what, |file| fs::write(file, sealed((OURS, b"m"), &rest)).expect("a file"));
    }
}

#[test]
fn what_is_no_file_of_the_nodes_is_never_read_and_is_replaced() {
    let good = entry::encode(OURS, &module(b"m")).expect("memory");
    is_compiled_anew("a directory", |file| fs::create_dir(file).expect("a directory"));
    is_compiled_anew("a symbolic link to a good entry", |file| {
        let elsewhere = file.with_file_name("elsewhere");
        fs::write(&elsewhere, &good).expect("a file");
        symlink(elsewhere, file).expect("a link");
    });
    // Opening it would wait for a writer.
    is_compiled_anew("a pipe", |file| {
        let made = Command::new("mkfifo").arg(file).status().expect("mkfifo runs");
        assert!(made.success());
    });
    is_compiled_anew("a socket", |file| {
        // A socket's path is short, this one isn't.
        let short = file.parent().expect("a directory").join("s");
        drop(UnixListener::bind(&short).expect("a socket"));
        fs::rename(short, file).expect("renamed");
    });
    is_compiled_anew("a file that others may write", |file| {
        fs::write(file, &good).expect("a file");
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).expect("its owner");
    });
    is_compiled_anew("a file of half a terabyte", |file| {
        File::create(file).expect("a file").set_len(1 << 39).expect("a sparse file");
    });
    if geteuid().is_root() {
        is_compiled_anew("a file of another user", |file| {
            fs::write(file, &good).expect("a file");
            chown(file, Some(65_534), None).expect("root may");
        });
    }
}

#[test]
fn a_directory_that_cant_be_removed_in_the_place_of_a_file_costs_compilations_and_no_more() {
    let fixture = Fixture::new();
    let cache = Arc::new(fixture.cache(OURS));
    fs::create_dir_all(fixture.file(OURS, b"m").join("full")).expect("directories");
    let counting = Arc::new(Counting::default());
    let compiler = CachingCompiler::new(Arc::clone(&cache), Box::new(Shared(Arc::clone(&counting))));
    for asked in 1..=2 {
        compiler.compile(b"m").expect("a compiler").expect("a module");
        assert_eq!(counting.count(), asked);
        assert_eq!(failure(&cache), "a file can't be renamed: Is a directory (os error 21)");
    }
    compiler.compile(b"n").expect("a compiler").expect("a module");
    assert_eq!(failure(&cache), "", "others are kept");
    assert!(load(&cache, b"n").is_some());
}

/// What the cache says of its directory, and that it works without.
#[track_caller]
fn is_unusable(fixture: &Fixture) -> String {
    let cache = Arc::new(fixture.cache(OURS));
    let at_start = failure(&cache);
    let counting = Arc::new(Counting::default());
    let compiler = CachingCompiler::new(Arc::clone(&cache), Box::new(Shared(Arc::clone(&counting))));
    for asked in 1..=2 {
        compiler.compile(b"m").expect("a compiler").expect("a module");
        assert_eq!(counting.count(), asked, "{at_start}");
    }
    assert_eq!(
        cache.status(),
        CodeCacheStatus { missed: 2, failure: Some(at_start.clone()), ..Default::default() }
    );
    at_start
}

#[test]
fn a_missing_directory_is_made_for_the_node_alone() {
    let fixture = Fixture::new();
    let cache = fixture.cache(OURS);
    assert_eq!(fs::metadata(fixture.directory()).expect("a directory").mode() & 0o7777, 0o700);
    assert_eq!(cache.status(), CodeCacheStatus::default());
}

#[test]
fn a_directory_in_which_others_have_rights_is_not_used() {
    let fixture = Fixture::new();
    for mode in [0o777, 0o1777, 0o750, 0o701, 0o720] {
        let directory = fixture.directory();
        fs::create_dir(&directory).expect("a directory");
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("its owner");
        let expected = format!(
            "others than its owner have rights in the directory (mode {mode:04o}, it has to be 0700)"
        );
        assert_eq!(is_unusable(&fixture), expected);
        assert_eq!(names(&directory), [""; 0]);
        fs::remove_dir(directory).expect("an empty directory");
    }
}

#[test]
fn a_directory_of_another_user_is_not_used() {
    let own = geteuid().as_raw();
    if geteuid().is_root() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.directory()).expect("a directory");
        fs::set_permissions(fixture.directory(), fs::Permissions::from_mode(0o700)).expect("its owner");
        chown(fixture.directory(), Some(65_534), None).expect("root may");
        let said = is_unusable(&fixture);
        assert_eq!(said, format!("the directory belongs to user 65534, and not to the node's, {own}"));
    } else {
        // Root's, which is there for everybody.
        let cache = CodeCache::open(CodeCacheOptions::new("/usr".into()), OURS);
        assert_eq!(failure(&cache), format!("the directory belongs to user 0, and not to the node's, {own}"));
    }
}

#[test]
fn a_link_a_file_or_nothing_in_the_place_of_the_directory_is_not_used() {
    let fixture = Fixture::new();
    let real = fixture.folder.path().join("real");
    fs::create_dir(&real).expect("a directory");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).expect("its owner");
    symlink(&real, fixture.directory()).expect("a link");
    let not_one = "the directory can't be opened: Not a directory (os error 20)";
    assert_eq!(is_unusable(&fixture), not_one);
    assert_eq!(names(&real), [""; 0]);
    fs::remove_file(fixture.directory()).expect("the link");
    fs::write(fixture.directory(), "").expect("a file");
    assert_eq!(is_unusable(&fixture), not_one);
    let nowhere = CodeCache::open(CodeCacheOptions::new(fixture.folder.path().join("no/where")), OURS);
    assert_eq!(failure(&nowhere), "the directory can't be made: No such file or directory (os error 2)");
}

#[test]
fn a_directory_that_is_repaired_or_removed_is_noticed_without_a_restart() {
    let fixture = Fixture::new();
    fs::write(fixture.directory(), "").expect("a file");
    let cache = fixture.cache(OURS);
    assert_ne!(failure(&cache), "");
    fs::remove_file(fixture.directory()).expect("the file");
    cache.store(&module(b"m"));
    assert_eq!(failure(&cache), "");
    assert!(load(&cache, b"m").is_some());
    fs::remove_dir_all(fixture.directory()).expect("the directory");
    assert!(load(&cache, b"m").is_none());
    cache.store(&module(b"m"));
    assert!(load(&cache, b"m").is_some());
}

/// What `work` logs, a line for each event.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let writer = Mutex::new(file.reopen().expect("a descriptor"));
    let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(writer).finish();
    tracing::subscriber::with_default(subscriber, work);
    fs::read_to_string(file.path()).expect("text").lines().map(ToOwned::to_owned).collect()
}

#[test]
fn what_is_wrong_is_logged_once_with_its_place_and_so_is_its_end() {
    let fixture = Fixture::new();
    let directory = fixture.directory();
    fs::write(&directory, "").expect("a file");
    let lines = logged(|| {
        let cache = fixture.cache(OURS);
        for _ in 0..3 {
            assert!(load(&cache, b"m").is_none());
            cache.store(&module(b"m"));
        }
        fs::remove_file(&directory).expect("the file");
        for _ in 0..3 {
            cache.store(&module(b"m"));
        }
        fs::write(fixture.file(OURS, b"m"), "damaged").expect("a file");
        for _ in 0..3 {
            assert!(load(&cache, b"m").is_none());
        }
    });
    let [unusable, again, bad] = <[String; 3]>::try_from(lines).expect("three lines");
    let place = format!(
        " modules are compiled without the code cache in {directory:?}: the directory can't be opened"
    );
    assert!(unusable.contains("WARN") && unusable.contains(&place), "{unusable}");
    assert!(again.contains("INFO") && again.ends_with("works again"), "{again}");
    let place = format!("{:?} is no compiled module: it doesn't begin as", fixture.file(OURS, b"m"));
    assert!(bad.contains("WARN") && bad.contains(&place), "{bad}");
}

/// Runs a test of this program again, where a tmpfs with these options is mounted for it alone; as an ordinary user in
/// a user namespace. `None`: this is that run, and the tmpfs.
fn on_a_tmpfs(test: &str, options: &str) -> Option<PathBuf> {
    const MARK: &str = "CODE_CACHE_TEST_TMPFS";
    if let Some(folder) = std::env::var_os(MARK) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let script = r#"mount -t tmpfs -o "$1" none "$2" && exec "$3" --exact "$4" --nocapture"#;
    command.args(["--mount", "sh", "-c", script, "sh", options]).arg(folder.path());
    command.arg(std::env::current_exe().expect("this program")).arg(test).env(MARK, folder.path());
    let ran = command.output().expect("unshare runs");
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    None
}

#[test]
fn a_full_disk_costs_compilations_and_is_used_again_once_there_is_room() {
    let name = "code_cache::a_full_disk_costs_compilations_and_is_used_again_once_there_is_room";
    let Some(folder) = on_a_tmpfs(name, "size=1m,mode=0700") else { return };
    let ballast = folder.join("ballast");
    let cache = CodeCache::open(CodeCacheOptions::new(folder.join("code")), OURS);
    let large = Module::new(b"m", interface(), &vec![7; 500_000]).expect("a memory file");
    fs::write(&ballast, vec![0; 700_000]).expect("room for it");
    cache.store(&large);
    assert_eq!(failure(&cache), "a file can't be written: No space left on device (os error 28)");
    assert_eq!(names(&folder.join("code")), [""; 0], "no half of a file stays");
    assert!(load(&cache, b"m").is_none());
    fs::remove_file(ballast).expect("the ballast");
    cache.store(&large);
    assert_eq!(failure(&cache), "");
    assert_eq!(load(&cache, b"m").map(|module| code(&module)), Some(vec![7; 500_000]));
}

#[test]
fn a_read_only_disk_costs_compilations() {
    let name = "code_cache::a_read_only_disk_costs_compilations";
    let Some(folder) = on_a_tmpfs(name, "size=1m,mode=0700,ro") else { return };
    let cache = CodeCache::open(CodeCacheOptions::new(folder.clone()), OURS);
    assert_eq!(failure(&cache), "", "there is nothing to write yet");
    cache.store(&module(b"m"));
    assert_eq!(failure(&cache), "no file can be made: Read-only file system (os error 30)");
    assert!(load(&cache, b"m").is_none());
    let missing = CodeCache::open(CodeCacheOptions::new(folder.join("code")), OURS);
    assert_eq!(failure(&missing), "the directory can't be made: Read-only file system (os error 30)");
}

/// Lets a module have been used so long ago.
fn used_before(fixture: &Fixture, fingerprint: Fingerprint, wasm: &[u8], ago: Duration) {
    let file = File::open(fixture.file(fingerprint, wasm)).expect("it is there");
    file.set_modified(SystemTime::now() - ago).expect("its owner");
}

#[test]
fn over_its_bound_of_bytes_or_modules_the_cache_forgets_other_fingerprints_and_then_what_was_used_longest_ago()
 {
    let bytes = entry::encode(OURS, &module(b"0")).expect("memory").len() as u64;
    for (bytes_max, modules_max) in [(4 * bytes + bytes / 2, 100), (1 << 20, 4)] {
        let fixture = Fixture::new();
        fixture.cache(OTHER).store(&module(b"0"));
        let options =
            CodeCacheOptions { bytes_max, modules_max, ..CodeCacheOptions::new(fixture.directory()) };
        let cache = CodeCache::open(options, OURS);
        let hour = Duration::from_secs(3600);
        for (wasm, hours) in [(b"1", 3), (b"2", 4), (b"3", 2)] {
            cache.store(&module(wasm));
            used_before(&fixture, OURS, wasm, hours * hour);
        }
        assert_eq!(cache.status().evicted, 0);
        cache.store(&module(b"4"));
        assert!(
            load(&fixture.cache(OTHER), b"0").is_none(),
            "another fingerprint's goes, though it was used last"
        );
        // Used again, so that another is the oldest.
        assert!(load(&cache, b"2").is_some());
        cache.store(&module(b"5"));
        assert!(load(&cache, b"1").is_none());
        for kept in [b"2", b"3", b"4", b"5"] {
            assert!(load(&cache, kept).is_some());
        }
        assert_eq!(cache.status().evicted, 2);
        assert_eq!(names(&fixture.directory()).len(), 4);
    }
}

#[test]
fn a_smaller_bound_holds_from_the_start_and_a_module_beyond_it_makes_no_room() {
    let fixture = Fixture::new();
    for wasm in [b"1", b"2", b"3"] {
        fixture.cache(OURS).store(&module(wasm));
    }
    let options = CodeCacheOptions { modules_max: 2, ..CodeCacheOptions::new(fixture.directory()) };
    drop(CodeCache::open(options.clone(), OURS));
    assert_eq!(names(&fixture.directory()).len(), 2);
    let cache = CodeCache::open(CodeCacheOptions { bytes_max: 1000, ..options }, OURS);
    cache.store(&Module::new(b"4", interface(), &[0; 1000]).expect("a memory file"));
    let said = failure(&cache);
    assert!(
        said.starts_with("a module of 1") && said.ends_with("fit into 1000 bytes (code_cache.size)"),
        "{said}"
    );
    assert_eq!(names(&fixture.directory()).len(), 2);
}

#[test]
fn files_that_are_not_the_caches_are_neither_counted_nor_removed() {
    let fixture = Fixture::new();
    fs::DirBuilder::new().create(fixture.directory()).expect("a directory");
    fs::set_permissions(fixture.directory(), fs::Permissions::from_mode(0o700)).expect("its owner");
    let foreign = ["letter", "my.code", "abc-def.code"];
    for name in foreign {
        fs::write(fixture.directory().join(name), vec![0; 5000]).expect("a file");
    }
    let options =
        CodeCacheOptions { bytes_max: 4000, modules_max: 1, ..CodeCacheOptions::new(fixture.directory()) };
    let cache = CodeCache::open(options, OURS);
    cache.store(&module(b"1"));
    cache.store(&module(b"2"));
    assert!(load(&cache, b"2").is_some());
    let names = names(&fixture.directory());
    assert!(
        names.len() == 4 && foreign.iter().all(|name| names.iter().any(|found| found == name)),
        "{names:?}"
    );
}

#[test]
fn what_a_killed_node_left_half_written_goes_and_what_another_is_writing_stays_and_counts() {
    let fixture = Fixture::new();
    drop(fixture.cache(OURS));
    let [dead, alive] = ["17-0.code.new", "18-0.code.new"].map(|name| fixture.directory().join(name));
    fs::write(&dead, vec![0; 5000]).expect("a file");
    fs::write(&alive, vec![0; 5000]).expect("a file");
    let writer = File::open(&alive).expect("a file");
    rustix::fs::flock(&writer, FlockOperation::LockExclusive).expect("nobody else holds it");
    let options = CodeCacheOptions { bytes_max: 5100, ..CodeCacheOptions::new(fixture.directory()) };
    let cache = CodeCache::open(options, OURS);
    assert!(!dead.exists() && alive.exists());
    cache.store(&module(b"m"));
    assert_eq!(failure(&cache), "no room can be made: what is in the directory can't be removed");
    drop(writer);
    cache.store(&module(b"m"));
    assert!(!alive.exists() && load(&cache, b"m").is_some());
    assert_eq!(failure(&cache), "");
}

#[test]
fn two_nodes_that_write_and_read_the_same_modules_at_once_see_whole_ones_only() {
    let fixture = Fixture::new();
    let nodes = [fixture.cache(OURS), fixture.cache(OURS)];
    let wasm = |number: usize| [b'a' + u8::try_from(number % 4).expect("below 4")];
    let native = |number: usize| vec![wasm(number)[0]; 100_000];
    thread::scope(|scope| {
        for cache in nodes.iter().cycle().take(4) {
            scope.spawn(move || {
                for number in 0..40 {
                    if let Some(module) = load(cache, &wasm(number)) {
                        assert!(code(&module) == native(number));
                    }
                    let module = Module::new(&wasm(number), interface(), &native(number));
                    cache.store(&module.expect("a memory file"));
                }
            });
        }
    });
    for cache in &nodes {
        let CodeCacheStatus { stored, bad, failure, .. } = cache.status();
        assert_eq!((stored, bad, failure), (80, 0, None));
    }
    assert_eq!(names(&fixture.directory()).len(), 4);
}

/// Compiles nothing before another module is compiled as well.
#[derive(Default)]
struct Together(Mutex<usize>, Condvar);

impl Compiler for Together {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        let Self(compiling, changed) = self;
        let mut compiling = compiling.lock().expect("no panic");
        *compiling += 1;
        changed.notify_all();
        let long = Duration::from_secs(60);
        let met = changed.wait_timeout_while(compiling, long, |compiling| *compiling < 2);
        assert!(!met.expect("no panic").1.timed_out(), "the other module isn't compiled meanwhile");
        Ok(Ok(Arc::new(module(wasm))))
    }
}

#[test]
fn two_modules_are_compiled_at_the_same_time() {
    let fixture = Fixture::new();
    let compiler = CachingCompiler::new(Arc::new(fixture.cache(OURS)), Box::new(Together::default()));
    let compiler = ModuleCompiler::keeping(Box::new(compiler));
    thread::scope(|scope| {
        for wasm in [b"1", b"2"] {
            scope.spawn(|| compiler.compile(wasm).expect("a compiler").expect("a module"));
        }
    });
    assert_eq!(names(&fixture.directory()).len(), 2);
}

/// A node whose policy says `mode` and this directory, after it ran a canister's first message.
fn run_a_canister(folder: &Path, mode: Mode) -> (CodeCacheStatus, Arc<[u8]>) {
    let directory = folder.join("code");
    let text = format!(
        "schema = 1\n[default]\nmode = \"{}\"\n[sandbox]\npool = 0\n[code_cache]\ndirectory = \"{}\"\n",
        mode.as_str(),
        directory.display()
    );
    let path = folder.join("policy.toml");
    fs::write(&path, text).expect("a file");
    let policy = PolicySource::File { path, subnet: "s".to_owned(), node: "n".to_owned(), generations: None };
    let fixed = NodeOptions::fixed(mode, Preset::System);
    let node = Node::new(NodeOptions { policy, threads: Some(1), ..fixed }).expect("a node");
    on_executor_stack(move || {
        let mut driver = Driver::new(node);
        let canister = driver.create(0);
        let installed = driver.install(canister, 0);
        driver.answer(&installed);
        let sent = driver.send(canister, "inc", EMPTY, 1);
        (driver.node.code_cache().expect("a directory"), driver.answer(&sent))
    })
}

#[test]
fn in_both_modes_a_nodes_second_start_loads_its_canisters_code_and_a_damaged_file_is_compiled_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let compiled = CodeCacheStatus { missed: 1, stored: 1, ..CodeCacheStatus::default() };
    let (status, first) = run_a_canister(folder.path(), Mode::Sandboxed);
    assert_eq!(status, compiled);
    for mode in [Mode::InProcess, Mode::Sandboxed] {
        let (status, reply) = run_a_canister(folder.path(), mode);
        assert_eq!(status, CodeCacheStatus { loaded: 1, ..CodeCacheStatus::default() }, "{mode:?}");
        assert_eq!(reply, first, "{mode:?}");
        let [file] = <[String; 1]>::try_from(names(&folder.path().join("code"))).expect("one module");
        let file = File::options().write(true).open(folder.path().join("code").join(file)).expect("a file");
        file.write_all_at(b"damage", 2_000).expect("its owner");
        let (status, reply) = run_a_canister(folder.path(), mode);
        assert_eq!(status, CodeCacheStatus { bad: 1, ..compiled.clone() }, "{mode:?}");
        assert_eq!(reply, first, "{mode:?}");
    }
}
