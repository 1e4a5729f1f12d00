//! Who pays for calls of imported functions (`docs/decisions/0013-prices-paid-by-the-caller.md`).
//!
//! Where a function of the System API always costs the same, the code that calls it takes that from its copy of the
//! counter. Where this module can't see the call, by a table or an export, a function stands for the import that pays
//! and calls it.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::{ConstExpr, ElementItems, ExternalKind, Operator, TableInit, TypeRef};

use super::parsed::Parsed;
use crate::system_api;

/// Who pays for a call of an imported function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paid {
    /// The code that calls it pays so many instructions first.
    ByCaller(u64),
    /// It takes from the counter itself what depends on the call.
    ByCallee,
}

/// A function that stands for an imported one: it pays the price and calls it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payer {
    /// Its index in the instrumented module.
    pub(super) index: u32,
    /// The imported function.
    pub(super) function: u32,
    /// Instructions.
    pub(super) price: u64,
}

/// The imported functions of a module.
pub(super) struct Imports {
    paid: Vec<Paid>,
    payers: Vec<Payer>,
    /// The payer of each import that one stands for.
    stands_for: BTreeMap<u32, u32>,
}

impl Imports {
    /// Of a module; functions that stand for imports begin at index `first_payer` of the instrumented one.
    pub(super) fn new(parsed: &Parsed<'_>, first_payer: u32) -> Result<Self, wasmparser::Error> {
        let functions = parsed.imports.iter().filter(|import| matches!(import.ty, TypeRef::Func(_)));
        let (mut paid, mut names) = (Vec::new(), Vec::new());
        for import in functions {
            let price = (import.module == "ic0").then(|| system_api::fixed_price(import.name)).flatten();
            paid.push(price.map_or(Paid::ByCallee, Paid::ByCaller));
            names.push(import.name);
        }
        let mut imports = Self { paid, payers: Vec::new(), stands_for: BTreeMap::new() };
        // One for each function, however often it is imported: so there are no more than functions of the System API.
        let mut of_name = BTreeMap::new();
        for function in referenced(parsed, imports.count())? {
            let Some(Paid::ByCaller(price)) = imports.paid(function) else { continue };
            let index = *of_name.entry(names[function as usize]).or_insert_with(|| {
                let index = first_payer + imports.payers.len() as u32;
                imports.payers.push(Payer { index, function, price });
                index
            });
            imports.stands_for.insert(function, index);
        }
        Ok(imports)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.paid.len()).expect("fewer than a module's functions")
    }

    /// Who pays for a call of `function`; `None` if it isn't imported.
    pub(super) fn paid(&self, function: u32) -> Option<Paid> {
        self.paid.get(function as usize).copied()
    }

    /// The functions that stand for imports, in the order of their indices.
    pub(super) fn payers(&self) -> impl Iterator<Item = Payer> {
        self.payers.iter().copied()
    }

    /// Index of the function that stands for `function`, if one does.
    pub(super) fn payer(&self, function: u32) -> Option<u32> {
        self.stands_for.get(&function).copied()
    }
}

/// The imported functions, of which there are `count`, that somebody may call whom the bodies don't show. A body may refer
/// only to functions that the rest of the module refers to, so the bodies need not be read.
fn referenced(parsed: &Parsed<'_>, count: u32) -> Result<BTreeSet<u32>, wasmparser::Error> {
    let mut found = BTreeSet::new();
    let mut refer = |function: u32| {
        if function < count {
            found.insert(function);
        }
    };
    let exports = parsed.exports.iter().filter(|export| export.kind == ExternalKind::Func);
    exports.map(|export| export.index).chain(parsed.start).for_each(&mut refer);
    for element in &parsed.elements {
        match &element.items {
            ElementItems::Functions(items) => {
                for function in items.clone() {
                    refer(function?);
                }
            }
            ElementItems::Expressions(_, items) => {
                for expression in items.clone() {
                    constant(&expression?, &mut refer)?;
                }
            }
        }
    }
    for global in &parsed.globals {
        constant(&global.init_expr, &mut refer)?;
    }
    for table in &parsed.tables {
        if let TableInit::Expr(expression) = &table.init {
            constant(expression, &mut refer)?;
        }
    }
    Ok(found)
}

/// The functions that a constant refers to.
fn constant(expression: &ConstExpr<'_>, refer: &mut impl FnMut(u32)) -> Result<(), wasmparser::Error> {
    for operator in expression.get_operators_reader() {
        if let Operator::RefFunc { function_index } = operator? {
            refer(function_index);
        }
    }
    Ok(())
}
