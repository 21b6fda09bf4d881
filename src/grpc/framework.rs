//! What the gRPC framework itself refuses, in the contract's form: it answers
//! with bare statuses where a message cannot be read. It does not know the
//! errors of the domain.

use http::{Method, Request, Response, StatusCode, header};
use tonic::{Code, Status, body::Body};

use super::status;
use crate::error::Error;

/// Refuses what is no gRPC request, as the protocol wants it: in HTTP.
pub fn is_grpc<B>(request: &Request<B>) -> Result<(), Response<Body>> {
    let refused = |code: StatusCode| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = code;
        response
    };
    if request.method() != Method::POST {
        return Err(refused(StatusCode::METHOD_NOT_ALLOWED));
    }
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .map(|value| value.as_bytes());
    match kind.and_then(|kind| kind.strip_prefix(b"application/grpc")) {
        Some([] | [b'+' | b';', ..]) => Ok(()),
        _ => Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
    }
}

/// The response; with the details every error has where the framework gave it
/// none.
pub fn repaired(
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
        let is_grpc = |method: &str, kind: &str| {
            let request = Request::builder()
                .method(method)
                .header("content-type", kind)
                .body(());
            is_grpc(&request.unwrap()).map_err(|response| response.status().as_u16())
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=x",
        ] {
            assert_eq!(is_grpc("POST", kind), Ok(()));
        }
        assert_eq!(is_grpc("POST", "application/grpc-web"), Err(415));
        assert_eq!(is_grpc("POST", "application/json"), Err(415));
        assert_eq!(is_grpc("GET", "application/grpc"), Err(405));
    }
}
