//! Master keys in the settings: read as written, refused by name, and never shown.

use data_encoding::BASE64;

use super::Given;

const ENABLED: &str = "PERSISTENCE_ENCRYPTION__ENABLED";
const MASTER_KEYS: &str = "PERSISTENCE_ENCRYPTION__MASTER_KEYS";

fn text(byte: u8) -> String {
    BASE64.encode(&[byte; 32])
}

#[test]
fn encryption_without_a_master_key_is_refused_with_the_way_to_one() {
    let problems = Given::env(ENABLED, "true").problems();
    assert_eq!(problems.len(), 1);
    for named in [
        "encryption.enabled",
        ENABLED,
        "encryption.master_keys",
        MASTER_KEYS,
        "key generate-master",
        "head -c 32 /dev/urandom | base64",
    ] {
        assert!(problems[0].contains(named), "{named}: {}", problems[0]);
    }
    let given = Given::env(ENABLED, "true").and_env(MASTER_KEYS, &format!("a:{}", text(1)));
    assert!(given.config().encryption.enabled);
}

#[test]
fn master_keys_are_read_from_all_sources() {
    let keys = format!("new:{}, old:{}", text(1), text(2));
    let file = format!("persistence:\n  encryption:\n    master_keys: \"{keys}\"\n");
    for given in [
        Given::env(MASTER_KEYS, &keys),
        Given::file(&file),
        Given::env("PERSISTENCE_ENCRYPTION__MASTER_KEYS_FILE", "/run/keys")
            .and_file("/run/keys", &format!("{keys}\n")),
    ] {
        let loaded = given.load().unwrap();
        let read = loaded.config.encryption.keys();
        let read: Vec<_> = read
            .iter()
            .map(|key| (key.id.as_str(), key.key[0]))
            .collect();
        assert_eq!(read, [("new", 1), ("old", 2)]);
        let mut settings = loaded.settings.iter();
        let shown = settings.find(|setting| setting.path == "encryption.master_keys");
        assert_eq!(shown.unwrap().value, "(redacted)");
        let printed = format!("{loaded:?}");
        for secret in [text(1), text(2), "[1, 1".into()] {
            assert!(!printed.contains(&secret), "{printed}");
        }
    }
}

#[test]
fn every_master_key_that_is_none_is_told_and_not_shown() {
    let given = format!(
        "a:{},b,c:{},a:{},d:{}x",
        text(1),
        BASE64.encode(&[2; 16]),
        text(3),
        text(4)
    );
    let problems = Given::env(MASTER_KEYS, &given).problems();
    let [told] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    for expected in [
        "encryption.master_keys",
        "key 2 has no id",
        "key 3 (id c) has 16 bytes",
        "the keys 1 and 4",
        "key 5 (id d) is not base64",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    for secret in [1, 3, 4].map(text) {
        assert!(!told.contains(secret.trim_end_matches('=')), "{told}");
    }
}
