//! What is saved comes back bit for bit: tokens, replies, KV, names; again after another round; and
//! agents do not touch each other.

use std::sync::Arc;

use semantic::store::{Draft, KvModel, ROLLBACK_GENERATIONS, StoreError};
use semantic::types::{
    AgentId, BLOCK_TOKENS, Fingerprint, Generation, KvAxis, KvElement, KvTensor, Namespace, TokenId,
};

use super::agents::{Agents, branch, conversation, empty_volume, whose};
use crate::support::disk::{MemoryDisk, Volume};

fn reopened(disk: &MemoryDisk) -> Agents {
    Agents::open(MemoryDisk::of(&disk.volume()))
}

#[test]
fn a_conversation_of_any_length_comes_back_bit_for_bit() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let lengths = [1, 2, 255, 256, 257, 511, 512, 513, 8_000];
    for length in lengths {
        agents.begin(&whose(&format!("{length}")), &conversation(length as u64, length));
    }
    drop(agents);
    let agents = reopened(&disk);
    for length in lengths {
        let right = conversation(length as u64, length);
        assert_eq!(agents.conversation_of(&whose(&format!("{length}"))), Some(right));
    }
}

#[test]
fn a_second_round_trip_leaves_the_same_files() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let line = agents.begin(&whose("planner"), &conversation(1, 300));
    let blocks = |volume: &Volume| volume.files("/b/");
    let first = disk.volume();
    drop(agents);
    let agents = Agents::open(disk.clone());
    let restored = agents.conversation_of(&whose("planner")).unwrap();
    agents.save(&whose("planner"), line, &restored).unwrap();
    assert_eq!(blocks(&disk.volume()), blocks(&first));
    assert_eq!(reopened(&disk).conversation_of(&whose("planner")), Some(restored));
}

#[test]
fn the_last_token_of_a_reply_needs_no_kv() {
    for held in [0, 1, 255, 256, 300] {
        let disk = MemoryDisk::of(&empty_volume());
        let agents = Agents::open(disk.clone());
        let tokens = conversation(1, held + 1);
        let line = agents.store.new_line();
        let mut draft = agents.draft(&whose("planner"), line, &tokens[..held]).unwrap();
        draft.tokens = tokens.clone().into();
        agents.store.commit(&draft).unwrap();
        drop(agents);
        let kept = &reopened(&disk).kept()[&whose("planner")][0];
        assert_eq!((&kept.tokens, kept.held), (&tokens, held));
    }
}

#[test]
fn replies_names_and_times_come_back() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let line = agents.store.new_line();
    let mut draft = agents.draft(&whose("日本語 👩‍🚀"), line, &conversation(1, 300)).unwrap();
    draft.replies = vec![5..9, 9..9, 100..300];
    let committed = agents.store.commit(&draft).unwrap();
    drop(agents);
    let agents = reopened(&disk);
    let stored = agents.store.lines(&agents.model.fingerprint).remove(0);
    assert_eq!(stored.replies, draft.replies);
    assert_eq!((stored.line, stored.generation), (line, committed.generation));
    let info = agents.store.agents().unwrap().remove(0);
    assert_eq!(info.agent.as_str(), "日本語 👩‍🚀");
    let save = info.newest();
    assert_eq!((&*save.model, &*save.producer), ("tests/tiny", "portable 0.1.0"));
    assert_eq!((save.tokens, save.blocks_there, save.is_live), (300, 2, true));
    assert_eq!((&save.replies, save.fingerprint), (&draft.replies, Fingerprint([7; 32])));
    let tokens = agents.store.tokens(&info.namespace, &info.agent, save.generation).unwrap();
    assert_eq!(tokens, conversation(1, 300));
}

/// Every type of tensor with every byte, numbers that are none among them.
#[test]
fn every_bit_pattern_of_every_type_of_tensor_comes_back() {
    for element in [KvElement::U8, KvElement::F16, KvElement::F32, KvElement::U64] {
        let shape = vec![KvAxis::Fixed(2), KvAxis::Tokens, KvAxis::Fixed(1)];
        let tensors = vec![KvTensor { name: "only".to_owned(), element, shape }];
        let (name, producer) = (String::new(), String::new());
        let fingerprint = Fingerprint([3; 32]);
        let model = Arc::new(KvModel { fingerprint, name, producer, tensors });
        let disk = MemoryDisk::of(&empty_volume());
        let agents = Agents::open(disk.clone());
        let tokens = conversation(1, BLOCK_TOKENS);
        let kv: Vec<u8> = (0..model.kv_bytes(BLOCK_TOKENS)).map(|byte| byte as u8).collect();
        let namespace = Namespace::local();
        let sealed = agents.store.seal(&namespace, &model, None, &tokens, kv.clone());
        let block = sealed.block.clone();
        agents.store.write_block(&AgentId::new("a").unwrap(), &sealed).unwrap();
        assert_eq!(sealed.into_kv(), kv);
        let draft = Draft {
            namespace: namespace.clone(),
            agent: AgentId::new("planner").unwrap(),
            line: agents.store.new_line(),
            model: Arc::clone(&model),
            tokens: tokens.into(),
            replies: Vec::new(),
            blocks: vec![block.clone()],
        };
        agents.store.commit(&draft).unwrap();
        let agents = (drop(agents), reopened(&disk)).1;
        let read = agents.store.read_block(&namespace, &model, &block, vec![0xde; 7]).unwrap();
        assert_eq!(&*read, kv);
    }
}

#[test]
fn agents_with_the_same_tokens_are_kept_apart() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let names = ["planner", "critic", "Planner"];
    for name in names {
        agents.begin(&whose(name), &conversation(1, 300));
    }
    let theirs = (Namespace::new("theirs"), whose("planner").1);
    agents.begin(&theirs, &conversation(1, 300));
    // Once for the three, once for the other namespace.
    assert_eq!(disk.volume().files("/b/").len(), 4);
    let line = agents.kept()[&whose("critic")][0].line;
    agents.save(&whose("critic"), line, &conversation(1, 310)).unwrap();
    let (namespace, agent) = whose("planner");
    assert!(agents.store.remove_agent(&namespace, &agent).unwrap());
    assert!(!agents.store.remove_agent(&namespace, &agent).unwrap());
    agents.store.collect().unwrap();
    agents.store.collect().unwrap();
    let kept = reopened(&disk).conversations();
    assert_eq!(kept.len(), 3);
    assert_eq!(kept[&whose("critic")], [conversation(1, 310)]);
    assert_eq!(kept[&whose("Planner")], [conversation(1, 300)]);
    assert_eq!(kept[&theirs], [conversation(1, 300)]);
}

#[test]
fn a_fork_goes_its_own_way() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let (planner, copy) = (whose("planner"), whose("copy"));
    let line = agents.begin(&planner, &conversation(1, 300));
    let blocks = disk.volume().files("/b/");
    agents.store.fork(&planner.0, &planner.1, &copy.1).unwrap();
    assert_eq!(disk.volume().files("/b/"), blocks, "a fork copies no block");
    let again = agents.store.fork(&planner.0, &planner.1, &copy.1);
    assert!(matches!(again, Err(StoreError::Exists(_))), "{again:?}");
    let nobody = agents.store.fork(&planner.0, &whose("nobody").1, &whose("other").1);
    assert!(matches!(nobody, Err(StoreError::NotFound(_))), "{nobody:?}");
    let copied = agents.kept()[&copy][0].line;
    assert_ne!(copied, line);
    agents.save(&copy, copied, &branch(1, 300, 2, 330)).unwrap();
    agents.save(&planner, line, &branch(1, 300, 3, 310)).unwrap();
    assert!(agents.store.remove_agent(&planner.0, &planner.1).unwrap());
    agents.store.collect().unwrap();
    agents.store.collect().unwrap();
    let kept = reopened(&disk).conversations();
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [(copy, vec![branch(1, 300, 2, 330)])]);
}

#[test]
fn one_can_go_back_as_far_as_there_are_rollback_points() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let (namespace, agent) = whose("planner");
    let line = agents.begin(&whose("planner"), &conversation(1, 10));
    for turn in 2..=6 {
        agents.save(&whose("planner"), line, &conversation(1, turn * 10)).unwrap();
    }
    agents.store.collect().unwrap();
    let saves = agents.store.agent(&namespace, &agent).unwrap().unwrap().saves;
    assert_eq!(saves.len(), 1 + ROLLBACK_GENERATIONS);
    let gone = agents.store.rollback(&namespace, &agent, Some(Generation(1)));
    assert!(matches!(gone, Err(StoreError::NotFound(_))), "{gone:?}");
    let committed = agents.store.rollback(&namespace, &agent, Some(Generation(3))).unwrap();
    assert_eq!(committed.generation, Generation(7));
    let right: Vec<TokenId> = conversation(1, 30);
    assert_eq!(reopened(&disk).conversation_of(&whose("planner")), Some(right));
    agents.store.rollback(&namespace, &agent, None).unwrap();
    assert_eq!(agents.conversation_of(&whose("planner")), Some(conversation(1, 60)));
    let nobody = agents.store.rollback(&namespace, &whose("nobody").1, None);
    assert!(matches!(nobody, Err(StoreError::NotFound(_))), "{nobody:?}");
}

#[test]
fn generations_and_lines_only_rise() {
    let disk = MemoryDisk::of(&empty_volume());
    let mut lines = Vec::new();
    let mut generations = Vec::new();
    for round in 0..5 {
        let agents = Agents::open(disk.clone());
        for _ in 0..3 {
            lines.push(agents.store.new_line());
        }
        let line = lines[lines.len() - 1];
        let tokens = conversation(round, 20);
        generations.push(agents.save(&whose("planner"), line, &tokens).unwrap().generation);
    }
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
    // A number that was given and never saved may be given again after a restart, not one that was.
    let saved: Vec<_> = lines.iter().skip(2).step_by(3).collect();
    assert!(saved.is_sorted_by(|a, b| a < b), "{lines:?}");
}

#[test]
fn lines_come_least_recently_used_first() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let first = agents.begin(&whose("a"), &conversation(1, 10));
    agents.begin(&whose("b"), &conversation(2, 10));
    agents.begin(&whose("c"), &conversation(3, 10));
    agents.save(&whose("a"), first, &conversation(1, 20)).unwrap();
    for agents in [agents, reopened(&disk)] {
        let lines = agents.store.lines(&agents.model.fingerprint);
        let names: Vec<&str> = lines.iter().map(|line| line.agent.as_str()).collect();
        assert_eq!(names, ["b", "c", "a"]);
    }
}
