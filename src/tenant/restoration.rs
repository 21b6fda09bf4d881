//! A tenant that comes back from a copy, or whose data do: what its record becomes, and
//! the commits that move it to new spaces. It does not know where the copy was kept.
//!
//! A tenant is moved in steps of which each can be repeated by whoever comes after a
//! crash, and between which it is wholly as it was, or wholly as it is to be:
//! 1. new spaces are filled that nobody looks into ([`Tenants::found`]);
//! 2. the old ones are fenced: what is acknowledged there from now on would be lost;
//! 3. the new cache takes over the meters, so that what is billed goes on from there;
//! 4. one commit of the registry puts the record that names the new spaces;
//! 5. the old spaces are removed, and whoever has not heard yet is told so by them.

mod secret;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    DataKey, Encryption, Homes, Tenant, Tenants, purge,
    reclaim::{self, Site},
    record::{self, RESTORED_FORMAT},
};
use crate::{
    error::{Error, Result},
    store::{
        Batch, Check, Commit, Heritage, Incarnation, Inheritance, Key, Limits, Refusal, Space,
        Step, Table, Unit, View, Write,
    },
};

/// What is put between the last version that is known of a space and the first of the
/// one that takes its place: more than is written while that is filled, so that no
/// caller takes an entry for one that it has seen.
const GAP: u64 = 1 << 32;

/// The greatest version that a gap is put above.
const MAX_VERSION: u64 = 1 << 52;

/// Records of one commit.
const RECORDS: usize = 100;

/// What became of a commit that moves a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is moved, and the first write's record has this version.
    Done(u64),
    /// The first write was refused: another does the work.
    Overtaken,
    /// The tenant is another by now.
    Changed,
}

/// How a tenant's record is put.
#[derive(Debug)]
pub struct Settlement {
    /// The record.
    pub tenant: Tenant,
    /// The tenant as it was, and the version of its record; `None` where there was none.
    pub before: Option<(Tenant, u64)>,
    /// A write that stands or falls with it.
    pub with: Write,
}

impl Tenants {
    /// A tenant as it is stored, and the version of its record.
    ///
    /// # Errors
    /// The store's, and where the record cannot be read.
    pub async fn stored(&self, tenant_id: &str) -> Result<Option<(Tenant, u64)>> {
        self.find_tenant(tenant_id).await
    }

    /// Begins a space that is to take the place of one whose versions reached this one.
    ///
    /// # Errors
    /// The store's.
    pub async fn found(&self, space: &Space, version: u64) -> Result<()> {
        let inheritance = Inheritance {
            version: version.min(MAX_VERSION) + GAP,
            meters: None,
        };
        let batch = Batch {
            step: Some(Step::Inherit(Box::new(inheritance))),
            ..Batch::default()
        };
        super::applied(self.store.commit(space, batch).await?)?;
        Ok(())
    }

    /// About the last version that a space has given.
    ///
    /// # Errors
    /// The store's.
    pub async fn last_version(&self, space: &Space) -> Result<u64> {
        // Whatever is written is above all before it.
        let mark = Key::new(Table::Control, &b"mark"[..]);
        let batch = Batch::of([Write::put(mark, Bytes::new())]);
        match self.store.commit(space, batch).await? {
            Commit::Applied(applied) => match applied.outcomes.first() {
                Some(crate::store::Outcome::Done { version, .. }) => Ok(*version),
                _ => Ok(0),
            },
            Commit::Refused(_) => Ok(0),
        }
    }

    /// Keeps a space from being written from now on, for good.
    ///
    /// # Errors
    /// The store's.
    pub async fn fence(&self, space: &Space) -> Result<()> {
        let batch = Batch {
            step: Some(Step::Fence),
            ..Batch::default()
        };
        match self.store.commit(space, batch).await? {
            Commit::Applied(_) | Commit::Refused(Refusal::Fenced | Refusal::Gone) => Ok(()),
            Commit::Refused(refusal) => Err(super::unexpected(&refusal)),
        }
    }

    /// The view of a space.
    ///
    /// # Errors
    /// The store's.
    pub async fn view(&self, space: &Space) -> Result<View> {
        let any = Key::new(Table::Control, &b"mark"[..]);
        Ok(self.store.read(space, 0, &[any]).await?.view)
    }

    /// Makes sure that nobody who saw a space before makes it inherit any more.
    ///
    /// # Errors
    /// The store's.
    pub async fn overtake(&self, space: &Space) -> Result<()> {
        let batch = Batch {
            step: Some(Step::Era),
            ..Batch::default()
        };
        super::applied(self.store.commit(space, batch).await?)?;
        Ok(())
    }

    /// The meters of a space, as another takes them over.
    ///
    /// # Errors
    /// The store's.
    pub async fn heritage(&self, space: &Space) -> Result<Heritage> {
        Ok(Heritage {
            minutes: self.store.meters(space, Unit::Minute).await?,
            hours: self.store.meters(space, Unit::Hour).await?,
            days: self.store.meters(space, Unit::Day).await?,
            expired: self.store.usage(space).await?.expired,
        })
    }

    /// Lets a space that was seen so take over meters; false where somebody else came
    /// between.
    ///
    /// # Errors
    /// The store's.
    pub async fn inherit(&self, space: &Space, seen: View, meters: Heritage) -> Result<bool> {
        let inheritance = Inheritance {
            version: 0,
            meters: Some(meters),
        };
        let batch = Batch {
            view: Some(seen),
            step: Some(Step::Inherit(Box::new(inheritance))),
            ..Batch::default()
        };
        match self.store.commit(space, batch).await? {
            Commit::Applied(_) => Ok(true),
            Commit::Refused(Refusal::Stale(_) | Refusal::Fenced | Refusal::Gone) => Ok(false),
            Commit::Refused(refusal) => Err(super::unexpected(&refusal)),
        }
    }

    /// Puts a tenant's record, and with it the write that stands for the work.
    ///
    /// # Errors
    /// [`Error::MaxTenants`]; the store's.
    pub async fn settle(&self, settlement: &Settlement) -> Result<Settled> {
        let Settlement {
            tenant,
            before,
            with,
        } = settlement;
        let check = match before {
            Some((_, version)) => Check::Version(*version),
            None => Check::Absent,
        };
        let key = record::tenant_key(&tenant.tenant_id);
        let put = Write::put(key.clone(), record::encode(tenant)?).when(check);
        let mut writes = vec![with.clone(), put];
        let due_before = before.as_ref().and_then(|(tenant, _)| tenant.purge_ms);
        if due_before != tenant.purge_ms {
            let due = |ms| purge::due_key(&tenant.tenant_id, ms);
            writes.extend(due_before.map(|ms| Write::delete(due(ms))));
            if let Some(ms) = tenant.purge_ms {
                writes.push(purge::due(&tenant.tenant_id, ms)?);
            }
        } else if before.is_none()
            && let Some(ms) = tenant.purge_ms
        {
            writes.push(purge::due(&tenant.tenant_id, ms)?);
        }
        let mut batch = Batch::of(writes);
        batch.limits = Limits {
            entries: u64::try_from(self.settings.load().max_tenants).ok(),
            bytes: None,
        };
        match self.store.commit(&Space::registry(), batch).await? {
            Commit::Applied(applied) => {
                self.directory.drop_key(&key);
                match applied.outcomes.first() {
                    Some(crate::store::Outcome::Done { version, .. }) => {
                        Ok(Settled::Done(*version))
                    }
                    _ => Err(Error::Internal("the store told no version".into())),
                }
            }
            Commit::Refused(Refusal::Conflict { write: 0, .. }) => Ok(Settled::Overtaken),
            Commit::Refused(Refusal::Conflict { .. }) => Ok(Settled::Changed),
            Commit::Refused(Refusal::Exceeded { limit, used, .. }) => {
                Err(Error::MaxTenants { limit, used })
            }
            Commit::Refused(refusal) => Err(super::unexpected(&refusal)),
        }
    }

    /// Removes a space that a tenant has left, or was never in: whoever looks into it
    /// learns that it is elsewhere, and its bytes are reclaimed.
    ///
    /// # Errors
    /// The store's.
    pub async fn leave(&self, incarnation: Incarnation, space: &Space) -> Result<()> {
        // Written, so that whoever answers from memory by what it has read there is told.
        let floors = Key::new(Table::Control, &b"floors"[..]);
        let batch = Batch {
            step: Some(Step::Remove),
            ..Batch::of([Write::put(floors, Bytes::new())])
        };
        match self.store.commit(space, batch).await? {
            Commit::Applied(_) | Commit::Refused(Refusal::Gone) => {}
            Commit::Refused(refusal) => return Err(super::unexpected(&refusal)),
        }
        let site = Site {
            incarnation,
            space: space.clone(),
        };
        reclaim::enqueue(&self.store, site, reclaim::Work::Removed).await?;
        Ok(())
    }

    /// Puts records of the registry where there are none: API keys of a tenant that is
    /// about to come back, which let nobody in before it does. One that is there stays
    /// as it is, revoked or not.
    ///
    /// # Errors
    /// The store's.
    pub async fn put_missing(&self, records: &[(Key, Bytes)]) -> Result<u64> {
        let registry = Space::registry();
        let mut put = 0;
        for records in records.chunks(RECORDS) {
            loop {
                let keys: Vec<Key> = records.iter().map(|(key, _)| key.clone()).collect();
                let found = self.store.read(&registry, 0, &keys).await?.records;
                let missing = records
                    .iter()
                    .zip(&found)
                    .filter(|(_, found)| found.is_none());
                let writes: Vec<Write> = missing
                    .map(|((key, value), _)| {
                        Write::put(key.clone(), value.clone()).when(Check::Absent)
                    })
                    .collect();
                let count = writes.len() as u64;
                if count == 0 {
                    break;
                }
                if let Commit::Applied(_) = self.store.commit(&registry, Batch::of(writes)).await? {
                    for (key, _) in records {
                        self.directory.drop_key(key);
                    }
                    put += count;
                    break;
                }
            }
        }
        Ok(put)
    }

    /// What the record of a tenant becomes that comes back where none is. Where its
    /// meters do not come with it, what is billed begins anew.
    pub fn created(&self, copy: &Tenant, homes: Homes, metered: bool) -> Tenant {
        let mut tenant = Tenant {
            format: RESTORED_FORMAT,
            homes,
            purging: false,
            ..copy.clone()
        };
        let now_ms = self.store.now_ms();
        if !metered {
            tenant.bill_anew(now_ms);
        }
        tenant.changed(now_ms);
        tenant
    }

    /// What the record of a tenant becomes whose data, and where `copy` tells them whose
    /// settings, are replaced: its life, its bills and its data keys go on.
    ///
    /// # Errors
    /// [`Error::ConditionNotMet`] where a data key is another than in the copy, or its
    /// plan was changed too often; the store's.
    pub async fn replaced(
        &self,
        live: &Tenant,
        copy: Option<&Tenant>,
        settings: bool,
        homes: Homes,
    ) -> Result<Tenant> {
        let mut tenant = live.clone();
        if let Some(copy) = copy {
            if settings {
                tenant = Tenant {
                    incarnation: live.incarnation,
                    segments: live.segments.clone(),
                    encryption: live.encryption.clone(),
                    create_ms: live.create_ms,
                    purging: live.purging,
                    ..copy.clone()
                };
            }
            tenant.encryption = united(live, copy)?;
        }
        tenant.format = RESTORED_FORMAT;
        tenant.homes = homes;
        self.begin_segment(live, &mut tenant).await?;
        tenant.changed(self.store.now_ms());
        Ok(tenant)
    }
}

/// The data keys of a tenant with those that only its copy knows.
fn united(live: &Tenant, copy: &Tenant) -> Result<Option<Encryption>> {
    let (Some(here), Some(there)) = (&live.encryption, &copy.encryption) else {
        return Ok(live.encryption.clone());
    };
    let mut keys: BTreeMap<u32, DataKey> = BTreeMap::new();
    for key in here.data_keys.iter().chain(&there.data_keys) {
        let known = keys.entry(key.id).or_insert_with(|| key.clone());
        // The same key may be wrapped by another master key since.
        if known.create_ms != key.create_ms {
            return Err(Error::ConditionNotMet {
                subject: format!("tenant {}", live.tenant_id),
                description: format!(
                    "its data key {} is another one than in the checkpoint, so that entries \
                     of the checkpoint would not open",
                    key.id
                ),
            });
        }
    }
    Ok(Some(Encryption {
        data_keys: keys.into_values().rev().collect(),
    }))
}
