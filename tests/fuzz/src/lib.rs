//! The bodies of the fuzz targets: plain functions that panic when a claim fails. The workspace's tests run them
//! over a committed corpus and over inputs from fixed seeds.

pub mod code_cache;
pub mod container;
pub mod frames;
pub mod instrumentation;
pub mod validator;
pub mod worker;
