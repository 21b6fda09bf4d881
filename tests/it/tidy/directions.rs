//! Who may know whom: grpc -> cache, state -> tenant -> codec -> store, and the
//! drivers confined to the modules that wrap them. It reads paths, not types.

use super::{
    none,
    source::{Source, words},
};

/// Modules of the crate, and those they never mention.
const DIRECTIONS: [(&str, &[&str]); 10] = [
    (
        "store",
        &[
            "codec", "tenant", "cache", "state", "grpc", "server", "cli", "proto",
        ],
    ),
    (
        "codec",
        &["tenant", "cache", "state", "grpc", "server", "cli", "proto"],
    ),
    (
        "tenant",
        &["cache", "state", "grpc", "server", "cli", "proto"],
    ),
    ("cache", &["state", "grpc", "server", "cli", "proto"]),
    ("state", &["cache", "grpc", "server", "cli", "proto"]),
    ("grpc", &["server", "cli", "client"]),
    (
        "config",
        &[
            "store", "codec", "tenant", "cache", "state", "grpc", "server", "cli", "proto",
        ],
    ),
    (
        "error",
        &[
            "codec", "tenant", "cache", "state", "grpc", "server", "cli", "proto",
        ],
    ),
    ("server", &["cli", "client"]),
    (
        "client",
        &[
            "store", "codec", "tenant", "cache", "state", "server", "cli", "config", "error",
        ],
    ),
];

/// Crates, and the files that may use them, by the beginning of their path.
const CONFINED: [(&str, &[&str]); 17] = [
    (
        "tonic",
        &[
            "src/grpc",
            "src/lib.rs",
            "src/server",
            "src/cli",
            "src/client",
        ],
    ),
    ("tonic_types", &["src/grpc", "src/cli", "src/client"]),
    ("tonic_health", &["src/grpc", "src/server", "src/cli"]),
    ("tonic_reflection", &["src/grpc", "src/server"]),
    (
        "prost",
        &[
            "src/grpc",
            "src/lib.rs",
            "src/server",
            "src/cli",
            "src/client",
        ],
    ),
    ("prost_types", &["src/grpc", "src/server", "src/cli"]),
    ("fred", &["src/store/redis"]),
    ("redb", &["src/store/embedded"]),
    ("lz4_flex", &["src/codec/compress.rs"]),
    (
        "ring",
        &[
            "src/codec/xaes.rs",
            "src/config/tls",
            "src/server/tls.rs",
            "src/store/redis/tls.rs",
            "src/tls.rs",
        ],
    ),
    ("aes", &["src/codec/xaes.rs"]),
    ("object_store", &["src/state/objects"]),
    (
        "rustls",
        &[
            "src/state/objects",
            "src/config/tls",
            "src/server/tls.rs",
            "src/client/tls.rs",
            "src/store/redis/tls.rs",
            "src/tls.rs",
        ],
    ),
    ("rustls_native_certs", &["src/tls.rs"]),
    ("tokio_rustls", &["src/server", "src/tls.rs"]),
    ("reqwest", &[]),
    ("opentelemetry_proto", &["src/server/otlp.rs"]),
];

#[test]
fn modules_look_down_only() {
    let mut found = Vec::new();
    for source in Source::of_src() {
        let module = top(&source.path);
        let Some((_, never)) = DIRECTIONS.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for mentioned in mentions(&source.code_without_tests()) {
            if never.contains(&mentioned.as_str()) {
                found.push(format!("{}: crate::{mentioned}", source.path));
            }
        }
    }
    none(found, "these look up, or sideways");
}

#[test]
fn the_backends_do_not_know_each_other() {
    let mut found = Vec::new();
    for (backend, other) in [("redis", "embedded"), ("embedded", "redis")] {
        let own = format!("src/store/{backend}");
        for source in Source::of_src()
            .into_iter()
            .filter(|source| source.path.starts_with(&own))
        {
            let code = source.code_without_tests();
            if code.contains(&format!("store::{other}"))
                || code.contains(&format!("super::{other}"))
            {
                found.push(format!("{}: {other}", source.path));
            }
        }
    }
    none(found, "each backend stands alone");
}

#[test]
fn drivers_stay_where_they_are_wrapped() {
    let mut found = Vec::new();
    for source in Source::of_src() {
        let code = source.code_without_tests();
        for (name, homes) in CONFINED {
            let used = words(&code, name).any(|at| code[at + name.len()..].starts_with("::"));
            if used && !homes.iter().any(|home| source.path.starts_with(home)) {
                found.push(format!(
                    "{}: {name}, which belongs in {}",
                    source.path,
                    homes.join(", ")
                ));
            }
        }
    }
    none(found, "go through the module that wraps the crate");
}

#[test]
fn only_admission_opens_the_space_of_a_tenant() {
    let outside = Source::of_src().into_iter().filter(|source| {
        !source.path.starts_with("src/tenant")
            && source.code_without_tests().contains("Space::tenant")
    });
    none(
        outside.map(|source| source.path),
        "take the space from a Tenancy: it is the proof that the caller was admitted",
    );
}

/// `store` for `src/store.rs` and `src/store/redis.rs`.
fn top(path: &str) -> &str {
    path.trim_start_matches("src/")
        .split(['/', '.'])
        .next()
        .unwrap()
}

/// The modules named after `crate::`, in braces too.
fn mentions(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for at in words(code, "crate") {
        let Some(rest) = code[at..].strip_prefix("crate::") else {
            continue;
        };
        match rest.strip_prefix('{') {
            None => found.push(first(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.push(first(&std::mem::take(&mut item))),
                        _ => {}
                    }
                    if depth == 0 && c != ',' {
                        item.push(c);
                    }
                }
                found.push(first(&item));
            }
        }
    }
    found
}

fn first(path: &str) -> String {
    path.trim()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}
