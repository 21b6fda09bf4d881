//! Calls that are alike told as one, so that a flood of them is not one of events. It
//! does not know which calls are folded, nor where the events go.

use std::collections::HashMap;

use super::Facts;

/// For how long calls are folded that are like one that was just told.
const SPAN_MS: u64 = 1_000;

/// For how long at most: while a flood goes on, each span is twice the one before, and
/// where many are open, they begin with this one.
const LONGEST_MS: u64 = 60_000;

/// Calls are alike by these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    actor: String,
    rpc: String,
    tenant_id: String,
    outcome: String,
}

/// Calls alike since the last one that was told.
#[derive(Debug)]
struct Fold {
    span_ms: u64,
    ends_ms: u64,
    /// The last of them, with the number of all; none where there were none.
    last: Option<Facts>,
}

/// What is folded. The first call of a kind is told at once; those within the span that
/// it begins are told as one at its end.
#[derive(Debug)]
pub(super) struct Folds {
    open: HashMap<Kind, Fold>,
    /// Kinds that are told apart at a time; beyond it only RPC and outcome are, so that
    /// who calls with ever other keys cannot fill the store.
    most: usize,
}

impl Folds {
    pub(super) fn new(most: usize) -> Self {
        Self {
            open: HashMap::new(),
            most,
        }
    }

    /// Takes a call in; what is to be told now, if anything.
    pub(super) fn fold(&mut self, mut facts: Facts) -> Option<Facts> {
        let mut kind = Kind {
            actor: facts.actor.clone(),
            rpc: facts.rpc.clone(),
            tenant_id: facts.tenant_id.clone(),
            outcome: facts.outcome.clone(),
        };
        if self.open.len() >= self.most && !self.open.contains_key(&kind) {
            (kind.actor, kind.tenant_id) = Default::default();
            (facts.actor, facts.tenant_id) = Default::default();
        }
        if let Some(fold) = self.open.get_mut(&kind) {
            facts.count += fold.last.as_ref().map_or(0, |last| last.count);
            fold.last = Some(facts);
            return None;
        }
        let span_ms = match self.open.len() < self.most / 4 {
            true => SPAN_MS,
            false => LONGEST_MS,
        };
        let fold = Fold {
            span_ms,
            ends_ms: facts.time_ms.saturating_add(span_ms),
            last: None,
        };
        self.open.insert(kind, fold);
        Some(facts)
    }

    /// What is to be told now, in the order of time.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Facts> {
        let mut due = Vec::new();
        self.open.retain(|_, fold| {
            if fold.ends_ms > now_ms {
                return true;
            }
            let Some(last) = fold.last.take() else {
                return false;
            };
            due.push(last);
            fold.span_ms = fold.span_ms.saturating_mul(2).min(LONGEST_MS);
            fold.ends_ms = now_ms.saturating_add(fold.span_ms);
            true
        });
        due.sort_by_key(|facts| facts.time_ms);
        due
    }

    /// Whether anything is open.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn call(actor: &str, time_ms: u64) -> Facts {
        Facts {
            time_ms,
            actor: actor.into(),
            rpc: "Get".into(),
            tenant_id: "acme".into(),
            outcome: "SCOPE_MISSING".into(),
            request_id: time_ms.to_string(),
            count: 1,
            ..Facts::default()
        }
    }

    #[test]
    fn calls_alike_are_one_event_a_span_and_spans_grow() {
        let mut folds = Folds::new(64);
        let mut told = Vec::new();
        for ms in 0..100_000 {
            told.extend(folds.fold(call("a", ms)));
            told.extend(folds.due(ms));
        }
        told.extend(folds.due(u64::MAX));
        let counts: Vec<u64> = told.iter().map(|facts| facts.count).collect();
        assert_eq!(counts.iter().sum::<u64>(), 100_000);
        assert_eq!(counts[..4], [1, 1000, 2000, 4000]);
        assert!(counts.len() < 10, "{counts:?}");
        assert_eq!(told[1].request_id, "1000");
        // A quiet one is told at once again.
        assert!(folds.due(u64::MAX).is_empty() && !folds.is_open());
        assert_eq!(folds.fold(call("a", 200_000)).unwrap().count, 1);
    }

    #[test]
    fn others_are_told_apart_as_far_as_there_is_room() {
        let mut folds = Folds::new(64);
        let mut told = Vec::new();
        for n in 0..10_000 {
            told.extend(folds.fold(call(&n.to_string(), n % 7)));
        }
        assert_eq!(told.len(), 65);
        told.extend(folds.due(u64::MAX));
        assert_eq!(told.iter().map(|facts| facts.count).sum::<u64>(), 10_000);
        let rest = told.last().unwrap();
        assert_eq!((&*rest.actor, &*rest.tenant_id), ("", ""));
        assert_eq!((&*rest.rpc, &*rest.outcome), ("Get", "SCOPE_MISSING"));
    }
}
