//! An HTTP server that gives prepared answers, with one connection for each request.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// The number of earlier requests of this method.
    pub(crate) number: usize,
    headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }
}

pub(crate) enum Answer {
    Http { status: u16, headers: Vec<(String, String)>, body: String },
    Cut,
    Silence,
}

impl Answer {
    pub(crate) fn new(status: u16, body: &str) -> Self {
        Self::Http { status, headers: Vec::new(), body: body.to_owned() }
    }

    pub(crate) fn error(status: u16, code: &str) -> Self {
        Self::new(status, &format!("<Error><Code>{code}</Code><Message>words</Message></Error>"))
    }

    pub(crate) fn cut() -> Self {
        Self::Cut
    }

    pub(crate) fn silence() -> Self {
        Self::Silence
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Http { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

pub(crate) struct Server {
    pub(crate) endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) async fn start(respond: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, respond) = (Arc::clone(&requests), Arc::new(respond));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("accept a connection of the test");
                tokio::spawn(serve(socket, Arc::clone(&seen), Arc::clone(&respond)));
            }
        });
        Self { endpoint, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }
}

async fn serve(mut socket: TcpStream, seen: Arc<Mutex<Vec<Request>>>, respond: Arc<impl Fn(&Request) -> Answer>) {
    let Some(mut request) = read(&mut socket).await else { return };
    {
        let mut seen = seen.lock();
        request.number = seen.iter().filter(|earlier| earlier.method == request.method).count();
        seen.push(request.clone());
    }
    match respond(&request) {
        Answer::Cut => {}
        Answer::Silence => tokio::time::sleep(std::time::Duration::from_mins(1)).await,
        Answer::Http { status, headers, body } => {
            let mut text = format!("HTTP/1.1 {status} Canned\r\nconnection: close\r\n");
            let bodyless = request.method == "HEAD" || status == 204;
            if !bodyless {
                write!(text, "content-length: {}\r\n", body.len()).unwrap();
            }
            for (name, value) in headers {
                write!(text, "{name}: {value}\r\n").unwrap();
            }
            text.push_str("\r\n");
            if !bodyless {
                text.push_str(&body);
            }
            let _ = socket.write_all(text.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    }
}

async fn read(socket: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let head_end = loop {
        let read = socket.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        let read = socket.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        body.extend_from_slice(&buffer[..read]);
    }
    Some(Request { method, target, number: 0, headers, body: body.into() })
}
