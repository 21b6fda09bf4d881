//! Random bytes from the operating system, and the alphabet ids are written in.
//! It does not know what the bytes are for.

use data_encoding::Encoding;
use std::sync::LazyLock;

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

/// So many random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}
