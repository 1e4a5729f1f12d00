//! Performs the attacks and says what came of them. Succeeds only if all were contained and every control fired.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use attack_suite::attacks::{self, STAND_IN};
use attack_suite::stage::Stage;
use attack_suite::table::{Outcome, Table};
use clap::Parser;

/// Attacks the sandbox as a worker that an attacker controls does, and checks that nothing came of it.
#[derive(Parser)]
#[command(name = "attack-suite")]
struct Options {
    /// Also write the rows to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only this attack, A1 to A62
    #[arg(long, value_name = "ID")]
    only: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        // Not for users: how an attack that kills a node gets one.
        [first, role] if first == STAND_IN => attacks::stand_in(role).map(|()| true),
        _ => run(&Options::parse()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("attack-suite: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let mut all = attacks::all();
    // One that nobody performs is not contained.
    let missing = if options.only.is_none() { attacks::missing(&all) } else { Vec::new() };
    if let Some(only) = &options.only {
        let ids: Vec<&str> = all.iter().map(|attack| attack.id).collect();
        if !ids.iter().any(|id| id.eq_ignore_ascii_case(only)) {
            return Err(format!("there is no attack {only}; there are {}", ids.join(", ")));
        }
        all.retain(|attack| attack.id.eq_ignore_ascii_case(only));
    }
    let (start, stage) = (Instant::now(), Stage::new());
    let user = if stage.root { "root" } else { "an ordinary user: namespaces come with a user namespace" };
    let groups = if stage.has_groups() { "" } else { "; no control groups" };
    println!("as {user}{groups}\n\n{}", Table::head().trim_end());
    let mut table = Table::default();
    for attack in &all {
        let before = table.attacks.len();
        table.take(attack.rows(&stage));
        print!("{}", table.lines(before));
    }
    if !table.reductions.is_empty() {
        println!("\nnot as this user, or not on this machine:");
        table.reductions.iter().for_each(|line| println!("  {line}"));
    }
    if !missing.is_empty() {
        println!("\nNOT PERFORMED: {}", missing.join(", "));
    }
    let count = |outcome| table.attacks.iter().filter(|row| row.result == outcome).count();
    println!(
        "\n{} attacks, {} rows: {} contained, {} escaped, {} controls failed; {} s",
        all.len(),
        table.attacks.len(),
        count(Outcome::Contained),
        count(Outcome::Escaped),
        count(Outcome::ControlFailed),
        start.elapsed().as_secs(),
    );
    if let Some(file) = &options.json {
        let text = serde_json::to_vec_pretty(&table).map_err(|error| error.to_string())?;
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(table.passed() && missing.is_empty())
}
