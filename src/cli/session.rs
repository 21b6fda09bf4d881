//! `session`: the sessions of a tenant's users. It knows nothing of how they are kept.

use std::time::Duration;

use clap::{Args, Subcommand};
use prost_types::Struct;
use serde_json::{Value, json};

use super::{
    client::{self, Client, Global},
    failure::Failure,
    json,
    output::{self, show},
    tenant::{PAGE, label},
};
use crate::proto::v1::{
    CreateSessionRequest, GetSessionRequest, ListSessionsRequest, Session, TerminateSessionRequest,
    TerminateSessionsRequest, TouchSessionRequest,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a session of a user.
    Create(Create),
    /// Show a session.
    Get {
        /// The session's id.
        session_id: String,
    },
    /// List the sessions of a user.
    List {
        /// The user's id.
        user_id: String,
        /// At most so many.
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        limit: usize,
    },
    /// Put off the end of an idle session.
    Touch {
        /// The session's id.
        session_id: String,
    },
    /// End a session, or those of a user.
    Terminate(Terminate),
}

#[derive(Args, Debug)]
pub(super) struct Create {
    /// The user's id.
    user_id: String,
    /// What is kept in it, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = json::object)]
    data: Option<Struct>,
    /// What a list shows; can be given many times.
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = label)]
    attributes: Vec<(String, String)>,
    /// How long it lives at most, such as 12h [default: `session.default_ttl`].
    #[arg(long, value_name = "TIME", value_parser = client::duration)]
    ttl: Option<Duration>,
    /// How long it lives without being touched or changed [default:
    /// `session.default_idle_timeout`].
    #[arg(long, value_name = "TIME", value_parser = client::duration)]
    idle_timeout: Option<Duration>,
    /// A UUID that makes a retry safe.
    #[arg(
        long,
        value_name = "UUID",
        default_value = "",
        hide_default_value = true
    )]
    request_id: String,
}

#[derive(Args, Debug)]
pub(super) struct Terminate {
    /// The session's id.
    #[arg(required_unless_present = "user", conflicts_with = "user")]
    session_id: Option<String>,
    /// Only if it has this etag.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        conflicts_with = "user"
    )]
    etag: String,
    /// All sessions of this user.
    #[arg(long, value_name = "USER_ID")]
    user: Option<String>,
    /// But not this one of them.
    #[arg(
        long,
        value_name = "SESSION_ID",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "session_id"
    )]
    except: String,
}

impl Command {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::connect(global).await?;
        let mut states = client.states();
        let tenant_id = global.tenant_id();
        match self {
            Self::Create(create) => {
                let request = create.message(tenant_id)?;
                let answer = states.create_session(client.request(request)).await?;
                tell(global, answer.into_inner().session)
            }
            Self::Get { session_id } => {
                let request = GetSessionRequest {
                    tenant_id,
                    session_id,
                };
                let answer = states.get_session(client.request(request)).await?;
                tell(global, answer.into_inner().session)
            }
            Self::List { user_id, limit } => list(global, &client, user_id, limit).await,
            Self::Touch { session_id } => {
                let request = TouchSessionRequest {
                    tenant_id,
                    session_id,
                };
                let answer = states.touch_session(client.request(request)).await?;
                tell(global, answer.into_inner().session)
            }
            Self::Terminate(Terminate {
                session_id: Some(session_id),
                etag,
                ..
            }) => {
                let request = TerminateSessionRequest {
                    tenant_id,
                    session_id,
                    etag,
                };
                let answer = states.terminate_session(client.request(request)).await?;
                tell(global, answer.into_inner().session)
            }
            Self::Terminate(Terminate { user, except, .. }) => {
                let request = TerminateSessionsRequest {
                    tenant_id,
                    user_id: user.unwrap_or_default(),
                    except_session_id: except,
                };
                let answer = states.terminate_sessions(client.request(request)).await?;
                let terminated = answer.into_inner().terminated;
                show(global.output, &json!({ "terminated": terminated }), || {
                    format!("terminated: {terminated} sessions")
                })
            }
        }
    }
}

impl Create {
    fn message(self, tenant_id: String) -> Result<CreateSessionRequest, Failure> {
        let span = |option: &str, span: Option<Duration>| {
            let span = span.map(TryInto::try_into).transpose();
            span.map_err(|_| Failure::usage(format!("{option}: too long")))
        };
        Ok(CreateSessionRequest {
            tenant_id,
            user_id: self.user_id,
            data: self.data,
            attributes: self.attributes.into_iter().collect(),
            ttl: span("--ttl", self.ttl)?,
            idle_timeout: span("--idle-timeout", self.idle_timeout)?,
            request_id: self.request_id,
        })
    }
}

fn tell(global: &Global, session: Option<Session>) -> Result<(), Failure> {
    let session = session.as_ref().map_or(Value::Null, json::session);
    show(global.output, &json!({ "session": session }), || {
        output::record(&session)
    })
}

async fn list(
    global: &Global,
    client: &Client,
    user_id: String,
    limit: usize,
) -> Result<(), Failure> {
    let mut request = ListSessionsRequest {
        tenant_id: global.tenant_id(),
        user_id,
        page_size: PAGE,
        page_token: String::new(),
    };
    let mut found = Vec::new();
    loop {
        let page = client
            .states()
            .list_sessions(client.request(request.clone()))
            .await?
            .into_inner();
        found.extend(page.sessions.iter().map(json::session));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || found.len() > limit {
            break;
        }
    }
    let more = found.len() > limit || !request.page_token.is_empty();
    found.truncate(limit);
    let result = json!({ "sessions": found, "more": more });
    show(global.output, &result, || {
        let fields = [
            "session_id",
            "last_active_time",
            "idle_expire_time",
            "expire_time",
        ];
        output::list(&found, &fields) + output::more(more)
    })
}
