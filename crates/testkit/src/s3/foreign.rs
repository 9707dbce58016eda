//! S3 servers in use that differ from S3, each in its own way: `rclone serve s3`, and the gateway of JuiceFS (an older
//! MinIO). They are real programs over a folder; `docs/stores.md` describes them.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::server::Credentials;
use crate::error::{KitError, Result};
use crate::postgres::free_port;
use crate::scratch::Scratch;
use crate::settings;

/// The program of a [`ForeignS3`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `rclone serve s3`.
    Rclone,
    /// `juicefs gateway`.
    JuiceFs,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Rclone => "rclone",
            Self::JuiceFs => "juicefs",
        }
    }

    fn path(self) -> Result<PathBuf> {
        let key = match self {
            Self::Rclone => "HOLDFAST_RCLONE",
            Self::JuiceFs => "HOLDFAST_JUICEFS",
        };
        settings::get(key).map(PathBuf::from).filter(|path| path.is_file()).ok_or_else(|| KitError::Missing {
            what: self.name().to_owned(),
            looked_at: vec![settings::cache().join("env")],
        })
    }
}

/// A running server with the bucket `holdfast`; it and its objects end with the value.
#[derive(Debug)]
pub struct ForeignS3 {
    child: Child,
    address: SocketAddr,
    credentials: Credentials,
    _scratch: Scratch,
}

impl ForeignS3 {
    /// Starts the program that `scripts/provision` installed.
    ///
    /// # Errors
    /// [`KitError::Missing`] when it is not installed.
    pub fn start(program: Program) -> Result<Self> {
        let path = program.path()?;
        let name = program.name();
        let scratch = Scratch::new()?;
        let log = scratch.write("server.log", "")?;
        let home = scratch.folder("home")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let credentials = Credentials::default();
        let mut command = Command::new(&path);
        match program {
            Program::Rclone => {
                let root = scratch.folder("store")?;
                let bucket = root.join("holdfast");
                fs::create_dir(&bucket).map_err(KitError::io(format!("make {}", bucket.display())))?;
                let key = format!("{},{}", credentials.access_key, credentials.secret_key);
                command.args(["serve", "s3", "--addr", &address.to_string(), "--auth-key", &key]).arg(root);
            }
            Program::JuiceFs => {
                let metadata = format!("sqlite3://{}", home.join("meta.db").display());
                let data = format!("{}/", scratch.folder("data")?.display());
                let format = ["format", "--storage", "file", "--bucket", &data, &metadata, "holdfast"];
                let made = Command::new(&path)
                    .args(format)
                    .env("HOME", &home)
                    .output()
                    .map_err(KitError::io("run juicefs format"))?;
                if !made.status.success() {
                    let answer = String::from_utf8_lossy(&made.stderr).into_owned();
                    return Err(KitError::Unexpected { what: "juicefs format".to_owned(), answer });
                }
                // It serves one bucket, which has the name of the file system.
                command
                    .args(["gateway", "--no-usage-report", "--no-bgjob", "--cache-size", "0"])
                    .args(["--keep-etag", "--object-tag", &metadata, &address.to_string()])
                    .env("MINIO_ROOT_USER", &credentials.access_key)
                    .env("MINIO_ROOT_PASSWORD", &credentials.secret_key);
            }
        }
        let output = fs::File::create(&log).map_err(KitError::io(format!("open {}", log.display())))?;
        let errors = output.try_clone().map_err(KitError::io(format!("open {}", log.display())))?;
        let child = command
            .env("HOME", &home)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(KitError::io(format!("start {name}")))?;
        let mut server = Self { child, address, credentials, _scratch: scratch };
        let limit = Duration::from_mins(1);
        let start = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            let log = || fs::read_to_string(&log).unwrap_or_default();
            if let Ok(Some(status)) = server.child.try_wait() {
                let (server, status) = (name.to_owned(), status.to_string());
                return Err(KitError::StartFailed { server, status, log: log() });
            }
            if start.elapsed() > limit {
                return Err(KitError::Timeout { what: format!("the start of {name}"), limit, log: log() });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// The server. If it is missing, it prints why and returns nothing: a visible skip.
    ///
    /// # Panics
    /// In CI, where a missing server is a failure.
    pub fn or_skip(program: Program) -> Option<Self> {
        Self::start(program).map_err(|error| settings::skip(&error.to_string())).ok()
    }

    /// The URL of the server; buckets are addressed by path.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of the server, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The credentials with which clients must sign requests.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

impl Drop for ForeignS3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
