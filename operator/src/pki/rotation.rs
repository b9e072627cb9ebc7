//! How an authority gives way to its successor: which step comes next, and what it waits for. Pure but for randomness;
//! the caller brings the clock, says what it sees, and writes the Secret that comes out before anything that follows
//! from it.
//!
//! Made → a successor is made and everybody learns to **trust both** → the successor signs **new leaves** for everybody
//! → everybody **drops the old** one. Each step begins only after the one before is everywhere: every Secret holds it,
//! every broker runs with it, and for [`Pace::inside`] since then those had time that nobody can ask. So at every moment
//! any two trust each other, whichever of the two steps each of them has seen.

use super::life::{Step, whole};
use super::{Authority, PkiError};
use time::{Duration, OffsetDateTime};

/// What a person asks of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A successor, now.
    Successor,
    /// New leaves of the same authority, now.
    Leaves,
    /// To wait no longer for those outside in the step that is under way.
    GoOn,
}

/// Who outside relies on an authority, where nobody can see how far they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Nobody.
    Nobody,
    /// They have so much time after each step.
    For(Duration),
    /// The successor signs when so much is left of the old one's life, which is trusted until it expires.
    Lifetime(Duration),
}

/// How fast a rotation goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A successor is made when less than this is left.
    pub renew_before: Duration,
    /// How long a changed Secret takes at most until every pod of ours uses it.
    pub inside: Duration,
    /// The others.
    pub outside: Outside,
}

/// What is known when a turn is decided.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// The request that stands, and what it asks of this authority. None: no request stands.
    pub asked: Option<(&'a str, Option<Ask>)>,
    /// Whether every Secret, as it is stored, holds what this step wants.
    pub delivered: bool,
    /// Whether every broker runs with that.
    pub rolled: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// This step began.
    Began(Step),
    /// The one that was under way is everywhere, and nothing is left to do.
    Ended(Step),
    /// There was nothing to go on with.
    Nothing,
}

/// What the step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Nothing: no step is under way, or it began just now.
    Nothing,
    /// Secrets are being written.
    Secrets,
    /// Brokers are restarted.
    Brokers,
    /// Pods of ours take their Secrets into use, at this time at the latest.
    Inside(OffsetDateTime),
    /// Those outside have until then.
    Outside(OffsetDateTime),
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What happened.
    pub news: Option<News>,
    /// What the step waits for.
    pub waits: Waits,
    /// Whether the request that stands has to wait for the end of what is under way.
    pub deferred: bool,
}

impl Authority {
    /// Goes at most one step on. `title` is what a successor is called.
    pub fn turn(
        &mut self,
        title: &str,
        seen: &Seen<'_>,
        pace: &Pace,
        now: OffsetDateTime,
    ) -> Result<Turn, PkiError> {
        if seen.asked.is_none() {
            self.life_mut().answered = None;
        }
        let answered = self.life().answered.as_deref();
        let fresh =
            seen.asked.and_then(|(text, ask)| Some((text, ask?))).filter(|(text, _)| answered != Some(text));
        if self.life().step == Step::Steady {
            return self.begin(title, fresh, pace, now);
        }
        let mut deferred = fresh.is_some();
        if let Some((text, Ask::GoOn)) = fresh {
            let life = self.life_mut();
            (life.go_on, life.answered, deferred) = (true, Some(text.to_owned()), false);
        }
        let waits = self.waits(seen, pace, now);
        let news = if waits == Waits::Nothing { Some(self.go_on(now)?) } else { None };
        Ok(Turn { news, waits, deferred })
    }

    /// What begins where nothing is under way.
    fn begin(
        &mut self,
        title: &str,
        fresh: Option<(&str, Ask)>,
        pace: &Pace,
        now: OffsetDateTime,
    ) -> Result<Turn, PkiError> {
        let news = match fresh {
            Some((_, Ask::Leaves)) => {
                self.renew(now);
                Some(News::Began(Step::Renew))
            }
            Some((_, Ask::GoOn)) => Some(News::Nothing),
            Some((_, Ask::Successor)) => Some(self.make_way(title, now)?),
            None if self.expires() - now < pace.renew_before => Some(self.make_way(title, now)?),
            None => None,
        };
        if let Some((text, _)) = fresh {
            self.life_mut().answered = Some(text.to_owned());
        }
        Ok(Turn { news, waits: Waits::Nothing, deferred: false })
    }

    fn make_way(&mut self, title: &str, now: OffsetDateTime) -> Result<News, PkiError> {
        self.beget(title, now)?;
        if self.expires() <= now {
            // Nobody accepts what it signed any more: there is nothing to be careful with.
            self.succeed(now)?;
        }
        Ok(News::Began(self.life().step))
    }

    fn waits(&mut self, seen: &Seen<'_>, pace: &Pace, now: OffsetDateTime) -> Waits {
        let (expires, others_expire) = (self.expires(), self.others_expire());
        let life = self.life_mut();
        if !seen.delivered {
            life.delivered = None;
            return Waits::Secrets;
        }
        // A clock that was ahead must not make it wait for ever.
        let delivered = whole(life.delivered.map_or(now, |then| then.min(now)));
        life.delivered = Some(delivered);
        if !seen.rolled {
            return Waits::Brokers;
        }
        if now < delivered + pace.inside {
            return Waits::Inside(delivered + pace.inside);
        }
        let until = match (life.step, pace.outside) {
            _ if life.go_on => None,
            (Step::TrustBoth | Step::Replace | Step::NewLeaves, Outside::For(time)) => Some(delivered + time),
            (Step::TrustBoth, Outside::Lifetime(left)) => Some(expires - left),
            (Step::NewLeaves, Outside::Lifetime(_)) => others_expire,
            _ => None,
        };
        until.filter(|until| now < *until).map_or(Waits::Nothing, Waits::Outside)
    }

    fn go_on(&mut self, now: OffsetDateTime) -> Result<News, PkiError> {
        match self.life().step {
            Step::TrustBoth | Step::Replace => self.succeed(now)?,
            Step::NewLeaves => self.drop_others(now),
            ended @ (Step::DropOld | Step::Renew | Step::Steady) => {
                self.life_mut().enter(Step::Steady, now);
                return Ok(News::Ended(ended));
            }
        }
        Ok(News::Began(self.life().step))
    }
}
