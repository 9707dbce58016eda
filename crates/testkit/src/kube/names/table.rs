//! Which addresses a name has, from services and endpoints.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::runtime::reflector::{ObjectRef, Store};

use crate::kube::layout::DOMAIN;

/// The names of the cluster at any moment.
#[derive(Debug)]
pub(crate) struct Names {
    services: Store<Service>,
    endpoints: Store<Endpoints>,
}

impl Names {
    pub(crate) fn new(services: Store<Service>, endpoints: Store<Endpoints>) -> Self {
        Self { services, endpoints }
    }

    /// The addresses of a name in lower case; nothing when there is no such name.
    pub(crate) fn find(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        let inside = name.strip_suffix(DOMAIN)?.strip_suffix('.')?;
        let labels: Vec<&str> = inside.split('.').collect();
        match labels.as_slice() {
            [service, namespace, "svc"] => self.service(service, namespace),
            [host, service, namespace, "svc"] => self.host(host, service, namespace),
            [address, _, "pod"] => address.replace('-', ".").parse().ok().map(|address| vec![address]),
            _ => None,
        }
    }

    fn service(&self, name: &str, namespace: &str) -> Option<Vec<Ipv4Addr>> {
        let service = self.services.get(&ObjectRef::new(name).within(namespace))?;
        let spec = service.spec.as_ref()?;
        match spec.cluster_ip.as_deref() {
            Some("None") => {
                let endpoints = self.endpoints.get(&ObjectRef::new(name).within(namespace));
                let unready = spec.publish_not_ready_addresses.unwrap_or(false);
                Some(endpoints.map(|endpoints| addresses(&endpoints, unready, |_, _| true)).unwrap_or_default())
            }
            address => Some(address.and_then(|address| address.parse().ok()).into_iter().collect()),
        }
    }

    fn host(&self, host: &str, service: &str, namespace: &str) -> Option<Vec<Ipv4Addr>> {
        let key = ObjectRef::new(service).within(namespace);
        let unready = self
            .services
            .get(&key)
            .and_then(|service| service.spec.as_ref()?.publish_not_ready_addresses)
            .unwrap_or(false);
        // What `publishNotReadyAddresses` promises is in the endpoints themselves, as ready ones.
        let endpoints = self.endpoints.get(&ObjectRef::new(service).within(namespace))?;
        let found =
            addresses(&endpoints, unready, |name, address| name == Some(host) || address.replace('.', "-") == host);
        (!found.is_empty()).then_some(found)
    }
}

/// The addresses of endpoints whose host name and address are wanted, each once.
fn addresses(endpoints: &Endpoints, with_unready: bool, wanted: impl Fn(Option<&str>, &str) -> bool) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ready = subset.addresses.iter().flatten();
        let unready = subset.not_ready_addresses.iter().flatten().filter(|_| with_unready);
        for address in ready.chain(unready) {
            if wanted(address.hostname.as_deref(), &address.ip)
                && let Ok(ip) = address.ip.parse()
                && !found.contains(&ip)
            {
                found.push(ip);
            }
        }
    }
    found
}
