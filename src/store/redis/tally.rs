//! Tallies and rows: amounts become the arguments of tally.lua, and what it and
//! rows.lua answer is read. It does not know what is counted.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fred::types::Resp3Frame;
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Redis,
    fault::{self, Fault},
    keys, reply,
};
use crate::store::{Count, Error, MAX_COUNT, MAX_EXPIRE_MS, Result, Row, Space, Tallied, Tally};

/// Rows that one script reads: at 64 counters each it takes well below 2 ms.
const ROWS: usize = 50;
/// Scripts that read rows at a time.
const AT_ONCE: usize = 4;
/// What the script's halves of a number are of.
const HALF: u64 = 1_000_000_000;

impl Redis {
    /// See [`crate::store::Store::tally`].
    pub(super) async fn add(&self, space: &Space, tally: &Tally) -> Result<Tallied> {
        // The first is tried, and the answer tells the right one.
        let mut generation = 0;
        loop {
            let (all, args) = arguments(space, tally, generation);
            let answer = self
                .pool
                .script(&self.shared.scripts.tally, all, args)
                .await
                .map_err(Fault::of_commit)?;
            let answer = reply::bulk(answer).ok_or_else(unreadable)?;
            match read(&answer, tally)? {
                Answer::Tallied(tallied) => return Ok(tallied),
                Answer::Generation(current) => generation = current,
            }
        }
    }

    /// See [`crate::store::Store::rows`].
    pub(super) async fn counters(&self, space: &Space, names: &[Bytes]) -> Result<Vec<Row>> {
        let chunks: Vec<Vec<Bytes>> = names
            .chunks(ROWS)
            .map(|chunk| {
                let rows = chunk.iter().map(|name| keys::row(space, name));
                std::iter::once(keys::state(space)).chain(rows).collect()
            })
            .collect();
        let pieces: Vec<Vec<Row>> = stream::iter(chunks)
            .map(|all| async move {
                let asked = all.len() - 1;
                let answer = self.pool.script(&self.shared.scripts.rows, all, []).await;
                let rows = reply::array(answer.map_err(Fault::of_read)?)?;
                if rows.len() != asked {
                    return Err(fault::corrupt("rows were answered in part"));
                }
                rows.into_iter().map(row).collect()
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(pieces.into_iter().flatten().collect())
    }
}

/// The keys and arguments of tally.lua, where entries live in this generation.
fn arguments(space: &Space, tally: &Tally, generation: u64) -> (Vec<Bytes>, Vec<Bytes>) {
    let mut all = Vec::with_capacity(3 + tally.absent.len() + tally.adds.len());
    all.push(keys::state(space));
    let mut first = BytesMut::with_capacity(19);
    let mut absent = tally.absent.iter();
    first.put_u8(absent.any(|key| key.table.generational()).into());
    first.put_uint(generation, 6);
    first.put_u8(tally.stamp.is_some().into());
    first.put_u8(tally.once.is_some().into());
    let kept = tally.once.as_ref().map_or(0, |once| once.keep_ms);
    first.put_uint(kept.min(MAX_EXPIRE_MS), 6);
    first.put_uint(tally.absent.len() as u64, 2);
    first.put_uint(tally.adds.len() as u64, 2);
    let sequence = tally.stamp.as_ref().map_or(0, |stamp| stamp.sequence);
    let mut args = vec![first.freeze(), sequence.to_string().into()];
    all.extend(
        tally
            .stamp
            .iter()
            .map(|stamp| keys::stamp(space, &stamp.source)),
    );
    all.extend(tally.once.iter().map(|once| keys::once(space, &once.name)));
    let absent = tally.absent.iter();
    all.extend(absent.map(|key| keys::record(space, generation, key)));
    for add in &tally.adds {
        all.push(keys::row(space, &add.row));
        let mut row = BytesMut::with_capacity(8);
        row.put_uint(add.keep_ms.unwrap_or(0).min(MAX_EXPIRE_MS), 6);
        row.put_uint(add.counts.len() as u64, 2);
        args.push(row.freeze());
        for count in &add.counts {
            args.push(count.name.clone());
            let mut amount = BytesMut::with_capacity(19);
            amount.put_u8((count.amount < 0).into());
            halves(&mut amount, count.amount.unsigned_abs());
            halves(&mut amount, limit(count));
            args.push(amount.freeze());
        }
    }
    (all, args)
}

fn limit(count: &Count) -> u64 {
    count.limit.unwrap_or(MAX_COUNT).min(MAX_COUNT)
}

/// A number as the script takes it: thousand millions in 5 bytes, the rest in 4.
fn halves(out: &mut BytesMut, number: u64) {
    out.put_uint(number / HALF, 5);
    out.put_uint(number % HALF, 4);
}

/// Bytes that [`halves`] puts.
const HALVES_BYTES: usize = 9;

fn whole(answer: &mut &[u8]) -> u64 {
    let (high, low) = (answer.get_uint(5), answer.get_uint(4));
    high.saturating_mul(HALF).saturating_add(low)
}

fn unreadable() -> Error {
    fault::corrupt("the tally script's answer is unreadable")
}

/// What tally.lua answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Tallied(Tallied),
    /// Nothing was decided: entries live in this generation.
    Generation(u64),
}

fn read(mut answer: &[u8], tally: &Tally) -> Result<Answer> {
    if answer.is_empty() {
        return Err(unreadable());
    }
    let tag = answer.get_u8();
    let counts: usize = tally.adds.iter().map(|add| add.counts.len()).sum();
    let need = match tag {
        b'A' => counts * HALVES_BYTES,
        b'B' => 2,
        b'S' => 6,
        b'E' => 4 + HALVES_BYTES,
        _ => 0,
    };
    if answer.len() != need {
        return Err(unreadable());
    }
    Ok(Answer::Tallied(match tag {
        b'S' => return Ok(Answer::Generation(answer.get_uint(6))),
        b'G' => return Err(fault::removed()),
        b'A' => Tallied::Added(
            tally
                .adds
                .iter()
                .map(|add| add.counts.iter().map(|_| whole(&mut answer)).collect())
                .collect(),
        ),
        b'D' => Tallied::Duplicate,
        b'B' => Tallied::Barred {
            key: answer.get_u16().into(),
        },
        b'E' => {
            let (add, count) = (answer.get_u16().into(), answer.get_u16().into());
            let limited = tally
                .adds
                .get::<usize>(add)
                .and_then(|add| add.counts.get::<usize>(count))
                .ok_or_else(unreadable)?;
            Tallied::Exceeded {
                add,
                count,
                limit: limit(limited),
                used: whole(&mut answer),
            }
        }
        _ => return Err(unreadable()),
    }))
}

/// A row from the names and counters that HGETALL told.
fn row(answer: Resp3Frame) -> Result<Row> {
    let mut parts = reply::array(answer)?.into_iter().map(reply::bulk);
    let mut row = Row::new();
    while let Some(name) = parts.next() {
        let counter = parts
            .next()
            .flatten()
            .and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        let (Some(name), Some(counter)) = (name, counter) else {
            return Err(fault::corrupt("a row holds what is no counter"));
        };
        row.push((name, counter));
    }
    row.sort_unstable();
    Ok(row)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::store::Add;

    #[test]
    fn numbers_beyond_what_lua_can_hold_come_back_whole() {
        for number in [0, 1, HALF - 1, HALF, (1 << 53) + 1, MAX_COUNT, u64::MAX] {
            let mut out = BytesMut::new();
            halves(&mut out, number);
            assert_eq!(out.len(), HALVES_BYTES);
            assert_eq!(whole(&mut &out[..]), number);
        }
    }

    #[test]
    fn answers_cut_short_are_errors() {
        let tally = Tally {
            adds: vec![Add {
                row: "r".into(),
                keep_ms: None,
                counts: vec![Count {
                    name: "c".into(),
                    amount: 1,
                    limit: None,
                }],
            }],
            ..Tally::default()
        };
        let elsewhere = b"E\0\x05\0\0\0\0\0\0\0\0\0\0\0";
        for bad in [
            &b""[..],
            b"A",
            b"A12345678",
            b"B1",
            b"S1",
            b"E12",
            b"?",
            elsewhere,
        ] {
            assert!(matches!(read(bad, &tally), Err(Error::Corrupt(_))));
        }
        let tallied = |answer| read(answer, &tally).unwrap();
        assert_eq!(tallied(b"D"), Answer::Tallied(Tallied::Duplicate));
        assert_eq!(
            tallied(b"A\0\0\0\0\x01\0\0\0\x02"),
            Answer::Tallied(Tallied::Added(vec![vec![HALF + 2]]))
        );
        assert_eq!(tallied(b"S\0\0\0\0\0\x03"), Answer::Generation(3));
    }
}
