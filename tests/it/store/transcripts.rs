//! Power cuts at every moment while answers are kept and removed: each is there whole or not at all,
//! is there when that was acknowledged, and does not come back.

use semantic::store::Transcript;
use semantic::types::TranscriptId;

use super::agents::{Agents, conversation, empty_volume, whose};
use crate::support::disk::{CrashDisk, MemoryDisk};
use crate::support::random::Random;

/// States of one moment that are looked at.
const STATES_MAX: usize = 60;
const SAID: &[u8] = b"what was said, word for word";

#[test]
fn a_power_cut_leaves_what_was_acknowledged_and_brings_nothing_back() {
    let (namespace, agent) = whose("planner");
    let transcript = |id| Transcript {
        namespace: namespace.clone(),
        agent: agent.clone(),
        id: TranscriptId(id),
        said: SAID.into(),
    };
    let disk = CrashDisk::on(&MemoryDisk::of(&empty_volume()));
    let store = Agents::open(disk.clone());
    store.begin(&whose("planner"), &conversation(1, 20));
    let begun = disk.now();
    store.store.keep_transcript(&transcript(7)).unwrap();
    let first = disk.now();
    store.store.keep_transcript(&transcript(8)).unwrap();
    let second = disk.now();
    assert!(store.store.remove_transcript(&namespace, TranscriptId(7)).unwrap());
    let removed = disk.now();
    assert!(store.store.remove_agent(&namespace, &agent).unwrap());
    let gone = disk.now();

    let moments = disk.moments();
    let mut looked_at = 0;
    for (done, moment) in (1..).zip(&moments).skip(begun) {
        for state in moment.states(STATES_MAX, &mut Random::new(done as u64)) {
            let store = Agents::open(MemoryDisk::of(&state)).store;
            let is_there = |id| match store.transcript(&namespace, TranscriptId(id)).unwrap() {
                Some(said) => {
                    assert_eq!(*said, *SAID);
                    true
                }
                None => false,
            };
            let found = (is_there(7), is_there(8));
            let at = format!("{found:?} after {done} of {gone}: {}", moment.operation);
            assert!(!(first..=second).contains(&done) || found.0, "{at}");
            assert!(done < removed || !found.0, "{at}");
            assert!(!(second..=removed).contains(&done) || found.1, "{at}");
            assert!(done < gone || !found.1, "{at}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 2 * (gone - begun), "{looked_at} states");
}
