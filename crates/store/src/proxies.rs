//! [`Proxies`]: the HTTP proxy for each request, from the environment variables that other programs read as well.
//!
//! `https_proxy` and `http_proxy` by the scheme of the address, else `all_proxy`, each in lower case or in upper case
//! (lower case first, as in curl and in AWS's command line). `no_proxy` lists the hosts that are reached directly. An
//! empty variable does not count. A variable is checked only when it is needed: a bad value does not matter for a store
//! that is not reached through it. A value that is not UTF-8 is not "absent": it is an error where it is needed.
//!
//! The URL of a proxy may hold a password. No message shows it: the URL is printed without user and password, and a URL
//! that cannot be parsed is not printed at all.

use std::ffi::OsString;
use std::net::IpAddr;

use holdfast_secret::Secret;

use crate::ConfigError;

/// The variables as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Variable>,
    https: Option<Variable>,
    no_proxy: Option<Exceptions>,
    /// The store's address, if the environment sets it for all programs that use AWS's libraries.
    endpoint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    name: String,
    /// `None` if it is not UTF-8.
    value: Option<Secret>,
}

impl Variable {
    fn text(&self) -> Result<&str, ConfigError> {
        let not_text = || ConfigError::new(self.name.clone(), "its value is not valid UTF-8");
        self.value.as_ref().map(|value| value.expose().as_str()).ok_or_else(not_text)
    }
}

/// A proxy used by requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The environment variable that names it.
    pub variable: String,
    /// Its address, without user and password.
    pub shown: String,
    /// Its whole URL, with a scheme.
    url: Secret,
}

impl Proxy {
    /// The URL with user and password.
    pub(crate) fn url(&self) -> &str {
        self.url.expose()
    }
}

/// The host of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    pub(crate) tls: bool,
    pub(crate) name: &'a str,
    pub(crate) port: u16,
}

impl<'a> Host<'a> {
    /// The host of a URL like `https://host:port`.
    pub(crate) fn of_url(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = scheme.eq_ignore_ascii_case("https");
        let authority = rest.split(['/', '?', '#']).next()?;
        let (name, port) = name_and_port(authority)?;
        Some(Self { tls, name, port: port.unwrap_or(if tls { 443 } else { 80 }) })
    }
}

impl Proxies {
    /// Reads the variables; `get` returns the value of one.
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let first = |names: [&str; 2]| {
            names.into_iter().find_map(|name| {
                let value = get(name)?;
                let text = value.to_str().map(str::trim);
                (text != Some("")).then(|| Variable { name: name.to_owned(), value: text.map(Secret::new) })
            })
        };
        let all = first(["all_proxy", "ALL_PROXY"]);
        // Read as AWS's libraries read them.
        let ignored =
            get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let endpoint = first(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]).and_then(|variable| variable.value);
        Self {
            http: first(["http_proxy", "HTTP_PROXY"]).or_else(|| all.clone()),
            https: first(["https_proxy", "HTTPS_PROXY"]).or(all),
            no_proxy: first(["no_proxy", "NO_PROXY"])
                .map(|variable| Exceptions { list: variable.text().map(exceptions_in).unwrap_or_default(), variable }),
            endpoint: endpoint.filter(|_| !ignored).map(|endpoint| endpoint.expose().to_owned()),
        }
    }

    /// The store's address, if the environment sets one for AWS's libraries.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The proxy for one host; `None` if the host is reached directly.
    pub(crate) fn of(&self, host: Host<'_>) -> Result<Option<Proxy>, ConfigError> {
        let variable = if host.tls { &self.https } else { &self.http };
        let Some(variable) = variable else { return Ok(None) };
        if let Some(exceptions) = &self.no_proxy {
            exceptions.variable.text()?;
            if exceptions.list.iter().any(|exception| exception.covers(host)) {
                return Ok(None);
            }
        }
        understood(variable).map(Some)
    }

    /// Checks the variables for HTTPS, for hosts that are not known yet.
    pub(crate) fn check_https(&self) -> Result<(), ConfigError> {
        let Some(variable) = &self.https else { return Ok(()) };
        if let Some(exceptions) = &self.no_proxy {
            exceptions.variable.text()?;
        }
        understood(variable).map(drop)
    }
}

/// The hosts in `no_proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exceptions {
    variable: Variable,
    list: Vec<Exception>,
}

/// One entry of `no_proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    /// A network, an address, a domain (with all below it), or `*`.
    text: String,
    port: Option<u16>,
}

fn exceptions_in(list: &str) -> Vec<Exception> {
    let entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
    let understood = entries.filter_map(|entry| {
        // Without a bracket, more than one colon is an IPv6 address.
        let (name, port) = match entry.matches(':').count() {
            0 => (entry, None),
            1 => name_and_port(entry)?,
            _ if entry.starts_with('[') => name_and_port(entry)?,
            _ => (entry, None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let text = name.strip_prefix("*.").unwrap_or(name).trim_matches('.').to_owned();
        (!text.is_empty()).then_some(Exception { text, port })
    });
    understood.collect()
}

impl Exception {
    fn covers(&self, host: Host<'_>) -> bool {
        if self.port.is_some_and(|port| port != host.port) {
            return false;
        }
        let name = host.name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        if self.text == "*" {
            return true;
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            return match self.text.split_once('/') {
                Some((network, bits)) => is_in(address, network, bits),
                None => self.text.parse() == Ok(address),
            };
        }
        let (name, domain) = (name.to_ascii_lowercase(), self.text.to_ascii_lowercase());
        name.strip_suffix(&domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    }
}

/// Whether an address is in the network `network/bits`.
fn is_in(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let (address, network, width): (u128, u128, u32) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    match width.checked_sub(bits) {
        // All 128 bits may be shifted out.
        Some(rest) => (address ^ network).checked_shr(rest).unwrap_or(0) == 0,
        None => false,
    }
}

/// Splits `host:port`; `None` if the text has another form.
fn name_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port.parse().ok()?)),
        _ => (authority, None),
    };
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let sound = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*/".contains(&byte)),
    };
    sound.then_some((name, port))
}

/// Reads a proxy's URL. A URL that cannot be used is an error: a request that should use a proxy never bypasses it.
fn understood(variable: &Variable) -> Result<Proxy, ConfigError> {
    let refused = |reason: &str| ConfigError::new(variable.name.clone(), reason);
    let value = variable.text()?;
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "http" | "https" => {}
        socks if socks.starts_with("socks") => {
            return Err(refused(
                "it names a SOCKS proxy, and stores are reached by HTTP proxies only: name one as http://host:port, or list \
                 the store's host in NO_PROXY",
            ));
        }
        _ => return Err(refused("the URL of a proxy begins with http:// or https://")),
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, authority),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%".contains(&byte);
    if user.is_some_and(|user| !user.bytes().all(allowed)) {
        return Err(refused(
            "the user or password of the proxy holds a character that a URL cannot contain: write it as % and two \
             hexadecimal digits",
        ));
    }
    if name_and_port(address).is_none_or(|(name, _)| name.contains(['*', '/'])) {
        return Err(refused(
            "expected the URL of a proxy: http://host:port, with user:password@ before the host if it needs them",
        ));
    }
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    Ok(Proxy {
        variable: variable.name.clone(),
        shown: format!("{scheme}://{address}"),
        url: Secret::new(format!("{scheme}://{user}{address}")),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        })
    }

    #[expect(clippy::unwrap_in_result, reason = "an absent proxy is an answer, and an error a failed test")]
    fn to(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let found = proxies(variables).of(Host::of_url(url).unwrap()).unwrap();
        found.map(|proxy| format!("{} {}", proxy.variable, proxy.url()))
    }

    #[test]
    fn the_scheme_decides_and_small_letters_come_first() {
        let all = [("HTTPS_PROXY", "http://one:1"), ("http_proxy", "two:2"), ("ALL_PROXY", "http://three:3")];
        assert_eq!(to("https://minio", &all).as_deref(), Some("HTTPS_PROXY http://one:1"));
        assert_eq!(to("http://minio:9000", &all).as_deref(), Some("http_proxy http://two:2"));
        assert_eq!(to("https://minio", &all[2..]).as_deref(), Some("ALL_PROXY http://three:3"));
        let both = [("https_proxy", "http://small:1"), ("HTTPS_PROXY", "http://capital:2")];
        assert_eq!(to("https://minio", &both).as_deref(), Some("https_proxy http://small:1"));
        assert_eq!(
            to("https://minio", &[("https_proxy", ""), both[1]]).as_deref(),
            Some("HTTPS_PROXY http://capital:2")
        );
        assert_eq!(to("https://minio", &[("HTTP_PROXY", "http://one:1")]), None);
        assert_eq!(to("https://minio", &[]), None);
    }

    #[test]
    fn exceptions_are_reached_directly() {
        for (list, url, direct) in [
            ("minio.example.com", "https://minio.example.com:9000", true),
            ("example.com", "https://minio.example.com", true),
            (".example.com", "https://minio.example.com", true),
            ("*.example.com", "https://Minio.Example.com", true),
            ("example.com", "https://badexample.com", false),
            ("localhost, 10.0.0.0/8", "https://10.1.2.3:9000", true),
            ("localhost 10.0.0.0/8", "https://11.1.2.3", false),
            ("10.0.0.0/0", "https://11.1.2.3", true),
            ("10.0.0.0/33", "https://10.0.0.0", false),
            ("127.0.0.1", "https://127.0.0.1:9000", true),
            ("0.0.1", "https://127.0.0.1:9000", false),
            ("127.0.0.1:9001", "https://127.0.0.1:9000", false),
            ("127.0.0.1:9000", "https://127.0.0.1:9000", true),
            ("minio:443", "https://minio", true),
            ("::1", "https://[::1]:9000", true),
            ("[::1]:9000", "https://[::1]:9000", true),
            ("fd00::/8", "https://[fd00:ec2::23]", true),
            ("*", "https://anywhere", true),
            ("", "https://anywhere", false),
            (",.,", "https://anywhere", false),
        ] {
            let found = to(url, &[("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", list)]);
            assert_eq!(found.is_none(), direct, "{list:?} {url}");
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_an_error_where_it_is_needed_and_nowhere_else() {
        use std::os::unix::ffi::OsStringExt as _;
        let with = |name: &'static str| {
            Proxies::from_variables(move |wanted| match wanted {
                _ if wanted == name => Some(OsString::from_vec(b"http://caf\xe9:3128".to_vec())),
                "HTTPS_PROXY" => Some("http://proxy:3128".into()),
                _ => None,
            })
        };
        let minio = Host::of_url("https://minio").unwrap();
        let plain = Host::of_url("http://minio").unwrap();
        for name in ["https_proxy", "no_proxy", "NO_PROXY"] {
            let expected = format!("invalid {name}: its value is not valid UTF-8");
            assert_eq!(with(name).of(minio).unwrap_err().to_string(), expected);
            assert_eq!(with(name).check_https().unwrap_err().to_string(), expected);
            assert_eq!(with(name).of(plain), Ok(None));
        }
        for name in ["http_proxy", "all_proxy", "ALL_PROXY"] {
            assert_eq!(with(name).of(minio).unwrap().unwrap().variable, "HTTPS_PROXY");
            let expected = format!("invalid {name}: its value is not valid UTF-8");
            assert_eq!(with(name).of(plain).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn the_stores_address_may_be_in_the_environment() {
        let (s3, all) = (("AWS_ENDPOINT_URL_S3", "http://s3"), ("AWS_ENDPOINT_URL", "http://all"));
        let ignore = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true");
        for (variables, endpoint) in
            [(&[s3, all][..], Some("http://s3")), (&[all], Some("http://all")), (&[s3, all, ignore], None), (&[], None)]
        {
            assert_eq!(proxies(variables).endpoint(), endpoint);
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_its_password() {
        for value in [
            "socks5h://user:hush@proxy:1080",
            "ftp://user:hush@proxy",
            "http://user:hush@",
            "http://user:hu@sh@proxy:3128",
            "http://user:hush@proxy:port",
            "http://user:hush@pro xy:3128",
            "user:hush@proxy:99999",
            "http://",
        ] {
            let given = proxies(&[("ALL_PROXY", value)]);
            let error = given.of(Host::of_url("https://minio").unwrap()).unwrap_err().to_string();
            assert!(error.starts_with("invalid ALL_PROXY: ") && !error.contains("hush"), "{error}");
            assert!(!format!("{given:?}").contains("hush"));
            let avoided = proxies(&[("ALL_PROXY", value), ("no_proxy", "minio")]);
            assert_eq!(avoided.of(Host::of_url("https://minio").unwrap()), Ok(None));
        }
        let sound = proxies(&[("HTTPS_PROXY", "http://user:p%40ss@[::1]:3128/")]);
        let proxy = sound.of(Host::of_url("https://minio").unwrap()).unwrap().unwrap();
        assert_eq!((proxy.shown.as_str(), proxy.url()), ("http://[::1]:3128", "http://user:p%40ss@[::1]:3128"));
        assert!(!format!("{proxy:?}").contains("p%40ss"));
    }
}
