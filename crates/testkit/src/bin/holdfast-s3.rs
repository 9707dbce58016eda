//! An S3 server over a folder, in the foreground, to try Holdfast without any cloud account.
//!
//! `holdfast-s3 --root DIR [--address 127.0.0.1:9000] [--bucket NAME]... [--access-key KEY --secret-key SECRET]`
//!
//! Buckets are folders below the root. Do not keep data in it: it has neither TLS nor redundancy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_testkit::s3::{Credentials, serve};

const USAGE: &str = "usage: holdfast-s3 --root DIR [--address IP:PORT] [--bucket NAME]... \
                     [--access-key KEY --secret-key SECRET]";

struct Arguments {
    root: PathBuf,
    address: SocketAddr,
    buckets: Vec<String>,
    credentials: Credentials,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut root = None;
    let mut address = "127.0.0.1:9000".to_owned();
    let mut buckets = Vec::new();
    let mut credentials = Credentials::default();
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--root" => root = Some(PathBuf::from(value()?)),
            "--address" => address = value()?,
            "--bucket" => buckets.push(value()?),
            "--access-key" => credentials.access_key = value()?,
            "--secret-key" => credentials.secret_key = value()?,
            _ => return Err(format!("unknown argument {name:?}")),
        }
    }
    let address = address.parse().map_err(|error| format!("{address:?} is not an address: {error}"))?;
    Ok(Arguments { root: root.ok_or("--root is missing")?, address, buckets, credentials })
}

#[expect(clippy::print_stderr, reason = "a program for people, who read what it says")]
fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("error: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program for people, who read what it says")]
fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(&arguments.root)?;
    for bucket in &arguments.buckets {
        std::fs::create_dir_all(arguments.root.join(bucket))?;
    }
    eprintln!("serving {} as S3 at http://{}", arguments.root.display(), arguments.address);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        tokio::select! {
            result = serve(arguments.address, &arguments.root, &arguments.credentials) => result?,
            signal = tokio::signal::ctrl_c() => signal?,
        }
        Ok(())
    })
}
