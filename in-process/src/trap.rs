//! Why a guest was stopped, and the words for it (`canister-execution.md` section 4.5).

use execution::{Cycles, ErrorCode, Instructions, Principal, Trap};

/// Ends a run from inside a System API function.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The guest's doing: undone, and the same on every node.
    #[error("{}", .0.text)]
    Guest(Trap),
    /// `ic0.trap`: the message goes to the log as it is.
    #[error("ic0.trap: {0}")]
    CalledTrap(String),
    /// Ours: never committed.
    #[error("{0}")]
    Host(String),
}

impl Stop {
    fn guest(code: ErrorCode, text: String) -> Self {
        Self::Guest(Trap { code, text })
    }

    /// IC0504.
    pub(crate) fn contract(what: impl std::fmt::Display) -> Self {
        Self::Guest(contract(what))
    }

    /// IC0502.
    pub(crate) fn trapped(what: &str) -> Self {
        Self::Guest(trapped(what))
    }

    /// IC0522: more than the `limit` of the whole message.
    pub(crate) fn out_of_instructions(limit: Instructions) -> Self {
        let text =
            format!("Canister exceeded the limit of {limit} instructions for single message execution.");
        Self::guest(ErrorCode::INSTRUCTION_LIMIT, text)
    }

    /// IC0522: one operation that is larger than what is left of this slice and the next one together.
    pub(crate) fn slice_overrun(instructions: Instructions, limit: Instructions) -> Self {
        let text = format!(
            "Canister attempted to perform a large memory operation that used {instructions} instructions and \
             exceeded the slice limit {limit}."
        );
        Self::guest(ErrorCode::INSTRUCTION_LIMIT, text)
    }

    /// A principal longer than 29 bytes: IC0504.
    pub(crate) fn principal() -> Self {
        Self::guest(ErrorCode::CONTRACT_VIOLATION, "Canister provided invalid principal id".into())
    }

    /// Attaching more cycles than liquid: IC0504.
    pub(crate) fn out_of_cycles(canister: &Principal, missing: Cycles) -> Self {
        Self::guest(
            ErrorCode::CONTRACT_VIOLATION,
            format!(
                "Canister {canister} is out of cycles: please top up the canister with at least {missing} \
                 additional cycles"
            ),
        )
    }

    /// Growing memory without the cycles to keep it: IC0532.
    pub(crate) fn memory_cycles(bytes: u64, missing: Cycles) -> Self {
        Self::guest(
            ErrorCode::CYCLES_MEMORY_GROW,
            format!(
                "Canister cannot grow memory by {bytes} bytes due to insufficient cycles. At least {missing} \
                 additional cycles are required."
            ),
        )
    }

    /// Growing the heap when the subnet has no memory left: IC0507.
    pub(crate) fn subnet_memory() -> Self {
        Self::guest(ErrorCode::OUT_OF_MEMORY, "Canister cannot grow its memory usage.".into())
    }

    /// IC0539.
    pub(crate) fn wasm_memory_limit(bytes: u64, limit: u64) -> Self {
        Self::guest(
            ErrorCode::WASM_MEMORY_LIMIT,
            format!(
                "Canister exceeded its current Wasm memory limit of {limit} bytes. The peak Wasm memory usage \
                 was {bytes} bytes. If the canister reaches 4GiB, then it may stop functioning and may become \
                 unrecoverable. Please reach out to the canister owner to investigate the reason for the \
                 increased memory usage. It might be necessary to move data from the Wasm memory to the stable \
                 memory. If such high Wasm memory usage is expected and safe, then the developer can increase \
                 the Wasm memory limit in the canister settings."
            ),
        )
    }

    /// IC0524. `what` is "accessed" or "modified".
    pub(crate) fn access_limit(what: &str, pages: u64) -> Self {
        Self::guest(
            ErrorCode::MEMORY_ACCESS_LIMIT,
            format!(
                "Canister exceeded memory access limits: Exceeded the limit for the number of {what} pages in \
                 the stable memory in a single message execution: limit {} KB",
                pages * 4
            ),
        )
    }
}

/// IC0502.
pub(crate) fn trapped(what: &str) -> Trap {
    Trap { code: ErrorCode::CANISTER_TRAPPED, text: format!("Canister trapped: {what}") }
}

/// IC0504.
pub(crate) fn contract(what: impl std::fmt::Display) -> Trap {
    Trap { code: ErrorCode::CONTRACT_VIOLATION, text: format!("Canister violated contract: {what}") }
}

/// IC0513.
pub(crate) fn no_function(index: u64) -> Trap {
    Trap {
        code: ErrorCode::FUNCTION_NOT_FOUND,
        text: format!("Canister requested to invoke a non-existent Wasm function {index} from table 0"),
    }
}

/// How a run that didn't return ended: the trap and its log record, or our own failure.
pub(crate) fn ending(error: wasmtime::Error) -> Result<(Trap, String), String> {
    match error.downcast::<Stop>() {
        Ok(Stop::Guest(trap)) => {
            let record = trap.text.clone();
            Ok((trap, record))
        }
        Ok(Stop::CalledTrap(message)) => {
            let text = format!("Canister called `ic0.trap` with message: '{message}'");
            Ok((Trap { code: ErrorCode::CALLED_TRAP, text }, message))
        }
        Ok(Stop::Host(what)) => Err(what),
        Err(error) => match error.downcast_ref::<wasmtime::Trap>() {
            Some(&trap) => {
                let trap = wasm_trap(trap);
                let record = trap.text.clone();
                Ok((trap, record))
            }
            None => Err(format!("{error:#}")),
        },
    }
}

/// Whether a run ended because its stack did.
pub(crate) fn is_stack_overflow(error: &wasmtime::Error) -> bool {
    error.downcast_ref() == Some(&wasmtime::Trap::StackOverflow)
}

fn wasm_trap(trap: wasmtime::Trap) -> Trap {
    use wasmtime::Trap as T;
    match trap {
        T::StackOverflow => trapped("stack overflow"),
        T::MemoryOutOfBounds => trapped("heap out of bounds"),
        T::TableOutOfBounds => trapped("table out of bounds"),
        T::IntegerDivisionByZero => trapped("integer division by 0"),
        T::UnreachableCodeReached => trapped("unreachable"),
        T::BadSignature => contract("function invocation does not match its signature"),
        // Integer overflow, bad conversion, null call_indirect: the reference has one word for all.
        _ => trapped("unknown"),
    }
}
