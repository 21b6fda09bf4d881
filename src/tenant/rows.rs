//! Where usage is kept: the names of rows, counters and windows, all in the
//! meter space of the tenant ([`Space::meters`](crate::store::Space::meters)).
//! It does not know what they hold.

use bytes::Bytes;

use super::{Account, period::Period};
use crate::store::{Add, Count, Incarnation, Key, Row, Table, Unit};

/// Operations of reads, and reported ones; those of writes are metered by their
/// commits.
pub(super) const OPERATIONS: &str = "operations";
/// Keys read and found.
pub(super) const HITS: &str = "hits";
/// Keys read and not found.
pub(super) const MISSES: &str = "misses";
/// Calls refused for a quota or a rate.
pub(super) const THROTTLED: &str = "throttled";
/// Bytes that readers sent; those of writes are metered by their commits.
pub(super) const BYTES_IN: &str = "bytes_in";
/// Bytes that callers were sent.
pub(super) const BYTES_OUT: &str = "bytes_out";
/// Bytes whose transfer was reported.
pub(super) const REPORTED_BYTES: &str = "reported_bytes";
/// Milliseconds of computing that were reported.
pub(super) const COMPUTE_MS: &str = "compute_ms";

/// Goes before the names of the platform's own metrics.
const CUSTOM: &str = "x:";

/// The counter of a metric of the platform's own.
pub(super) fn custom(metric: &str) -> Bytes {
    format!("{CUSTOM}{metric}").into()
}

/// The metric of the platform's own that a counter is of.
pub(super) fn custom_of(counter: &[u8]) -> Option<&str> {
    std::str::from_utf8(counter.strip_prefix(CUSTOM.as_bytes())?).ok()
}

/// What a tenant came to in the unit of time that began then.
pub(super) fn point(incarnation: Incarnation, unit: Unit, start_ms: u64) -> Bytes {
    let mark = match unit {
        Unit::Minute => 'm',
        Unit::Hour => 'h',
        Unit::Day => 'd',
    };
    format!("{mark}:{incarnation}:{}", start_ms / unit.ms()).into()
}

/// What a tenant came to in a period, in its part with this number (see
/// `Tenant::segments`).
pub(super) fn period(incarnation: Incarnation, period: Period, segment: u32) -> Bytes {
    format!("b:{incarnation}:{period}:{segment}").into()
}

/// How long a period's rows are kept.
const PERIOD_KEPT_MS: u64 = 400 * Unit::Day.ms();

/// What adds these counts to all the rows that this moment belongs to: its minute,
/// hour and day, and its period, in the segment that is billed now.
pub(super) fn adds(account: &Account, at_ms: u64, counts: &[Count]) -> [Add; 4] {
    adds_in(account.incarnation, account.segment(), at_ms, counts)
}

/// The same in a segment of the period.
pub(super) fn adds_in(
    incarnation: Incarnation,
    segment: u32,
    at_ms: u64,
    counts: &[Count],
) -> [Add; 4] {
    let of_unit = |unit: Unit| Add {
        row: point(incarnation, unit, unit.start_ms(at_ms)),
        // One more, so that the oldest is whole.
        keep_ms: Some((unit.kept() + 1) * unit.ms()),
        counts: counts.to_vec(),
    };
    let [minute, hour, day] = Unit::ALL.map(of_unit);
    let of_period = Add {
        row: period(incarnation, Period::of(at_ms), segment),
        keep_ms: Some(PERIOD_KEPT_MS),
        counts: counts.to_vec(),
    };
    [minute, hour, day, of_period]
}

/// Bytes of all calls and reports in a period: what the quota of transfer is
/// decided by, on every replica. Neither billed nor shown, so that it may lack the
/// last second of a replica that was killed; no part of any segment.
pub(super) fn transfer(incarnation: Incarnation, period: Period) -> Bytes {
    format!("t:{incarnation}:{period}").into()
}

/// The one counter of a transfer row.
const TRANSFER: &str = "bytes";

/// The figure of a transfer row.
pub(super) fn transfer_of(row: &Row) -> u64 {
    let counter = row.iter().find(|(name, _)| name == TRANSFER);
    counter.map_or(0, |(_, bytes)| *bytes)
}

/// What adds bytes to the transfer of this moment's period.
pub(super) fn transfer_add(incarnation: Incarnation, at_ms: u64, bytes: u64) -> Add {
    let period = Period::of(at_ms);
    Add {
        row: transfer(incarnation, period),
        // Beyond the period's end nobody asks for it.
        keep_ms: Some(period.ms() + Unit::Day.ms()),
        counts: vec![count(TRANSFER, bytes)],
    }
}

/// An amount for a counter without a limit.
pub(super) fn count(name: impl Into<Bytes>, amount: u64) -> Count {
    Count {
        name: name.into(),
        amount: i64::try_from(amount).unwrap_or(i64::MAX),
        limit: None,
    }
}

/// What must be absent where counts of this moment are added now: only a period
/// that is over can be closing.
pub(super) fn bar(incarnation: Incarnation, at_ms: u64, now_ms: u64) -> Option<Key> {
    let period = Period::of(at_ms);
    (period < Period::of(now_ms)).then(|| closing(incarnation, period))
}

/// The levels of the platform's own metrics.
pub(super) fn levels(incarnation: Incarnation) -> Bytes {
    format!("l:{incarnation}").into()
}

/// The window of a rate.
pub(super) fn window(incarnation: Incarnation, metric: &str) -> Bytes {
    format!("{incarnation}:{metric}").into()
}

/// Says that a period of a tenant is being closed: from the commit that puts it,
/// nothing is added to the period's rows.
pub(super) fn closing(incarnation: Incarnation, period: Period) -> Key {
    Key::new(
        Table::Control,
        format!("closing:{period}:{incarnation}").into_bytes(),
    )
}

/// Says that a tenant's rows are being copied: while it is there no event is added to
/// them, so that the copy holds each event in all its rows or in none.
pub(super) fn copying(incarnation: Incarnation) -> Key {
    Key::new(
        Table::Control,
        format!("copying:{incarnation}").into_bytes(),
    )
}

/// The closed statement of a tenant's period.
pub(super) fn statement(incarnation: Incarnation, period: Period) -> Key {
    Key::new(
        Table::Statement,
        format!("{period}:{incarnation}").into_bytes(),
    )
}
