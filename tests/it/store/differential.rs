//! Random batches for both backends, and every reply compared. It does not know
//! which of them is right; that is the conformance suite's business.

mod counting;
mod operations;

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::test_runner::{Config, TestRunner};
use riptide_persistence::store::{
    Action, Applied, Batch, Check, Commit, Expiry, Handle, Incarnation, Key, Listed, Mode, Outcome,
    Query, Reclaim, Space, Table, Usage, View, Write, embedded::Embedded,
};

use self::operations::{Commitment, Draft, Lookup, Operation, PATHS, Seen, operations};

/// The two backends, and what both are at.
struct Pair {
    stores: [Handle; 2],
    space: Space,
    view: View,
}

impl Pair {
    /// Does the same to both and demands the same reply.
    async fn same<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        ask: impl AsyncFn(&Handle) -> T,
    ) -> T {
        let [embedded, redis] = [ask(&self.stores[0]).await, ask(&self.stores[1]).await];
        assert_eq!(
            embedded, redis,
            "{what}: embedded says the one, redis the other"
        );
        embedded
    }

    async fn versions(&self, keys: &[Key]) -> Vec<Option<u64>> {
        let read = self.stores[0]
            .read(&self.space, self.view.generation, keys)
            .await
            .unwrap();
        read.records
            .into_iter()
            .map(|record| record.map(|record| record.version))
            .collect()
    }

    async fn commit(&mut self, commitment: &Commitment) {
        let mut drafts = commitment.writes.clone();
        if commitment.each {
            let shows = |draft: &Draft| matches!(draft.action, Action::Renew | Action::Take);
            drafts.retain(|draft| !shows(draft));
        } else {
            let mut seen = BTreeSet::new();
            drafts.retain(|draft| seen.insert(draft.key.clone()));
        }
        let keys: Vec<Key> = drafts.iter().map(|draft| draft.key.clone()).collect();
        let versions = self.versions(&keys).await;
        let writes = drafts.into_iter().zip(versions).map(|(draft, version)| {
            let check = match draft.check {
                Lookup::Check(check) => check,
                Lookup::Present => version.map_or(Check::Absent, Check::Version),
            };
            let floor = if draft.hidden {
                version.unwrap_or(3)
            } else {
                0
            };
            Write::new(draft.key, check, draft.action).above(floor)
        });
        let batch = Batch {
            view: match commitment.seen {
                Seen::Any => None,
                Seen::Present => Some(self.view),
                Seen::Past => Some(View {
                    epoch: self.view.epoch.wrapping_sub(1),
                    ..self.view
                }),
            },
            mode: if commitment.each {
                Mode::Each
            } else {
                Mode::Whole
            },
            limits: commitment.limits,
            step: commitment.step.clone(),
            ..Batch::of(writes)
        };
        let what = format!("{batch:?}");
        let commit =
            async |store: &Handle| coarse(store.commit(&self.space, batch.clone()).await.unwrap());
        if let Commit::Applied(Applied { view, .. }) = self.same(&what, commit).await {
            self.view = view;
        }
    }

    async fn end(&mut self, ending: &[(Key, Expiry)]) {
        let writes = ending
            .iter()
            .map(|(key, expiry)| Write::put(key.clone(), "those that end").expiring(*expiry));
        let batch = Batch {
            mode: Mode::Each,
            ..Batch::of(writes)
        };
        let commit =
            async |store: &Handle| coarse(store.commit(&self.space, batch.clone()).await.unwrap());
        if let Commit::Applied(Applied { view, .. }) = self.same("records that end", commit).await {
            self.view = view;
        }
        for store in &self.stores {
            let over = store.now_ms() + 60 + 75;
            while store.now_ms() <= over {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    }

    async fn reclaim(&self, orphans: bool, prefix: usize, limit: usize) {
        let what = if orphans {
            Reclaim::Orphans {
                below: self.view.generation,
            }
        } else {
            let version = self
                .versions(&PATHS.map(|path| Key::new(Table::Entry, path)))
                .await;
            let version = version.into_iter().flatten().min().unwrap_or(1) + 2;
            Reclaim::Below {
                prefix: Bytes::from_static(&PATHS[prefix][..1]),
                version,
            }
        };
        let pass = async |store: &Handle| {
            let (mut entries, mut bytes, mut after) = (0, 0, None);
            loop {
                let step = store
                    .reclaim(&self.space, what.clone(), after, limit)
                    .await
                    .unwrap();
                entries += step.entries;
                bytes += step.bytes;
                after = step.next;
                if after.is_none() {
                    return (entries, bytes);
                }
            }
        };
        self.same(&format!("{what:?}"), pass).await;
    }

    async fn list(&self, table: Table, prefix: &[u8], limit: usize, value_bytes: usize) {
        let query = Query {
            table,
            generation: self.view.generation,
            prefix: Bytes::copy_from_slice(prefix),
            after: None,
            limit,
            value_bytes,
        };
        // A page may hold fewer than asked for, so whole listings are compared.
        let all = async |store: &Handle| {
            let mut query = query.clone();
            let mut items = Vec::new();
            loop {
                let page = store.list(&self.space, query.clone()).await.unwrap();
                items.extend(page.items.into_iter().map(coarse_item));
                query.after = page.next;
                if query.after.is_none() {
                    break;
                }
            }
            if !table.ordered() {
                items.sort_by(|a, b| a.path.cmp(&b.path));
                items.dedup();
            }
            items
        };
        self.same(&format!("all of {query:?}"), all).await;
    }

    /// Compares everything that is there.
    async fn compare(&self) -> Usage {
        let keys: Vec<Key> = Table::ALL
            .iter()
            .flat_map(|table| PATHS.map(|path| Key::new(*table, path)))
            .collect();
        let read = async |store: &Handle, lingering: bool| {
            let (space, generation) = (&self.space, self.view.generation);
            let read = if lingering {
                store.read_lingering(space, generation, &keys).await
            } else {
                store.read(space, generation, &keys).await
            };
            let mut read = read.unwrap();
            for record in read.records.iter_mut().flatten() {
                record.expire_ms = record.expire_ms.map(coarse_ms);
            }
            read
        };
        self.same("a read of everything", async |store| {
            read(store, false).await
        })
        .await;
        self.same("all that lingers", async |store| read(store, true).await)
            .await;
        let usage = async |store: &Handle| store.usage(&self.space).await.unwrap();
        self.same("usage", usage).await
    }

    /// Compares the counters with the records, too.
    async fn audit(&self) {
        let usage = self.compare().await;
        let audit = async |store: &Handle| {
            let audit = store.audit(&self.space).await.unwrap();
            assert!(audit.agrees(), "{}: {audit:?}", store.backend());
            (audit.counted, audit.found.entries, audit.found.bytes)
        };
        assert_eq!(self.same("audit", audit).await.0, usage);
    }
}

/// Times differ by what lies between the two calls: minutes are compared.
fn coarse_ms(ms: u64) -> u64 {
    (ms + 30_000) / 60_000 / 10
}

fn coarse(mut commit: Commit) -> Commit {
    if let Commit::Applied(applied) = &mut commit {
        for outcome in &mut applied.outcomes {
            match outcome {
                Outcome::Done { expire_ms, .. } => *expire_ms = expire_ms.map(coarse_ms),
                Outcome::Shown(Some(record)) => record.expire_ms = record.expire_ms.map(coarse_ms),
                _ => {}
            }
        }
    }
    commit
}

fn coarse_item(mut item: Listed) -> Listed {
    item.record.expire_ms = item.record.expire_ms.map(coarse_ms);
    item
}

#[test]
fn both_backends_answer_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = crate::redis::Redis::start();
    let embedded: Handle = std::sync::Arc::new(Embedded::in_memory().unwrap());
    let redis: Handle = std::sync::Arc::new(runtime.block_on(super::patient(&server.url())));
    let config = Config {
        cases: 32,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&operations(), |operations| {
            runtime.block_on(async {
                let space = Space::tenant(Incarnation::random());
                let mut pair = Pair {
                    stores: [embedded.clone(), redis.clone()],
                    space,
                    view: View::default(),
                };
                for operation in operations {
                    match operation {
                        Operation::Commit(commitment) => pair.commit(&commitment).await,
                        Operation::Ending(ending) => pair.end(&ending).await,
                        Operation::Reclaim {
                            orphans,
                            prefix,
                            limit,
                        } => pair.reclaim(orphans, prefix, limit).await,
                        Operation::List {
                            table,
                            prefix,
                            limit,
                            value_bytes,
                        } => {
                            let prefix = PATHS.get(prefix).map_or(&b""[..], |path| &path[..1]);
                            pair.list(table, prefix, limit, value_bytes).await;
                        }
                    }
                    pair.compare().await;
                }
                pair.audit().await;
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        embedded.close().await.unwrap();
        redis.close().await.unwrap();
    });
}
