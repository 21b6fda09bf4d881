//! Lists as streams: a page is asked for when the one before it is read. It does not know
//! what is listed.

use std::collections::VecDeque;

use futures::{Stream, stream};

use super::{Client, Failure, Paged};

/// Where a list stands.
struct Reading<R: Paged> {
    client: Client,
    /// What asks for the next page; `None` after the last.
    next: Option<R>,
    page: VecDeque<R::Item>,
}

/// All that a request lists, page by page.
pub(super) fn pages<R: Paged>(
    client: Client,
    request: R,
) -> impl Stream<Item = Result<R::Item, Failure>> {
    let reading = Reading {
        client,
        next: Some(request),
        page: VecDeque::new(),
    };
    stream::try_unfold(reading, |mut reading| async move {
        loop {
            if let Some(item) = reading.page.pop_front() {
                return Ok(Some((item, reading)));
            }
            let Some(request) = reading.next.take() else {
                return Ok(None);
            };
            let (items, token) = R::open(reading.client.call(request.clone()).await?);
            reading.page = items.into();
            if !token.is_empty() {
                let mut request = request;
                request.turn_to(token);
                reading.next = Some(request);
            }
        }
    })
}
