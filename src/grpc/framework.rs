//! What the gRPC framework itself refuses, in the contract's form: it answers
//! with bare statuses where a message cannot be read. It does not know the
//! errors of the domain.

use http::{Method, Request, Response, StatusCode, header};
use tonic::{Code, Status, body::Body};

use super::status;
use crate::error::Error;

/// The answer to what is no gRPC request, as the protocol wants it: in HTTP.
pub(super) fn no_grpc<B>(request: &Request<B>) -> Option<Response<Body>> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    let code = match (request.method(), kind) {
        (&Method::POST, Some([] | [b'+' | b';', ..])) => return None,
        (&Method::POST, _) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    Some(response)
}

/// The response; with the details every error has where the framework gave it
/// none.
pub(super) fn repaired(
    response: Response<Body>,
    max_message_bytes: usize,
    request_id: &str,
) -> Response<Body> {
    let Some(bare) = response
        .extensions()
        .get::<Status>()
        .filter(|status| status.details().is_empty())
    else {
        return response;
    };
    let error = match bare.code() {
        // What a handler answers without details of ours is as it should be:
        // health's NOT_FOUND, which the protocol wants, and reflection's.
        Code::NotFound | Code::Ok => return response,
        Code::OutOfRange | Code::ResourceExhausted => Error::MessageTooLarge {
            limit: max_message_bytes as u64,
        },
        Code::Unimplemented => Error::Unimplemented(bare.message().to_owned()),
        Code::Internal | Code::InvalidArgument => unreadable(bare.message()),
        _ => Error::invalid("", bare.message()),
    };
    status::of(&error, request_id).into_http()
}

/// A message that cannot be decoded, with the path of the field where it is
/// known: prost tells it as `Message.field: ` for each level, the innermost first.
fn unreadable(message: &str) -> Error {
    let mut rest = message
        .strip_prefix("failed to decode Protobuf message: ")
        .unwrap_or(message);
    let mut path = String::new();
    while let Some((head, tail)) = rest.split_once(": ") {
        let Some((message, field)) = head.split_once('.') else {
            break;
        };
        if ![message, field].iter().all(|part| is_name(part)) {
            break;
        }
        path = if path.is_empty() {
            field.to_owned()
        } else {
            format!("{field}.{path}")
        };
        rest = tail;
    }
    Error::invalid(path, rest)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_field_is_named() {
        for (text, field, description) in [
            (
                "failed to decode Protobuf message: GetRequest.key: invalid string value: data is not UTF-8 encoded",
                "key",
                "invalid string value: data is not UTF-8 encoded",
            ),
            (
                "failed to decode Protobuf message: SetEntry.key: BatchSetRequest.entries: invalid varint",
                "entries.key",
                "invalid varint",
            ),
            (
                "failed to decode Protobuf message: buffer underflow",
                "",
                "buffer underflow",
            ),
            ("Missing request message.", "", "Missing request message."),
        ] {
            assert_eq!(unreadable(text), Error::invalid(field, description));
        }
    }

    #[test]
    fn only_grpc_is_taken() {
        let refusal = |method: &str, kind: &str| {
            let request = Request::builder()
                .method(method)
                .header("content-type", kind)
                .body(());
            no_grpc(&request.unwrap()).map(|response| response.status().as_u16())
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=x",
        ] {
            assert_eq!(refusal("POST", kind), None);
        }
        assert_eq!(refusal("POST", "application/grpc-web"), Some(415));
        assert_eq!(refusal("POST", "application/json"), Some(415));
        assert_eq!(refusal("GET", "application/grpc"), Some(405));
    }
}
