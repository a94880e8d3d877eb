//! What other nodes say, to whoever deals with it.

use holm_protocol::ids::NodeId;

use crate::peer::{CompareMessage, HintMessage, PeerMessage};
use crate::shard::event::Effect;
use crate::shard::relay::Votes;
use crate::shard::{Origin, Shard, Turn, replica};
use crate::store::Store;

impl Shard {
    pub(super) fn on_peer<S: Store>(
        &mut self,
        from: NodeId,
        message: PeerMessage,
        turn: &mut Turn<'_, S>,
    ) {
        self.lag.hears(&message);
        match message {
            PeerMessage::Write { op, partition, bucket, key, object, fan_out } => {
                let write = replica::Incoming { partition, bucket, key, object };
                self.on_write((from, op), write, &fan_out, turn);
            }
            PeerMessage::WriteReply { op, durable, refused, .. } => {
                let votes = Votes { durable: &durable, refused: &refused };
                self.on_write_votes(op, from, votes, turn);
            }
            PeerMessage::Read { op, partition, bucket, key, want } => {
                let read = replica::Lookup { partition, bucket, key, want };
                self.on_read((from, op), &read, turn);
            }
            PeerMessage::ReadReply { op, found, .. } => self.on_found(op, from, found, turn),
            PeerMessage::Repair { partition, bucket, key, object } => {
                let write = replica::Incoming { partition, bucket, key, object };
                if self.join_incoming(&write, turn).is_err() {
                    self.counters.peer_rejections += 1;
                }
            }
            PeerMessage::Proxy { op, partition, request } => {
                self.on_request(Origin::Peer(from, op, partition), request, turn);
            }
            PeerMessage::ProxyReply { op, reply, .. } => {
                self.on_proxy_reply(op, from, reply, turn);
            }
            PeerMessage::Verify { op, partition, question } => {
                self.on_verify((from, op), partition, question, turn);
            }
            PeerMessage::VerifyReply { op, answer, .. } => {
                self.on_verify_answer(op, from, answer, turn);
            }
            PeerMessage::Inspect { op, partition, bucket, key } => {
                let state = self.inspect(partition, bucket, &key, turn.store);
                let message = PeerMessage::InspectReply { op, partition, state };
                turn.out.push(Effect::Send { to: vec![from], message });
            }
            PeerMessage::InspectReply { op, state, .. } => {
                self.on_inspect_reply(op, from, state, turn.out);
            }
            PeerMessage::Hint(message) => self.on_hint(from, message, turn),
            PeerMessage::Fingerprint(message) => self.on_fingerprint_message(from, message, turn),
            PeerMessage::Compare(CompareMessage::Compare { op, run, positions }) => {
                self.on_compare((from, op), run, &positions, turn);
            }
            PeerMessage::Compare(CompareMessage::Compared { op, positions }) => {
                self.on_compared((from, op), &positions, turn);
            }
            PeerMessage::Close(message) => self.on_close(from, message, turn),
            message => self.on_peer_about_gaps(from, message, turn),
        }
    }

    fn on_hint<S: Store>(&mut self, from: NodeId, message: HintMessage, turn: &mut Turn<'_, S>) {
        match message {
            HintMessage::Keep { op, partition, replica, bucket, key, object } => {
                let hint = replica::Incoming { partition, bucket, key, object };
                self.on_keep((from, op), (replica, hint), turn);
            }
            HintMessage::Kept { op, replica, refused, .. } => {
                self.on_kept(op, (from, Some(replica)), refused, turn);
            }
            HintMessage::HandOff { op, partition, bucket, key, object } => {
                let write = replica::Incoming { partition, bucket, key, object };
                self.on_hand_off((from, op), &write, turn);
            }
            HintMessage::HandedOff { op, refused, window_bytes, .. } => {
                self.on_handed_off((from, op), refused, window_bytes, turn);
            }
        }
    }

    fn on_peer_about_gaps<S: Store>(
        &mut self,
        from: NodeId,
        message: PeerMessage,
        turn: &mut Turn<'_, S>,
    ) {
        match message {
            PeerMessage::Pulse { actor, counters, .. } => {
                self.on_pulse(from, actor, &counters, turn.now.mono);
            }
            PeerMessage::Seen { op, run, layout, clocks } => {
                self.on_seen((from, op), (run, layout), &clocks, turn);
            }
            PeerMessage::Noted { op, shard, shards, .. } => {
                self.on_noted(from, op, (shard, shards), turn.now.mono);
            }
            PeerMessage::GapAsk { op, partition, missing, bytes_max } => {
                self.on_gap_ask((from, op), partition, (&missing, bytes_max), turn);
            }
            PeerMessage::GapAnswer { op, partition, objects, cut, unknown } => {
                self.on_gap_answer((from, op), partition, objects, (&cut, &unknown), turn);
            }
            PeerMessage::PageAsk { op, partition, after, know, gathers, run, bytes_max } => {
                // What is frozen here later must be known to be unknown there: see `retire`.
                if self.peers.run(from) == Some(run) {
                    let what = (partition, after);
                    self.resyncs.asked((from, op), what, (know, gathers), bytes_max);
                }
            }
            PeerMessage::PageAnswer { op, partition, clock, know, ends, objects, is_last } => {
                let page = (objects, is_last);
                self.on_page((from, op), partition, (clock, know, ends), page, turn.now.mono);
            }
            // All others are dealt with before.
            _ => self.counters.peer_rejections += 1,
        }
    }
}
