//! Bad input: from the caller, refused before anything is sent; from a node, an error, and the
//! client goes on.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use holm_client::{
    BucketError, BucketPolicy, CertificateFault, Client, ConnectError, Context, DeleteError,
    DialError, GetError, NodeId, Outcome, PutError, RequestError, TlsError,
};
use holm_protocol::frame::put_frame;
use holm_protocol::handshake::{self, ClientWelcome};
use holm_protocol::limits::{CONTEXT_LEN_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use holm_protocol::message::kind;

use crate::fake::{Act, Fake, Pki, success};

/// Goal: what no node can accept is refused here, and says what and how much. Method: each limit
/// passed by one; no request may arrive.
#[tokio::test]
async fn oversized_input_is_refused_before_sending() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    let long = vec![7; KEY_LEN_MAX + 1];
    let (len, limit) = (long.len(), KEY_LEN_MAX);
    assert_eq!(bucket.get(&long).await, Err(GetError::KeyLength { len, limit }));
    assert_eq!(bucket.get("").await, Err(GetError::KeyLength { len: 0, limit }));
    assert_eq!(bucket.put(&long, "v").await, Err(PutError::KeyLength { len, limit }));
    assert_eq!(bucket.delete(&long).await, Err(DeleteError::KeyLength { len, limit }));
    let (len, limit) = (VALUE_LEN_MAX + 1, VALUE_LEN_MAX);
    let error = bucket.put("k", vec![0; len]).await.unwrap_err();
    assert_eq!(error, PutError::ValueTooLarge { len, limit });
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    let (len, limit) = (CONTEXT_LEN_MAX + 1, CONTEXT_LEN_MAX);
    let context = Context::from_bytes(vec![0; len]);
    let error = bucket.put("k", "v").context(&context).await.unwrap_err();
    assert_eq!(error, PutError::ContextTooLong { len, limit });
    let error = bucket.delete("k").context(&context).await.unwrap_err();
    assert_eq!(error, DeleteError::ContextTooLong { len, limit });
    let error = client.bucket("No Bucket").await.unwrap_err();
    assert!(matches!(error, BucketError::Name { .. }));
    let policy = BucketPolicy { max_siblings: 0, ..BucketPolicy::default() };
    let error = client.admin().create_bucket("x", policy).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    assert!(fake.log().is_empty(), "{:?}", fake.log());
    // The longest that is allowed goes through.
    bucket.put(&long[1..], vec![0; VALUE_LEN_MAX]).await.unwrap();
}

/// Goal: whatever a node sends in place of an answer, reads go elsewhere, writes are unknown, the
/// client survives. Method: one kind of garbage each, from one of two nodes.
#[tokio::test]
async fn garbage_from_a_node_is_an_error() {
    let mut too_long = BytesMut::new();
    too_long.put_u32(u32::MAX);
    let mut lane_error = BytesMut::new();
    put_frame(&mut lane_error, kind::ERROR, 0, |out| out.put_slice(b"\xff\xff\xff"));
    let kinds: [fn(&[u8]) -> Act; 5] = [
        |bytes| Act::Raw(bytes.to_vec()),
        |_| Act::Raw(vec![0, 0, 0, 1, 9]),
        |_| Act::Frame(kind::VALUES, vec![0xff; 40]),
        |_| Act::Frame(kind::HELLO, Vec::new()),
        |_| Act::Frame(kind::ADMIN_REPLY, vec![5]),
    ];
    for (index, garbage) in kinds.into_iter().enumerate() {
        for raw in [&too_long[..], &lane_error[..]] {
            let fake = Fake::start(&["eu", "eu"], 2);
            let client = fake.builder(&[1, 2]).hedging(false).connect().await.unwrap();
            let bucket = client.bucket("b").await.unwrap();
            let raw = raw.to_vec();
            fake.script(move |node, n, request| match n {
                0 => garbage(&raw),
                _ => Act::Reply(success(node, n, request)),
            });
            bucket.get("k").await.unwrap();
            assert_eq!(fake.log().len(), 2, "kind {index}: asked again");
            fake.clear_log();
            // The write is repeated at the same run, which answers this time.
            bucket.put("k", "v").await.unwrap();
        }
    }
}

/// Goal: noise never panics and never outlives the deadline. Method: seeded random bytes as
/// answers, over and over.
#[tokio::test]
async fn noise_never_panics() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    for seed in 1u64..20 {
        fake.script(move |_, _, _| {
            let mut state = seed;
            let noise = (0..200).map(|_| {
                // Knuth's multiplicative congruential generator: any noise will do.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            });
            Act::Frame(kind::VALUES, noise.collect())
        });
        let error = bucket.get("k").timeout(Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, GetError::Unavailable { .. }), "{error:?}");
    }
    fake.script(|node, n, request| Act::Reply(success(node, n, request)));
    bucket.get("k").await.unwrap();
}

#[expect(clippy::unwrap_used, reason = "a fixture that breaks should fail its test")]
async fn connect_error(fake: &Fake, bytes: Vec<u8>) -> DialError {
    fake.answer_hello_with(bytes);
    let error = fake.builder(&[1]).connect().await.unwrap_err();
    let ConnectError::Unreachable { tried } = error else { panic!("{error:?}") };
    tried.into_iter().next().unwrap().1
}

/// Goal: a bad welcome is told apart and named. Method: garbage, a wrong frame, a foreign version,
/// another node's welcome.
#[tokio::test]
async fn bad_welcomes_are_named() {
    let fake = Fake::start(&["eu"], 1);
    let frame = |kind, body: &[u8]| {
        let mut out = BytesMut::new();
        put_frame(&mut out, kind, 0, |out| out.put_slice(body));
        out.to_vec()
    };
    let error = connect_error(&fake, vec![0xff; 64]).await;
    assert!(matches!(error, DialError::Protocol { .. }), "{error:?}");
    let error = connect_error(&fake, frame(kind::WRITTEN, b"")).await;
    assert!(matches!(error, DialError::Protocol { .. }), "{error:?}");
    let error = connect_error(&fake, [vec![0, 1, 0, 0], vec![0; 9000]].concat()).await;
    assert!(matches!(error, DialError::Protocol { .. }), "{error:?}");
    let error = connect_error(&fake, frame(kind::WELCOME, &[0, 9])).await;
    let refused =
        DialError::Refused { error: RequestError::UnsupportedVersion { got: 9, min: 1, max: 1 } };
    assert_eq!(error, refused);
    let welcome = ClientWelcome {
        cluster: "test".to_owned(),
        node: NodeId(8),
        run: holm_client::Actor(1),
        layout_version: 1,
    };
    let error = connect_error(&fake, frame(kind::WELCOME, &handshake::encode(&welcome))).await;
    assert_eq!(error, DialError::WrongNode { got: NodeId(8) });
}

/// Goal: wrong cluster, wrong CA, a certificate of another node, nobody there: each says which.
#[tokio::test]
async fn wrong_clusters_and_certificates_are_refused() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let error = fake.builder(&[1]).cluster("other").connect().await.unwrap_err();
    assert_eq!(error.refusal().map(RequestError::code), Some(3), "{error}");

    let foreign = Pki::new();
    let error = fake.builder(&[1]).ca_pem(foreign.ca_pem.as_bytes()).connect().await.unwrap_err();
    assert_eq!(error.certificate_fault(), Some(&CertificateFault::UnknownCa), "{error:?}");
    assert!(error.to_string().contains("checked against the CA certificate"), "{error}");

    let (cert, key) = foreign.issue("client.test");
    let builder = fake.builder(&[1]).identity_pem(cert.pem(), key.serialize_pem());
    let error = builder.connect().await.unwrap_err();
    assert!(error.certificate_fault().is_some(), "{error:?}");
    assert!(error.to_string().contains("refused the client certificate"), "{error}");

    let (cert, key) = fake.pki.issue_until("client.test", 2020);
    let builder = fake.builder(&[1]).identity_pem(cert.pem(), key.serialize_pem());
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.certificate_fault(), Some(&CertificateFault::Expired), "{error:?}");
    assert!(error.to_string().contains("refused the client certificate"), "{error}");

    let builder = fake.builder(&[1]).nodes([(NodeId(1), fake.addr(2))]);
    let error = builder.connect().await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");

    fake.stop(NodeId(1)).await;
    let builder = fake.builder(&[1]).connect_timeout(Duration::from_millis(100));
    let ConnectError::Unreachable { tried } = builder.connect().await.unwrap_err() else {
        panic!("nobody is there");
    };
    assert_eq!(tried, [(NodeId(1), DialError::TimedOut { waited_ms: 100 })]);
}

/// Goal: a node's certificate used by a client is named as such, in the node's words. Method: the
/// node closes with the code for it.
#[tokio::test]
async fn certificates_for_another_use_are_named() {
    let fake = Fake::start(&["eu"], 1);
    fake.turn_away(1002, "a certificate of node 3 does not fit protocol holm/1");
    let error = fake.builder(&[1]).connect().await.unwrap_err();
    let Some(CertificateFault::Unfit { why }) = error.certificate_fault() else {
        panic!("{error:?}");
    };
    assert_eq!(why, "a certificate of node 3 does not fit protocol holm/1");
    assert!(error.to_string().contains("refused the client certificate"), "{error}");
}

/// Goal: a builder's mistakes are found before any packet, and named.
#[tokio::test]
async fn builders_check_themselves() {
    let pki = Pki::new();
    let node = (NodeId(1), "127.0.0.1:9".parse().unwrap());
    let error = Client::builder().connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::NoNodes), "{error}");
    let error = Client::builder().nodes([node]).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(TlsError::CaMissing)), "{error}");
    let with_ca = Client::builder().nodes([node]).ca_pem(pki.ca_pem.as_bytes());
    let error = with_ca.clone().connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(TlsError::IdentityMissing)), "{error}");
    let (cert, _) = pki.issue("c");
    let no_key = with_ca.clone().identity_pem(cert.pem(), "no key");
    let error = no_key.connect().await.unwrap_err();
    assert!(error.to_string().contains("client key"), "{error}");
    for (builder, key) in [
        (with_ca.clone().timeout(Duration::ZERO), "`timeout`"),
        (with_ca.clone().connect_timeout(Duration::from_secs(100)), "`connect_timeout`"),
        (with_ca.clone().lanes(0), "`lanes`"),
        (with_ca.clone().in_flight_max(0), "`in_flight_max`"),
        (with_ca.name("x".repeat(65)), "`name`"),
    ] {
        let error = builder.connect().await.unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}
