//! `cache warm`: the entries and keys of a file into the cache, call by call. It
//! does not know what a line may say.

mod call;
mod line;
mod progress;
mod source;

use std::{
    collections::VecDeque,
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use self::{
    call::{Came, Ended},
    line::Allowed,
    progress::{Counts, Opened, Progress, Target, failed},
    source::{Batch, Batches, Place},
};
use crate::{
    cli::{
        client::{self, Client, Global},
        failure::{Exit, Failure},
        output::{self, show},
    },
    proto::v1::GetServerInfoRequest,
};

/// Items of the first call; each next may have twice or half as many.
const FIRST: usize = 2_500;

/// Items of a call at most, so that little is to be sent again.
const MOST: usize = 20_000;

/// Bytes of a call at which it takes no further message.
const CALL_BYTES: usize = 16 << 20;

/// A call that took less may be larger, and one that took more is to be smaller:
/// far below the time any call may take.
const BRISK: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(4);

/// How long a call waits for more lines where they come slowly.
const GATHER: Duration = Duration::from_millis(100);

/// Bytes that are read of a file at a time.
const READ_BYTES: usize = 256 << 10;

pub(super) const HELP: &str = "\
Each line is a JSON object, either an entry to store
  {\"key\": \"...\", \"value\": \"text\", \"ttl\": \"10m\", \"content_type\": \"...\", \"tags\": [\"...\"]}
with value_base64 instead of value for bytes, and all but key and value optional, or
the key of an entry to pull into the memory of the server's replica
  {\"pull\": \"...\"}
A line that is neither is told with its number and what is allowed, and the others
are done all the same; the exit code is 1 then.

Where the warming stands is kept in FILE.progress, and the same command goes on from
there after whatever ended it. It is removed when all is done; remove it to begin anew.";

#[derive(Args, Debug)]
pub(in crate::cli) struct Warm {
    /// The file of lines; `-` reads standard input, which cannot be gone on with.
    file: PathBuf,
    /// How long to try again while the server takes nothing.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = client::duration)]
    retry_for: Duration,
}

/// A warming under way.
struct Work<'a> {
    global: &'a Global,
    client: &'a Client,
    retry_for: Duration,
    progress: Option<Progress>,
    bar: ProgressBar,
    /// What was read and is not done.
    pending: VecDeque<Batch>,
    /// Whether `pending` begins within a batch.
    within: bool,
    counts: Counts,
    /// Where what is done ends.
    place: Place,
    /// Items of the next call.
    size: usize,
    began: Instant,
    /// Items that were done before this process.
    before: u64,
    /// When something was last done.
    last: Instant,
}

impl Warm {
    pub(super) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let request = client.request(GetServerInfoRequest {});
        let info = client.states().get_server_info(request).await?.into_inner();
        let allowed = Allowed::of(&info.limits.unwrap_or_default());
        let target = Target {
            address: client.address().to_owned(),
            tenant_id: global.tenant_id(),
            namespace: global.namespace(),
        };
        let stdin = self.file == Path::new("-");
        let (progress, file, place, counts) = match stdin {
            true => (None, None, Place::default(), Counts::default()),
            false => {
                let Opened {
                    progress,
                    file,
                    place,
                    counts,
                } = Progress::open(&self.file, target)?;
                (Some(progress), Some(file), place, counts)
            }
        };
        let length = file.as_ref().and_then(|file| file.metadata().ok());
        let bar = bar(length.map(|metadata| metadata.len()));
        let resumed_from = place.lines;
        let batches = match file {
            None => {
                let input = BufReader::with_capacity(READ_BYTES, io::stdin());
                source::read(input, place.clone(), allowed)
            }
            Some(file) => {
                let input = BufReader::with_capacity(READ_BYTES, file);
                source::read(input, place.clone(), allowed)
            }
        };
        let batches = batches.map_err(|error| failed("read", &self.file, &error))?;
        let mut work = Work {
            global,
            client,
            retry_for: self.retry_for,
            progress,
            bar,
            pending: VecDeque::new(),
            within: false,
            counts,
            place,
            size: FIRST,
            began: Instant::now(),
            before: counts.items(),
            last: Instant::now(),
        };
        let done = work.all(batches, &self.file).await;
        work.bar.finish_and_clear();
        if let Err(failure) = done {
            return Err(match work.progress {
                Some(_) if work.place.lines > 0 => failure.with(format!(
                    "{} lines are done; the same command goes on from there",
                    work.place.lines
                )),
                _ => failure,
            });
        }
        work.tell(&self.file, resumed_from)?;
        if let Some(progress) = work.progress.take() {
            progress.end()?;
        }
        match work.counts.failed + work.counts.bad_lines {
            0 => Ok(()),
            _ => Err(Failure::told(Exit::Failed)),
        }
    }
}

impl Work<'_> {
    /// Call by call, to the end of the lines.
    async fn all(&mut self, mut batches: Batches, file: &Path) -> Result<(), Failure> {
        loop {
            let unread = self.gather(&mut batches).await;
            while !self.pending.is_empty() {
                self.call().await?;
                if unread.is_none() && self.waiting() < self.size {
                    break;
                }
            }
            match unread {
                None => {}
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => return Err(failed("read", file, &error)),
            }
        }
    }

    /// Items that wait.
    fn waiting(&self) -> usize {
        self.pending.iter().map(Batch::items).sum()
    }

    /// Waits for a call's worth of lines, or for what there is; the end of the
    /// lines, where it came to it.
    async fn gather(&mut self, batches: &mut Batches) -> Option<io::Result<()>> {
        let mut until = None;
        while self.waiting() < self.size {
            let next = match until {
                None if self.pending.is_empty() => Ok(batches.recv().await),
                None => timeout_at(Instant::now() + GATHER, batches.recv()).await,
                Some(until) => timeout_at(until, batches.recv()).await,
            };
            until = until.or(Some(Instant::now() + GATHER));
            match next {
                Err(_) => break,
                Ok(None) => return Some(Ok(())),
                Ok(Some(Err(error))) => return Some(Err(error)),
                Ok(Some(Ok(batch))) => {
                    self.tell_bad(&batch);
                    self.pending.push_back(batch);
                }
            }
        }
        None
    }

    /// How many of what waits go into the next call: one at least.
    fn part(&self) -> usize {
        let (mut items, mut bytes) = (0, 0);
        let fits = |batch: &&Batch| {
            let fits = items < self.size && bytes < CALL_BYTES;
            items += batch.items();
            bytes += prost::Message::encoded_len(&batch.message);
            fits
        };
        self.pending.iter().take_while(fits).count().max(1)
    }

    /// One call, or the wait for the next.
    async fn call(&mut self) -> Result<(), Failure> {
        let part = self.part();
        let batches: Vec<_> = self.pending.drain(..part).collect();
        let asked: usize = batches.iter().map(Batch::items).sum();
        let began = Instant::now();
        let Came { done, ended } = match asked {
            // Nothing but lines that ask for nothing.
            0 => Came {
                done: Default::default(),
                ended: None,
            },
            _ => call::send(self.client, self.global, &batches).await,
        };
        let took = began.elapsed();
        self.tell_failed(&batches, &done);
        let items = match &ended {
            None => asked,
            Some(_) => usize::try_from(call::items(&done))
                .unwrap_or(asked)
                .min(asked),
        };
        self.count(&done);
        self.advance(batches, items)?;
        if items > 0 || asked == 0 {
            self.last = Instant::now();
        }
        let late = ended.as_ref().is_some_and(|ended| ended.late);
        if late || took > SLOW {
            self.size = (self.size / 2).max(1);
        } else if ended.is_none() && took < BRISK {
            self.size = (self.size * 2).min(MOST);
        }
        match ended {
            None => Ok(()),
            Some(ended) => self.wait(ended).await,
        }
    }

    /// Takes these items of what was sent for done.
    fn advance(&mut self, batches: Vec<Batch>, mut items: usize) -> Result<(), Failure> {
        let mut rest = VecDeque::new();
        let mut moved = false;
        for mut batch in batches {
            if rest.is_empty() && items >= batch.items() {
                items -= batch.items();
                self.counts.bad_lines += batch.bad.len() as u64;
                self.place = batch.end;
                (self.within, moved) = (false, true);
            } else {
                batch.drop_first(items);
                self.within |= items > 0;
                items = 0;
                rest.push_back(batch);
            }
        }
        rest.append(&mut self.pending);
        self.pending = rest;
        self.show();
        match &self.progress {
            // Within a batch the counts are ahead of the place.
            Some(progress) if moved && !self.within => progress.keep(&self.place, self.counts),
            _ => Ok(()),
        }
    }

    /// Waits until another call may come further.
    async fn wait(&mut self, ended: Ended) -> Result<(), Failure> {
        let patience = self.retry_for.saturating_sub(self.last.elapsed());
        match ended.again {
            Some(again) if again <= patience => {
                sleep(again).await;
                Ok(())
            }
            _ => Err(ended.status.into()),
        }
    }

    fn count(&mut self, done: &crate::proto::v1::WarmCacheResponse) {
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        self.counts.stored += count(done.stored);
        self.counts.pulled += count(done.pulled);
        self.counts.not_kept += count(done.not_kept);
        self.counts.missing += count(done.missing);
        self.counts.failed += count(done.failed);
    }

    fn show(&self) {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let done = self.counts.items() - self.before;
        self.bar.set_position(self.place.bytes);
        self.bar
            .set_message(format!("{:.0} entries/s", done as f64 / seconds));
    }

    /// What is wrong with lines, as soon as it is known.
    fn tell_bad(&self, batch: &Batch) {
        for (line, problems) in &batch.bad {
            for problem in problems {
                self.print(&format!("line {line}: {problem}"));
            }
        }
    }

    fn tell_failed(&self, batches: &[Batch], done: &crate::proto::v1::WarmCacheResponse) {
        for failure in &done.failures {
            let mut item = usize::try_from(failure.item).unwrap_or(0);
            let mut line = 0;
            for batch in batches {
                if item < batch.items() {
                    line = batch.line_of(item);
                    break;
                }
                item -= batch.items();
            }
            self.print(&format!("line {line}: {}", call::reason(failure)));
        }
        let told = done.failures.len() as i64;
        if done.failed > told {
            let more = done.failed - told;
            self.print(&format!(
                "{more} more failed, which the server does not name"
            ));
        }
    }

    /// To standard error, around the bar; there is nobody to tell where that fails.
    fn print(&self, line: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr().lock(), "{line}");
        });
    }

    fn tell(&self, file: &Path, resumed_from: u64) -> Result<(), Failure> {
        let seconds = self.began.elapsed().as_secs_f64();
        let items = self.counts.items() - self.before;
        let result = json!({
            "file": file.display().to_string(),
            "lines": self.place.lines,
            "stored": self.counts.stored,
            "pulled": self.counts.pulled,
            "not_kept": self.counts.not_kept,
            "missing": self.counts.missing,
            "failed": self.counts.failed,
            "bad_lines": self.counts.bad_lines,
            "resumed_from": resumed_from,
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "entries_per_second": (items as f64 / seconds.max(0.001)).round() as u64,
        });
        show(self.global.output, &result, || output::record(&result))
    }
}

/// On standard error, and only where that is a terminal.
fn bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{wide_bar} {bytes} of {total_bytes}, {msg}, {eta} to go",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("#>-"));
    }
    bar
}
