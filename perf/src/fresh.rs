//! A fresh process for each computation: this same program in another role, which makes an engine, maps compiled code
//! and instantiates it, runs a function of it perhaps, and ends. As it is, or started by another sandbox's command.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use execution::Module;

use crate::runner;

/// The argument that makes this program such a process. The code is its standard input.
pub(crate) const ROLE: &str = "benchmark-fresh-engine";

/// How to start one.
pub(crate) struct Fresh {
    command: Vec<OsString>,
    code: OwnedFd,
    function: Option<&'static str>,
}

impl Fresh {
    /// A process for code of `module`, started by `sandbox` and its arguments, if there are any.
    pub(crate) fn new(
        module: &Module,
        sandbox: &[&str],
        function: Option<&'static str>,
    ) -> Result<Self, String> {
        let code = module.code.file().try_clone_to_owned().map_err(|error| error.to_string())?;
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command: Vec<OsString> = sandbox.iter().map(OsString::from).collect();
        command.extend([own.into(), ROLE.into()]);
        Ok(Self { command, code, function })
    }

    /// Runs one, from exec to end. Returns the nanoseconds that it took over engine, mapping and instance, by itself.
    pub(crate) fn run(&self) -> Result<f64, String> {
        let [program, arguments @ ..] = &self.command[..] else { unreachable!("it has this program") };
        let code = self.code.try_clone().map_err(|error| error.to_string())?;
        sandbox_os::tsc::open();
        let output = Command::new(program)
            .args(arguments)
            .args(self.function)
            .stdin(Stdio::from(code))
            .output()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        said.trim().parse().map_err(|_| {
            let why = String::from_utf8_lossy(&output.stderr);
            format!("{}: {}: {}", program.display(), output.status, why.lines().next().unwrap_or_default())
        })
    }
}

/// The process itself.
pub(crate) fn serve() -> ExitCode {
    let function = std::env::args().nth(2);
    match load_and_run(function.as_deref()) {
        Ok(nanoseconds) => {
            println!("{nanoseconds}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("perf, as a fresh process: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load_and_run(function: Option<&str>) -> Result<u128, String> {
    let code = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?);
    let start = Instant::now();
    let engine = in_process::Engine::new().map_err(|error| error.to_string())?;
    let instance = runner::Loaded::map(engine.raw(), code)?;
    let nanoseconds = start.elapsed().as_nanos();
    if let Some(name) = function {
        instance.runner(name)?.run()?;
    }
    Ok(nanoseconds)
}
