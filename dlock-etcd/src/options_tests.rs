use std::time::Duration;

use dlock_core::Namespace;

use super::*;

fn read(url: &str) -> Result<EtcdOptions, ConfigError> {
    let mut url = StoreUrl::parse(url)?;
    let options = EtcdOptions::from_url(&mut url)?;
    url.finish()?;
    Ok(options)
}

#[test]
fn a_url_says_the_same_as_the_builder() {
    let new = || EtcdOptions::new("h", 2379);
    let jobs = || Namespace::new("jobs").unwrap();
    for (url, expected) in [
        ("etcd://h", new()),
        ("etcd://h:7", EtcdOptions::new("h", 7)),
        ("etcd://h,i:7", new().endpoint("i", 7)),
        ("etcd://[::1]:7", EtcdOptions::new("::1", 7)),
        ("etcd://u:p@h", new().user("u").password("p")),
        ("etcd://h/jobs", new().namespace(jobs())),
        ("etcd://h?namespace=jobs", new().namespace(jobs())),
        ("etcd://h/jobs?namespace=jobs", new().namespace(jobs())),
        ("etcds://h", new().tls(Tls::new())),
        (
            "etcds://h?ca=/ca.pem&cert=c.pem&key=k.pem",
            new().tls(Tls::new().ca("/ca.pem").identity("c.pem", "k.pem")),
        ),
        (
            "etcd://h?connect_timeout=1s",
            new().connect_timeout(Duration::from_secs(1)),
        ),
    ] {
        assert_eq!(read(url).unwrap(), expected, "{url}");
    }
}

#[test]
fn what_cannot_be_is_an_error_that_says_what_can() {
    for (url, expected) in [
        ("http://h", "it is etcd, or etcds"),
        ("etcd://", "etcd://host:port"),
        ("etcd://h/a/b", "such as etcd://host/jobs"),
        ("etcd://h/a?namespace=b", "give one of them"),
        ("etcd://h?namespace=a/b", "option namespace"),
        ("etcd://u@h", "it has no password"),
        ("etcd://:p@h", "it has no user"),
        ("etcd://h?ca=x", "write etcds://"),
        ("etcds://h?cert=x", "give both"),
        ("etcd://h?connect_timeout=0s", "choose a time"),
        ("etcd://h?tll=1s", "option tll"),
    ] {
        let error = read(url).unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
    }
}

#[test]
fn a_password_is_not_printed() {
    let options = read("etcd://user:hunter2@h").unwrap();
    assert!(!format!("{options:?}").contains("hunter2"));
    let error = read("etcd://:hunter2@h").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
