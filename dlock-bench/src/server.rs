//! Starts a store in a container.
//!
//! On the host's network, because a proxy between client and server would be measured with them, and on
//! processors of its own, because otherwise they take them from each other as they please.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use testcontainers::core::WaitFor;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use crate::fault::{Context, Verdict};
use crate::machine::Split;
use crate::store::{Place, Store};

/// A server in a container.
pub(crate) struct Server {
    pub(crate) place: Place,
    container: ContainerAsync<GenericImage>,
}

/// When the store has a write safe on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// As the store does it unless told otherwise; Redis does not at all.
    Usual,
    /// Redis: before it answers (`appendfsync always`).
    Always,
}

struct Recipe {
    image: &'static str,
    tag: &'static str,
    ready: &'static str,
    command: String,
}

impl Server {
    /// Starts it on free ports.
    pub(crate) async fn start(store: Store, disk: Disk, split: Option<&Split>) -> Verdict<Self> {
        let [port, other] = free_ports().doing("finding free ports")?;
        let recipe = recipe(store, disk, port, other);
        let cpus = split.map(|split| split.server.clone());
        let image = GenericImage::new(recipe.image, recipe.tag)
            .with_wait_for(WaitFor::message_on_either_std(recipe.ready));
        let words = recipe.command.split(' ').map(|word| match word {
            "''" => String::new(),
            word => word.to_owned(),
        });
        let container = image
            .with_cmd(words)
            .with_network("host")
            .with_startup_timeout(Duration::from_secs(60))
            .with_host_config_modifier(move |host| host.cpuset_cpus.clone_from(&cpus))
            .start()
            .await
            .doing(format!("starting {}:{}", recipe.image, recipe.tag))?;
        let monitor = (store == Store::Jetstream).then_some(other);
        Ok(Self {
            place: Place::local(store, port, monitor),
            container,
        })
    }

    /// Removes the container.
    pub(crate) async fn stop(self) -> Verdict {
        self.container.rm().await.doing("removing the container")
    }
}

/// What is started for this store: an image and its tag.
pub(crate) fn image(store: Store) -> String {
    let Recipe { image, tag, .. } = recipe(store, Disk::Usual, 0, 0);
    format!("{image}:{tag}")
}

/// The versions are those that the conformance suite runs against.
fn recipe(store: Store, disk: Disk, port: u16, other: u16) -> Recipe {
    let log = match disk {
        Disk::Usual => "--appendonly no",
        Disk::Always => "--appendonly yes --appendfsync always",
    };
    let redis = format!("--port {port} --bind 127.0.0.1 --save '' --maxclients 20000 {log}");
    let redis = |image, tag, command: &str| Recipe {
        image,
        tag,
        ready: "Ready to accept connections",
        command: format!("{command} {redis}"),
    };
    match store {
        Store::Valkey => redis("valkey/valkey", "9.1", "valkey-server"),
        Store::Redis | Store::Memory => redis("redis", "8.0", "redis-server"),
        Store::Etcd => Recipe {
            image: "quay.io/coreos/etcd",
            tag: "v3.5.30",
            ready: "ready to serve client requests",
            command: format!(
                "etcd --data-dir=/data/etcd --listen-client-urls=http://127.0.0.1:{port} \
                 --advertise-client-urls=http://127.0.0.1:{port} \
                 --listen-peer-urls=http://127.0.0.1:{other}"
            ),
        },
        Store::Jetstream => Recipe {
            image: "nats",
            tag: "2.15",
            ready: "Server is ready",
            command: format!(
                "-js --store_dir=/data --addr=127.0.0.1 --port={port} --http_port={other}"
            ),
        },
    }
}

fn free_ports() -> std::io::Result<[u16; 2]> {
    // Both at once, so that they differ.
    let listeners = [
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
    ];
    let [first, second] = &listeners;
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}
