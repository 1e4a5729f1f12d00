//! The catalogue. To add an attack: write `Attack::worker` or `Attack::once` in the file of its subject, and have that
//! file's `attacks()` return it; a new file gets its line in [`all`].

mod clocks;
mod files;
mod kernel;
mod life;
mod memory;
mod network;
mod node;
mod privileges;
mod processes;

pub use life::STAND_IN;
pub use processes::program;

use crate::stage::Stage;
use crate::table::Rows;
use crate::trial::Trial;

/// One attack of the catalogue.
pub struct Attack {
    /// `A1` to `A62`.
    pub id: &'static str,
    /// What it tries.
    pub title: &'static str,
    perform: Perform,
}

type Perform = Box<dyn Fn(&Stage, &mut Rows)>;

impl Attack {
    /// An attack of a worker on the kernel or the machine.
    #[must_use]
    pub fn worker(id: &'static str, title: &'static str, trial: Trial) -> Self {
        Self::once(id, title, move |stage, rows| trial.perform(stage, rows))
    }

    /// Any other: `perform` makes the attack and its control, and adds at least one row.
    #[must_use]
    pub fn once(
        id: &'static str,
        title: &'static str,
        perform: impl Fn(&Stage, &mut Rows) + 'static,
    ) -> Self {
        Self { id, title, perform: Box::new(perform) }
    }

    /// Performs it.
    #[must_use]
    pub fn rows(&self, stage: &Stage) -> Rows {
        let mut rows = Rows::of(self.id, self.title);
        (self.perform)(stage, &mut rows);
        rows
    }
}

/// Numbers in the catalogue: A1 to A62.
pub const CATALOGUE: u32 = 62;

/// The attacks of the catalogue that nobody performs.
#[must_use]
pub fn missing(all: &[Attack]) -> Vec<String> {
    let ids = (1..=CATALOGUE).map(|number| format!("A{number}"));
    ids.filter(|id| all.iter().all(|attack| attack.id != id)).collect()
}

/// What this program does as a stand-in for a node.
///
/// # Errors
/// What went wrong.
pub fn stand_in(role: &str) -> Result<(), String> {
    if node::stand_in(role) { Ok(()) } else { life::stand_in(role) }
}

/// All, in the order of their numbers.
#[must_use]
pub fn all() -> Vec<Attack> {
    let mut all: Vec<Attack> = [
        files::attacks(),
        processes::attacks(),
        network::attacks(),
        node::attacks(),
        privileges::attacks(),
        kernel::attacks(),
        clocks::attacks(),
        memory::attacks(),
        life::attacks(),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.sort_by_key(|attack| attack.id.trim_start_matches('A').parse::<u32>().unwrap_or(0));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_has_a_number_of_the_catalogue_and_no_two_have_the_same() {
        let all = all();
        let known: Vec<String> = (1..=CATALOGUE).map(|number| format!("A{number}")).collect();
        assert!(all.iter().all(|attack| known.iter().any(|id| id == attack.id)));
        assert_eq!(missing(&all).len() + all.len(), known.len());
    }
}
