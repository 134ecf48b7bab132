//! [`Agents`] against a list that is searched from end to end.

use proptest::prelude::*;

use super::*;
use crate::engine::pool::Pool;
use crate::model::LayerSpec;
use crate::store::BlockName;

fn spec(snapshot_bytes: usize) -> Spec {
    Spec {
        vocabulary: 8,
        context_tokens: 4_096,
        pool_blocks: 64,
        prefill_tokens: 64,
        layers: vec![LayerSpec { key_bytes: 8, value_bytes: 0, snapshot_bytes }],
        tensors: Vec::new(),
    }
}

fn namespace(number: usize) -> Namespace {
    Namespace::new(&format!("n{number}"))
}

fn ids(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

/// A head as the store has it once all of it is saved.
pub(in crate::engine) fn stored(head: &Head, line: Line) -> StoredLine {
    let block = |tokens: &[TokenId]| BlockRef {
        name: BlockName::new([0; 32]),
        digest: [0; 32],
        tokens: tokens.len(),
        file_bytes: 0,
    };
    StoredLine {
        namespace: head.namespace.clone(),
        agent: head.agent.clone(),
        line,
        generation: Generation(1),
        tokens: head.tokens.iter().chain(&head.rest).copied().collect(),
        replies: Vec::new(),
        blocks: head.tokens.chunks(BLOCK_TOKENS).map(block).collect(),
    }
}

/// Agents with the pool that their blocks come from.
struct World {
    agents: Agents,
    pool: Pool,
}

impl World {
    fn new() -> World {
        World { agents: Agents::default(), pool: Pool::new(64) }
    }

    fn keep(&mut self, space: usize, agent: usize, tokens: &[TokenId]) -> HeadId {
        let blocks = self.pool.allocate(tokens.len().div_ceil(BLOCK_TOKENS)).expect("it is large");
        let agent = AgentId::new(&format!("a{agent}")).expect("a short name");
        let (namespace, tokens) = (namespace(space), tokens.into());
        let (rest, replies, is_cut) = (Vec::new(), Vec::new(), false);
        let kept = Kept { namespace, agent, tokens, rest, replies, is_cut, blocks };
        self.agents.keep(kept).expect("its prompt was whole")
    }

    /// All of a head is in the store from now on.
    fn save(&mut self, id: HeadId) {
        let Some(head) = self.agents.head(id) else { return };
        let line = head.line().unwrap_or(Line(id.0));
        let stored = stored(head, line);
        if head.line().is_none() {
            self.agents.set_line(id, line);
        }
        self.agents.stored(stored);
    }

    fn find(&self, query: &[u32]) -> Option<(HeadId, usize)> {
        let found = self.agents.find_hot(&namespace(0), &ids(query), &spec(0))?;
        Some((found.head, found.tokens))
    }
}

#[test]
fn eviction_returns_blocks_to_pool() {
    let mut world = World::new();
    let saved = world.keep(0, 0, &vec![TokenId(1); 2 * BLOCK_TOKENS + 1]);
    let unsaved = world.keep(0, 1, &ids(&[2]));
    assert_eq!(world.pool.used(), 4);
    world.save(saved);
    world.agents.evict(saved);
    assert_eq!(world.pool.used(), 1);
    world.agents.evict(unsaved);
    assert_eq!(world.pool.used(), 0);
    // The one is in the store still, the other nowhere.
    assert_eq!((world.agents.heads(), world.agents.count()), (1, 1));
    assert!(world.agents.head(unsaved).is_none());
    assert!(world.agents.take_forgotten().is_empty());
}

#[test]
fn a_turn_takes_the_place_of_the_head_it_extends() {
    let mut world = World::new();
    let first = world.keep(0, 0, &ids(&[1, 2]));
    world.save(first);
    let line = world.agents.head(first).and_then(Head::line);
    let other = world.keep(0, 0, &ids(&[1, 3]));
    let second = world.keep(0, 0, &ids(&[1, 2, 3]));
    assert_eq!(world.agents.heads(), 2);
    // In the store it is the same conversation, of which there is the first part.
    let head = world.agents.head(second).expect("it is there");
    assert_eq!((head.line(), head.saved().map(|saved| saved.tokens)), (line, Some(2)));
    assert!(world.agents.take_forgotten().is_empty());
    assert_eq!(world.find(&[1, 2, 3, 4]), Some((second, 3)));
    assert_eq!(world.find(&[1, 3, 4]), Some((other, 2)));
}

#[test]
fn a_head_that_leaves_unsaved_is_what_the_store_has_of_it() {
    let mut world = World::new();
    let first = world.keep(0, 0, &ids(&[1, 2]));
    world.save(first);
    let second = world.keep(0, 0, &ids(&[1, 2, 3]));
    let unsaved = stored(world.agents.head(second).expect("it is there"), Line(first.0));
    world.agents.evict(second);
    assert_eq!(world.pool.used(), 0);
    let warm = |world: &World| {
        let found = world.agents.find_warm(&namespace(0), &ids(&[1, 2, 3, 4]), &spec(0));
        found.map(|found| found.tokens)
    };
    assert_eq!(warm(&world), Some(2));
    // Its save was on the way.
    world.agents.stored(unsaved);
    assert_eq!((warm(&world), world.agents.heads()), (Some(3), 1));
}

/// The last token of a reply has no KV, and is a part of the agent's memory all the same.
#[test]
fn a_head_that_ends_in_another_token_is_saved_anew() {
    let mut world = World::new();
    let keep = |world: &mut World, last: u32| {
        let blocks = world.pool.allocate(1).expect("it is large");
        let agent = AgentId::new("a").expect("a short name");
        let (tokens, rest, replies) = (ids(&[1, 2]).into(), ids(&[last]), Vec::new());
        let (namespace, is_cut) = (namespace(0), false);
        let kept = Kept { namespace, agent, tokens, rest, replies, is_cut, blocks };
        world.agents.keep(kept).expect("its prompt was whole")
    };
    let first = keep(&mut world, 3);
    world.save(first);
    assert_eq!(keep(&mut world, 3), first);
    assert!(world.agents.head(first).is_some_and(Head::is_saved));
    let second = keep(&mut world, 4);
    assert_ne!(second, first);
    assert!(!world.agents.head(second).is_some_and(Head::is_saved));
    // Until then the other is what would be left of it.
    world.agents.evict(second);
    assert_eq!(world.agents.head(second).map(|head| head.rest.clone()), Some(ids(&[3])));
}

#[test]
fn what_the_store_gives_up_is_gone_if_it_is_nowhere_else() {
    let mut world = World::new();
    let hot = world.keep(0, 0, &ids(&[1]));
    let warm = world.keep(0, 0, &ids(&[2]));
    world.save(hot);
    world.save(warm);
    world.agents.evict(warm);
    for head in [hot, warm] {
        world.agents.dropped(Line(head.0));
    }
    assert!(world.agents.head(warm).is_none());
    // It is not saved again as it is: what made room would have to go.
    assert_eq!(world.agents.unsaved().count(), 0);
    assert_eq!(world.agents.saved_victim(), Some(hot));
    world.agents.evict(hot);
    assert_eq!(world.agents.heads(), 0);
    assert!(world.agents.take_forgotten().is_empty());
}

#[test]
fn what_a_hot_head_has_all_of_adds_nothing() {
    let mut world = World::new();
    let long = world.keep(0, 0, &ids(&[1, 2, 3]));
    assert_eq!(world.keep(0, 0, &ids(&[1, 2])), long);
    assert_eq!(world.pool.used(), 1);
    // Of another agent it does.
    assert_ne!(world.keep(0, 1, &ids(&[1, 2])), long);
    assert_eq!((world.agents.heads(), world.agents.count()), (2, 2));
}

#[test]
fn the_fifth_head_of_an_agent_drops_the_oldest_of_its_own() {
    let mut world = World::new();
    let stranger = world.keep(0, 9, &ids(&[7]));
    let heads: Vec<HeadId> = (1..=5).map(|id| world.keep(0, 0, &ids(&[id]))).collect();
    assert!(world.agents.head(heads[0]).is_none());
    assert!(heads[1..].iter().all(|head| world.agents.head(*head).is_some()));
    assert!(world.agents.head(stranger).is_some());
    assert_eq!(world.pool.used(), 5);
}

/// Clients that leave while their prompts are computed are no reason to forget what was said.
#[test]
fn a_prompt_that_was_cut_takes_the_place_of_another_such_and_of_no_conversation() {
    let mut world = World::new();
    let cut = |world: &mut World, id: u32| {
        let blocks = world.pool.allocate(1).expect("it is large");
        let agent = AgentId::new("a0").expect("a short name");
        let (tokens, rest, replies) = (ids(&[id, 9]).into(), Vec::new(), Vec::new());
        let (namespace, is_cut) = (namespace(0), true);
        world.agents.keep(Kept { namespace, agent, tokens, rest, replies, is_cut, blocks })
    };
    let spoken: Vec<HeadId> = (1..=3).map(|id| world.keep(0, 0, &ids(&[id]))).collect();
    let first = cut(&mut world, 4).expect("there is a place");
    let second = cut(&mut world, 5).expect("the place of the first");
    assert!(world.agents.head(first).is_none());
    assert!(spoken.iter().all(|head| world.agents.head(*head).is_some()));
    // A conversation comes before it, and then there is no place left for another.
    world.keep(0, 0, &ids(&[6]));
    assert!(world.agents.head(second).is_none());
    assert_eq!(cut(&mut world, 7), None);
    assert!(spoken.iter().all(|head| world.agents.head(*head).is_some()));
    assert_eq!(world.pool.used(), 4);
    // What goes on from a conversation has it.
    let longer = cut(&mut world, 1).expect("it takes the place of what it extends");
    assert!(world.agents.head(longer).is_some_and(|head| !head.is_cut));
}

/// The last token of a reply that was as long as it might be has no KV.
#[test]
fn a_head_that_leaves_unsaved_has_the_last_reply_that_was_saved() {
    let mut world = World::new();
    let keep = |world: &mut World, tokens: &[u32], last: u32, replies: &[Range<usize>]| {
        let blocks = world.pool.allocate(1).expect("it is large");
        let agent = AgentId::new("a").expect("a short name");
        let (tokens, rest, replies) = (ids(tokens).into(), ids(&[last]), replies.to_vec());
        let (namespace, is_cut) = (namespace(0), false);
        let kept = Kept { namespace, agent, tokens, rest, replies, is_cut, blocks };
        world.agents.keep(kept).expect("its prompt was whole")
    };
    let said = 1..3;
    let first = keep(&mut world, &[1, 2], 3, std::slice::from_ref(&said));
    world.save(first);
    let second = keep(&mut world, &[1, 2, 3, 4, 5], 6, &[said.clone(), 4..6]);
    world.agents.evict(second);
    let head = world.agents.head(second).expect("the store has the first turn");
    assert_eq!(
        (&*head.tokens, &head.rest, &head.replies),
        (&*ids(&[1, 2]), &ids(&[3]), &vec![said])
    );
}

#[test]
fn access_a_then_add_d_evicts_b() {
    let mut world = World::new();
    let [a, b, c] = [1, 2, 3].map(|id| world.keep(0, id as usize, &ids(&[id])));
    assert_eq!(world.agents.victim(), Some(a));
    world.agents.touch(a);
    assert_eq!(world.agents.victim(), Some(b));
    // What is safe in the store goes first, however lately it was used.
    world.save(c);
    assert_eq!(world.agents.victim(), Some(c));
    assert_eq!(world.agents.saved_victim(), Some(c));
    world.agents.evict(c);
    assert_eq!((world.agents.victim(), world.agents.saved_victim()), (Some(b), None));
}

#[derive(Clone, Debug)]
enum Operation {
    Keep { space: usize, agent: usize, tokens: Vec<TokenId> },
    Touch(prop::sample::Index),
    Saved(prop::sample::Index),
    Evict(prop::sample::Index),
    EvictVictim,
    Remove(prop::sample::Index),
}

/// Few different tokens, so that sequences share prefixes; some longer than a block.
fn tokens() -> impl Strategy<Value = Vec<TokenId>> {
    (prop::bool::weighted(0.3), prop::collection::vec((0..2_u32).prop_map(TokenId), 1..6)).prop_map(
        |(is_long, rest)| match is_long {
            true => [vec![TokenId(0); BLOCK_TOKENS - 2], rest].concat(),
            false => rest,
        },
    )
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let index = any::<prop::sample::Index>;
    let keep = (0..2_usize, 0..2_usize, tokens())
        .prop_map(|(space, agent, tokens)| Operation::Keep { space, agent, tokens });
    let operation = prop_oneof![
        5 => keep,
        1 => index().prop_map(Operation::Touch),
        3 => index().prop_map(Operation::Saved),
        2 => index().prop_map(Operation::Evict),
        1 => Just(Operation::EvictVictim),
        1 => index().prop_map(Operation::Remove),
    ];
    prop::collection::vec(operation, 0..60)
}

#[derive(Clone, Debug)]
struct NaiveHead {
    id: HeadId,
    space: usize,
    agent: usize,
    tokens: Vec<TokenId>,
    /// A number that grows with every turn.
    ended: u64,
    is_hot: bool,
    /// The head that its conversation was first saved as, and tokens that the store has of it.
    saved: Option<(HeadId, usize)>,
    /// It was not the last of its agent's when its agent went back to it.
    is_moved: bool,
}

impl NaiveHead {
    fn is_saved(&self) -> bool {
        !self.is_moved && self.saved.is_some_and(|(_, tokens)| tokens == self.tokens.len())
    }
}

/// The least recently used first.
#[derive(Default)]
struct Naive {
    heads: Vec<NaiveHead>,
    turns: u64,
    forgotten: Vec<Line>,
}

impl Naive {
    fn keep(&mut self, mut kept: NaiveHead) {
        self.turns += 1;
        kept.ended = self.turns;
        let is_sibling = |head: &&NaiveHead| (head.space, head.agent) == (kept.space, kept.agent);
        let mut siblings: Vec<NaiveHead> = self.heads.iter().filter(is_sibling).cloned().collect();
        siblings.sort_by_key(|head| head.ended);
        let has_all = |head: &&NaiveHead| {
            let is_longer = head.tokens.len() > kept.tokens.len();
            (head.is_hot || is_longer) && head.tokens.starts_with(&kept.tokens)
        };
        let last = siblings.last().map(|head| head.id);
        if let Some(head) = siblings.iter().find(has_all) {
            let (id, ended) = (head.id, self.turns);
            let head = self.head(id);
            head.ended = ended;
            head.is_moved |= Some(id) != last && head.saved.is_some();
            return self.touch(id);
        }
        let is_extended = |head: &&NaiveHead| kept.tokens.starts_with(&head.tokens);
        let extended = siblings.iter().filter(is_extended).max_by_key(|head| head.tokens.len());
        match extended {
            Some(extended) => {
                kept.saved = extended.saved;
                kept.is_moved = Some(extended.id) != last;
                self.heads.retain(|head| head.id != extended.id);
            }
            None if siblings.len() == HEADS_PER_AGENT => self.remove(siblings[0].id),
            None => (),
        }
        self.heads.push(kept);
    }

    fn touch(&mut self, id: HeadId) {
        let place = self.heads.iter().position(|head| head.id == id).expect("it exists");
        let head = self.heads.remove(place);
        self.heads.push(head);
    }

    fn head(&mut self, id: HeadId) -> &mut NaiveHead {
        self.heads.iter_mut().find(|head| head.id == id).expect("it exists")
    }

    fn remove(&mut self, id: HeadId) {
        if let Some((line, _)) = self.head(id).saved {
            self.forgotten.push(Line(line.0));
        }
        self.heads.retain(|head| head.id != id);
    }

    fn evict(&mut self, id: HeadId) {
        let head = self.head(id);
        match head.saved {
            Some((_, tokens)) => {
                head.tokens.truncate(tokens);
                head.is_hot = false;
            }
            None => self.remove(id),
        }
    }

    fn of(&self, is_hot: bool, is_saved: bool) -> Vec<HeadId> {
        let these =
            self.heads.iter().filter(|head| (head.is_hot, head.is_saved()) == (is_hot, is_saved));
        these.map(|head| head.id).collect()
    }

    /// The most tokens that a prompt need not compute.
    fn reusable(&self, space: usize, is_hot: bool, tokens: &[TokenId], spec: &Spec) -> usize {
        let query = &tokens[..tokens.len() - 1];
        let heads = self.heads.iter().filter(|head| (head.space, head.is_hot) == (space, is_hot));
        heads
            .map(|head| match common(&head.tokens, query) {
                whole if whole == head.tokens.len() => whole,
                part => spec.resume_point(part),
            })
            .max()
            .unwrap_or(0)
    }

    fn matched(&self, space: usize, tokens: &[TokenId]) -> usize {
        let heads = self.heads.iter().filter(|head| head.space == space);
        heads.map(|head| common(&head.tokens, tokens)).max().unwrap_or(0)
    }

    fn blocks(&self) -> usize {
        let hot = self.heads.iter().filter(|head| head.is_hot);
        hot.map(|head| head.tokens.len().div_ceil(BLOCK_TOKENS)).sum()
    }
}

fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

proptest! {
    #[test]
    fn property_they_are_as_a_list_would_be(
        operations in operations(),
        queries in prop::collection::vec(tokens(), 1..6),
    ) {
        let mut world = World::new();
        let mut naive = Naive::default();
        for operation in operations {
            let any = |index: prop::sample::Index| {
                let mut all: Vec<HeadId> = naive.heads.iter().map(|head| head.id).collect();
                all.sort();
                (!all.is_empty()).then(|| *index.get(&all))
            };
            match operation {
                Operation::Keep { space, agent, tokens } => {
                    let id = world.keep(space, agent, &tokens);
                    // If it is there already, the list finds that as well.
                    let (ended, is_hot, saved, is_moved) = (0, true, None, false);
                    naive.keep(NaiveHead { id, space, agent, tokens, ended, is_hot, saved, is_moved });
                    prop_assert_eq!(naive.heads.last().map(|head| head.id), Some(id));
                }
                Operation::Touch(index) => if let Some(head) = any(index) {
                    world.agents.touch(head);
                    naive.touch(head);
                },
                Operation::Saved(index) => if let Some(head) = any(index) {
                    world.save(head);
                    let head = naive.head(head);
                    let line = head.saved.map_or(head.id, |(line, _)| line);
                    head.saved = Some((line, head.tokens.len()));
                    head.is_moved = false;
                },
                Operation::Evict(index) => if let Some(head) = any(index) {
                    world.agents.evict(head);
                    naive.evict(head);
                },
                Operation::EvictVictim => {
                    let hot = [naive.of(true, true), naive.of(true, false)].concat();
                    prop_assert_eq!(world.agents.victim(), hot.first().copied());
                    if let Some(head) = world.agents.victim() {
                        world.agents.evict(head);
                        naive.evict(head);
                    }
                }
                Operation::Remove(index) => if let Some(head) = any(index) {
                    world.agents.remove(head);
                    naive.remove(head);
                },
            }
            let agents = &world.agents;
            prop_assert_eq!(world.pool.used(), naive.blocks());
            prop_assert_eq!(agents.unsaved().collect::<Vec<_>>(), naive.of(true, false));
            prop_assert_eq!(agents.hot_saved().collect::<Vec<_>>(), naive.of(true, true));
            prop_assert_eq!(agents.saved_victim(), naive.of(true, true).first().copied());
            prop_assert_eq!(agents.heads(), naive.heads.len());
            let mut names: Vec<_> = naive.heads.iter().map(|head| (head.space, head.agent)).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(agents.count(), names.len());
            for query in &queries {
                for space in 0..2 {
                    let name = namespace(space);
                    prop_assert_eq!(agents.matched(&name, query), naive.matched(space, query));
                    for spec in [spec(0), spec(16)] {
                        for is_hot in [true, false] {
                            let found = match is_hot {
                                true => agents.find_hot(&name, query, &spec),
                                false => agents.find_warm(&name, query, &spec),
                            };
                            let expected = naive.reusable(space, is_hot, query, &spec);
                            prop_assert_eq!(found.map_or(0, |found| found.tokens), expected);
                            let Some(found) = found else { continue };
                            let head = naive.heads.iter().find(|head| head.id == found.head);
                            let head = head.expect("what is found exists");
                            prop_assert_eq!((head.space, head.is_hot), (space, is_hot));
                            prop_assert!(common(&head.tokens, query) >= found.tokens);
                        }
                    }
                }
            }
        }
        let forgotten: Vec<Line> =
            world.agents.take_forgotten().into_iter().map(|forgotten| forgotten.line).collect();
        prop_assert_eq!(forgotten, naive.forgotten);
        prop_assert!(world.agents.take_forgotten().is_empty());
        while let Some(head) = world.agents.victim() {
            world.agents.remove(head);
        }
        prop_assert_eq!(world.pool.used(), 0);
    }
}

#[test]
fn a_part_of_what_is_on_disk_is_not_kept_twice() {
    let mut world = World::new();
    let tokens = ids(&[1, 2, 3, 4]);
    let long = world.keep(0, 0, &tokens);
    world.save(long);
    world.agents.evict(long);
    let rest = |last: &[u32]| Kept {
        namespace: namespace(0),
        agent: AgentId::new("a0").expect("a short name"),
        tokens: ids(&[1, 2]).into(),
        rest: ids(last),
        replies: Vec::new(),
        is_cut: false,
        blocks: Vec::new(),
    };
    let mut keep = |last: &[u32]| {
        let blocks = world.pool.allocate(1).expect("it is large");
        world.agents.keep(Kept { blocks, ..rest(last) }).expect("its prompt was whole")
    };
    assert_eq!(keep(&[]), long);
    assert_eq!(keep(&[3]), long);
    // What it said last is new, though it has no KV.
    let other = keep(&[7]);
    assert_ne!(other, long);
    assert_eq!(world.agents.head(other).expect("it is kept").rest, ids(&[7]));
    // The same tokens take its place, as they are in the pool.
    let same = world.keep(0, 0, &tokens);
    assert!(world.agents.head(same).expect("it is kept").is_hot());
    assert!(world.agents.head(long).is_none());
}

#[test]
fn what_replaces_a_line_is_the_newest_and_nobody_elses() {
    let mut world = World::new();
    let (first, second) = (world.keep(0, 0, &ids(&[1, 2])), world.keep(0, 0, &ids(&[3, 4])));
    world.save(first);
    world.save(second);
    let line = world.agents.head(first).and_then(Head::line).expect("it is saved");
    let head = Head { tokens: ids(&[1]).into(), ..world.agents.head(first).expect("kept").clone() };
    let replies = vec![0..1];
    world.agents.replaced(StoredLine { replies: replies.clone(), ..stored(&head, line) });
    let agent = AgentId::new("a0").expect("a short name");
    let (id, past) = world.agents.past(&namespace(0), &agent).expect("it has spoken");
    assert_eq!((&*past.tokens, past.is_hot()), (&ids(&[1])[..], false));
    assert!(world.agents.head(first).is_none());
    // Numbers of lines may be given out again.
    let foreign = Head { agent: AgentId::new("a1").expect("a short name"), ..head };
    world.agents.replaced(StoredLine { replies, ..stored(&foreign, line) });
    assert!(world.agents.head(id).is_some());
    assert!(world.agents.past(&namespace(0), &foreign.agent).is_none());
}
