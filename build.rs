//! Compiles the protos without protoc, and turns their method options into a
//! table: an RPC without its options does not build.

use std::{env, error::Error, fmt::Write, fs, path::PathBuf, process::Command};

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, MessageDescriptor, MethodDescriptor, Value,
};

const PACKAGE: &str = "riptide.persistence.v1";
const FILES: [&str; 3] = ["tenant_service", "cache_service", "state_service"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES.map(|file| format!("riptide/persistence/v1/{file}.proto")))?;

    // The descriptors as bytes keep the options; as prost types they would not.
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptors.bin"), &encoded)?;
    let pool = DescriptorPool::decode(encoded.as_slice())?;
    fs::write(out.join("methods.rs"), methods(&pool)?)?;
    fs::write(out.join("asks.rs"), asks(&pool)?)?;

    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .bytes(".riptide.persistence.v1.CacheEntry.value")
        .bytes(".riptide.persistence.v1.SetRequest.value")
        .bytes(".riptide.persistence.v1.SetEntry.value")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(decoded(&compiler.encode_file_descriptor_set())?)?;

    // A file that is not there would run this anew each time.
    if let Some(head) = git(&["rev-parse", "--git-path", "HEAD"]) {
        println!("cargo:rerun-if-changed={head}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    println!(
        "cargo:rustc-env=RIPTIDE_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    Ok(())
}

/// The set as the code generator wants it: without the source of imports.
fn decoded(encoded: &[u8]) -> Result<prost_types::FileDescriptorSet, Box<dyn Error>> {
    Ok(prost_types::FileDescriptorSet::decode(encoded)?)
}

/// One `Method` literal an RPC, sorted by path.
fn methods(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut rows = Vec::new();
    for service in pool.services().filter(|s| s.package_name() == PACKAGE) {
        for method in service.methods() {
            let permission = match option(&method, "permission")? {
                Value::String(permission) => permission,
                other => {
                    return Err(format!("{}: permission is {other:?}", method.full_name()).into());
                }
            };
            let audited = option(&method, "audited")?;
            let audited = audited.as_bool().ok_or("audited is a bool")?;
            // What is not set is false.
            let remembered = method
                .options()
                .get_extension(&extension(&method, "remembered")?)
                .as_bool()
                .ok_or("remembered is a bool")?;
            let options = method
                .method_descriptor_proto()
                .options
                .clone()
                .unwrap_or_default();
            if options.idempotency_level.is_none() {
                return Err(format!("{} has no idempotency_level", method.full_name()).into());
            }
            let idempotency = format!("{:?}", options.idempotency_level());
            let streams = match (method.is_client_streaming(), method.is_server_streaming()) {
                (false, false) => "Neither",
                (true, false) => "Requests",
                (false, true) => "Answers",
                (true, true) => "Both",
            };
            rows.push(format!(
                "path: \"/{}/{}\", service: \"{}\", name: \"{}\", permission: {permission:?}, audited: {audited}, remembered: {remembered}, idempotency: Idempotency::{idempotency}, streams: Streams::{streams}",
                service.full_name(), method.name(), service.name(), method.name(),
            ));
        }
    }
    rows.sort();
    let mut code = String::from("&[\n");
    for (place, row) in rows.into_iter().enumerate() {
        writeln!(code, "    Method {{ place: {place}, {row} }},")?;
    }
    code.push(']');
    Ok(code)
}

/// What `client::ask` says of each message that asks an RPC.
fn asks(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut code = String::new();
    let mut paths = Vec::new();
    for service in pool.services().filter(|s| s.package_name() == PACKAGE) {
        for method in service.methods() {
            let (request, answer) = (method.input(), method.output());
            let name = request.name();
            let path = format!("/{}/{}", service.full_name(), method.name());
            let options = method.method_descriptor_proto().options.clone();
            let idempotency = options.unwrap_or_default().idempotency_level();
            writeln!(
                code,
                "impl Ask for v1::{name} {{ type Answer = v1::{}; const PATH: &'static str = {path:?}; const IDEMPOTENCY: Idempotency = Idempotency::{idempotency:?};",
                answer.name()
            )?;
            if request.get_field_by_name("request_id").is_some() {
                code.push_str("fn request_id(&mut self) -> Option<&mut String> { Some(&mut self.request_id) }\n");
            }
            let conditions = conditions(&request);
            if !conditions.is_empty() {
                writeln!(
                    code,
                    "fn is_conditional(&self) -> bool {{ {} }}",
                    conditions.join(" || ")
                )?;
            }
            code.push_str("}\n");
            let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
                (false, false) => "Unary",
                (false, true) => "Followed",
                (true, false) => "Streamed",
                (true, true) => return Err(format!("{path} streams both ways").into()),
            };
            writeln!(code, "impl {kind} for v1::{name} {{}}")?;
            // A page of a job lists nothing.
            let mut lists = answer.fields().filter(|field| field.is_list());
            if answer.get_field_by_name("next_page_token").is_some()
                && let Some(list) = lists.next()
                && let Some(item) = list.kind().as_message()
            {
                writeln!(
                    code,
                    "impl Paged for v1::{name} {{ type Item = v1::{}; fn turn_to(&mut self, page_token: String) {{ self.page_token = page_token; }} fn open(page: Self::Answer) -> (Vec<Self::Item>, String) {{ (page.{}, page.next_page_token) }} }}",
                    item.name(),
                    list.name()
                )?;
            }
            paths.push(path);
        }
    }
    writeln!(code, "#[cfg(test)] const PATHS: &[&str] = &{paths:?};")?;
    Ok(code)
}

/// What tells that a message asks on a condition, its own or an item's.
fn conditions(message: &MessageDescriptor) -> Vec<String> {
    let mut found = Vec::new();
    for field in message.fields() {
        let name = field.name();
        match name {
            "etag" | "lease_token" => found.push(format!("!self.{name}.is_empty()")),
            "if_version" => found.push("self.if_version != 0".to_owned()),
            "condition" => found.push("self.condition > v1::SetCondition::None as i32".to_owned()),
            _ => {}
        }
        if let (true, Some(item)) = (field.is_list(), field.kind().as_message()) {
            for condition in conditions(item) {
                let condition = condition.replace("self.", "item.");
                found.push(format!("self.{name}.iter().any(|item| {condition})"));
            }
        }
    }
    found
}

/// The value of one of our options; an error where the method does not set it.
fn option(method: &MethodDescriptor, name: &str) -> Result<Value, Box<dyn Error>> {
    let extension = extension(method, name)?;
    let options: DynamicMessage = method.options();
    if !options.has_extension(&extension) {
        return Err(format!("{} has no option {name}", method.full_name()).into());
    }
    Ok(options.get_extension(&extension).into_owned())
}

fn extension(method: &MethodDescriptor, name: &str) -> Result<ExtensionDescriptor, Box<dyn Error>> {
    let extension = method
        .parent_pool()
        .get_extension_by_name(&format!("{PACKAGE}.{name}"));
    Ok(extension.ok_or_else(|| format!("options.proto has no {name}"))?)
}

/// What git says in a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
