//! Every way in which connecting fails says what to do.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use dlock_core::{Backend, Error, Mode, Outcome, Push, StoreErrorKind, Wait};
use dlock_etcd::Etcd;
use etcd_client::{Permission, PermissionType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use support::{Client, LONG, Server, connect, is_granted, is_waiting};

/// The error's text, which holds no password.
fn text(result: Result<Etcd, Error>) -> String {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(
        !format!("{error:?} {text}").contains("hunter2"),
        "{error:?}"
    );
    text
}

#[track_caller]
fn assert_says(result: Result<Etcd, Error>, expected: &[&str]) {
    let text = text(result);
    eprintln!("{text}");
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[tokio::test]
async fn no_server_or_one_that_says_nothing() {
    assert_says(
        connect("etcd://127.0.0.1:1").await,
        &[
            "cannot connect to 127.0.0.1:1",
            "refused",
            "check the address",
        ],
    );
    assert_says(
        connect("etcd://u:hunter2@127.0.0.1:1").await,
        &["cannot connect to 127.0.0.1:1", "refused"],
    );
    assert_says(
        connect("etcd://no.such.host.invalid").await,
        &[
            "cannot connect to no.such.host.invalid:2379",
            "check the address",
        ],
    );
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    let url = format!("etcd://u:hunter2@127.0.0.1:{port}?connect_timeout=300ms");
    assert_says(connect(&url).await, &["no answer within 300ms"]);
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// Of several members, one that is down or frozen costs a moment.
#[tokio::test]
async fn one_member_that_serves_is_enough() {
    let server = Server::start().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let start = Instant::now();
    let url = format!("etcd://127.0.0.1:1,{silent},127.0.0.1:{}/jobs", server.port);
    let backend = connect(&url).await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let claim = client.claim("n", Mode::Exclusive);
    let request = client.session().request(&claim, Wait::Never);
    assert!(is_granted(request.await.unwrap()));
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn users_and_passwords() {
    let server = Server::start_with("http", &["--auth-token-ttl=1"], &[]).await;
    let with =
        async |login: &str| connect(&format!("etcd://{login}127.0.0.1:{}", server.port)).await;
    assert_says(
        with("u:hunter2@").await,
        &["knows no users", "leave out the user"],
    );
    let mut raw = server.raw().await;
    let user = async |raw: &mut etcd_client::Client, user: &str, role: &str, prefix: &str| {
        raw.user_add(user, "hunter2", None).await.unwrap();
        raw.role_add(role).await.unwrap();
        let all = Permission::new(PermissionType::Readwrite, prefix).with_prefix();
        raw.role_grant_permission(role, all).await.unwrap();
        raw.user_grant_role(user, role).await.unwrap();
    };
    user(&mut raw, "just-enough", "locks", "dlock/").await;
    user(&mut raw, "elsewhere", "others", "other/").await;
    raw.user_add("root", "hunter2", None).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.auth_enable().await.unwrap();

    assert_says(with("").await, &["give one (etcd://user:password@host)"]);
    let refused = ["refused the user or the password", "check both"];
    assert_says(with("just-enough:wrong@").await, &refused);
    assert_says(with("nobody:hunter2@").await, &refused);
    assert_says(
        with("elsewhere:hunter2@").await,
        &["lacks a permission", "prefix dlock/"],
    );
    with("root:hunter2@").await.unwrap();
    // What the error says is enough.
    let backend = with("just-enough:hunter2@").await.unwrap();
    assert!(!format!("{backend:?}").contains("hunter2"));
    let mut client = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    for mode in Mode::ALL {
        let held = client.claim(mode.code(), mode);
        let request = client.session().request(&held, Wait::InTurn);
        assert!(is_granted(request.await.unwrap()));
    }
    backend.names().await.unwrap();
    // Logins expire, here after a second without use: nobody notices.
    let held = client.claim("n", Mode::Exclusive);
    client.session().request(&held, Wait::InTurn).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let wanted = waiter.claim("n", Mode::Exclusive);
    let request = waiter.session().request(&wanted, Wait::InTurn);
    assert!(is_waiting(request.await.unwrap()));
    client.session().renew().await.unwrap();
    client.session().close().await.unwrap();
    let start = Instant::now();
    match waiter.push().await {
        Push::Granted(claim, _) => assert_eq!(claim, wanted.id),
        other => panic!("{other:?}"),
    }
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    waiter.session().close().await.unwrap();
}

#[tokio::test]
async fn clients_of_a_namespace_agree_on_its_layout() {
    let server = Server::start().await;
    let backend = server.connect("/jobs").await.unwrap();
    server.connect("/jobs").await.unwrap();
    let mut raw = server.raw().await;
    let found = raw.get("dlock/jobs/format", None).await.unwrap();
    assert_eq!(found.kvs()[0].value_str().unwrap(), r#"{"version":1}"#);
    for (record, expected) in [
        (r#"{"version":2,"more":1}"#, "format 2"),
        ("something", "did not write"),
    ] {
        raw.put("dlock/jobs/format", record, None).await.unwrap();
        assert_says(
            server.connect("/jobs").await,
            &[expected, "another namespace"],
        );
    }
    // Nor is a session opened there by a client that connected before.
    let (mailbox, _inbox) = dlock_core::Mailbox::new();
    let terms = dlock_core::SessionTerms {
        id: dlock_core::SessionId::random(),
        ttl: LONG,
        owner: dlock_core::Owner::this_process(),
    };
    let fault = backend.open(&terms, mailbox).await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Refused);
    // Namespaces are apart.
    for namespace in ["/one", "/two"] {
        let backend = server.connect(namespace).await.unwrap();
        let mut client = Client::open(&backend, LONG).await;
        let claim = client.claim("n", Mode::Exclusive);
        let request = client.session().request(&claim, Wait::Never);
        assert!(is_granted(request.await.unwrap()));
        assert_eq!(backend.names().await.unwrap().len(), 1);
    }
}

/// ATOM-B: a server that is out of space takes no new sessions, and frees the locks that are held.
#[tokio::test]
async fn a_server_that_is_out_of_space() {
    let server = Server::start_with("http", &["--quota-backend-bytes=500000"], &[]).await;
    let backend = server.connect("").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let held = client.claim("n", Mode::Exclusive);
    let request = client.session().request(&held, Wait::Never);
    assert!(is_granted(request.await.unwrap()));
    let mut raw = server.raw().await;
    while raw
        .put("elsewhere", "x".repeat(100_000), None)
        .await
        .is_ok()
    {}
    let (mailbox, _inbox) = dlock_core::Mailbox::new();
    let terms = dlock_core::SessionTerms {
        id: dlock_core::SessionId::random(),
        ttl: LONG,
        owner: dlock_core::Owner::this_process(),
    };
    let fault = backend.open(&terms, mailbox).await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Unconfirmed);
    assert!(fault.to_string().contains("out of space"), "{fault}");
    client.session().renew().await.unwrap();
    let session = client.session();
    let marked = session
        .withdraw(&held, dlock_core::Attempts::Unanswered)
        .await;
    assert!(marked.is_err(), "the mark cannot be written");
    assert!(backend.inspect(&held.name).await.unwrap().is_free());
    let outcome = session.status(&held).await.unwrap();
    assert_eq!(outcome, Outcome::Absent);
    session.close().await.unwrap();
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
        let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
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
    let folder = std::env::temp_dir().join(format!("dlock-etcd-{}", std::process::id()));
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
    let in_container = [
        ("/tls/ca.pem", &files.ca),
        ("/tls/cert.pem", &files.certificate),
        ("/tls/key.pem", &files.key),
    ];
    let settings = [
        "--trusted-ca-file=/tls/ca.pem",
        "--cert-file=/tls/cert.pem",
        "--key-file=/tls/key.pem",
        "--client-cert-auth",
    ];
    let server = Server::start_with("https", &settings, &in_container).await;
    let at = |host: &str, options: &str| format!("etcds://{host}:{}{options}", server.port);
    let with = async |options: &str| connect(&at("localhost", options)).await;
    let mine = format!("&cert={certificate}&key={key}");
    let backend = with(&format!("?ca={ca}{mine}")).await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let claim = client.claim("n", Mode::Exclusive);
    let request = client.session().request(&claim, Wait::Never);
    assert!(is_granted(request.await.unwrap()));
    let fails = "cannot connect to localhost";
    assert_says(
        with(&format!("?ca={strange}{mine}")).await,
        &[fails, "(ca=)"],
    );
    assert_says(with(&mine.replacen('&', "?", 1)).await, &[fails, "(ca=)"]);
    assert_says(with(&format!("?ca={ca}")).await, &[fails, "cert="]);
    let elsewhere = connect(&at("127.0.0.1", &format!("?ca={ca}{mine}"))).await;
    assert_says(elsewhere, &["cannot connect to 127.0.0.1", "name"]);
    let plain = format!("etcd://localhost:{}?connect_timeout=2s", server.port);
    assert_says(connect(&plain).await, &[fails, "write etcds://"]);
    assert_says(
        with("?ca=/no/such/file").await,
        &["option ca: /no/such/file", "PEM"],
    );
    assert_says(
        with(&format!("?ca={empty}")).await,
        &["option ca", "there is no CERTIFICATE in it"],
    );
    let swapped = format!("?ca={ca}&cert={key}&key={certificate}");
    assert_says(with(&swapped).await, &["option cert"]);
    let plain = Server::start().await;
    let url = format!("etcds://localhost:{}?ca={ca}", plain.port);
    assert_says(connect(&url).await, &[fails, "write etcd://"]);
    std::fs::remove_dir_all(&folder).unwrap();
}
