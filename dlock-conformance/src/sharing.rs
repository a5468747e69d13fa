//! What the clients of a run do with each other's claims: the options that change how much of it the
//! store sees.

use std::sync::OnceLock;
use std::time::Duration;

use clap::ValueEnum;
use dlock_core::ClientBuilder;

/// The environment variable by which the worker processes of a run hear of it.
pub const VARIABLE: &str = "DLOCK_SHARING";

/// How the clients of a run are set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sharing {
    /// As clients are unless told otherwise: claims are passed on and shared, and not kept
    #[default]
    On,
    /// Every request has a claim of its own in the store
    Off,
    /// Claims are passed on, shared, and kept for 200 ms
    Keep,
}

static CHOSEN: OnceLock<Sharing> = OnceLock::new();

impl Sharing {
    /// That of this process: as it was [chosen](Sharing::choose) or inherited.
    ///
    /// # Panics
    ///
    /// When [`VARIABLE`] is none of them: a run with another setup than was asked for proves nothing.
    #[must_use]
    pub fn of_this_process() -> Self {
        *CHOSEN.get_or_init(|| match std::env::var(VARIABLE) {
            Ok(name) => match Sharing::from_str(&name, false) {
                Ok(sharing) => sharing,
                Err(_) => panic!("{VARIABLE}={name}: it is on, off or keep"),
            },
            Err(_) => Sharing::default(),
        })
    }

    /// Chooses for this process and those that it starts, before it connects.
    pub fn choose(self) {
        let chosen = CHOSEN.set(self);
        assert!(
            chosen.is_ok() || Self::of_this_process() == self,
            "clients have been set up otherwise"
        );
    }

    /// Its name, as [`VARIABLE`] has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sharing::On => "on",
            Sharing::Off => "off",
            Sharing::Keep => "keep",
        }
    }

    /// Sets up a client.
    pub fn set_up(self, client: ClientBuilder) -> ClientBuilder {
        match self {
            Sharing::On => client,
            Sharing::Off => client.hand_over(false).share(false),
            Sharing::Keep => client.keep(Duration::from_millis(200)),
        }
    }
}
