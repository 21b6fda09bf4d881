//! Puts all figures on one sheet. It does not know how they are written.

use std::{borrow::Cow, collections::BTreeMap, sync::atomic::Ordering, time::UNIX_EPOCH};

use super::{Metrics, Process, Said, Sources, family as f, sheet::Sheet};
use crate::{
    cache::{Group, Near},
    client::Reason,
    grpc::CODE_NAMES,
    state::Outcome,
    store::{Connections, Ended},
    tenant::traffic::{OTHER, Sums, Told},
};

/// A label's value that is known when this is built.
fn word(text: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(text)
}

impl Metrics {
    /// All figures, and what the store said of itself.
    pub(super) fn gather(&self, said: &Said) -> Sheet {
        let mut sheet = Sheet::default();
        let sources = &self.sources;
        sources.calls(&mut sheet);
        sources.tenants(&mut sheet);
        sources.caches(&mut sheet);
        sources.store(&mut sheet, said);
        sources.ties(&mut sheet);
        sources.limits(&mut sheet);
        sources.configuration(&mut sheet);
        sources.checkpoints(&mut sheet);
        sources.audit(&mut sheet);
        sources.sessions(&mut sheet);
        sources.whole(&mut sheet);
        process(&mut sheet);
        sheet
    }
}

impl Sources {
    fn calls(&self, sheet: &mut Sheet) {
        for calls in self.calls.calls() {
            let rpc = calls.rpc;
            let labels = || [rpc.streams.name(), rpc.service, rpc.name].map(word);
            sheet.put(&f::GRPC_STARTED, labels(), calls.started);
            sheet.put(&f::GRPC_RECEIVED, labels(), calls.received);
            sheet.put(&f::GRPC_SENT, labels(), calls.sent);
            for (at, (code, count)) in CODE_NAMES.iter().zip(calls.handled).enumerate() {
                // That of OK is there from the start, so that each RPC has one.
                if at == 0 || count > 0 {
                    let [kind, service, name] = labels();
                    let labels = [kind, service, name, word(code)];
                    sheet.put(&f::GRPC_HANDLED, labels, count);
                }
            }
            if calls.took.count() > 0 {
                sheet.put(&f::GRPC_HANDLING, labels(), calls.took);
            }
        }
        let connections = self.connections.load(Ordering::Relaxed);
        sheet.one(&f::GRPC_CONNECTIONS, connections);
        sheet.one(&f::GRPC_IN_FLIGHT, self.in_flight.now());
        let refusals = self.calls.refusals();
        for reason in Reason::ALL {
            let reason = reason.as_str();
            let count = refusals.get(reason).copied().unwrap_or_default();
            sheet.put(&f::GRPC_REFUSALS, [word(reason)], count);
        }
    }

    fn tenants(&self, sheet: &mut Sheet) {
        let Told { tenants, others } = self.directory.traffic().told();
        let named = tenants.iter().map(|(name, sums)| (name.to_string(), sums));
        for (name, sums) in named.chain([(OTHER.to_owned(), &others)]) {
            let Sums {
                operations,
                errors,
                throttled,
                hits,
                misses,
                received_bytes,
                sent_bytes,
            } = *sums;
            for (family, sum) in [
                (&f::TENANT_OPERATIONS, operations),
                (&f::TENANT_ERRORS, errors),
                (&f::TENANT_THROTTLED, throttled),
                (&f::TENANT_HITS, hits),
                (&f::TENANT_MISSES, misses),
                (&f::TENANT_RECEIVED, received_bytes),
                (&f::TENANT_SENT, sent_bytes),
            ] {
                sheet.put(family, [name.clone().into()], sum);
            }
        }
    }

    fn caches(&self, sheet: &mut Sheet) {
        let deeds = self.directory.traffic().deeds();
        for (result, count) in [
            ("near_hit", deeds.near_hits),
            ("hit", deeds.hits.saturating_sub(deeds.near_hits)),
            ("miss", deeds.misses),
        ] {
            sheet.put(&f::CACHE_READS, [word(result)], count);
        }
        for (kind, count) in [("set", deeds.sets), ("delete", deeds.deletes)] {
            sheet.put(&f::CACHE_WRITES, [word(kind)], count);
        }
        for (group, name, count) in self.memory.doings() {
            let family = match group {
                Group::Writes => &f::CACHE_WRITES,
                Group::Invalidations => &f::CACHE_INVALIDATIONS,
                Group::Leases => &f::CACHE_LEASES,
                Group::Warmed => &f::CACHE_WARMED,
            };
            sheet.put(family, [word(name)], count);
        }
        sheet.one(&f::CACHE_WATCHERS, self.memory.watchers());
        let near = self.memory.near();
        let left = near.map(Near::left).unwrap_or_default();
        sheet.one(&f::CACHE_NEAR_EVICTIONS, left.evicted);
        sheet.one(&f::CACHE_NEAR_INVALIDATIONS, left.told);
        let (entries, bytes) = near.map_or((0, 0), |near| near.size());
        sheet.one(&f::CACHE_NEAR_ENTRIES, entries);
        sheet.one(&f::CACHE_NEAR_BYTES, bytes);
        let most = self.configuration.config().cache.near.max_bytes;
        sheet.one(&f::CACHE_NEAR_MAX, near.map_or(0, |_| most));
    }

    fn store(&self, sheet: &mut Sheet, said: &Said) {
        let mut methods: BTreeMap<&str, Ended> = BTreeMap::new();
        let mut leases = 0;
        for counters in &self.counters {
            for (method, ended) in counters.ended() {
                let outcomes = ended.outcomes.clone();
                let sum = match methods.get_mut(method) {
                    Some(sum) => {
                        sum.took.merge(&ended.took);
                        sum
                    }
                    None => methods.entry(method).or_insert(Ended {
                        outcomes: Vec::new(),
                        ..ended
                    }),
                };
                for (outcome, count) in outcomes {
                    match sum.outcomes.iter_mut().find(|(known, _)| *known == outcome) {
                        Some((_, sum)) => *sum += count,
                        None => sum.outcomes.push((outcome, count)),
                    }
                }
            }
            leases += counters.calls().lease;
        }
        for (method, ended) in methods {
            for (outcome, count) in ended.outcomes {
                let labels = [method.to_owned().into(), word(outcome)];
                sheet.put(&f::STORE_CALLS, labels, count);
            }
            if ended.took.count() > 0 {
                sheet.put(&f::STORE_SECONDS, [method.to_owned().into()], ended.took);
            }
        }
        sheet.one(&f::RATE_LEASES, leases);
        sheet.one(&f::STORE_UP, self.health.store_serves());
        if let Some(exact) = said.exact {
            sheet.one(&f::STORE_EXACT, exact);
        }
        for (family, gauge) in [
            (&f::STORE_KEYS, said.gauges.records),
            (&f::STORE_USED, said.gauges.used_bytes),
            (&f::STORE_MAX, said.gauges.limit_bytes),
        ] {
            if let Some(gauge) = gauge {
                sheet.one(family, gauge);
            }
        }
    }

    /// How all cores are tied to the store.
    fn ties(&self, sheet: &mut Sheet) {
        let ties = self.handles.ties();
        if self.memory.near().is_some() {
            sheet.one(&f::CACHE_NEAR_VOUCHED, ties.vouches);
        }
        for Connections { role, open, remade } in ties.connections {
            sheet.put(&f::REDIS_CONNECTIONS, [word(role)], open);
            sheet.put(&f::REDIS_RECONNECTS, [word(role)], remade);
        }
    }

    fn limits(&self, sheet: &mut Sheet) {
        for (metric, [refused, warned]) in self.directory.traffic().limits() {
            sheet.put(&f::QUOTA_REFUSALS, [word(metric)], refused);
            sheet.put(&f::QUOTA_WARNINGS, [word(metric)], warned);
        }
        let flushes = self.directory.flushes();
        sheet.put(&f::METER_FLUSHES, [word("ok")], flushes.good);
        sheet.put(&f::METER_FLUSHES, [word("failed")], flushes.failed);
        if let Some(since) = flushes.since_good {
            sheet.one(&f::METER_OLDEST, since.as_secs_f64());
        }
    }

    fn configuration(&self, sheet: &mut Sheet) {
        for (outcome, count) in self.configuration.reloads() {
            sheet.put(&f::CONFIG_RELOADS, [word(outcome.name())], count);
        }
        let in_force = self.configuration.in_force();
        let last = in_force.last_reload.as_ref();
        let good = last.is_none_or(|last| last.outcome != Outcome::Rejected);
        sheet.one(&f::CONFIG_LAST_GOOD, good);
        let loaded = in_force.load_time.duration_since(UNIX_EPOCH);
        let loaded = loaded.unwrap_or_default().as_secs_f64();
        sheet.one(&f::CONFIG_LAST_TIME, loaded);
        let [refused, expire_s] = &self.tls;
        sheet.one(&f::TLS_REFUSED, refused.load(Ordering::Relaxed));
        match expire_s.load(Ordering::Relaxed) {
            // A time long ago would be an alert.
            0 => {}
            expire_s => sheet.one(&f::TLS_EXPIRY, expire_s),
        }
    }

    fn checkpoints(&self, sheet: &mut Sheet) {
        for (kind, [taken, failed]) in self.checkpoints.checkpoints() {
            sheet.put(&f::CHECKPOINTS, [word(kind), word("taken")], taken);
            sheet.put(&f::CHECKPOINTS, [word(kind), word("failed")], failed);
        }
        sheet.one(&f::CHECKPOINT_TOOK, self.checkpoints.took());
        if let Some((at, bytes)) = self.checkpoints.last() {
            sheet.one(&f::CHECKPOINT_LAST, at);
            sheet.one(&f::CHECKPOINT_BYTES, bytes);
        }
        let [done, failed] = self.checkpoints.restores();
        sheet.put(&f::RESTORES, [word("done")], done);
        sheet.put(&f::RESTORES, [word("failed")], failed);
    }

    fn audit(&self, sheet: &mut Sheet) {
        let events = self.directory.audit().counts();
        sheet.put(&f::AUDIT, [word("kept")], events.kept);
        sheet.put(&f::AUDIT, [word("lost")], events.lost);
    }

    fn sessions(&self, sheet: &mut Sheet) {
        sheet.one(&f::SESSIONS_CREATED, self.sessions.creations());
        for (cause, count) in self.sessions.terminations() {
            sheet.put(&f::SESSIONS_TERMINATED, [word(cause)], count);
        }
    }

    fn whole(&self, sheet: &mut Sheet) {
        for (service, trouble) in self.health.components() {
            let name = if service.is_empty() { "all" } else { service };
            sheet.put(&f::HEALTH, [word(name)], trouble.is_none());
        }
        let labels = [
            env!("CARGO_PKG_VERSION"),
            env!("RIPTIDE_COMMIT"),
            self.about.backend,
        ];
        sheet.put(&f::BUILD, labels.map(word), 1_u64);
        for runtime in self.runtimes.now() {
            let name = || [Cow::Owned(runtime.name.clone())];
            sheet.put(&f::RUNTIME_TASKS, name(), runtime.tasks);
            sheet.put(&f::RUNTIME_BUSY, name(), runtime.busy_seconds);
        }
    }
}

fn process(sheet: &mut Sheet) {
    let now = Process::now();
    for (family, amount) in [
        (&f::PROCESS_CPU, now.cpu_seconds),
        (&f::PROCESS_START, now.start_seconds),
    ] {
        if let Some(amount) = amount {
            sheet.one(family, amount);
        }
    }
    for (family, count) in [
        (&f::PROCESS_RESIDENT, now.resident_bytes),
        (&f::PROCESS_VIRTUAL, now.virtual_bytes),
        (&f::PROCESS_FDS, now.open_fds),
        (&f::PROCESS_MAX_FDS, now.max_fds),
        (&f::PROCESS_THREADS, now.threads),
    ] {
        if let Some(count) = count {
            sheet.one(family, count);
        }
    }
}
