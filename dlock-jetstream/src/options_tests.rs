use std::time::Duration;

use dlock_core::url::StoreUrl;
use dlock_core::{Namespace, Tls};

use super::*;

fn read(url: &str) -> Result<JetStreamOptions, ConfigError> {
    let mut url = StoreUrl::parse(url)?;
    let options = JetStreamOptions::from_url(&mut url)?;
    url.finish()?;
    Ok(options)
}

#[test]
fn a_url_says_what_the_builder_says() {
    let plain = || JetStreamOptions::new("h", 4222);
    let jobs = Namespace::new("jobs").unwrap();
    for (url, built) in [
        ("nats://h", plain()),
        ("nats://h,[::1]:5", plain().server("::1", 5)),
        ("nats://s3cret@h", plain().token("s3cret")),
        ("nats://u:p@h", plain().user("u").password("p")),
        ("nats://h/jobs", plain().namespace(jobs.clone())),
        ("nats://h?namespace=jobs", plain().namespace(jobs.clone())),
        ("nats://h/jobs?namespace=jobs", plain().namespace(jobs)),
        ("nats://h?replicas=3", plain().replicas(3)),
        (
            "nats://h?creds=a.creds",
            plain().credentials_file("a.creds"),
        ),
        ("nats://h?nkey=a.nk", plain().nkey_file("a.nk")),
        ("tls://h?ca=ca.pem", plain().tls(Tls::new().ca("ca.pem"))),
        (
            "nats://h?connect_timeout=1s",
            plain().connect_timeout(Duration::from_secs(1)),
        ),
    ] {
        assert_eq!(read(url).unwrap(), built, "{url}");
    }
}

/// HONEST: what cannot be is refused, by its name.
#[test]
fn errors_name_what_cannot_be() {
    for (url, expected) in [
        ("redis://h", "nats, or tls"),
        ("nats://", "nats://host:port"),
        ("nats://:p@h", "no user"),
        ("nats://h?replicas=0", "1 to 5"),
        ("nats://h?replicas=7", "1 to 5"),
        ("nats://h?replicas=x", "1 to 5"),
        ("nats://h/a%20b", "its path"),
        ("nats://h/a?namespace=b", "option namespace"),
        ("nats://t@h?creds=a", "several"),
        ("nats://u:p@h?nkey=a", "several"),
        ("nats://h?ca=x", "tls://"),
        ("nats://h?connect_timeout=0s", "zero"),
        ("nats://h?replica=3", "option replica"),
    ] {
        let error = read(url).unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
    }
}

#[test]
fn no_secret_is_ever_printed() {
    for url in ["nats://hunter2@h", "nats://u:hunter2@h"] {
        assert!(!format!("{:?}", read(url).unwrap()).contains("hunter2"));
    }
    let error = read("nats://hunter2@h?creds=a").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
