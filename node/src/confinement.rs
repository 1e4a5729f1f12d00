//! `bulkhead sandbox report`: what confines workers on this machine, and how that was seen.

use std::fmt::Write as _;
use std::io::{self, Write};

use sandbox_host::report::{Fact, Layer, Need, Report, Verdict};
use serde_json::{Value, json};

use crate::cli::CommandError;
use crate::image;

/// Examines workers, and prints what was found.
///
/// # Errors
/// [`CommandError::Reduced`] where a layer is off that is wanted, [`CommandError::Reported`] where one is off that is
/// required.
pub fn report(as_json: bool) -> Result<(), CommandError> {
    let launchers = image::launchers().map_err(|error| CommandError::Failed(format!("refused: {error}")))?;
    let report = Report::examine(&launchers);
    let text = if as_json { format!("{:#}\n", as_value(&report)) } else { as_text(&report) };
    io::stdout().write_all(text.as_bytes()).map_err(|error| CommandError::output(&error))?;
    match report.verdict() {
        Verdict::Full => Ok(()),
        Verdict::Reduced => Err(CommandError::Reduced),
        Verdict::Refused => Err(CommandError::Reported),
    }
}

/// The last line: what it comes to, and what to do.
fn conclusion(report: &Report) -> String {
    let names = |need| report.missing(need).map(|layer| layer.name).collect::<Vec<_>>().join(", ");
    match report.verdict() {
        Verdict::Full => "full: every layer that is required or wanted is on".into(),
        Verdict::Reduced => {
            format!("reduced, off here: {}{}", names(Need::Wanted), advice(report, Need::Wanted))
        }
        Verdict::Refused => match &report.refused {
            Some(why) => format!("refused: {why}"),
            None => format!("refused, off here: {}{}", names(Need::Required), advice(report, Need::Required)),
        },
    }
}

/// What to do about what is missing, each advice once.
fn advice(report: &Report, need: Need) -> String {
    let mut all: Vec<&str> = Vec::new();
    for layer in report.missing(need) {
        if !layer.advice.is_empty() && !all.contains(&layer.advice) {
            all.push(layer.advice);
        }
    }
    if all.is_empty() { String::new() } else { format!(". To do: {}", all.join("; ")) }
}

fn as_text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let mut line = |arguments: std::fmt::Arguments<'_>| _ = writeln!(text, "{arguments}");
    let width = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0);
    if !report.layers.is_empty() {
        let name = width(&mut report.layers.iter().map(|layer| layer.name.len()).chain(["layer".len()]));
        line(format_args!("{:<name$}  {:<13}  {:<3}  how it was seen", "layer", "need", "is"));
        for Layer { name: layer, need, on, probe, .. } in &report.layers {
            let is = if *on { "on" } else { "off" };
            line(format_args!("{layer:<name$}  {:<13}  {is:<3}  {probe}", need.as_str()));
        }
        line(format_args!(""));
    }
    let name = width(&mut report.machine.iter().map(|fact| fact.name.len()).chain(["machine".len()]));
    let value =
        width(&mut report.machine.iter().filter(|fact| !fact.advice.is_empty()).map(|fact| fact.value.len()));
    line(format_args!("{:<name$}  is", "machine"));
    for Fact { name: fact, value: is, advice } in &report.machine {
        if advice.is_empty() {
            line(format_args!("{fact:<name$}  {is}"));
        } else {
            line(format_args!("{fact:<name$}  {is:<value$}  to do: {advice}"));
        }
    }
    line(format_args!("\n{}", conclusion(report)));
    text
}

fn as_value(report: &Report) -> Value {
    let layer = |layer: &Layer| {
        let Layer { name, need, on, probe, advice } = layer;
        json!({ "name": name, "need": need.as_str(), "on": on, "probe": probe, "advice": advice })
    };
    let fact = |fact: &Fact| json!({ "name": fact.name, "value": fact.value, "advice": fact.advice });
    let verdict = match report.verdict() {
        Verdict::Full => "full",
        Verdict::Reduced => "reduced",
        Verdict::Refused => "refused",
    };
    json!({
        "verdict": verdict,
        "conclusion": conclusion(report),
        "layers": report.layers.iter().map(layer).collect::<Vec<_>>(),
        "machine": report.machine.iter().map(fact).collect::<Vec<_>>(),
        "refused": report.refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &'static str, need: Need, on: bool, advice: &'static str) -> Layer {
        Layer { name, need, on, probe: "seen".into(), advice }
    }

    fn report(layers: Vec<Layer>) -> Report {
        let fact = Fact { name: "SMT", value: "on".into(), advice: "turn it off" };
        Report { layers, machine: vec![fact], refused: None }
    }

    #[test]
    fn the_conclusion_names_what_is_missing_and_each_thing_to_do_once() {
        let found = report(vec![
            layer("seccomp", Need::Required, true, ""),
            layer("pid namespace", Need::Wanted, false, "allow namespaces"),
            layer("net namespace", Need::Wanted, false, "allow namespaces"),
            layer("mseal", Need::Opportunistic, false, "Linux 6.10"),
        ]);
        let reduced = "reduced, off here: pid namespace, net namespace. To do: allow namespaces";
        assert_eq!(conclusion(&found), reduced);
        assert!(as_text(&found).ends_with(&format!("\n{reduced}\n")));
        assert_eq!(as_value(&found)["verdict"], "reduced");
        let refused = Report { refused: Some("no user".into()), ..report(Vec::new()) };
        assert_eq!(conclusion(&refused), "refused: no user");
    }

    #[test]
    fn columns_are_aligned() {
        let found = report(vec![
            layer("seccomp", Need::Required, true, ""),
            layer("a longer name", Need::Opportunistic, false, ""),
        ]);
        assert_eq!(
            as_text(&found),
            "layer          need           is   how it was seen\n\
             seccomp        required       on   seen\n\
             a longer name  opportunistic  off  seen\n\
             \n\
             machine  is\n\
             SMT      on  to do: turn it off\n\
             \n\
             full: every layer that is required or wanted is on\n"
        );
    }
}
