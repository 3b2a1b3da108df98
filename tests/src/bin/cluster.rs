//! `cluster`: a real Kubernetes for demos and for trying things out; see `arbbot_tests::cluster`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arbbot_tests::cluster::{self, Cluster, Kind, Options, Record};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

/// Starts and ends a real Kubernetes on this machine.
#[derive(Parser)]
#[command(name = "cluster", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster and leave it running.
    Up(UpArguments),
    /// End a cluster and remove its files.
    Down(Place),
    /// Say what runs.
    Status {
        #[command(flatten)]
        place: Place,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Print the path of the kubeconfig of a running cluster.
    Kubeconfig(Place),
    /// Load container images (OCI archives) into the node of a running cluster.
    Load {
        #[command(flatten)]
        place: Place,
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Start a cluster that ends with this process (what `up` leaves running).
    Own(UpArguments),
}

#[derive(Args)]
struct UpArguments {
    #[command(flatten)]
    place: Place,
    /// Only etcd, API server and controller manager; needs no root.
    #[arg(long)]
    control_plane_only: bool,
    /// etcd does not wait for the disk: faster, and not what production does.
    #[arg(long)]
    no_fsync: bool,
}

#[derive(Args)]
struct Place {
    /// The name of the cluster; its directory is then ~/.cache/arbbot/clusters/NAME.
    #[arg(long, default_value = "default")]
    name: String,
    /// The directory of the cluster's files, instead of a name.
    #[arg(long, conflicts_with = "name")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(arguments) => up(&arguments)?,
        Command::Own(arguments) => own(&arguments)?,
        Command::Down(place) => {
            let directory = place.directory()?;
            let ended = cluster::down(&directory)?;
            println!(
                "{} in {}",
                if ended { "Ended the cluster" } else { "No cluster was running" },
                directory.display()
            );
        }
        Command::Kubeconfig(place) => println!("{}", running(&place)?.kubeconfig.display()),
        Command::Load { place, archives } => {
            let cluster = running(&place)?;
            archives.iter().try_for_each(|archive| cluster.import_image(archive))?;
        }
        Command::Status { place, output } => return status(&place, output),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(arguments: &UpArguments) -> Result<()> {
    if let Some(kubeconfig) = cluster::external_kubeconfig() {
        println!("{} is set: nothing is started, {} is used", cluster::EXTERNAL_KUBECONFIG, kubeconfig.display());
        return Ok(());
    }
    let program = std::env::current_exe().context("find this program")?;
    let record = cluster::up(&program, &arguments.options()?)?;
    println!("Kubernetes is ready at {}\nexport KUBECONFIG={}", record.server, record.kubeconfig.display());
    Ok(())
}

#[tokio::main]
async fn own(arguments: &UpArguments) -> Result<()> {
    // Before anything is started, so that no signal can be missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut check = tokio::time::interval(Duration::from_secs(1));
    let mut cluster = tokio::select! {
        started = Cluster::start(arguments.options()?) => started?,
        _ = terminate.recv() => bail!("ended by SIGTERM before the cluster was ready"),
        _ = interrupt.recv() => bail!("ended by SIGINT before the cluster was ready"),
    };
    println!("Kubernetes is ready; kubeconfig {}", cluster.kubeconfig_path().display());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = check.tick() => cluster.check().context("the cluster is broken and was ended")?,
        }
    }
    cluster.stop();
    Ok(())
}

fn status(place: &Place, output: Output) -> Result<ExitCode> {
    let directory = place.directory()?;
    let record = Record::of_running(&directory)?;
    match (output, &record) {
        (Output::Json, _) => {
            println!("{}", serde_json::json!({"running": record.is_some(), "cluster": record}));
        }
        (Output::Text, None) => println!("No cluster is running in {}", directory.display()),
        (Output::Text, Some(record)) => {
            println!("Running since process {}: {:?} at {}", record.owner_pid, record.kind, record.server);
            println!("kubeconfig {}", record.kubeconfig.display());
            for component in &record.components {
                println!("{:<24} {:>8}  {}", component.name, component.pid, component.log.display());
            }
        }
    }
    Ok(if record.is_some() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn running(place: &Place) -> Result<Record> {
    let directory = place.directory()?;
    match Record::of_running(&directory)? {
        Some(record) => Ok(record),
        None => bail!("no cluster is running in {}: start one with `cluster up`", directory.display()),
    }
}

impl UpArguments {
    fn options(&self) -> Result<Options> {
        let kind = if self.control_plane_only { Kind::ControlPlaneOnly } else { Kind::Node };
        Ok(Options { fsync: !self.no_fsync, ..Options::new(self.place.directory()?, kind) })
    }
}

impl Place {
    fn directory(&self) -> Result<PathBuf> {
        if let Some(directory) = &self.dir {
            return std::path::absolute(directory).context("make the directory absolute");
        }
        let cache = std::env::var_os("ARBBOT_CACHE").map(PathBuf::from).or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            cache.or_else(|| Some(std::env::home_dir()?.join(".cache"))).map(|cache| cache.join("arbbot"))
        });
        let cache = cache.context("there is no home directory: name one with --dir")?;
        Ok(cache.join("clusters").join(&self.name))
    }
}
