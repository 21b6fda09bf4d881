//! Calls that go on where a restore has put their tenant's data meanwhile. It does not
//! know what they ask for.

use std::time::Duration;

use super::Context;
use crate::{
    error::{Error, Result},
    tenant::{Access, Tenancy, Tenants},
};

/// How long before a space that takes no writes any more is looked for elsewhere, and
/// how often: it commonly takes a few milliseconds until the new one is named.
const REST: Duration = Duration::from_millis(20);
const RESTS: u32 = 25;

/// The answer to a call on this tenancy; `None` where it is to be asked again, on what
/// the tenancy is then.
pub(super) async fn follow<T>(
    tenants: &Tenants,
    (context, access): (&Context, Access),
    tenancy: &mut Tenancy,
    rests: &mut u32,
    answer: Result<T>,
) -> Result<Option<T>> {
    match answer {
        Err(Error::RestoreInProgress) if *rests < RESTS => {
            *rests += 1;
            let mut now = tenants
                .admit_anew(&context.caller, &tenancy.tenant_id, access)
                .await?;
            if now.incarnation != tenancy.incarnation {
                return Err(Error::no_tenant(&*tenancy.tenant_id));
            }
            if now.home == tenancy.home {
                tokio::time::sleep(REST).await;
            }
            now.began = tenancy.began;
            now.notes = tenancy.notes.clone();
            *tenancy = now;
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

/// Awaits a call on a tenancy, wherever its data are by now.
macro_rules! at_home {
    ($api:expr, $call:expr, $tenancy:ident, $future:expr) => {{
        let mut rests = 0;
        loop {
            let answer = $future.await;
            let followed =
                crate::grpc::home::follow(&$api.tenants, $call, &mut $tenancy, &mut rests, answer);
            if let Some(answer) = followed.await? {
                break answer;
            }
        }
    }};
}
pub(super) use at_home;
