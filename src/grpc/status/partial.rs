//! The status of a stream of items that was ended, which tells what it came to
//! before. It does not know why it was.

use prost::Message;
use prost_types::Any;
use tonic::Status;

use super::{Context, DETAILS_BYTES, rpc, sent};
use crate::{error::Error, proto::v1::WarmCacheResponse};

/// The message that tells what a warming came to, and what it takes as a detail
/// beside its own bytes, at most.
const WARM_CACHE_RESPONSE: &str = "riptide.persistence.v1.WarmCacheResponse";
const ANY_BYTES: usize = 80 + WARM_CACHE_RESPONSE.len();

/// The status of a warming that stopped, with what it came to as a detail: as many
/// of its failures as there is room for.
///
/// The cause of an internal error is logged here, once.
pub(crate) fn partial(error: &Error, context: &Context, mut done: WarmCacheResponse) -> Status {
    let mut rpc = rpc(error, &context.request_id);
    let failures = std::mem::take(&mut done.failures);
    let room = DETAILS_BYTES.saturating_sub(rpc.encoded_len() + ANY_BYTES);
    for failure in failures {
        done.failures.push(failure);
        if done.encoded_len() > room {
            done.failures.pop();
            break;
        }
    }
    rpc.details.push(Any {
        type_url: format!("type.googleapis.com/{WARM_CACHE_RESPONSE}"),
        value: done.encode_to_vec(),
    });
    debug_assert!(rpc.encoded_len() <= DETAILS_BYTES, "{rpc:?}");
    sent(error, rpc)
}
