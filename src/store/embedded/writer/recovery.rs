//! How the writer gets up again after the disk has failed. It does not know what
//! it was doing when it fell.

use std::time::{Duration, Instant};

use super::{
    super::{
        super::Error,
        fault::{Result, contained},
        opening::Disk,
        work::Work,
    },
    Writer,
};

/// How long a failed disk is left alone before the next attempt.
const REST: Duration = Duration::from_millis(500);

impl Writer {
    /// Takes shelter after the disk has failed: reads go on from the file as it
    /// is and from what was acknowledged, and writes are refused with `error`.
    /// Tells the number of the last commit that the file holds.
    pub(super) fn get_up(&mut self, error: Error) -> Option<u64> {
        self.broken = Some((error, Instant::now()));
        // What readers see from now on may be older than what they saw, and the
        // moments they hold on to are of a file that is given up.
        self.shared.watch.break_off();
        self.shared.pins.clear();
        self.database = None;
        let number = match self.reopen(Disk::Sheltered) {
            Ok(number) => Some(number),
            Err(fault) => {
                self.database = None;
                let error = Error::from(fault);
                tracing::error!(%error, "the store's file cannot be read");
                None
            }
        };
        self.publish();
        number
    }

    /// Opens the file again, and applies once more what was acknowledged and is
    /// not in it. Tells the number of the last commit that it holds.
    fn reopen(&mut self, disk: Disk) -> Result<u64> {
        let (database, number) = contained(|| self.opening.again(disk))?;
        self.database = Some(database);
        if number >= self.number {
            // The disk has taken all; whether it keeps all, the next sync tells.
            self.number = number;
            return Ok(number);
        }
        let tail = std::mem::take(&mut self.tail);
        let works: Vec<(&Work, u64)> = tail.iter().map(|(work, now_ms)| (work, *now_ms)).collect();
        let result = self.attempt(&works, None);
        drop(works);
        self.tail = tail;
        self.dirty.get_or_insert_with(Instant::now);
        result.map(|_| number).map_err(|failed| failed.fault)
    }

    /// Finds out whether a failed disk works again.
    pub(super) fn mend(&mut self) -> std::result::Result<(), Error> {
        let Some((error, since)) = self.broken.clone() else {
            return Ok(());
        };
        if since.elapsed() < REST {
            return Err(error);
        }
        self.shared.watch.break_off();
        self.shared.pins.clear();
        self.database = None;
        match self
            .reopen(Disk::Written)
            .and_then(|_| contained(|| self.sync()))
        {
            Ok(()) => {
                tracing::info!("the store's disk works again");
                self.broken = None;
                self.publish();
                Ok(())
            }
            Err(fault) => {
                let error = Error::from(fault);
                self.get_up(error.clone());
                Err(error)
            }
        }
    }
}
