//! LZ4 in its block format, where it pays. It does not know frames: whoever
//! calls keeps the size that a payload opens to.

use std::cell::RefCell;

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use crate::config::Compression;

/// A byte of LZ4 opens to at most so many: a match that goes on costs a byte
/// for each 255 that it copies.
const MAX_RATIO: usize = 255;

/// LZ4 takes a smaller table of positions for inputs below this.
const SMALL_BYTES: usize = u16::MAX as usize;

thread_local! {
    // One of each kind a thread, since making one costs more than compressing 1 KiB.
    static SMALL: RefCell<CompressTable> = RefCell::new(CompressTable::small());
    static LARGE: RefCell<CompressTable> = RefCell::new(CompressTable::large());
}

/// The room a payload may need, so that `append` need not allocate.
pub fn room(value_bytes: usize, rule: &Compression) -> usize {
    if pays_to_try(value_bytes, rule) {
        get_maximum_output_size(value_bytes)
    } else {
        value_bytes
    }
}

/// Appends `value` to `out`, compressed where the rule allows and it saves
/// enough, else as it is. Says whether it was compressed.
pub fn append(value: &[u8], out: &mut Vec<u8>, rule: &Compression) -> bool {
    let start = out.len();
    if pays_to_try(value.len(), rule) {
        out.resize(start + get_maximum_output_size(value.len()), 0);
        let written = out.get_mut(start..).and_then(|room| compress(value, room));
        if let Some(written) = written.filter(|&written| saves(value.len(), written, rule)) {
            out.truncate(start + written);
            return true;
        }
        out.truncate(start);
    }
    out.extend_from_slice(value);
    false
}

/// Opens a payload to exactly `size` bytes; what was wrong where it does not.
/// The caller has bounded `size`, and a payload too short for it is refused
/// before anything is allocated.
pub fn expand(payload: &[u8], size: usize) -> Result<Vec<u8>, String> {
    if size / MAX_RATIO > payload.len() {
        return Err(format!(
            "{} compressed bytes cannot hold the {size} declared",
            payload.len()
        ));
    }
    let mut value = vec![0; size];
    match decompress_into(payload, &mut value) {
        Ok(written) if written == size => Ok(value),
        Ok(written) => Err(format!(
            "{size} bytes are declared, the payload opens to {written}"
        )),
        Err(_) => Err(format!(
            "the payload does not open to the {size} bytes declared"
        )),
    }
}

fn compress(value: &[u8], room: &mut [u8]) -> Option<usize> {
    let table = if value.len() < SMALL_BYTES {
        &SMALL
    } else {
        &LARGE
    };
    table
        .with_borrow_mut(|table| compress_into_with_table(value, room, table))
        .ok()
}

fn pays_to_try(value_bytes: usize, rule: &Compression) -> bool {
    rule.enabled && value_bytes > 0 && value_bytes >= rule.min_bytes
}

fn saves(before: usize, after: usize, rule: &Compression) -> bool {
    let saved = before.saturating_sub(after) as u64;
    saved * 100 >= before as u64 * u64::from(rule.min_saving_percent) && saved > 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const RULE: Compression = Compression {
        enabled: true,
        min_bytes: 1024,
        min_saving_percent: 10,
    };

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let step = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        std::iter::repeat_with(step).take(bytes).collect()
    }

    #[test]
    fn only_from_the_least_size_and_where_it_saves_enough() {
        // Value, whether it is compressed.
        let mut nearly = noise(1000);
        nearly.resize(1080, 0);
        let mut enough = noise(1000);
        enough.resize(1200, 0);
        let cases = [
            (vec![b'a'; 1023], false),
            (vec![b'a'; 1024], true),
            (noise(4096), false),
            (nearly, false),
            (enough, true),
            (vec![b'a'; 200_000], true),
            (vec![], false),
        ];
        for (value, compressed) in cases {
            let mut out = b"head".to_vec();
            out.reserve(room(value.len(), &RULE));
            let before = out.capacity();
            assert_eq!(
                append(&value, &mut out, &RULE),
                compressed,
                "{} bytes",
                value.len()
            );
            assert_eq!(out.capacity(), before, "room() was enough");
            assert_eq!(&out[..4], b"head");
            if compressed {
                assert!(out.len() - 4 <= value.len() * 9 / 10);
                assert_eq!(expand(&out[4..], value.len()).unwrap(), value);
            } else {
                assert_eq!(&out[4..], value);
            }
        }
    }

    #[test]
    fn off_means_off() {
        let mut out = Vec::new();
        assert!(!append(
            &[0; 4096],
            &mut out,
            &Compression {
                enabled: false,
                ..RULE
            }
        ));
        assert_eq!(out.len(), 4096);
    }

    #[test]
    fn a_lie_about_the_size_is_told() {
        let mut out = Vec::new();
        assert!(append(&[7; 4096], &mut out, &RULE));
        assert!(expand(&out, 4095).unwrap_err().contains("4095"));
        assert!(expand(&out, 4097).unwrap_err().contains("4097"));
        assert!(
            expand(&out, usize::MAX)
                .unwrap_err()
                .contains("cannot hold")
        );
        assert!(expand(&out[..out.len() - 1], 4096).is_err());
        assert!(expand(&[], 1).is_err());
    }
}
