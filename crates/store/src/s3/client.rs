//! The SDK's client for one configuration: HTTP and TLS, region, credentials, timeouts, checksums.
//!
//! - The SDK's retry is off: [`crate::Retry`] is the one layer that repeats.
//! - Plain HTTP endpoints with given credentials never load the system's certificates, which costs milliseconds at the
//!   start of every `wal push`.
//! - The credentials chain may look at the instance metadata service. Its connect timeout is one second and it is asked
//!   once, so a plain host learns quickly that it has no credentials.
//! - A proxy is given to the HTTP client that is built here, since the SDK's own clients know of none. What the credentials
//!   chain asks by plain HTTP is this machine's or its cloud's own (instance metadata, container credentials): a proxy would
//!   hand out its own machine's role, or nothing, so these requests never go by one.

use std::path::Path;

use aws_config::BehaviorVersion;
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials as SdkCredentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient,
};
use aws_smithy_http_client::proxy::{ProxyConfig, ProxyError};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::{ConfigError, Credentials, Proxies, Proxy, StoreConfig};

/// What AWS and most other stores take when nothing is said.
const DEFAULT_REGION: &str = "us-east-1";

/// Builds the client. The error is a sentence about the configuration.
pub(super) async fn build(config: &StoreConfig) -> Result<Client, String> {
    let s3 = &config.s3;
    let plain_http = s3.endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
    let wrong = |error: ConfigError| error.to_string();
    let proxy = proxy_of_store(config).map_err(wrong)?;
    // The way to a proxy may be TLS where that to the store is not.
    let http = if plain_http && !proxy.tls { http(proxy.config) } else { https(s3.ca_file.as_deref(), proxy.config)? };
    // The token services speak HTTPS even when the store does not.
    let tokens = || https(s3.ca_file.as_deref(), proxy_of_credentials(&config.proxies).map_err(wrong)?);
    let mut builder = match &s3.credentials {
        Credentials::Static { access_key, secret_key, session_token } => {
            let credentials = SdkCredentials::new(
                access_key.expose(),
                secret_key.expose(),
                session_token.as_ref().map(|token| token.expose().to_owned()),
                None,
                "configuration",
            );
            let region = match &s3.region {
                Some(region) => Some(Region::new(region.clone())),
                None => region_chain(None).region().await,
            };
            Builder::new().behavior_version_latest().credentials_provider(credentials).region(region)
        }
        Credentials::Chain => from_environment(s3.region.as_deref(), None, tokens()?).await,
        Credentials::Profile(profile) => from_environment(s3.region.as_deref(), Some(profile), tokens()?).await,
    };
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(config.timeouts.connect)
        .operation_attempt_timeout(config.timeouts.attempt)
        .build();
    Ok(Client::from_conf(
        builder
            .http_client(http)
            .force_path_style(s3.path_style)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // We send CRC-32C ourselves; where the protocol demands a checksum (DeleteObjects) the SDK adds one.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build(),
    ))
}

/// Settings out of the AWS environment: the credentials chain with web identity, profiles and instance metadata.
async fn from_environment(region: Option<&str>, profile: Option<&String>, http: SharedHttpClient) -> Builder {
    let chain = match region {
        Some(region) => RegionProviderChain::first_try(Region::new(region.to_owned())),
        None => region_chain(profile),
    };
    let region = chain.region().await;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone()).region(region.clone());
    if let Some(profile) = profile {
        // Not the chain with a profile name: there the environment's credentials would win over the profile asked for.
        let settings = ProviderConfig::without_region().with_http_client(http).with_region(region);
        let provider = ProfileFileCredentialsProvider::builder().configure(&settings).profile_name(profile).build();
        loader = loader.profile_name(profile).credentials_provider(provider);
    }
    Builder::from(&loader.load().await)
}

/// Environment and profile, then the default; not the instance metadata service, which a plain host would wait for.
fn region_chain(profile: Option<&String>) -> RegionProviderChain {
    let mut file = ProfileFileRegionProvider::builder();
    if let Some(profile) = profile {
        file = file.profile_name(profile);
    }
    RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(file.build())
        .or_else(Region::new(DEFAULT_REGION))
}

/// How an HTTP client goes by a proxy, and whether that needs TLS.
struct Way {
    config: ProxyConfig,
    tls: bool,
}

fn proxy_of_store(config: &StoreConfig) -> Result<Way, ConfigError> {
    if config.s3.endpoint.is_none() {
        // AWS's names are made by the SDK: each request is judged by its own. Where neither the store nor credentials are
        // reached by a proxy, it is not looked at.
        if matches!(config.s3.credentials, Credentials::Static { .. }) && config.proxy()?.is_none() {
            return Ok(Way { config: ProxyConfig::disabled(), tls: true });
        }
        return Ok(Way { config: proxy_of_credentials(&config.proxies)?, tls: true });
    }
    let Some(proxy) = config.proxy()? else { return Ok(Way { config: ProxyConfig::disabled(), tls: false }) };
    Ok(Way { config: understood(ProxyConfig::all(proxy.url()), &proxy)?, tls: proxy.needs_tls() })
}

/// For hosts out of the SDK. Only HTTPS goes by a proxy: see the head of this file.
fn proxy_of_credentials(proxies: &Proxies) -> Result<ProxyConfig, ConfigError> {
    match proxies.of_https()? {
        Some((proxy, exceptions)) => Ok(understood(ProxyConfig::https(proxy.url()), &proxy)?.no_proxy(exceptions)),
        None => Ok(ProxyConfig::disabled()),
    }
}

fn understood(config: Result<ProxyConfig, ProxyError>, proxy: &Proxy) -> Result<ProxyConfig, ConfigError> {
    // Its text has the reason and not the URL.
    config.map_err(|error| ConfigError::new(proxy.variable.clone(), error.to_string()))
}

fn http(proxy: ProxyConfig) -> SharedHttpClient {
    client(move |connector| connector.proxy_config(proxy.clone()).build_http())
}

fn https(ca_file: Option<&Path>, proxy: ProxyConfig) -> Result<SharedHttpClient, String> {
    let mut trust = TrustStore::default();
    if let Some(path) = ca_file {
        trust = trust.with_pem_certificate(checked_ca_file(path)?);
    }
    let context = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(client(move |connector| {
        let connector = connector.proxy_config(proxy.clone()).tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.tls_context(context.clone()).build()
    }))
}

/// A client whose connections are made in our way, with the time limits of the SDK.
fn client(build: impl Fn(ConnectorBuilder) -> Connector + Send + Sync + 'static) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, _| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        build(connector)
    })
}

/// Reads a CA file and makes sure that it holds certificates: the SDK would panic on anything else.
fn checked_ca_file(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("ca_file {shown} cannot be read: {error}"))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("ca_file {shown} is not a PEM file: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("ca_file {shown} holds a certificate that cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("ca_file {shown} holds no certificate in PEM form"));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn bad_ca_files_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let shown = path.display().to_string();
        assert!(checked_ca_file(&path).unwrap_err().starts_with(&format!("ca_file {shown} cannot be read: ")));
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(checked_ca_file(&path).unwrap_err(), format!("ca_file {shown} holds no certificate in PEM form"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(
            checked_ca_file(&path)
                .unwrap_err()
                .starts_with(&format!("ca_file {shown} holds a certificate that cannot be used: "))
        );
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(checked_ca_file(&path).unwrap_err().starts_with(&format!("ca_file {shown} is not a PEM file: ")));
    }
}
