//! What node and compiler say to each other: the module in parts, one answer, what was made of it in parts.

use std::collections::BTreeMap;

use execution::module;
use serde::{Deserialize, Serialize};

use crate::{Bytes, Global, Limits, List, Malformed};

/// Bytes of a module that one [`ToCompiler::Part`] carries at most.
pub const MODULE_BYTES_PER_PART: usize = 16 << 20;
/// Bytes that one [`FromCompiler::Output`] carries; the last carries what is left.
pub const OUTPUT_BYTES_PER_REPLY: usize = 16 << 20;
/// Native code of one module, bytes. A code section of 10 MiB comes to two fifths of it
/// (docs/decisions/0006-compiler-process.md).
pub const NATIVE_BYTES_MAX: u64 = 256 << 20;
/// Private memory of a compiler, bytes.
pub const COMPILER_MEMORY_BYTES_MAX: u64 = 4 << 30;

/// Bytes of a module once unpacked, and of all its data segments (`canister-execution.md` section 1.2).
const MODULE_BYTES_MAX: u64 = 100 << 20;
/// Methods, and bytes of all their names (section 1.2).
const METHODS_MAX: usize = 1_000;
const METHOD_NAME_BYTES_MAX: usize = 20_000;
/// `icp:` sections, and bytes of all their names and contents (section 1.2).
const SECTIONS_MAX: usize = 16;
const SECTION_BYTES_MAX: usize = 1 << 20;
/// Globals (section 1.2).
const GLOBALS_MAX: usize = 1_000;
/// Data segments: the parser's limit.
const SEGMENTS_MAX: usize = 100_000;

/// What the node asks of a compiler. Each is answered by exactly one [`FromCompiler`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToCompiler<'a> {
    /// The first, once. Answered by [`FromCompiler::Ready`]; the node then verifies the COMPILE lock from outside.
    Begin,
    /// The next part of the module, of at most [`MODULE_BYTES_PER_PART`] bytes. Answered by [`FromCompiler::Taken`].
    Part(#[serde(borrow)] Bytes<'a>),
    /// The module is whole: compile it under these limits. Answered by [`FromCompiler::Compiled`],
    /// [`FromCompiler::Refused`] or [`FromCompiler::Failed`].
    Compile(Box<Limits>),
    /// The next part of the output: the native code, then the bytes of the data segments, as one sequence. Answered by
    /// [`FromCompiler::Output`].
    Output,
}

/// What a compiler answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromCompiler<'a> {
    /// The COMPILE lock is on.
    Ready,
    /// The part has been taken.
    Taken,
    /// The module is compiled; the output waits to be asked for.
    Compiled(#[serde(borrow)] Box<Compiled<'a>>),
    /// The module is not valid, and why.
    Refused(&'a str),
    /// The next part of the output, of [`OUTPUT_BYTES_PER_REPLY`] bytes or what is left.
    Output(#[serde(borrow)] Bytes<'a>),
    /// The code generator failed at a module that is valid.
    Failed(&'a str),
}

/// What a module was compiled to. Claims, all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compiled<'a> {
    /// What the module declares.
    #[serde(borrow)]
    pub interface: Interface<'a>,
    /// Bytes of native code.
    pub native_bytes: u64,
}

impl<'a> Compiled<'a> {
    /// The wire form.
    #[must_use]
    pub fn new(interface: &'a module::Interface, native_bytes: usize) -> Self {
        Self { interface: Interface::from(interface), native_bytes: native_bytes as u64 }
    }
}

/// See [`execution::module::Interface`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the domain type")]
pub struct Interface<'a> {
    pub memory64: bool,
    pub has_memory: bool,
    pub heap_pages_min: u64,
    pub heap_pages_max: u64,
    /// Ascending by name.
    #[serde(borrow)]
    pub methods: List<(&'a str, MethodKind), METHODS_MAX>,
    pub exports: SystemExports,
    pub reads_certificate: bool,
    /// Name, whether it is public, content; ascending by name.
    #[serde(borrow)]
    pub custom_sections: List<(&'a str, bool, Bytes<'a>), SECTIONS_MAX>,
    pub globals: List<Global, GLOBALS_MAX>,
    /// Offset in the heap and number of bytes; the bytes are at the end of the output, one segment after the other.
    pub data: List<(u64, u64), SEGMENTS_MAX>,
    pub compile_instructions: u64,
    pub drops_data: bool,
}

/// See [`execution::module::MethodKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are those of the domain type")]
pub enum MethodKind {
    Update,
    Query,
    CompositeQuery,
}

/// See [`execution::module::SystemExports`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the domain type")]
pub struct SystemExports {
    pub start: bool,
    pub init: bool,
    pub pre_upgrade: bool,
    pub post_upgrade: bool,
    pub inspect_message: bool,
    pub heartbeat: bool,
    pub global_timer: bool,
    pub low_wasm_memory: bool,
}

impl<'a> From<&'a module::Interface> for Interface<'a> {
    fn from(interface: &'a module::Interface) -> Self {
        let module::Interface {
            memory64,
            has_memory,
            heap_pages_min,
            heap_pages_max,
            methods,
            exports,
            reads_certificate,
            custom_sections,
            globals,
            data,
            compile_instructions,
            drops_data,
        } = interface;
        Self {
            memory64: *memory64,
            has_memory: *has_memory,
            heap_pages_min: *heap_pages_min,
            heap_pages_max: *heap_pages_max,
            methods: methods.iter().map(|(name, kind)| (name.as_str(), (*kind).into())).collect(),
            exports: (*exports).into(),
            reads_certificate: *reads_certificate,
            custom_sections: custom_sections
                .iter()
                .map(|(name, section)| (name.as_str(), section.public, Bytes(&section.content)))
                .collect(),
            globals: globals.iter().map(|&value| Global::from(value)).collect(),
            data: data.iter().map(|segment| (segment.offset, segment.bytes.len() as u64)).collect(),
            compile_instructions: *compile_instructions,
            drops_data: *drops_data,
        }
    }
}

/// What a compiler said of a module, its form and bounds checked; the bytes of its data segments still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Without data segments.
    interface: module::Interface,
    /// Offset and length of each data segment.
    segments: Vec<(u64, u64)>,
    native_bytes: u64,
    data_bytes: u64,
}

impl TryFrom<Compiled<'_>> for Claimed {
    type Error = Malformed;

    /// Refuses what no correct compiler says: no native code or more than [`NATIVE_BYTES_MAX`], more data than a module
    /// has, names out of order or twice, more bytes of names or sections than a module may have, a 64-bit heap without
    /// a memory.
    fn try_from(compiled: Compiled<'_>) -> Result<Self, Malformed> {
        let Compiled { interface, native_bytes } = compiled;
        let Interface {
            memory64,
            has_memory,
            heap_pages_min,
            heap_pages_max,
            methods,
            exports,
            reads_certificate,
            custom_sections,
            globals,
            data,
            compile_instructions,
            drops_data,
        } = interface;
        if native_bytes == 0 || native_bytes > NATIVE_BYTES_MAX {
            return Err(Malformed("no native code, or more than there may be"));
        }
        let data_bytes = data.0.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        if data_bytes > MODULE_BYTES_MAX {
            return Err(Malformed("more bytes of data than a module has"));
        }
        if memory64 && !has_memory {
            return Err(Malformed("a 64-bit heap without a memory"));
        }
        if !methods.0.is_sorted_by(|a, b| a.0 < b.0) || !custom_sections.0.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Malformed("names of methods or sections out of order"));
        }
        let name_bytes = methods.0.iter().fold(0_usize, |sum, (name, _)| sum.saturating_add(name.len()));
        if name_bytes > METHOD_NAME_BYTES_MAX {
            return Err(Malformed("more bytes of method names than a module may have"));
        }
        let section_bytes = custom_sections.0.iter().fold(0_usize, |sum, (name, _, content)| {
            sum.saturating_add(name.len()).saturating_add(content.0.len())
        });
        if section_bytes > SECTION_BYTES_MAX {
            return Err(Malformed("more bytes of sections than a module may have"));
        }
        let methods: BTreeMap<String, module::MethodKind> =
            methods.0.into_iter().map(|(name, kind)| (name.to_owned(), kind.into())).collect();
        let section = |(name, public, content): (&str, bool, Bytes<'_>)| {
            (name.to_owned(), module::CustomSection { public, content: content.0.to_vec() })
        };
        let interface = module::Interface {
            memory64,
            has_memory,
            heap_pages_min,
            heap_pages_max,
            methods,
            exports: exports.into(),
            reads_certificate,
            custom_sections: custom_sections.0.into_iter().map(section).collect(),
            globals: globals.0.into_iter().map(Into::into).collect(),
            data: Vec::new(),
            compile_instructions,
            drops_data,
        };
        Ok(Self { interface, segments: data.0, native_bytes, data_bytes })
    }
}

impl Claimed {
    /// Bytes of the output: native code and data segments.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.native_bytes.saturating_add(self.data_bytes)
    }

    /// The interface with its data segments, and the native code, out of the whole output.
    ///
    /// # Errors
    /// An output of another length than [`Claimed::output_bytes`].
    pub fn with(self, output: &[u8]) -> Result<(module::Interface, &[u8]), Malformed> {
        let mut rest = output;
        let native = take(&mut rest, self.native_bytes)?;
        let mut interface = self.interface;
        for (offset, bytes) in self.segments {
            interface.data.push(module::DataSegment { offset, bytes: take(&mut rest, bytes)?.to_vec() });
        }
        if rest.is_empty() { Ok((interface, native)) } else { Err(LENGTH) }
    }
}

const LENGTH: Malformed = Malformed("an output of another length than it has");

/// Takes the first `bytes` bytes off.
fn take<'a>(rest: &mut &'a [u8], bytes: u64) -> Result<&'a [u8], Malformed> {
    let bytes = usize::try_from(bytes).map_err(|_| LENGTH)?;
    let (taken, behind) = rest.split_at_checked(bytes).ok_or(LENGTH)?;
    *rest = behind;
    Ok(taken)
}

impl From<module::MethodKind> for MethodKind {
    fn from(kind: module::MethodKind) -> Self {
        match kind {
            module::MethodKind::Update => Self::Update,
            module::MethodKind::Query => Self::Query,
            module::MethodKind::CompositeQuery => Self::CompositeQuery,
        }
    }
}

impl From<MethodKind> for module::MethodKind {
    fn from(kind: MethodKind) -> Self {
        match kind {
            MethodKind::Update => Self::Update,
            MethodKind::Query => Self::Query,
            MethodKind::CompositeQuery => Self::CompositeQuery,
        }
    }
}

/// Both conversions; they destructure, so that a field that is new in one breaks the build of the other.
macro_rules! exports {
    ($($field:ident),*) => {
        impl From<module::SystemExports> for SystemExports {
            fn from(module::SystemExports { $($field),* }: module::SystemExports) -> Self {
                Self { $($field),* }
            }
        }

        impl From<SystemExports> for module::SystemExports {
            fn from(SystemExports { $($field),* }: SystemExports) -> Self {
                Self { $($field),* }
            }
        }
    };
}

exports!(start, init, pre_upgrade, post_upgrade, inspect_message, heartbeat, global_timer, low_wasm_memory);
