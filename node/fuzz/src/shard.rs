//! The shard itself: a real one on a simulated disk, and any sequence of events.
//!
//! Clients ask with good and bad contexts; nodes with valid certificates say anything that can be
//! encoded, at any time and as often as they like; time passes, the wall clock jumps, commits come
//! late or fail, the disk fills up or cannot be read, the process restarts.
//!
//! Promises, checked by [`world`]: nothing panics, with the core's own assertions on (I8); every
//! call is answered exactly once and by its deadline; what is sent can be read by whoever gets it,
//! and goes to nodes of the layout or back to who asked; nothing is acknowledged or shown before it
//! is on the disk (I2); no dot names two writes (I1); queues and caches keep their limits (I10); after
//! a restart the clocks have seen what the objects name, and all of it can be read (I3).

mod hostile;
pub mod place;
mod requests;
mod verifying;
pub mod world;

use bytes::Bytes;
use holm_core::peer::PeerMessage;
use holm_core::shard::event::Input as Event;
use holm_core::store::Table;
use holm_protocol::frame::Frame;
use holm_sim::store::StoreFaults;

use crate::input::Input;
use world::World;

/// Events of one input: enough to fill every queue, few enough for thousands of inputs a second.
const EVENTS_MAX: usize = 160;

/// Each event is a byte that says which, and what it draws.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..EVENTS_MAX {
        if input.is_empty() {
            break;
        }
        step(&mut input, &mut world);
    }
    world.end();
}

fn step(input: &mut Input<'_>, world: &mut World) {
    match input.byte() % 32 {
        0..=7 => {
            let request = requests::request(input, &world.contexts);
            world.request(request);
        }
        8..=13 => {
            let (from, message) = (hostile::sender(input), hostile::claim(input, world));
            world.peer(from, &message);
        }
        14..=20 => {
            if let Some((from, message)) = hostile::reply(input, world) {
                world.peer(from, &message);
            }
        }
        24 if input.flag() => {
            let from = hostile::sender(input);
            let message = hostile::about_clocks(input, world, from);
            world.peer(from, &message);
        }
        21..=24 => world.commit(),
        25..=27 => {
            let millis = input.number() % 2_000;
            let jump_ms = if input.byte() < 248 { 0 } else { input.number() as i32 };
            world.pass(millis * 1000 + 1, jump_ms.into());
        }
        28 => {
            let node = hostile::sender(input);
            world.event(match input.byte() {
                bits if bits & 1 == 1 => world::up(node),
                bits if bits & 2 == 2 => Event::PeerDoubted(node, bits & 4 == 4),
                _ => Event::PeerDown(node),
            });
        }
        29 => {
            let (bucket, key) = requests::key(input);
            world.explain(bucket, key);
        }
        30 => disk(input, world),
        _ => rare(input, world),
    }
}

/// Something happens to the disk.
fn disk(input: &mut Input<'_>, world: &mut World) {
    match input.below(6) {
        0 => {
            let bits = input.byte();
            let (commits_fail, reads_fail) = (bits & 1 == 1, bits & 2 == 2);
            world.store.set_faults(StoreFaults {
                commits_fail,
                reads_fail,
                ..StoreFaults::default()
            });
        }
        1 => world.store.set_free(Some(input.byte().into())),
        2 => {
            let rows: Vec<Vec<u8>> =
                world.store.rows(Table::Objects).map(|(key, _)| key.to_vec()).collect();
            let at = input.below(rows.len().max(1));
            if let Some(key) = rows.get(at) {
                world.store.damage(Table::Objects, key);
            }
        }
        3 | 4 => world.store.heal(),
        _ => world.resume(),
    }
}

/// What a node does seldom: restart, lose its memory, take up a changed cluster; and raw frames.
fn rare(input: &mut Input<'_>, world: &mut World) {
    match input.below(6) {
        0 | 1 => {
            let how = input.byte();
            if how & 2 == 2 {
                world.commit();
                world.stop();
            }
            world.restart(how & 1 == 1);
        }
        2 => world.event(Event::Amnesia),
        3 => {
            let mut cluster = (*place::cluster()).clone();
            if input.flag() {
                cluster.buckets.pop_last();
            }
            world.event(Event::Cluster(cluster.into()));
        }
        _ => {
            let (kind, id) = (64 + input.byte() % 10, input.number());
            let body = Bytes::copy_from_slice(input.bytes(120));
            if let Ok(message) = PeerMessage::decode(&Frame { kind, id, body }) {
                let from = hostile::sender(input);
                world.peer(from, &message);
            }
        }
    }
}
