//! What a user reads who gets a URL wrong.

async fn error(url: &str) -> String {
    match dlock::connect(url).await {
        Ok(client) => panic!("{url} connects: {client:?}"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn an_unknown_scheme_lists_what_is_compiled_in() {
    let error = error("mysql://localhost").await;
    assert!(
        error.contains("scheme mysql") && error.contains("memory://"),
        "{error}"
    );
}

#[tokio::test]
async fn a_known_scheme_names_the_feature_to_switch_on() {
    for (feature, compiled, schemes) in [
        (
            "redis",
            cfg!(feature = "redis"),
            &["redis", "rediss", "valkey", "valkeys"][..],
        ),
        ("etcd", cfg!(feature = "etcd"), &["etcd", "etcds"]),
        ("jetstream", cfg!(feature = "jetstream"), &["nats", "tls"]),
    ] {
        for scheme in schemes.iter().filter(|_| !compiled) {
            let error = error(&format!("{scheme}://localhost")).await;
            let expected = format!("switch on the feature `{feature}`");
            assert!(error.contains(&expected), "{error}");
            assert!(error.contains("memory://"), "{error}");
        }
        for scheme in schemes.iter().filter(|_| compiled) {
            let error = error(&format!("{scheme}://localhost?tll=1s")).await;
            let expected = format!("option tll: {scheme}:// has no such option");
            assert!(error.contains(&expected), "{error}");
            // The options that mean the same everywhere.
            for option in ["label", "namespace", "ttl"] {
                assert!(error.contains(option), "{scheme}: no {option}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn options_are_never_ignored() {
    for (url, expected) in [
        (
            "memory://?tll=10s",
            "option tll: memory:// has no such option; allowed are hand_over, keep, label, \
             namespace, share, ttl",
        ),
        ("memory://?ttl=10s&ttl=5s", "option ttl: it is given twice"),
        ("memory://?ttl=ten", "such as 500ms, 10s or 2m"),
        ("memory://?ttl=1ms", "from 20ms to 24h"),
        ("memory://?share=maybe", "true or false"),
        ("memory://?keep=200", "such as 500ms, 10s or 2m"),
        ("memory://?keep=2s", "a claim is kept for 1s at most"),
        ("memory://?namespace=a/b", "option namespace"),
        ("memory://user:pw@jobs", "no use for a user or a password"),
        ("memory://jobs:80", "no use for a port"),
        ("memory://jobs/path", "no use for a path"),
        ("memory", "no scheme"),
    ] {
        let error = error(url).await;
        assert!(error.contains(expected), "{url}: {error}");
        assert!(!error.contains("pw"), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_named_memory_store_is_shared_and_an_unnamed_one_is_not() {
    let first = dlock::connect("memory://shared-1").await.unwrap();
    let second = dlock::connect("memory://shared-1").await.unwrap();
    let elsewhere = dlock::connect("memory://shared-1?namespace=other")
        .await
        .unwrap();
    let alone = dlock::connect("memory://").await.unwrap();
    let _guard = first.lock("a").await.unwrap();
    assert!(second.lock("a").try_now().await.unwrap().is_none());
    assert!(elsewhere.lock("a").try_now().await.unwrap().is_some());
    assert!(alone.lock("a").try_now().await.unwrap().is_some());
}
