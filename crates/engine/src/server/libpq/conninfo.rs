//! Connection strings: `key = 'value'` pairs, and URIs (`conninfo_parse` and `conninfo_uri_parse` of `fe-connect.c`).

use super::key_words::{Parameters, key_word};

/// Parses a string. Errors contain the position in the string, and never its content.
pub(super) fn parse(text: &str) -> Result<Parameters, String> {
    for scheme in ["postgresql://", "postgres://"] {
        if let Some(rest) = text.trim().strip_prefix(scheme) {
            return uri(rest);
        }
    }
    pairs(text)
}

fn pairs(text: &str) -> Result<Parameters, String> {
    let mut found = Parameters::new();
    let mut characters = text.chars().enumerate().peekable();
    loop {
        while characters.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let Some(&(start, _)) = characters.peek() else { return Ok(found) };
        let place = start + 1;
        let mut name = String::new();
        while let Some((_, c)) = characters.next_if(|(_, c)| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while characters.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        if characters.next_if(|(_, c)| *c == '=').is_none() {
            return Err(format!("there is no = after the word at character {place}"));
        }
        while characters.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        let quoted = characters.next_if(|(_, c)| *c == '\'').is_some();
        loop {
            match characters.next() {
                Some((_, '\\')) => value.extend(characters.next().map(|(_, c)| c)),
                Some((_, '\'')) if quoted => break,
                Some((_, c)) if !quoted && c.is_whitespace() => break,
                Some((_, c)) => value.push(c),
                None if quoted => return Err(format!("the quote of the value after character {place} is not closed")),
                None => break,
            }
        }
        let word = key_word(&name).ok_or_else(|| unknown(&format!("the word at character {place}"), &name))?;
        found.insert(word, value);
    }
}

/// The part after the scheme: `[user[:password]@][host[:port],...][/dbname][?parameter=value&...]`.
fn uri(text: &str) -> Result<Parameters, String> {
    let mut found = Parameters::new();
    let (place, query) = text.split_once('?').map_or((text, None), |(place, query)| (place, Some(query)));
    let (authority, dbname) = place.split_once('/').map_or((place, None), |(host, name)| (host, Some(name)));
    let (credentials, hosts) =
        authority.rsplit_once('@').map_or((None, authority), |(credentials, hosts)| (Some(credentials), hosts));
    if let Some(credentials) = credentials {
        let (user, password) =
            credentials.split_once(':').map_or((credentials, None), |(user, password)| (user, Some(password)));
        found.insert("user", decoded(user)?);
        if let Some(password) = password {
            found.insert("password", decoded(password)?);
        }
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let (name, rest) = rest.split_once(']').ok_or("the bracket of an IPv6 address is not closed")?;
                (name, rest.strip_prefix(':').unwrap_or_default())
            }
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        names.push(decoded(name)?);
        ports.push(decoded(port)?);
    }
    found.insert("host", if names.iter().all(String::is_empty) { String::new() } else { names.join(",") });
    found.insert("port", if ports.iter().all(String::is_empty) { String::new() } else { ports.join(",") });
    if let Some(dbname) = dbname {
        found.insert("dbname", decoded(dbname)?);
    }
    for (index, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        let place = format!("parameter {} of the URI", index + 1);
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("{place} has no ="))?;
        let (name, value) = (decoded(name)?, decoded(value)?);
        match (name.as_str(), value.as_str()) {
            // The spelling of JDBC, which libpq accepts as well.
            ("ssl", "true") => drop(found.insert("sslmode", "require".to_owned())),
            _ => drop(found.insert(key_word(&name).ok_or_else(|| unknown(&place, &name))?, value)),
        }
    }
    // An empty value must not hide those of the service file and the environment.
    found.retain(|_, value| !value.is_empty());
    Ok(found)
}

fn unknown(place: &str, name: &str) -> String {
    let near = match name {
        "database" | "db" => "; dbname is",
        "username" => "; user is",
        "hostname" => "; host is",
        "pass" | "passwd" => "; password is",
        _ => "",
    };
    format!("{place} is not a parameter of libpq{near}")
}

fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(|digit| char::from(digit).to_digit(16)));
        let [Some(high), Some(low)] = digits else {
            return Err("a % is not followed by two hexadecimal digits".to_owned());
        };
        let byte = u8::try_from(high * 16 + low).unwrap_or(0);
        if byte == 0 {
            return Err("the URI contains %00".to_owned());
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| "the URI is not UTF-8 after its % signs are decoded".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        parse(text)
            .map(|found| found.iter().map(|(word, value)| format!("{word}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn both_forms_are_read_as_libpq_does() {
        for (text, expected) in [
            ("", ""),
            ("host=/run  user = me", "host=/run user=me"),
            (r"password='it\'s a \\ secret' host=a", r"host=a password=it's a \ secret"),
            (r"password=one\ word host=''", "host= password=one word"),
            ("postgresql://", ""),
            ("postgres:///db?host=/run/pg&sslmode=verify-full", "dbname=db host=/run/pg sslmode=verify-full"),
            ("postgresql://me:p%40ss@%2Frun%2Fpg:5433/db", "dbname=db host=/run/pg password=p@ss port=5433 user=me"),
            (
                "postgresql://a:1,[::1]:2,b/db?target_session_attrs=primary",
                "dbname=db host=a,::1,b port=1,2, target_session_attrs=primary",
            ),
            ("postgresql://db?ssl=true", "host=db sslmode=require"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors_say_where_and_never_what() {
        for (text, expected) in [
            ("host=db password=my hush", "there is no = after the word at character 21"),
            ("host=db password=my hush=1", "the word at character 21 is not a parameter of libpq"),
            ("database=hush", "the word at character 1 is not a parameter of libpq; dbname is"),
            ("password='hush", "the quote of the value after character 1 is not closed"),
            ("postgresql://me:%hush@db", "a % is not followed by two hexadecimal digits"),
            ("postgresql://db/x?hush", "parameter 1 of the URI has no ="),
        ] {
            assert_eq!(shown(text), Err(expected.to_owned()), "{text}");
        }
    }
}
