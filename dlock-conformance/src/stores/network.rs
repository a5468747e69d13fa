//! A network of containers, which can be taken off it and put back with the address that they had:
//! connections that stood before go on then, as after a cut in a real network.

use testcontainers::bollard::Docker;
use testcontainers::bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest,
    NetworkCreateRequest, NetworkDisconnectRequest,
};
use testcontainers::bollard::query_parameters::InspectContainerOptions;
use testcontainers::core::client::docker_client_instance;

use super::container::in_background;
use crate::{Context, Verdict};

/// The network that containers are on if nobody says anything else. By it their ports on this machine
/// are reached.
pub(super) const BRIDGE: &str = "bridge";

/// Asks the engine for something.
async fn engine<T: Send + 'static, F>(ask: impl FnOnce(Docker) -> F + Send + 'static) -> Verdict<T>
where
    F: Future<Output = Verdict<T>> + Send,
{
    let asked = in_background(async move {
        let docker = docker_client_instance().await.because("the engine")?;
        ask(docker).await
    });
    asked.await?
}

/// Makes a network. Addresses can be asked for only where the network's range was.
pub(super) async fn create(name: &str) -> Verdict {
    let name = name.to_owned();
    engine(|docker| async move {
        // Another network may have the range.
        let mut tries = 5;
        loop {
            let range = format!("10.{}.{}.0/28", fastrand::u8(64..=250), fastrand::u8(..));
            let config = IpamConfig {
                subnet: Some(range),
                ..IpamConfig::default()
            };
            let request = NetworkCreateRequest {
                name: name.clone(),
                ipam: Some(Ipam {
                    config: Some(vec![config]),
                    ..Ipam::default()
                }),
                ..NetworkCreateRequest::default()
            };
            tries -= 1;
            match docker.create_network(request).await {
                Err(_) if tries > 0 => {}
                made => {
                    made.because(format!("making the network {name}"))?;
                    return Ok(());
                }
            }
        }
    })
    .await
}

pub(super) async fn remove(name: &str) -> Verdict {
    let name = name.to_owned();
    engine(|docker| async move {
        let removed = docker.remove_network(&name).await;
        removed.because(format!("removing the network {name}"))
    })
    .await
}

/// The container's address there.
pub(super) async fn address(network: &str, container: String) -> Verdict<Option<String>> {
    let network = network.to_owned();
    engine(|docker| async move {
        let inspected = docker.inspect_container(&container, None::<InspectContainerOptions>);
        let networks = inspected
            .await
            .because("looking at a container")?
            .network_settings
            .and_then(|settings| settings.networks)
            .unwrap_or_default();
        let place = networks.get(&network);
        Ok(place.and_then(|place| place.ip_address.clone()))
    })
    .await
}

/// Puts the container on the network, at this address if one is given.
pub(super) async fn connect(network: &str, container: String, address: Option<String>) -> Verdict {
    let network = network.to_owned();
    let place = address.map(|address| EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(address),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    });
    engine(|docker| async move {
        let request = NetworkConnectRequest {
            container,
            endpoint_config: place,
        };
        let connected = docker.connect_network(&network, request).await;
        connected.because(format!("connecting to the network {network}"))
    })
    .await
}

pub(super) async fn disconnect(network: &str, container: String) -> Verdict {
    let network = network.to_owned();
    engine(|docker| async move {
        let request = NetworkDisconnectRequest {
            container,
            force: Some(true),
        };
        let cut = docker.disconnect_network(&network, request).await;
        cut.because(format!("disconnecting from the network {network}"))
    })
    .await
}
