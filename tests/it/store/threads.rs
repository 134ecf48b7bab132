//! One store used by a thread that writes, by some that read and by one that seals, as an engine
//! does: nobody waits for ever, nobody gets wrong bytes, and nothing good is put aside.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use semantic::store::StoreError;
use semantic::types::{BLOCK_TOKENS, Namespace};

use super::agents::{Agents, after_restart, branch, empty_volume, kv, whose};
use crate::support::disk::{MemoryDisk, Moment};
use crate::support::random::Random;
use crate::support::scale::scaled;

const SEED: u64 = 0x5eed_0005;
const ROUNDS: usize = 3_000;

#[test]
fn readers_get_right_bytes_or_none_while_another_thread_writes_and_removes() {
    println!("seed {SEED:#x}");
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let is_done = AtomicBool::new(false);
    let begin = Barrier::new(4);
    let reads = std::thread::scope(|scope| {
        let read = || {
            begin.wait();
            let mut reads = 0;
            while !is_done.load(Ordering::Acquire) {
                reads += read_all(&agents);
            }
            reads
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        scope.spawn(|| {
            begin.wait();
            while !is_done.load(Ordering::Acquire) {
                seal_one(&agents);
            }
        });
        begin.wait();
        write(&agents);
        is_done.store(true, Ordering::Release);
        readers.map(|reader| reader.join().unwrap()).iter().sum::<usize>()
    });
    println!("{reads} blocks read");
    assert_eq!(disk.volume().files("quarantine/"), [""; 0], "a good file was put aside");
    let kept = agents.conversations();
    assert_eq!(after_restart(&Moment::of(&disk).safe()), kept);
}

/// Reads what is there, and says how many blocks could be read to the end.
fn read_all(agents: &Agents) -> usize {
    let mut reads = 0;
    for line in agents.store.lines(&agents.model.fingerprint) {
        match agents.read(&line) {
            (held, None) => reads += held.div_ceil(BLOCK_TOKENS),
            (_, Some(StoreError::Missing(_))) => (),
            (_, Some(error)) => panic!("{error}"),
        }
    }
    reads
}

fn seal_one(agents: &Agents) {
    let tokens = branch(1, 20, 2, 30);
    let kv = kv(&agents.model, &tokens, 0);
    let sealed = agents.store.seal(&Namespace::local(), &agents.model, None, &tokens, kv);
    agents.store.is_stored(&Namespace::local(), &sealed.block.name);
}

/// The same few conversations over and over, so that blocks come and go under the same names.
fn write(agents: &Agents) {
    let mut random = Random::new(SEED);
    for _ in 0..scaled(ROUNDS) {
        let who = whose(&format!("agent {}", random.range(0..4)));
        let tokens = branch(1, 256, random.next() % 3, 256 + random.range(1..300));
        let lines = agents.store.lines(&agents.model.fingerprint);
        let line = lines.iter().find(|line| line.agent == who.1).map(|line| line.line);
        match random.range(0..8) {
            0 => drop(agents.store.remove_agent(&who.0, &who.1).unwrap()),
            1 => agents.collect(),
            _ => {
                let line = line.unwrap_or_else(|| agents.store.new_line());
                agents.save(&who, line, &tokens).unwrap();
            }
        }
    }
}
