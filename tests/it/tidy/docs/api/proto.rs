//! The services, messages and enums of the protos with their comments, out of the
//! descriptors in the library. It does not know how they are shown.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use riptide_persistence::proto::v1::DESCRIPTORS;

const PACKAGE: &str = "riptide.persistence.v1";

pub(super) struct Protos {
    /// In the order of their names.
    pub(super) services: Vec<Service>,
    /// By their full names; those of the package alone.
    pub(super) messages: BTreeMap<String, Message>,
    pub(super) enums: BTreeMap<String, Enumeration>,
}

pub(super) struct Service {
    pub(super) name: String,
    pub(super) full_name: String,
    /// The file, from the root of the repository.
    pub(super) file: String,
    pub(super) comment: String,
    pub(super) rpcs: Vec<Rpc>,
}

pub(super) struct Rpc {
    pub(super) name: String,
    pub(super) comment: String,
    pub(super) request: String,
    pub(super) response: String,
    client_streams: bool,
    server_streams: bool,
}

pub(super) struct Message {
    pub(super) full_name: String,
    pub(super) comment: String,
    pub(super) fields: Vec<Field>,
}

pub(super) struct Field {
    pub(super) name: String,
    pub(super) comment: String,
    /// Its type; names of messages and enums stand in braces.
    pub(super) kind: String,
    /// The full names of these.
    pub(super) refers: Vec<String>,
    pub(super) oneof: Option<Oneof>,
}

#[derive(Clone, PartialEq)]
pub(super) struct Oneof {
    pub(super) name: String,
    pub(super) comment: String,
}

pub(super) struct Enumeration {
    pub(super) full_name: String,
    pub(super) comment: String,
    pub(super) values: Vec<Value>,
}

pub(super) struct Value {
    pub(super) name: String,
    pub(super) number: i32,
    pub(super) comment: String,
}

impl Rpc {
    /// What streams, in words; nothing where nothing does.
    pub(super) fn streams(&self) -> &'static str {
        match (self.client_streams, self.server_streams) {
            (false, false) => "",
            (true, false) => " (client stream)",
            (false, true) => " (server stream)",
            (true, true) => " (both stream)",
        }
    }
}

impl Message {
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|one| one.name == field)
    }
}

impl Protos {
    pub(super) fn read() -> Self {
        let mut protos = Self {
            services: Vec::new(),
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
        };
        let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let ours = set.file.iter().filter(|file| file.package() == PACKAGE);
        for file in ours {
            let comments = Comments::of(file);
            for (index, message) in (0..).zip(&file.message_type) {
                protos.message(message, PACKAGE, &[4, index], &comments);
            }
            for (index, one) in (0..).zip(&file.enum_type) {
                protos.enumeration(one, PACKAGE, &[5, index], &comments);
            }
            for (index, one) in (0..).zip(&file.service) {
                protos.services.push(service(one, file, index, &comments));
            }
        }
        protos.services.sort_by(|a, b| a.name.cmp(&b.name));
        protos
    }

    fn message(&mut self, message: &DescriptorProto, scope: &str, at: &[i32], comments: &Comments) {
        let full_name = format!("{scope}.{}", message.name());
        for (index, nested) in (0..).zip(&message.nested_type) {
            let entry = nested.options.as_ref().is_some_and(|own| own.map_entry());
            if !entry {
                self.message(nested, &full_name, &below(at, &[3, index]), comments);
            }
        }
        for (index, nested) in (0..).zip(&message.enum_type) {
            self.enumeration(nested, &full_name, &below(at, &[4, index]), comments);
        }
        let fields = (0..).zip(&message.field).map(|(index, field)| {
            let (kind, refers) = kind(field, message);
            let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
            Field {
                name: field.name().to_owned(),
                comment: comments.at(&below(at, &[2, index])),
                kind,
                refers,
                oneof: oneof.map(|index| Oneof {
                    name: message.oneof_decl[usize::try_from(index).unwrap()]
                        .name()
                        .to_owned(),
                    comment: comments.at(&below(at, &[8, index])),
                }),
            }
        });
        let told = Message {
            fields: fields.collect(),
            comment: comments.at(at),
            full_name: full_name.clone(),
        };
        self.messages.insert(full_name, told);
    }

    fn enumeration(
        &mut self,
        one: &EnumDescriptorProto,
        scope: &str,
        at: &[i32],
        comments: &Comments,
    ) {
        let full_name = format!("{scope}.{}", one.name());
        let values = (0..).zip(&one.value).map(|(index, value)| Value {
            name: value.name().to_owned(),
            number: value.number(),
            comment: comments.at(&below(at, &[2, index])),
        });
        let told = Enumeration {
            values: values.collect(),
            comment: comments.at(at),
            full_name: full_name.clone(),
        };
        self.enums.insert(full_name, told);
    }
}

fn service(
    service: &ServiceDescriptorProto,
    file: &FileDescriptorProto,
    index: i32,
    comments: &Comments,
) -> Service {
    let rpcs = (0..).zip(&service.method).map(|(rpc, method)| Rpc {
        name: method.name().to_owned(),
        comment: comments.at(&[6, index, 2, rpc]),
        request: full_name(method.input_type()),
        response: full_name(method.output_type()),
        client_streams: method.client_streaming(),
        server_streams: method.server_streaming(),
    });
    Service {
        name: service.name().to_owned(),
        full_name: format!("{PACKAGE}.{}", service.name()),
        file: format!("proto/{}", file.name()),
        comment: comments.at(&[6, index]),
        rpcs: rpcs.collect(),
    }
}

/// A field's type, and the messages and enums it names.
fn kind(field: &FieldDescriptorProto, message: &DescriptorProto) -> (String, Vec<String>) {
    if !matches!(field.r#type(), Type::Message | Type::Enum) {
        let scalar = field.r#type().as_str_name();
        let scalar = scalar.trim_start_matches("TYPE_").to_lowercase();
        return (labelled(field, &scalar), Vec::new());
    }
    let name = full_name(field.type_name());
    let entry = message.nested_type.iter().find(|nested| {
        let entry = nested.options.as_ref().is_some_and(|own| own.map_entry());
        entry && name.ends_with(&format!(".{}.{}", message.name(), nested.name()))
    });
    if let Some(entry) = entry {
        let (key, _) = kind(&entry.field[0], entry);
        let (value, refers) = kind(&entry.field[1], entry);
        return (format!("map&lt;{key}, {value}&gt;"), refers);
    }
    (labelled(field, &format!("{{{name}}}")), vec![name])
}

fn labelled(field: &FieldDescriptorProto, kind: &str) -> String {
    if field.label() == Label::Repeated {
        format!("repeated {kind}")
    } else if field.proto3_optional() {
        format!("optional {kind}")
    } else {
        kind.to_owned()
    }
}

fn full_name(dotted: &str) -> String {
    dotted.trim_start_matches('.').to_owned()
}

fn below(at: &[i32], path: &[i32]) -> Vec<i32> {
    [at, path].concat()
}

/// The comments before what is declared, by the path of numbers that descriptors use.
struct Comments(HashMap<Vec<i32>, String>);

impl Comments {
    fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let comments = locations.filter_map(|location| {
            let comment = location.leading_comments.as_ref()?;
            let lines = comment
                .lines()
                .map(|line| line.strip_prefix(' ').unwrap_or(line));
            let text = lines.collect::<Vec<_>>().join("\n");
            Some((location.path.clone(), text.trim().to_owned()))
        });
        Self(comments.collect())
    }

    /// Empty where there is none.
    fn at(&self, path: &[i32]) -> String {
        self.0.get(path).cloned().unwrap_or_default()
    }
}
