//! `moto_server`, a Python imitation of S3 with tags, versions, upload lists and much more. It is slow.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::server::Credentials;
use crate::error::{KitError, Result};
use crate::postgres::free_port;
use crate::scratch::Scratch;
use crate::settings;

/// A running moto server. It ends with the value, and so do its objects, which are in memory.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    address: SocketAddr,
    _scratch: Scratch,
}

impl Moto {
    /// Starts the server that `scripts/provision` installed and makes the bucket `holdfast`.
    ///
    /// # Errors
    /// [`KitError::Missing`] if it is not installed.
    pub fn start() -> Result<Self> {
        let program = settings::get("HOLDFAST_MOTO_SERVER").map(PathBuf::from).filter(|path| path.is_file());
        let program = program.ok_or_else(|| KitError::Missing {
            what: "moto_server".to_owned(),
            looked_at: vec![settings::cache().join("env")],
        })?;
        let scratch = Scratch::new()?;
        let log = scratch.write("moto.log", "")?;
        let output = fs::File::create(&log).map_err(KitError::io(format!("open {}", log.display())))?;
        let errors = output.try_clone().map_err(KitError::io(format!("open {}", log.display())))?;
        let port = free_port()?;
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(KitError::io("start moto_server"))?;
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), _scratch: scratch };
        let limit = Duration::from_mins(1);
        let start = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            let log = || fs::read_to_string(&log).unwrap_or_default();
            if let Ok(Some(status)) = server.child.try_wait() {
                let status = status.to_string();
                return Err(KitError::StartFailed { server: "moto_server".to_owned(), status, log: log() });
            }
            if start.elapsed() > limit {
                return Err(KitError::Timeout { what: "the start of moto_server".to_owned(), limit, log: log() });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        server.create_bucket("holdfast")?;
        Ok(server)
    }

    /// The server. If it is missing, it prints why and returns nothing: a visible skip.
    ///
    /// # Panics
    /// In CI, where a missing server is a failure.
    pub fn or_skip() -> Option<Self> {
        Self::start().map_err(|error| settings::skip(&error.to_string())).ok()
    }

    /// The URL of the server; buckets are addressed by path.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of the server, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Any credentials work: moto checks signatures only on request.
    pub fn credentials(&self) -> Credentials {
        Credentials::default()
    }

    /// The region of the server.
    pub fn region(&self) -> &'static str {
        "us-east-1"
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        self.request("PUT", &format!("/{name}"), &[], b"").map(|_| ())
    }

    /// Makes a bucket that keeps versions and locks objects (Object Lock).
    pub fn create_locking_bucket(&self, name: &str) -> Result<()> {
        let header = ("x-amz-bucket-object-lock-enabled", "true");
        self.request("PUT", &format!("/{name}"), &[header], b"").map(|_| ())
    }

    /// Sends a request as somebody with all rights, and gives the body of the answer.
    ///
    /// # Errors
    /// [`KitError::Unexpected`] with the whole answer if it is not a success.
    pub fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Vec<u8>> {
        use std::io::Read as _;
        let action = format!("{method} {target} in moto");
        let mut socket = TcpStream::connect(self.address).map_err(KitError::io(action.clone()))?;
        let headers = headers.iter().fold(String::new(), |all, (name, value)| all + &format!("{name}: {value}\r\n"));
        // HTTP/1.0, so that the answer is not sent in chunks. Moto recognises a request to S3 by its authorization
        // header.
        let request = format!(
            "{method} {target} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=testkit/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n{headers}\r\n",
            self.address,
            body.len()
        );
        socket.write_all(request.as_bytes()).map_err(KitError::io(action.clone()))?;
        socket.write_all(body).map_err(KitError::io(action.clone()))?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).map_err(KitError::io(action.clone()))?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
        let content = answer.split_off(end);
        let head = String::from_utf8_lossy(&answer).into_owned();
        match head.split_once(' ') {
            Some((_, status)) if status.starts_with('2') => Ok(content),
            _ => Err(KitError::Unexpected { what: action, answer: head + &String::from_utf8_lossy(&content) }),
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
