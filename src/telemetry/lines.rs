//! Log lines on their way out: what is logged is put down without waiting, and a thread
//! writes it. Where that is too slow, lines are dropped and counted, and the next line
//! that is written says so. It does not know how lines look.

use std::{
    io::{self, Write},
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Bytes of lines that wait; beyond it they are dropped.
const MAX_BYTES: usize = 1 << 20;

/// Room that is kept for the lines to come.
const KEPT_BYTES: usize = 64 << 10;

/// How long the thread that writes waits for more lines, once there is one: to be woken
/// costs whoever logs more than the line does.
const GATHER: Duration = Duration::from_millis(1);

/// Lines that wait to be written.
#[derive(Default)]
pub(super) struct Lines {
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Whether some are being written.
    writing: bool,
    /// Whether the thread waits to be woken.
    asleep: bool,
    /// Lines dropped of which nothing was told yet.
    untold: u64,
}

impl Lines {
    /// Starts the thread, which lives as long as the process.
    pub(super) fn start(self: Arc<Self>, to: impl Write + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || self.write(to)).map(drop)
    }

    /// Lines dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all is written, for at most so long.
    pub(super) fn flush(&self, timeout: Duration) {
        let busy = |state: &mut State| !state.waiting.is_empty() || state.writing;
        drop(self.written.wait_timeout_while(self.lock(), timeout, busy));
    }

    fn put(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > MAX_BYTES {
            state.untold += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.extend_from_slice(line);
        if mem::replace(&mut state.asleep, false) {
            drop(state);
            self.filled.notify_one();
        }
    }

    fn write(&self, mut to: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() {
                state.asleep = true;
                state = self
                    .filled
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.asleep = false;
            drop(state);
            thread::sleep(GATHER);
            let mut state = self.lock();
            mem::swap(&mut state.waiting, &mut lines);
            state.writing = true;
            let untold = mem::take(&mut state.untold);
            drop(state);
            // Who closed the other end reads nothing, and that cannot be told to anybody.
            let _ = to.write_all(&lines);
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
            if untold > 0 {
                tracing::warn!(
                    lines = untold,
                    "log lines dropped: standard error is too slow"
                );
            }
            self.lock().writing = false;
            self.written.notify_all();
        }
    }

    /// It is held for as long as a line takes to be copied.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a whole line at once.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes what is written when it is told to.
    struct Slow {
        go: mpsc::Receiver<()>,
        wrote: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(io::Error::other)?;
            self.wrote.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_for_who_reads() {
        let (go, going) = mpsc::channel();
        let (wrote, written) = mpsc::channel();
        let lines = Arc::new(Lines::default());
        lines.clone().start(Slow { go: going, wrote }).unwrap();
        let line = [b'x'; 1 << 10];
        // Nothing is read yet: what has no room is dropped, and nobody waits.
        for _ in 0..4 * (MAX_BYTES / line.len()) {
            lines.put(&line);
        }
        let dropped = usize::try_from(lines.dropped()).unwrap();
        let held = 4 * MAX_BYTES - dropped * line.len();
        assert!((MAX_BYTES..=2 * MAX_BYTES).contains(&held), "{held}");
        lines.flush(Duration::from_millis(1));
        // Once it is read, all that was kept comes, in its order, and there is room again.
        let mut read = 0;
        while read < held {
            go.send(()).unwrap();
            read += written.recv().unwrap().len();
        }
        assert_eq!(read, held);
        lines.put(b"last");
        go.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), b"last");
        lines.flush(Duration::from_secs(60));
        assert!(lines.lock().waiting.is_empty());
    }
}
