//! Real canisters, as their compilers make them: each method of each, in every mode, with decoded replies.
//! Equal answers, prints, instruction counts, dirty pages and state roots are asserted for each script.

mod c;
mod modules;
mod motoko;
mod motoko_calls;
mod rust;
mod rust_calls;
