//! What a tenant may be called. It does not know which names are taken.

/// What is allowed, in words for a caller.
pub const RULE: &str =
    "3 to 63 characters: a lower-case letter, then lower-case letters, digits and hyphens";

/// Bytes of the longest one.
pub const MAX_BYTES: usize = 63;

/// Whether this is a tenant id: `^[a-z][a-z0-9-]{2,62}$`.
pub fn is_valid(id: &str) -> bool {
    let bytes = id.as_bytes();
    (3..=MAX_BYTES).contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// A new one: `t-` and 80 random bits.
pub fn generate() -> String {
    format!(
        "t-{}",
        crate::random::BASE32.encode(&crate::random::bytes::<10>())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_holds_at_its_edges() {
        let longest = format!("a{}", "b".repeat(62));
        let too_long = format!("{longest}c");
        for (id, valid) in [
            ("abc", true),
            ("a-1", true),
            ("a--", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("ab", false),
            ("", false),
            ("1ab", false),
            ("-ab", false),
            ("Abc", false),
            ("aBc", false),
            ("ab_c", false),
            ("ab c", false),
            ("äbc", false),
            ("abc\n", false),
        ] {
            assert_eq!(is_valid(id), valid, "{id:?}");
        }
        assert!(is_valid(&generate()));
        assert_ne!(generate(), generate());
    }
}
