//! Stores in containers, by the engine's own command: whoever only wants to run an example of this
//! package should not have to build a client for container engines.
// Each test uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// One server, or several that are one store. Ends with the test.
pub(crate) struct Store {
    containers: Vec<String>,
    network: Option<String>,
    ports: Vec<u16>,
    url: fn(hosts: &str) -> String,
}

impl Store {
    pub(crate) async fn redis() -> Self {
        let url = |hosts: &str| format!("redis://{hosts}?ttl=1s");
        let mut store = Self::none(url);
        store.run("redis:8.0", 6379, &[], &[]);
        store.ready().await
    }

    pub(crate) async fn etcd() -> Self {
        Self::etcds(1).await
    }

    pub(crate) async fn etcd_cluster() -> Self {
        Self::etcds(3).await
    }

    async fn etcds(count: usize) -> Self {
        let url = |hosts: &str| format!("etcd://{hosts}?ttl=2s");
        let mut store = Self::none(url);
        let network = store.network();
        let host = |number: usize| format!("{network}-{number}");
        let peers: Vec<String> = (0..count)
            .map(|number| format!("{0}=http://{0}:2380", host(number)))
            .collect();
        for number in 0..count {
            let host = host(number);
            let options = [
                "etcd".to_owned(),
                format!("--name={host}"),
                "--data-dir=/data/etcd".to_owned(),
                "--listen-client-urls=http://0.0.0.0:2379".to_owned(),
                format!("--advertise-client-urls=http://{host}:2379"),
                "--listen-peer-urls=http://0.0.0.0:2380".to_owned(),
                format!("--initial-advertise-peer-urls=http://{host}:2380"),
                format!("--initial-cluster={}", peers.join(",")),
            ];
            let place = ["--network", &network, "--name", &host];
            store.run("quay.io/coreos/etcd:v3.5.30", 2379, &place, &options);
        }
        store.ready().await
    }

    pub(crate) async fn jetstream() -> Self {
        let url = |hosts: &str| format!("nats://{hosts}?ttl=2s");
        let mut store = Self::none(url);
        let options = ["-js".to_owned(), "--store_dir=/data".to_owned()];
        store.run("nats:2.15", 4222, &[], &options);
        store.ready().await
    }

    pub(crate) async fn jetstream_cluster() -> Self {
        let url = |hosts: &str| format!("nats://{hosts}?ttl=2s&replicas=3");
        let mut store = Self::none(url);
        let network = store.network();
        let host = |number: usize| format!("{network}-{number}");
        let routes: Vec<String> = (0..3)
            .map(|number| format!("nats://{}:6222", host(number)))
            .collect();
        for number in 0..3 {
            let host = host(number);
            let options = [
                "-js".to_owned(),
                "--store_dir=/data".to_owned(),
                format!("--name={host}"),
                "--cluster_name=dlock".to_owned(),
                "--cluster=nats://0.0.0.0:6222".to_owned(),
                format!("--routes={}", routes.join(",")),
                "--no_advertise".to_owned(),
            ];
            let place = ["--network", &network, "--name", &host];
            store.run("nats:2.15", 4222, &place, &options);
        }
        store.ready().await
    }

    fn none(url: fn(&str) -> String) -> Self {
        Self {
            containers: Vec::new(),
            network: None,
            ports: Vec::new(),
            url,
        }
    }

    fn network(&mut self) -> String {
        let name = format!("dlock-{:x}-{}", std::process::id(), free_port());
        docker(&["network", "create", &name]);
        self.network.insert(name).clone()
    }

    /// Starts one server, whose port on this machine stays the same when it is started again.
    fn run(&mut self, image: &str, port: u16, place: &[&str], options: &[String]) {
        let outside = free_port();
        let publish = format!("127.0.0.1:{outside}:{port}");
        let mut args = vec!["run", "--detach", "--publish", &publish];
        args.extend(place);
        args.push(image);
        args.extend(options.iter().map(String::as_str));
        self.containers.push(docker(&args));
        self.ports.push(outside);
    }

    async fn ready(self) -> Self {
        self.serves(&self.url()).await;
        self
    }

    /// Waits until a lock can be had there.
    async fn serves(&self, url: &str) {
        let limit = Instant::now() + Duration::from_secs(60);
        while let Err(error) = works(url).await {
            assert!(Instant::now() < limit, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.ports.iter().map(address).collect();
        (self.url)(&hosts.join(","))
    }

    /// Kills each server in turn, and starts it again: the leader is one of them.
    pub(crate) async fn kill_each_in_turn(&self) {
        for (container, port) in self.containers.iter().zip(&self.ports) {
            docker(&["kill", container]);
            tokio::time::sleep(Duration::from_secs(3)).await;
            docker(&["start", container]);
            // By this server alone, so that the next one is not killed before it is back.
            self.serves(&(self.url)(&address(port))).await;
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for container in &self.containers {
            let args = ["rm", "--force", "--volumes", container];
            let _ = Command::new("docker").args(args).output();
        }
        if let Some(network) = &self.network {
            let _ = Command::new("docker")
                .args(["network", "rm", network])
                .output();
        }
    }
}

async fn works(url: &str) -> Result<(), dlock::Error> {
    let client = dlock::connect(url).await?;
    client.lock("is-it-there").await?.release().await
}

fn address(port: &u16) -> String {
    format!("127.0.0.1:{port}")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An example of this package. Cargo builds the examples before it runs the tests, into a folder
/// beside theirs.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder: PathBuf = test.parent().and_then(|deps| deps.parent()).unwrap().into();
    let program = folder.join("examples").join(name);
    assert!(
        program.exists(),
        "the example is built by `cargo test`, and not by `cargo test --test …`"
    );
    Command::new(program)
}
