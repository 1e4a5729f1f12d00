//! The command as its users meet it: exit codes, texts and output.

mod audit;
mod bounds;
mod bundle;
mod cli;
mod code_cache;
mod compare;
mod demo;
mod difference;
mod driver;
mod drun;
mod hangup;
mod log;
mod phases;
mod privileges;
mod program;
mod recorded;
mod replay;
mod serve;
mod wrong;
