//! The cluster's own certificate authority, and a kubeconfig for each component.
//!
//! Created again at each start: nothing outside the state folder ever trusts them. A client's identity is in its
//! certificate (common name the user, organisation the group). So the API server's roles are the real ones, and an
//! operator under test meets the same permissions as elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::layout::{self, HOST, KUBERNETES_SERVICE, Layout, NODES};
use crate::error::{KitError, Result};

/// Users with their groups, by the name of their kubeconfig.
fn clients() -> Vec<(String, String, Option<&'static str>)> {
    let mut clients = vec![
        ("admin".to_owned(), "kubernetes-admin".to_owned(), Some("system:masters")),
        ("resident".to_owned(), "holdfast-kube".to_owned(), Some("system:masters")),
        ("controller-manager".to_owned(), "system:kube-controller-manager".to_owned(), None),
        ("scheduler".to_owned(), "system:kube-scheduler".to_owned(), None),
        ("proxy".to_owned(), "system:kube-proxy".to_owned(), None),
    ];
    for number in 1..=NODES {
        let name = layout::node_name(number);
        let user = format!("system:node:{name}");
        clients.push((name, user, Some("system:nodes")));
    }
    clients
}

/// Writes the authority, the server's certificates and all kubeconfigs.
pub(crate) fn write(layout: &Layout) -> Result<()> {
    let folder = layout.path("pki");
    fs::create_dir_all(&folder).map_err(KitError::io(format!("make {}", folder.display())))?;
    let store = |name: &str, content: &str| {
        let path = folder.join(name);
        let failed = || KitError::io(format!("write {}", path.display()));
        fs::write(&path, content).map_err(failed())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed())
    };

    let authority_key = KeyPair::generate().map_err(|error| refused(&error))?;
    let mut authority = CertificateParams::new(Vec::<String>::new()).map_err(|error| refused(&error))?;
    authority.distinguished_name.push(DnType::CommonName, "holdfast-kube");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let authority_text = authority.self_signed(&authority_key).map_err(|error| refused(&error))?.pem();
    store("ca.crt", &authority_text)?;
    store("ca.key", &authority_key.serialize_pem())?;
    let issuer = Issuer::new(authority, authority_key);

    let issue = |user: &str, group: Option<&str>, names: Vec<String>| -> Result<(String, String)> {
        let key = KeyPair::generate().map_err(|error| refused(&error))?;
        let mut params = CertificateParams::new(names).map_err(|error| refused(&error))?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).map_err(|error| refused(&error))?;
        Ok((certificate.pem(), key.serialize_pem()))
    };

    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        KUBERNETES_SERVICE,
    ];
    let mut names: Vec<String> = names.map(str::to_owned).to_vec();
    names.push(HOST.to_string());
    let (certificate, key) = issue("kube-apiserver", None, names)?;
    store("apiserver.crt", &certificate)?;
    store("apiserver.key", &key)?;
    let (certificate, key) = issue("kube-apiserver-kubelet-client", Some("system:masters"), Vec::new())?;
    store("kubelet-client.crt", &certificate)?;
    store("kubelet-client.key", &key)?;
    let (certificate, key) = issue("front-proxy-client", None, Vec::new())?;
    store("front-proxy.crt", &certificate)?;
    store("front-proxy.key", &key)?;
    for number in 1..=NODES {
        let name = layout::node_name(number);
        let (certificate, key) = issue(&name, None, vec![name.clone(), layout::node_address(number).to_string()])?;
        store(&format!("{name}.crt"), &certificate)?;
        store(&format!("{name}.key"), &key)?;
    }
    // Signs the tokens of service accounts.
    let accounts = KeyPair::generate().map_err(|error| refused(&error))?;
    store("service-accounts.key", &accounts.serialize_pem())?;
    store("service-accounts.pub", &accounts.public_key_pem())?;

    for (name, user, group) in clients() {
        let (certificate, key) = issue(&user, group, Vec::new())?;
        let path = layout.kubeconfig(&name);
        let text = kubeconfig(&user, &authority_text, &certificate, &key).to_string();
        let failed = || KitError::io(format!("write {}", path.display()));
        fs::write(&path, text).map_err(failed())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed())?;
    }
    Ok(())
}

/// A kubeconfig with everything inside; JSON is YAML too.
fn kubeconfig(user: &str, authority: &str, certificate: &str, key: &str) -> serde_json::Value {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "holdfast-kube", "cluster": {
            "server": Layout::api(),
            "certificate-authority-data": encode(authority),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": encode(certificate),
            "client-key-data": encode(key),
        }}],
        "contexts": [{"name": "holdfast-kube", "context": {"cluster": "holdfast-kube", "user": user}}],
        "current-context": "holdfast-kube",
    })
}

fn refused(error: &rcgen::Error) -> KitError {
    KitError::Unsupported(format!("make the certificates of the test bed: {error}"))
}
