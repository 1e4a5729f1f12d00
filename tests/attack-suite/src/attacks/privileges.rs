//! Users, capabilities, namespaces, mounts.

use hostile::{Order, Own, call, result, text};
use libc::{EPERM, ESRCH};
use sandbox_os::{Layers, verify};

use super::Attack;
use crate::stage::{Hostile, Said, Setting, Stage};
use crate::table::{Control, Phase, Rows};
use crate::trial::{Alone, Scene, Stop, Trial, Way};
use crate::witness::{found, namespace, status};

/// Another worker's user id: one of those that the launcher gives.
const ANOTHER: u64 = 2_000_000_001;
const ROOTS: &str = "an ordinary user has no capability to begin with";

pub(super) fn attacks() -> Vec<Attack> {
    vec![becomes_another(), namespaces()]
}

fn becomes_another() -> Attack {
    let user = |_: &Stage, _: &Hostile| {
        Scene::calls(&[call(libc::SYS_setuid, &[ANOTHER])], &[], |_, worker| {
            status(worker.pid(), "Uid").starts_with(&ANOTHER.to_string())
        })
    };
    let group = |_: &Stage, _: &Hostile| {
        Scene::calls(&[call(libc::SYS_setresgid, &[ANOTHER, ANOTHER, ANOTHER])], &[], |_, worker| {
            status(worker.pid(), "Gid").starts_with(&ANOTHER.to_string())
        })
    };
    // All that root has, and to be handed on to every program.
    let capabilities = |_: &Stage, _: &Hostile| {
        let all = u64::from_str_radix(&status(std::process::id() as i32, "CapPrm"), 16).unwrap_or(0);
        let mut bytes = 0x2008_0522_u64.to_le_bytes().to_vec();
        for half in [all as u32, (all >> 32) as u32] {
            (0..3).for_each(|_| bytes.extend(half.to_le_bytes()));
        }
        Scene::calls(&[call(libc::SYS_capset, &[text(0), text(8)])], &bytes, move |_, worker| {
            u64::from_str_radix(&status(worker.pid(), "CapInh"), 16) == Ok(all) && all != 0
        })
    };
    let key = |_: &Stage, _: &Hostile| {
        const PROCESS_KEYRING: u64 = -2_i64 as u64;
        let calls = [call(libc::SYS_add_key, &[text(0), text(5), text(5), 3, PROCESS_KEYRING])];
        Scene::calls(&calls, b"user\0key\0", |said, _| found(said).is_some_and(|key| key > 0))
    };
    let layout = |_: &Stage, _: &Hostile| {
        const NO_RANDOM: u64 = libc::ADDR_NO_RANDOMIZE as u64;
        Scene::calls(&[call(libc::SYS_personality, &[NO_RANDOM])], &[], |_, worker| {
            let now = std::fs::read_to_string(format!("/proc/{}/personality", worker.pid()));
            now.is_ok_and(|now| u64::from_str_radix(now.trim(), 16) == Ok(NO_RANDOM))
        })
    };
    let trial = Trial::of_calls(vec![
        Way::new("user id", user).needs_root(ROOTS),
        Way::new("group id", group).needs_root(ROOTS),
        Way::new("capabilities", capabilities).needs_root(ROOTS),
        Way::new("key", key),
        Way::new("layout", layout),
    ])
    .alone(
        Alone::layer("user of its own alone", Layers::USER, Stop::Errno(&[EPERM]))
            .only(&["user id", "group id", "capabilities"])
            .needs_root(ROOTS),
    )
    .alone(
        Alone::layer("no capabilities alone", Layers::CAPABILITIES, Stop::Errno(&[EPERM]))
            .only(&["user id", "group id", "capabilities"])
            .needs_root(ROOTS),
    )
    .alone(Alone::layer("SETUP filter alone", Layers::SETUP, Stop::Sigsys).only(&["key"]));
    let title = "becomes another user, takes capabilities, keys, a known layout, a filter of its own";
    Attack::once("A13", title, move |stage, rows| {
        trial.perform(stage, rows);
        own_filter(stage, rows);
    })
}

/// LOAD lets a worker install one more filter, which is RUN's. Another one passes wherever filters are only counted.
fn own_filter(stage: &Stage, rows: &mut Rows) {
    if !stage.root {
        let why = "the kernel tells filters to root alone: such a worker stays under LOAD's list";
        return rows.reduced("filters read back", why);
    }
    let counted = || -> Result<Hostile, String> {
        let mut worker = stage.worker(Setting::LOAD)?;
        match worker.ask(&Order::routine("filter-of-its-own", [0; 4]), &[]) {
            Said::Done { .. } => {}
            other => return Err(format!("a filter of its own: {other:?}")),
        }
        verify::launched(worker.launched(), verify::Phase::Run, &[]).map_err(|why| why.to_string())?;
        Ok(worker)
    };
    let worker = counted();
    // Counting finds nothing: that is the control.
    let control = worker.as_ref().map(|_| Control::Fired).map_err(String::clone);
    let contained = worker.and_then(|worker| match stage.has_filters_of_run(Setting::LOAD, &worker)? {
        true => Err("its filter was taken for RUN's".to_owned()),
        false => Ok(()),
    });
    // And the real one is known.
    let contained = contained.and_then(|()| {
        let real = stage.worker(Setting::RUN)?;
        match stage.has_filters_of_run(Setting::RUN, &real)? {
            true => Ok(()),
            false => Err("RUN's own filter isn't known".to_owned()),
        }
    });
    rows.add(Phase::Load, "filters read back by the launcher", &control, contained);
}

fn namespaces() -> Attack {
    let user = |_: &Stage, worker: &Hostile| {
        let before = namespace(worker.pid(), "user");
        Scene::calls(&[call(libc::SYS_unshare, &[libc::CLONE_NEWUSER as u64])], &[], move |_, worker| {
            // A dead process has none.
            let now = namespace(worker.pid(), "user");
            now.is_some() && now != before
        })
    };
    let mount = |_: &Stage, _: &Hostile| {
        let calls = [call(libc::SYS_mount, &[text(0), text(7), text(9), 0, 0])];
        Scene::calls(&calls, b"attack\0/\0tmpfs\0", |_, worker| {
            let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", worker.pid()));
            mounts.is_ok_and(|mounts| mounts.contains(" attack "))
        })
    };
    let join = |_: &Stage, worker: &Hostile| {
        let calls = [
            call(libc::SYS_pidfd_open, &[std::process::id().into(), 0]),
            call(libc::SYS_setns, &[result(0), libc::CLONE_NEWNET as u64]),
        ];
        let before = namespace(worker.pid(), "net");
        Scene::calls(&calls, &[], move |_, worker| {
            let now = namespace(worker.pid(), "net");
            now != before && now == namespace(std::process::id() as i32, "net")
        })
    };
    // A worker of its own mount namespace, or network namespace, and all of root's rights in it.
    let in_mount = Setting::of(Layers::MOUNT, Own::NOTHING);
    let in_net = Setting::of(Layers::NET, Own::NOTHING);
    let trial = Trial::of_calls(vec![
        Way::new("unshare", user),
        Way::new("mount", mount).control(in_mount),
        Way::new("setns", join)
            .control(in_net)
            .needs_root("the node's namespaces belong to root's user namespace"),
    ]);
    let setup = || Alone::layer("SETUP filter alone", Layers::SETUP, Stop::Sigsys);
    let capabilities = || Alone::layer("no capabilities alone", Layers::CAPABILITIES, Stop::Errno(&[EPERM]));
    let trial = trial
        .alone(setup().only(&["unshare"]))
        .alone(setup().beside(Layers::MOUNT).only(&["mount"]))
        .alone(setup().beside(Layers::NET).only(&["setns"]))
        .alone(capabilities().beside(Layers::MOUNT).only(&["mount"]))
        .alone(capabilities().beside(Layers::NET).only(&["setns"]).needs_root("this way is root's"))
        .alone(
            Alone::layer("Landlock alone", Layers::LANDLOCK, Stop::Errno(&[EPERM]))
                .beside(Layers::MOUNT)
                .only(&["mount"]),
        )
        .alone(
            Alone::layer("pid namespace alone", Layers::PID, Stop::Errno(&[ESRCH]))
                .beside(Layers::NET)
                .only(&["setns"])
                .needs_root("this way is root's"),
        );
    Attack::worker("A14", "leaves its namespaces, or makes new ones to get rights", trial)
}
