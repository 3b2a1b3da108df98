//! Where the programs of this workspace are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// The programs that tests and demos start.
pub const ALL: [&str; 3] = ["arb-bot", "arbbot-operator", "exchange-simulator"];

/// The programs as cargo built them, in the profile of the running program.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// The programs beside the running one; `make` has built them.
    ///
    /// # Errors
    /// The running program cannot be found.
    pub fn built() -> Result<Self> {
        let this = std::env::current_exe().context("find the running program")?;
        let beside = this.parent().ok_or_else(|| anyhow!("{} has no directory", this.display()))?;
        // Tests are one level deeper.
        let directory = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
        Ok(Self { directory: directory.to_owned() })
    }

    /// The same, brought up to date first: a test must never run against yesterday's bot.
    ///
    /// # Errors
    /// They do not compile.
    pub fn build() -> Result<Self> {
        let programs = Self::built()?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut command = Command::new(cargo);
        // The same selection as in the Makefile: another one would give dependencies other features, and compile them twice.
        command.current_dir(workspace).args(["build", "--quiet", "--workspace", "--bins"]).stdin(Stdio::null());
        // What cargo tells a test about its own package would make build scripts of dependencies run again each time.
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"];
        for (name, _) in std::env::vars_os() {
            if of_package.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        if programs.directory.ends_with("release") {
            command.arg("--release");
        }
        let status = command.status().context("run cargo build")?;
        if !status.success() {
            bail!("the programs do not compile: cargo build ended with {status}");
        }
        Ok(programs)
    }

    /// # Errors
    /// It is not built.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        if !path.is_file() {
            bail!("{} is missing: run `make build`", path.display());
        }
        Ok(path)
    }
}
