//! One history on a store: each step is done, and everything that the store says is compared with the
//! model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dlock_conformance::scene::{LIMIT, within};
use dlock_conformance::target::Link;
use dlock_conformance::{Context, Failure, Verdict, ensure};
use dlock_core::{
    Attempts, Claim, ClaimId, ClaimSnapshot, FencingToken, Inbox, LockName, Mailbox, Mode, Outcome,
    Push, Session, SessionId, SessionTerms, Wait,
};
use futures_util::FutureExt;

use crate::model::{CLIENTS, LOCKS, Model, Step, beside, client_name, owner};

/// No lease runs out during a history.
const TTL: Duration = Duration::from_secs(600);

/// A store, and a way to it for each client.
pub(crate) struct Stage {
    pub(crate) links: Vec<Link>,
    /// Whether its clients watch for the claims ahead of theirs instead of being sent for. Then who leaves
    /// or asks before the watch fires is not told, a hint may come for a claim that is gone, and nobody
    /// says that somebody waits, or when to look.
    pub(crate) watched: bool,
}

/// One history on the store.
pub(crate) struct Run<'a> {
    stage: &'a Stage,
    /// At the beginning of every lock name, so that histories do not meet.
    prefix: String,
    /// To which the numbers of sessions are added.
    salt: u128,
    clients: Vec<Client>,
    tokens: BTreeMap<u64, FencingToken>,
    /// For each lock and mode, the greatest token so far.
    newest: [[u64; 6]; LOCKS],
    told: BTreeSet<u64>,
    warned: BTreeSet<u64>,
    /// How long a push is waited for.
    patience: Duration,
}

struct Client {
    session: Arc<dyn Session>,
    inbox: Inbox,
}

impl<'a> Run<'a> {
    pub(crate) async fn begin(
        stage: &'a Stage,
        model: &Model,
        patience: Duration,
    ) -> Verdict<Self> {
        let mut run = Self {
            stage,
            prefix: format!("{:012x}", fastrand::u64(..) >> 16),
            salt: fastrand::u128(..) << 32,
            clients: Vec::new(),
            tokens: BTreeMap::new(),
            newest: [[0; 6]; LOCKS],
            told: BTreeSet::new(),
            warned: BTreeSet::new(),
            patience,
        };
        for client in 0..CLIENTS {
            let opened = run.open(client, model.sessions[client]).await?;
            run.clients.push(opened);
        }
        Ok(run)
    }

    fn session_id(&self, session: u64) -> SessionId {
        SessionId::from(self.salt + u128::from(session))
    }

    async fn open(&self, client: usize, session: u64) -> Verdict<Client> {
        let terms = SessionTerms {
            id: self.session_id(session),
            ttl: TTL,
            owner: owner(),
        };
        let (mailbox, inbox) = Mailbox::new();
        let opening = self.stage.links[client].backend.open(&terms, mailbox);
        let opened = within(LIMIT, "opening a session", opening).await?;
        let session = opened.because("opening a session")?.session;
        Ok(Client { session, inbox })
    }

    fn id(&self, model: &Model, number: u64) -> ClaimId {
        let session = self.session_id(model.claims[&number].session);
        ClaimId { session, number }
    }

    fn name(&self, model: &Model, lock: usize) -> Verdict<LockName> {
        let name = format!("{}-{}", self.prefix, model.lock_name(lock));
        LockName::new(name).because("a lock's name")
    }

    fn claim(&self, model: &Model, number: u64) -> Verdict<Claim> {
        let asked = &model.claims[&number];
        Ok(Claim {
            id: self.id(model, number),
            name: self.name(model, asked.lock)?,
            mode: asked.mode,
            owner: owner(),
        })
    }

    fn session_of(&self, model: &Model, number: u64) -> &dyn Session {
        &*self.clients[model.claims[&number].client].session
    }

    /// Does one step, between these two states of the model.
    pub(crate) async fn step(&mut self, before: &Model, step: &Step, after: &Model) -> Verdict {
        match *step {
            Step::Request {
                number, wait, late, ..
            } => {
                if late {
                    self.withdraw(after, number, Attempts::Unanswered).await?;
                }
                self.request(after, number, wait).await?;
            }
            Step::Repeat { number, wait } => self.request(after, number, wait).await?,
            Step::Withdraw { number, attempts } => self.withdraw(after, number, attempts).await?,
            Step::Replace {
                leaving, number, ..
            } => self.replace(after, leaving, number).await?,
            Step::Status { number } => {
                let claim = self.claim(after, number)?;
                let asking = self.session_of(after, number).status(&claim);
                let outcome = within(LIMIT, "status", asking).await?;
                self.check_outcome(after, number, outcome.because("status")?)?;
            }
            Step::Reopen { client } => {
                self.check_pushes(before, client).await?;
                self.close(client).await?;
                self.clients[client] = self.open(client, after.sessions[client]).await?;
            }
        }
        self.check(after).await
    }

    async fn request(&mut self, model: &Model, number: u64, wait: Wait) -> Verdict {
        let claim = self.claim(model, number)?;
        let asking = self.session_of(model, number).request(&claim, wait);
        let outcome = within(LIMIT, "a request", asking).await?;
        self.check_outcome(model, number, outcome.because("a request")?)
    }

    async fn withdraw(&self, model: &Model, number: u64, attempts: Attempts) -> Verdict {
        let claim = self.claim(model, number)?;
        let leaving = self.session_of(model, number).withdraw(&claim, attempts);
        within(LIMIT, "a withdraw", leaving)
            .await?
            .because("a withdraw")
    }

    /// In one operation, where the store can do that.
    async fn replace(&mut self, model: &Model, leaving: u64, number: u64) -> Verdict {
        if !self.session_of(model, number).replaces() {
            self.withdraw(model, leaving, Attempts::Answered).await?;
            return self.request(model, number, Wait::InTurn).await;
        }
        let (old, new) = (self.claim(model, leaving)?, self.claim(model, number)?);
        let asking = self.session_of(model, number).replace(&old, &new);
        let outcome = within(LIMIT, "a replacement", asking).await?;
        self.check_outcome(model, number, outcome.because("a replacement")?)
    }

    async fn close(&self, client: usize) -> Verdict {
        let closing = self.clients[client].session.close();
        within(LIMIT, "closing", closing).await?.because("closing")
    }

    fn check_outcome(&mut self, model: &Model, number: u64, outcome: Outcome) -> Verdict {
        match (model.granted(number), outcome) {
            (None, Outcome::Absent) => {}
            (Some(true), Outcome::Granted { token }) => {
                self.note_token(model, number, token)?;
                // Who asks a store that is watched need not be told.
                if self.stage.watched && model.called.contains(&number) {
                    self.told.insert(number);
                }
            }
            (Some(false), Outcome::Waiting { look_after: None }) if self.stage.watched => {}
            (
                Some(false),
                Outcome::Waiting {
                    look_after: Some(time),
                },
            ) if !self.stage.watched => {
                let sensible = time > Duration::ZERO && time <= TTL + Duration::from_secs(1);
                ensure!(sensible, "claim {number} should look after {time:?}");
            }
            (expected, outcome) => {
                let expected = match expected {
                    None => "absent",
                    Some(true) => "granted",
                    Some(false) => "waiting",
                };
                return Err(Failure::new(format!(
                    "claim {number} is answered {outcome:?}, and should be {expected}"
                )));
            }
        }
        Ok(())
    }

    /// FENCE: a grant has one token, greater than those of all earlier grants that conflict with it.
    fn note_token(&mut self, model: &Model, number: u64, token: FencingToken) -> Verdict {
        if let Some(known) = self.tokens.insert(number, token) {
            ensure!(
                known == token,
                "claim {number}'s token was {known}, and is {token}"
            );
            return Ok(());
        }
        let asked = &model.claims[&number];
        let newest = &mut self.newest[asked.lock];
        for rival in Mode::ALL {
            let earlier = newest[rival.index()];
            ensure!(
                beside(rival, asked.mode) || token.get() > earlier,
                "claim {number}'s token {token} is not above {earlier}, an earlier one's in {rival}"
            );
        }
        let mine = &mut newest[asked.mode.index()];
        *mine = token.get().max(*mine);
        Ok(())
    }

    /// Every lock is as the model has it, for whoever looks.
    async fn check(&mut self, model: &Model) -> Verdict {
        let looker = &self.stage.links[fastrand::usize(..CLIENTS)].backend;
        let mut used = BTreeSet::new();
        for lock in 0..LOCKS {
            let name = self.name(model, lock)?;
            let looking = looker.inspect(&name);
            let found = within(LIMIT, "inspect", looking)
                .await?
                .because("inspect")?;
            let (holders, waiters) = (model.queue(lock, true), model.queue(lock, false));
            if !(holders.is_empty() && waiters.is_empty()) {
                used.insert(name.to_string());
            }
            for (what, expected, found) in [
                ("held by", &holders, &found.holders),
                ("awaited by", &waiters, &found.waiters),
            ] {
                self.compare(model, lock, what, expected, found)?;
            }
            for holder in &found.holders {
                let token = holder.token.ok_or_else(|| {
                    let number = holder.id.number;
                    Failure::new(format!("inspect shows no token of claim {number}"))
                })?;
                self.note_token(model, holder.id.number, token)?;
            }
            for (granted, expected) in [(true, &holders), (false, &waiters)] {
                let entries = model.locks[lock].table.claims();
                let entries = entries.filter(|entry| entry.token.is_some() == granted);
                let table: Vec<ClaimId> = entries.map(|entry| entry.id).collect();
                let expected: Vec<ClaimId> = expected.iter().map(|n| model.id(*n)).collect();
                ensure!(
                    table == expected,
                    "the lock table of {:?} has {table:?}, and should have {expected:?}",
                    model.lock_name(lock)
                );
            }
        }
        let names = self.names().await?;
        ensure!(
            names == used,
            "the names in use are {names:?}, and should be {used:?}"
        );
        Ok(())
    }

    fn compare(
        &self,
        model: &Model,
        lock: usize,
        what: &str,
        expected: &[u64],
        found: &[ClaimSnapshot],
    ) -> Verdict {
        let shown = found.iter().map(|claim| (claim.id, claim.mode));
        let same = shown.eq((expected.iter()).map(|n| (self.id(model, *n), model.claims[n].mode)));
        ensure!(
            same,
            "{:?} is {what} {}, and should be by {expected:?}",
            model.lock_name(lock),
            described(found)
        );
        let labelled = found.iter().all(|claim| claim.owner == owner());
        ensure!(labelled, "another owner is shown: {found:?}");
        Ok(())
    }

    /// This history's names in use.
    async fn names(&self) -> Verdict<BTreeSet<String>> {
        let looker = &self.stage.links[fastrand::usize(..CLIENTS)].backend;
        let names = within(LIMIT, "names", looker.names()).await?;
        let names = names.because("names")?.into_iter();
        let mut all = BTreeSet::new();
        for name in names.map(|name| name.to_string()) {
            if name.starts_with(&self.prefix) {
                ensure!(all.insert(name.clone()), "{name:?} is named twice");
            }
        }
        Ok(all)
    }

    /// WAKE: all pushes to a client that the steps so far called for come, and no others.
    async fn check_pushes(&mut self, model: &Model, client: usize) -> Verdict {
        let mine = |number: &&u64| {
            let asked = model.claims.get(number);
            asked.is_some_and(|asked| asked.client == client)
        };
        let watched = self.stage.watched;
        let due = model.called.iter().filter(mine);
        let due = due.filter(|number| !watched || model.granted(**number).is_some());
        let due: BTreeSet<u64> = due.copied().collect();
        let warnings = model.contended.iter().filter(mine).filter(|_| !watched);
        let warnings: BTreeSet<u64> = warnings.copied().collect();
        while !(due.is_subset(&self.told) && warnings.is_subset(&self.warned)) {
            let next = self.clients[client].inbox.next();
            let push = tokio::time::timeout(self.patience, next)
                .await
                .map_err(|_| {
                    Failure::new(format!(
                        "{} was not told of the grants of {:?}, and that somebody waits for {:?}",
                        client_name(client),
                        Vec::from_iter(due.difference(&self.told)),
                        Vec::from_iter(warnings.difference(&self.warned))
                    ))
                })?;
            let push = push.ok_or_else(|| Failure::new("the store has dropped a mailbox"))?;
            self.accept(model, client, push)?;
        }
        while let Some(Some(push)) = self.clients[client].inbox.next().now_or_never() {
            self.accept(model, client, push)?;
        }
        Ok(())
    }

    fn accept(&mut self, model: &Model, client: usize, push: Push) -> Verdict {
        let known = match push {
            Push::Granted(id, token) => {
                self.told.insert(id.number);
                let token_is_its = self.tokens.get(&id.number) == Some(&token);
                model.called.contains(&id.number) && token_is_its && self.is_of(model, client, id)
            }
            Push::Contended(id) => {
                self.warned.insert(id.number);
                let contended = model.contended.contains(&id.number);
                !self.stage.watched && contended && self.is_of(model, client, id)
            }
            // It was withdrawn while its watch was being moved.
            Push::Changed(id) => self.stage.watched && model.granted(id.number).is_none(),
            Push::Lost(_) => false,
        };
        let who = client_name(client);
        ensure!(known, "{who} is told {push:?}, and nothing of the kind was");
        Ok(())
    }

    fn is_of(&self, model: &Model, client: usize, id: ClaimId) -> bool {
        id.session == self.session_id(model.sessions[client])
    }

    /// CANCEL: when all have gone, nothing is in use.
    pub(crate) async fn end(mut self, model: &Model) -> Verdict {
        for client in 0..CLIENTS {
            self.check_pushes(model, client).await?;
        }
        for client in 0..CLIENTS {
            self.close(client).await?;
        }
        let names = self.names().await?;
        ensure!(names.is_empty(), "all are gone, and {names:?} are in use");
        Ok(())
    }
}

fn described(claims: &[ClaimSnapshot]) -> String {
    let claims = claims.iter();
    let claims: Vec<String> = claims
        .map(|claim| format!("{} {}", claim.id.number, claim.mode))
        .collect();
    format!("[{}]", claims.join(", "))
}
