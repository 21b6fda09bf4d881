//! What no backend takes: calls that break the port's contract on tallies, rows,
//! leases and pins. It does not know what a backend does with the sound ones.

use std::collections::HashSet;

use bytes::Bytes;

use super::{
    Batch, Error, Inheritance, Keep, Lease, MAX_PINS, MAX_WRITES, METER_SPACES, Metered, Pin,
    Recall, Result, Tally, pin::KEPT_MS,
};

/// Counts of one tally, at most.
const MAX_COUNTS: usize = 256;
/// Counts of one row in a tally, at most.
const MAX_ROW_COUNTS: usize = 64;
/// Rows of one call, at most.
const MAX_ROWS: usize = 1000;
/// Bytes of a name of a row, a counter, a window, a source or an event, at most.
const MAX_NAME_BYTES: usize = 1024;
/// The spans that a window can have.
const SPANS_MS: std::ops::RangeInclusive<u64> = 1_000..=31 * 86_400_000;

/// No version comes near.
const MAX_VERSION: u64 = 1 << 53;

fn misuse<T>(words: String) -> Result<T> {
    Err(Error::Misuse(words))
}

fn name(what: &str, name: &Bytes) -> Result<()> {
    match name.len() {
        1..=MAX_NAME_BYTES => Ok(()),
        bytes => misuse(format!(
            "the name of a {what} has {bytes} bytes; 1 to {MAX_NAME_BYTES}"
        )),
    }
}

/// Whether a tally keeps to the contract.
pub(super) fn tally(tally: &Tally) -> Result<()> {
    if let Some(stamp) = &tally.stamp {
        name("source", &stamp.source)?;
        if stamp.sequence == 0 {
            return misuse("a stamp of sequence 0; they begin at 1".into());
        }
    }
    if let Some(once) = &tally.once {
        name("tally", &once.name)?;
        if once.keep_ms == 0 {
            return misuse("a tally remembered for no time; at least 1 ms".into());
        }
    }
    if tally.absent.iter().any(|key| key.path.is_empty()) {
        return misuse("a key without a path".into());
    }
    let counts: usize = tally.adds.iter().map(|add| add.counts.len()).sum();
    // A row without counts is a key of the script all the same.
    let places = counts.max(tally.adds.len()).max(tally.absent.len());
    if places > MAX_COUNTS {
        return misuse(format!(
            "{places} counts, rows or keys in a tally; at most {MAX_COUNTS}"
        ));
    }
    for add in &tally.adds {
        name("row", &add.row)?;
        if add.keep_ms == Some(0) {
            return misuse("a row kept for no time; at least 1 ms".into());
        }
        if add.counts.len() > MAX_ROW_COUNTS {
            return misuse(format!(
                "{} counts of one row in a tally; at most {MAX_ROW_COUNTS}",
                add.counts.len()
            ));
        }
        let mut seen = HashSet::new();
        for count in &add.counts {
            name("counter", &count.name)?;
            if !seen.insert(&count.name) {
                return misuse("a counter is named twice for one row".into());
            }
        }
    }
    Ok(())
}

/// Whether a batch can make a space inherit this.
pub(super) fn inheritance(batch: &Batch, inheritance: &Inheritance) -> Result<()> {
    if !batch.writes.is_empty() || batch.note.is_some() || batch.metered != Metered::default() {
        return misuse("a space inherits in a batch that does nothing else".into());
    }
    if inheritance.version >= MAX_VERSION {
        return misuse(format!(
            "an inherited version of {}; below 2^53",
            inheritance.version
        ));
    }
    Ok(())
}

/// Whether these rows can be asked for.
pub(super) fn rows(names: &[Bytes]) -> Result<()> {
    if names.len() > MAX_ROWS {
        return misuse(format!(
            "{} rows in a call; at most {MAX_ROWS}",
            names.len()
        ));
    }
    names.iter().try_for_each(|row| name("row", row))
}

/// Whether names can be asked for so.
pub(super) fn recall(recall: &Recall) -> Result<()> {
    if !(1..=1000).contains(&recall.limit) {
        return misuse("a page has 1 to 1000 names".into());
    }
    let spaces = recall.spaces.len();
    if !(1..=METER_SPACES).contains(&spaces) {
        return misuse(format!("{spaces} spaces in a walk; 1 to {METER_SPACES}"));
    }
    let mut seen = HashSet::new();
    if !recall.spaces.iter().all(|space| seen.insert(space)) {
        return misuse("a space is named twice in one walk".into());
    }
    Ok(())
}

/// Whether a lease keeps to the contract.
pub(super) fn lease(lease: &Lease) -> Result<()> {
    name("window", &lease.window)?;
    if !SPANS_MS.contains(&lease.span_ms) {
        return misuse(format!(
            "a window of {} ms; {} to {}",
            lease.span_ms,
            SPANS_MS.start(),
            SPANS_MS.end()
        ));
    }
    if lease.least > lease.want {
        return misuse(format!(
            "{} permits at least, and only {} wanted",
            lease.least, lease.want
        ));
    }
    if lease.share == 0 {
        return misuse("a share of 0; 1 gives all".into());
    }
    if lease.hold_ms > lease.span_ms / 10 {
        return misuse(format!(
            "a hold of {} ms; at most a tenth of the span",
            lease.hold_ms
        ));
    }
    Ok(())
}

/// Whether one commit takes so many writes.
pub(super) fn writes(batch: &Batch) -> Result<()> {
    match batch.writes.len() {
        0..=MAX_WRITES => Ok(()),
        writes => misuse(format!("{writes} writes in a batch; at most {MAX_WRITES}")),
    }
}

/// Whether a pin can be kept so.
pub(super) fn keep(keep: Keep) -> Result<()> {
    if KEPT_MS.contains(&keep.for_ms) {
        return Ok(());
    }
    misuse(format!(
        "a pin kept for {} ms; {} to {}",
        keep.for_ms,
        KEPT_MS.start(),
        KEPT_MS.end()
    ))
}

/// Whether a page of pins can be asked for.
pub(super) fn pinned(pins: &[Pin], limit: usize) -> Result<()> {
    if !(1..=1000).contains(&limit) {
        return misuse("a page has 1 to 1000 records".into());
    }
    if !(1..=MAX_PINS).contains(&pins.len()) {
        return misuse(format!("{} pins in a walk; 1 to {MAX_PINS}", pins.len()));
    }
    let mut seen = HashSet::new();
    if !pins.iter().all(|pin| seen.insert(&pin.space)) {
        return misuse("a space is named twice in one walk".into());
    }
    Ok(())
}

/// A cursor that nobody gave.
pub(super) fn cursor() -> Error {
    Error::Misuse("the cursor is not one of this walk".into())
}
