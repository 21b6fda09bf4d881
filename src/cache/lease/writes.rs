//! What leases add to writes: a refill ends its lease, and whatever lets an entry's
//! absence pass for what it was forgets its lease. It does not know who writes.

use super::LEASE_MS;
use crate::store::{Action, Check, Expiry, Key, Table, Write};

/// The writes of a refill under the lease of this version: `put` of the entry, and
/// the end of the lease, where that is above what is `void`.
pub(in crate::cache) fn refill(put: Write, version: u64, void: u64) -> Vec<Write> {
    let lease = Key::new(Table::Refill, put.key.path.clone());
    vec![
        put.when(Check::Absent).above(version),
        Write::delete(lease)
            .when(Check::Version(version))
            .above(void),
    ]
}

/// Whether these are the writes of a refill: they say themselves what is hidden from
/// them, and what becomes of the lease.
pub(in crate::cache) fn is_refill(writes: &[Write]) -> bool {
    writes.iter().any(|write| write.key.table == Table::Refill)
}

/// Removes the leases of entries whose absence would else pass, within a lease's
/// time, for what it was when the lease was granted: those that are removed, and
/// those that are set or touched to end that soon. Comes after the writes, and
/// before them nothing changes.
pub(in crate::cache) fn forget_leases(writes: &mut Vec<Write>) {
    let soon = |expiry: &Expiry| match expiry {
        Expiry::Never => false,
        Expiry::AfterMs(after_ms) | Expiry::Lingering { after_ms, .. } => after_ms < LEASE_MS.end(),
    };
    let forgets = |write: &&Write| {
        write.key.table == Table::Entry
            && match &write.action {
                Action::Delete | Action::Take | Action::Renew => true,
                Action::Put { expiry, .. } | Action::Touch(expiry) => soon(expiry),
                Action::Nothing => false,
            }
    };
    let lease = |write: &Write| Write::delete(Key::new(Table::Refill, write.key.path.clone()));
    let leases: Vec<_> = writes.iter().filter(forgets).map(lease).collect();
    writes.extend(leases);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_an_entry_soon_forgets_its_lease() {
        let put = |expiry| Write::put(Key::entry("n", "k"), "v").expiring(expiry);
        let touch = |expiry| {
            let key = Key::entry("n", "k");
            Write::new(key, Check::Any, Action::Touch(expiry))
        };
        let lingering = |after_ms| Expiry::Lingering {
            after_ms,
            linger_ms: 1 << 40,
        };
        let control = Key::new(Table::Control, "c");
        for (write, forgets) in [
            (Write::delete(Key::entry("n", "k")), true),
            (Write::delete(control), false),
            (Write::check(Key::entry("n", "k"), Check::Absent), false),
            (put(Expiry::Never), false),
            (put(Expiry::AfterMs(1)), true),
            (put(Expiry::AfterMs(59_999)), true),
            (put(Expiry::AfterMs(60_000)), false),
            (put(lingering(59_999)), true),
            (touch(Expiry::Never), false),
            (touch(Expiry::AfterMs(59_999)), true),
            (touch(Expiry::AfterMs(60_000)), false),
        ] {
            let mut writes = vec![write];
            forget_leases(&mut writes);
            let added: Vec<_> = writes.iter().skip(1).map(|write| &write.key).collect();
            let lease = Key::refill("n", "k");
            let wanted: &[&Key] = if forgets { &[&lease] } else { &[] };
            assert_eq!(added, wanted, "{:?}", writes.first());
        }
    }
}
