//! The permits of a rate, moment by moment, against a window that keeps to the
//! store's contract. It does not know how the store does it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use super::*;
use crate::store::{Lease, Leased, slot_ms};

const SPAN_MS: u64 = 60_000;

fn rule(limit: u64) -> Rule {
    Rule {
        metric: "m".into(),
        limit,
        span_ms: SPAN_MS,
        mode: Mode::Enforce,
        when_down: WhenDown::Local,
    }
}

/// A window as the store keeps it: permits by when they are free again.
#[derive(Default)]
struct Window(BTreeMap<u64, u64>);

impl Window {
    fn lease(&mut self, lease: &Lease, now_ms: u64) -> Leased {
        self.0.retain(|free_ms, _| *free_ms > now_ms);
        let slot = slot_ms(lease.span_ms);
        let up = |ms: u64| ms.div_ceil(slot) * slot;
        let free_ms = |used_ms: u64| up(used_ms) + lease.span_ms;
        if let Some(settle) = lease.settle {
            let leased = self.0.entry(free_ms(settle.until_ms)).or_default();
            let told = settle.used + settle.unused;
            *leased = leased.checked_sub(told).expect("told once");
            let free_ms = free_ms(settle.until_ms.min(now_ms));
            *self.0.entry(free_ms).or_default() += settle.used;
        }
        *self.0.entry(free_ms(now_ms)).or_default() += lease.forced;
        let counted: u64 = self.0.values().sum();
        let free = lease.limit.saturating_sub(counted);
        let granted = match free < lease.least {
            true => 0,
            false => lease
                .want
                .min(free)
                .min(lease.least + free / lease.share.max(1)),
        };
        let until_ms = up(now_ms + lease.hold_ms);
        *self.0.entry(free_ms(until_ms)).or_default() += granted;
        let mut left = counted;
        let retry = self.0.iter().find_map(|(free_ms, permits)| {
            left -= (*permits).min(left);
            (left + lease.least <= lease.limit).then(|| free_ms - now_ms)
        });
        Leased {
            granted,
            until_ms,
            counted: counted + granted,
            retry_after_ms: retry.filter(|_| granted == 0 && lease.want > 0),
        }
    }
}

/// Replicas that draw on one window, a millisecond at a time.
struct Fleet {
    window: Window,
    began: Instant,
    now_ms: u64,
    replicas: Vec<Replica>,
    /// When each permit was used.
    used: Vec<u64>,
    state: u64,
}

struct Replica {
    ledger: Ledger,
    /// What it was answered, and when it hears of it.
    answer: Option<(u64, Ask, Option<Leased>)>,
}

impl Fleet {
    fn new(replicas: usize, rule: &Rule, seed: u64) -> Self {
        let began = Instant::now();
        let replica = || Replica {
            ledger: Ledger::new(rule, began),
            answer: None,
        };
        Self {
            window: Window::default(),
            began,
            now_ms: 1_000_000,
            replicas: (0..replicas).map(|_| replica()).collect(),
            used: Vec::new(),
            state: seed,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.now_ms - 1_000_000)
    }

    fn send(&mut self, at: usize, ask: Ask, faults: bool) {
        let lost = faults && self.random(20) == 0;
        let late = self.random(4);
        let leased = self.window.lease(&ask.lease, self.now_ms);
        let answer = (!lost).then_some(leased);
        self.replicas[at].answer = Some((self.now_ms + late, ask, answer));
    }

    /// A millisecond in which each replica is asked for up to so many permits.
    fn step(&mut self, rule: &Rule, demand: u64, faults: bool) {
        self.now_ms += 1;
        let (now, count) = (self.now(), self.replicas.len() as u64);
        for at in 0..self.replicas.len() {
            let calls = self.random(2 * demand + 1);
            let replica = &mut self.replicas[at];
            if let Some((when, ask, leased)) =
                replica.answer.take_if(|(when, ..)| *when <= self.now_ms)
            {
                assert!(when <= self.now_ms);
                match leased {
                    Some(leased) => replica.ledger.heard(&ask, leased, now),
                    None => replica.ledger.failed(&ask, true, now),
                }
                replica.ledger.asked();
            }
            for _ in 0..calls {
                match replica.ledger.draw(rule, 1, count, now) {
                    Attempt::Decided(Drawn::Granted { .. }) => self.used.push(self.now_ms),
                    Attempt::Decided(_) | Attempt::Denied | Attempt::Short(_) => {}
                }
            }
            let ledger = &mut replica.ledger;
            let ask = match ledger.runs_low(now) {
                true => ledger.ask(1, count, now),
                false => match ledger.draw(rule, 1, count, now) {
                    Attempt::Short(short) => ledger.ask(short, count, now),
                    Attempt::Decided(Drawn::Granted { .. }) => {
                        self.used.push(self.now_ms);
                        None
                    }
                    _ => None,
                },
            };
            let ask = match ask {
                None if self.now_ms.is_multiple_of(50) => ledger.tell(now),
                ask => ask,
            };
            if let Some(ask) = ask {
                self.send(at, ask, faults);
            }
        }
    }

    /// The most that was used in any span.
    fn most(&self) -> usize {
        let mut begin = 0;
        let mut most = 0;
        for (end, used) in self.used.iter().enumerate() {
            while self.used[begin] + SPAN_MS <= *used {
                begin += 1;
            }
            most = most.max(end + 1 - begin);
        }
        most
    }
}

#[test]
fn no_span_sees_more_than_the_limit_and_little_of_it_is_left() {
    for (seed, replicas, limit, demand) in [
        (1, 1, 6_000, 1),
        (2, 4, 6_000, 1),
        (3, 4, 600, 1),
        (4, 2, 60_000, 5),
    ] {
        let rule = rule(limit);
        let mut fleet = Fleet::new(replicas, &rule, seed);
        for _ in 0..200_000 {
            fleet.step(&rule, demand, false);
        }
        let most = fleet.most() as u64;
        assert!(most <= limit, "{most} of {limit} in a span");
        // Each minute after the first, too.
        for minute in 0..3 {
            let from = 1_000_000 + minute * SPAN_MS;
            let used = fleet.used.iter();
            let used = used.filter(|ms| (from..from + SPAN_MS).contains(*ms));
            let used = used.count() as u64;
            assert!(
                used * 100 >= limit * 98,
                "{used} of {limit} with {replicas}"
            );
        }
    }
}

#[test]
fn what_was_lost_on_the_way_only_ever_counts_too_long() {
    // Denied while down, so that every permit used is the store's.
    let rule = Rule {
        when_down: WhenDown::Deny,
        ..rule(3_000)
    };
    for seed in 1..5 {
        let mut fleet = Fleet::new(3, &rule, seed);
        for _ in 0..130_000 {
            fleet.step(&rule, 1, true);
            if fleet.random(3_000) == 0 {
                // A replica is killed, with whatever it held, and another begins.
                let now = fleet.now();
                fleet.replicas[0] = Replica {
                    ledger: Ledger::new(&rule, now),
                    answer: None,
                };
            }
        }
        let most = fleet.most();
        assert!(most <= 3_000, "{most} in a span");
        assert!(most >= 1_500, "{most} in a span: nothing was tried");
    }
}

/// A ledger, its window, and the answer to each ask at once.
struct Alone {
    ledger: Ledger,
    window: Window,
    began: Instant,
}

impl Alone {
    fn new(rule: &Rule) -> Self {
        let began = Instant::now();
        Self {
            ledger: Ledger::new(rule, began),
            window: Window::default(),
            began,
        }
    }

    fn draw(&mut self, rule: &Rule, amount: u64, ms: u64) -> Drawn {
        let now = self.began + Duration::from_millis(ms);
        loop {
            match self.ledger.draw(rule, amount, 1, now) {
                Attempt::Decided(drawn) => return drawn,
                Attempt::Denied => panic!("the store is not down"),
                Attempt::Short(short) => {
                    let ask = self.ledger.ask(short, 1, now).unwrap();
                    let leased = self.window.lease(&ask.lease, 1_000_000 + ms);
                    self.ledger.heard(&ask, leased, now);
                    self.ledger.asked();
                }
            }
        }
    }
}

#[test]
fn an_amount_is_drawn_whole_or_not_at_all_and_the_wait_is_exact() {
    let rule = rule(10);
    let mut alone = Alone::new(&rule);
    assert_eq!(alone.draw(&rule, 4, 0), Drawn::Granted { used: 4 });
    assert_eq!(alone.draw(&rule, 5, 1_000), Drawn::Granted { used: 9 });
    let Drawn::Refused { used, retry_after } = alone.draw(&rule, 3, 2_000) else {
        panic!("3 of 1 were drawn");
    };
    let wait = u64::try_from(retry_after.unwrap().as_millis()).unwrap();
    assert_eq!(used, 9);
    // Before that it is refused, and then it is not.
    assert!(matches!(
        alone.draw(&rule, 3, 2_000 + wait - 1),
        Drawn::Refused { .. }
    ));
    assert_eq!(
        alone.draw(&rule, 3, 2_000 + wait),
        Drawn::Granted { used: 8 }
    );
    // What is more than the limit never can be.
    let more = alone.draw(&rule, 11, 3_000 + wait);
    assert!(matches!(
        more,
        Drawn::Refused {
            retry_after: None,
            ..
        }
    ));
}

#[test]
fn another_limit_ends_what_was_leased_under_the_old_one() {
    let (old, new) = (rule(10), rule(3));
    let mut alone = Alone::new(&old);
    for used in 1..=3 {
        assert_eq!(alone.draw(&old, 1, used), Drawn::Granted { used });
    }
    assert!(matches!(
        alone.draw(&new, 1, 10),
        Drawn::Refused { used: 3, .. }
    ));
    assert_eq!(alone.draw(&old, 1, 11), Drawn::Granted { used: 4 });
}

#[test]
fn a_mode_that_lets_through_counts_what_it_lets_through() {
    let rule = Rule {
        mode: Mode::Shadow,
        ..rule(2)
    };
    let mut alone = Alone::new(&rule);
    for used in 1..=6 {
        let drawn = alone.draw(&rule, 1, 0);
        let expected = match used > 2 {
            true => matches!(drawn, Drawn::Refused { used: found, .. } if found == used),
            false => drawn == Drawn::Granted { used },
        };
        assert!(expected, "{used}: {drawn:?}");
    }
    let now = alone.began + Duration::from_millis(1);
    let ask = alone.ledger.tell(now).unwrap();
    assert_eq!(ask.lease.forced, 4);
    assert_eq!(alone.window.lease(&ask.lease, 1_000_001).counted, 6);
}

#[test]
fn without_the_store_each_replica_has_its_part_and_tells_of_it_later() {
    for (when_down, passes) in [
        (WhenDown::Local, Some(5)),
        (WhenDown::Allow, Some(50)),
        (WhenDown::Deny, None),
    ] {
        let rule = Rule {
            when_down,
            ..rule(20)
        };
        let began = Instant::now();
        let mut ledger = Ledger::new(&rule, began);
        assert_eq!(ledger.draw(&rule, 1, 4, began), Attempt::Short(1));
        let ask = ledger.ask(1, 4, began).unwrap();
        ledger.failed(&ask, true, began);
        ledger.asked();
        // It is asked again soon, and nobody waits for that.
        assert!(!ledger.runs_low(began));
        assert!(ledger.runs_low(began + DOWN_AT_MOST));
        let mut passed = 0;
        let mut answers = (0..50).map(|_| ledger.draw(&rule, 1, 4, began));
        let last = answers.find(|answer| {
            let granted = matches!(answer, Attempt::Decided(Drawn::Granted { .. }));
            passed += u64::from(granted);
            !granted
        });
        match passes {
            Some(passes) => assert_eq!(passed, passes, "{when_down:?}"),
            None => assert_eq!(last, Some(Attempt::Denied)),
        }
        let told = ledger.tell(began + DOWN_AT_MOST);
        assert_eq!(told.map(|ask| ask.lease.forced), passes);
    }
}

const DOWN_AT_MOST: Duration = Duration::from_millis(500);
