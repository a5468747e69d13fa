//! Store URLs, and the options that each backend reads from them.

use std::fmt::{Debug, Write};
use std::net::Ipv6Addr;

use dlock_core::memory::MemoryStore;
use dlock_core::url::{Secret, StoreUrl};
use dlock_core::{ClientOptions, ConfigError};
use dlock_etcd::EtcdOptions;
use dlock_jetstream::JetStreamOptions;
use dlock_redis::RedisOptions;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

const SECRET: &str = "hunter2-4711";

/// A URL is taken apart or refused; its parts, put together, mean the same to everybody; and nothing
/// repeats its password, wherever that stands.
pub fn url(data: &[u8]) {
    let text = crate::text(data);
    let read = read(text);
    if let Ok(url) = StoreUrl::parse(text) {
        let again = composed(&url, text);
        let url = StoreUrl::parse(&again);
        assert!(url.is_ok(), "{text:?} is read, and {again:?} is not");
        assert_eq!(read, self::read(&again), "{text:?} and {again:?}");
    }
    // The password, with anything around it that can stand there.
    let (scheme, rest) = text.split_once("://").unwrap_or(("redis", text));
    let (before, rest) = rest.split_once('@').unwrap_or((rest, "host"));
    for login in [
        format!("{before}:{SECRET}"),
        format!("u:{SECRET}{before}"),
        format!("{before}:{SECRET}{before}"),
    ] {
        let said = self::read(&format!("{scheme}://{login}@{rest}"));
        let said = format!("{said:?}");
        assert!(
            !said.contains(SECRET),
            "{scheme}, {login:?}, {rest:?}: {said}"
        );
    }
}

/// What everybody makes of a URL: the parts, and each backend's options; errors as they are printed.
fn read(text: &str) -> Result<Vec<String>, String> {
    let url = StoreUrl::parse(text).map_err(said)?;
    let parts = format!(
        "{url:?} {:?}",
        (url.scheme(), url.hosts(), url.path(), url.password())
    );
    // The words of a secret never leave this line; that there is one, and which, is compared.
    let secret = url.password().map(Secret::reveal).map(hash);
    Ok(vec![
        parts,
        format!("{secret:?}"),
        options(&url, ClientOptions::from_url),
        options(&url, RedisOptions::from_url),
        options(&url, EtcdOptions::from_url),
        options(&url, JetStreamOptions::from_url),
        // A store of that name is made, and forgotten.
        options(&url, |url| MemoryStore::from_url(url).map(drop)),
    ])
}

fn options<T: Debug>(
    url: &StoreUrl,
    read: impl FnOnce(&mut StoreUrl) -> Result<T, ConfigError>,
) -> String {
    let mut url = url.clone();
    let options = read(&mut url).map_err(said);
    format!("{options:?}, {:?}", url.finish().map_err(said))
}

/// An error names what is wrong, and what is allowed.
fn said(error: ConfigError) -> String {
    for part in [&error.what, &error.fault, &error.remedy] {
        assert!(!part.trim().is_empty(), "{error:?}");
    }
    format!("{error} {error:?}")
}

fn hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The parts of a URL, put together again. Its options stay as they were written.
fn composed(url: &StoreUrl, text: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut again = format!("{}://", url.scheme());
    if url.user().is_some() || url.password().is_some() {
        let user = encoded(url.user().unwrap_or_default());
        let password = url.password().map(Secret::reveal).unwrap_or_default();
        let _ = write!(again, "{user}:{}@", encoded(password));
    }
    for (place, host) in url.hosts().iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let name = match host.name.parse::<Ipv6Addr>() {
            Ok(_) => format!("[{}]", host.name),
            Err(_) => encoded(&host.name),
        };
        let port = host.port.map(|port| format!(":{port}")).unwrap_or_default();
        let _ = write!(again, "{comma}{name}{port}");
    }
    let _ = write!(again, "/{}", encoded(url.path()));
    if let Some((_, query)) = text.split_once('?') {
        let _ = write!(again, "?{query}");
    }
    again
}
