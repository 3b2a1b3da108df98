//! Writes the CustomResourceDefinitions into a directory: `crdgen crds`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: crdgen DIRECTORY");
        return ExitCode::from(2);
    };
    let files = match arbbot_crds::manifest::files() {
        Ok(files) => files,
        Err(error) => {
            eprintln!("cannot write a CustomResourceDefinition as YAML: {error}");
            return ExitCode::FAILURE;
        }
    };
    for (name, content) in files {
        let path = dir.join(name);
        if let Err(error) = std::fs::write(&path, content) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        println!("{}", path.display());
    }
    ExitCode::SUCCESS
}
