//! An S3 server over a folder, in the foreground, to try Holdfast without any cloud account.
//!
//! `holdfast-s3 --root DIR [--address 127.0.0.1:9000] [--bucket NAME]... [--access-key KEY --secret-key SECRET]`
//!
//! Buckets are folders below the root. Do not keep data in it: it has no redundancy.
//!
//! For benchmarks it also serves over TLS, at a free port of `localhost`: `--tls DIR` writes the certificate of its
//! authority to `DIR/ca.pem`. `--latency-ms N` adds N ms to each round trip over TLS, and `--bandwidth N` limits each
//! of its connections to N bytes a second. `--log FILE` adds a line for each request.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use holdfast_testkit::proxy::{TcpProxy, TlsFront};
use holdfast_testkit::s3::{Credentials, RequestLog, serve};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

const USAGE: &str = "usage: holdfast-s3 --root DIR [--address IP:PORT] [--bucket NAME]... \
                     [--access-key KEY --secret-key SECRET] \
                     [--tls DIR [--latency-ms N] [--bandwidth BYTES_PER_SECOND]] [--log FILE]";

struct Arguments {
    root: PathBuf,
    address: SocketAddr,
    buckets: Vec<String>,
    credentials: Credentials,
    log: Option<PathBuf>,
    tls: Option<PathBuf>,
    round_trip: Duration,
    bandwidth: Option<NonZeroU64>,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut root, mut log, mut tls, mut bandwidth) = (None, None, None, None);
    let mut address = "127.0.0.1:9000".to_owned();
    let mut buckets = Vec::new();
    let mut credentials = Credentials::default();
    let mut round_trip = Duration::ZERO;
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--root" => root = Some(PathBuf::from(value()?)),
            "--address" => address = value()?,
            "--bucket" => buckets.push(value()?),
            "--access-key" => credentials.access_key = value()?,
            "--secret-key" => credentials.secret_key = value()?,
            "--log" => log = Some(PathBuf::from(value()?)),
            "--tls" => tls = Some(PathBuf::from(value()?)),
            "--latency-ms" => round_trip = Duration::from_millis(number(&name, &value()?)?.get()),
            "--bandwidth" => bandwidth = Some(number(&name, &value()?)?),
            _ => return Err(format!("unknown argument {name:?}")),
        }
    }
    if tls.is_none() && (bandwidth.is_some() || !round_trip.is_zero()) {
        return Err("--latency-ms and --bandwidth are for connections over TLS: --tls is missing".to_owned());
    }
    let address = address.parse().map_err(|error| format!("{address:?} is not an address: {error}"))?;
    let root = root.ok_or("--root is missing")?;
    Ok(Arguments { root, address, buckets, credentials, log, tls, round_trip, bandwidth })
}

fn number(name: &str, value: &str) -> Result<NonZeroU64, String> {
    value.parse().map_err(|_| format!("{name} needs a whole number above 0, and {value:?} is not one"))
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
    let log = arguments.log.as_deref().map(RequestLog::append_to).transpose()?;
    eprintln!("serving {} as S3 at http://{}", arguments.root.display(), arguments.address);
    // The front and the proxy end with these values.
    let fronts = arguments.tls.as_deref().map(|folder| over_tls(arguments, folder)).transpose()?;
    if let Some((address, ..)) = &fronts {
        eprintln!("serving it over TLS at https://localhost:{}", address.port());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = serve(arguments.address, &arguments.root, &arguments.credentials, log) => result?,
            signal = tokio::signal::ctrl_c() => signal?,
            _ = terminated.recv() => {}
        }
        Ok(())
    })
}

/// Starts TLS in front of the server and, if it should be slow, a slow network in front of that. The address is that of
/// what comes first.
fn over_tls(
    arguments: &Arguments,
    folder: &Path,
) -> Result<(SocketAddr, TlsFront, Option<TcpProxy>), Box<dyn std::error::Error>> {
    let (authority, chain, key) = certificates()?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("ca.pem"), authority)?;
    let front = TlsFront::start(arguments.address, &chain, &key)?;
    if arguments.round_trip.is_zero() && arguments.bandwidth.is_none() {
        return Ok((front.address(), front, None));
    }
    let network = TcpProxy::start(front.address())?;
    network.set_latency(arguments.round_trip / 2);
    network.set_bandwidth(arguments.bandwidth);
    Ok((network.address(), front, Some(network)))
}

/// The certificate of a new authority, one that it signed for this host, and the key of the latter, all in PEM.
fn certificates() -> Result<(String, String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.distinguished_name.push(DnType::CommonName, "holdfast-s3");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority_text = authority.self_signed(&key)?.pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    server.use_authority_key_identifier_extension = true;
    Ok((authority_text, server.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}
