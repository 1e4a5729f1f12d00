//! A worker in LOAD as `/proc` shows it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use rustix::fs::SealFlags;
use sandbox_os::{Socket, image, machine, verify};

use super::{Layer, Need};

/// Bytes read of one `/proc` file at most.
const PROC_BYTES_MAX: u64 = 1 << 20;
const NAMESPACES: &str =
    "allow namespaces: user.max_*_namespaces above 0, and no container profile against them";

/// Namespaces by the name of their link.
const NAMESPACE_LINKS: [(&str, &str, Need); 6] = [
    ("mount namespace", "mnt", Need::Wanted),
    ("pid namespace", "pid", Need::Wanted),
    ("network namespace", "net", Need::Wanted),
    ("ipc namespace", "ipc", Need::Wanted),
    ("uts namespace", "uts", Need::Opportunistic),
    ("cgroup namespace", "cgroup", Need::Opportunistic),
];

/// A process's files.
struct Process(i32);

impl Process {
    fn file(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(format!("/proc/{}/{name}", self.0))?.take(PROC_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }

    fn link(&self, name: &str) -> io::Result<String> {
        Ok(fs::read_link(format!("/proc/{}/{name}", self.0))?.display().to_string())
    }
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map_or("", |rest| rest.trim_start_matches(':').trim())
}

/// What can be seen of worker `pid`; `launched` is what its launcher says was in force before exec.
pub(super) fn layers(pid: i32, launched: &[(&'static str, bool)]) -> io::Result<Vec<Layer>> {
    let (worker, node) = (Process(pid), Process(std::process::id().cast_signed()));
    let status = worker.file("status")?;
    let own = node.file("status")?;
    let mut layers = Vec::new();
    let mut found =
        |name, need, on, probe: String, advice| layers.push(Layer { name, need, on, probe, advice });

    let filters = field(&status, "Seccomp_filters");
    let mode = field(&status, "Seccomp");
    let text = format!("mode {mode}, {filters} filters");
    found(
        "seccomp: filters in force",
        Need::Required,
        mode == "2",
        text,
        "a kernel with CONFIG_SECCOMP_FILTER",
    );
    let value = field(&status, "NoNewPrivs");
    found("no new privileges", Need::Required, value == "1", format!("NoNewPrivs {value}"), "");
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| field(&status, name));
    let none = sets.iter().all(|set| !set.is_empty() && set.chars().all(|digit| digit == '0'));
    found("no capabilities", Need::Required, none, format!("all five sets {}", sets[2]), "");

    let uid = |status: &str| field(status, "Uid").split_whitespace().next().unwrap_or_default().to_owned();
    let (theirs, ours) = (uid(&status), uid(&own));
    let apart = worker.link("ns/user")? != node.link("ns/user")?;
    let text = format!("uid {theirs}, the node's {ours}{}", if apart { ", in a user namespace" } else { "" });
    let advice = "run the node as root, or allow user namespaces (user.max_user_namespaces above 0)";
    found("user apart from the node", Need::Required, apart || theirs != ours, text, advice);
    let advice = "run the node as root: as an ordinary user all workers share its id";
    found("user id of its own", Need::Wanted, theirs != ours, format!("uid {theirs}"), advice);

    let descriptors = verify::descriptors(pid)?;
    found("one descriptor", Need::Required, descriptors == [3], format!("{descriptors:?}"), "");
    let threads = field(&status, "Threads");
    found("one thread", Need::Required, threads == "1", format!("Threads {threads}"), "");
    sealed(&worker, &mut found)?;
    let maps = worker.file("maps")?;
    let permissions = || maps.lines().filter_map(|line| line.split_whitespace().nth(1));
    let loose = permissions().filter(|p| p.contains('w') && (p.contains('x') || p.ends_with('s'))).count();
    let text = format!("{loose} of {} mappings writable and executable or shared", permissions().count());
    found("no loose memory", Need::Required, loose == 0, text, "");
    let owner = fs::metadata(format!("/proc/{pid}/maps"))?.uid();
    // Inside a user namespace its files would belong to the same user either way.
    let text = if apart {
        "a worker that can't be made undumpable ends before LOAD".to_owned()
    } else {
        format!("its /proc files belong to {owner}, not to {theirs}")
    };
    found("undumpable, no core file", Need::Required, apart || owner.to_string() != theirs, text, "");

    let in_force = |name: &str| launched.iter().any(|(layer, on)| *on && layer.starts_with(name));
    for (name, link, need) in NAMESPACE_LINKS {
        let (theirs, ours) = (worker.link(&format!("ns/{link}"))?, node.link(&format!("ns/{link}"))?);
        found(name, need, theirs != ours, format!("{theirs}, the node's {ours}"), NAMESPACES);
    }
    let abi = machine::landlock_abi();
    let text = abi
        .map_or("none in this kernel".into(), |abi| format!("tried before exec; the kernel has ABI {abi}"));
    let advice = "a kernel with CONFIG_SECURITY_LANDLOCK, and landlock among lsm= at boot";
    found("landlock, no rules", Need::Wanted, in_force("landlock"), text, advice);
    limits(&worker.file("limits")?, &mut found);
    groups(&worker, &node, &mut found)?;
    opportunistic(&worker, &status, &mut found);
    Ok(layers)
}

type Found<'a> = dyn FnMut(&'static str, Need, bool, String, &'static str) + 'a;

/// The image, and that seals hold.
fn sealed(worker: &Process, found: &mut Found<'_>) -> io::Result<()> {
    let image = worker.link("exe").unwrap_or_else(|error| error.to_string());
    let probe = image::sealed(b"image")?;
    let seals = rustix::fs::fcntl_get_seals(&probe)?;
    let wanted = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    let refused = rustix::io::pwrite(&probe, b"x", 0).is_err();
    let on = seals.contains(wanted) && refused && image.starts_with("/memfd:");
    found("sealed image", Need::Required, on, format!("{image}, a write to such a file refused"), "");
    Ok(())
}

/// `name soft hard unit`, columns of fixed width.
fn limits(text: &str, found: &mut Found<'_>) {
    const WANTED: [(&str, u64); 4] =
        [("Max core file size", 0), ("Max file size", 0), ("Max processes", 0), ("Max open files", 16)];
    let soft = |name: &str| field(text, name).split_whitespace().next().unwrap_or_default().to_owned();
    let on = WANTED.iter().all(|(name, most)| soft(name).parse::<u64>().is_ok_and(|limit| limit <= *most));
    let text = WANTED.map(|(name, _)| format!("{} {}", &name[4..], soft(name))).join(", ");
    found("resource limits", Need::Wanted, on, text, "");
}

/// Whether it is in a group of its own that limits its memory and its processes: `number:controllers:path` a line.
fn groups(worker: &Process, node: &Process, found: &mut Found<'_>) -> io::Result<()> {
    let (theirs, ours) = (worker.file("cgroup")?, node.file("cgroup")?);
    let path = |text: &str, controller: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
        })
    };
    // Version 2 has one group for all controllers, in the line without any.
    let apart = |controller: &str| {
        let of = |text: &str| path(text, controller).or_else(|| path(text, ""));
        of(&theirs).is_some_and(|theirs| of(&ours).is_some_and(|ours| theirs != ours))
    };
    let [memory, processes] = ["memory", "pids"].map(apart);
    let word = |on: bool| if on { "a group of its own" } else { "the node's group" };
    let text = format!("memory: {}, pids: {}", word(memory), word(processes));
    let advice =
        "run the node as root where it may make control groups (v1 memory and pids, or a delegated v2)";
    found("memory and process limits (cgroup)", Need::Wanted, memory && processes, text, advice);
    Ok(())
}

fn opportunistic(worker: &Process, status: &str, found: &mut Found<'_>) {
    let need = Need::Opportunistic;
    let refused = passes_no_files();
    let text = format!("sending one: {}", if refused { "refused" } else { "dropped on receipt" });
    found("no descriptors to the node (SO_PASSRIGHTS)", need, refused, text, "Linux 6.16");
    let store = field(status, "Speculation_Store_Bypass").to_owned();
    let on = store == "not vulnerable" || store.contains("mitigated");
    found("speculative store bypass off (SSBD)", need, on, store, "current microcode");
    let indirect = field(status, "SpeculationIndirectBranch").to_owned();
    let on = indirect == "not affected" || indirect.contains("disabled");
    found("indirect branch speculation off", need, on, indirect, "current microcode");
    let huge = field(status, "THP_enabled").to_owned();
    found("no transparent huge pages", need, huge == "0", format!("THP_enabled {huge}"), "");
    let score = worker.file("oom_score_adj").unwrap_or_default().trim().to_owned();
    let on = score.parse::<i32>().is_ok_and(|score| score > 0);
    found("first to go when memory runs out", need, on, format!("oom_score_adj {score}"), "");
}

/// Whether the kernel refuses to send a descriptor to an end that takes none.
fn passes_no_files() -> bool {
    use std::os::fd::AsFd;
    Socket::pair().is_ok_and(|(node, worker)| {
        node.refuse_files();
        worker.send_with_files(&[0], &[worker.as_fd()]).is_err()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_one_that_is_too_high_is_off() {
        let text = |files| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max file size             0                    0                    bytes\n\
                 Max core file size        0                    0                    bytes\n\
                 Max processes             0                    0                    processes\n\
                 Max open files            {files}                   16                   files\n"
            )
        };
        let on = |text: &str| {
            let mut all = Vec::new();
            limits(text, &mut |name, _, on, probe, _| all.push((name, on, probe)));
            all.pop().unwrap()
        };
        let probe = "core file size 0, file size 0, processes 0, open files 16";
        assert_eq!(on(&text("16")), ("resource limits", true, probe.to_owned()));
        assert!(!on(&text("1024")).1);
        assert!(!on(&text("unlimited")).1);
        assert!(!on("").1);
    }

    #[test]
    fn a_process_that_nothing_confines_has_no_layer_but_what_any_process_has() {
        let layers = layers(std::process::id().cast_signed(), &[]).unwrap();
        let off = |name: &str| !layers.iter().find(|layer| layer.name == name).unwrap().on;
        for name in [
            "user apart from the node",
            "one descriptor",
            "sealed image",
            "mount namespace",
            "landlock, no rules",
            "resource limits",
            "memory and process limits (cgroup)",
        ] {
            assert!(off(name), "{name}");
        }
    }
}
