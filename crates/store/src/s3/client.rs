//! The SDK's client for one configuration: HTTP and TLS, region, credentials, timeouts, checksums.
//!
//! - The SDK's retry is off: [`crate::Retry`] is the one layer that repeats.
//! - The credentials chain may ask the instance metadata service. Its connect timeout is one second and it is asked
//!   once, so a plain host learns quickly that it has no credentials.
//! - The HTTP client is ours ([`Http`]): the SDK's own clients do not support proxies or a custom trust store. By plain
//!   HTTP the credentials chain asks only services of this machine or its cloud (instance metadata, container
//!   credentials). A proxy would get its own machine's role from them, or nothing, so these requests never use a proxy.

use std::path::Path;
use std::sync::{Arc, OnceLock};

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
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::dial::{Dial, Route, Tls};
use super::http::Http;
use crate::{Credentials, StoreConfig};

/// The region that AWS and most other stores use by default.
const DEFAULT_REGION: &str = "us-east-1";

/// Builds the client, and a cell that later holds the proxy it uses. The error is a sentence about the configuration.
pub(super) async fn build(config: &StoreConfig) -> Result<(Client, Arc<OnceLock<String>>), String> {
    let s3 = &config.s3;
    let listed = s3.ca_file.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let tls = Arc::new(Tls::new(listed));
    let route = Route::to_store(&config.proxies);
    let proxy = route.used();
    let http = Http::new(Dial::new(tls.clone(), route).counting(config.hurry.clone()));
    let to_tokens = || Dial::new(tls, Route::to_credentials(&config.proxies)).counting(config.hurry.clone());
    let tokens = || SharedHttpClient::new(Http::new(to_tokens()));
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
        Credentials::Chain => from_environment(s3.region.as_deref(), None, tokens()).await,
        Credentials::Profile(profile) => from_environment(s3.region.as_deref(), Some(profile), tokens()).await,
    };
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(config.timeouts.connect)
        .operation_attempt_timeout(config.timeouts.attempt)
        .build();
    let client = Client::from_conf(
        builder
            .http_client(http)
            .force_path_style(s3.path_style)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // We send CRC-32C ourselves; if the protocol requires a checksum (DeleteObjects), the SDK adds one.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build(),
    );
    Ok((client, proxy))
}

/// Settings from the AWS environment: the credentials chain with web identity, profiles and instance metadata.
async fn from_environment(region: Option<&str>, profile: Option<&String>, http: SharedHttpClient) -> Builder {
    let chain = match region {
        Some(region) => RegionProviderChain::first_try(Region::new(region.to_owned())),
        None => region_chain(profile),
    };
    let region = chain.region().await;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone()).region(region.clone());
    if let Some(profile) = profile {
        // Not the chain with a profile name: there the environment's credentials would win over the named profile.
        let settings = ProviderConfig::without_region().with_http_client(http).with_region(region);
        let provider = ProfileFileCredentialsProvider::builder().configure(&settings).profile_name(profile).build();
        loader = loader.profile_name(profile).credentials_provider(provider);
    }
    Builder::from(&loader.load().await)
}

/// Environment and profile, then the default; not the instance metadata service, for which a host outside AWS would
/// wait.
fn region_chain(profile: Option<&String>) -> RegionProviderChain {
    let mut file = ProfileFileRegionProvider::builder();
    if let Some(profile) = profile {
        file = file.profile_name(profile);
    }
    RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(file.build())
        .or_else(Region::new(DEFAULT_REGION))
}

/// Reads a CA file and checks that it holds certificates.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("ca_file {shown} cannot be read: {error}"))?;
    let mut found = Vec::new();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("ca_file {shown} is not a PEM file: {error}"))?;
        roots
            .add(certificate.clone())
            .map_err(|error| format!("ca_file {shown} holds a certificate that cannot be used: {error}"))?;
        found.push(certificate);
    }
    if found.is_empty() {
        return Err(format!("ca_file {shown} holds no certificate in PEM form"));
    }
    Ok(found)
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
        assert!(certificates(&path).unwrap_err().starts_with(&format!("ca_file {shown} cannot be read: ")));
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(certificates(&path).unwrap_err(), format!("ca_file {shown} holds no certificate in PEM form"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(
            certificates(&path)
                .unwrap_err()
                .starts_with(&format!("ca_file {shown} holds a certificate that cannot be used: "))
        );
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(certificates(&path).unwrap_err().starts_with(&format!("ca_file {shown} is not a PEM file: ")));
    }
}
