//! The command as its users meet it: exit codes, texts and output.

mod cli;
mod drun;
mod program;
