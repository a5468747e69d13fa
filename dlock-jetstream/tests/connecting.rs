//! Every way in which connecting fails says what to do, and every way to log in works.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dlock_core::{Backend, Error, Mode, StoreErrorKind, Wait};
use dlock_jetstream::JetStream;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use support::{Client, LONG, Server, connect, is_granted};

const JETSTREAM: &str = "jetstream { store_dir: /data }\n";

/// The error's text, which holds no secret.
fn text(result: Result<JetStream, Error>) -> String {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(
        !format!("{error:?} {text}").contains("hunter2"),
        "{error:?}"
    );
    text
}

#[track_caller]
fn assert_says(result: Result<JetStream, Error>, expected: &[&str]) {
    let text = text(result);
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// A file that goes with this value.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let name = format!(
            "dlock-jetstream-{}-{}",
            std::process::id(),
            fastrand::u64(..)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A lock is taken, so the login is good for all that is needed.
async fn assert_works(backend: &JetStream) {
    assert!(!format!("{backend:?}").contains("hunter2"));
    let mut client = Client::open(backend, LONG).await;
    let mut waiter = Client::open(backend, LONG).await;
    let claim = client.claim("n", Mode::Exclusive);
    let granted = client
        .session()
        .request(&claim, Wait::InTurn)
        .await
        .unwrap();
    assert!(is_granted(granted));
    let waits = waiter.claim("n", Mode::Exclusive);
    waiter
        .session()
        .request(&waits, Wait::InTurn)
        .await
        .unwrap();
    client.push().await;
    client.session().close().await.unwrap();
    waiter.push().await;
    backend.names().await.unwrap();
    waiter.session().close().await.unwrap();
}

#[tokio::test]
async fn no_server_or_one_that_says_nothing() {
    assert_says(
        connect("nats://127.0.0.1:1").await,
        &["cannot connect to 127.0.0.1:1", "refused"],
    );
    assert_says(
        connect("nats://no.such.host.invalid").await,
        &["cannot connect to no.such.host.invalid:4222"],
    );
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    let url = format!("nats://hunter2@127.0.0.1:{port}?connect_timeout=300ms");
    assert_says(connect(&url).await, &["timed out"]);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_server_without_jetstream() {
    let server = Server::start_with(&[], &[]).await;
    assert_says(
        server.connect("").await,
        &["JetStream is not enabled", "-js"],
    );
}

#[tokio::test]
async fn users_and_their_permissions() {
    let config = format!(
        "{JETSTREAM} authorization {{ users = [
            {{ user: all, password: hunter2 }}
            {{ user: enough, password: hunter2, permissions: {{
                publish: [\"$KV.dlock-default.>\", \"$JS.API.>\", \"dlock.>\"]
                subscribe: [\"_INBOX.>\", \"dlock.>\"] }} }}
            {{ user: no-locks, password: hunter2, permissions: {{
                publish: [\"$KV.*.format\", \"$KV.*.sessions.>\", \"$JS.API.>\", \"dlock.>\"]
                subscribe: [\"_INBOX.>\", \"dlock.>\"] }} }}
            {{ user: no-api, password: hunter2, permissions: {{ publish: [\"$KV.>\"] }} }}
            {{ user: no-answers, password: hunter2, permissions: {{ subscribe: [\"dlock.>\"] }} }}
        ] }}"
    );
    let server = Server::configured(&config, &[]).await;
    let with = async |login: &str| server.connect_as("nats", login, "").await;
    assert_says(with("").await, &["refused a client without a login"]);
    assert_says(
        with("all:wrong@").await,
        &["refused the user or the password"],
    );
    assert_says(
        with("nobody:hunter2@").await,
        &["refused the user or the password"],
    );
    assert_says(with("hunter2@").await, &["refused the token"]);
    assert_works(&with("all:hunter2@").await.unwrap()).await;
    // What the error says is enough.
    assert_works(&with("enough:hunter2@").await.unwrap()).await;
    let lacks = ["lacks a permission", "$JS.API.>"];
    assert_says(with("no-api:hunter2@").await, &lacks);
    assert_says(
        with("no-answers:hunter2@").await,
        &["lacks a permission", "_INBOX"],
    );
    let backend = with("no-locks:hunter2@").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let claim = client.claim("n", Mode::Exclusive);
    let fault = client
        .session()
        .request(&claim, Wait::InTurn)
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Refused);
    assert!(fault.to_string().contains("locks.n"), "{fault}");
}

#[tokio::test]
async fn a_token() {
    let config = format!("{JETSTREAM} authorization {{ token: hunter2 }}");
    let server = Server::configured(&config, &[]).await;
    assert_works(&server.connect_as("nats", "hunter2@", "").await.unwrap()).await;
    let wrong = server.connect_as("nats", "hunter3@", "").await;
    assert_says(wrong, &["refused the token"]);
}

/// The pair of keys is that of the NATS documentation.
#[tokio::test]
async fn an_nkey() {
    const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let config = format!("{JETSTREAM} authorization {{ users = [ {{ nkey: {PUBLIC} }} ] }}");
    let server = Server::configured(&config, &[]).await;
    let seed = File::new(&format!("{SEED}\n"));
    let backend = server.connect(&format!("?nkey={}", seed.path())).await;
    assert_works(&backend.unwrap()).await;
    let bad = File::new("hunter2");
    assert_says(
        server.connect(&format!("?nkey={}", bad.path())).await,
        &["cannot sign", "nkey"],
    );
    assert_says(
        server.connect("?nkey=/nowhere/seed").await,
        &["option nkey", "/nowhere/seed"],
    );
    assert_says(
        server.connect(&format!("?creds={}", bad.path())).await,
        &["option creds", "no credentials"],
    );
    assert_says(
        server.connect("?creds=/nowhere/creds").await,
        &["option creds", "/nowhere/creds"],
    );
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "an authority");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            params.signed_by(&key, &ca).unwrap().pem(),
            key.serialize_pem(),
        )
    };
    let (server_pem, server_key) = issue("127.0.0.1");
    let (client_pem, client_key) = issue("client");
    let ca_file = File::new(&ca.pem());
    let (cert, key) = (File::new(&client_pem), File::new(&client_key));
    let config = format!(
        "{JETSTREAM} tls {{ cert_file: /s.pem, key_file: /s.key, ca_file: /ca.pem, verify: true }}"
    );
    let authority = ca.pem();
    let files = [
        ("/s.pem", &server_pem),
        ("/s.key", &server_key),
        ("/ca.pem", &authority),
    ];
    let server = Server::configured(&config, &files).await;
    let with = async |scheme: &str, rest: &str| server.connect_as(scheme, "", rest).await;
    let all = format!(
        "?ca={}&cert={}&key={}",
        ca_file.path(),
        cert.path(),
        key.path()
    );
    assert_works(&with("tls", &all).await.unwrap()).await;
    assert_says(with("nats", "").await, &["asks for TLS", "tls://"]);
    assert_says(with("tls", "").await, &["certificate", "check ca"]);
    assert_says(
        with("tls", "?ca=/nowhere/ca.pem").await,
        &["option ca", "/nowhere/ca.pem"],
    );
    let bad = File::new("hunter2");
    assert_says(
        with("tls", &format!("?ca={}", bad.path())).await,
        &["option ca", "no certificate"],
    );
    let nameless = with("tls", &format!("?ca={}", ca_file.path())).await;
    assert_says(nameless, &["certificate"]);
    let plain = Server::start().await;
    assert_says(
        plain
            .connect_as("tls", "", &format!("?ca={}", ca_file.path()))
            .await,
        &["does not speak TLS", "nats://"],
    );
}
