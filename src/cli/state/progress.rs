//! How far a checkpoint or a restore is, as a bar on standard error where that is a
//! terminal. It does not know what is done.

use indicatif::{ProgressBar, ProgressStyle};

use crate::proto::v1::CheckpointProgress;

const RECORDS: &str = "{spinner} {msg} [{bar:30}] {human_pos}/{human_len} {elapsed}";
const BYTES: &str = "[{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// A bar; nothing is shown where nobody looks.
#[derive(Clone)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    fn styled(length: u64, template: &str) -> Self {
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Of records, as the server tells of them.
    pub(super) fn records() -> Self {
        Self::styled(0, RECORDS)
    }

    /// Of so many bytes.
    pub(super) fn bytes(length: u64) -> Self {
        Self::styled(length, BYTES)
    }

    pub(super) fn told(&self, progress: &CheckpointProgress) {
        let records = progress.records.max(progress.records_done).unsigned_abs();
        self.0.set_length(records);
        self.0.set_position(progress.records_done.unsigned_abs());
        let (done, all) = (progress.tenants_done, progress.tenants);
        let message = format!("{}, tenant {done} of {all}", progress.phase);
        self.0.set_message(message);
        self.0.tick();
    }

    pub(super) fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
