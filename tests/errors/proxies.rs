//! A store that can be reached only through a proxy, which is given by the variables that other programs read too.

use std::io::{Read as _, Write as _};
use std::process::Output;

use holdfast_testkit::proxy::ForwardProxy;
use holdfast_testkit::s3::S3Server;

use super::kit::Bench;

const SEGMENT: &str = "000000010000000000000001";

/// A bench whose store has an unreachable address, and a proxy that reaches the store.
fn bench() -> (Bench, S3Server, ForwardProxy) {
    let server = S3Server::start().expect("start the S3 server");
    let proxy = ForwardProxy::with_password(server.address(), "me:hush").expect("start the proxy");
    let bench = Bench::new();
    let credentials = server.credentials();
    bench.configure(&format!(
        "url = \"s3://holdfast/pg\"\nendpoint = \"http://127.0.0.1:1\"\nregion = \"us-east-1\"\nencryption = \"none\"\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
        credentials.access_key, credentials.secret_key
    ));
    (bench, server, proxy)
}

fn run(bench: &Bench, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    bench.command(arguments).envs(variables.iter().copied()).output().expect("run holdfast")
}

#[test]
fn commands_go_by_the_proxy_of_their_environment() {
    let (mut bench, _server, proxy) = bench();
    let url = format!("http://me:hush@{}", proxy.address());
    bench.texts.name("PROXY", proxy.address());
    crate::stage::succeeded(&run(&bench, &[("HTTP_PROXY", &url)], &["repo", "init"]), &["repo", "init"]);
    crate::stage::succeeded(&run(&bench, &[("all_proxy", &url)], &["repo", "info"]), &["repo", "info"]);
    let seen = proxy.seen();
    assert!(seen.len() > 20 && seen.iter().all(|line| line.contains(" http://127.0.0.1:1/holdfast")), "{seen:?}");

    // There is no other way: nothing can use the store's address directly.
    let get = ["wal", "get", SEGMENT, "$DIR/x"];
    for variables in
        [&[("HTTP_PROXY", url.as_str()), ("NO_PROXY", "localhost,127.0.0.1")][..], &[("HTTPS_PROXY", &url)], &[]]
    {
        let output = run(&bench, variables, &get);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(152), "{variables:?}: {text}");
        assert!(!text.contains("proxy"), "{text}");
    }
    assert_eq!(proxy.seen().len(), seen.len());

    // The message names a proxy that refuses, but not its password.
    let wrong = url.replace("hush", "wrong");
    let output = run(&bench, &[("HTTP_PROXY", &wrong)], &get);
    bench.texts.expect(
        "refused by the proxy",
        &output,
        138,
        "error: the proxy on the way to s3://holdfast/pg refuses: HTTP 407 (by the proxy http://$PROXY of HTTP_PROXY)\n\
         while: get holdfast.json from s3://holdfast/pg, opening the repository s3://holdfast/pg, fetching $SEGMENT from the \
         archive\n\
         hint:  write user and password into the URL of the proxy's variable (http://USER:PASSWORD@HOST:PORT), ask the person \
         who runs the proxy to allow the store's host, or list that host in no_proxy\n",
    );
    bench.finish();
}

#[test]
fn a_proxy_that_cannot_be_used_is_refused_in_three_parts() {
    let (mut bench, _server, proxy) = bench();
    for (variable, value, reason) in [
        (
            "ALL_PROXY",
            "socks5://me:hush@proxy:1080",
            "it names a SOCKS proxy, and stores are reached by HTTP proxies only: name one as http://host:port, or list the \
             store's host in NO_PROXY",
        ),
        (
            "http_proxy",
            "http://me:hush@proxy:port",
            "expected the URL of a proxy: http://host:port, with user:password@ before the host if it needs them",
        ),
    ] {
        let expected = format!(
            "error: the environment variable {variable} does not name a usable proxy: {reason}\n\
             while: reading the configuration\n\
             hint:  correct it or unset it: if a proxy is set, Holdfast sends no request without it\n"
        );
        let output = run(&bench, &[(variable, value)], &["list"]);
        bench.texts.expect(variable, &output, 10, &expected);
        // A variable that this store does not use has no effect.
        let url = format!("http://me:hush@{}", proxy.address());
        let variables = [("HTTPS_PROXY", value), ("http_proxy", &url)];
        let output = run(&bench, &variables, &["repo", "init"]);
        assert!(
            output.status.success() || output.status.code() == Some(16),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    bench.finish();
}

/// The store's address may be in the environment or in a profile, where AWS's libraries find it.
#[test]
fn an_address_from_the_environment_is_reached_by_the_proxy() {
    let (mut bench, server, proxy) = bench();
    let keys = server.credentials().clone();
    let profile = bench.scratch.write("profiles", "[profile minio]\nendpoint_url = http://127.0.0.1:1\n");
    let profile = profile.expect("write a profile").display().to_string();
    let url = format!("http://me:hush@{}", proxy.address());
    bench.texts.name("PROXY", proxy.address());
    let given = [
        ("AWS_ACCESS_KEY_ID", keys.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &keys.secret_key),
        ("http_proxy", &url),
    ];
    let addresses: [&[(&str, &str)]; 3] = [
        &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")],
        &[("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")],
        &[("AWS_CONFIG_FILE", &profile), ("AWS_PROFILE", "minio")],
    ];
    for (number, address) in addresses.into_iter().enumerate() {
        bench.configure(&format!(
            "url = \"s3://holdfast/pg{number}\"\nregion = \"us-east-1\"\npath_style = true\nencryption = \"none\"\n"
        ));
        let variables = [&given[..], address].concat();
        let before = proxy.seen().len();
        crate::stage::succeeded(&run(&bench, &variables, &["repo", "init"]), &["repo", "init"]);
        let seen = proxy.seen().split_off(before);
        assert!(seen.len() > 10 && seen.iter().all(|line| line.contains(" http://127.0.0.1:1/holdfast")), "{seen:?}");

        // The message names the proxy, and a proxy that cannot be used is never bypassed.
        let wrong = url.replace("hush", "wrong");
        let variables = [&variables[..], &[("http_proxy", &wrong)]].concat();
        let output = run(&bench, &variables, &["repo", "info"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("HTTP 407 (by the proxy http://") && !text.contains("wrong"), "{text}");
        let variables = [&variables[..], &[("http_proxy", "socks5://me:hush@proxy:1080")]].concat();
        let output = run(&bench, &variables, &["repo", "info"]);
        let text = String::from_utf8_lossy(&output.stderr);
        // Only the SDK knows the content of a profile, when it connects.
        let expected = if address.iter().any(|(name, _)| *name == "AWS_PROFILE") { 25 } else { 10 };
        assert_eq!(output.status.code(), Some(expected), "{text}");
        assert!(text.contains("names a SOCKS proxy") && !text.contains("hush"), "{text}");
    }
    bench.finish();
}

/// A value that is not text does not mean "no proxy".
#[test]
fn a_variable_that_is_not_text_is_refused_if_it_is_needed() {
    use std::os::unix::ffi::OsStrExt as _;
    let (mut bench, _server, proxy) = bench();
    let url = format!("http://me:hush@{}", proxy.address());
    let broken = std::ffi::OsStr::from_bytes(b"http://caf\xe9:3128");
    for (variable, says) in [
        ("HTTP_PROXY", "does not name a usable proxy"),
        ("ALL_PROXY", "does not name a usable proxy"),
        ("no_proxy", "does not hold a usable list of hosts"),
    ] {
        let mut command = bench.command(&["list"]);
        if variable == "no_proxy" {
            command.env("http_proxy", &url);
        }
        let output = command.env(variable, broken).output().expect("run holdfast");
        let expected = format!(
            "error: the environment variable {variable} {says}: its value is not valid UTF-8\n\
             while: reading the configuration\n\
             hint:  correct it or unset it: if a proxy is set, Holdfast sends no request without it\n"
        );
        bench.texts.expect(variable, &output, 10, &expected);
    }
    // If no command needs it, it is ignored.
    let mut command = bench.command(&["repo", "init"]);
    let output = command.env("http_proxy", &url).env("HTTPS_PROXY", broken).output().expect("run holdfast");
    crate::stage::succeeded(&output, &["repo", "init"]);
    bench.finish();
}

/// A request for the machine's role goes to this machine, not through the proxy.
#[test]
fn credentials_of_this_machine_are_not_asked_for_by_the_proxy() {
    let (bench, server, proxy) = bench();
    let keys = server.credentials();
    let answer = format!(
        "{{\"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\",\"Token\":\"t\",\"Expiration\":\"2126-01-01T00:00:00Z\"}}",
        keys.access_key, keys.secret_key
    );
    let role = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = role.local_addr().expect("an address");
    // Ends with the test's process, or with the first invalid request.
    std::thread::spawn(move || {
        for socket in role.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut request = [0; 4096];
            let length = socket.read(&mut request).unwrap_or_default();
            if !request[..length].starts_with(b"GET /role ") {
                return;
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}", answer.len());
            let _ = socket.write_all(format!("{head}\r\nconnection: close\r\n\r\n{answer}").as_bytes());
        }
    });
    bench.configure(
        "url = \"s3://holdfast/pg\"\nendpoint = \"http://127.0.0.1:1\"\nregion = \"us-east-1\"\nencryption = \"none\"\n",
    );
    let url = format!("http://me:hush@{}", proxy.address());
    let role = format!("http://{address}/role");
    let variables = [("ALL_PROXY", url.as_str()), ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &role)];
    crate::stage::succeeded(&run(&bench, &variables, &["repo", "init"]), &["repo", "init"]);
    let seen = proxy.seen();
    assert!(seen.iter().all(|line| line.contains("http://127.0.0.1:1/")), "{seen:?}");
}

/// An external token service is reached through the proxy, as the store is.
#[test]
fn tokens_are_asked_for_by_the_proxy() {
    let (bench, server, _) = bench();
    // The service speaks no TLS, so it gives no answer. The test only checks for whom the proxy was asked.
    let proxy = ForwardProxy::start(server.address()).expect("start the proxy");
    bench.configure(
        "url = \"s3://holdfast/pg\"\nendpoint = \"http://127.0.0.1:1\"\nregion = \"us-east-1\"\nencryption = \"none\"\n",
    );
    let token = bench.scratch.write("token", "a token").expect("write a token").display().to_string();
    let url = format!("http://{}", proxy.address());
    let variables = [
        ("https_proxy", url.as_str()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup"),
    ];
    let output = run(&bench, &variables, &["wal", "get", SEGMENT, "$DIR/x"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code > 128), "{text}");
    let seen = proxy.seen();
    assert!(seen.iter().any(|line| line.starts_with("CONNECT sts.")), "{seen:?}: {text}");

    // A proxy that requires a password: the message says that the proxy refuses, not the store.
    let proxy = ForwardProxy::with_password(server.address(), "me:hush").expect("start the proxy");
    let url = format!("http://{}", proxy.address());
    let variables = [("https_proxy", url.as_str()), variables[1], variables[2]];
    let output = run(&bench, &variables, &["wal", "get", SEGMENT, "$DIR/x"]);
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("error: the proxy on the way to the credentials service of s3://holdfast/pg refuses"),
        "{text}"
    );
    assert!(first.contains("HTTP 407 to CONNECT sts."), "{text}");
}
