//! Servers in containers, on ports of this machine alone.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt, TestcontainersError};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use crate::{Context, Failure, Verdict};

/// What to start, and how.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// What errors call it.
    pub(super) name: String,
    pub(super) image: &'static str,
    pub(super) tag: String,
    pub(super) command: Vec<String>,
    /// A file to put into the container before it starts: its path there, and what it holds.
    pub(super) file: Option<(&'static str, &'static str)>,
    /// What it prints when clients may come.
    pub(super) ready: &'static str,
    /// Those inside of the container that are reached from this machine.
    pub(super) ports: Vec<u16>,
    /// The network of containers that it belongs to, and its name there.
    pub(super) network: Option<(String, String)>,
}

/// A server in a container, started when the first case needs it. Its ports on this machine stay the
/// same, whatever becomes of the container.
#[derive(Clone, Debug)]
pub(super) struct Server {
    recipe: Arc<Recipe>,
    container: Arc<Mutex<Option<Container>>>,
    /// On this machine, in the order of the recipe's; once it runs.
    ports: Arc<OnceLock<Vec<u16>>>,
}

type Container = ContainerAsync<GenericImage>;

impl Server {
    pub(super) fn new(recipe: Recipe) -> Self {
        Self {
            recipe: Arc::new(recipe),
            container: Arc::default(),
            ports: Arc::default(),
        }
    }

    /// Starts it if it has not been started.
    pub(super) async fn start(&self) -> Verdict {
        let mut container = self.container.lock().await;
        if container.is_some() {
            return Ok(());
        }
        // Between choosing a port and using it somebody else may take it.
        let mut tries = 3;
        let (started, ports) = loop {
            let ports = match self.ports.get() {
                Some(ports) => ports.clone(),
                None => free_ports(self.recipe.ports.len())?,
            };
            tries -= 1;
            let recipe = Arc::clone(&self.recipe);
            let chosen = ports.clone();
            match in_background(async move { create(&recipe, &chosen).await }).await? {
                Ok(started) => break (started, ports),
                Err(_) if tries > 0 => {}
                failed => {
                    failed.because(format!("starting {}", self.recipe.name))?;
                }
            }
        };
        *container = Some(started);
        self.ports.get_or_init(|| ports);
        Ok(())
    }

    /// Where one of the recipe's ports is reached.
    pub(super) fn address(&self, port: u16) -> Verdict<String> {
        let place = self.recipe.ports.iter().position(|known| *known == port);
        let ports = self.ports.get().zip(place);
        let (ports, place) =
            ports.ok_or_else(|| Failure::new(format!("{} is not running", self.recipe.name)))?;
        Ok(format!("127.0.0.1:{}", ports[place]))
    }

    /// Removes the container.
    pub(super) async fn stop(&self) -> Verdict {
        let Some(container) = self.container.lock().await.take() else {
            return Ok(());
        };
        let stopped = in_background(container.rm()).await?;
        stopped.because(format!("stopping {}", self.recipe.name))
    }
}

/// What can happen to a server.
impl Server {
    /// Loses the container and all that is in it, and starts another one in its place.
    pub(super) async fn replace(&self) -> Verdict {
        self.stop().await?;
        self.start().await
    }

    /// Ends the server where it stands. Its files stay.
    pub(super) async fn kill(&self) -> Verdict {
        let container = self.container.lock().await;
        self.running(&container)?.stop_with_timeout(Some(0)).await?;
        Ok(())
    }

    /// Starts the server again after [`kill`](Self::kill).
    pub(super) async fn revive(&self) -> Verdict {
        let container = self.container.lock().await;
        self.running(&container)?.start().await?;
        Ok(())
    }

    /// Lets the server stand still, or go on.
    pub(super) async fn freeze(&self, frozen: bool) -> Verdict {
        let container = self.container.lock().await;
        let container = self.running(&container)?;
        if frozen {
            container.pause().await?;
        } else {
            container.unpause().await?;
        }
        Ok(())
    }

    /// The container's identity.
    pub(super) async fn id(&self) -> Verdict<String> {
        let container = self.container.lock().await;
        Ok(self.running(&container)?.id().to_owned())
    }

    fn running<'a>(&self, container: &'a Option<Container>) -> Verdict<&'a Container> {
        let missing = || Failure::new(format!("{} is not running", self.recipe.name));
        container.as_ref().ok_or_else(missing)
    }
}

async fn create(recipe: &Recipe, ports: &[u16]) -> Result<Container, TestcontainersError> {
    let image = GenericImage::new(recipe.image, &recipe.tag)
        .with_wait_for(WaitFor::message_on_either_std(recipe.ready));
    let mut request = image
        .with_cmd(recipe.command.clone())
        .with_startup_timeout(Duration::from_secs(60))
        .with_host_config_modifier(|host| {
            let bindings = host
                .port_bindings
                .iter_mut()
                .flat_map(|map| map.values_mut());
            for binding in bindings.flatten().flatten() {
                binding.host_ip = Some("127.0.0.1".to_owned());
            }
        });
    for (inside, outside) in recipe.ports.iter().zip(ports) {
        request = request.with_mapped_port(*outside, inside.tcp());
    }
    if let Some((path, text)) = recipe.file {
        request = request.with_copy_to(path, text.as_bytes().to_vec());
    }
    if let Some((network, host)) = &recipe.network {
        request = request.with_network(network).with_container_name(host);
    }
    request.start().await
}

fn free_ports(count: usize) -> Verdict<Vec<u16>> {
    // All at once, so that they differ.
    let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners: Vec<TcpListener> = listeners.collect::<Result<_, _>>()?;
    let ports = listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()));
    ports.collect()
}

/// Cases come and go with their runtimes; what belongs to a container stays in this one.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Verdict<T> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().ok()
    });
    let runtime = runtime.as_ref().ok_or_else(|| Failure::new("no runtime"))?;
    runtime.spawn(work).await.because("work on a container")
}
