//! The bytes of an object, in the pieces that they are written in. It does not know where
//! they go.

use bytes::Bytes;
use object_store::PutPayload;

/// Bytes that are written at once. A write of some MiB to a file is some milliseconds of
/// one system call, in which many kernels give the core to nobody else, and calls are
/// served on the same cores.
const PIECE_BYTES: usize = 64 << 10;

/// What is put, of these bytes.
pub(super) fn of(mut bytes: Bytes) -> PutPayload {
    let piece = || {
        let piece = bytes.split_to(PIECE_BYTES.min(bytes.len()));
        (!piece.is_empty()).then_some(piece)
    };
    std::iter::from_fn(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_is_large_and_none_is_lost() {
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES - 1] {
            let bytes: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
            let payload = of(bytes.clone());
            assert_eq!(payload.content_length(), length);
            assert_eq!(payload.iter().count(), length.div_ceil(PIECE_BYTES));
            assert!(payload.iter().all(|piece| piece.len() <= PIECE_BYTES));
            assert_eq!(Bytes::from(payload), bytes);
        }
    }
}
