//! Connections of clients.
//!
//! Each lane opens with a hello and is then served until it ends. What a client does wrong ends its
//! lane with a numbered error, never the node. A request beyond the connection's limit is answered
//! `Overloaded` on the spot; a client that does not take its answers is not read any further, and
//! closed if that lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use holm_protocol::error::RequestError;
use holm_protocol::frame::{Frame, put_frame};
use holm_protocol::handshake;
use holm_protocol::limits::{CONTEXT_LEN_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use holm_protocol::message::{Reply, kind};
use quinn::{Connection, RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::handler::ClientConn;
use super::lane::{ClientLane, LaneEnd, LaneReader, ReplySink, refuse, write_lane};
use super::outbox::Outbox;
use super::tls::identity::Roles;
use super::{Shared, close};

/// What an overloaded client is told to wait, milliseconds. A queue at its limit drains in about
/// that time.
const RETRY_AFTER_MS: u32 = 10;

/// Longest frame of a client, bytes: a put with everything as long as can be, and room for numbers.
/// Objects, which are longer, travel only between nodes and in answers.
const REQUEST_LEN_MAX: usize = VALUE_LEN_MAX + KEY_LEN_MAX + CONTEXT_LEN_MAX + 1024;

/// What the lanes of one connection share.
struct Client {
    shared: Arc<Shared>,
    connection: Connection,
    name: Arc<str>,
    roles: Roles,
    in_flight: Arc<AtomicU32>,
}

/// Serves a connection until it ends. One without a lane is closed after the idle timeout; the first
/// lane must open within the handshake timeout.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    connection: Connection,
    name: Arc<str>,
    roles: Roles,
) {
    connection.set_send_window(shared.net.client_window_bytes.into());
    let in_flight = Arc::default();
    let client = Client { shared: shared.clone(), connection, name, roles, in_flight };
    let client = Arc::new(client);
    let mut lanes = JoinSet::new();
    let mut patience = shared.net.handshake_timeout;
    loop {
        let laneless = lanes.is_empty();
        tokio::select! {
            biased;
            Some(_) = lanes.join_next(), if !laneless => {
                if *shared.stopping.borrow() && lanes.is_empty() {
                    client.connection.close(close::SHUTDOWN, b"node stops");
                    break;
                }
            }
            opened = client.connection.accept_bi() => {
                let Ok((send, recv)) = opened else { break };
                lanes.spawn(lane(client.clone(), send, recv));
                patience = shared.net.idle_timeout;
            }
            () = tokio::time::sleep(patience), if laneless => {
                shared.counters.refused_silent.increment();
                client.connection.close(close::SILENT, b"no lane was opened in time");
                break;
            }
        }
    }
    // Lanes end by themselves once the connection is gone; their tasks are not cut off half way.
    while lanes.join_next().await.is_some() {}
}

async fn lane(client: Arc<Client>, mut send: SendStream, recv: RecvStream) {
    let mut reader =
        LaneReader::new(recv, REQUEST_LEN_MAX).with_budget(client.shared.unfinished.clone());
    if !welcome(&client, &mut send, &mut reader).await {
        return;
    }
    let shared = &client.shared;
    let limits = &shared.limits;
    let outbox = Outbox::new(limits.reply_bytes_per_lane_max, Some(shared.replies.clone()));
    let epoch = outbox.open();
    let lane = Arc::new(ClientLane {
        outbox,
        in_flight: client.in_flight.clone(),
        counters: shared.counters.clone(),
    });
    let conn = ClientConn {
        id: shared.lanes.fetch_add(1, Ordering::Relaxed),
        name: client.name.clone(),
        roles: client.roles,
        remote: client.connection.remote_address(),
        replies: ReplySink::new(lane.clone()),
    };
    let end = run(&client, &lane, epoch, &conn, (&mut send, &mut reader)).await;
    lane.outbox.close(epoch);
    let code = match end {
        LaneEnd::Stalled => close::STALLED,
        _ => close::DONE,
    };
    reader.stop(code);
    if end == LaneEnd::Stalled {
        shared.counters.clients_stalled.increment();
        tracing::info!(client = %conn.name, remote = %conn.remote, "client lane closed: stalled");
        // Fails only if the stream has ended, which is as good.
        let _ = send.reset(code);
    } else if send.finish().is_ok() && *shared.stopping.borrow() {
        // The connection is closed next, and closing drops what has not arrived.
        let _ = timeout(shared.net.stall_timeout, send.stopped()).await;
    }
}

/// Reads and writes one lane until it ends, and lets the writer send what is owed.
async fn run(
    client: &Client,
    lane: &ClientLane,
    epoch: u64,
    conn: &ClientConn,
    (send, reader): (&mut SendStream, &mut LaneReader),
) -> LaneEnd {
    let shared = &client.shared;
    let stall = Some(shared.net.stall_timeout);
    let mut stopping = shared.stopping.subscribe();
    let writer = write_lane(&lane.outbox, epoch, send, stall);
    tokio::pin!(writer);
    let end = tokio::select! {
        biased;
        end = read(client, lane, conn, reader) => end,
        // The writer ends by itself only for a client that does not take its answers, or is gone.
        end = &mut writer => return if end == LaneEnd::Drained { LaneEnd::Stalled } else { end },
        _ = stopping.wait_for(|stopping| *stopping) => LaneEnd::Drained,
    };
    if let Some(error) = end.error() {
        match end {
            LaneEnd::Crowded => shared.counters.requests_overloaded.increment(),
            _ => shared.counters.lanes_malformed.increment(),
        }
        tracing::info!(client = %conn.name, remote = %conn.remote, %error, "client lane closed");
        // If the queue is full, the client learns it from the closed lane.
        let _ = lane.outbox.append(|out| Reply::Error(error).encode(0, out));
    }
    if matches!(end, LaneEnd::Lost | LaneEnd::Stalled) {
        return end;
    }
    lane.outbox.finish();
    match writer.await {
        LaneEnd::Drained => end,
        unwritten => unwritten,
    }
}

/// Hands batches of requests on until the lane cannot be read any further.
async fn read(
    client: &Client,
    lane: &ClientLane,
    conn: &ClientConn,
    reader: &mut LaneReader,
) -> LaneEnd {
    let shared = &client.shared;
    let mut frames = Vec::new();
    loop {
        lane.outbox.wait_below(shared.limits.reply_bytes_per_lane_max / 2).await;
        if let Err(end) = reader.batch(&mut frames, Some(shared.net.stall_timeout)).await {
            return end;
        }
        shared.counters.frames_received.add(frames.len() as u64);
        admit(client, lane, &mut frames);
        if !frames.is_empty() {
            shared.handler.on_client_frames(conn, &mut frames);
            frames.clear();
        }
    }
}

/// Counts requests in, up to the connection's limit; answers the others `Overloaded`.
fn admit(client: &Client, lane: &ClientLane, frames: &mut Vec<Frame>) {
    let limit = client.shared.limits.in_flight_per_connection_max;
    // Only this thread adds; others subtract, which can only make more room.
    let in_flight = client.in_flight.load(Ordering::Relaxed);
    let room = limit.saturating_sub(in_flight) as usize;
    let refused = frames.split_off(room.min(frames.len()));
    client.in_flight.fetch_add(frames.len() as u32, Ordering::Relaxed);
    if refused.is_empty() {
        return;
    }
    client.shared.counters.requests_overloaded.add(refused.len() as u64);
    let in_flight = in_flight + frames.len() as u32;
    let error = RequestError::Overloaded { in_flight, limit, retry_after_ms: RETRY_AFTER_MS };
    let reply = Reply::Error(error);
    let queued = lane.outbox.append(|out| {
        for frame in &refused {
            reply.encode(frame.id, out);
        }
    });
    if queued.is_err() {
        client.shared.counters.replies_dropped.add(refused.len() as u64);
        lane.outbox.finish();
    }
}

/// Takes the hello and answers it. `false` if the lane is over.
async fn welcome(client: &Client, send: &mut SendStream, reader: &mut LaneReader) -> bool {
    let shared = &client.shared;
    let within = shared.net.handshake_timeout;
    let (id, error) = match reader.hello(Instant::now() + within).await {
        Ok(frame) => match shared.local.check_client(&frame) {
            Ok(hello) => {
                tracing::debug!(client = %client.name, says = hello.client, "client lane opened");
                return answer(client, send, frame.id).await;
            }
            Err(error) => (frame.id, error),
        },
        Err(LaneEnd::Silent) => {
            shared.counters.refused_silent.increment();
            client.connection.close(close::SILENT, b"no hello came in time");
            return false;
        }
        Err(end) => match end.error() {
            Some(error) => (0, error),
            None => return false,
        },
    };
    shared.counters.refused_hello.increment();
    let remote = client.connection.remote_address();
    tracing::info!(client = %client.name, %remote, %error, "client lane refused");
    refuse(send, id, error, within).await;
    reader.stop(close::DONE);
    false
}

async fn answer(client: &Client, send: &mut SendStream, id: u64) -> bool {
    let shared = &client.shared;
    let welcome = shared.local.welcome(shared.handler.metadata_version());
    let mut frame = bytes::BytesMut::new();
    put_frame(&mut frame, kind::WELCOME, id, |out| {
        out.extend_from_slice(&handshake::encode(&welcome));
    });
    let sent = timeout(shared.net.handshake_timeout, send.write_all(&frame)).await;
    matches!(sent, Ok(Ok(())))
}
