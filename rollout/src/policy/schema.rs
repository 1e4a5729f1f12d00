//! What may stand in a policy file: one table, from which files are read, shown and described to editors.

use super::kind::Kind;
use super::units::{DURATION, SIZE};
use crate::{KINDS, Mode};

/// The version of the schema.
pub(super) const VERSION: i64 = 1;

/// A table of the file, or a kind of tables.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// What it is for, one sentence.
    pub(super) about: &'static str,
    pub(super) keys: &'static [Key],
    /// Keys that the full schema has and this version does not.
    pub(super) later: &'static [&'static str],
}

/// How often a section may stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `[name]`
    Once,
    /// `[name.ID]`
    ById,
    /// `[[name]]`, each with another value of this key
    List(&'static str),
    /// `[[PARENT.ID.KEY]]`, in their order: the tables of this key in those of another section
    Within(&'static str, &'static str),
}

/// A key of a section, and what may stand there.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    /// What it says, one sentence.
    pub(super) about: &'static str,
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, required: false, about }
}

const fn required(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, required: true, about }
}

const fn number(name: &'static str, (least, most): (u64, u64), about: &'static str) -> Key {
    key(name, Kind::Number { least, most }, about)
}

const fn size(name: &'static str, (least, most): (u64, u64), about: &'static str) -> Key {
    key(name, Kind::Quantity { units: &SIZE, least, most }, about)
}

const fn duration(name: &'static str, (least, most): (u64, u64), about: &'static str) -> Key {
    key(name, Kind::Quantity { units: &DURATION, least, most }, about)
}

const ANY_MODE: Kind = Kind::Mode { allowed: &Mode::ALL, because: "" };
const STRONGER: Kind = Kind::Mode {
    allowed: &[Mode::Sandboxed, Mode::Shadow],
    because: "a rule for a canister only strengthens",
};
const WEAKER: Kind =
    Kind::Mode { allowed: &[Mode::InProcess, Mode::Shadow], because: "an exemption only weakens" };

const STEADY: Kind = Kind::Mode {
    allowed: &[Mode::InProcess, Mode::Sandboxed],
    because: "a rollout ends in one mode or the other",
};
const STEP_MODE: Kind = Kind::Mode { allowed: &Mode::ALL, because: "" };
/// As [`crate::Design`] has them.
const DESIGNS: [&str; 4] = ["aa", "node-split", "switchback", "percent"];
const GUARD_TYPES: [&str; 3] = ["latency-ratio", "rate-ratio", "fuse"];
const EVENTS: [&str; 3] = ["trap", "sandbox-crash", "confirmed-divergence"];
const ON_FAIL: [&str; 3] = ["rollback", "pause", "observe"];

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const MIB: u64 = 1 << 20;
const PIB: u64 = 1 << 50;

const EXPIRES: &str = "from this time on the mode falls through to the next layer";
const REASON: &str = "why; shown by explain and in logs";

/// All of them, in the order of messages. An upper bound of a number is there to find slips, not to be reached.
pub(super) const SECTIONS: [Section; 18] = [
    Section {
        name: "meta",
        form: Form::Once,
        about: "who looks after this file",
        keys: &[
            key("owner", Kind::Text, "named where the file is said to be stale"),
            key("reason_required", Kind::Flag, "whether a command has to say why"),
            required(
                "review_by",
                Kind::Time,
                "from this time on, the node and config check say that it is stale",
            ),
        ],
        later: &[],
    },
    Section {
        name: "kill_switch",
        form: Form::Once,
        about: "one mode for everything, floors included, for as long as a file is there",
        keys: &[
            required("file", Kind::Path, "its presence engages the switch; its content counts for nothing"),
            required("mode", ANY_MODE, "the mode while it is engaged"),
        ],
        later: &["max_age"],
    },
    Section {
        name: "switch",
        form: Form::Once,
        about: "what becomes of executions under way when the mode changes",
        keys: &[
            duration(
                "rollback_deadline",
                (50, MINUTE),
                "a rollback waits so long for what runs sandboxed, then ends its worker",
            ),
            duration(
                "drain_timeout",
                (SECOND, HOUR),
                "a step waits so long for executions that began before it, then it is rolled back",
            ),
        ],
        later: &["pin", "on_drain_timeout", "prewarm", "keep_old_warm"],
    },
    Section {
        name: "default",
        form: Form::Once,
        about: "what applies where nothing else speaks",
        keys: &[
            key("mode", ANY_MODE, "where canisters run"),
            key("floor", Kind::Floor, "the weakest mode that may be in force"),
        ],
        later: &[],
    },
    Section {
        name: "subnets",
        form: Form::ById,
        about: "a subnet, by its id",
        keys: &[
            key("mode", ANY_MODE, "where its canisters run"),
            key("floor", Kind::Floor, "its weakest mode, not below the default's; never expires"),
            key("labels", Kind::Labels, "what operators call it; shown by explain"),
            key("reason", Kind::Text, REASON),
            key("expires", Kind::Time, EXPIRES),
        ],
        later: &[],
    },
    Section {
        name: "nodes",
        form: Form::ById,
        about: "a pin of one node, by its id; stronger than subnets and canisters",
        keys: &[
            key("mode", ANY_MODE, "where canisters run on this node"),
            key("reason", Kind::Text, REASON),
            key("expires", Kind::Time, EXPIRES),
        ],
        later: &["labels"],
    },
    Section {
        name: "canisters",
        form: Form::List("id"),
        about: "a canister that runs in a stronger mode than its subnet's",
        keys: &[
            required("id", Kind::Canister, "which canister"),
            required("mode", STRONGER, "the weakest mode it runs in; a pin of the node overrides it"),
            key("reason", Kind::Text, REASON),
            key("expires", Kind::Time, EXPIRES),
        ],
        later: &[],
    },
    Section {
        name: "exemptions",
        form: Form::List("id"),
        about: "a canister that may run below the floor until a given time",
        keys: &[
            required("id", Kind::Canister, "which canister"),
            required("mode", WEAKER, "the mode it runs in, where it would be a stronger one"),
            required("expires", Kind::Time, "from this time on it is exempt from nothing"),
            required("reason", Kind::Text, REASON),
            required("approved_by", Kind::Names, "who agreed"),
        ],
        later: &[],
    },
    Section {
        name: "rollouts",
        form: Form::ById,
        about: "a change from one mode to another, step by step; between subnets and canisters in strength",
        keys: &[
            required("candidate", STEADY, "the mode to be put in force"),
            required("control", STEADY, "the mode it is compared with and goes back to"),
            key("salt", Kind::Text, "decides which canisters come first; silent: the rollout's id"),
            key("hash", Kind::Word(&["sip13-ppm-v1"]), "how canisters are put in buckets"),
            number(
                "holdout_ppm",
                (0, 999_999),
                "canisters per million that stay with the control to the end",
            ),
            key("on_failure", Kind::Word(&["rollback-all"]), "what a guard's failure goes back to"),
            duration(
                "retry_cooldown",
                (0, 720 * HOUR),
                "after a rollback no other attempt begins for so long",
            ),
            number("hold_at_step", (1, 100), "no step after this one begins"),
            required("steps", Kind::Steps, "how far, for how long"),
        ],
        later: &["windows", "freeze"],
    },
    Section {
        name: "rollouts.steps",
        form: Form::Within("rollouts", "steps"),
        about: "a step of a rollout",
        keys: &[
            required("name", Kind::Name, "for people"),
            required("scope", Kind::Scope, "where it applies"),
            key("design", Kind::Word(&DESIGNS), "how candidate and control share the traffic"),
            key("mode", STEP_MODE, "shadow, or the candidate"),
            key("percent", Kind::Decimal { least: 0, most: 100_000_000 }, "of the canisters; silent: all"),
            required(
                "bake",
                Kind::Quantity { units: &DURATION, least: SECOND, most: 720 * HOUR },
                "with traffic for so long before the next step",
            ),
            duration("max_bake", (SECOND, 720 * HOUR), "then an open guard pauses; silent: three times bake"),
            key("require", Kind::Require, "beside its guards"),
        ],
        later: &["gates", "batch", "tolerance"],
    },
    Section {
        name: "guards",
        form: Form::List("name"),
        about: "what ends or holds a rollout",
        keys: &[
            required("name", Kind::Name, "for people and metrics"),
            required("type", Kind::Word(&GUARD_TYPES), "how it is judged"),
            key("quantile", Kind::Decimal { least: 1, most: 999_999 }, "of latency-ratio: 0.99 is p99"),
            key(
                "limit",
                Kind::Decimal { least: 1_000_000, most: 1_000_000_000 },
                "largest ratio to the control",
            ),
            key("kinds", Kind::Words(&KINDS), "of messages; silent: update and query"),
            key("event", Kind::Word(&EVENTS), "what is counted"),
            number("allowance", (0, 5_000), "of rate-ratio: so many events are always accepted"),
            number("max", (0, 100_000), "of fuse: so many are accepted"),
            duration("window", (SECOND, 720 * HOUR), "of fuse: within so long"),
            key("on_fail", Kind::Word(&ON_FAIL), "what its failure does; silent: rollback"),
        ],
        later: &[],
    },
    Section {
        name: "guard_defaults",
        form: Form::Once,
        about: "what holds for all guards",
        keys: &[duration("looks", (SECOND, 24 * HOUR), "from one look to the next")],
        later: &["alpha", "confidence", "min_blocks", "tail_events", "bootstrap", "on_inconclusive"],
    },
    Section {
        name: "measure",
        form: Form::Once,
        about: "what guards measure",
        keys: &[
            duration("interval", (SECOND, MINUTE), "histograms are taken so often"),
            duration("block", (SECOND, 24 * HOUR), "the unit of comparison"),
            duration("warmup_discard", (0, 24 * HOUR), "doesn't count after a switch"),
        ],
        later: &["lowest", "highest", "significant_digits", "kinds", "hlog_dir", "hlog_keep"],
    },
    Section {
        name: "shadow",
        form: Form::Once,
        about: "what of the executions in shadow is run twice, and at what price",
        keys: &[
            number("sample_ppm", (1, 1_000_000), "of a million so many are compared; silent: all"),
            key(
                "max_cpu_share",
                Kind::Decimal { least: 1_000, most: 1_000_000 },
                "of the machine's processor time, at most for candidates; silent: 0.1",
            ),
            key(
                "deadline_factor",
                Kind::Decimal { least: 1_000_000, most: 1_000_000_000 },
                "a candidate is given so many times the control's time",
            ),
            duration("deadline_min", (10, HOUR), "and so long at least"),
            number("records_max", (1, 100_000), "different differences kept; more are only counted"),
        ],
        later: &["order", "compare", "ignore"],
    },
    Section {
        name: "memory",
        form: Form::Once,
        about: "memory of record; in force from the next start",
        keys: &[
            size("total", (64 * MIB, PIB), "of all canisters; silent: half of the machine's"),
            size("canister", (MIB, PIB >> 10), "of one canister, older snapshots included"),
        ],
        later: &[],
    },
    Section {
        name: "sandbox",
        form: Form::Once,
        about: "worker processes; in force from the next start",
        keys: &[
            number("workers_max", (1, 100_000), "workers with a canister"),
            size(
                "worker_memory",
                (64 * MIB, PIB),
                "private memory of all of them; silent: 3/8 of the machine's",
            ),
            number("pool", (0, 1_000), "workers launched ahead"),
            number("query_workers", (1, 100), "of one canister"),
            duration("idle", (SECOND, 720 * HOUR), "after this a worker goes"),
            duration(
                "step_patience",
                (SECOND, HOUR),
                "for anything but running, and for a run that gets nowhere",
            ),
            number(
                "instructions_per_second_min",
                (1_000_000, 100_000_000_000),
                "on its processor, or a running worker is taken for stuck",
            ),
            key("private_images", Kind::Flag, "whether no two workers share pages of their program"),
        ],
        later: &[],
    },
    Section {
        name: "in_process",
        form: Form::Once,
        about: "the engine in the node's process; in force from the next start",
        keys: &[
            number("instances_max", (0, 4_000), "warm instances kept"),
            number("code_max", (1, 100_000), "modules whose code stays mapped"),
        ],
        later: &[],
    },
    Section {
        name: "code_cache",
        form: Form::Once,
        about: "compiled modules on disk, none without this table; in force from the next start",
        keys: &[
            required("directory", Kind::Path, "the node's own; its parent has to be there"),
            size("size", (MIB, PIB), "of all files"),
            number("modules_max", (1, 50_000), "beyond either, what was used longest ago goes"),
        ],
        later: &[],
    },
];

/// Sections that the full schema has and this version does not.
pub(super) const LATER: [&str; 4] = ["capacity", "store", "admin", "notify"];

/// The section whose tables stand under `key` in those of `parent`.
pub(super) fn within(parent: &str, key: &str) -> Option<&'static Section> {
    SECTIONS
        .iter()
        .find(|section| matches!(section.form, Form::Within(of, list) if (of, list) == (parent, key)))
}

/// The section called `name`.
pub(super) fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

impl Section {
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// As messages name it: `[name]`, `[name.ID]` or `[[name]]`.
    pub(super) fn header(&self, id: &str) -> String {
        match self.form {
            Form::Once => format!("[{}]", self.name),
            Form::ById => format!("[{}.{id}]", self.name),
            Form::List(_) => format!("[[{}]]", self.name),
            Form::Within(parent, key) => format!("[[{parent}.{id}.{key}]]"),
        }
    }
}
