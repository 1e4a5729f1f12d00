//! The command as its users meet it: exit codes, texts and output.

mod cli;
mod demo;
mod drun;
mod program;
