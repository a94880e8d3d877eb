//! Writes first inputs for every target, from real encodings: `cargo run -p holm-fuzz --example
//! seeds -- DIRECTORY`. A corpus is begun with them when the targets change so much that the kept
//! inputs mean nothing any more; then `cargo xtask fuzz` goes on from there.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use holm_core::clock::PartitionClock;
use holm_core::context::ContextSecrets;
use holm_core::metadata::Metadata;
use holm_core::object::{Object, ObjectKind, Sibling};
use holm_core::peer::{Found, HintMessage, OpId, PeerMessage, Refusal, Want};
use holm_fuzz::shard::place;
use holm_protocol::admin::{self, AdminReply, AdminRequest, BucketChange, LayoutProposal};
use holm_protocol::admin::{NodeInfo, PlacementInfo, ReplicaState};
use holm_protocol::bucket::BucketPolicy;
use holm_protocol::dot::Dot;
use holm_protocol::error::{RequestError, StoreFault};
use holm_protocol::handshake::{
    self, ClientHello, ClientWelcome, Lane, MetadataVersion, PeerHello,
};
use holm_protocol::ids::{Actor, BucketId, Hlc, NodeId, Partition, PlacementId, RegionId};
use holm_protocol::level::Level;
use holm_protocol::message::{
    Delete, Get, Put, Receipt, ReceiptEntry, Reply, Request, Sibling as Value, Values, Written,
    kind,
};
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::put_slice;
use rcgen::{CertificateParams, KeyPair, SanType};

/// What a target's inputs are called, and what they are.
type Seeds = Vec<(&'static str, Vec<Vec<u8>>)>;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: seeds DIRECTORY")?;
    let seeds: Seeds = vec![
        ("causality", causality()),
        ("certificates", certificates()?),
        ("config", config()),
        ("disk", noise(48, 400)),
        ("membership", noise(64, 600)),
        ("messages", messages()),
        ("metadata", metadata()),
        ("objects", objects()),
        ("shard", noise(96, 1200)),
    ];
    for (target, inputs) in seeds {
        let directory: PathBuf = Path::new(&directory).join(target);
        fs::create_dir_all(&directory)?;
        for (at, input) in inputs.iter().enumerate() {
            fs::write(directory.join(format!("seed-{at:02}")), input)?;
        }
        println!("{target}: {} inputs", inputs.len());
    }
    Ok(())
}

/// Choices: any bytes are some. Always the same ones, by the generator of Knuth's MMIX.
fn noise(count: usize, len_max: usize) -> Vec<Vec<u8>> {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..count).map(|at| (0..len_max * (at + 1) / count).map(|_| next()).collect()).collect()
}

fn prefixed(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first], rest].concat()
}

fn a_dot() -> Dot {
    Dot::new(Actor(0x0102_0304_0506_0708), 300)
}

fn a_context() -> VersionVector {
    [a_dot(), Dot::new(Actor(9), 1)].into_iter().collect()
}

fn an_object(kind: ObjectKind) -> Vec<u8> {
    let mut object = Object::new(kind);
    object.put(&a_context(), Sibling::new(Dot::new(Actor(3), 1), Hlc(5), Bytes::from("value")));
    object.put(&VersionVector::new(), Sibling::new(a_dot_of(4), Hlc(6), Bytes::from("other")));
    let mut bytes = Vec::new();
    object.encode(&mut bytes);
    bytes
}

fn a_dot_of(actor: u64) -> Dot {
    Dot::new(Actor(actor), 2)
}

fn a_receipt() -> Receipt {
    let entry = |node, fallback| ReceiptEntry { node: NodeId(node), region: RegionId(1), fallback };
    let replicas = vec![entry(1, false), entry(300, true)];
    Receipt { coordinator: NodeId(1), level: Level::Count(2), replicas }
}

fn requests() -> Vec<Request> {
    let (bucket, key, timeout_ms) = (BucketId(7), Bytes::from("key"), 1500);
    let (context, request) = (Bytes::from("context"), place::request_id(3));
    let (value, level) = (Bytes::from("value"), Some(Level::Quorum));
    let put_key = key.clone();
    vec![
        Request::Put(Put {
            bucket,
            key: put_key,
            value,
            context: context.clone(),
            level,
            request,
            timeout_ms,
        }),
        Request::Get(Get { bucket, key: key.clone(), level: None, timeout_ms }),
        Request::Delete(Delete { bucket, key, context, level, request, timeout_ms }),
        Request::Admin(AdminRequest::View),
        Request::Admin(AdminRequest::Bucket(a_bucket())),
        Request::Admin(AdminRequest::ApplyLayout(a_proposal())),
    ]
}

fn replies() -> Vec<Reply> {
    let context = Bytes::from("context");
    let value = Value { value: Bytes::from("value"), hlc: Hlc(5), dot: a_dot() };
    let siblings = vec![value.clone(), value];
    let receipt = a_receipt();
    let (dot, hlc) = (a_dot(), Hlc(7));
    vec![
        Reply::Written(Written { dot, hlc, context: context.clone(), receipt: receipt.clone() }),
        Reply::Values(Values { siblings, context, receipt }),
        Reply::Admin(Box::new(AdminReply::Done)),
        Reply::Admin(Box::new(AdminReply::View(a_cluster().view()))),
        Reply::Error(RequestError::Store { fault: StoreFault::Full }),
        Reply::Error(RequestError::Malformed { what: "what".to_owned() }),
    ]
}

fn peer_messages() -> Vec<PeerMessage> {
    let (op, bucket, key) = (OpId(9), BucketId(7), Bytes::from("key"));
    let partition = Partition { placement: PlacementId(0), index: 3 };
    let object: Bytes = an_object(ObjectKind::Siblings).into();
    let fan_out = vec![NodeId(4), NodeId(500)];
    let (refused, want) = (vec![(NodeId(5), Refusal::TooLarge)], Want::Full);
    let state = ReplicaState { siblings: vec![(a_dot(), Hlc(1), 5)], ..ReplicaState::default() };
    let found = [
        Found::Object(object.clone()),
        Found::Digest(7),
        Found::Absent,
        Found::Refused(Refusal::Behind),
    ];
    let write_key = key.clone();
    let mut all = vec![
        PeerMessage::Write {
            op,
            partition,
            bucket,
            key: write_key,
            object: object.clone(),
            fan_out: fan_out.clone(),
        },
        PeerMessage::WriteReply { op, partition, durable: fan_out, refused },
        PeerMessage::Read { op, partition, bucket, key: key.clone(), want },
        PeerMessage::Repair { partition, bucket, key: key.clone(), object },
        PeerMessage::Inspect { op, partition, bucket, key },
        PeerMessage::InspectReply { op, partition, state },
    ];
    let (replica, window_bytes) = (NodeId(3), 1 << 20);
    let (key, object) = (Bytes::from("key"), Bytes::from(an_object(ObjectKind::Lww)));
    let (name, kept) = (key.clone(), object.clone());
    let hints = [
        HintMessage::Keep { op, partition, replica, bucket, key: name, object: kept },
        HintMessage::Kept { op, partition, replica, refused: Some(Refusal::HintsFull) },
        HintMessage::HandOff { op, partition, bucket, key, object },
        HintMessage::HandedOff { op, partition, refused: None, window_bytes },
    ];
    all.extend(hints.map(PeerMessage::Hint));
    all.extend(found.map(|found| PeerMessage::ReadReply { op, partition, found }));
    all.extend(requests().into_iter().map(|request| PeerMessage::Proxy { op, partition, request }));
    all.extend(replies().into_iter().map(|reply| PeerMessage::ProxyReply { op, partition, reply }));
    all
}

/// Each frame alone, and all of them as one stream.
fn messages() -> Vec<Vec<u8>> {
    let mut frames: Vec<BytesMut> = Vec::new();
    let mut frame = |encode: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        encode(&mut out);
        frames.push(out);
    };
    requests().iter().for_each(|request| frame(&|out| request.encode(1, out)));
    replies().iter().for_each(|reply| frame(&|out| reply.encode(2, out)));
    peer_messages().iter().for_each(|message| frame(&|out| message.encode(out)));
    let mut inputs = vec![prefixed(7, &frames.concat())];
    inputs.extend(frames.iter().map(|it| [&[0, it[4]], &it[13..]].concat()));
    let (node, run) = (NodeId(1), Actor(2));
    let hellos = [
        handshake::encode(&ClientHello { cluster: Some("c".into()), client: "t".into() }),
        handshake::encode(&ClientWelcome { cluster: "c".into(), node, run, layout_version: 1 }),
        handshake::encode(&PeerHello {
            cluster: "c".into(),
            node,
            run,
            fingerprint: 3,
            store: 4,
            lane: Lane::Bulk,
            metadata: MetadataVersion { layout: 1, digest: 2 },
        }),
    ];
    inputs.extend(hellos.map(|hello| [&[0, kind::HELLO], &hello[..]].concat()));
    inputs
}

fn objects() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for kind in [ObjectKind::Siblings, ObjectKind::Lww] {
        let whole = an_object(kind);
        inputs.push(prefixed(0, &whole));
        inputs.push(prefixed(1, &whole[..whole.len() - 4]));
        let mut deleted = Object::new(kind);
        deleted.delete(&a_context(), a_dot_of(4), Hlc(6));
        let mut bytes = Vec::new();
        deleted.encode(&mut bytes);
        inputs.push(prefixed(1, &bytes[..bytes.len() - 4]));
    }
    for (at, noise) in noise(32, 64).into_iter().enumerate() {
        inputs.push(prefixed(2 + at as u8 % 2, &noise));
    }
    inputs
}

fn causality() -> Vec<Vec<u8>> {
    let mut vectors = Vec::new();
    a_context().encode(&mut vectors);
    [a_dot_of(3), a_dot_of(9)].into_iter().collect::<VersionVector>().encode(&mut vectors);
    let mut clock = PartitionClock::new();
    clock.insert_range(Actor(1), 1, 9);
    clock.insert_range(Actor(1), 12, 300);
    clock.insert(a_dot());
    let mut clocks = Vec::new();
    clock.encode(&mut clocks);
    clock.insert(Dot::new(Actor(1), 10));
    clock.encode(&mut clocks);
    let secrets = ContextSecrets::new([3; 32]);
    let opened = secrets.seal(BucketId(0), b"", &a_context());
    let mut inputs =
        vec![prefixed(0, &vectors), prefixed(1, &clocks), [&[3, 0, 0], &opened[..]].concat()];
    for (at, noise) in noise(24, 48).into_iter().enumerate() {
        inputs.push(prefixed([2, 4][at % 2], &noise));
    }
    inputs
}

fn a_bucket() -> BucketChange {
    BucketChange { name: "notes".into(), policy: BucketPolicy::default(), create: true }
}

fn a_proposal() -> LayoutProposal {
    let node = |id: u64| NodeInfo {
        id: NodeId(id),
        addr: ([127, 0, 0, 1], 7400 + id as u16).into(),
        region: if id < 3 { "a" } else { "b" }.to_owned(),
        zone: "z".to_owned(),
        capacity: 100,
    };
    let replication = vec![("a".to_owned(), 2), ("b".to_owned(), 1)];
    let placement =
        PlacementInfo { id: PlacementId(0), name: "default".to_owned(), bits: 2, replication };
    LayoutProposal { version: 1, nodes: (1..5).map(node).collect(), placements: vec![placement] }
}

fn a_cluster() -> Metadata {
    let mut metadata = Metadata::new("fuzz");
    // Both are sound; a refusal would leave a smaller seed.
    let _ = metadata.apply_layout(&a_proposal(), [1; 32]);
    let _ = metadata.change_bucket(&a_bucket(), Hlc(5), NodeId(1));
    metadata
}

fn metadata() -> Vec<Vec<u8>> {
    let (empty, full) = (Metadata::new("fuzz"), a_cluster());
    let mut other = full.clone();
    let change = BucketChange { name: "more".into(), ..a_bucket() };
    let _ = other.change_bucket(&change, Hlc(6), NodeId(2));
    let body = |metadata: &Metadata| metadata.encode()[17..].to_vec();
    let layout = full.layout().map(|layout| layout.encode()).unwrap_or_default();
    let mut inputs = vec![prefixed(0, &layout)];
    for one in [&empty, &full, &other] {
        inputs.push(prefixed(1, &body(one)));
        for other in [&empty, &full, &other] {
            let mut merged = vec![2];
            put_slice(&mut merged, &body(one));
            merged.extend(body(other));
            inputs.push(merged);
        }
    }
    let again = BucketChange { create: false, ..a_bucket() };
    let mut changes = vec![3];
    put_slice(&mut changes, &admin::encode(&a_proposal()));
    put_slice(&mut changes, &admin::encode(&a_bucket()));
    put_slice(&mut changes, &admin::encode(&again));
    inputs.push(changes);
    inputs
}

fn config() -> Vec<Vec<u8>> {
    let cluster = "cluster = \"c\"\nregion = \"r\"\nca = \"ca\"\ncert = \"c\"\nkey = \"/k\"\n\
        [[node]]\nid = 1\naddr = \"127.0.0.1:7401\"\n[[node]]\nid = 2\naddr = \"[::1]:7401\"\n";
    let all = holm_fuzz::node::config::annotated_default();
    let all: String =
        all.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    let all = all
        .replace("[node]", "[node]\nid = 1")
        .replace("[cluster]", "[cluster]\nid = \"c\"")
        .replace("[tls]", "[tls]\nca = \"ca\"\ncert = \"c\"\nkey = \"k\"");
    vec![
        prefixed(0, holm_fuzz::config::SOUND.as_bytes()),
        prefixed(0, all.as_bytes()),
        [&[1, 0], &b"17"[..]].concat(),
        [&[1, 9], &b"4096"[..]].concat(),
        prefixed(2, cluster.as_bytes()),
    ]
}

fn certificates() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let names: [&[&str]; 5] = [
        &["holm://node/7"],
        &["holm://client/app?roles=read,write"],
        &[],
        &["holm://node/7", "holm://node/8"],
        &["https://example.org", "holm://client/a@b?roles="],
    ];
    let mut inputs = Vec::new();
    for names in names {
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(SanType::URI((*name).try_into()?));
        }
        inputs.push(params.self_signed(&KeyPair::generate()?)?.der().to_vec());
    }
    Ok(inputs)
}
