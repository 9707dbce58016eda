//! S3 stores that refuse or do not answer.

use std::time::{Duration, Instant};

use holdfast_testkit::proxy::{Effect, Fault, HttpFaults, When};
use holdfast_testkit::s3::S3Server;

use super::kit::Bench;

const SEGMENT: &str = "000000010000000000000001";

/// A bench with a store, and a proxy in front of it.
struct Remote {
    bench: Bench,
    faults: HttpFaults,
    server: S3Server,
}

impl Remote {
    fn new() -> Self {
        let server = S3Server::start().expect("start the S3 server");
        let faults = HttpFaults::start(server.address()).expect("start the proxy");
        let mut bench = Bench::new();
        bench.texts.name("ENDPOINT", faults.endpoint());
        let remote = Self { bench, faults, server };
        remote.configure("holdfast", &remote.keys());
        remote
    }

    fn keys(&self) -> String {
        let credentials = self.server.credentials();
        format!("access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n", credentials.access_key, credentials.secret_key)
    }

    fn configure(&self, bucket: &str, further: &str) {
        self.bench.configure(&format!(
            "url = \"s3://{bucket}/pg\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\nencryption = \"none\"\n{further}",
            self.faults.endpoint()
        ));
    }
}

#[test]
fn places_and_keys_that_are_wrong() {
    let mut remote = Remote::new();
    remote.bench.ok(&["repo", "init"]);
    let credentials = remote.server.credentials().clone();
    let keys = |id: &str, secret: &str| format!("access_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"");

    // The server in this process treats a missing bucket as an empty one. All other servers answer like this.
    remote.faults.inject(Fault::new(Effect::Status(404, "NoSuchBucket"), When::Always));
    remote.bench.fails(
        "no such bucket",
        &["list"],
        20,
        "error: s3://holdfast does not exist: HTTP 404 NoSuchBucket: injected\n\
             while: get holdfast.json from s3://holdfast, opening the repository s3://holdfast/pg\n\
             hint:  create the bucket, or correct `url`\n",
    );
    remote.bench.fails(
        "no such bucket at init",
        &["repo", "init"],
        20,
        "error: s3://holdfast does not exist: HTTP 404 NoSuchBucket: injected\n\
             while: get holdfast.json from s3://holdfast, making a repository at s3://holdfast/pg\n\
             hint:  create the bucket, or correct `url`\n",
    );
    remote.bench.fails(
        "no such bucket at recovery",
        &["wal", "get", SEGMENT, "$DIR/x"],
        148,
        "error: s3://holdfast does not exist: HTTP 404 NoSuchBucket: injected\n\
             while: get holdfast.json from s3://holdfast, opening the repository s3://holdfast/pg, fetching \
             $SEGMENT from the archive\n\
             hint:  create the bucket, or correct `url`\n",
    );
    remote.faults.clear();
    // A lifecycle rule moved the oldest object.
    remote.faults.inject(Fault::new(Effect::Status(403, "InvalidObjectState"), When::Always));
    remote.bench.fails(
        "an archived object",
        &["list"],
        22,
        "error: object holdfast.json in s3://holdfast/pg is in an archive storage class: HTTP 403 InvalidObjectState: \
         injected\n\
             while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
             hint:  it is not lost: restore it (RestoreObject, which may take hours) and copy it to a storage class \
         that can be read at once; then leave the repository's prefix out of the lifecycle rule that moves objects, and \
         look at `storage_class` of this [[repo]]\n",
    );
    remote.faults.clear();
    remote.configure("holdfast", &keys("nobody", &credentials.secret_key));
    remote.bench.fails(
        "unknown key",
        &["list"],
        22,
        "error: permission denied by s3://holdfast/pg: HTTP 403 NotSignedUp: Your account is not signed up\n\
             while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
             hint:  check the access key, the secret key and the policy of the bucket\n",
    );
    remote.configure("holdfast", &keys(&credentials.access_key, "wrong"));
    remote.bench.fails(
        "wrong secret",
        &["list"],
        22,
        "error: permission denied by s3://holdfast/pg: HTTP 403 SignatureDoesNotMatch\n\
             while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
             hint:  check the access key, the secret key and the policy of the bucket\n",
    );
    remote.bench.fails(
        "wrong secret, as JSON",
        &["--output", "json", "list"],
        22,
        "{\"error\":{\"code\":22,\"hint\":\"check the access key, the secret key and the policy of the \
             bucket\",\"message\":\"permission denied by s3://holdfast/pg: HTTP 403 \
             SignatureDoesNotMatch\",\"name\":\"permission-denied\",\"while\":\"get holdfast.json from \
             s3://holdfast/pg, opening the repository s3://holdfast/pg\"}}\n",
    );
    remote.bench.finish();
}

#[test]
fn no_credentials_anywhere() {
    let remote = Remote::new();
    remote.configure("holdfast", "");
    let Remote { mut bench, .. } = remote;
    bench.fails(
        "no credentials",
        &["list"],
        21,
        "error: no credentials for s3://holdfast/pg: the credential provider was not enabled: no credentials \
             found in chain. Attempted:\n\
             \x20        Environment: the credential provider was not enabled: environment variable not set\n\
             \x20        Profile: the credential provider was not enabled\n\
             \x20        WebIdentityToken: the credential provider was not enabled: $AWS_WEB_IDENTITY_TOKEN_FILE \
             was not set\n\
             \x20        EcsContainer: the credential provider was not enabled: ECS provider not configured\n\
             \x20        Ec2InstanceMetadata: the credential provider was not enabled: IMDS disabled by \
             AWS_EC2_METADATA_DISABLED env var set to `true`\n\
             while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
             hint:  set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or credentials in the \
             configuration\n",
    );
    // If credentials of a cloud machine are possible; their address may or may not answer.
    let start = Instant::now();
    let output = bench.command(&["list"]).env_remove("AWS_EC2_METADATA_DISABLED").output().expect("run holdfast");
    assert_eq!(output.status.code(), Some(21));
    assert!(start.elapsed() < Duration::from_secs(30), "it took {:?}", start.elapsed());
    bench.finish();
}

#[test]
fn answers_that_refuse() {
    let Remote { mut bench, faults, server: _server } = Remote::new();
    bench.ok(&["repo", "init"]);
    for (case, effect, arguments, status, expected) in [
        (
            "clocks differ",
            Effect::Status(403, "RequestTimeTooSkewed"),
            &["list"][..],
            23,
            "error: the clocks of this machine and of s3://holdfast/pg differ too much: HTTP 403 \
                 RequestTimeTooSkewed: injected\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
                 hint:  set this machine's clock; S3 allows 15 minutes of difference\n",
        ),
        (
            "clocks differ at recovery",
            Effect::Status(403, "RequestTimeTooSkewed"),
            &["wal", "get", SEGMENT, "$DIR/x"],
            151,
            "error: the clocks of this machine and of s3://holdfast/pg differ too much: HTTP 403 \
                 RequestTimeTooSkewed: injected\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg, \
                 fetching $SEGMENT from the archive\n\
                 hint:  set this machine's clock; S3 allows 15 minutes of difference\n",
        ),
        (
            "not allowed",
            Effect::Status(403, "AccessDenied"),
            &["list"],
            22,
            "error: permission denied by s3://holdfast/pg: HTTP 403 AccessDenied: injected\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
                 hint:  check the access key, the secret key and the policy of the bucket\n",
        ),
        (
            "session expired",
            Effect::Status(400, "ExpiredToken"),
            &["list"],
            22,
            "error: permission denied by s3://holdfast/pg: HTTP 400 ExpiredToken: injected\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
                 hint:  check the access key, the secret key and the policy of the bucket\n",
        ),
        (
            "wrong region",
            Effect::Status(301, "PermanentRedirect"),
            &["list"],
            25,
            "error: wrong request or configuration for s3://holdfast/pg: HTTP 301 PermanentRedirect: \
                 injected\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
                 hint:  check `url`, `endpoint` and `region` of this [[repo]]\n",
        ),
        (
            "unknown answer",
            Effect::Status(418, "Teapot"),
            &["list"],
            25,
            "error: unexpected answer from s3://holdfast/pg: HTTP 418 Teapot: injected\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
                 hint:  this answer came from the store itself: look in its log, or ask the person who runs the store\n",
        ),
        (
            "quota",
            Effect::Status(507, "InsufficientStorage"),
            &["list"],
            30,
            "error: no space left in s3://holdfast/pg: HTTP 507 InsufficientStorage: injected\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg\n\
                 hint:  free or add space; what is already stored is not lost\n",
        ),
        (
            "slow down",
            Effect::Status(503, "SlowDown"),
            &["wal", "get", SEGMENT, "$DIR/x"],
            152,
            "error: s3://holdfast/pg is overloaded or limits the rate of requests: HTTP 503 SlowDown: \
                 injected\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg, \
                 fetching $SEGMENT from the archive\n\
                 hint:  lower the number of requests in flight, or ask the provider for a higher limit\n",
        ),
        (
            "fault of the server",
            Effect::Status(500, "InternalError"),
            &["wal", "get", SEGMENT, "$DIR/x"],
            152,
            "error: s3://holdfast/pg is not available: $ENDPOINT: HTTP 500 InternalError: injected\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg, \
                 fetching $SEGMENT from the archive\n\
                 hint:  check `endpoint`, the network and the state of the server\n",
        ),
        (
            "connections break",
            Effect::LostRequest,
            &["wal", "get", SEGMENT, "$DIR/x"],
            152,
            "error: s3://holdfast/pg is not available: $ENDPOINT: dispatch failure: io error: client error \
                 (SendRequest): connection closed before message completed\n\
                 while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg, \
                 fetching $SEGMENT from the archive\n\
                 hint:  check `endpoint`, the network and the state of the server\n",
        ),
    ] {
        faults.inject(Fault::new(effect, When::Always));
        bench.fails(case, arguments, status, expected);
        faults.clear();
    }
    bench.finish();
}

/// Recovery must not see any of these as the end of the archive, which is status 1.
#[test]
fn stores_that_are_gone() {
    let Remote { mut bench, faults, mut server } = Remote::new();
    bench.ok(&["repo", "init"]);
    bench.fails(
        "nothing is archived under this name",
        &["wal", "get", SEGMENT, "$DIR/x"],
        188,
        "error: nothing has been archived for cluster main in s3://holdfast/pg\n\
             while: fetching $SEGMENT from the archive\n\
             hint:  check `cluster.name`; `holdfast repo info` lists the clusters of a repository\n",
    );
    bench.fails(
        "no WAL name",
        &["wal", "get", "00000001", "$DIR/x"],
        130,
        "error: \"00000001\" is not the name of a WAL file\n\
             while: fetching WAL\n\
             hint:  the first word is %f of restore_command, such as $SEGMENT or 00000002.history\n",
    );
    server.stop();
    bench.fails(
        "the server is gone",
        &["wal", "get", SEGMENT, "$DIR/x"],
        152,
        "error: s3://holdfast/pg is not available: $ENDPOINT: dispatch failure: io error: client error \
             (SendRequest): connection closed before message completed\n\
             while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg, fetching \
             $SEGMENT from the archive\n\
             hint:  check `endpoint`, the network and the state of the server\n",
    );
    bench.fails(
        "the server is gone, for a standby",
        &["wal", "get", "--standby", SEGMENT, "$DIR/x"],
        24,
        "error: s3://holdfast/pg is not available: $ENDPOINT: dispatch failure: io error: client error \
             (SendRequest): connection closed before message completed\n\
             while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg, fetching \
             $SEGMENT from the archive\n\
             hint:  check `endpoint`, the network and the state of the server\n",
    );
    drop(faults);
    bench.fails(
        "nothing listens",
        &["wal", "get", SEGMENT, "$DIR/x"],
        152,
        "error: s3://holdfast/pg is not available: $ENDPOINT: dispatch failure: io error: client error \
             (Connect): tcp connect error: Connection refused (os error 111)\n\
             while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg, fetching \
             $SEGMENT from the archive\n\
             hint:  check `endpoint`, the network and the state of the server\n",
    );
    bench.finish();
}
