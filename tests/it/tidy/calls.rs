//! Every RPC is described by its options and called by an end-to-end test. It
//! does not know what an RPC does.

use riptide_persistence::{grpc::METHODS, tenant::Permission};

use super::{
    none,
    source::{Source, words},
};

#[test]
fn every_rpc_has_its_options() {
    assert!(
        METHODS.len() >= 25,
        "{} RPCs: the table is not the contract's",
        METHODS.len()
    );
    let unknown = METHODS
        .iter()
        .filter(|method| Permission::parse(method.permission).is_none());
    none(
        unknown.map(|method| format!("{}: {:?}", method.path, method.permission)),
        "these permissions are not known",
    );
    let unaudited = METHODS.iter().filter(|method| {
        method.permission == "admin"
            && !method.audited
            && method.idempotency != riptide_persistence::grpc::Idempotency::NoSideEffects
    });
    none(
        unaudited.map(|method| method.path.to_owned()),
        "what an admin changes is audited",
    );
}

#[test]
fn every_rpc_is_called_end_to_end() {
    let tests: Vec<Source> = Source::all()
        .into_iter()
        .filter(|source| {
            ["tests/it/rpc", "tests/it/process", "tests/it/cli"]
                .iter()
                .any(|tests| source.path.starts_with(tests))
        })
        .collect();
    let code: String = tests.iter().map(Source::code).collect();
    let uncalled = METHODS.iter().filter(|method| {
        let call = snake_case(method.name);
        !words(&code, &call)
            .any(|at| code[..at].ends_with('.') && code[at + call.len()..].starts_with('('))
    });
    none(
        uncalled.map(|method| method.path.to_owned()),
        "call these over a real socket in tests/it/rpc",
    );
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}
