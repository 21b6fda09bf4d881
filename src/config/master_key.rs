//! Master keys as they are written: `id:base64`, comma-separated. No problem it
//! tells of repeats any part of a key. It does not know what they open.

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{Encryption, validate::Note};

/// Bytes of a master key.
pub const MASTER_KEY_BYTES: usize = 32;

/// Master keys there may be: one that writes, and those before it.
const MAX_KEYS: usize = 64;

const MASTER_KEYS: &str = "encryption.master_keys";

/// How a master key is had; what a start that lacks one says.
pub const HOW_TO_MAKE: &str = "`riptide-persistence key generate-master` prints one; \
     so does: echo \"main:$(head -c 32 /dev/urandom | base64)\"";

/// A master key, and the name that what it wraps knows it by.
pub struct MasterKey {
    /// Its name.
    pub id: String,
    /// The key.
    pub key: Zeroizing<[u8; MASTER_KEY_BYTES]>,
}

impl Encryption {
    /// The master keys; the first one writes. None where they are not valid, which
    /// loading has refused.
    pub fn keys(&self) -> Vec<MasterKey> {
        self.master_keys
            .as_ref()
            .map_or_else(Vec::new, |text| read(text).unwrap_or_default())
    }
}

/// Whether it can be a master key's name.
pub fn is_master_key_id(id: &str) -> bool {
    (1..=63).contains(&id.len())
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

pub(super) fn check(encryption: &Encryption, note: Note<'_>) {
    match &encryption.master_keys {
        Some(text) => {
            // One setting, one problem: all that is wrong with it.
            if let Err(problems) = read(text) {
                note(MASTER_KEYS, problems.join("; "));
            }
        }
        None if encryption.enabled => note(
            "encryption.enabled",
            format!(
                "needs a master key: set {MASTER_KEYS} (PERSISTENCE_ENCRYPTION__MASTER_KEYS, \
                 or a file named by PERSISTENCE_ENCRYPTION__MASTER_KEYS_FILE); {HOW_TO_MAKE}"
            ),
        ),
        None => {}
    }
}

/// The keys, or all that is wrong with them, by where they stand.
fn read(text: &SecretString) -> Result<Vec<MasterKey>, Vec<String>> {
    let (mut keys, mut problems) = (Vec::<MasterKey>::new(), Vec::new());
    for (number, given) in text.expose_secret().split(',').enumerate() {
        let at = number + 1;
        match read_one(given.trim()) {
            Ok(key) => match keys.iter().position(|known| known.id == key.id) {
                Some(first) => problems.push(format!(
                    "the keys {} and {at} have the same id; each needs its own",
                    first + 1
                )),
                None => keys.push(key),
            },
            Err(problem) => problems.push(format!("key {at} {problem}")),
        }
    }
    if keys.len() > MAX_KEYS {
        problems.push(format!(
            "{} keys, at most {MAX_KEYS} are allowed",
            keys.len()
        ));
    }
    if problems.is_empty() {
        Ok(keys)
    } else {
        Err(problems)
    }
}

fn read_one(given: &str) -> Result<MasterKey, String> {
    if given.is_empty() {
        return Err("is empty; allowed is id:base64, comma-separated".to_owned());
    }
    let Some((id, text)) = given.split_once(':') else {
        return Err(format!(
            "has no id; allowed is id:base64, comma-separated: {HOW_TO_MAKE}"
        ));
    };
    if !is_master_key_id(id) {
        return Err(
            "has an id that is none: 1 to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit"
                .to_owned(),
        );
    }
    let bytes = BASE64.decode(text.as_bytes()).map(Zeroizing::new);
    let bytes = bytes
        .map_err(|_| format!("(id {id}) is not base64 with its padding, as base64(1) writes it"))?;
    let key: [u8; MASTER_KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| {
        format!(
            "(id {id}) has {} bytes; a master key has {MASTER_KEY_BYTES}: {HOW_TO_MAKE}",
            bytes.len()
        )
    })?;
    Ok(MasterKey {
        id: id.to_owned(),
        key: Zeroizing::new(key),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(byte: u8) -> String {
        BASE64.encode(&[byte; MASTER_KEY_BYTES])
    }

    fn problems(given: &str) -> Vec<String> {
        read(&given.to_owned().into()).err().unwrap_or_default()
    }

    #[test]
    fn keys_are_read_in_their_order() {
        let given = format!("new-1:{}, Old.0:{}\n", text(7), text(8));
        let keys = read(&given.into()).ok().unwrap();
        let read: Vec<_> = keys.iter().map(|k| (k.id.as_str(), k.key[0])).collect();
        assert_eq!(read, [("new-1", 7), ("Old.0", 8)]);
    }

    #[test]
    fn all_that_is_wrong_is_told_and_no_key() {
        let short = BASE64.encode(&[9; 31]);
        let given = format!(
            "a:{}, ,{},-x:{},b:!{},c:{short},a:{}",
            text(1),
            text(2),
            text(3),
            text(4),
            text(5)
        );
        let found = problems(&given);
        for (told, expected) in found.iter().zip([
            "key 2 is empty",
            "key 3 has no id",
            "key 4 has an id that is none",
            "key 5 (id b) is not base64",
            "key 6 (id c) has 31 bytes",
            "the keys 1 and 7 have the same id",
        ]) {
            assert!(told.starts_with(expected), "{told}");
        }
        assert_eq!(found.len(), 6);
        let told = found.join("\n");
        for secret in [text(1), text(2), text(3), text(4), short, text(5)] {
            assert!(!told.contains(secret.trim_end_matches('=')), "{told}");
        }
    }

    #[test]
    fn more_than_anyone_needs_are_refused() {
        let many: Vec<_> = (0..=MAX_KEYS)
            .map(|n| format!("k{n}:{}", text(1)))
            .collect();
        assert_eq!(
            problems(&many.join(",")),
            ["65 keys, at most 64 are allowed"]
        );
        assert_eq!(problems(&many[1..].join(",")), [""; 0]);
    }
}
