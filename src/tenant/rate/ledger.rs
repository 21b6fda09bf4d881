//! The permits of one rate at this replica: what is leased, what is told of it,
//! what was refused. Every moment is given, none is asked for; it does not know
//! the store.

mod asking;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub(super) use self::asking::Ask;
use super::{Drawn, Rule, pace::Pace, recent::Recent};
use crate::{config::WhenDown, store::Settle, tenant::plan::Mode};

/// How long a lease is held far from the limit. Permits that a replica took with
/// it into its grave count so much longer.
const FAR_HOLD_MS: u64 = 1000;

/// The same from half of the limit on, where others may be short of them.
const NEAR_HOLD_MS: u64 = 200;

/// Leases whose end is not told of yet; more than that count to their end.
const UNTOLD: usize = 8;

/// The permits of a rate.
#[derive(Debug)]
pub(super) struct Ledger {
    /// What the permits were leased under.
    limit: u64,
    span_ms: u64,
    /// Leases that can be drawn from, the oldest first.
    held: VecDeque<Held>,
    /// Leases that are over, and not told of.
    over: VecDeque<Over>,
    refusals: Vec<Refusal>,
    /// Used without a permit, and not told yet.
    forced: u64,
    /// Permits that count, as the store last said.
    counted: Option<u64>,
    pace: Pace,
    recent: Recent,
    /// When a store that did not answer is asked again.
    down_until: Option<Instant>,
    /// Whether the store is being asked.
    asking: bool,
    /// Whether somebody sees to it that permits are given back.
    pub(super) kept: bool,
    /// What callers wait for.
    pub(super) waiting: u64,
}

#[derive(Debug)]
struct Held {
    /// By the clock of this machine, from before it was asked for.
    until: Instant,
    until_ms: u64,
    granted: u64,
    left: u64,
}

#[derive(Debug)]
struct Over {
    /// Its permits count no longer after this.
    gone: Instant,
    settle: Settle,
}

#[derive(Debug)]
struct Refusal {
    amount: u64,
    /// When it can succeed; `None` where it never can.
    retry: Option<Instant>,
    /// Until when the store is not asked again.
    stands: Instant,
}

/// What came of an attempt to draw.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It is decided.
    Decided(Drawn),
    /// The store cannot be asked, and nothing is let through then.
    Denied,
    /// So many permits are missing, and the store has to be asked.
    Short(u64),
}

impl Ledger {
    pub(super) fn new(rule: &Rule, now: Instant) -> Self {
        Self {
            limit: rule.limit,
            span_ms: rule.span_ms,
            held: VecDeque::with_capacity(4),
            over: VecDeque::with_capacity(UNTOLD),
            refusals: Vec::new(),
            forced: 0,
            counted: None,
            pace: Pace::new(now),
            recent: Recent::new(rule.span_ms, now),
            down_until: None,
            asking: false,
            kept: false,
            waiting: 0,
        }
    }

    /// Draws an amount, all of it or none, where that can be decided here.
    pub(super) fn draw(
        &mut self,
        rule: &Rule,
        amount: u64,
        replicas: u64,
        now: Instant,
    ) -> Attempt {
        self.follow(rule, now);
        self.retire(now);
        let left = self.left();
        if left >= amount {
            self.take(amount);
            self.pace.draw(amount);
            self.recent.add(amount, now);
            return Attempt::Decided(Drawn::Granted { used: self.used() });
        }
        if amount > self.limit {
            return Attempt::Decided(self.refuse(rule, amount, None, now));
        }
        let short = amount - left;
        if let Some(retry) = self.refused(short, now) {
            return Attempt::Decided(self.refuse(rule, amount, retry, now));
        }
        if self.down_until.is_some() {
            return self.draw_alone(rule, amount, replicas, now);
        }
        Attempt::Short(short)
    }

    /// Decides while the store cannot be asked.
    fn draw_alone(&mut self, rule: &Rule, amount: u64, replicas: u64, now: Instant) -> Attempt {
        let recent = self.recent.sum(now);
        let part = match rule.when_down {
            WhenDown::Deny => return Attempt::Denied,
            WhenDown::Allow => u64::MAX,
            WhenDown::Local => rule.limit / replicas.max(1),
        };
        if recent.saturating_add(amount) > part {
            let left = part.checked_sub(amount);
            let retry = left.map(|left| self.recent.wait(left, now));
            return Attempt::Decided(self.refuse(rule, amount, retry, now));
        }
        self.force(amount, now);
        Attempt::Decided(Drawn::Granted {
            used: recent.saturating_add(amount),
        })
    }

    /// A refusal, which uses the amount all the same where the mode lets it through.
    fn refuse(&mut self, rule: &Rule, amount: u64, retry: Option<Duration>, now: Instant) -> Drawn {
        if rule.mode != Mode::Enforce {
            self.force(amount, now);
        }
        let used = match self.down_until {
            Some(_) => self.recent.sum(now),
            None => self.used(),
        };
        Drawn::Refused {
            used,
            // Whole milliseconds, as callers are told, and never too soon.
            retry_after: retry.map(|wait| {
                let ms = wait.as_micros().div_ceil(1000);
                Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX).max(1))
            }),
        }
    }

    fn force(&mut self, amount: u64, now: Instant) {
        self.forced = self.forced.saturating_add(amount);
        self.recent.add(amount, now);
    }

    /// The wait that a refusal of so many permits told of, where it still stands;
    /// `None` inside where no wait helps.
    fn refused(&mut self, short: u64, now: Instant) -> Option<Option<Duration>> {
        if self.refusals.is_empty() {
            return None;
        }
        self.refusals.retain(|refusal| now < refusal.stands);
        let refusal = self.refusals.iter().find(|known| known.amount == short)?;
        let wait = |at: Instant| at.saturating_duration_since(now);
        Some(refusal.retry.map(wait))
    }

    /// What counts against the limit, as far as it is known here.
    pub(super) fn used(&self) -> u64 {
        let unused = self.over.iter().map(|over| over.settle.unused);
        let unused = unused.fold(self.left(), u64::saturating_add);
        self.counted
            .unwrap_or(0)
            .saturating_sub(unused)
            .saturating_add(self.forced)
    }

    /// Notes what counts at all replicas.
    pub(super) fn learn(&mut self, rule: &Rule, counted: u64) {
        if self.span_ms == rule.span_ms {
            self.counted = Some(counted);
        }
    }

    /// What this replica itself let through in the span before now.
    pub(super) fn recent(&mut self, now: Instant) -> u64 {
        self.recent.sum(now)
    }

    fn left(&self) -> u64 {
        self.held.iter().map(|held| held.left).sum()
    }

    fn take(&mut self, mut amount: u64) {
        for held in &mut self.held {
            let part = held.left.min(amount);
            held.left -= part;
            amount -= part;
        }
    }

    /// Begins anew where the limit is another one: what was leased under the old
    /// one is over.
    fn follow(&mut self, rule: &Rule, now: Instant) {
        if self.limit == rule.limit && self.span_ms == rule.span_ms {
            return;
        }
        while let Some(held) = self.held.pop_front() {
            self.end(&held, now);
        }
        if self.span_ms != rule.span_ms {
            // Permits of another window.
            self.over.clear();
            self.counted = None;
            self.recent = Recent::new(rule.span_ms, now);
        }
        self.refusals.clear();
        (self.limit, self.span_ms) = (rule.limit, rule.span_ms);
    }

    /// Puts away the leases that are used up or over.
    fn retire(&mut self, now: Instant) {
        let is_over = |held: &Held| held.left == 0 || held.until <= now;
        while let Some(at) = self.held.iter().position(is_over)
            && let Some(held) = self.held.remove(at)
        {
            self.end(&held, now);
        }
    }

    fn end(&mut self, held: &Held, now: Instant) {
        let settle = Settle {
            until_ms: held.until_ms,
            used: held.granted - held.left,
            unused: held.left,
        };
        let gone = held.until.max(now) + Duration::from_millis(self.span_ms);
        if let Some(same) = self.over.back_mut()
            && same.settle.until_ms == settle.until_ms
        {
            same.settle.used = same.settle.used.saturating_add(settle.used);
            same.settle.unused = same.settle.unused.saturating_add(settle.unused);
            return;
        }
        if self.over.len() >= UNTOLD {
            self.over.pop_front();
        }
        self.over.push_back(Over { gone, settle });
    }

    /// Whether the store should be asked before a caller needs it.
    pub(super) fn runs_low(&self, now: Instant) -> bool {
        if self.asking {
            return false;
        }
        if let Some(until) = self.down_until {
            return until <= now;
        }
        let Some(last) = self.held.back() else {
            return false;
        };
        let ends = last.until <= now + Duration::from_millis(self.hold_ms() / 4);
        self.pace.is_brisk()
            && (ends || self.left() <= last.granted / 2)
            && !self.refusals.iter().any(|refusal| now < refusal.stands)
    }

    /// Whether there is something to tell, and nobody to do it.
    pub(super) fn is_untold(&self) -> bool {
        self.forced > 0 && !self.kept && !self.asking
    }

    fn is_far(&self) -> bool {
        self.counted
            .is_some_and(|counted| counted <= self.limit / 2)
    }

    fn hold_ms(&self) -> u64 {
        let hold = if self.is_far() {
            FAR_HOLD_MS
        } else {
            NEAR_HOLD_MS
        };
        hold.min(self.span_ms / 10)
    }
}

#[cfg(test)]
mod tests;
