//! Random bytes from the operating system, and the alphabet ids are written in.
//! It does not know what the bytes are for.

use data_encoding::Encoding;
use std::{cell::Cell, sync::LazyLock};

/// base32hex in lower case without padding: sorts as its bytes do, and can be
/// typed.
pub static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = data_encoding::BASE32HEX_NOPAD.specification();
    spec.symbols = spec.symbols.to_ascii_lowercase();
    spec.encoding().unwrap_or(data_encoding::BASE32HEX_NOPAD)
});

/// Fills a buffer with random bytes.
///
/// # Panics
/// If the operating system has no randomness to give, which is before its
/// generator is seeded at boot; nothing safe can be done then.
pub fn fill(bytes: &mut [u8]) {
    #[allow(clippy::expect_used)]
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

/// The next of this thread's random numbers (SplitMix64): for what has to be unique and
/// is no secret, where a system call for each would cost more than the rest.
pub fn number() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(u64::from_le_bytes(bytes()));
    }
    STATE.with(|state| {
        let seed = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(seed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// So many random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}
