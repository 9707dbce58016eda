//! An S3 server over a folder, in this process and over real HTTP.
//!
//! It is `s3s-fs`: ranges, multipart uploads, conditional creates, checksums, list pages and delete-many; no tags and
//! no list of unfinished uploads. Clients must sign requests with its credentials. Objects are plain files below the
//! root, in one folder for each bucket, so a test can damage or remove them without the server's knowledge.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as ConnectionBuilder;
use s3s::Body;
use s3s::access::S3Access;
use s3s::auth::SimpleAuth;
use s3s::dto::{CompleteMultipartUploadInput, PutObjectInput};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Request, S3Result};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::background::Background;
use crate::error::{KitError, Result};
use crate::s3::requests::RequestLog;
use crate::scratch::Scratch;

/// The header with which a write asks for encryption at rest, and with which the answer confirms it.
const ENCRYPTION_AT_REST: &str = "x-amz-server-side-encryption";

/// Makes conditional writes one at a time.
type WriteLock = Arc<tokio::sync::Mutex<()>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An access key and its secret, for a test server only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The access key id.
    pub access_key: String,
    /// The secret access key.
    pub secret_key: String,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { access_key: "testkit".to_owned(), secret_key: "testkit-secret".to_owned() }
    }
}

/// The options for a server; see [`S3Server::builder`].
#[derive(Debug, Default)]
pub struct S3ServerBuilder {
    buckets: Vec<String>,
    credentials: Credentials,
    root: Option<PathBuf>,
    quirks: Quirks,
}

/// The points in which the server differs from S3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Quirks {
    conditions: Conditions,
    folders: Folders,
}

/// How the server answers a listing by folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Folders {
    /// It names all folders.
    #[default]
    All,
    /// It names the first folder and leaves the others out.
    FirstOnly,
    /// It names no folder.
    None,
}

/// How the server handles a condition on a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Conditions {
    /// It respects the condition.
    #[default]
    Kept,
    /// It accepts the condition, answers with success, and overwrites: several servers in use do that.
    Ignored,
    /// It respects the condition on a PUT, and ignores it when a multipart upload is completed.
    IgnoredByParts,
    /// It checks the condition when a write begins and stores the object later. Of two writes that overlap, both
    /// succeed.
    LookedAtFirst,
}

impl S3ServerBuilder {
    /// Adds a bucket, whose name must have at least three characters. Without any, there is one bucket named
    /// `holdfast`.
    #[must_use]
    pub fn bucket(mut self, name: &str) -> Self {
        self.buckets.push(name.to_owned());
        self
    }

    /// Replaces the default credentials.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Ignores `If-None-Match` on every write, as several stores in use do.
    #[must_use]
    pub fn ignoring_conditions(mut self) -> Self {
        self.quirks.conditions = Conditions::Ignored;
        self
    }

    /// Respects `If-None-Match` on a PUT and ignores it when a multipart upload is completed, as Ceph 16 does.
    #[must_use]
    pub fn ignoring_conditions_of_uploads(mut self) -> Self {
        self.quirks.conditions = Conditions::IgnoredByParts;
        self
    }

    /// Names no folder in a listing with a delimiter, as s3rver does in many cases.
    #[must_use]
    pub fn without_folders(mut self) -> Self {
        self.quirks.folders = Folders::None;
        self
    }

    /// Names only the first folder in a listing with a delimiter.
    #[must_use]
    pub fn with_first_folder_only(mut self) -> Self {
        self.quirks.folders = Folders::FirstOnly;
        self
    }

    /// Keeps the objects in this folder, instead of a folder that is removed with the server.
    #[must_use]
    pub fn root(mut self, folder: &Path) -> Self {
        self.root = Some(folder.to_path_buf());
        self
    }

    /// Checks the condition of a write when it begins and stores the object later, as Swift does. Of two writes that
    /// overlap, both succeed.
    #[must_use]
    pub fn looks_then_writes(mut self) -> Self {
        self.quirks.conditions = Conditions::LookedAtFirst;
        self
    }

    /// Starts the server on a free port of 127.0.0.1.
    pub fn start(self) -> Result<S3Server> {
        let scratch = Scratch::new()?;
        let root = match self.root {
            Some(root) => root,
            None => scratch.folder("s3")?,
        };
        let buckets = if self.buckets.is_empty() { vec!["holdfast".to_owned()] } else { self.buckets };
        let listener = listen("127.0.0.1:0".parse().map_err(|_| KitError::Unsupported("no loopback".to_owned()))?)?;
        let address = listener.local_addr().map_err(KitError::io("start the S3 server"))?;
        let mut server = S3Server {
            address,
            root,
            buckets,
            credentials: self.credentials,
            quirks: self.quirks,
            running: None,
            _scratch: scratch,
        };
        server.create_buckets()?;
        server.run(listener)?;
        Ok(server)
    }
}

/// A running S3 server; ends with the value.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    root: PathBuf,
    buckets: Vec<String>,
    credentials: Credentials,
    quirks: Quirks,
    running: Option<Background>,
    _scratch: Scratch,
}

impl S3Server {
    /// Starts a server with the bucket `holdfast` and the default credentials.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// The options for a server with other buckets, credentials or root.
    pub fn builder() -> S3ServerBuilder {
        S3ServerBuilder::default()
    }

    /// The URL of the server, `http://127.0.0.1:<port>`; buckets are addressed by path.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of the server, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The region of the server, for which clients must sign requests.
    pub fn region(&self) -> &'static str {
        "us-east-1"
    }

    /// The name of the first bucket.
    pub fn bucket(&self) -> &str {
        self.buckets.first().map_or("", String::as_str)
    }

    /// The credentials with which clients must sign requests.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The environment variables with which any S3 client finds the credentials and the region.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ACCESS_KEY_ID", self.credentials.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.credentials.secret_key.clone()),
            ("AWS_REGION", self.region().to_owned()),
            // Without it, a client that lacks a key asks the metadata service for the machine's own role.
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// The folder that contains one folder for each bucket.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that holds an object.
    pub fn object_path(&self, bucket: &str, key: &str) -> PathBuf {
        self.root.join(bucket).join(key)
    }

    /// Adds a bucket.
    pub fn create_bucket(&mut self, name: &str) -> Result<()> {
        self.buckets.push(name.to_owned());
        self.create_buckets()
    }

    /// Ends the server and all its connections; the objects stay.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Starts the server again on its old port.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        // The old listener is closed once its threads have noticed the stop.
        let mut last = None;
        for _ in 0..100 {
            match listen(self.address) {
                Ok(listener) => return self.run(listener),
                Err(error) => last = Some(error),
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        last.map_or(Ok(()), Err)
    }

    fn create_buckets(&self) -> Result<()> {
        for bucket in &self.buckets {
            let path = self.root.join(bucket);
            fs::create_dir_all(&path).map_err(KitError::io(format!("make the bucket {}", path.display())))?;
        }
        Ok(())
    }

    fn run(&mut self, listener: std::net::TcpListener) -> Result<()> {
        let service = service(&self.root, &self.credentials, self.quirks.conditions)?;
        let turn = (self.quirks.conditions != Conditions::LookedAtFirst).then(WriteLock::default);
        let folders = self.quirks.folders;
        let background = Background::start("s3-server")?;
        background.spawn(async move {
            if let Ok(listener) = TcpListener::from_std(listener) {
                accept(listener, service, turn, folders, None).await;
            }
        });
        self.running = Some(background);
        Ok(())
    }
}

/// Serves a folder as S3 in the foreground until the task is cancelled, for people, the demo and benchmarks. With a
/// log, each request adds a line to it.
///
/// # Errors
/// If the server cannot listen at the address, or the folder cannot be used.
pub async fn serve(address: SocketAddr, root: &Path, credentials: &Credentials, log: Option<RequestLog>) -> Result<()> {
    let service = service(root, credentials, Conditions::Kept)?;
    let listener =
        TcpListener::bind(address).await.map_err(KitError::io(format!("listen at {address} for the S3 server")))?;
    accept(listener, service, Some(WriteLock::default()), Folders::All, log).await;
    Ok(())
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener> {
    // The standard library sets SO_REUSEADDR, so old connections of an earlier server do not block the port.
    let listener = std::net::TcpListener::bind(address).map_err(KitError::io(format!("listen at {address}")))?;
    listener.set_nonblocking(true).map_err(KitError::io(format!("listen at {address}")))?;
    Ok(listener)
}

fn service(root: &Path, credentials: &Credentials, conditions: Conditions) -> Result<S3Service> {
    let files = FileSystem::new(root)
        .map_err(|error| KitError::Unsupported(format!("serve {} as S3: {error:?}", root.display())))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(credentials.access_key.clone(), credentials.secret_key.clone()));
    if matches!(conditions, Conditions::Ignored | Conditions::IgnoredByParts) {
        builder.set_access(IgnoringConditions { on_put: conditions == Conditions::Ignored });
    }
    Ok(builder.build())
}

/// Removes the condition from each write before the server sees it. The signature was checked before that.
struct IgnoringConditions {
    on_put: bool,
}

/// The result of a method of [`S3Access`], written out because it is an `async_trait`.
type Allowed<'a> = Pin<Box<dyn Future<Output = S3Result<()>> + Send + 'a>>;

impl S3Access for IgnoringConditions {
    fn put_object<'this, 'request, 'answer>(
        &'this self,
        request: &'request mut S3Request<PutObjectInput>,
    ) -> Allowed<'answer>
    where
        'this: 'answer,
        'request: 'answer,
        Self: 'answer,
    {
        if self.on_put {
            request.input.if_none_match = None;
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn complete_multipart_upload<'this, 'request, 'answer>(
        &'this self,
        request: &'request mut S3Request<CompleteMultipartUploadInput>,
    ) -> Allowed<'answer>
    where
        'this: 'answer,
        'request: 'answer,
        Self: 'answer,
    {
        request.input.if_none_match = None;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Accepts connections until the task ends; they end with the set, and the set ends with the task.
async fn accept(
    listener: TcpListener,
    service: S3Service,
    turn: Option<WriteLock>,
    folders: Folders,
    log: Option<RequestLog>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                // Requests and answers are small and the client waits for each: Nagle's algorithm would add 40 ms.
                drop(socket.set_nodelay(true));
                let (service, turn, log) = (service.clone(), turn.clone(), log.clone());
                connections.spawn(async move {
                    let builder = ConnectionBuilder::new(TokioExecutor::new());
                    let service = service_fn(move |request| {
                        logged(request, service.clone(), turn.clone(), folders, log.clone())
                    });
                    // A disconnected client is not an error.
                    drop(builder.serve_connection(TokioIo::new(socket), service).await);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers a request, and then adds its line to the log, if there is one.
async fn logged(
    request: Request<Incoming>,
    service: S3Service,
    turn: Option<WriteLock>,
    folders: Folders,
    log: Option<RequestLog>,
) -> std::result::Result<Response<Body>, BoxError> {
    let line = log.as_ref().map(|_| RequestLog::line_of(&request));
    let response = answer(request, service, turn, folders).await?;
    if let Some((log, line)) = log.zip(line) {
        log.add(&line, response.status().as_u16());
    }
    Ok(response)
}

/// Answers a request. If a write asks for encryption at rest by the store's own key (`AES256`), the answer confirms it,
/// as S3 does: `s3s-fs` accepts the request and leaves the header out. The objects below the root are plain all the
/// same, so that tests can damage them.
async fn answer(
    request: Request<Incoming>,
    service: S3Service,
    turn: Option<WriteLock>,
    folders: Folders,
) -> std::result::Result<Response<Body>, BoxError> {
    let by_folder = request.uri().query().is_some_and(|query| query.contains("delimiter="));
    let at_rest = request.headers().get(ENCRYPTION_AT_REST).filter(|algorithm| *algorithm == "AES256").cloned();
    let mut response = call(request, service, turn).await?;
    if let Some(algorithm) = at_rest.filter(|_| response.status().is_success()) {
        response.headers_mut().insert(ENCRYPTION_AT_REST, algorithm);
    }
    if by_folder && folders != Folders::All {
        let (mut head, body) = response.into_parts();
        let text = String::from_utf8(collect(body).await?.to_vec())?;
        head.headers.remove(header::CONTENT_LENGTH);
        response = Response::from_parts(head, Body::from(Bytes::from(leave_out(&text, folders))));
    }
    Ok(response)
}

/// The listing without the folders that this server leaves out.
fn leave_out(listing: &str, folders: Folders) -> String {
    const FOLDER: (&str, &str) = ("<CommonPrefixes>", "</CommonPrefixes>");
    let mut left = String::new();
    let mut rest = listing;
    let mut named = 0;
    while let Some((before, (folder, after))) =
        rest.split_once(FOLDER.0).and_then(|(before, after)| Some((before, after.split_once(FOLDER.1)?)))
    {
        left.push_str(before);
        if folders == Folders::FirstOnly && named == 0 {
            left.extend([FOLDER.0, folder, FOLDER.1]);
        }
        named += 1;
        rest = after;
    }
    left + rest
}

/// `s3s-fs` looks for an object when a conditional write begins, and writes it later; a real store does both at once.
/// So conditional writes are received whole and then take turns.
async fn call(
    request: Request<Incoming>,
    service: S3Service,
    turn: Option<WriteLock>,
) -> std::result::Result<Response<Body>, BoxError> {
    let (head, body) = request.into_parts();
    let Some(turn) = turn.filter(|_| head.headers.contains_key(header::IF_NONE_MATCH)) else {
        return Ok(service.call(Request::from_parts(head, Body::from(body))).await?);
    };
    let body = collect(body).await?;
    let _turn = turn.lock().await;
    Ok(service.call(Request::from_parts(head, Body::from(body))).await?)
}

async fn collect<B: hyper::body::Body<Data = Bytes> + Unpin>(mut body: B) -> std::result::Result<Bytes, B::Error> {
    let mut whole = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.into())
}
