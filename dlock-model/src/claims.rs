//! The clients: their sessions, and their claims as the core's coordinator leads them.
//!
//! This is the core's part of the protocol, the same for every store: one operation at a time for each
//! session (the input gate), withdraws first and requests in their order; nothing is told past the deadline
//! (the output gate); nothing is concluded from an operation that was given up, and a claim whose request
//! was ever given up is withdrawn with a mark (ONCE).

use dlock_core::{FencingToken, Mode, Wait};

/// How many ticks a lease lasts: enough for the answer to a renewal to come a tick after its sending, with
/// time left.
pub const TTL: u8 = 3;

/// One claim that a session makes, in the order in which it makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whose it is.
    pub session: u8,
    /// The mode that it asks for.
    pub mode: Mode,
    /// Whether it may wait.
    pub wait: Wait,
}

/// Where a claim stands, as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Nobody has asked for it yet.
    Idle,
    /// It was asked for.
    Requested,
    /// The store has given it a place.
    Waiting,
    /// The caller holds the lock.
    Granted,
    /// It is to be withdrawn.
    Leaving,
    /// The withdraw is confirmed, or there was nothing to withdraw.
    Gone,
}

/// A claim, as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claimant {
    /// Where it stands.
    pub stage: Stage,
    /// Whether a request for it was given up.
    pub unanswered: bool,
}

/// What the store is asked about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// For a place, or a grant.
    Request,
    /// How it stands.
    Look,
    /// To take it out.
    Withdraw {
        /// Whether a request may still be on its way.
        may_arrive_late: bool,
    },
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op {
    /// The claim, by its place in the plan.
    pub claim: u8,
    /// What is asked.
    pub call: Call,
}

/// What the store says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It is granted.
    Granted(FencingToken),
    /// It has its place.
    Waiting,
    /// It is not there.
    Absent,
    /// Its session is over.
    Lapsed,
}

/// A session, as its client knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Ticks until its deadline. At 0 it is lost, and stays so.
    pub deadline: u8,
    /// Its process is no more.
    pub crashed: bool,
    /// The operation on its way.
    pub gate: Option<Op>,
}

impl Session {
    /// Whether its client does anything any more.
    pub fn acts(&self) -> bool {
        !self.crashed && self.deadline > 0
    }
}

/// All clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clients {
    /// By their number.
    pub sessions: Vec<Session>,
    /// By their place in the plan.
    pub claims: Vec<Claimant>,
    /// Whether a claim that may wait was refused, though nobody had withdrawn it (ONCE).
    pub was_refused: bool,
}

impl Clients {
    pub(crate) fn new(plan: &[Wish]) -> Self {
        let sessions = plan.iter().map(|wish| wish.session + 1).max().unwrap_or(0);
        let session = Session {
            deadline: TTL,
            crashed: false,
            gate: None,
        };
        let claimant = Claimant {
            stage: Stage::Idle,
            unanswered: false,
        };
        Self {
            sessions: vec![session; usize::from(sessions)],
            claims: vec![claimant; plan.len()],
            was_refused: false,
        }
    }

    /// The session of this number.
    pub fn session(&mut self, session: u8) -> &mut Session {
        &mut self.sessions[usize::from(session)]
    }

    /// The claim at this place of the plan.
    pub fn claim(&mut self, claim: u8) -> &mut Claimant {
        &mut self.claims[usize::from(claim)]
    }

    /// The stage of a claim.
    pub fn stage(&self, claim: u8) -> Stage {
        self.claims[usize::from(claim)].stage
    }

    /// Whether all that the session wanted is done.
    pub(crate) fn is_done(&self, plan: &[Wish], session: u8) -> bool {
        let mut mine = self.claims.iter().zip(plan);
        mine.all(|(claim, wish)| wish.session != session || claim.stage == Stage::Gone)
    }

    /// What the session may ask next: a withdraw if there is one, else the oldest request or any look.
    pub(crate) fn next_ops(&self, plan: &[Wish], session: u8) -> Vec<Op> {
        let state = &self.sessions[usize::from(session)];
        if !state.acts() || state.gate.is_some() {
            return Vec::new();
        }
        let mine = (0u8..).zip(plan.iter().zip(&self.claims));
        let mine = mine.filter(|(_, (wish, _))| wish.session == session);
        let (mut withdraws, mut others, mut asked) = (Vec::new(), Vec::new(), false);
        for (claim, (_, claimant)) in mine {
            let may_arrive_late = claimant.unanswered;
            match claimant.stage {
                Stage::Leaving => withdraws.push(Op {
                    claim,
                    call: Call::Withdraw { may_arrive_late },
                }),
                Stage::Idle | Stage::Requested if !asked => {
                    asked = true;
                    let call = Call::Request;
                    others.push(Op { claim, call });
                }
                Stage::Waiting => others.push(Op {
                    claim,
                    call: Call::Look,
                }),
                _ => {}
            }
        }
        match withdraws.is_empty() {
            true => others,
            false => withdraws,
        }
    }

    /// The operation is given up: it may or may not have taken effect, now or later.
    pub(crate) fn given_up(&mut self, op: Op) {
        if op.call == Call::Request {
            self.claim(op.claim).unanswered = true;
        }
    }

    /// The store has answered the operation. Returns the token if the claim's caller is to be told of a
    /// grant.
    pub(crate) fn answered(
        &mut self,
        op: Op,
        wait: Wait,
        outcome: Outcome,
    ) -> Option<FencingToken> {
        let claim = &mut self.claims[usize::from(op.claim)];
        match (op.call, claim.stage) {
            (Call::Withdraw { .. }, _) => claim.stage = Stage::Gone,
            (_, Stage::Leaving) => {
                if outcome == Outcome::Absent && !claim.unanswered {
                    claim.stage = Stage::Gone;
                }
            }
            (call, Stage::Requested | Stage::Waiting) => match outcome {
                Outcome::Granted(token) => return Some(token),
                Outcome::Waiting if wait == Wait::Never => claim.stage = Stage::Leaving,
                Outcome::Waiting => claim.stage = Stage::Waiting,
                Outcome::Absent if wait == Wait::InTurn && call == Call::Look => {
                    claim.stage = Stage::Requested;
                }
                Outcome::Absent => {
                    self.was_refused |= wait == Wait::InTurn;
                    claim.stage = match claim.unanswered {
                        true => Stage::Leaving,
                        false => Stage::Gone,
                    };
                }
                Outcome::Lapsed => {}
            },
            // A push was faster.
            (_, Stage::Idle | Stage::Granted | Stage::Gone) => {}
        }
        None
    }
}
