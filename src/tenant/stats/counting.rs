//! What a call of the cache counts: on the tenant's meter, and in the statistics
//! of its namespace. It does not know which call.

use super::{Deeds, Way};
use crate::tenant::{Account, Counts, Tenancy};

impl Account {
    /// Counts what was done in a namespace beside any call.
    pub fn count(&self, namespace: &str, deeds: &Deeds) {
        self.stats.count(namespace, deeds, None);
        self.meter.enqueue();
    }
}

impl Tenancy {
    /// Counts a call that read from a namespace and was answered.
    pub fn count_read(&self, namespace: &str, counts: Counts) {
        let deeds = Deeds {
            hits: counts.hits,
            near_hits: counts.near_hits,
            misses: counts.misses,
            ..Deeds::default()
        };
        self.account
            .stats
            .count(namespace, &deeds, self.took(Way::Read));
        // It queues the account, so it comes last.
        self.account.meter.count(counts);
    }

    /// Counts what a call that wrote to a namespace did there.
    pub fn count_written(&self, namespace: &str, deeds: &Deeds) {
        self.account
            .stats
            .count(namespace, deeds, self.took(Way::Write));
        self.account.meter.enqueue();
    }

    fn took(&self, way: Way) -> Option<(Way, std::time::Duration)> {
        Some((way, self.began?.elapsed()))
    }
}
