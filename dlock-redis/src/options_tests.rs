use dlock_core::Namespace;

use super::*;

fn read(url: &str) -> Result<RedisOptions, ConfigError> {
    let mut url = StoreUrl::parse(url)?;
    let options = RedisOptions::from_url(&mut url)?;
    url.finish()?;
    Ok(options)
}

#[test]
fn a_url_says_the_same_as_the_builder() {
    let second = Duration::from_secs(1);
    let new = || RedisOptions::new("h", 6379);
    for (url, expected) in [
        ("redis://h", new()),
        ("valkey://h/3", new().database(3)),
        (
            "redis://u:p@h:7",
            RedisOptions::new("h", 7).user("u").password("p"),
        ),
        ("rediss://h", new().tls(Tls::new())),
        (
            "valkeys://h?ca=/ca.pem&cert=c.pem&key=k.pem",
            new().tls(Tls::new().ca("/ca.pem").identity("c.pem", "k.pem")),
        ),
        ("redis://h,i:7", new().node("i", 7)),
        ("redis://h?cluster=true", new().topology(Topology::Cluster)),
        ("redis://h?cluster=false", new()),
        ("redis://h?partitions=4", new().partitions(4)),
        (
            "redis://h?namespace=jobs",
            new().namespace(Namespace::new("jobs").unwrap()),
        ),
        ("redis://h?wait=2", new().wait_replicas(2, second)),
        (
            "redis://h?waitaof=1,0&wait_timeout=2s",
            new().wait_aof(1, 0, 2 * second),
        ),
        (
            "redis://h?connect_timeout=1s",
            new().connect_timeout(second),
        ),
    ] {
        assert_eq!(read(url).unwrap(), expected, "{url}");
    }
}

#[test]
fn what_cannot_be_is_an_error_that_says_what_can() {
    for (url, expected) in [
        ("http://h", "it is redis, rediss"),
        ("redis://", "redis://host:port"),
        ("redis://h/x", "number of a database"),
        ("redis://h?partitions=0", "1 to 1024"),
        ("redis://h?partitions=1025", "1 to 1024"),
        ("redis://h?partitions=x", "1 to 1024"),
        ("redis://h?namespace=a/b", "option namespace"),
        ("redis://u@h", "no password"),
        ("redis://h,i/1", "database 0 alone"),
        ("redis://h,i?cluster=false", "several hosts"),
        ("redis://h?cluster=yes", "true or false"),
        ("redis://h?ca=x", "write rediss://"),
        ("valkeys://h?cert=x", "give both"),
        ("redis://h?wait=0", "at least 1"),
        ("redis://h?wait=1&waitaof=1,1", "choose one"),
        ("redis://h?waitaof=2,0", "LOCAL is 0 or 1"),
        ("redis://h?waitaof=0,0", "at least 1"),
        ("redis://h?waitaof=1", "LOCAL,REPLICAS"),
        ("redis://h?wait=1&wait_timeout=0s", "a millisecond"),
        ("redis://h?wait_timeout=1s", "nothing to wait for"),
        ("redis://h?tll=1s", "option tll"),
    ] {
        let error = read(url).unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
    }
}

#[test]
fn a_password_is_not_printed() {
    let options = read("redis://user:hunter2@h").unwrap();
    assert!(!format!("{options:?}").contains("hunter2"));
}
