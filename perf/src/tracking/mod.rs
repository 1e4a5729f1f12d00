//! Which pages did a message write? The ways to know, beside their limits: what each costs where code stores
//! (`tracking-store`), where the pages are collected (`tracking-harvest`), and where a page is written for the
//! first time or again (`tracking-pages`).

mod barrier;
mod guest;
mod loops;
mod pages;

use barrier::Barrier;
use guest::Guest;
use loops::{Counter, Loop, RANGE_BYTES, Variant};
use pages::{Field, Method, Order, PageCosts};

use crate::benchmarks::Bench;
use crate::kernel::PAGE_BYTES;
use crate::modules::Heap;
use crate::report::{Compared, Finding, Target, Unit};
use crate::runner::Runner;
use crate::sample::{Samples, Timed, interleaved_timed, time};

const ROUNDS: usize = 11;
/// What a store loop may cost with its barrier.
const STORE_LOOP: Target = Target::AtMost(1.9);
/// What the first write of a page may cost, against the fault alone.
const FIRST_TOUCH: Target = Target::AtMost(1.3);
/// What a later message's write of the page may cost, against copying the page.
const AGAIN: Target = Target::AtMost(2.0);
/// Numbers of pages that a message writes.
const COUNTS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// The one of them that is judged.
const JUDGED: usize = 2;
const MIB: u64 = 1 << 20;

/// Loops that store, with each barrier and with the product's.
pub(crate) fn stores(bench: &Bench) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for heap in Heap::ALL {
        for body in Loop::ALL {
            findings.push(store_loop(bench, body, heap)?);
        }
    }
    Ok(findings)
}

/// One loop: the product's instrumentation against the instruction counter alone.
fn store_loop(bench: &Bench, body: Loop, heap: Heap) -> Result<Finding, String> {
    let variant = |counter, barrier| Variant { body, counter, barrier, heap, bytes: RANGE_BYTES + (1 << 16) };
    let counted = Barrier::ALL.map(|barrier| variant(Counter::AtLoopHead, barrier));
    let uncounted = Barrier::ALL.map(|barrier| variant(Counter::Absent, barrier));
    // The limit twice: how much the machine wavers.
    let variants = [&counted[..1], &counted, &uncounted].concat();
    let engine = bench.engine.raw();
    let mut guests =
        variants.iter().map(|variant| Guest::new(engine, *variant)).collect::<Result<Vec<_>, _>>()?;
    let mut product = guest::product(engine, uncounted[0])?;
    let each: Vec<f64> = sample_loops(&mut guests, &mut product)?
        .iter()
        .map(|samples| samples.median() / body.operations() as f64)
        .collect();
    let (control, rest) = each.split_at(1);
    let (counted, rest) = rest.split_at(Barrier::ALL.len());
    let (uncounted, product) = rest.split_at(Barrier::ALL.len());
    let limit = counted[0];
    Ok(Finding::new(
        format!("tracking-store-{}-{}", body.name(), heap.bits()),
        &Compared { limit, measured: product[0], unit: Unit::Time },
        if body.is_store_loop() { STORE_LOOP } else { Target::None },
        (control[0] / limit).max(limit / control[0]) < 1.15,
        format!(
            "{}, {}-bit heap, each operation, the product against the instruction counter alone; candidates \
             with the counter: {}; without ({}): {}",
            body.describe(),
            heap.bits(),
            candidates(counted),
            Unit::Time.show(uncounted[0]),
            candidates(uncounted)
        ),
    ))
}

/// Each barrier against none, given durations in the order of [`Barrier::ALL`].
fn candidates(durations: &[f64]) -> String {
    let ratios = Barrier::ALL.iter().zip(durations).skip(1);
    let texts: Vec<_> = ratios
        .map(|(barrier, duration)| format!("{} {:.2}", barrier.name(), duration / durations[0]))
        .collect();
    texts.join(", ")
}

fn sample_loops(guests: &mut [Guest], product: &mut Runner) -> Result<Vec<Samples>, String> {
    let mut timed: Vec<Box<dyn FnMut() -> Result<f64, String> + '_>> = Vec::new();
    for guest in guests {
        timed.push(Box::new(|| {
            guest.harvest();
            time(|| guest.run())
        }));
    }
    timed.push(Box::new(|| time(|| product.run())));
    let mut timed: Vec<Timed<'_>> = timed.iter_mut().map(|timed| &mut **timed as Timed<'_>).collect();
    interleaved_timed(ROUNDS, &mut timed)
}

/// What finding the written pages costs after a message, by the size of the heap.
pub(crate) fn harvest(bench: &Bench) -> Result<Vec<Finding>, String> {
    [("64MB", 64 * MIB), ("1GB", 1024 * MIB), ("4GB", 4096 * MIB)]
        .into_iter()
        .map(|(size, bytes)| harvest_of(bench, size, bytes))
        .collect()
}

fn harvest_of(bench: &Bench, size: &str, bytes: u64) -> Result<Finding, String> {
    let candidates = &Barrier::ALL[1..];
    let mut guests = candidates
        .iter()
        .map(|&barrier| {
            let (body, counter, heap) = (Loop::OnePage, Counter::Absent, Heap::Bits64);
            Guest::new(bench.engine.raw(), Variant { body, counter, barrier, heap, bytes })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut medians = vec![Vec::new(); candidates.len()];
    for count in COUNTS {
        let pages = Order::Random.pages(count, (bytes >> 12) as usize);
        let mut timed: Vec<_> = guests.iter_mut().map(|guest| || harvest_once(guest, &pages)).collect();
        let mut timed: Vec<Timed<'_>> = timed.iter_mut().map(|timed| timed as Timed<'_>).collect();
        for (samples, medians) in interleaved_timed(ROUNDS, &mut timed)?.iter().zip(&mut medians) {
            medians.push(samples.median());
        }
    }
    let rows: Vec<_> = candidates
        .iter()
        .zip(&medians)
        .map(|(barrier, medians)| format!("{} {}", barrier.name(), row(medians, 1e3)))
        .collect();
    let at = |wanted| candidates.iter().position(|barrier| *barrier == wanted).expect("a candidate");
    Ok(Finding::new(
        format!("tracking-harvest-{size}"),
        &Compared {
            limit: medians[at(Barrier::Bytes)][JUDGED],
            measured: medians[at(Barrier::List)][JUDGED],
            unit: Unit::Time,
        },
        Target::None,
        true,
        format!("list against bytes, 100 random pages written; us for {COUNTS:?} pages: {}", rows.join("; ")),
    ))
}

fn harvest_once(guest: &mut Guest, pages: &[usize]) -> Result<f64, String> {
    for page in pages {
        guest.store_at(*page as u64 * PAGE_BYTES as u64)?;
    }
    let mut found = 0;
    let nanoseconds = time(|| {
        found = guest.harvest().len();
        Ok(())
    })?;
    if found == pages.len() { Ok(nanoseconds) } else { Err(format!("{found} pages of {}", pages.len())) }
}

/// First and second writes of pages in a private mapping.
pub(crate) fn pages(_: &Bench) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for (size, bytes) in [("64MB", 64 * MIB), ("1GB", 1024 * MIB)] {
        let mut field = Field::new((bytes >> 12) as usize)?;
        for (name, order) in [("random", Order::Random), ("dense", Order::Dense)] {
            let costs = COUNTS
                .iter()
                .map(|&count| field.measure(count, order, ROUNDS))
                .collect::<Result<Vec<_>, _>>()?;
            let id = |what| format!("tracking-{what}-{size}-{name}");
            findings.push(first_touch(id("first"), &costs));
            findings.push(written_again(id("again"), &costs));
        }
    }
    Ok(findings)
}

fn position(method: Method) -> usize {
    Method::ALL.iter().position(|one| *one == method).expect("one of all")
}

fn first_touch(id: String, costs: &[PageCosts]) -> Finding {
    let judged = &costs[JUDGED].first;
    let (fault, list) = (&judged[position(Method::Untracked)], &judged[position(Method::List)]);
    Finding::new(
        id,
        &Compared { limit: fault.median(), measured: list.median(), unit: Unit::Time },
        FIRST_TOUCH,
        fault.steady(),
        format!(
            "first write of a page, list against the copy-on-write fault alone, 100 pages; \
             ns a page for {COUNTS:?} pages: {}",
            methods(costs, |costs| &costs.first)
        ),
    )
}

fn written_again(id: String, costs: &[PageCosts]) -> Finding {
    let judged = &costs[JUDGED];
    let list = &judged.again[position(Method::List)];
    let copies: Vec<f64> = costs.iter().map(|costs| costs.copy.median()).collect();
    Finding::new(
        id,
        &Compared { limit: judged.copy.median(), measured: list.median(), unit: Unit::Time },
        AGAIN,
        judged.copy.steady(),
        format!(
            "the same pages in the next message, list against copying the page, 100 pages; \
             ns a page for {COUNTS:?} pages: copying {}; {}",
            row(&copies, 1.0),
            methods(costs, |costs| &costs.again)
        ),
    )
}

fn methods(costs: &[PageCosts], of: impl Fn(&PageCosts) -> &Vec<Samples>) -> String {
    let rows: Vec<_> = Method::ALL
        .iter()
        .enumerate()
        .map(|(index, method)| {
            let medians: Vec<f64> = costs.iter().map(|costs| of(costs)[index].median()).collect();
            format!("{} {}", method.name(), row(&medians, 1.0))
        })
        .collect();
    rows.join("; ")
}

/// Values in units of `unit` with a slash between them.
fn row(values: &[f64], unit: f64) -> String {
    let texts: Vec<_> = values
        .iter()
        .map(|value| {
            let value = value / unit;
            if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
        })
        .collect();
    texts.join("/")
}
