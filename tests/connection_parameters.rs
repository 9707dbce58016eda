//! `cluster.connection` as libpq reads it, against real servers: TLS with every `sslmode`, passwords from every
//! possible source, services, the environment, several hosts. A wrong string stops only the commands that connect.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::stage::{Plan, Seal, Stage, StoreKind};
use holdfast_testkit::postgres::Cluster;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

fn plan() -> Plan {
    Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() }
}

fn config(stage: &Stage, connection: &str) -> PathBuf {
    let text = stage.config_text().replacen("[[repo]]", &format!("connection = \"{connection}\"\n\n[[repo]]"), 1);
    stage.write_config("connection.toml", &text)
}

/// The exit code of `check` with these variables, and its output.
fn check_with(stage: &Stage, connection: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = stage.command_with(&config(stage, connection), &["check"]);
    command.env("HOME", stage.scratch.path()).envs(variables.iter().copied());
    let output = command.output().expect("run holdfast");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn check(stage: &Stage, connection: &str) -> (Option<i32>, String) {
    check_with(stage, connection, &[])
}

/// The same of a command that needs a replication connection and nothing else.
fn replicate(stage: &Stage, connection: &str) -> (Option<i32>, String) {
    let arguments = ["wal", "receive", "--slot", "nothing", "--drop-slot"];
    let output = stage.command_with(&config(stage, connection), &arguments).output().expect("run holdfast");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Writes a file that belongs to PostgreSQL's user.
fn own(stage: &Stage, path: &Path, content: &str, mode: u32) {
    fs::write(path, content).expect("write a file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set its mode");
    stage.scratch.user().own(path).expect("own it");
}

/// A CA, its certificates for a server and for a client, and a certificate that is its own CA and has only a common
/// name.
struct Certificates {
    ca: String,
    server: (String, String),
    client: (String, String),
    own: (String, String),
}

fn certificates() -> Certificates {
    let key = || KeyPair::generate().expect("make a key");
    let named = |common: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("sound names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params
    };
    let ca_key = key();
    let mut ca = named("a test's CA", &[]);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_text = ca.self_signed(&ca_key).expect("sign").pem();
    let issuer = Issuer::new(ca, ca_key);
    let signed = |params: CertificateParams| {
        let key = key();
        (params.signed_by(&key, &issuer).expect("sign").pem(), key.serialize_pem())
    };
    let own_key = key();
    let mut own = named("db.example", &[]);
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Certificates {
        ca: ca_text,
        server: signed(named("server", &["localhost", "db.example"])),
        client: signed(named("certified", &[])),
        own: (own.self_signed(&own_key).expect("sign").pem(), own_key.serialize_pem()),
    }
}

fn give(stage: &Stage, (certificate, key): &(String, String)) {
    own(stage, &stage.cluster.data().join("server.crt"), certificate, 0o600);
    own(stage, &stage.cluster.data().join("server.key"), key, 0o600);
}

const HBA: &str = "local all all trust\n\
    hostssl all secret 127.0.0.1/32 scram-sha-256\n\
    hostssl all certified 127.0.0.1/32 cert\n\
    hostssl all postgres 127.0.0.1/32 trust\n\
    hostnossl all plain 127.0.0.1/32 trust\n\
    hostssl replication secret 127.0.0.1/32 scram-sha-256\n\
    hostssl replication certified 127.0.0.1/32 cert\n\
    hostssl replication postgres 127.0.0.1/32 trust\n\
    hostnossl replication plain 127.0.0.1/32 trust\n\
    host all all 127.0.0.1/32 reject\n";

#[tokio::test(flavor = "multi_thread")]
async fn tls_works_as_in_libpq() {
    let Some(mut stage) = Stage::start(15, plan()).await else { return };
    let made = certificates();
    let folder = stage.scratch.path().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    give(&stage, &made.server);
    own(&stage, &folder.join("ca.crt"), &made.ca, 0o644);
    own(&stage, &folder.join("other.crt"), &certificates().ca, 0o644);
    own(&stage, &folder.join("client.crt"), &made.client.0, 0o644);
    own(&stage, &folder.join("client.key"), &made.client.1, 0o600);
    own(&stage, &folder.join("open.key"), &made.client.1, 0o644);
    own(&stage, &stage.cluster.data().join("root.crt"), &made.ca, 0o600);
    own(&stage, &stage.cluster.data().join("pg_hba.conf"), HBA, 0o600);
    let roles = "CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'hush'; CREATE ROLE certified LOGIN SUPERUSER; \
                 CREATE ROLE plain LOGIN SUPERUSER";
    stage.cluster.sql(roles).await.expect("make roles");
    for (name, value) in [("ssl", "on"), ("ssl_ca_file", "root.crt")] {
        stage.cluster.set(name, value).expect("set");
    }
    stage.cluster.restart().await.expect("restart");

    let port = stage.cluster.port();
    let (ca, other) = (path("ca.crt"), path("other.crt"));
    let (certificate, key, open) = (path("client.crt"), path("client.key"), path("open.key"));
    let here = format!("hostaddr=127.0.0.1 port={port} dbname=postgres");
    let tls = format!("host=db.example {here} user=postgres");
    let right = [
        tls.clone(),
        format!("{tls} sslmode=require"),
        format!("{tls} sslmode=allow"),
        format!("{tls} sslmode=require sslrootcert={ca}"),
        format!("{tls} sslmode=verify-full sslrootcert={ca} ssl_min_protocol_version=TLSv1.3"),
        format!("{tls} sslmode=verify-full sslrootcert={ca} ssl_max_protocol_version=TLSv1.2"),
        format!("host=elsewhere.example {here} user=postgres sslmode=verify-ca sslrootcert={ca}"),
        format!("host=localhost {here} user=plain sslmode=prefer"),
        format!("host=localhost {here} user=plain sslmode=disable"),
        format!(
            "host=db.example {here} user=secret password=hush sslmode=verify-full sslrootcert={ca} channel_binding=require"
        ),
        format!("host=db.example {here} user=certified sslmode=require sslcert={certificate} sslkey={key}"),
        format!(
            "postgresql://secret:hush@db.example:{port}/postgres?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={ca}"
        ),
    ];
    for connection in &right {
        let (code, text) = check(&stage, connection);
        assert_eq!(code, Some(0), "{connection}: {text}");
        let (code, text) = replicate(&stage, connection);
        assert_eq!(code, Some(0), "a replication connection with {connection}: {text}");
    }
    let wrong = [
        (format!("{tls} sslmode=disable"), 51, "no encryption"),
        (format!("{tls} sslmode=verify-ca sslrootcert={other}"), 50, "error performing TLS handshake"),
        (format!("{tls} sslmode=require sslrootcert={other}"), 50, "without sslrootcert encrypts without verifying"),
        (
            format!("host=elsewhere.example {here} user=postgres sslmode=verify-full sslrootcert={ca}"),
            50,
            "elsewhere.example",
        ),
        (format!("host=localhost {here} user=plain sslmode=require"), 51, "SQLSTATE 28000"),
        (format!("host=db.example {here} user=secret password=wrong sslmode=require"), 51, "SQLSTATE 28P01"),
        (format!("host=db.example {here} user=secret sslmode=require"), 50, "~/.pgpass"),
        (format!("host=db.example {here} user=certified sslmode=require"), 51, "SQLSTATE 28"),
        (
            format!("host=db.example {here} user=certified sslmode=require sslcert={certificate} sslkey={open}"),
            10,
            "other users may read it",
        ),
        (format!("{tls} sslmode=verify-full sslrootcert={}", path("nothing.crt")), 31, "nothing.crt"),
        (format!("{tls} sslmode=verify-full"), 10, "sslmode=verify-full needs sslrootcert"),
    ];
    for (connection, expected, said) in &wrong {
        let (code, text) = check(&stage, connection);
        assert_eq!(code, Some(*expected), "{connection}: {text}");
        assert!(text.contains(said), "{connection}: {text}");
        assert!(!text.contains("hush") && !text.contains("password=wrong"), "{text}");
    }
    // The data that was sent went over TLS.
    let (code, text) = check(&stage, &format!("{tls} sslmode=verify-full sslrootcert={ca} application_name=watched"));
    assert_eq!(code, Some(0), "{text}");

    // A certificate made as PostgreSQL's manual describes: its own CA, without alternative names.
    give(&stage, &made.own);
    own(&stage, &folder.join("own.crt"), &made.own.0, 0o644);
    stage.cluster.restart().await.expect("restart");
    let (port, own_ca) = (stage.cluster.port(), path("own.crt"));
    let here = format!("hostaddr=127.0.0.1 port={port} dbname=postgres user=postgres");
    let (code, text) = check(&stage, &format!("host=db.example {here} sslmode=verify-full sslrootcert={own_ca}"));
    assert_eq!(code, Some(0), "{text}");
    for (connection, why) in [
        (format!("host=localhost {here} sslmode=verify-full sslrootcert={own_ca}"), "another name"),
        (format!("host=db.example {here} sslmode=verify-full sslrootcert={ca}"), "another CA"),
    ] {
        let (code, text) = check(&stage, &connection);
        assert_eq!(code, Some(50), "{why}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_services_and_variables_are_found_where_libpq_finds_them() {
    let Some(stage) = Stage::start(18, plan()).await else { return };
    let hba = "local all postgres trust\nhost all secret 127.0.0.1/32 scram-sha-256\n";
    own(&stage, &stage.cluster.data().join("pg_hba.conf"), hba, 0o600);
    stage
        .cluster
        .sql("CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'hush'; SELECT pg_reload_conf()")
        .await
        .expect("a role");
    let folder = stage.scratch.path().to_owned();
    let port = stage.cluster.port();
    let here = format!("host=127.0.0.1 port={port} dbname=postgres user=secret");
    let fails = |connection: &str, variables: &[(&str, &str)], expected: i32, said: &str| {
        let (code, text) = check_with(&stage, connection, variables);
        assert_eq!(code, Some(expected), "{connection}: {text}");
        assert!(text.contains(said), "{connection}: {text}");
        assert!(!text.contains("hush"), "{text}");
    };
    let works = |connection: &str, variables: &[(&str, &str)]| {
        let (code, text) = check_with(&stage, connection, variables);
        assert_eq!(code, Some(0), "{connection}: {text}");
    };
    fails(&here, &[], 50, "give the password as password=");
    fails(&here, &[("PGPASSWORD", "no")], 51, "SQLSTATE 28P01");
    let hint = "hint:  the server refused the password: check the user, and password= in `cluster.connection`, \
                PGPASSWORD or the matching line of ~/.pgpass\n";
    fails(&here, &[("PGPASSWORD", "no")], 51, hint);
    fails(&format!("{here} password=no"), &[], 51, hint);
    works(&here, &[("PGPASSWORD", "hush")]);
    let passwords = folder.join(".pgpass");
    own(&stage, &passwords, "other:*:*:*:no\n127.0.0.1:*:postgres:secret:hush\n", 0o644);
    fails(&here, &[], 50, "can be read by other users, so it is not used");
    own(&stage, &passwords, "other:*:*:*:no\n127.0.0.1:*:postgres:secret:hush\n", 0o600);
    works(&here, &[]);
    let elsewhere = folder.join("passwords");
    fs::rename(&passwords, &elsewhere).expect("move the file");
    let elsewhere = elsewhere.display().to_string();
    works(&here, &[("PGPASSFILE", &elsewhere)]);
    works(&format!("{here} passfile={elsewhere}"), &[]);

    let services = folder.join("services");
    let service = format!("[main]\nhost=127.0.0.1\nport={port}\ndbname=postgres\nuser=secret\npassword=hush\n");
    own(&stage, &services, &service, 0o600);
    let services = services.display().to_string();
    works("service=main", &[("PGSERVICEFILE", &services)]);
    works("application_name=x", &[("PGSERVICEFILE", &services), ("PGSERVICE", "main")]);
    fails("service=other", &[("PGSERVICEFILE", &services)], 10, "there is no [other] in");
    let port = port.to_string();
    works(
        "sslmode=disable",
        &[
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &port),
            ("PGUSER", "secret"),
            ("PGDATABASE", "postgres"),
            ("PGPASSWORD", "hush"),
        ],
    );
    // If no host is given, the data directory tells where the server listens.
    works("user=postgres dbname=postgres", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wanted_one_of_several_hosts_is_used() {
    let Some(stage) = Stage::start(18, plan()).await else { return };
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    standby.override_setting("archive_mode", "off");
    standby.start().await.expect("start the standby");
    let both = format!(
        "host=/nowhere,{},{} port=1,{},{} user=postgres dbname=postgres",
        standby.socket_folder().display(),
        stage.cluster.socket_folder().display(),
        standby.port(),
        stage.cluster.port()
    );
    for attributes in ["primary", "read-write"] {
        let (code, text) = check(&stage, &format!("{both} target_session_attrs={attributes}"));
        assert_eq!(code, Some(0), "{attributes}: {text}");
    }
    // These are not the files of the standby.
    for attributes in ["any", "standby", "read-only", "prefer-standby"] {
        let (code, text) = check(&stage, &format!("{both} target_session_attrs={attributes}"));
        assert_eq!(code, Some(12), "{attributes}: {text}");
    }
    let primary = stage.cluster.connection_string("postgres");
    let (code, text) = check(&stage, &format!("{primary} target_session_attrs=prefer-standby"));
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = check(&stage, &format!("{primary} target_session_attrs=standby"));
    assert_eq!(code, Some(50), "{text}");
    assert!(text.contains("no server of cluster.connection is standby, as target_session_attrs requires"), "{text}");
}

/// Earlier, a string that only `backup` and `check` need stopped the archiver.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_string_stops_only_commands_that_connect() {
    let Some(stage) = Stage::start(18, plan()).await else { return };
    stage.ok(&["backup"]);
    let text = stage.config_text();
    for (connection, said) in [
        ("host=db password=my hush", "there is no = after the word at character 21"),
        ("host=db requirepeer=postgres", "the parameter requirepeer of libpq is not supported"),
        ("host=db port=many", "port must be a number from 1 to 65535"),
    ] {
        stage.write_config(
            "holdfast.toml",
            &text.replacen("[[repo]]", &format!("connection = \"{connection}\"\n\n[[repo]]"), 1),
        );
        for verb in ["backup", "check"] {
            let (code, text) = stage.fails(&[verb]);
            assert_eq!(code, 10, "{text}");
            assert!(text.contains(said) && text.contains("cluster.connection") && !text.contains("hush"), "{text}");
        }
        // The archiver uses the same configuration, and so does a recovery.
        stage.archive_now().await;
        stage.ok(&["list"]);
        stage.ok(&["info"]);
    }
    let restored = stage.restore_and_start("restored", &[]).await;
    crate::stage::wait_promoted(&restored).await;
}
