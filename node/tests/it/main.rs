//! The command as its users meet it: exit codes, texts and output.

mod bounds;
mod cli;
mod demo;
mod driver;
mod drun;
mod program;
