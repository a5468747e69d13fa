//! Store URLs: `scheme://user:password@host:port,host:port/path?option=value&…`.
//!
//! One parser for every backend, because it must keep three promises that a general one does not:
//! several hosts, no option that is ignored in silence (HONEST), and no error that repeats a
//! password.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::mutants::{Mutant, is_on};
use crate::{ConfigError, InvalidName, Namespace};

/// A parsed store URL. Each backend takes the options that it knows; [`finish`](StoreUrl::finish)
/// refuses what is left.
///
/// ```
/// use dlock_core::url::StoreUrl;
///
/// let mut url = StoreUrl::parse("redis://:secret@localhost:6379/2?ttl=10s")?;
/// assert_eq!((url.scheme(), url.path()), ("redis", "2"));
/// assert_eq!(url.hosts()[0].port, Some(6379));
/// assert_eq!(url.take_duration("ttl")?, Some(std::time::Duration::from_secs(10)));
/// assert!(!format!("{url:?}").contains("secret"));
/// url.finish()?;
/// # Ok::<(), dlock_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct StoreUrl {
    scheme: String,
    user: Option<String>,
    password: Option<Secret>,
    hosts: Vec<Host>,
    path: String,
    options: Vec<(String, String)>,
    /// Every option that was asked for, for the error that lists what is allowed.
    known: BTreeSet<String>,
}

impl fmt::Debug for StoreUrl {
    /// Without the user, which may be a token (`nats://token@host`), and without the options' values:
    /// somebody may have put a password there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<&str> = self.options.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("StoreUrl")
            .field("scheme", &self.scheme)
            .field("user", &self.user.clone().map(Secret))
            .field("password", &self.password)
            .field("hosts", &self.hosts)
            .field("path", &self.path)
            .field("options", &options)
            .finish_non_exhaustive()
    }
}

/// One host of a [`StoreUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A name or an address; an IPv6 address without its brackets.
    pub name: String,
    /// The port, where one was given.
    pub port: Option<u16>,
}

/// A password or the like: it never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps the text from being printed.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The text itself, for the store alone.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

const SHAPE: &str =
    "a store URL reads scheme://user:password@host:port/path?option=value&option=value";

impl StoreUrl {
    /// Takes the URL apart. No part of its user information is ever repeated in an error.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it has no scheme, a bad port, a bad percent encoding, or an option twice.
    pub fn parse(url: &str) -> Result<Self, ConfigError> {
        let fault = |fault: String| ConfigError::new("store URL", fault, SHAPE);
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(fault("it has no scheme".into()));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(plain) {
            return Err(fault(
                "its scheme is empty or holds other than letters and digits".into(),
            ));
        }
        if rest.contains('#') {
            return Err(fault("it holds a '#'; write it as %23".into()));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.contains('@') {
            // Perhaps what looks like options is the end of a password: repeat none of it.
            return Err(fault(
                "it holds an '@' behind a '?'; write them as %40 and %3F".into(),
            ));
        }
        let (login, rest) = match rest.rsplit_once('@') {
            // It may be a password with a '/' or an '@' behind the host's '/': ask, do not guess.
            Some((login, _)) if login.contains('/') => {
                return Err(fault(
                    "it holds a '/' before an '@'; write it as %2F there".into(),
                ));
            }
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = match login {
            None => (None, None),
            Some(login) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (
                    some(decode(user, "user")?),
                    some(decode(password, "password")?).map(Secret),
                )
            }
        };
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user,
            password,
            hosts: parse_hosts(hosts)?,
            path: decode(path.trim_matches('/'), "path")?,
            options: parse_options(query)?,
            known: BTreeSet::new(),
        })
    }

    /// The scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user, if one was given.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password, if one was given.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The hosts, in the order in which they were given. May be empty.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// What stands after the hosts, without the slashes around it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Takes an option, if it was given.
    pub fn take(&mut self, option: &str) -> Option<String> {
        self.known.insert(option.to_owned());
        let place = self.options.iter().position(|(key, _)| key == option)?;
        Some(self.options.remove(place).1)
    }

    /// Takes an option and reads it; `allowed` says in words what it may be.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it was given and does not read.
    pub fn take_parsed<T: FromStr>(
        &mut self,
        option: &str,
        allowed: &str,
    ) -> Result<Option<T>, ConfigError> {
        self.take_with(option, allowed, |text| text.parse().ok())
    }

    /// Takes an option that is a time with its unit: `500ms`, `10s`, `2m`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it was given and does not read.
    pub fn take_duration(&mut self, option: &str) -> Result<Option<Duration>, ConfigError> {
        let allowed = "a time with its unit, such as 500ms, 10s or 2m";
        self.take_with(option, allowed, |text| humantime::parse_duration(text).ok())
    }

    /// Takes the option `namespace`, which means the same on every store.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it was given and is no namespace.
    pub fn take_namespace(&mut self) -> Result<Option<Namespace>, ConfigError> {
        let Some(text) = self.take("namespace") else {
            return Ok(None);
        };
        let namespace = text.parse().map_err(|fault: InvalidName| {
            let remedy = "choose one of these characters";
            ConfigError::new("option namespace", fault.to_string(), remedy)
        })?;
        Ok(Some(namespace))
    }

    fn take_with<T>(
        &mut self,
        option: &str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.take(option) else {
            return Ok(None);
        };
        match read(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::new(
                format!("option {option}"),
                format!("{text:?} cannot be read"),
                format!("it is {allowed}"),
            )),
        }
    }

    /// Refuses the options that nobody took.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] that names the first of them and lists those that were asked for.
    pub fn finish(self) -> Result<(), ConfigError> {
        let left = self
            .options
            .first()
            .filter(|_| !is_on(Mutant::IgnoredOption));
        let Some((option, _)) = left else {
            return Ok(());
        };
        let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
        Err(ConfigError::new(
            format!("option {option}"),
            format!("{}:// has no such option", self.scheme),
            format!("allowed are {}", known.join(", ")),
        ))
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn decode(text: &str, part: &str) -> Result<String, ConfigError> {
    let well_formed = text
        .split('%')
        .skip(1)
        .all(|code| code.len() >= 2 && code.bytes().take(2).all(|digit| digit.is_ascii_hexdigit()));
    let decoded = percent_decode_str(text).decode_utf8();
    match decoded {
        Ok(decoded) if well_formed => Ok(decoded.into_owned()),
        _ => Err(ConfigError::new(
            format!("store URL: its {part}"),
            "it is not percent-encoded UTF-8",
            "write each special character as % and two hexadecimal digits, a % itself as %25",
        )),
    }
}

fn parse_hosts(hosts: &str) -> Result<Vec<Host>, ConfigError> {
    let hosts = hosts.split(',').filter(|_| !hosts.is_empty());
    hosts
        .zip(1..)
        .map(|(host, number)| parse_host(host, number))
        .collect()
}

/// An error names the host by its number alone: what stands there may be a login without its '@'.
fn parse_host(text: &str, number: usize) -> Result<Host, ConfigError> {
    let fault = |fault: &str| {
        let what = format!("store URL: host {number}");
        let remedy =
            "a host reads name:port or [IPv6 address]:port, and a login before it ends in '@'";
        ConfigError::new(what, fault, remedy)
    };
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest
                .split_once(']')
                .ok_or_else(|| fault("it lacks a ']'"))?;
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| fault("it is no IPv6 address"))?;
            let port = match port.strip_prefix(':') {
                Some(port) => Some(port),
                None if port.is_empty() => None,
                None => return Err(fault("something other than a port stands behind its ']'")),
            };
            (address.to_owned(), port)
        }
        None => match text.split_once(':') {
            Some((name, port)) => (decode(name, "host")?, Some(port)),
            None => (decode(text, "host")?, None),
        },
    };
    if name.is_empty() {
        return Err(fault("it has no name"));
    }
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(fault("it holds white space"));
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse() {
            Ok(number @ 1..) if port.bytes().all(|digit| digit.is_ascii_digit()) => Some(number),
            _ => return Err(fault("its port is not a number from 1 to 65535")),
        },
    };
    Ok(Host { name, port })
}

fn parse_options(query: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let mut options: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key, "options")?, decode(value, "options")?);
        if options.iter().any(|(known, _)| *known == key) {
            let remedy = "give each option once";
            return Err(ConfigError::new(
                format!("option {key}"),
                "it is given twice",
                remedy,
            ));
        }
        options.push((key, value));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_url_apart() {
        let url = "Redis://us%40er:p%3Aw%2F@h1,h2:2,[::1]:3//pa%20th/?a=1&b=%26";
        let mut url = StoreUrl::parse(url).unwrap();
        assert_eq!(url.scheme(), "redis");
        assert_eq!(url.user(), Some("us@er"));
        assert_eq!(url.password().map(Secret::reveal), Some("p:w/"));
        let hosts: Vec<(&str, Option<u16>)> = url
            .hosts()
            .iter()
            .map(|host| (host.name.as_str(), host.port))
            .collect();
        assert_eq!(hosts, [("h1", None), ("h2", Some(2)), ("::1", Some(3))]);
        assert_eq!(url.path(), "pa th");
        assert_eq!(url.take_parsed::<u32>("a", "a number").unwrap(), Some(1));
        assert_eq!(url.take("b").as_deref(), Some("&"));
        assert_eq!(url.take("c"), None);
        url.finish().unwrap();
        assert!(StoreUrl::parse("memory://").unwrap().hosts().is_empty());
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_is_allowed() {
        for (url, expected) in [
            ("localhost:6379", "no scheme"),
            ("://x", "scheme is empty"),
            ("redis://h:port", "1 to 65535"),
            ("redis://h:0", "1 to 65535"),
            ("redis://h:65536", "1 to 65535"),
            ("redis://[::1", "lacks a ']'"),
            ("redis://h:+80", "1 to 65535"),
            ("redis://a b", "white space"),
            ("redis://h/0@other", "%2F"),
            ("redis://a,b:x", "host 2"),
            ("redis://[zz]:1", "no IPv6"),
            ("redis://a,,b", "no name"),
            ("redis://h/%zz", "percent-encoded"),
            ("redis://h/%C3", "percent-encoded"),
            ("redis://h?a=1&a=2", "option a: it is given twice"),
            ("redis://h/1#frag", "%23"),
        ] {
            let error = StoreUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
        }
        let mut url = StoreUrl::parse("redis://h?tll=10s&ttl=ten").unwrap();
        let error = url.take_duration("ttl").unwrap_err().to_string();
        assert!(
            error.contains("option ttl") && error.contains("10s or 2m"),
            "{error}"
        );
        url.take("label");
        let error = url.finish().unwrap_err().to_string();
        assert!(
            error.contains("option tll") && error.contains("label, ttl"),
            "{error}"
        );
    }

    #[test]
    fn a_password_is_in_no_error_and_in_no_debug_output() {
        for url in [
            "redis://u:hunter2@h:port",
            "redis://u:hunter2%zz@h",
            "redis://u:hunter2@h?a&a",
            "redis://u:hunter2/@[::1",
            "re_dis://u:hunter2@h",
            "redis://u:hunter2?hunter2@h",
            "redis://u:hunter2#hunter2@h",
            "redis://u:hunter2",
            "redis://:hunter2",
            "redis://u:hunter2/h:1",
            "redis://u:a%40hunter2",
            "redis://[::1]:hunter2",
        ] {
            let error = StoreUrl::parse(url).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{url}: {error}"
            );
        }
        for url in [
            "redis://u:hunter2@h",
            "nats://hunter2@h",
            "redis://h?password=hunter2",
        ] {
            let parsed = StoreUrl::parse(url).unwrap();
            assert!(!format!("{parsed:?}").contains("hunter2"), "{url}");
        }
    }
}
