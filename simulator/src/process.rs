//! The program `exchange-simulator` as a child process, for tests that start it as a user would.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A running simulator, ended when dropped.
pub struct Process {
    pub child: Child,
    /// Where it listens: `host:port`.
    pub address: String,
}

impl Process {
    /// Starts `exchange-simulator serve` with its data in `data_dir` and waits until it listens.
    ///
    /// # Errors
    /// It cannot be started, or ends before it listens.
    pub fn start(program: &Path, listen: &str, data_dir: &Path, arguments: &[&str]) -> io::Result<Self> {
        let child = Command::new(program)
            .args(["serve", "--listen", listen, "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut process = Self { child, address: String::new() };
        let mut line = String::new();
        if let Some(output) = process.child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let listening: Value = serde_json::from_str(&line)
            .map_err(|_| io::Error::other(format!("exchange-simulator says {line:?} instead of where it listens")))?;
        process.address = listening["listening"].as_str().unwrap_or_default().to_owned();
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program beside the running test's own (`target/<triple>/debug`), built if it is not there.
///
/// # Errors
/// It is not there and cannot be built.
pub fn program() -> io::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let directory = test.parent().and_then(Path::parent).unwrap_or(&test);
    let program = directory.join("exchange-simulator");
    if !program.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo).args(["build", "-p", "exchange-simulator"]).status()?;
        if !built.success() || !program.exists() {
            return Err(io::Error::other("cargo build -p exchange-simulator failed"));
        }
    }
    Ok(program)
}
