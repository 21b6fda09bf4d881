//! One call of WarmCache: what it came to, and whether it is worth another. It does
//! not know where its messages come from.

use std::time::Duration;

use futures::stream;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{StatusExt, pb};

use super::source::Batch;
use crate::{
    cli::client::{Client, Global},
    proto::v1::{WarmCacheRequest, WarmCacheResponse, WarmFailure},
};

/// How long before what failed without telling when is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// What a call came to.
pub(super) struct Came {
    /// Of its first items, as many as are counted in it.
    pub(super) done: WarmCacheResponse,
    /// Why it ended before its end.
    pub(super) ended: Option<Ended>,
}

/// Why a call ended before its end.
pub(super) struct Ended {
    pub(super) status: Status,
    /// When another may come further; `None` where none does.
    pub(super) again: Option<Duration>,
    /// It took too long.
    pub(super) late: bool,
}

/// Sends these batches.
pub(super) async fn send(client: &Client, global: &Global, batches: &[Batch]) -> Came {
    // One that asks for nothing would still count against a rate.
    let asking = batches.iter().filter(|batch| batch.items() > 0);
    let mut messages: Vec<WarmCacheRequest> = asking.map(|batch| batch.message.clone()).collect();
    if let Some(first) = messages.first_mut() {
        first.tenant_id = global.tenant_id();
        first.namespace = global.namespace();
    }
    let request = client.request(stream::iter(messages));
    match client.caches().warm_cache(request).await {
        Ok(answer) => Came {
            done: answer.into_inner(),
            ended: None,
        },
        Err(status) => Came {
            done: before(&status).unwrap_or_default(),
            ended: Some(Ended::of(status)),
        },
    }
}

impl Ended {
    fn of(status: Status) -> Self {
        let told = status.get_details_retry_info();
        let told = told.and_then(|info| info.retry_delay);
        let late = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
        // A connection that broke gives no reason of the server's.
        let broke = status.get_details_error_info().is_none()
            && matches!(status.code(), Code::Unknown | Code::Internal);
        let passing = late || broke || matches!(status.code(), Code::Unavailable | Code::Aborted);
        let again = told.or_else(|| passing.then_some(AGAIN));
        Self {
            status,
            again,
            late,
        }
    }
}

/// What a call that failed came to before.
fn before(status: &Status) -> Option<WarmCacheResponse> {
    let status = pb::Status::decode(status.details()).ok()?;
    let told = |any: &&prost_types::Any| {
        let name = any.type_url.rsplit('/').next();
        name == Some("riptide.persistence.v1.WarmCacheResponse")
    };
    let any = status.details.iter().find(told)?;
    WarmCacheResponse::decode(&*any.value).ok()
}

/// How many items are counted in it.
pub(super) fn items(done: &WarmCacheResponse) -> u64 {
    let all = [
        done.stored,
        done.pulled,
        done.not_kept,
        done.missing,
        done.failed,
    ];
    all.into_iter().filter_map(|n| u64::try_from(n).ok()).sum()
}

/// Why an item failed, in one line.
pub(super) fn reason(failure: &WarmFailure) -> String {
    let Some(status) = &failure.status else {
        return "the server gave no reason".to_owned();
    };
    let details = status.encode_to_vec();
    let code = Code::from_i32(status.code);
    let whole = Status::with_details(code, status.message.clone(), details.into());
    let details = whole.get_error_details();
    let name = details.error_info().map(|info| info.reason.clone());
    let fields = details.bad_request().map(|request| {
        let field = |violation: &tonic_types::FieldViolation| {
            // Its path is within a message, which no one has seen.
            let field = violation.field.rsplit('.').next().unwrap_or_default();
            format!("{field}: {}", violation.description)
        };
        let fields: Vec<_> = request.field_violations.iter().map(field).collect();
        fields.join("; ")
    });
    let text = fields.filter(|fields| !fields.is_empty());
    let text = text.unwrap_or_else(|| status.message.clone());
    format!("{text} ({})", name.unwrap_or_else(|| format!("{code:?}")))
}
