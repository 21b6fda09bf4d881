//! docs/api is what the protos say, for people: a page a service, with what only its
//! calls carry, and one of what many do. It does not know what an RPC does.

mod proto;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use riptide_persistence::grpc::{Idempotency, METHODS, Method};

use self::proto::{Enumeration, Field, Message, Protos, Rpc, Service};
use super::{super::source::files, agrees};

/// The test that makes the pages.
const MADE_BY: &str = "the_api_is_documented";
/// The page of what calls of more than one service carry.
const SHARED: &str = "types.md";

#[test]
fn the_api_is_documented() {
    let book = Book::of(Protos::read());
    let (rpcs, pages) = (METHODS.len(), book.protos.services.len());
    assert!(rpcs >= 50 && pages == 3, "{rpcs} RPCs of {pages} services");
    let mut made = BTreeSet::new();
    for (page, document) in book.pages() {
        let path = format!("docs/api/{page}");
        agrees(&path, &document, "proto/", MADE_BY);
        made.insert(path);
    }
    let there: BTreeSet<String> = files("docs/api").into_iter().collect();
    assert_eq!(there, made, "remove what is not made of proto/");
}

/// The pages, and what is on which.
struct Book {
    protos: Protos,
    /// The page of each message and enum, by its full name.
    homes: BTreeMap<String, String>,
    /// The links to RPCs, messages and enums that a text can name, by what it writes.
    links: BTreeMap<String, String>,
}

impl Book {
    fn of(protos: Protos) -> Self {
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for service in &protos.services {
            let mut open: Vec<String> = Vec::new();
            for rpc in &service.rpcs {
                open.extend([rpc.request.clone(), rpc.response.clone()]);
            }
            while let Some(name) = open.pop() {
                let used = users.entry(name.clone()).or_default();
                if used.insert(page(&service.name)) {
                    let message = protos.messages.get(&name);
                    let fields = message.map_or(&[][..], |message| &message.fields);
                    open.extend(fields.iter().flat_map(|field| field.refers.clone()));
                }
            }
        }
        let names = protos.messages.keys().chain(protos.enums.keys());
        let homes: BTreeMap<String, String> = names
            .map(|name| {
                let mut pages = users.get(name).into_iter().flatten();
                let home = match (pages.next(), pages.next()) {
                    (Some(page), None) => page.clone(),
                    _ => SHARED.to_owned(),
                };
                (name.clone(), home)
            })
            .collect();
        let mut links = BTreeMap::new();
        for (name, home) in &homes {
            let short = short(name);
            let link = format!("{home}#{}", anchor(short));
            assert!(
                links.insert(short.to_owned(), link).is_none(),
                "two messages are called {short}"
            );
        }
        for service in &protos.services {
            links.insert(service.name.clone(), page(&service.name));
            for rpc in &service.rpcs {
                let link = format!("{}#{}", page(&service.name), anchor(&rpc.name));
                links.insert(rpc.name.clone(), link);
            }
        }
        Self {
            protos,
            homes,
            links,
        }
    }

    fn pages(&self) -> Vec<(String, String)> {
        let services = self.protos.services.iter();
        let mut pages: Vec<_> = services
            .map(|service| (page(&service.name), self.service(service)))
            .collect();
        if self.homes.values().any(|home| home == SHARED) {
            pages.push((SHARED.to_owned(), self.shared()));
        }
        pages.push(("README.md".to_owned(), self.index()));
        pages
    }

    fn index(&self) -> String {
        let mut text = head("API");
        text.push_str(include_str!("api/preface.txt"));
        for service in &self.protos.services {
            writeln!(
                text,
                "\n## {}\n\n{}\n\n| RPC | what it does | permission |\n|---|---|---|",
                service.name,
                format_args!("[All of it]({}).", page(&service.name)),
            )
            .unwrap();
            for rpc in &service.rpcs {
                let does = cell(&self.prose(first_sentence(&rpc.comment), "README.md"));
                let link = &self.links[&rpc.name];
                let streams = rpc.streams();
                let permission = method(service, rpc).permission;
                writeln!(
                    text,
                    "| [{}]({link}){streams} | {does} | `{permission}` |",
                    rpc.name
                )
                .unwrap();
            }
        }
        text
    }

    fn service(&self, service: &Service) -> String {
        let here = page(&service.name);
        let mut text = head(&service.name);
        text.push_str(&self.prose(&service.comment, &here));
        writeln!(
            text,
            "\n\nIts full name is `{}`; it is defined in [{}](../../{}).",
            service.full_name,
            service.file.rsplit('/').next().unwrap(),
            service.file
        )
        .unwrap();
        let mut shown = BTreeSet::new();
        for rpc in &service.rpcs {
            self.rpc(&mut text, service, rpc, &here);
            shown.extend([&rpc.request, &rpc.response]);
        }
        self.rest(&mut text, &here, &shown);
        text
    }

    fn shared(&self) -> String {
        let mut text = head("Types of more than one service");
        text.push_str("What calls of more than one service carry.\n");
        self.rest(&mut text, SHARED, &BTreeSet::new());
        text
    }

    fn rpc(&self, text: &mut String, service: &Service, rpc: &Rpc, here: &str) {
        let method = method(service, rpc);
        let repeated = match method.idempotency {
            Idempotency::NoSideEffects => "changes nothing, may be repeated",
            Idempotency::Idempotent => "idempotent: may be repeated",
            Idempotency::IdempotencyUnknown
                if self.protos.messages[&rpc.request].has("request_id") =>
            {
                "may be repeated with its `request_id`"
            }
            Idempotency::IdempotencyUnknown => "not to be repeated blindly",
        };
        let permission = match method.permission {
            "any" => "any valid key".to_owned(),
            "admin" => "the admin key".to_owned(),
            scope => format!("scope `{scope}`"),
        };
        let mut facts = vec![permission, repeated.to_owned()];
        if method.audited {
            facts.push("every call is told to the audit log".to_owned());
        }
        if method.remembered {
            facts.push("admitted while the store is away, by what is remembered".to_owned());
        }
        write!(
            text,
            "\n## {}\n\n{}\n\n- path: `{}`{}\n",
            rpc.name,
            self.prose(&rpc.comment, here),
            method.path,
            rpc.streams()
        )
        .unwrap();
        for fact in facts {
            writeln!(text, "- {fact}").unwrap();
        }
        for name in [&rpc.request, &rpc.response] {
            if self.homes[name] == here {
                self.message(text, &self.protos.messages[name], here);
            } else {
                writeln!(text, "\nSee {}.", self.type_link(name, here)).unwrap();
            }
        }
    }

    /// The messages and enums of a page that no RPC of it has shown.
    fn rest(&self, text: &mut String, here: &str, shown: &BTreeSet<&String>) {
        let at_home = |name: &str| self.homes[name] == here;
        let messages = self.protos.messages.values();
        let messages: Vec<&Message> = messages
            .filter(|message| at_home(&message.full_name) && !shown.contains(&message.full_name))
            .collect();
        if !messages.is_empty() {
            text.push_str("\n## Messages\n");
        }
        for message in messages {
            self.message(text, message, here);
        }
        let enums = self.protos.enums.values();
        let enums: Vec<&Enumeration> = enums.filter(|one| at_home(&one.full_name)).collect();
        if !enums.is_empty() {
            text.push_str("\n## Enums\n");
        }
        for one in enums {
            write!(
                text,
                "\n### {}\n\n{}\n\n| value | number | meaning |\n|---|---|---|\n",
                short(&one.full_name),
                self.prose(&one.comment, here)
            )
            .unwrap();
            for value in &one.values {
                let meaning = cell(&self.prose(&value.comment, here));
                writeln!(text, "| `{}` | {} | {meaning} |", value.name, value.number).unwrap();
            }
        }
    }

    fn message(&self, text: &mut String, message: &Message, here: &str) {
        write!(
            text,
            "\n### {}\n\n{}\n",
            short(&message.full_name),
            self.prose(&message.comment, here)
        )
        .unwrap();
        if message.fields.is_empty() {
            text.push_str("\nIt has no fields.\n");
            return;
        }
        text.push_str("\n| field | type | meaning |\n|---|---|---|\n");
        for (index, field) in message.fields.iter().enumerate() {
            let mut meaning = String::new();
            if let Some(oneof) = &field.oneof {
                let first = message.fields[..index]
                    .iter()
                    .all(|earlier| earlier.oneof.as_ref() != Some(oneof));
                write!(meaning, "*One of `{}`.* ", oneof.name).unwrap();
                if first && !oneof.comment.is_empty() {
                    write!(meaning, "({}) ", self.prose(&oneof.comment, here)).unwrap();
                }
            }
            meaning.push_str(&self.prose(&field.comment, here));
            writeln!(
                text,
                "| `{}` | {} | {} |",
                field.name,
                self.field_type(field, here),
                cell(&meaning)
            )
            .unwrap();
        }
    }

    fn field_type(&self, field: &Field, here: &str) -> String {
        let mut kind = field.kind.clone();
        for name in &field.refers {
            kind = kind.replace(&format!("{{{name}}}"), &self.type_link(name, here));
        }
        kind
    }

    fn type_link(&self, name: &str, here: &str) -> String {
        match self.links.get(short(name)) {
            Some(link) if self.homes.contains_key(name) => {
                format!("[{}]({})", short(name), from(here, link))
            }
            _ => match name.strip_prefix("google.protobuf.") {
                Some(known) => format!(
                    "[{known}](https://protobuf.dev/reference/protobuf/google.protobuf/#{})",
                    anchor(&hyphenated(known))
                ),
                None => format!(
                    "[{name}](../../proto/{}.proto)",
                    name.to_lowercase().replace('.', "/")
                ),
            },
        }
    }

    /// A comment as Markdown, with links to what it names.
    fn prose(&self, comment: &str, here: &str) -> String {
        let mut text = String::new();
        // What stands between backticks is left as it is.
        for (index, piece) in comment.split('`').enumerate() {
            if index % 2 == 1 {
                write!(text, "`{piece}`").unwrap();
                continue;
            }
            let piece = piece.replace('<', "&lt;").replace('*', "\\*");
            let mut word = String::new();
            for letter in piece.chars().chain(['\n']) {
                if letter.is_alphanumeric() || letter == '_' {
                    word.push(letter);
                    continue;
                }
                text.push_str(&self.word(&word, here));
                word.clear();
                text.push(letter);
            }
            // The end that was added.
            text.pop();
        }
        text
    }

    /// A word, as a link where it cannot but name an RPC or a message.
    fn word(&self, word: &str, here: &str) -> String {
        let capitals = word.chars().filter(char::is_ascii_uppercase).count();
        match self.links.get(word) {
            Some(link) if capitals > 1 => format!("[{word}]({})", from(here, link)),
            _ => word.to_owned(),
        }
    }
}

fn head(title: &str) -> String {
    format!("# {title}\n\n<!-- Made of proto/: REGENERATE=1 cargo test --test it {MADE_BY} -->\n\n")
}

/// `CacheService` has `cache-service.md`.
fn page(service: &str) -> String {
    format!("{}.md", hyphenated(service))
}

fn hyphenated(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn anchor(heading: &str) -> String {
    heading.to_lowercase()
}

fn short(full_name: &str) -> &str {
    full_name.rsplit('.').next().unwrap()
}

/// A link as it is written on a page.
fn from(here: &str, link: &str) -> String {
    link.strip_prefix(here)
        .filter(|rest| rest.starts_with('#'))
        .unwrap_or(link)
        .to_owned()
}

fn first_sentence(comment: &str) -> &str {
    comment
        .find(". ")
        .or_else(|| comment.find(".\n"))
        .map_or(comment, |at| &comment[..=at])
}

fn cell(text: &str) -> String {
    text.replace("\n\n", " ")
        .replace('\n', " ")
        .replace('|', "\\|")
}

fn method(service: &Service, rpc: &Rpc) -> &'static Method {
    METHODS
        .iter()
        .find(|method| method.service == service.name && method.name == rpc.name)
        .unwrap_or_else(|| panic!("{} is in no table of methods", rpc.name))
}
