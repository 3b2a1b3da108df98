//! Writes what is made of the types, below the root of the project: `crdgen .` writes `crds/*.yaml` and
//! `docs/conditions.md`.

use std::path::PathBuf;
use std::process::ExitCode;

use arbbot_crds::conditions::reference;

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
    for (name, content) in definitions.chain([("docs/conditions.md".to_owned(), reference::markdown())]) {
        let path = root.join(name);
        if let Err(error) = std::fs::write(&path, content) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        println!("{}", path.display());
    }
    ExitCode::SUCCESS
}
