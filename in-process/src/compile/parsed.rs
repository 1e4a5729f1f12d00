//! A module's sections, read once after validation.

use wasmparser::{
    Data, Element, Export, FuncType, FunctionBody, Global, Import, MemoryType, Parser, Payload, Table,
    TypeRef,
};

/// The sections of a valid module, as slices of its bytes.
#[derive(Default)]
pub(super) struct Parsed<'a> {
    pub(super) types: Vec<FuncType>,
    pub(super) imports: Vec<Import<'a>>,
    /// Type index of each function: of the imported ones, then of the defined ones.
    pub(super) function_types: Vec<u32>,
    /// Type index of each defined function.
    pub(super) functions: Vec<u32>,
    pub(super) tables: Vec<Table<'a>>,
    pub(super) memory: Option<MemoryType>,
    pub(super) globals: Vec<Global<'a>>,
    pub(super) exports: Vec<Export<'a>>,
    pub(super) start: Option<u32>,
    pub(super) elements: Vec<Element<'a>>,
    pub(super) data: Vec<Data<'a>>,
    pub(super) bodies: Vec<FunctionBody<'a>>,
}

impl<'a> Parsed<'a> {
    /// Reads the sections of a module that the validator has accepted.
    pub(super) fn read(wasm: &'a [u8]) -> Result<Self, wasmparser::Error> {
        let mut parsed = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            parsed.payload(payload?)?;
        }
        Ok(parsed)
    }

    fn payload(&mut self, payload: Payload<'a>) -> Result<(), wasmparser::Error> {
        match payload {
            Payload::TypeSection(section) => {
                self.types = section.into_iter_err_on_gc_types().collect::<Result<_, _>>()?;
            }
            Payload::ImportSection(section) => {
                self.imports = section.into_imports().collect::<Result<_, _>>()?;
                let types = self.imports.iter().filter_map(|import| match import.ty {
                    TypeRef::Func(ty) => Some(ty),
                    _ => None,
                });
                self.function_types.extend(types);
            }
            Payload::FunctionSection(section) => {
                self.functions = section.into_iter().collect::<Result<_, _>>()?;
                self.function_types.extend(&self.functions);
            }
            Payload::TableSection(section) => self.tables = section.into_iter().collect::<Result<_, _>>()?,
            Payload::MemorySection(section) => self.memory = section.into_iter().next().transpose()?,
            Payload::GlobalSection(section) => {
                self.globals = section.into_iter().collect::<Result<_, _>>()?
            }
            Payload::ExportSection(section) => {
                self.exports = section.into_iter().collect::<Result<_, _>>()?
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(section) => {
                self.elements = section.into_iter().collect::<Result<_, _>>()?
            }
            Payload::DataSection(section) => self.data = section.into_iter().collect::<Result<_, _>>()?,
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            // Custom sections, headers, the counts that the sections repeat, and what the validator has refused.
            _ => {}
        }
        Ok(())
    }

    /// Whether addresses are 64-bit; false without a memory.
    pub(super) fn memory64(&self) -> bool {
        self.memory.is_some_and(|memory| memory.memory64)
    }

    /// Number of imported functions.
    pub(super) fn imported_functions(&self) -> u32 {
        self.imported(|ty| matches!(ty, TypeRef::Func(_)))
    }

    fn imported(&self, kind: impl Fn(&TypeRef) -> bool) -> u32 {
        let count = self.imports.iter().filter(|import| kind(&import.ty)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The type of a function, by index over imported and defined ones.
    pub(super) fn function_type(&self, index: u32) -> Option<&FuncType> {
        let ty = *self.function_types.get(index as usize)?;
        self.types.get(ty as usize)
    }
}
