//! One transaction of the writer. It does not know who is answered, or what
//! happens after a fault.

use std::time::Instant;

use redb::{Durability, WriteTransaction};

use super::{
    super::{
        super::{Error, Key, Space},
        fault::{Fault, Result, contained},
        layout::{META_CLOCK, META_COMMIT},
        ledger::{Changed, Ledger},
        work::{Answer, Work},
    },
    Writer,
};

/// Records deleted of each space in one sweep.
const SWEEP_RECORDS: usize = 512;

impl Writer {
    /// Applies work in one transaction, at times of its own; `sweep` deletes what
    /// is over in these spaces too.
    pub(super) fn attempt(
        &mut self,
        works: &[(&Work, u64)],
        sweep: Option<&[Space]>,
    ) -> std::result::Result<Done, Box<Failed>> {
        let mut number = 0;
        let mut answers = Vec::with_capacity(works.len());
        let mut announced = Vec::new();
        let result =
            contained(|| self.transact(works, sweep, &mut number, &mut answers, &mut announced));
        match result {
            Ok(written) => Ok(Done {
                answers,
                announced,
                written,
            }),
            Err(fault) => Err(Box::new(Failed {
                fault,
                number,
                answers,
                announced,
            })),
        }
    }

    fn transact(
        &mut self,
        works: &[(&Work, u64)],
        sweep: Option<&[Space]>,
        number: &mut u64,
        answers: &mut Vec<std::result::Result<Answer, Error>>,
        announced: &mut Vec<Key>,
    ) -> Result<Option<Written>> {
        let mut transaction = self.begin()?;
        let mut ledger = Ledger::open(&transaction, self.run)?;
        let mut strict = false;
        let mut wrote = false;
        for (work, now_ms) in works {
            let answer = match work {
                Work::Commit(space, batch) => {
                    ledger.commit(space, batch, *now_ms).map(|(commit, keys)| {
                        announced.extend(keys);
                        Answer::Commit(commit)
                    })
                }
                Work::Reclaim {
                    space,
                    what,
                    after,
                    limit,
                } => ledger
                    .reclaim(space, what, after.as_ref(), *limit, *now_ms)
                    .map(Answer::Reclaimed),
                Work::Tally(space, tally) => {
                    ledger.tally(space, tally, *now_ms).map(Answer::Tallied)
                }
                Work::Lease(space, lease) => {
                    ledger.lease(space, lease, *now_ms).map(Answer::Leased)
                }
                Work::Close => Ok(Answer::Closed),
            };
            if answer.as_ref().is_ok_and(|answer| work.wrote(answer)) {
                wrote = true;
                strict |= work.strict();
            }
            match answer {
                Err(fault @ Fault::Disk(_)) => return Err(fault),
                answer => answers.push(answer.map_err(Error::from)),
            }
        }
        let now_ms = self.shared.clock.now_ms();
        for space in sweep.unwrap_or_default() {
            wrote = true;
            match ledger.sweep(space, SWEEP_RECORDS, now_ms) {
                Ok(0) => ledger.forget(space, now_ms)?,
                Err(fault @ Fault::Disk(_)) => return Err(fault),
                Ok(_) | Err(_) => {}
            }
        }
        if !wrote {
            drop(ledger);
            transaction.abort()?;
            return Ok(None);
        }
        *number = self.number + 1;
        ledger.set_fact(META_COMMIT, *number)?;
        ledger.set_fact(META_CLOCK, now_ms)?;
        let changed = ledger.finish()?;
        set_durability(&mut transaction, strict)?;
        transaction.commit()?;
        self.number = *number;
        if strict {
            self.clean();
        } else {
            self.dirty.get_or_insert_with(Instant::now);
        }
        Ok(Some(Written {
            durable: strict,
            changed,
        }))
    }

    pub(super) fn begin(&self) -> Result<WriteTransaction> {
        match &self.database {
            Some(database) => Ok(database.begin_write()?),
            None => Err(Fault::Disk(redb::Error::DatabaseClosed)),
        }
    }
}

pub(super) fn set_durability(transaction: &mut WriteTransaction, strict: bool) -> Result<()> {
    if strict {
        transaction.set_durability(Durability::Immediate)?;
        // Opening after a crash must not have to walk the whole file.
        transaction.set_quick_repair(true);
    } else {
        transaction.set_durability(Durability::None)?;
    }
    Ok(())
}

/// A transaction that was committed, or had nothing to write.
pub(super) struct Done {
    pub(super) answers: Vec<std::result::Result<Answer, Error>>,
    pub(super) announced: Vec<Key>,
    pub(super) written: Option<Written>,
}

/// What a transaction wrote.
pub(super) struct Written {
    pub(super) durable: bool,
    pub(super) changed: Vec<Changed>,
}

/// A transaction that failed. Its number is 0 where it never came to a commit.
pub(super) struct Failed {
    pub(super) fault: Fault,
    pub(super) number: u64,
    pub(super) answers: Vec<std::result::Result<Answer, Error>>,
    pub(super) announced: Vec<Key>,
}
