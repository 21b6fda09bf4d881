//! Which message asks which RPC, what the answer is, and whether asking twice is asking
//! once; build.rs reads it from the protos. It does not know how a message is sent.

use prost::Message;

use crate::{grpc::Idempotency, proto::v1};

/// A message that asks an RPC; each asks one.
pub trait Ask: Message + Clone + Default + 'static {
    /// What is answered, or each message of an answer that is a stream.
    type Answer: Message + Default + 'static;

    /// Such as `/riptide.persistence.v1.CacheService/Get`.
    const PATH: &'static str;

    /// Whether the RPC may be repeated, by its proto.
    const IDEMPOTENCY: Idempotency;

    /// Its `request_id`; `None` where it has no such field.
    fn request_id(&mut self) -> Option<&mut String> {
        None
    }

    /// Whether it asks for something on a condition which it may itself have changed, so
    /// that the second answer would not be the first.
    fn is_conditional(&self) -> bool {
        false
    }

    /// Whether it could change anything.
    fn changes(&self) -> bool {
        Self::IDEMPOTENCY != Idempotency::NoSideEffects
    }

    /// Whether making the call again is the same as making it once, answer included.
    fn is_repeatable(&mut self) -> bool {
        let named = self.request_id().is_some_and(|id| !id.is_empty());
        match Self::IDEMPOTENCY {
            Idempotency::NoSideEffects => true,
            _ if named => true,
            Idempotency::Idempotent => !self.is_conditional(),
            Idempotency::IdempotencyUnknown => false,
        }
    }
}

/// One that is answered by one message.
pub trait Unary: Ask {}

/// One that is answered by a stream.
pub trait Followed: Ask {}

/// One of a stream that is answered by one message.
pub trait Streamed: Ask {}

/// One that asks for a page of a list.
pub trait Paged: Unary {
    /// What is listed.
    type Item;

    /// Asks for the page of this token.
    fn turn_to(&mut self, page_token: String);

    /// What a page holds, and the token of the next; empty where it is the last.
    fn open(page: Self::Answer) -> (Vec<Self::Item>, String);
}

include!(concat!(env!("OUT_DIR"), "/asks.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_on_a_condition_is_repeated_only_by_name() {
        let set = v1::SetRequest::default;
        assert!(set().is_repeatable());
        let conditional = [
            v1::SetRequest {
                if_version: 3,
                ..set()
            },
            v1::SetRequest {
                condition: v1::SetCondition::IfAbsent.into(),
                ..set()
            },
            v1::SetRequest {
                lease_token: "t".into(),
                ..set()
            },
        ];
        for mut set in conditional {
            assert!(!set.is_repeatable(), "{set:?}");
        }
        let mut unconditional = set();
        unconditional.condition = v1::SetCondition::None.into();
        assert!(unconditional.is_repeatable());

        let entry = v1::SetEntry {
            if_version: 1,
            ..Default::default()
        };
        let mut batch = v1::BatchSetRequest {
            entries: vec![v1::SetEntry::default(), entry],
            ..Default::default()
        };
        assert!(!batch.is_repeatable());
        batch.entries.pop();
        assert!(batch.is_repeatable());

        let mut delete = v1::DeleteTenantRequest {
            etag: "e".into(),
            ..Default::default()
        };
        assert!(!delete.is_repeatable());
        delete.request_id = "7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5a".into();
        assert!(delete.is_repeatable());

        assert!(!v1::UpdateSessionRequest::default().is_repeatable());
        assert!(!v1::CheckQuotaRequest::default().is_repeatable());
        assert!(v1::GetRequest::default().is_repeatable());
    }

    #[test]
    fn every_rpc_can_be_asked() {
        let paths = [
            v1::GetRequest::PATH,
            v1::WatchInvalidationsRequest::PATH,
            v1::WarmCacheRequest::PATH,
        ];
        for path in paths {
            assert!(
                crate::grpc::METHODS
                    .iter()
                    .any(|method| method.path == path)
            );
        }
        assert_eq!(PATHS.len(), crate::grpc::METHODS.len());
    }
}
