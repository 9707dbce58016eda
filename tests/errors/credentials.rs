//! Services that provide credentials, but are overloaded, refuse, or have none.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_testkit::s3::S3Server;

use super::kit::Bench;

const SEGMENT: &str = "000000010000000000000001";

/// What a service does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Returns the credentials.
    Answers,
    /// Fails with this status.
    Fails(u16),
    /// Accepts the connection and does not answer.
    IsSilent,
}

/// A service that does something else with its first requests than with all later ones. It ends with the process of the
/// tests.
struct Service {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Service {
    fn start(credentials: String, first: Does, times: usize, then: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let does = if counter.fetch_add(1, Ordering::SeqCst) < times { first } else { then };
                let credentials = credentials.clone();
                std::thread::spawn(move || serve(socket, does, &credentials));
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}/credentials", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve(mut socket: TcpStream, does: Does, credentials: &str) {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match socket.read(&mut piece) {
            Ok(read) if read > 0 => head.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
    let (status, body) = match does {
        Does::Answers => (200, credentials),
        Does::Fails(status) => (status, "{}"),
        Does::IsSilent => {
            // Until the client gives up.
            drop(socket.set_read_timeout(Some(Duration::from_mins(2))));
            drop(socket.read(&mut piece));
            return;
        }
    };
    let answer = format!(
        "HTTP/1.1 {status} Canned\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    drop(socket.write_all(answer.as_bytes()));
}

/// A bench whose configuration has no credentials, and the credentials of its store as a container's service returns
/// them.
fn bench() -> (Bench, S3Server, String) {
    let server = S3Server::start().expect("start the S3 server");
    let bench = Bench::new();
    bench.configure(&format!(
        "url = \"s3://holdfast/pg\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\nencryption = \"none\"\n",
        server.endpoint()
    ));
    let keys = server.credentials();
    let credentials = format!(
        "{{\"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\",\"Token\":\"token\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}",
        keys.access_key, keys.secret_key
    );
    (bench, server, credentials)
}

fn run(bench: &Bench, service: &Service, arguments: &[&str]) -> Output {
    let mut command = bench.command(arguments);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url()).output().expect("run holdfast")
}

/// More failures than the number that the credentials client repeats by itself.
#[test]
fn a_service_that_fails_for_a_moment_is_asked_again() {
    for (first, times) in [(Does::Fails(503), 8), (Does::Fails(429), 8), (Does::IsSilent, 1)] {
        let (bench, _server, credentials) = bench();
        let service = Service::start(credentials, first, times, Does::Answers);
        let output = run(&bench, &service, &["repo", "init"]);
        assert!(output.status.success(), "{first:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(service.asked() > times, "{first:?}");
    }
}

#[test]
fn a_service_that_is_away_is_unreachable_and_a_refusal_is_final() {
    let (mut bench, server, credentials) = bench();
    bench.texts.name("ENDPOINT", server.endpoint());
    let get = ["wal", "get", SEGMENT, "$DIR/x"];
    let hint = "hint:  look at the service that hands out the credentials (instance metadata, container, STS, SSO) and the way \
                to it, then run this again; keys in the configuration or in AWS_ACCESS_KEY_ID need no such service\n";
    let slow = "keys in the configuration or in AWS_ACCESS_KEY_ID need no such service\n";
    let slow = format!(
        "in a container on EC2 the answers of instance metadata need a second hop: `aws ec2 modify-instance-metadata-options \
         --http-put-response-hop-limit 2`; {slow}"
    );
    for (does, status, start, hint) in [
        (
            Does::Fails(500),
            152,
            "error: the credentials service of s3://holdfast/pg is not available: no credentials could be fetched: ",
            hint,
        ),
        (
            Does::Fails(429),
            152,
            "error: the credentials service of s3://holdfast/pg is overloaded or limits the rate of requests: no credentials could be fetched: ",
            hint,
        ),
        (
            Does::IsSilent,
            152,
            "error: the credentials service of s3://holdfast/pg did not answer in time: no credentials could be fetched: ",
            &slow,
        ),
        (
            Does::Fails(403),
            149,
            "error: no credentials for s3://holdfast/pg: ",
            "hint:  set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or credentials in the configuration\n",
        ),
    ] {
        let service = Service::start(credentials.clone(), does, usize::MAX, does);
        let output = run(&bench, &service, &get);
        let said = bench.texts.plain(&String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{does:?}: {said}");
        assert!(said.starts_with(start) && said.ends_with(hint), "{does:?}: {said}");
        assert!(!said.contains("$ENDPOINT"), "the store got no request: {said}");
    }
    // Nothing listens there.
    let gone = Service { address: "127.0.0.1:1".parse().expect("an address"), asked: Arc::default() };
    let output = run(&bench, &gone, &get);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(152), "{said}");
    assert!(said.contains("no credentials could be fetched: "), "{said}");
}

/// A machine whose metadata service accepts the connection but is silent has such a service; a machine where nothing
/// accepts it has none.
#[test]
fn instance_metadata_that_is_silent_is_asked_again() {
    let (bench, _server, credentials) = bench();
    let get = |service: &Service| {
        let mut command = bench.command(&["wal", "get", SEGMENT, "$DIR/x"]);
        command.env_remove("AWS_EC2_METADATA_DISABLED");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", service.address));
        command.output().expect("run holdfast")
    };
    for (does, status, words) in [
        (Does::IsSilent, 152, "no credentials could be fetched: "),
        (Does::Fails(500), 152, "no credentials could be fetched: "),
        (Does::Fails(404), 149, "no credentials for s3://holdfast/pg: "),
    ] {
        let service = Service::start(credentials.clone(), does, usize::MAX, does);
        let output = get(&service);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{does:?}: {said}");
        assert!(said.contains(words), "{does:?}: {said}");
    }
    let gone = Service { address: "127.0.0.1:1".parse().expect("an address"), asked: Arc::default() };
    let output = get(&gone);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(149), "{said}");
}

/// STS returns the credentials of a pod's service account.
#[test]
fn a_token_is_sent_again_if_sts_is_overloaded() {
    let (bench, _server, _) = bench();
    let token = bench.scratch.write("token", "a token").expect("write the token");
    for (does, status, words) in [
        (Does::Fails(503), 152, "no credentials could be fetched: "),
        (Does::Fails(403), 149, "no credentials for s3://holdfast/pg: "),
    ] {
        let service = Service::start(String::new(), does, usize::MAX, does);
        let mut command = bench.command(&["wal", "get", SEGMENT, "$DIR/x"]);
        command.env("AWS_WEB_IDENTITY_TOKEN_FILE", &token).env("AWS_ROLE_ARN", "arn:aws:iam::1:role/backup");
        command.env("AWS_ENDPOINT_URL_STS", format!("http://{}", service.address));
        let output = command.output().expect("run holdfast");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{does:?}: {said}");
        assert!(said.contains(words), "{does:?}: {said}");
    }
}
