//! What was let through and when, seen from the callers, and how full any window
//! of time certainly was. It does not know who let it through.

use std::time::Duration;

/// What was let through: it took effect at some moment from when it was sent until
/// it was answered, on a clock that all callers share.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    pub sent: Duration,
    pub answered: Duration,
    pub amount: u64,
}

/// All that was let through.
pub struct Tide {
    span: Duration,
    /// By when it was sent, and by when it was answered: the moment, and the amounts
    /// up to it and with it.
    sent: Vec<(Duration, u64)>,
    answered: Vec<(Duration, u64)>,
}

impl Tide {
    /// Prepares to look at windows of this span.
    pub fn new(passed: &[Passed], span: Duration) -> Self {
        // What took as long as a window is in no window for certain.
        let brief = || passed.iter().filter(|one| one.answered - one.sent < span);
        Self {
            span,
            sent: summed(brief().map(|one| (one.sent, one.amount)).collect()),
            answered: summed(brief().map(|one| (one.answered, one.amount)).collect()),
        }
    }

    /// What certainly took effect in the window that begins at `start`: sent in it,
    /// and answered in it. (What was answered before its end, less what was sent
    /// before its start: the latter is part of the former.)
    pub fn certain(&self, start: Duration) -> u64 {
        before(&self.answered, start + self.span) - before(&self.sent, start)
    }

    /// What may have taken effect in the window: sent before its end, and answered
    /// after its start.
    pub fn possible(&self, start: Duration) -> u64 {
        before(&self.sent, start + self.span) - before(&self.answered, start)
    }

    /// The fullest window: what was certainly in it.
    pub fn high(&self) -> u64 {
        // It begins with something, or could as well.
        let starts = self.sent.iter().map(|(start, _)| *start);
        starts.map(|start| self.certain(start)).max().unwrap_or(0)
    }

    /// The mean over windows that begin from 0 until `last`, every hundredth of it.
    pub fn mean(&self, last: Duration) -> f64 {
        let starts = (0..=100).map(|part| last * part / 100);
        starts.map(|start| self.certain(start) as f64).sum::<f64>() / 101.0
    }

    /// What was answered before this moment.
    pub fn total(&self, end: Duration) -> u64 {
        before(&self.answered, end)
    }
}

fn summed(mut moments: Vec<(Duration, u64)>) -> Vec<(Duration, u64)> {
    moments.sort_unstable();
    let mut sum = 0;
    for (_, amount) in &mut moments {
        sum += *amount;
        *amount = sum;
    }
    moments
}

fn before(sums: &[(Duration, u64)], moment: Duration) -> u64 {
    let count = sums.partition_point(|(at, _)| *at < moment);
    count.checked_sub(1).map_or(0, |last| sums[last].1)
}

#[test]
fn a_window_too_full_is_noticed() {
    let ms = Duration::from_millis;
    let passed = |sent, answered, amount| Passed {
        sent: ms(sent),
        answered: ms(answered),
        amount,
    };
    // 3 and 4 are within a second of each other for certain; 5 only perhaps; 9 took
    // longer than any window.
    let all = [
        passed(100, 110, 3),
        passed(1000, 1050, 4),
        passed(1090, 1130, 5),
        passed(0, 2000, 9),
    ];
    let tide = Tide::new(&all, ms(1000));
    assert_eq!(tide.high(), 9, "the last two");
    assert_eq!(Tide::new(&all[..2], ms(1000)).high(), 7);
    assert_eq!(tide.certain(ms(100)), 7);
    assert_eq!(tide.possible(ms(100)), 12);
    assert_eq!(Tide::new(&all[..2], ms(900)).high(), 4);
    assert_eq!((tide.total(ms(110)), tide.total(ms(111))), (0, 3));
}
