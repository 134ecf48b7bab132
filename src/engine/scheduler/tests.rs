//! The rules of the scheduler one by one, with logits that no model computed.

use super::*;
use crate::engine::{Reply, Warmth};
use crate::model::sample::Sampling;
use crate::model::{LayerSpec, Logits};
use crate::text::Prompt;
use crate::types::TextSource;

const VOCABULARY: usize = 16;
const QUEUE_TIME: Duration = Duration::from_secs(60);

struct World {
    scheduler: Scheduler,
    now: Instant,
}

impl World {
    fn new(pool_blocks: usize, running_max: usize, store_keeps: bool) -> World {
        let json = include_str!("../../../tests/data/text/byte_level.tokenizer.json");
        let tokenizer = Tokenizer::new(&TextSource::Folder {
            tokenizer_json: json.as_bytes().to_vec(),
            tokenizer_config_json: None,
            chat_template_jinja: None,
            end_tokens: Vec::new(),
        });
        let limits = Limits {
            step: Duration::from_secs(3_600),
            running_max,
            queue_max: 64,
            queue_time: QUEUE_TIME,
            instance: 0,
        };
        let spec = Spec {
            vocabulary: VOCABULARY,
            context_tokens: 4_096,
            pool_blocks,
            prefill_tokens: BLOCK_TOKENS,
            layers: vec![LayerSpec { key_bytes: 8, value_bytes: 0, snapshot_bytes: 0 }],
            tensors: Vec::new(),
        };
        let tokenizer = Arc::new(tokenizer.expect("the fixture is a tokenizer"));
        let scheduler = Scheduler::new(limits, spec, tokenizer, store_keeps);
        World { scheduler, now: Instant::now() }
    }

    /// A greedy request whose prompt is so many times the same token.
    fn submit(&mut self, token: u32, prompt_tokens: usize, max_tokens: usize) -> RequestId {
        self.submit_choices(1, token, prompt_tokens, max_tokens)
    }

    fn submit_choices(
        &mut self,
        choices: usize,
        token: u32,
        prompt_tokens: usize,
        max_tokens: usize,
    ) -> RequestId {
        self.submit_to("local", choices, token, prompt_tokens, max_tokens)
    }

    fn submit_to(
        &mut self,
        namespace: &str,
        choices: usize,
        token: u32,
        prompt_tokens: usize,
        max_tokens: usize,
    ) -> RequestId {
        let request = self.request(namespace, choices, token, prompt_tokens, max_tokens);
        self.scheduler.submit(request, self.now).expect("it is accepted")
    }

    fn request(
        &self,
        namespace: &str,
        choices: usize,
        token: u32,
        prompt_tokens: usize,
        max_tokens: usize,
    ) -> Request {
        Request {
            namespace: Namespace::new(namespace),
            agent: Some(AgentId::new(&format!("a{token}")).expect("a short name")),
            prompt: Prompt::from(vec![TokenId(token); prompt_tokens]),
            max_tokens: Some(max_tokens),
            sampling: Sampling::GREEDY,
            stops: Vec::new(),
            reply: Reply::Turn,
            choices,
            logprobs: None,
            is_end_ignored: true,
            grammar: None,
            is_ephemeral: false,
        }
    }

    /// One step in which every row that wants a token gets token 0; who took part.
    fn step(&mut self) -> Vec<u64> {
        let work = self.scheduler.admit(self.now);
        assert!(!work.iter().any(|work| matches!(work, Work::Restore(_))), "there is no store");
        drop(work);
        let rows = self.scheduler.rows();
        let wanted = |row: &PlannedRow| if row.is_last { vec![0.0; VOCABULARY] } else { vec![] };
        let logits: Vec<Logits> =
            rows.iter().map(|row| Logits::new(VOCABULARY, wanted(row))).collect();
        self.scheduler.complete(&rows, &logits, self.now);
        self.scheduler.assert_consistent();
        rows.iter().map(|row| row.order.request.0).collect()
    }

    /// All of a head is in the store from now on.
    fn save(&mut self, head: HeadId) {
        let line = Line(head.0);
        let kept = self.scheduler.head(head).expect("it is there");
        let stored = crate::engine::agents::tests::stored(kept, line);
        self.scheduler.set_line(head, line);
        self.scheduler.saved(head, stored);
    }

    fn step_until(&mut self, mut is_there: impl FnMut(&Scheduler) -> bool) {
        for _ in 0..20_000 {
            if is_there(&self.scheduler) {
                return;
            }
            self.step();
        }
        panic!("it never comes");
    }

    fn running(&self) -> Vec<u64> {
        self.scheduler.running.keys().map(|order| order.request.0).collect()
    }

    fn parked(&self) -> Vec<u64> {
        self.scheduler.parked.keys().map(|order| order.request.0).collect()
    }
}

#[test]
fn step_with_no_batch_returns_immediately() {
    let mut world = World::new(8, 4, false);
    assert_eq!(world.step(), [0; 0]);
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_request_holds_its_prompt_and_a_window_and_no_more() {
    let mut world = World::new(64, 4, false);
    world.submit(1, 300, 3_000);
    world.step();
    assert_eq!(world.scheduler.stats().blocks_used, blocks(300 + WINDOW_TOKENS));
    world.submit(2, 300, 10);
    world.step();
    assert_eq!(world.scheduler.stats().blocks_used, blocks(300 + WINDOW_TOKENS) + blocks(310));
}

#[test]
fn the_window_moves_with_the_sequence() {
    let mut world = World::new(64, 4, false);
    let request = world.submit(1, 100, 3_000);
    world.step();
    while world.scheduler.knows(request) {
        let active = world.scheduler.running.values().next().expect("it runs");
        let (tokens, held) = (active.sequence.tokens().len(), active.table.len() * BLOCK_TOKENS);
        let most = blocks(tokens + WINDOW_TOKENS) * BLOCK_TOKENS;
        assert!(held >= tokens, "{tokens} tokens in blocks for {held}");
        assert!(held <= most, "{tokens} tokens in blocks for {held}");
        // A block is there before it is needed, as long as the reply goes on.
        assert!(held + 1 >= (tokens + BLOCK_TOKENS).min(blocks(3_100) * BLOCK_TOKENS));
        world.step();
    }
    assert_eq!(world.scheduler.stats().parkings, 0);
}

#[test]
fn the_youngest_is_parked_and_the_oldest_never() {
    let mut world = World::new(9, 4, false);
    for token in 1..=3 {
        world.submit(token, 10, 2_000);
    }
    world.step();
    assert_eq!(world.running(), [1, 2, 3]);
    world.step_until(|scheduler| !scheduler.parked.is_empty());
    assert_eq!((world.running(), world.parked()), (vec![1, 2], vec![3]));
    world.step_until(|scheduler| scheduler.parked.len() == 2);
    assert_eq!((world.running(), world.parked()), (vec![1], vec![2, 3]));
    world.step_until(|scheduler| !scheduler.knows(RequestId(1)));
    world.step();
    assert_eq!(world.running()[0], 2);
    world.step_until(Scheduler::is_idle);
    assert_eq!(world.scheduler.finished_requests(), 3);
}

/// Who was let in early, because others had had their share, was taken for younger than those of
/// them that came in after it, and parked for them.
#[test]
fn age_counts_from_admission() {
    let mut world = World::new(40, 2, false);
    let flood: Vec<RequestId> =
        (0..3).map(|token| world.submit_to("flood", 1, token, 100, 5)).collect();
    let other = world.submit_to("other", 1, 3, 100, 300);
    world.step();
    assert_eq!(world.running(), [flood[0].0, other.0]);
    world.step_until(|scheduler| !scheduler.knows(flood[0]));
    world.step();
    assert_eq!(world.running(), [other.0, flood[1].0]);
    assert_eq!(world.scheduler.oldest(), Some(other));
}

#[test]
fn a_parked_prompt_gives_back_the_blocks_of_its_choices_too() {
    let mut world = World::new(13, 4, false);
    // So slowly that the first outgrows its window while the second is read.
    world.scheduler.pace = Pace::new(Duration::MAX, 1);
    world.submit(1, 5, 3_000);
    let several = world.submit_choices(2, 2, 2_000, 5);
    world.step();
    assert_eq!(world.scheduler.stats().blocks_used, 13);
    world.step_until(|scheduler| !scheduler.parked.is_empty());
    assert_eq!((world.running(), world.parked()), (vec![1], vec![several.0]));
    world.scheduler.pace = Pace::new(Duration::MAX, BLOCK_TOKENS);
    world.scheduler.take_items();
    world.step_until(Scheduler::is_idle);
    let items = world.scheduler.take_items();
    let outcome = items.iter().find_map(|(id, item)| match item {
        Ok(Event::Finished(outcome)) if *id == several => Some(outcome),
        _ => None,
    });
    assert_eq!(outcome.expect("it ends").choices.len(), 2);
}

#[test]
fn the_parked_come_back_before_anybody_new() {
    let mut world = World::new(9, 4, false);
    for token in 1..=3 {
        world.submit(token, 10, 2_000);
    }
    world.step_until(|scheduler| !scheduler.parked.is_empty());
    // There is room for this one at once, and the third would wait for ever.
    let small = world.submit(4, 5, 5);
    while world.parked() == [3] || world.parked() == [2, 3] {
        assert!(!world.running().contains(&small.0));
        world.step();
    }
    world.step_until(Scheduler::is_idle);
}

#[test]
fn the_head_of_the_line_is_not_passed() {
    let mut world = World::new(8, 4, false);
    world.submit(1, 300, 200);
    let large = world.submit(2, 1_700, 50);
    let small = world.submit(3, 5, 5);
    world.step();
    assert_eq!(world.running(), [1]);
    world.step_until(|scheduler| !scheduler.knows(RequestId(1)));
    world.step();
    assert_eq!(world.running(), [large.0, small.0]);
}

#[test]
fn no_more_run_than_may() {
    let mut world = World::new(64, 2, false);
    for token in 1..=4 {
        world.submit(token, 5, 20);
    }
    world.step();
    assert_eq!(world.running(), [1, 2]);
    world.step_until(|scheduler| !scheduler.knows(RequestId(2)));
    world.step();
    assert_eq!(world.running(), [3, 4]);
}

#[test]
fn who_waits_too_long_is_refused_and_who_runs_is_not() {
    let mut world = World::new(64, 1, false);
    let (first, second) = (world.submit(1, 5, 500), world.submit(2, 5, 5));
    world.step();
    world.now += QUEUE_TIME - Duration::from_millis(1);
    world.step();
    assert!(world.scheduler.knows(second));
    world.now += Duration::from_millis(1);
    world.step();
    assert!(!world.scheduler.knows(second));
    assert!(world.scheduler.knows(first));
    let items = world.scheduler.take_items();
    let refusals: Vec<_> =
        items.iter().filter_map(|(id, item)| Some((*id, item.as_ref().err()?.clone()))).collect();
    assert_eq!(refusals, [(second, Error::WaitedTooLong(QUEUE_TIME))]);
}

#[test]
fn an_idle_agent_gives_way_to_who_needs_its_blocks() {
    let mut world = World::new(8, 4, true);
    for token in 1..=6 {
        world.submit(token, 300, 5);
        world.step_until(Scheduler::is_idle);
    }
    // Two blocks each; the latest are there, though nothing is safe in a store.
    let stats = world.scheduler.stats();
    assert_eq!((stats.blocks_used, stats.blocks_evictable, stats.agents), (8, 0, 4));
    let latest: Vec<_> = world.scheduler.unsaved().collect();
    world.save(latest[2]);
    world.submit(9, 300, 5);
    world.step();
    // What is safe in the store went first.
    assert!(world.scheduler.head(latest[2]).expect("it is warm").blocks().is_empty());
    assert!(!world.scheduler.head(latest[0]).expect("it is hot").blocks().is_empty());
}

#[test]
fn an_agent_that_others_go_on_from_stays_longer() {
    let mut world = World::new(10, 4, false);
    for token in 1..=4 {
        world.submit(token, 300, 5);
        world.step_until(Scheduler::is_idle);
    }
    let heads: Vec<_> = world.scheduler.unsaved().collect();
    // Half of what the first agent has, in a block of its own.
    let fork = world.submit(1, 100, 5);
    world.scheduler.tickets.get_mut(&fork).expect("it waits").agent =
        AgentId::new("another").expect("a short name");
    world.step_until(Scheduler::is_idle);
    let latest: Vec<_> = world.scheduler.unsaved().collect();
    assert!(!latest.contains(&heads[1]), "the pool was too full for it");
    assert!(latest.contains(&heads[0]));
}

#[test]
fn a_merely_warm_pool_is_emptied_to_its_limit() {
    let mut world = World::new(20, 4, true);
    for token in 1..=10 {
        world.submit(token, 300, 5);
        world.step_until(Scheduler::is_idle);
    }
    world.step();
    assert_eq!(world.scheduler.stats().blocks_used, 20, "nothing is safe yet");
    let all: Vec<_> = world.scheduler.unsaved().collect();
    for head in &all {
        world.save(*head);
    }
    assert_eq!(world.scheduler.stats().blocks_evictable, 20);
    world.step();
    let most = 20 * admission::POOL_USE_PERCENT / 100;
    let used = world.scheduler.stats().blocks_used;
    assert!(used <= most);
    assert!(used + 2 > most);
    assert_eq!(world.scheduler.stats().agents, 10);
    assert!(world.scheduler.head(all[0]).expect("it is warm").blocks().is_empty());
    assert!(!world.scheduler.head(all[9]).expect("it is hot").blocks().is_empty());
}

/// A hint takes what is free below the limit, then what is safe on the disk of whoever gave it and of
/// those with more than their share, and nobody else's.
#[test]
fn a_hint_takes_no_more_than_its_own() {
    let mut world = World::new(20, 4, true);
    let warm = |world: &mut World, namespace: &str, token: u32| {
        let agent = AgentId::new(&format!("a{token}")).expect("a short name");
        world.scheduler.warm(&Namespace::new(namespace), &agent, world.now)
    };
    // Two blocks each: 12 of one namespace, all of them safe, and 4 of another.
    let of = |token: u32| if token <= 6 { "x" } else { "y" };
    for token in 1..=8 {
        world.submit_to(of(token), 1, token, 300, 5);
        world.step_until(Scheduler::is_idle);
    }
    assert_eq!(warm(&mut world, "x", 1), Warmth::Hot);
    let all: Vec<_> = world.scheduler.unsaved().collect();
    all.iter().for_each(|head| world.save(*head));
    assert_eq!(warm(&mut world, "x", 9), Warmth::Cold);
    for token in [3, 8] {
        let agent = AgentId::new(&format!("a{token}")).expect("a short name");
        world.scheduler.evict_agent(&Namespace::new(of(token)), &agent);
    }
    // 12 of 17 are used: two hints fit, and no third one without what another has.
    assert_eq!(warm(&mut world, "y", 8), Warmth::Warming);
    assert_eq!(warm(&mut world, "y", 8), Warmth::Warming);
    assert_eq!(warm(&mut world, "x", 3), Warmth::Warming);
    let stats = world.scheduler.stats();
    assert_eq!((stats.blocks_used, stats.blocks_evictable), (16, 16));
    world.scheduler.assert_consistent();
    // Who waits has none before it.
    world.submit_to("y", 1, 10, 2_000, 5);
    assert_eq!(warm(&mut world, "x", 3), Warmth::Warming);
    world.scheduler.evict_agent(&Namespace::new("x"), &AgentId::new("a4").expect("it is short"));
    assert_eq!(warm(&mut world, "x", 4), Warmth::NoRoom);
    // And takes their blocks before anybody's memory: what was asked for last goes first.
    let work = world.scheduler.admit(world.now);
    let restores = work.iter().filter(|work| matches!(work, Work::Restore(_))).count();
    assert_eq!(restores, world.scheduler.warming.len());
    assert!(restores < 2);
    world.scheduler.assert_consistent();
}

#[test]
fn who_generates_is_in_every_step_and_prompts_share_the_rest() {
    let mut world = World::new(64, 8, false);
    world.submit(1, 5, 500);
    world.step();
    world.submit(2, 3_000, 5);
    world.submit(3, 2_900, 5);
    for _ in 0..20 {
        let rows = world.step();
        assert!(rows.contains(&1));
        assert!(rows.contains(&2), "the oldest prompt proceeds");
    }
}

#[test]
fn others_go_on_while_one_waits_for_its_memory() {
    let mut world = World::new(16, 4, true);
    world.submit(1, 600, 5);
    world.step_until(Scheduler::is_idle);
    let head = world.scheduler.unsaved().next().expect("it was kept");
    world.save(head);
    world.scheduler.evict_idle();
    let other = world.submit(2, 5, 500);
    world.step();
    let returning = world.submit(1, 600, 5);
    let work = world.scheduler.admit(world.now);
    let [Work::Restore(restore)] = &work[..] else { panic!("{work:?}") };
    assert_eq!(restore.blocks.len(), 3);
    for _ in 0..3 {
        assert_eq!(world.step(), [other.0]);
    }
    // Somebody with the same prompt does not count on what is not there yet.
    let same = world.submit(1, 600, 5);
    let more = world.scheduler.admit(world.now);
    assert!(matches!(&more[..], [Work::Restore(restore)] if restore.blocks.len() == 3));
    world.scheduler.restored(restore, 2, world.now);
    assert_eq!(world.step(), [other.0, returning.0]);
    let items = world.scheduler.take_items();
    let admitted = items.iter().find_map(|(id, item)| match item {
        Ok(Event::Admitted(admitted)) if *id == returning => Some(admitted.clone()),
        _ => None,
    });
    // The third block did not come.
    assert_eq!(admitted.map(|admitted| admitted.cached_tokens), Some(512));
    world.scheduler.cancel(same, world.now);
    assert!(!world.scheduler.awaits(match &more[0] {
        Work::Restore(restore) => restore,
        Work::Copy(_) => unreachable!("it is a restore"),
    }));
}

/// The guess of what a step costs leaves time for a few tokens in a short one.
#[test]
fn a_neighbours_short_prompt_does_not_share_its_steps_with_a_long_one() {
    let mut world = World::new(64, 8, false);
    let long = world.submit_to("noisy", 1, 1, 3_000, 5).0;
    assert_eq!(world.step(), [long]);
    let short = world.submit_to("quiet", 1, 2, 6, 50).0;
    assert_eq!(world.step(), [short], "it has all of the next step");
    assert_eq!(world.step(), [short, long], "it generates");
    let other = world.submit_to("quiet", 1, 3, 100, 5).0;
    let steps: Vec<_> = (0..8).map(|_| world.step()).collect();
    let is_read = |request: u64| -> Vec<bool> {
        steps.iter().map(|requests| requests.contains(&request)).collect()
    };
    let passed = [true, true, true, false, true, true, true, false];
    assert_eq!(is_read(other), passed);
    assert_eq!(is_read(long), passed.map(|is_passed| !is_passed));
    assert_eq!(is_read(short), [true; 8]);
}

#[test]
fn steps_are_short_until_the_neighbour_has_been_away_for_a_minute() {
    let mut world = World::new(64, 8, false);
    let chunk = |world: &mut World| {
        world.scheduler.admit(world.now);
        let rows = world.scheduler.rows();
        world.step();
        rows.iter().map(|row| row.end - row.start).max()
    };
    world.submit_to("alone", 1, 1, 4_000, 5);
    assert_eq!(chunk(&mut world), Some(BLOCK_TOKENS), "there is nobody else");
    world.submit_to("alone", 1, 2, 10, 5);
    assert_eq!(world.step(), [2, 1], "who is alone shares every step");
    let neighbour = world.submit_to("neighbour", 1, 3, 10, 5);
    world.step_until(|scheduler| !scheduler.knows(neighbour));
    let short = chunk(&mut world);
    assert!(short.is_some_and(|tokens| tokens < 20), "{short:?}");
    world.now += tenants::TENANT_TIME - Duration::from_millis(1);
    assert_eq!(chunk(&mut world), short);
    world.now += Duration::from_millis(1);
    assert_eq!(chunk(&mut world), Some(BLOCK_TOKENS));
}

/// What was cached cost as much as what was computed, and who has a long conversation was behind
/// everybody's short requests after each of its turns.
#[test]
fn a_turn_costs_what_is_new_of_it() {
    let mut world = World::new(64, 1, false);
    world.submit_to("talk", 1, 1, 2_000, 5);
    world.step_until(Scheduler::is_idle);
    let flood: Vec<_> = (0..6).map(|_| world.submit_to("flood", 1, 2, 100, 5)).collect();
    for (tokens, behind) in [(2_020, flood[1]), (2_040, flood[2])] {
        let talk = world.submit_to("talk", 1, 1, tokens, 5);
        world.step_until(|scheduler| !scheduler.knows(talk));
        assert!(world.scheduler.knows(behind), "{tokens}");
    }
}

/// The neighbour is ahead of its share, so that the flood's request is next; but that one waits for
/// room that only the flood itself will make.
#[test]
fn who_waits_for_its_own_namespace_does_not_keep_a_neighbour_waiting() {
    let mut world = World::new(16, 8, false);
    world.submit_to("quiet", 1, 1, 300, 5);
    world.step_until(Scheduler::is_idle);
    let prompt_tokens = 4 * BLOCK_TOKENS;
    let flood: Vec<_> =
        (2..5).map(|token| world.submit_to("noisy", 1, token, prompt_tokens, 5)).collect();
    let dear = world.submit_to("quiet", 1, 1, 310, 3_000);
    world.step();
    assert_eq!(world.running(), [flood[0].0, dear.0, flood[1].0]);
    world.scheduler.cancel(dear, world.now);
    let turn = world.submit_to("quiet", 1, 1, 320, 5);
    world.step();
    assert_eq!(world.running(), [flood[0].0, flood[1].0, turn.0]);
    world.step_until(Scheduler::is_idle);
    assert_eq!(world.scheduler.finished_requests(), 6);
}

/// What the store had of the neighbour went first, as nothing is lost by that.
#[test]
fn a_reply_that_outgrows_its_namespaces_share_takes_that_namespaces_memory() {
    let mut world = World::new(16, 8, true);
    world.submit_to("quiet", 1, 1, 300, 5);
    world.step_until(Scheduler::is_idle);
    let quiet = world.scheduler.unsaved().next().expect("it was kept");
    world.save(quiet);
    world.submit_to("noisy", 1, 2, 600, 5);
    world.step_until(Scheduler::is_idle);
    let noisy = world.scheduler.unsaved().next().expect("it was kept");
    world.submit_to("noisy", 1, 3, 1_300, 2_000);
    world.step_until(|scheduler| scheduler.evictions() > 0);
    assert!(world.scheduler.head(noisy).is_none(), "it was nowhere else");
    assert!(world.scheduler.head(quiet).is_some_and(Head::is_hot));
}

#[test]
fn without_a_line_whoever_finds_a_place_is_served_and_nobody_waits() {
    let mut world = World::new(64, 3, false);
    world.scheduler.waiting = Queue::new(0);
    world.submit_choices(2, 1, 10, 5);
    let one = world.submit(2, 10, 50);
    for _ in 0..2 {
        let refused = world.scheduler.submit(world.request("local", 1, 3, 10, 5), world.now);
        assert_eq!(
            refused.err(),
            Some(Error::QueueFull { waiting: world.scheduler.waiting.len() })
        );
        world.step();
    }
    world.scheduler.cancel(one, world.now);
    world.submit(3, 10, 5);
    world.step_until(Scheduler::is_idle);
}
