//! Opens a replication connection: the servers of the connection parameters in their order, TLS as `sslmode` says, and
//! the login by SCRAM with channel binding, MD5, a password in clear text, or nothing.

use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding as Binding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, SslNegotiation};

use super::commands::Replication;
use super::wire::{ByteStream, Received, Wire, answer, lost};
use crate::error::{Cause, Error, ResultExt};
use crate::server::connect::ConnectionSettings;
use crate::server::libpq::{Attempt, ConnectionRequest, SessionAttributes, TlsMode};
use crate::server::tls::Tls;

/// Time limit for the login after the connection is made; libpq has none.
const LOGIN_WITHIN: Duration = Duration::from_mins(1);

/// How to reach the server, and under which name this side appears there.
#[derive(Debug, Clone)]
pub(crate) struct ReplicationSettings<'a> {
    /// The parameters, as for every other connection.
    pub(crate) connection: ConnectionSettings<'a>,
    /// `application_name`, by which `synchronous_standby_names` names this side.
    pub(crate) application_name: &'a str,
}

/// An open stream before the login.
struct Opened {
    stream: Box<dyn ByteStream>,
    /// Data for channel binding; `None` without TLS, and if the certificate has no hash for it.
    binding: Option<Vec<u8>>,
}

impl Replication {
    /// Connects and logs in.
    pub(crate) async fn open(settings: &ReplicationSettings<'_>) -> Result<Self, Error> {
        // As libpq: the line of the password file is that of the database `replication`, as in `pg_hba.conf`.
        let (wanted, described) = settings.connection.wanted(Some("replication"))?;
        let connecting = || format!("opening a replication connection to PostgreSQL ({described})");
        let needs_tls = wanted.attempts.iter().any(|attempt| attempt.tls != TlsMode::Disable);
        let tls = if needs_tls { Some(Tls::new(&wanted.tls).doing(connecting)?) } else { None };
        try_all(&wanted, tls.as_ref(), settings).await.doing(connecting)
    }
}

async fn try_all(
    wanted: &ConnectionRequest,
    tls: Option<&Tls>,
    settings: &ReplicationSettings<'_>,
) -> Result<Replication, Error> {
    let passes: &[SessionAttributes] = match wanted.attributes {
        SessionAttributes::PreferStandby => &[SessionAttributes::Standby, SessionAttributes::Any],
        ref one => std::slice::from_ref(one),
    };
    let mut last: Option<Error> = None;
    for attributes in passes {
        for attempt in &wanted.attempts {
            match one_server(attempt, tls, settings.application_name).await {
                Ok(mut open) => {
                    if is(&mut open, *attributes).await? {
                        return Ok(open);
                    }
                    open.close().await;
                    let (subject, word) = (settings.connection.subject, attributes.word());
                    last.get_or_insert_with(|| {
                        let text = format!("no server of {subject} is {word}, as target_session_attrs requires");
                        Cause::Connection(text).into()
                    });
                }
                Err(error) => last = Some(error),
            }
        }
    }
    let none = || Cause::Connection(format!("{} names no server", settings.connection.subject)).into();
    Err(last.unwrap_or_else(none))
}

/// Whether the server is of the kind that `target_session_attrs` requires. A walsender executes no queries, but `SHOW`.
async fn is(open: &mut Replication, attributes: SessionAttributes) -> Result<bool, Error> {
    let reads_only = match attributes {
        SessionAttributes::Any | SessionAttributes::PreferStandby => return Ok(true),
        SessionAttributes::ReadWrite | SessionAttributes::Primary => "off",
        SessionAttributes::ReadOnly | SessionAttributes::Standby => "on",
    };
    Ok(open.show("transaction_read_only").await? == reads_only)
}

/// Tries one server, encrypted or not as `sslmode` allows.
async fn one_server(attempt: &Attempt, tls: Option<&Tls>, name: &str) -> Result<Replication, Error> {
    let tls = tls.filter(|_| attempt.tls != TlsMode::Disable);
    let (first, second) = match (attempt.tls, tls) {
        (TlsMode::Disable, _) | (_, None) => (Encrypt::Never, None),
        (TlsMode::Require, Some(_)) => (Encrypt::Always, None),
        (TlsMode::Prefer, Some(_)) => (Encrypt::IfOffered, Some(Encrypt::Never)),
        (TlsMode::Allow, Some(_)) => (Encrypt::Never, Some(Encrypt::Always)),
    };
    let error = match log_in(&attempt.config, first, tls, name).await {
        Ok(open) => return Ok(open),
        Err(error) => error,
    };
    // pg_hba.conf refuses this kind of connection, or the handshake fails: the other kind may work.
    let other_way = match &*error.what {
        Cause::ServerAnswer { sqlstate, .. } => sqlstate == "28000",
        Cause::Connection(text) => text.starts_with(HANDSHAKE),
        _ => false,
    };
    match second.filter(|_| other_way) {
        Some(second) => log_in(&attempt.config, second, tls, name).await.map_err(|_| error),
        None => Err(error),
    }
}

/// How the message of a failed handshake begins.
const HANDSHAKE: &str = "error performing TLS handshake";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encrypt {
    Never,
    IfOffered,
    Always,
}

async fn log_in(config: &Config, encrypt: Encrypt, tls: Option<&Tls>, name: &str) -> Result<Replication, Error> {
    let opening = open(config, encrypt, tls);
    let opened = match config.get_connect_timeout() {
        Some(limit) => tokio::time::timeout(*limit, opening).await.unwrap_or_else(|_| {
            Err(Cause::Connection(format!("the server did not answer within {} s", limit.as_secs())).into())
        })?,
        None => opening.await?,
    };
    let Opened { stream, binding } = opened;
    let mut wire = Wire::new(stream);
    match tokio::time::timeout(LOGIN_WITHIN, start(&mut wire, config, binding, name)).await {
        Ok(version) => Ok(Replication::new(wire, version?)),
        Err(_) => Err(lost(format!("the login was not finished within {} s", LOGIN_WITHIN.as_secs()))),
    }
}

async fn open(config: &Config, encrypt: Encrypt, tls: Option<&Tls>) -> Result<Opened, Error> {
    let refused = |error: &dyn std::fmt::Display| -> Error {
        Cause::Connection(format!("error connecting to server: {error}")).into()
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let Some(host) = config.get_hosts().first() else {
        return Err(Cause::Connection("the connection parameters name no host".to_owned()).into());
    };
    let name = match host {
        Host::Unix(folder) => {
            let stream = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await.map_err(|e| refused(&e))?;
            return Ok(Opened { stream: Box::new(stream), binding: None });
        }
        Host::Tcp(name) => name,
    };
    let mut stream = match config.get_hostaddrs().first() {
        Some(address) => TcpStream::connect((*address, port)).await,
        None => TcpStream::connect((name.as_str(), port)).await,
    }
    .map_err(|e| refused(&e))?;
    stream.set_nodelay(true).map_err(|e| refused(&e))?;
    notice_loss(&stream, config).map_err(|e| refused(&e))?;
    let Some(tls) = tls.filter(|_| encrypt != Encrypt::Never) else {
        return Ok(Opened { stream: Box::new(stream), binding: None });
    };
    if config.get_ssl_negotiation() == SslNegotiation::Postgres {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await.map_err(|e| refused(&e))?;
        // Exactly one byte: what follows it belongs to the handshake.
        if stream.read_u8().await.map_err(|e| refused(&e))? != b'S' {
            if encrypt == Encrypt::Always {
                return Err(Cause::Connection(format!("{HANDSHAKE}: server does not support TLS")).into());
            }
            return Ok(Opened { stream: Box::new(stream), binding: None });
        }
    }
    let encrypted = tls.encrypt(name, stream).await;
    let (stream, binding) = encrypted.map_err(|e| Cause::Connection(format!("{HANDSHAKE}: {e}")))?;
    Ok(Opened { stream: Box::new(stream), binding })
}

/// Sets what the connection parameters say about keepalives and `tcp_user_timeout`, as for every other connection.
fn notice_loss(stream: &TcpStream, config: &Config) -> std::io::Result<()> {
    sockopt::set_socket_keepalive(stream, config.get_keepalives())?;
    if config.get_keepalives() {
        sockopt::set_tcp_keepidle(stream, config.get_keepalives_idle())?;
        if let Some(interval) = config.get_keepalives_interval() {
            sockopt::set_tcp_keepintvl(stream, interval)?;
        }
        if let Some(count) = config.get_keepalives_retries() {
            sockopt::set_tcp_keepcnt(stream, count)?;
        }
    }
    if let Some(limit) = config.get_tcp_user_timeout() {
        sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

/// Sends the start message, logs in, and returns `server_version`.
async fn start(wire: &mut Wire, config: &Config, binding: Option<Vec<u8>>, name: &str) -> Result<String, Error> {
    let user = config
        .get_user()
        .ok_or_else(|| Cause::ConnectionParameters("the connection parameters name no user".to_owned()))?;
    let mut parameters = vec![("user", user), ("replication", "true"), ("application_name", name)];
    parameters.extend(config.get_options().map(|options| ("options", options)));
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message).map_err(lost)?;
    wire.send(&message).await?;
    let unbound = || -> Error {
        let text = "channel_binding=require, but the server asks for no login by SCRAM over TLS";
        Cause::ConnectionParameters(text.to_owned()).into()
    };
    let requires = config.get_channel_binding() == ChannelBinding::Require;
    match message_of(wire).await? {
        Message::AuthenticationSasl(offered) => {
            scram(wire, config, &offered, binding).await?;
            accepted(wire).await?;
        }
        _ if requires => return Err(unbound()),
        Message::AuthenticationOk => {}
        Message::AuthenticationCleartextPassword => {
            send_password(wire, password(config)?).await?;
            accepted(wire).await?;
        }
        Message::AuthenticationMd5Password(body) => {
            let hashed = md5_hash(user.as_bytes(), password(config)?, body.salt());
            send_password(wire, hashed.as_bytes()).await?;
            accepted(wire).await?;
        }
        _ => {
            let text = "the server asks for a kind of authentication that is not supported: use scram-sha-256, a \
                        certificate, peer, md5, password or trust in pg_hba.conf";
            return Err(Cause::ConnectionParameters(text.to_owned()).into());
        }
    }
    let mut version = None;
    loop {
        match message_of(wire).await? {
            Message::ReadyForQuery(_) => break,
            Message::ParameterStatus(body) if body.name().is_ok_and(|name| name == "server_version") => {
                version = body.value().ok().map(str::to_owned);
            }
            _ => {}
        }
    }
    version.ok_or_else(|| lost("the server did not say its version"))
}

async fn message_of(wire: &mut Wire) -> Result<Message, Error> {
    match wire.receive().await? {
        Received::Message(Message::ErrorResponse(body)) => Err(answer(&body)),
        Received::Message(message) => Ok(message),
        Received::CopyBoth => Err(lost("the server streams before it was asked to")),
    }
}

async fn accepted(wire: &mut Wire) -> Result<(), Error> {
    match message_of(wire).await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(lost("the server did not end the login as the protocol says")),
    }
}

fn password(config: &Config) -> Result<&[u8], Error> {
    config.get_password().ok_or_else(|| {
        let text = "the server asks for a password, and none is given: put it into cluster.connection, PGPASSWORD or a \
                    matching line of ~/.pgpass (mode 0600; the database in it is `replication`)";
        Cause::ConnectionParameters(text.to_owned()).into()
    })
}

async fn send_password(wire: &mut Wire, password: &[u8]) -> Result<(), Error> {
    let mut message = BytesMut::new();
    frontend::password_message(password, &mut message).map_err(lost)?;
    wire.send(&message).await
}

/// SCRAM-SHA-256, with channel binding if both sides can.
async fn scram(
    wire: &mut Wire,
    config: &Config,
    offered: &AuthenticationSaslBody,
    binding: Option<Vec<u8>>,
) -> Result<(), Error> {
    let (mut plain, mut plus) = (false, false);
    let mut mechanisms = offered.mechanisms();
    while let Some(mechanism) = mechanisms.next().map_err(lost)? {
        plain |= mechanism == SCRAM_SHA_256;
        plus |= mechanism == SCRAM_SHA_256_PLUS;
    }
    let can_bind = if config.get_channel_binding() == ChannelBinding::Disable { None } else { binding };
    let (mechanism, binding) = match can_bind {
        Some(hash) if plus => (SCRAM_SHA_256_PLUS, Binding::tls_server_end_point(hash)),
        _ if config.get_channel_binding() == ChannelBinding::Require => {
            let text = "channel_binding=require, but the server and its certificate do not allow it";
            return Err(Cause::ConnectionParameters(text.to_owned()).into());
        }
        // "This side could, but the server cannot": a server that can takes that for an attack.
        Some(_) => (SCRAM_SHA_256, Binding::unrequested()),
        None => (SCRAM_SHA_256, Binding::unsupported()),
    };
    if mechanism == SCRAM_SHA_256 && !plain {
        return Err(Cause::ConnectionParameters("the server offers no login by SCRAM-SHA-256".to_owned()).into());
    }
    let mut scram = ScramSha256::new(password(config)?, binding);
    let mut message = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut message).map_err(lost)?;
    wire.send(&message).await?;
    let Message::AuthenticationSaslContinue(body) = message_of(wire).await? else {
        return Err(lost("the server did not continue the login"));
    };
    scram.update(body.data()).map_err(lost)?;
    let mut message = BytesMut::new();
    frontend::sasl_response(scram.message(), &mut message).map_err(lost)?;
    wire.send(&message).await?;
    let Message::AuthenticationSaslFinal(body) = message_of(wire).await? else {
        return Err(lost("the server did not finish the login"));
    };
    // Proves that the server knows the password too.
    scram.finish(body.data()).map_err(lost)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;

    #[tokio::test]
    async fn a_connection_notices_a_loss_as_its_parameters_say() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut config = Config::new();
        let second = Duration::from_secs(1);
        config.keepalives_idle(7 * second).keepalives_interval(3 * second).keepalives_retries(4);
        config.tcp_user_timeout(9 * second);
        notice_loss(&stream, &config).unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), 7 * second);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), 3 * second);
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), 4);
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 9000);
        config.keepalives(false);
        notice_loss(&stream, &config).unwrap();
        assert!(!sockopt::socket_keepalive(&stream).unwrap());
    }
}
