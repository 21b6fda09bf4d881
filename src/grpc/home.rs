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

/// Whether a call with this answer, that rested so often, is to be asked again.
pub(super) fn moves<T>(answer: &Result<T>, rests: u32) -> bool {
    rests < RESTS && matches!(answer, Err(Error::RestoreInProgress))
}

/// Finds the tenancy of a call where it is now.
pub(super) async fn follow(
    tenants: &Tenants,
    (context, access): (&Context, Access),
    tenancy: &mut Tenancy,
) -> Result<()> {
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
    Ok(())
}

/// Awaits a call on a tenancy, wherever its data are by now.
macro_rules! at_home {
    ($api:expr, $call:expr, $tenancy:ident, $future:expr) => {{
        let mut rests = 0;
        loop {
            let answer = $future.await;
            if !crate::grpc::home::moves(&answer, rests) {
                break answer?;
            }
            rests += 1;
            // Boxed, as hardly a call needs the room of it.
            let follow = crate::grpc::home::follow(&$api.tenants, $call, &mut $tenancy);
            Box::pin(follow).await?;
        }
    }};
}
pub(super) use at_home;
