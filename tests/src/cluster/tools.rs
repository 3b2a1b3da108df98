//! Where the pinned tools are; `tests/tools/build` is the one place that knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::process::{run, search_path};
use crate::command;

/// The pinned programs by name, built or not.
pub struct Tools(BTreeMap<String, PathBuf>);

impl Tools {
    pub fn locate() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build");
        let lines = run(&command![&script, "where"]).context("ask where the pinned tools are")?;
        let tools = lines
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, path)| (name.to_owned(), PathBuf::from(path)))
            .collect();
        Ok(Self(tools))
    }

    /// The path of a tool that is built.
    pub fn path(&self, name: &str) -> Result<&Path> {
        let path = self.0.get(name).ok_or_else(|| anyhow!("{name} is not a tool of tests/tools/build"))?;
        if !path.exists() {
            bail!("{name} is not built yet ({} is missing): run `make tools`", path.display());
        }
        Ok(path)
    }

    /// The pinned kubectl, or the one in PATH where the tools are not built.
    pub fn kubectl(&self) -> Result<PathBuf> {
        if let Ok(pinned) = self.path("kubectl") {
            return Ok(pinned.to_owned());
        }
        std::env::split_paths(&search_path())
            .map(|directory| directory.join("kubectl"))
            .find(|candidate| candidate.is_file())
            .ok_or_else(|| anyhow!("there is no kubectl: run `make tools`, or install one in PATH"))
    }
}
