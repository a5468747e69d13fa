//! For backends: a place for a connection that is made in the background.

use std::fmt;
use std::sync::PoisonError;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::StoreError;
use crate::sync::{Mutex, MutexGuard};

/// A place for one connection, or for anything else that takes time to make and that many then share.
///
/// The core gives an attempt up by dropping it. A connection that the attempt was just making would go
/// with it, and on a slow network, where to connect takes longer than an attempt may, there would never
/// be another one. So a task of its own makes it and leaves it here, whether or not anybody still waits.
///
/// No lock is held while anybody waits: a future that is kept without being polled holds up nobody.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// use dlock_core::{SharedConnection, StoreError};
///
/// #[derive(Debug, Default)]
/// struct Wire {
///     broken: AtomicBool,
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let place = SharedConnection::<Arc<Wire>>::new();
/// let usable = |wire: &Arc<Wire>| !wire.broken.load(Ordering::Relaxed);
/// let dial = || async { Ok(Arc::new(Wire::default())) };
/// let first = place.get(usable, dial).await?;
/// assert!(Arc::ptr_eq(&first, &place.get(usable, dial).await?));
/// first.broken.store(true, Ordering::Relaxed);
/// assert!(!Arc::ptr_eq(&first, &place.get(usable, dial).await?));
/// # Ok::<(), StoreError>(()) }).unwrap();
/// ```
pub struct SharedConnection<C> {
    dial: Mutex<Option<Dial<C>>>,
}

/// `None` until the dial has come to an end.
type Made<C> = watch::Receiver<Option<Result<C, StoreError>>>;

/// The last dial: it is under way, or this is what came of it.
struct Dial<C> {
    made: Made<C>,
    _task: Option<Task>,
}

/// Ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What somebody who needs the connection finds.
enum Found<C> {
    Nothing,
    UnderWay(Made<C>),
    Usable(C),
}

impl<C: Clone + Send + Sync + 'static> SharedConnection<C> {
    /// A place without a connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            dial: Mutex::new(None),
        }
    }

    /// A place for a connection that is there already.
    #[must_use]
    pub fn holding(connection: C) -> Self {
        let (_, made) = watch::channel(Some(Ok(connection)));
        Self {
            dial: Mutex::new(Some(Dial { made, _task: None })),
        }
    }

    /// The connection, if it is `usable`; else another one. The first to need it begins to `dial`, in a
    /// task on the current Tokio runtime, and whoever comes meanwhile waits for the same. The dial must
    /// come to an end by itself, in success or by a time-out: nobody else ends it while this place
    /// exists. Neither of the two closures may block, or come back here.
    ///
    /// # Errors
    ///
    /// That of the dial; [`Unavailable`](crate::StoreErrorKind::Unavailable) when it panicked, or when
    /// its runtime was shut down. The failure of a dial that had begun before this call is no answer to
    /// it: then one more is waited for.
    ///
    /// # Cancel safety
    ///
    /// A dial that has begun goes on.
    pub async fn get<F>(
        &self,
        usable: impl Fn(&C) -> bool,
        dial: impl FnOnce() -> F,
    ) -> Result<C, StoreError>
    where
        F: Future<Output = Result<C, StoreError>> + Send + 'static,
    {
        let mut has_joined = false;
        let mut own = loop {
            let mut joined = {
                let mut place = self.place();
                let found = place.as_ref().map(|dial| dial.find(&usable));
                match found.unwrap_or(Found::Nothing) {
                    Found::Usable(connection) => return Ok(connection),
                    Found::UnderWay(made) => made,
                    Found::Nothing => {
                        let begun = Dial::begin(dial());
                        let made = begun.made.clone();
                        *place = Some(begun);
                        break made;
                    }
                }
            };
            match outcome(&mut joined).await {
                Ok(connection) if usable(&connection) => return Ok(connection),
                Ok(_) => {}
                Err(fault) if has_joined => return Err(fault),
                Err(_) => has_joined = true,
            }
        };
        outcome(&mut own).await
    }

    fn place(&self) -> MutexGuard<'_, Option<Dial<C>>> {
        self.dial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clone + Send + Sync + 'static> Dial<C> {
    fn begin(dial: impl Future<Output = Result<C, StoreError>> + Send + 'static) -> Self {
        let (sender, made) = watch::channel(None);
        let task = tokio::spawn(async move {
            let result = dial.await;
            sender.send_replace(Some(result));
        });
        Self {
            made,
            _task: Some(Task(task)),
        }
    }

    fn find(&self, usable: impl Fn(&C) -> bool) -> Found<C> {
        // While this is borrowed, nothing is sent: a task that is gone now has left nothing.
        let result = self.made.borrow();
        match &*result {
            Some(Ok(connection)) if usable(connection) => Found::Usable(connection.clone()),
            None if self.made.has_changed().is_ok() => Found::UnderWay(self.made.clone()),
            _ => Found::Nothing,
        }
    }
}

async fn outcome<C: Clone>(made: &mut Made<C>) -> Result<C, StoreError> {
    let result = made.wait_for(Option::is_some).await;
    let result = result.ok().and_then(|result| result.clone());
    result.unwrap_or_else(|| {
        let fault = "connecting came to no end: it panicked, or its runtime was shut down";
        Err(StoreError::unavailable(fault))
    })
}

impl<C: Clone + Send + Sync + 'static> Default for SharedConnection<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for SharedConnection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedConnection").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
