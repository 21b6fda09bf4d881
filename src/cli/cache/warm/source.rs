//! Lines of a file or of standard input into messages, read ahead on a thread of
//! its own. It does not know what becomes of a message.

use std::{
    io::{self, BufRead},
    thread,
};

use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::line::{self, Allowed, Item};
use crate::proto::v1::WarmCacheRequest;

/// Items of a message.
const ITEMS: usize = 250;

/// Bytes of a message at which it takes no further item.
const BYTES: usize = 1 << 20;

/// Messages that are read ahead, while others are on their way.
const AHEAD: usize = 80;

/// A place between two lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Lines before it.
    pub(super) lines: u64,
    /// Bytes before it.
    pub(super) bytes: u64,
    /// Of these bytes.
    pub(super) digest: Sha256,
}

/// Lines that belong together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// What they ask for; it names no tenant.
    pub(super) message: WarmCacheRequest,
    /// The line that each entry stands on, then the line of each key.
    pub(super) lines: [Vec<u64>; 2],
    /// Lines that ask for nothing that can be done, and why.
    pub(super) bad: Vec<(u64, Vec<String>)>,
    /// Where they end.
    pub(super) end: Place,
}

impl Batch {
    /// How many items they ask for.
    pub(super) fn items(&self) -> usize {
        self.message.entries.len() + self.message.keys.len()
    }

    /// The line of an item, by its number in the message.
    pub(super) fn line_of(&self, item: usize) -> u64 {
        let [entries, keys] = &self.lines;
        entries.iter().chain(keys).nth(item).copied().unwrap_or(0)
    }

    /// Takes away the first items, which are done.
    pub(super) fn drop_first(&mut self, items: usize) {
        let entries = items.min(self.message.entries.len());
        let keys = (items - entries).min(self.message.keys.len());
        let [entry_lines, key_lines] = &mut self.lines;
        self.message.entries.drain(..entries);
        entry_lines.drain(..entries);
        self.message.keys.drain(..keys);
        key_lines.drain(..keys);
    }

    fn is_full(&self, bytes: usize, allowed: &Allowed) -> bool {
        self.items() >= ITEMS.min(allowed.batch_items) || bytes >= BYTES
    }
}

/// What comes of the lines, in order; it ends with them, or with the first that
/// cannot be read.
pub(super) type Batches = mpsc::Receiver<io::Result<Batch>>;

/// Reads lines from this place on.
pub(super) fn read(
    input: impl BufRead + Send + 'static,
    from: Place,
    allowed: Allowed,
) -> io::Result<Batches> {
    let (send, batches) = mpsc::channel(AHEAD);
    let work = move || {
        let mut reader = Reader {
            input,
            at: from,
            allowed,
            left_over: None,
        };
        loop {
            let batch = reader.batch();
            let last = !matches!(batch, Ok(Some(_)));
            // Where nobody waits for it any more, there is nothing to do.
            if let Some(batch) = batch.transpose()
                && send.blocking_send(batch).is_err()
            {
                return;
            }
            if last {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("lines".to_owned())
        .spawn(work)?;
    Ok(batches)
}

struct Reader<R> {
    input: R,
    at: Place,
    allowed: Allowed,
    /// An item that did not fit into the batch before, its line, and where it ends.
    left_over: Option<(Item, u64, Place)>,
}

/// A line as it stands there.
enum Line {
    Text(Vec<u8>),
    TooLong,
    None,
}

impl<R: BufRead> Reader<R> {
    /// The next lines; `None` at the end.
    fn batch(&mut self) -> io::Result<Option<Batch>> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        let from = self.at.lines;
        if let Some((item, number, end)) = self.left_over.take() {
            bytes += batch.take(item, number);
            batch.end = end;
        } else {
            batch.end = self.at.clone();
        }
        while !batch.is_full(bytes, &self.allowed) {
            let text = match self.line()? {
                Line::Text(text) => text,
                Line::TooLong => {
                    let problem = format!(
                        "longer than {} bytes; allowed is what the server takes in one message",
                        self.allowed.line_bytes()
                    );
                    batch.bad.push((self.at.lines, vec![problem]));
                    batch.end = self.at.clone();
                    continue;
                }
                Line::None => break,
            };
            match line::read(&text, &self.allowed) {
                Ok(Some(item)) => {
                    // A message of many must stay below what the server takes.
                    if batch.items() > 0 && bytes + size(&item) > BYTES {
                        self.left_over = Some((item, self.at.lines, self.at.clone()));
                        return Ok(Some(batch));
                    }
                    bytes += batch.take(item, self.at.lines);
                }
                Ok(None) => {}
                Err(problems) => batch.bad.push((self.at.lines, problems)),
            }
            batch.end = self.at.clone();
        }
        let more = batch.items() > 0 || batch.end.lines > from;
        Ok(more.then_some(batch))
    }

    /// The next line, up to the longest that can be in order.
    fn line(&mut self) -> io::Result<Line> {
        let (mut text, mut too_long, mut any) = (Vec::new(), false, false);
        loop {
            let found = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                found => found?,
            };
            let end = found.iter().position(|&byte| byte == b'\n');
            let part = found.get(..end.map_or(found.len(), |end| end + 1));
            let part = part.unwrap_or_default();
            if part.is_empty() {
                break;
            }
            any = true;
            too_long |= text.len() + part.len() > self.allowed.line_bytes();
            if !too_long {
                text.extend_from_slice(part);
            }
            self.at.digest.update(part);
            self.at.bytes += part.len() as u64;
            let taken = part.len();
            self.input.consume(taken);
            if end.is_some() {
                break;
            }
        }
        self.at.lines += u64::from(any);
        Ok(match (any, too_long) {
            (false, _) => Line::None,
            (true, true) => Line::TooLong,
            (true, false) => Line::Text(text),
        })
    }
}

impl Batch {
    /// Takes an item; its bytes.
    fn take(&mut self, item: Item, line: u64) -> usize {
        let bytes = size(&item);
        let [entries, keys] = &mut self.lines;
        match item {
            Item::Entry(entry) => {
                self.message.entries.push(entry);
                entries.push(line);
            }
            Item::Pull(key) => {
                self.message.keys.push(key);
                keys.push(line);
            }
        }
        bytes
    }
}

fn size(item: &Item) -> usize {
    match item {
        Item::Entry(entry) => entry.encoded_len(),
        Item::Pull(key) => key.len(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::proto::v1::Limits;

    fn batches(input: Vec<u8>, from: Place, limits: &Limits) -> Vec<Batch> {
        let allowed = Allowed::of(limits);
        let mut batches = read(io::Cursor::new(input), from, allowed).unwrap();
        std::iter::from_fn(|| batches.blocking_recv())
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn lines_are_numbered_whatever_stands_on_them() {
        let input = "{\"key\":\"a\",\"value\":\"\"}\n\n{\"pull\":\"p\"}\r\nbad\n{\"key\":\"b\",\"value\":\"\"}";
        let found = batches(input.into(), Place::default(), &Limits::default());
        let [batch] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(batch.lines, [vec![1, 5], vec![3]]);
        assert_eq!([0, 1, 2].map(|item| batch.line_of(item)), [1, 5, 3]);
        assert_eq!(batch.bad.len(), 1);
        assert_eq!(batch.bad[0].0, 4);
        assert_eq!((batch.end.lines, batch.end.bytes), (5, input.len() as u64));
        let digest = HEXLOWER.encode(&batch.end.digest.clone().finalize());
        assert_eq!(digest, HEXLOWER.encode(&Sha256::digest(input)));
    }

    #[test]
    fn every_place_can_be_gone_on_from() {
        let value = "v".repeat(300_000);
        let lines: Vec<_> = (0..600)
            .map(|n| match n {
                0..8 => format!("{{\"key\":\"{n}\",\"value\":\"{value}\"}}\n"),
                _ if n % 100 == 0 => "bad\n".to_owned(),
                _ => format!("{{\"key\":\"{n}\",\"value\":\"\"}}\n"),
            })
            .collect();
        let input = lines.concat().into_bytes();
        let whole = batches(input.clone(), Place::default(), &Limits::default());
        let items: Vec<_> = whole.iter().map(Batch::items).collect();
        assert_eq!(items.iter().sum::<usize>(), 595);
        assert_eq!(items[..2], [3, 3], "as many as fit");
        for (at, batch) in whole.iter().enumerate() {
            let rest = input[usize::try_from(batch.end.bytes).unwrap()..].to_vec();
            let rest = batches(rest, batch.end.clone(), &Limits::default());
            let (rest, expected) = (format!("{rest:?}"), format!("{:?}", &whole[at + 1..]));
            assert!(rest == expected, "{at}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let limits = Limits {
            message_bytes: 20,
            ..Limits::default()
        };
        let long = "x".repeat(10_000);
        let input = format!("{long}\n{{\"pull\":\"a\"}}\n{long}");
        let found = batches(input.into(), Place::default(), &limits);
        let [batch] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!((batch.items(), batch.line_of(0)), (1, 2));
        let bad: Vec<_> = batch.bad.iter().map(|(line, _)| *line).collect();
        assert_eq!(bad, [1, 3]);
        assert_eq!(batch.end.lines, 3);
    }

    #[test]
    fn what_is_done_leaves_with_its_lines() {
        let input =
            "{\"pull\":\"p\"}\n{\"key\":\"a\",\"value\":\"\"}\n{\"key\":\"b\",\"value\":\"\"}\n";
        let mut found = batches(input.into(), Place::default(), &Limits::default());
        let batch = &mut found[0];
        batch.drop_first(1);
        assert_eq!(
            (batch.items(), batch.line_of(0), batch.line_of(1)),
            (2, 3, 1)
        );
        batch.drop_first(2);
        assert_eq!(batch.items(), 0);
    }
}
