//! Calls whose answer is lost on the way: what may be repeated is, and what may not is told
//! as unknown. Between the client and the server stands what loses answers.

use std::{net::SocketAddr, time::Duration};

use riptide_persistence::{
    client::{Client, Outcome, Reason},
    proto::v1::{
        CheckQuotaMode, CheckQuotaRequest, CreateApiKeyRequest, CreateTenantRequest, CustomQuota,
        GetRequest, ListApiKeysRequest, Quotas, SetRequest,
    },
};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};
use tonic::Code;

use super::client::{admin, get, new_tenant, set};
use crate::server::{ADMIN_KEY, Kind, Server};

/// What becomes of the server's bytes.
#[derive(Clone, Copy)]
struct Road {
    /// They are lost.
    lossy: bool,
    /// How often all connections were cut.
    cuts: u32,
}

/// Stands before a server.
struct Loss {
    address: SocketAddr,
    road: watch::Sender<Road>,
}

impl Loss {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (road, taken) = watch::channel(Road {
            lossy: false,
            cuts: 0,
        });
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, taken.clone(), false));
                tokio::spawn(carry(from_server, to_client, taken.clone(), true));
            }
        });
        Self { address, road }
    }

    /// Loses what the server answers.
    fn lose(&self) {
        self.road.send_modify(|road| road.lossy = true);
    }

    /// Cuts all connections; those that come are let through.
    fn cut(&self) {
        self.road.send_modify(|road| {
            *road = Road {
                lossy: false,
                cuts: road.cuts + 1,
            }
        });
    }
}

/// Carries bytes until the connection ends, or is cut.
async fn carry(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut road: watch::Receiver<Road>,
    lossy: bool,
) {
    let mut bytes = vec![0; 64 << 10];
    let cuts = road.borrow().cuts;
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read.unwrap_or(0),
            _ = road.wait_for(|road| road.cuts != cuts) => 0,
        };
        if read == 0 {
            return;
        }
        let lost = lossy && road.borrow().lossy;
        if !lost && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// A client whose answers can be lost, and one whose cannot.
async fn clients(server: &Server) -> (Loss, Client, Client) {
    let loss = Loss::before(server.address).await;
    let lossy = Client::to(loss.address.to_string())
        .key(ADMIN_KEY)
        .deadline(Duration::from_secs(120))
        .connect()
        .await
        .unwrap();
    (loss, lossy, admin(server).connect().await.unwrap())
}

fn check(mode: CheckQuotaMode) -> CheckQuotaRequest {
    CheckQuotaRequest {
        tenant_id: "acme".into(),
        metric: "seats".into(),
        amount: 1,
        mode: mode.into(),
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_cannot_be_named_is_not_repeated(#[case] kind: Kind) {
    let server = kind.start().await;
    let (loss, lossy, direct) = clients(&server).await;
    let seats = CustomQuota {
        limit: 10,
        window: None,
    };
    let request = CreateTenantRequest {
        quotas: Some(Quotas {
            custom: [("seats".to_owned(), seats)].into(),
            ..Default::default()
        }),
        ..new_tenant("acme")
    };
    // The connection stands before an answer is lost.
    lossy.call(request).await.unwrap();
    loss.lose();
    let call = tokio::spawn(async move { lossy.call(check(CheckQuotaMode::Consume)).await });
    while direct.call(check(CheckQuotaMode::Peek)).await.unwrap().used == 0 {
        tokio::task::yield_now().await;
    }
    loss.cut();
    let failure = call.await.unwrap().unwrap_err();
    assert_eq!(failure.outcome(), Outcome::Unknown, "{failure}");
    assert_eq!(
        (failure.attempts(), failure.reason()),
        (1, None),
        "{failure}"
    );
    let used = direct.call(check(CheckQuotaMode::Peek)).await.unwrap().used;
    assert_eq!(used, 1, "once");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_can_be_named_is_named_and_done_once(#[case] kind: Kind) {
    let server = kind.start().await;
    let (loss, lossy, direct) = clients(&server).await;
    lossy.call(new_tenant("acme")).await.unwrap();
    let list = ListApiKeysRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let request = CreateApiKeyRequest {
        tenant_id: "acme".into(),
        scopes: vec!["cache.read".into()],
        ..Default::default()
    };
    loss.lose();
    let call = tokio::spawn(async move { lossy.call(request).await });
    let keys = async || direct.call(list.clone()).await.unwrap().api_keys;
    while keys().await.len() == 1 {
        tokio::task::yield_now().await;
    }
    loss.cut();
    let created = call.await.unwrap().unwrap();
    let listed = keys().await;
    assert_eq!(listed.len(), 2, "one came with the tenant");
    let key_id = created.api_key.unwrap().key_id;
    assert!(listed.iter().any(|key| key.key_id == key_id));
    assert!(created.secret.starts_with("rtp_"));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_is_not_answered_in_time_is_told_so(#[case] kind: Kind) {
    let server = kind.start().await;
    let (loss, lossy, _) = clients(&server).await;
    lossy.call(new_tenant("acme")).await.unwrap();
    loss.lose();
    let hasty = lossy.with_deadline(Duration::from_millis(300));
    let write = SetRequest {
        tenant_id: "acme".into(),
        ..set("k")
    };
    let failure = hasty.call(write).await.unwrap_err();
    assert_eq!(failure.code(), Code::DeadlineExceeded, "{failure}");
    assert_eq!(failure.reason(), Some(Reason::OutcomeUnknown));
    assert_eq!(failure.outcome(), Outcome::Unknown);
    let read = GetRequest {
        tenant_id: "acme".into(),
        ..get("k")
    };
    let failure = hasty.call(read).await.unwrap_err();
    assert_eq!(failure.code(), Code::DeadlineExceeded, "{failure}");
    assert_eq!(failure.reason(), Some(Reason::DeadlineExceeded));
    assert_eq!(failure.outcome(), Outcome::NotDone);
}
