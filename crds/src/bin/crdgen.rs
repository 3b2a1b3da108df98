//! Writes what is made of the types, below the root of the project: `crdgen .` writes `crds/*.yaml` and
//! `docs/conditions.md` and `docs/guards.md`.

use std::path::PathBuf;
use std::process::ExitCode;

use arbbot_crds::{conditions, guards};

fn main() -> ExitCode {
    let Some(root) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: crdgen ROOT_OF_THE_PROJECT");
        return ExitCode::from(2);
    };
    let definitions = match arbbot_crds::manifest::files() {
        Ok(files) => files,
        Err(error) => {
            eprintln!("cannot write a CustomResourceDefinition as YAML: {error}");
            return ExitCode::FAILURE;
        }
    };
    let definitions = definitions.into_iter().map(|(name, content)| (format!("crds/{name}"), content));
    let pages = [
        ("docs/conditions.md".to_owned(), conditions::reference::markdown()),
        ("docs/guards.md".to_owned(), guards::reference::markdown()),
    ];
    for (name, content) in definitions.chain(pages) {
        let path = root.join(name);
        if let Err(error) = std::fs::write(&path, content) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        println!("{}", path.display());
    }
    ExitCode::SUCCESS
}
