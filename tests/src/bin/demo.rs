//! `demo`: see `make demo` and `arbbot_tests::demo`.

use std::process::ExitCode;

use anyhow::Result;
use arbbot_tests::demo;
use arbbot_tests::images;
use arbbot_tests::programs::{ALL, Programs};
use clap::{Parser, Subcommand};

/// Shows a kill on a real Kubernetes.
#[derive(Parser)]
#[command(name = "demo", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring everything up, show a kill and a reduction, and leave everything running.
    Up {
        /// Without a node: pods are processes of this machine. No root, no images.
        #[arg(long)]
        fast: bool,
    },
    /// End what `up` left running.
    Down,
    /// Write the container images to target/images.
    Images,
    /// Hold everything until SIGTERM (what `up` leaves running).
    #[command(hide = true)]
    Own {
        #[arg(long)]
        fast: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    // An error says that this process has a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { fast } => demo::up(fast).await,
        Command::Down => demo::down(),
        Command::Own { fast } => demo::own(fast).await,
        Command::Images => {
            for name in ALL {
                let archive =
                    images::write(&Programs::built()?.path(name)?, &images::reference(name), &images::directory())?;
                println!("{}  {}", images::reference(name), archive.display());
            }
            Ok(())
        }
    }
}
