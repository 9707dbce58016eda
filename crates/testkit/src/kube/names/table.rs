//! The addresses of a name, from services and endpoints.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::runtime::reflector::{ObjectRef, Store};

use crate::kube::layout::DOMAIN;

/// The present names of the cluster.
#[derive(Debug)]
pub(crate) struct Names {
    services: Store<Service>,
    endpoints: Store<Endpoints>,
}

impl Names {
    pub(crate) fn new(services: Store<Service>, endpoints: Store<Endpoints>) -> Self {
        Self { services, endpoints }
    }

    /// The addresses of a name in lower case; `None` if there is no such name.
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
                Some(endpoints.map(|endpoints| addresses(&endpoints, |_, _| true)).unwrap_or_default())
            }
            address => Some(address.and_then(|address| address.parse().ok()).into_iter().collect()),
        }
    }

    fn host(&self, host: &str, service: &str, namespace: &str) -> Option<Vec<Ipv4Addr>> {
        let endpoints = self.endpoints.get(&ObjectRef::new(service).within(namespace))?;
        let found = addresses(&endpoints, |name, address| name == Some(host) || address.replace('.', "-") == host);
        (!found.is_empty()).then_some(found)
    }
}

/// The ready addresses of endpoints whose host name and address are wanted, each once.
///
/// The API's controller also lists the addresses of a service with `publishNotReadyAddresses` as ready.
fn addresses(endpoints: &Endpoints, wanted: impl Fn(Option<&str>, &str) -> bool) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    for address in endpoints.subsets.iter().flatten().flat_map(|subset| subset.addresses.iter().flatten()) {
        if wanted(address.hostname.as_deref(), &address.ip)
            && let Ok(ip) = address.ip.parse()
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use k8s_openapi::api::core::v1::{Endpoints, Service};
    use kube::runtime::reflector::{Store, store::Writer};
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::Names;

    fn filled<K>(objects: &[serde_json::Value]) -> Store<K>
    where
        K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + 'static,
    {
        let mut writer = Writer::new(());
        for object in objects {
            let object: K = serde_json::from_value(object.clone()).expect("an object");
            writer.apply_watcher_event(&Event::Apply(object));
        }
        writer.as_reader()
    }

    #[test]
    fn each_form_of_a_name_has_its_addresses() {
        let metadata = |name: &str| json!({"name": name, "namespace": "ns"});
        let services = [
            json!({"metadata": metadata("one"), "spec": {"clusterIP": "10.96.1.2"}}),
            json!({"metadata": metadata("all"), "spec": {"clusterIP": "None"}}),
            json!({"metadata": metadata("none"), "spec": {"clusterIP": "None"}}),
        ];
        let endpoints = [json!({"metadata": metadata("all"), "subsets": [
            {
                "addresses": [{"ip": "10.244.1.5", "hostname": "all-1"}, {"ip": "10.244.2.6", "hostname": "all-2"}],
                "notReadyAddresses": [{"ip": "10.244.2.7", "hostname": "all-3"}],
                "ports": [{"port": 5432}],
            },
            {"addresses": [{"ip": "10.244.1.5", "hostname": "all-1"}], "ports": [{"port": 8000}]},
        ]})];
        let names = Names::new(filled::<Service>(&services), filled::<Endpoints>(&endpoints));
        let first = Ipv4Addr::new(10, 244, 1, 5);
        let second = Ipv4Addr::new(10, 244, 2, 6);
        for (name, expected) in [
            ("one.ns.svc.cluster.local", Some(vec![Ipv4Addr::new(10, 96, 1, 2)])),
            ("all.ns.svc.cluster.local", Some(vec![first, second])),
            ("none.ns.svc.cluster.local", Some(Vec::new())),
            ("all-2.all.ns.svc.cluster.local", Some(vec![second])),
            ("10-244-1-5.all.ns.svc.cluster.local", Some(vec![first])),
            ("10-244-1-5.ns.pod.cluster.local", Some(vec![first])),
            ("all-3.all.ns.svc.cluster.local", None),
            ("one.other.svc.cluster.local", None),
            ("one.ns.cluster.local", None),
            ("one.ns.svc", None),
            ("example.org", None),
        ] {
            assert_eq!(names.find(name), expected, "{name}");
        }
    }
}
