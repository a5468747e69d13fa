//! Every way in which connecting fails says what to do.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use dlock_core::{Backend, Error, Mode, StoreErrorKind, Wait};
use dlock_redis::{Redis, RedisOptions, Topology};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use support::{Client, IMAGES, Server, connect, is_granted};

const LONG: Duration = Duration::from_secs(600);

/// The error's text, which holds no password.
fn text(result: Result<Redis, Error>) -> String {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(
        !format!("{error:?} {text}").contains("hunter2"),
        "{error:?}"
    );
    text
}

#[track_caller]
fn assert_says(result: Result<Redis, Error>, expected: &[&str]) {
    let text = text(result);
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[tokio::test]
async fn no_server_or_one_that_says_nothing() {
    assert_says(
        connect("redis://127.0.0.1:1").await,
        &["cannot connect to 127.0.0.1:1", "refused"],
    );
    assert_says(
        connect("redis://no.such.host.invalid").await,
        &["cannot connect to no.such.host.invalid:6379"],
    );
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    assert_says(
        connect(&format!(
            "redis://:hunter2@127.0.0.1:{port}?connect_timeout=300ms"
        ))
        .await,
        &["no answer within 300ms"],
    );
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn users_and_passwords() {
    for image in IMAGES {
        let server = Server::start(image, &["--requirepass", "hunter2"]).await;
        let with = async |login: &str| server.connect_as("redis", login, "").await;
        assert_says(with("").await, &["password", "NOAUTH"]);
        assert_says(with(":wrong@").await, &["refused the user or the password"]);
        assert_says(
            with("nobody:hunter2@").await,
            &["refused the user or the password"],
        );
        let backend = with(":hunter2@").await.unwrap();
        assert!(!format!("{backend:?}").contains("hunter2"));
        with("default:hunter2@").await.unwrap();
        assert_says(server.connect_as("redis", "", "/1").await, &["password"]);

        let cli = if image.0 == "redis" {
            "redis-cli"
        } else {
            "valkey-cli"
        };
        let user = async |name: &str, rules: &[&str]| {
            let mut command = vec![
                cli, "-a", "hunter2", "ACL", "SETUSER", name, "on", ">hunter2",
            ];
            command.extend_from_slice(rules);
            server.exec(&command).await;
            with(&format!("{name}:hunter2@")).await
        };
        let lacks = ["lacks a permission", "NOPERM"];
        assert_says(
            user("no-info", &["~dlock:*", "&dlock:*", "+@all", "-info"]).await,
            &lacks,
        );
        assert_says(
            user("no-keys", &["~other:*", "&dlock:*", "+@all"]).await,
            &lacks,
        );
        // What the error says is enough.
        let rules = [
            "~dlock:*",
            "&dlock:*",
            "-@all",
            "+@scripting",
            "+@sortedset",
            "+@string",
            "+@pubsub",
            "+@connection",
            "+exists",
            "+info",
            "+time",
        ];
        let backend = user("just-enough", &rules).await.unwrap();
        let mut client = Client::open(&backend, LONG).await;
        let mut waiter = Client::open(&backend, LONG).await;
        for mode in Mode::ALL {
            let claim = client.claim("n", mode);
            client
                .session()
                .request(&claim, Wait::InTurn)
                .await
                .unwrap();
            let claim = waiter.claim("n", mode);
            waiter
                .session()
                .request(&claim, Wait::InTurn)
                .await
                .unwrap();
            waiter.session().status(&claim).await.unwrap();
        }
        backend.names().await.unwrap();
        client.session().close().await.unwrap();
        let backend = user("no-push", &["~dlock:*", "resetchannels", "+@all"])
            .await
            .unwrap();
        let (mailbox, _inbox) = dlock_core::Mailbox::new();
        let terms = dlock_core::SessionTerms {
            id: dlock_core::SessionId::random(),
            ttl: LONG,
            owner: dlock_core::Owner::this_process(),
        };
        let fault = backend.open(&terms, mailbox).await.unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Refused);
        assert!(fault.to_string().contains("channels dlock:*"), "{fault}");
    }
}

#[tokio::test]
async fn servers_that_cannot_keep_locks() {
    for image in IMAGES {
        let replica = Server::start(image, &["--replicaof", "127.0.0.1", "1"]).await;
        assert_says(
            replica.connect("").await,
            &["read-only replica of 127.0.0.1:1", "connect to the master"],
        );
        let evicting = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
        let evicting = Server::start(image, &evicting).await;
        assert_says(
            evicting.connect("").await,
            &["maxmemory-policy allkeys-lru", "noeviction"],
        );
        assert_says(
            evicting.connect("/99").await,
            &["no such database", "'databases'"],
        );
        assert_says(
            evicting.connect("?cluster=true").await,
            &["not a node of a cluster", "leave out cluster=true"],
        );
        let _: String = evicting
            .raw()
            .await
            .run(&["CONFIG", "SET", "maxmemory", "0"])
            .await;
        assert_says(
            evicting.connect("?waitaof=1,0").await,
            &[if image.1 == "7.0" {
                "needs Redis 7.2"
            } else {
                "set appendonly to yes"
            }],
        );
        // Databases are apart.
        let here = evicting.connect("/1").await.unwrap();
        let there = evicting.connect("/2").await.unwrap();
        for backend in [&here, &there] {
            let mut client = Client::open(backend, LONG).await;
            let claim = client.claim("n", Mode::Exclusive);
            assert!(is_granted(
                client.session().request(&claim, Wait::Never).await.unwrap()
            ));
        }
    }
}

#[tokio::test]
async fn clients_of_a_namespace_agree_on_its_layout() {
    let server = Server::redis().await;
    server.connect("?partitions=5").await.unwrap();
    server.connect("").await.unwrap();
    server.connect("?partitions=5").await.unwrap();
    assert_says(
        server.connect("?partitions=6").await,
        &["namespace default has 5, not 6", "another namespace"],
    );
    server
        .connect("?partitions=6&namespace=other")
        .await
        .unwrap();
    let mut raw = server.raw().await;
    let text: String = raw.run(&["GET", "dlock:{default}:format"]).await;
    assert_eq!(text, r#"{"format":2,"partitions":5}"#);
    for (record, expected) in [
        (r#"{"format":1,"partitions":5,"more":1}"#, "format 1"),
        ("something", "did not write"),
        (r#"{"format":2,"partitions":0}"#, "did not write"),
    ] {
        let _: String = raw.run(&["SET", "dlock:{default}:format", record]).await;
        assert_says(server.connect("").await, &[expected, "another namespace"]);
    }
    let _: i64 = raw.run(&["DEL", "dlock:{default}:format"]).await;
    let _: i64 = raw.run(&["LPUSH", "dlock:{default}:format", "x"]).await;
    assert_says(server.connect("").await, &["another namespace"]);
    let cluster = server.options().topology(Topology::Cluster).database(1);
    assert_says(Redis::connect(cluster).await, &["database 0 alone"]);
}

/// Files for a TLS server, made for this test.
struct Certificates {
    ca: String,
    certificate: String,
    key: String,
}

impl Certificates {
    fn new() -> Self {
        let mut ca = CertificateParams::new(vec![]).unwrap();
        // Unlike the server's own name: a certificate issued under its own name counts as self-signed.
        ca.distinguished_name
            .push(DnType::CommonName, "an authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let own = CertificateParams::new(names).unwrap();
        Self {
            certificate: own.signed_by(&key, &ca).unwrap().pem(),
            ca: ca.pem(),
            key: key.serialize_pem(),
        }
    }
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let (files, strangers) = (Certificates::new(), Certificates::new());
    let folder = std::env::temp_dir().join(format!("dlock-redis-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let save = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let ca = save("ca.pem", &files.ca);
    let (certificate, key) = (
        save("cert.pem", &files.certificate),
        save("key.pem", &files.key),
    );
    let strange = save("strange.pem", &strangers.ca);
    let empty = save("empty.pem", "");
    for (image, scheme) in [
        (IMAGES[0], "rediss"),
        (IMAGES[1], "rediss"),
        (IMAGES[2], "valkeys"),
    ] {
        let in_container = [
            ("/tls/ca.pem", &files.ca),
            ("/tls/cert.pem", &files.certificate),
            ("/tls/key.pem", &files.key),
        ];
        let settings = [
            "--port",
            "0",
            "--tls-port",
            "6379",
            "--tls-ca-cert-file",
            "/tls/ca.pem",
            "--tls-cert-file",
            "/tls/cert.pem",
            "--tls-key-file",
            "/tls/key.pem",
            "--tls-auth-clients",
            "yes",
        ];
        let server = Server::start_with(image, &settings, &in_container).await;
        let with = async |options: &str| server.connect_as(scheme, "", options).await;
        let mine = format!("&cert={certificate}&key={key}");
        let backend = with(&format!("?ca={ca}{mine}")).await.unwrap();
        let mut client = Client::open(&backend, LONG).await;
        let claim = client.claim("n", Mode::Exclusive);
        assert!(is_granted(
            client.session().request(&claim, Wait::Never).await.unwrap()
        ));

        let untrusted = ["no TLS connection to 127.0.0.1", "ca=FILE"];
        assert_says(with(&format!("?ca={strange}{mine}")).await, &untrusted);
        let refused = text(with(&format!("?ca={ca}")).await);
        eprintln!("{refused}");
        // The reason may be lost when the server closes the connection behind it.
        let (tls, closed) = ("no TLS connection", "cannot connect to 127.0.0.1");
        assert!(
            refused.contains("cert=FILE") && refused.contains(tls) || refused.contains(closed),
            "{refused}"
        );
        assert_says(
            server.connect("?connect_timeout=2s").await,
            &["use TLS: rediss://"],
        );
        assert_says(
            with("?ca=/no/such/file").await,
            &["option ca: /no/such/file", "PEM"],
        );
        assert_says(
            with(&format!("?ca={empty}")).await,
            &["it holds no certificate"],
        );
        let swapped = format!("?ca={ca}&cert={strange}&key={key}");
        assert_says(with(&swapped).await, &["options cert and key"]);
        let plain = Server::start(image, &[]).await;
        assert_says(
            plain
                .connect_as(scheme, "", &format!("?ca={ca}&connect_timeout=300ms"))
                .await,
            &["no answer within 300ms", "leave out TLS"],
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A certificate for another name is refused.
#[tokio::test]
async fn the_name_in_the_certificate_counts() {
    let files = Certificates::new();
    let in_container = [("/c.pem", &files.certificate), ("/k.pem", &files.key)];
    let settings = [
        "--port",
        "0",
        "--tls-port",
        "6379",
        "--tls-ca-cert-file",
        "/c.pem",
        "--tls-cert-file",
        "/c.pem",
        "--tls-key-file",
        "/k.pem",
        "--tls-auth-clients",
        "no",
    ];
    let server = Server::start_with(IMAGES[0], &settings, &in_container).await;
    let ca = std::env::temp_dir().join(format!("dlock-redis-ca-{}.pem", std::process::id()));
    std::fs::write(&ca, &files.ca).unwrap();
    let tls = || dlock_redis::Tls::new().ca(&ca);
    Redis::connect(server.options().tls(tls())).await.unwrap();
    let elsewhere = RedisOptions::new("127.0.0.2", server.port).tls(tls());
    assert_says(
        Redis::connect(elsewhere).await,
        &["no TLS connection to 127.0.0.2", "name"],
    );
    std::fs::remove_file(&ca).unwrap();
}
