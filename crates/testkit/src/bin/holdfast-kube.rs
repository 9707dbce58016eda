//! The Kubernetes of the tests, for people: start it, look at it, break it, stop it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use holdfast_testkit::kube::{Bed, Resident};
use holdfast_testkit::scratch::built_program;
use holdfast_testkit::{KitError, Result};

/// A real Kubernetes with two nodes, storage with snapshots and an object store, on this machine alone.
#[derive(Debug, Parser)]
#[command(name = "holdfast-kube")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start the cluster, or find it running; loads the image of `holdfast` when that was built
    Up,
    /// Stop everything and put the machine back as it was
    Down,
    /// What runs, and where its logs are
    Status,
    /// Print the path of the kubeconfig
    Kubeconfig,
    /// Print the settings of the cluster and its object store as shell variables
    Env,
    /// Run kubectl for this cluster
    #[command(disable_help_flag = true)]
    Kubectl {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Stop or start a node
    Node {
        /// What to do with it
        action: Switch,
        /// Its name
        #[arg(value_parser = ["node-1", "node-2"])]
        name: String,
    },
    /// Take the object store away or bring it back
    S3 {
        /// What to do with it
        action: Switch,
    },
    /// Take the storage vendor away or bring it back
    Storage {
        /// What to do with it
        action: Switch,
    },
    /// Pause, resume or restart the API server
    Api {
        /// What to do with it
        action: ApiAction,
    },
    /// Load an archive as `docker save` writes it, or a program `holdfast`, into all nodes
    LoadImage {
        /// The archive; without it, the image of the program `holdfast` is made and loaded
        archive: Option<PathBuf>,
        /// The program for the image, by default the one beside this program
        #[arg(long)]
        holdfast: Option<PathBuf>,
    },
    /// Give an image on all nodes a further name
    TagImage {
        /// The image
        image: String,
        /// Its further name
        name: String,
    },
    /// Serve a part of a running cluster in the foreground (started by `up`)
    #[command(hide = true)]
    Serve {
        /// Which part
        #[arg(value_parser = parse_resident)]
        part: Resident,
    },
}

fn parse_resident(name: &str) -> std::result::Result<Resident, String> {
    Resident::ALL.into_iter().find(|part| part.name() == name).ok_or_else(|| "no part of the cluster".to_owned())
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Switch {
    Stop,
    Start,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ApiAction {
    Pause,
    Resume,
    Restart,
}

#[expect(clippy::print_stderr, reason = "a program for people, who read what it says")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "its answers, which scripts read")]
#[expect(clippy::print_stderr, reason = "a program for people, who read what it says")]
fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up => {
            let start = std::time::Instant::now();
            let bed = Bed::up()?;
            if let Ok(program) = built_program("holdfast") {
                bed.load_holdfast(&program)?;
            }
            eprintln!("the cluster runs ({:.1} s)", start.elapsed().as_secs_f64());
            println!("export KUBECONFIG={}", bed.kubeconfig().display());
            if let Some(folder) = bed.kubectl_path().parent() {
                println!("export PATH=\"{}:$PATH\"", folder.display());
            }
        }
        Verb::Down => Bed::down()?,
        Verb::Status => print!("{}", running()?.status()?),
        Verb::Kubeconfig => println!("{}", running()?.kubeconfig().display()),
        Verb::Env => {
            let bed = running()?;
            let store = bed.s3()?;
            println!("export KUBECONFIG={}", bed.kubeconfig().display());
            if let Some(folder) = bed.kubectl_path().parent() {
                println!("export PATH=\"{}:$PATH\"", folder.display());
            }
            println!("export HOLDFAST_KUBE_S3_ENDPOINT={}", store.endpoint);
            println!("export HOLDFAST_KUBE_S3_BUCKET={}", store.bucket);
            println!("export AWS_REGION={}", store.region);
            println!("export AWS_ACCESS_KEY_ID={}", store.credentials.access_key);
            println!("export AWS_SECRET_ACCESS_KEY={}", store.credentials.secret_key);
        }
        Verb::Kubectl { arguments } => {
            let status =
                running()?.kubectl_command().args(arguments).status().map_err(KitError::io("start kubectl"))?;
            return Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .map_or(ExitCode::FAILURE, ExitCode::from));
        }
        Verb::Node { action, name } => {
            let number = name.strip_prefix("node-").and_then(|number| number.parse().ok()).unwrap_or(1);
            let node = running()?.node(number)?;
            match action {
                Switch::Stop => node.stop()?,
                Switch::Start => node.start()?,
            }
        }
        Verb::S3 { action } => switch(&running()?, Resident::S3, action)?,
        Verb::Storage { action } => switch(&running()?, Resident::Storage, action)?,
        Verb::Api { action: ApiAction::Pause } => running()?.pause_apiserver()?,
        Verb::Api { action: ApiAction::Resume } => running()?.resume_apiserver()?,
        Verb::Api { action: ApiAction::Restart } => running()?.restart_apiserver()?,
        Verb::LoadImage { archive: Some(archive), holdfast: None } => running()?.load_image(&archive)?,
        Verb::LoadImage { archive: None, holdfast } => {
            let program = holdfast.map_or_else(|| built_program("holdfast"), Ok)?;
            running()?.load_holdfast(&program)?;
        }
        Verb::LoadImage { .. } => {
            return Err(KitError::Unsupported("an archive or --holdfast, not both".to_owned()));
        }
        Verb::TagImage { image, name } => running()?.tag_image(&image, &name)?,
        Verb::Serve { part } => block_on(part.serve())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn switch(bed: &Bed, part: Resident, action: Switch) -> Result<()> {
    match action {
        Switch::Stop => bed.stop_resident(part),
        Switch::Start => bed.start_resident(part),
    }
}

fn running() -> Result<Bed> {
    Bed::running()
        .ok_or_else(|| KitError::Unsupported("no cluster runs on this machine\nhint:  holdfast-kube up".to_owned()))
}

fn block_on(task: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(KitError::io("start the runtime"))?
        .block_on(task)
}
