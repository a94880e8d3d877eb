//! Client lanes: batches, limits, garbage, slow clients, stopping.

use std::time::Duration;

use holm_protocol::admin::AdminReply;
use holm_protocol::error::RequestError;
use holm_protocol::message::{Reply, kind};

use super::super::lane::LaneEnd;
use super::support::{Event, Foreign, Pki, TestNode, frame, roomy, start, until, within};

fn done() -> Reply {
    Reply::Admin(Box::new(AdminReply::Done))
}

/// Goal: requests written at once come as batches and in order, and each gets its answer.
/// Method: a thousand frames in one write; count the handler's calls.
#[tokio::test]
async fn batches_make_the_round_trip() {
    const COUNT: u64 = 1000;
    let pki = Pki::new();
    let mut node = start(&pki, roomy(1, pki.dir.path()), 1, true);
    let client = Foreign::client(&pki, &node).await;
    let mut lane = client.lane().await;
    let written: Vec<u8> = (0..COUNT).flat_map(|id| frame(kind::GET, id, &[7; 100])).collect();
    lane.write(&written).await;
    for id in 0..COUNT {
        assert_eq!(lane.frame().await.id, id);
    }
    let mut ids = Vec::new();
    let mut batches = 0;
    while let Ok(Event::Client(conn, frames)) = node.events.try_recv() {
        assert_eq!(&*conn.name, "app");
        batches += 1;
        ids.extend(frames.iter().map(|frame| frame.id));
    }
    assert!(ids.iter().copied().eq(0..COUNT));
    assert!(batches < COUNT / 4, "{batches} batches for {COUNT} frames");
    assert_eq!(node.counters().requests_overloaded.get(), 0);
}

async fn requests(node: &mut TestNode) -> (super::super::handler::ClientConn, Vec<u64>) {
    match node.event().await {
        Event::Client(conn, frames) => (conn, frames.iter().map(|frame| frame.id).collect()),
        other => panic!("{other:?}"),
    }
}

/// Goal: what is beyond the connection's limit is answered `Overloaded` without reaching the handler,
/// on all its lanes together; answers make room again.
#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let pki = Pki::new();
    let mut config = roomy(1, pki.dir.path());
    config.limits.in_flight_per_connection_max = 2;
    let mut node = start(&pki, config, 1, false);
    let client = Foreign::client(&pki, &node).await;
    let (mut first, mut second) = (client.lane().await, client.lane().await);
    first.write(&[frame(kind::GET, 1, b""), frame(kind::GET, 2, b"")].concat()).await;
    let mut waiting = Vec::new();
    while waiting.len() < 2 {
        waiting.extend(requests(&mut node).await.1);
    }
    second.write(&frame(kind::GET, 3, b"")).await;
    let refused = second.frame().await;
    let error = RequestError::Overloaded { in_flight: 2, limit: 2, retry_after_ms: 10 };
    assert_eq!((Reply::decode(&refused), refused.id), (Ok(Reply::Error(error)), 3));
    assert_eq!(node.counters().requests_overloaded.get(), 1);
    assert!(node.events.try_recv().is_err());
}

/// Goal: an answer makes room for the next request, from any thread.
#[tokio::test]
async fn answers_make_room() {
    let pki = Pki::new();
    let mut config = roomy(1, pki.dir.path());
    config.limits.in_flight_per_connection_max = 1;
    let mut node = start(&pki, config, 1, false);
    let client = Foreign::client(&pki, &node).await;
    let mut lane = client.lane().await;
    for id in 1..20 {
        lane.write(&frame(kind::GET, id, b"")).await;
        let (conn, ids) = requests(&mut node).await;
        assert_eq!(ids, [id]);
        std::thread::spawn(move || conn.replies.send(id, &done())).join().unwrap();
        assert_eq!(lane.frame().await.id, id);
    }
    assert_eq!(node.counters().requests_overloaded.get(), 0);
}

/// Goal: bytes that are no frames end their lane with the numbered error; frames before them are
/// served, and other lanes go on. Method: a good frame, then each kind of garbage.
#[tokio::test]
async fn garbage_ends_only_its_lane() {
    let pki = Pki::new();
    let node = start(&pki, roomy(1, pki.dir.path()), 1, true);
    let client = Foreign::client(&pki, &node).await;
    let mut bystander = client.lane().await;
    let longer_than_any_request = [vec![0, 0x20, 0, 0, 1], vec![0; 1 << 20 | 1 << 18]].concat();
    let garbage =
        [(vec![0xff; 300], 24), (longer_than_any_request, 24), (vec![0, 0, 0, 3, 9, 9, 9], 1)];
    for (garbage, code) in garbage {
        let mut lane = client.lane().await;
        lane.write(&frame(kind::GET, 1, b"x")).await;
        assert_eq!(lane.frame().await.id, 1);
        // The lane may be over before everything is written.
        let _ = within("writing", lane.send.write_all(&garbage)).await;
        assert_eq!(lane.error().await, (code, 0));
        assert_eq!(lane.end().await, LaneEnd::Finished);
    }
    bystander.write(&frame(kind::GET, 2, b"x")).await;
    assert_eq!(bystander.frame().await.id, 2);
    assert_eq!(node.counters().lanes_malformed.get(), 3);
}

/// Goal: random bytes after a good hello never harm the node. Method: seeded noise on many lanes.
#[tokio::test]
async fn noise_does_no_harm() {
    use rand::{Rng, SeedableRng};
    let pki = Pki::new();
    let node = start(&pki, roomy(1, pki.dir.path()), 1, true);
    let client = Foreign::client(&pki, &node).await;
    for seed in 0..32 {
        let mut noise = vec![0; 4000];
        rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut noise);
        let mut lane = client.lane().await;
        // The lane may be over before everything is written.
        let _ = lane.send.write_all(&noise).await;
        let _ = lane.send.finish();
    }
    let mut lane = client.lane().await;
    lane.write(&frame(kind::GET, 2, b"x")).await;
    assert_eq!(lane.frame().await.id, 2);
}

/// Goal: a frame that is begun and not finished ends its lane in time.
#[tokio::test]
async fn unfinished_frames_are_given_up() {
    let pki = Pki::new();
    let mut config = roomy(1, pki.dir.path());
    config.net.stall_timeout = Duration::from_millis(200);
    let node = start(&pki, config, 1, true);
    let client = Foreign::client(&pki, &node).await;
    let mut lane = client.lane().await;
    lane.write(&frame(kind::GET, 1, &[0; 100])[..50]).await;
    assert_eq!(lane.end().await, LaneEnd::Lost);
    assert_eq!(node.counters().clients_stalled.get(), 1);
    let mut idle = client.lane().await;
    idle.write(&frame(kind::GET, 2, b"")).await;
    assert_eq!(idle.frame().await.id, 2);
}

/// Goal: what waits for a client that does not read is bounded, and the client is closed.
/// Method: requests for large answers whose bytes nobody takes; more than the lane may hold.
#[tokio::test]
async fn clients_that_do_not_read_are_closed() {
    let pki = Pki::new();
    let config = roomy(1, pki.dir.path());
    let most = config.limits.reply_bytes_per_lane_max;
    let mut node = start(&pki, config, 1, false);
    let client = Foreign::client(&pki, &node).await;
    let mut lane = client.lane().await;
    client.connection.set_receive_window(1u32.into());
    lane.write(&frame(kind::GET, 1, b"")).await;
    let (conn, _) = requests(&mut node).await;
    let answer = frame(kind::VALUES, 1, &vec![7; 100_000]);
    let mut held_max = 0;
    for _ in 0..100 {
        conn.replies.send_encoded(1, &answer);
        held_max = held_max.max(node.network.reply_bytes());
    }
    assert!(held_max > most / 2 && held_max <= most, "{held_max} of {most}");
    assert!(conn.replies.is_closed() && node.counters().replies_dropped.get() > 50);
    client.leave().await;
    until("memory is given back", || node.network.reply_bytes() == 0).await;
}

/// Goal: stopping sends the answers that wait, tells clients, and is over in time.
#[tokio::test]
async fn stopping_sends_what_waits() {
    let pki = Pki::new();
    let mut node = start(&pki, roomy(1, pki.dir.path()), 1, false);
    let client = Foreign::client(&pki, &node).await;
    let mut lane = client.lane().await;
    lane.write(&frame(kind::GET, 1, b"")).await;
    let (conn, _) = requests(&mut node).await;
    let answer = frame(kind::VALUES, 1, &[7; 60_000]);
    conn.replies.send_encoded(1, &answer);
    let stop = within("stopping", node.network.shutdown(Duration::from_secs(20)));
    let taken = async {
        assert_eq!(lane.drain().await, answer.len());
        assert_eq!(client.closed().await, super::super::close::SHUTDOWN);
    };
    tokio::join!(stop, taken);
}
