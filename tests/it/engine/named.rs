//! Agents by their names: told, put on the disk, copied, forgotten.

use std::future::Future;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use semantic::engine::{
    AgentError, AgentPage, AgentState, Config, Engine, Error, Evicted, Page, Past, Recalled,
    Request, RetentionChange, Source, Tier,
};
use semantic::model::Model;
use semantic::model::fake::{Fake, FakeConfig, Memory};
use semantic::store::Settings;
use semantic::text::{Piece, Prompt, Said};
use semantic::types::{AgentId, Generation, Namespace, TokenId};

use crate::support::engine::{Served, Setup, block_on, prompt, read, request, request_of, serve};
use crate::support::http::wait_until;
use crate::support::store::{Failing, ShakyDisk, keeping, lines};
use crate::support::text::byte_level_tokenizer;

fn with_store() -> (Served, ShakyDisk) {
    let disk = ShakyDisk::default();
    (on(&disk), disk)
}

/// A process that starts on this disk.
fn on(disk: &ShakyDisk) -> Served {
    serve(Setup { disk: Some(disk.clone()), ..Setup::default() })
}

fn id(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

fn local() -> Namespace {
    Namespace::local()
}

/// An agent's conversation after one turn.
fn said(served: &Served, agent: &str, seed: u32, tokens: usize) -> Vec<TokenId> {
    let tokens = prompt(seed, tokens);
    let answer = served.ask(request_of(agent, &tokens));
    [tokens.as_slice(), answer.reply()].concat()
}

/// Where the agent's next turn finds what it has.
fn source(served: &Served, agent: &str, history: &[TokenId]) -> Source {
    let tokens = [history, &prompt(40, 30)].concat();
    served.ask(request_of(agent, &tokens)).admitted().source
}

fn agent(served: &Served, name: &str) -> Option<AgentState> {
    block_on(served.engine.agent(&local(), &id(name))).unwrap()
}

/// All of them.
const ALL: Page = Page { limit: 100, after: None };

fn names(served: &Served) -> Vec<String> {
    let page = block_on(served.engine.agents(&local(), &ALL)).unwrap();
    page.agents.into_iter().map(|state| state.agent.to_string()).collect()
}

fn evict(served: &Served, name: &str) -> Result<Evicted, AgentError> {
    block_on(served.engine.evict(&local(), &id(name)))
}

fn forget(served: &Served, name: &str) -> Result<(), AgentError> {
    block_on(served.engine.forget(&local(), &id(name)))
}

fn fork(served: &Served, from: &str, to: &str) -> Result<(), AgentError> {
    block_on(served.engine.fork(&local(), &id(from), &id(to)))
}

fn rollback(served: &Served, name: &str, to: Option<u64>) -> Result<(), AgentError> {
    block_on(served.engine.rollback(&local(), &id(name), to.map(Generation)))
}

fn past(served: &Served, name: &str) -> Vec<TokenId> {
    recall(served, name).past.expect("it has spoken").tokens.to_vec()
}

fn recall(served: &Served, name: &str) -> Recalled {
    block_on(served.engine.recall(&local(), &id(name))).unwrap()
}

/// What comes of it while a request runs before whose step the model waits.
fn meanwhile<T>(served: &Served, asked: impl Future<Output = T>) -> T {
    // The first is asked before the second is looked at.
    block_on(async { tokio::join!(asked, async { served.model.open() }).0 })
}

#[test]
fn an_agent_is_told_from_its_first_turn_on_wherever_its_memory_is() {
    let (served, disk) = with_store();
    assert_eq!(agent(&served, "a"), None);
    let mut stream = served.ask_and_hold([request_of("a", &prompt(1, 300))]).pop().unwrap();
    let (space, name) = (local(), id("a"));
    let state = meanwhile(&served, served.engine.agent(&space, &name)).unwrap();
    let state = state.expect("it is there");
    assert_eq!((state.requests, state.heads.len(), state.used), (1, 0, None));
    read(&mut stream);
    let state = agent(&served, "a").expect("it is there");
    let head = &state.heads[0];
    assert_eq!((head.tier, head.tokens, head.replies, head.is_saved), (Tier::Hot, 308, 1, true));
    assert!(state.used.is_some());
    let stored = state.stored.expect("it is on disk");
    assert_eq!((stored.tokens, stored.saves, stored.is_usable), (308, 1, true));
    assert_eq!(head.generation, Some(stored.generation));
    assert!(stored.bytes > 0);
    served.end();
    let served = on(&disk);
    assert_eq!(agent(&served, "a").unwrap().heads[0].tier, Tier::Warm);
    said(&served, "B", 2, 10);
    said(&served, "Ä", 3, 10);
    assert_eq!(names(&served), ["B", "a", "Ä"]);
}

#[test]
fn one_agent_goes_to_the_disk_and_the_others_stay() {
    let (served, _disk) = with_store();
    let first = said(&served, "a", 1, 300);
    let other = said(&served, "b", 2, 300);
    assert_eq!(evict(&served, "a"), Ok(Evicted { saved: 1, failed: 0, forgotten: 0 }));
    assert_eq!(served.engine.stats().blocks_used, 2);
    assert_eq!(agent(&served, "a").unwrap().heads[0].tier, Tier::Warm);
    // Again there is nothing to do.
    assert_eq!(evict(&served, "a"), Ok(Evicted::default()));
    assert_eq!(source(&served, "b", &other), Source::Hot);
    assert_eq!(source(&served, "a", &first), Source::Warm);
    assert_eq!(evict(&served, "c"), Err(AgentError::NotFound(id("c"))));
}

#[test]
fn what_the_disk_does_not_take_stays_in_the_pool_until_it_does() {
    let (served, disk) = with_store();
    disk.set_failing(Failing::Writes);
    let history = said(&served, "a", 1, 300);
    assert_eq!(evict(&served, "a"), Ok(Evicted { saved: 0, failed: 1, forgotten: 0 }));
    assert_eq!(fork(&served, "a", "b"), Err(AgentError::NotSaved(id("a"))));
    assert_eq!(agent(&served, "a").unwrap().heads[0].tier, Tier::Hot);
    disk.set_failing(Failing::Nothing);
    // What has just failed is not copied out again for everybody who asks, but sooner than by itself.
    let saved = Ok(Evicted { saved: 1, failed: 0, forgotten: 0 });
    wait_until("it is tried again", || evict(&served, "a") == saved);
    assert_eq!(source(&served, "a", &history), Source::Warm);
}

/// The disk has all of it, so the engine goes on from there.
#[test]
fn an_agent_that_the_disk_did_not_remove_is_still_there() {
    let (served, disk) = with_store();
    let history = said(&served, "a", 1, 300);
    disk.set_failing(Failing::Removals);
    assert_eq!(forget(&served, "a"), Err(AgentError::Disk));
    assert_eq!(agent(&served, "a").unwrap().heads[0].tier, Tier::Warm);
    assert_eq!(names(&served), ["a"]);
    assert_eq!(source(&served, "a", &history), Source::Warm);
    disk.set_failing(Failing::Nothing);
    assert_eq!(forget(&served, "a"), Ok(()));
    assert_eq!(names(&served), [""; 0]);
}

#[test]
fn an_agent_that_is_forgotten_is_nowhere_any_more() {
    let (served, disk) = with_store();
    let history = said(&served, "a", 1, 300);
    said(&served, "b", 2, 300);
    assert_eq!(forget(&served, "a"), Ok(()));
    assert_eq!(served.engine.stats().blocks_used, 2);
    assert_eq!(agent(&served, "a"), None);
    assert_eq!(names(&served), ["b"]);
    assert_eq!(lines(served.store()).len(), 1);
    assert_eq!(forget(&served, "a"), Err(AgentError::NotFound(id("a"))));
    assert_eq!(source(&served, "c", &history), Source::Cold);
    served.end();
    let served = on(&disk);
    assert_eq!(names(&served), ["b", "c"]);
    // From the disk only, too.
    assert_eq!(forget(&served, "b"), Ok(()));
    assert_eq!(names(&served), ["c"]);
}

#[test]
fn an_agent_that_was_forgotten_begins_anew_and_stays() {
    let (served, disk) = with_store();
    for _ in 0..3 {
        said(&served, "a", 1, 300);
        assert_eq!(forget(&served, "a"), Ok(()));
        assert_eq!(agent(&served, "a"), None);
    }
    let history = said(&served, "a", 1, 300);
    served.end();
    let served = on(&disk);
    assert_eq!(source(&served, "a", &history), Source::Warm);
}

/// The end of its turn would bring it back.
#[test]
fn an_agent_with_a_turn_under_way_is_not_forgotten() {
    let (served, _disk) = with_store();
    let history = said(&served, "a", 1, 300);
    let mut stream = served.ask_and_hold([request_of("a", &history)]).pop().unwrap();
    let (space, name) = (local(), id("a"));
    let forgotten = meanwhile(&served, served.engine.forget(&space, &name));
    assert_eq!(forgotten, Err(AgentError::Busy(id("a"))));
    read(&mut stream);
    assert_eq!(forget(&served, "a"), Ok(()));
    assert_eq!(served.engine.stats().blocks_used, 0);
}

#[test]
fn a_copy_goes_its_own_way_and_outlives_its_original() {
    let (served, disk) = with_store();
    let history = said(&served, "a", 1, 300);
    assert_eq!(fork(&served, "a", "b"), Ok(()));
    assert_eq!(fork(&served, "a", "b"), Err(AgentError::Exists(id("b"))));
    assert_eq!(fork(&served, "a", "a"), Err(AgentError::Exists(id("a"))));
    assert_eq!(fork(&served, "x", "y"), Err(AgentError::NotFound(id("x"))));
    let state = agent(&served, "b").expect("it is there");
    assert_eq!((state.heads[0].tokens, state.heads[0].is_saved), (308, true));
    // It shares the blocks of its original as long as they are in the pool.
    assert_eq!(source(&served, "b", &history), Source::Hot);
    assert_eq!(agent(&served, "a").unwrap().heads[0].tokens, 308);
    assert_eq!(agent(&served, "b").unwrap().heads[0].tokens, 346);
    assert_eq!(forget(&served, "a"), Ok(()));
    served.end();
    let served = on(&disk);
    assert_eq!(names(&served), ["b"]);
    assert_eq!(source(&served, "b", &history), Source::Warm);
}

#[test]
fn a_copy_of_a_running_agent_has_all_turns_that_have_ended() {
    let (served, _disk) = with_store();
    let (space, from, to) = (local(), id("a"), id("b"));
    let mut first = served.ask_and_hold([request_of("a", &prompt(1, 300))]).pop().unwrap();
    let forked = meanwhile(&served, served.engine.fork(&space, &from, &to));
    assert_eq!(forked, Err(AgentError::Busy(id("a"))));
    let answer = read(&mut first);
    let history = [&prompt(1, 300), answer.reply()].concat();
    served.model.forget();
    let next = [history.as_slice(), &prompt(2, 300)].concat();
    let mut second = served.ask_and_hold([request_of("a", &next)]).pop().unwrap();
    assert_eq!(meanwhile(&served, served.engine.fork(&space, &from, &to)), Ok(()));
    read(&mut second);
    assert_eq!(agent(&served, "b").unwrap().heads[0].tokens, history.len());
}

#[test]
fn without_a_store_an_agent_is_forgotten_and_copied_in_the_pool() {
    let served = serve(Setup::default());
    let history = said(&served, "a", 1, 300);
    assert_eq!(evict(&served, "a"), Err(AgentError::NothingKept));
    assert_eq!(fork(&served, "a", "b"), Ok(()));
    assert_eq!(served.engine.stats().blocks_used, 2);
    assert_eq!(forget(&served, "a"), Ok(()));
    assert_eq!(names(&served), ["b"]);
    assert_eq!(source(&served, "b", &history), Source::Hot);
    assert_eq!(forget(&served, "b"), Ok(()));
    assert_eq!(served.engine.stats().blocks_used, 0);
}

#[test]
fn another_namespace_has_none_of_it() {
    let (served, _disk) = with_store();
    let history = said(&served, "a", 1, 300);
    let other = Namespace::new("other");
    let engine = &served.engine;
    assert_eq!(block_on(engine.agent(&other, &id("a"))), Ok(None));
    let nobody = AgentPage { agents: Vec::new(), total: 0, has_more: false };
    assert_eq!(block_on(engine.agents(&other, &ALL)), Ok(nobody));
    assert_eq!(block_on(engine.recall(&other, &id("a"))).map(|recalled| recalled.past), Ok(None));
    let not_found = || AgentError::NotFound(id("a"));
    assert_eq!(block_on(engine.evict(&other, &id("a"))), Err(not_found()));
    assert_eq!(block_on(engine.forget(&other, &id("a"))), Err(not_found()));
    assert_eq!(block_on(engine.fork(&other, &id("a"), &id("b"))), Err(not_found()));
    assert_eq!(source(&served, "a", &history), Source::Hot);
}

#[test]
fn the_past_of_an_agent_is_its_newest_conversation_wherever_that_is() {
    let (served, disk) = with_store();
    let past = |served: &Served| recall(served, "a").past;
    assert_eq!(past(&served), None);
    said(&served, "a", 1, 300);
    let newest = said(&served, "a", 2, 20);
    let found = past(&served).expect("it has one");
    assert_eq!(&*found.tokens, &newest[..]);
    assert_eq!((found.replies.len(), &found.replies[0]), (1, &(20..28)));
    served.end();
    let served = on(&disk);
    assert_eq!(past(&served).as_ref(), Some(&found));
    // A request without a name changes nothing of it.
    served.ask(request(&newest));
    assert_eq!(past(&served), Some(found));
}

/// Both went on from what it goes back to, and each has all of that.
#[test]
fn an_agent_goes_back_to_before_two_conversations() {
    let (served, disk) = with_store();
    let first = said(&served, "a", 1, 300);
    let generation = |served: &Served| agent(served, "a").unwrap().stored.unwrap().generation.0;
    let begun = generation(&served);
    let go_on = |served: &Served, seed: u32| {
        let tokens = [first.as_slice(), &prompt(seed, 20)].concat();
        [tokens.as_slice(), served.ask(request_of("a", &tokens)).reply()].concat()
    };
    let (second, third) = (go_on(&served, 2), go_on(&served, 3));
    assert_eq!(past(&served, "a"), third);
    let after_third = generation(&served);
    assert_eq!(rollback(&served, "a", Some(begun)), Ok(()));
    assert_eq!(past(&served, "a"), first);
    assert!(generation(&served) > after_third);
    served.end();
    let served = on(&disk);
    assert_eq!(past(&served, "a"), first);
    // What was undone is there to go forward to.
    assert_eq!(rollback(&served, "a", Some(after_third)), Ok(()));
    assert_eq!(past(&served, "a"), third);
    assert_eq!(source(&served, "a", &second), Source::Warm);
    let absent = AgentError::NoSave { agent: id("a"), generation: Some(Generation(99)) };
    assert_eq!(rollback(&served, "a", Some(99)), Err(absent));
    assert_eq!(rollback(&served, "b", None), Err(AgentError::NotFound(id("b"))));
}

/// Its end would be newer than what the agent goes back to, and part of neither.
#[test]
fn no_turn_begins_while_an_agent_goes_back() {
    let (served, disk) = with_store();
    let first = said(&served, "a", 1, 300);
    let second = [first.as_slice(), &prompt(2, 20)].concat();
    served.ask(request_of("a", &second));
    disk.set_failing(Failing::Hangs);
    let (back, (turn, mut other)) = block_on(async {
        let begun = async {
            let mut turn = served.engine.submit(request_of("a", &second));
            let refused = turn.next().await;
            let other = served.engine.submit(request_of("b", &second));
            disk.set_failing(Failing::Nothing);
            (refused, other)
        };
        // The first is asked before the second.
        let (local, agent) = (local(), id("a"));
        tokio::join!(served.engine.rollback(&local, &agent, None), begun)
    });
    assert_eq!(back, Ok(()));
    assert_eq!(turn.map(|item| item.err()), Some(Some(Error::AgentBusy(id("a")))));
    assert_eq!(read(&mut other).outcome().choices.len(), 1);
    assert_eq!(past(&served, "a"), first);
    // Nor does it go back while a turn is under way.
    let turn = Request { max_tokens: Some(200), ..request_of("a", &first) };
    let stream = served.engine.submit(turn);
    assert_eq!(rollback(&served, "a", None), Err(AgentError::Busy(id("a"))));
    drop(stream);
}

fn retain(served: &Served, name: &str, change: RetentionChange) -> Result<(), AgentError> {
    block_on(served.engine.retain(&local(), &id(name), change))
}

/// Answers tell the names of agents that nobody named, and so which ones come next.
#[test]
fn a_turn_of_an_agent_that_nobody_names_does_not_meet_one_that_goes_back() {
    let (served, disk) = with_store();
    let first = served.ask(request(&prompt(1, 300)));
    let name = first.admitted().agent.as_str().to_owned();
    let (before, number) = name.rsplit_once('-').unwrap();
    let number: u64 = number.parse().unwrap();
    // The third request from here: this one's own two turns come first.
    let next = format!("{before}-{}", number + 3);
    let turn = said(&served, &next, 2, 300);
    said_after(&served, &next, &turn);
    disk.set_failing(Failing::Hangs);
    let (back, unnamed) = block_on(async {
        let begun = async {
            let mut stream = served.engine.submit(request(&prompt(5, 30)));
            let item = stream.next().await;
            disk.set_failing(Failing::Nothing);
            (stream, item)
        };
        let (local, agent) = (local(), id(&next));
        tokio::join!(served.engine.rollback(&local, &agent, None), begun)
    });
    assert_eq!(back, Ok(()));
    let refused = unnamed.1.map(|item| item.err());
    assert_eq!(refused, Some(Some(Error::AgentBusy(id(&next)))));
    assert_eq!(past(&served, &next), turn);
}

fn said_after(served: &Served, agent: &str, before: &[TokenId]) {
    served.ask(request_of(agent, &[before, &prompt(30, 10)].concat()));
}

#[test]
fn a_turn_of_which_nothing_is_new_prolongs_an_agents_time() {
    let (served, disk) = with_store();
    let turn = request_of("a", &prompt(1, 300));
    served.ask(turn.clone());
    let day = RetentionChange { is_pinned: None, ttl: Some(Some(Duration::from_secs(86_400))) };
    assert_eq!(retain(&served, "a", day), Ok(()));
    served.end();
    let almost = || SystemTime::now() + Duration::from_secs(86_000);
    let served = serve(Setup { disk: Some(disk.clone()), now: almost, ..Setup::default() });
    served.ask(turn);
    let later = SystemTime::now() + Duration::from_secs(86_000 + 80_000);
    let expires_at = || agent(&served, "a").unwrap().stored.unwrap().expires_at;
    wait_until("it is prolonged", || expires_at() > Some(later));
}

#[test]
fn an_agent_goes_when_its_time_is_over_and_not_before() {
    let (served, disk) = with_store();
    let kept = said(&served, "b", 2, 300);
    said(&served, "a", 1, 300);
    let day = RetentionChange { is_pinned: None, ttl: Some(Some(Duration::from_secs(86_400))) };
    assert_eq!(retain(&served, "a", day), Ok(()));
    assert_eq!(retain(&served, "nobody", day), Err(AgentError::NotFound(id("nobody"))));
    let stored = agent(&served, "a").unwrap().stored.unwrap();
    assert_eq!(stored.retention.ttl, Some(Duration::from_secs(86_400)));
    assert!(stored.expires_at > Some(stored.saved_at));
    served.end();
    // Its time is not over at the next start; two days later it is.
    let served = on(&disk);
    assert_eq!(source(&served, "b", &kept), Source::Warm);
    assert_eq!(names(&served), ["a", "b"]);
    served.end();
    let later = || SystemTime::now() + Duration::from_secs(2 * 86_400);
    let served = serve(Setup { disk: Some(disk.clone()), now: later, ..Setup::default() });
    wait_until("it is gone", || names(&served) == ["b"]);
    assert_eq!(recall(&served, "a").past, None);
    assert!(!served.store().has_agent(&local(), &id("a")));
    // One of its name begins anew.
    said(&served, "a", 3, 20);
    assert_eq!(agent(&served, "a").unwrap().stored.unwrap().expires_at, None);
}

/// Whoever keeps something else of an agent lets go of it, too.
#[test]
fn who_listens_hears_of_agents_whose_time_was_over() {
    let (served, disk) = with_store();
    ["a", "b"].iter().zip(1..).for_each(|(agent, seed)| drop(said(&served, agent, seed, 30)));
    let day = RetentionChange { is_pinned: None, ttl: Some(Some(Duration::from_secs(86_400))) };
    assert_eq!(retain(&served, "a", day), Ok(()));
    served.end();
    let now = || SystemTime::now() + Duration::from_secs(2 * 86_400);
    let store = disk.open_with(Settings { now, ..Settings::default() });
    let (gate, gated) = mpsc::channel::<()>();
    let memory = Memory::Tokens;
    let fake = FakeConfig { vocabulary: 64, context_tokens: 2_048, pool_blocks: 8, memory };
    let load = move || {
        // Until the gate is gone.
        let _ = gated.recv();
        Ok(Box::new(Fake::new(fake)) as Box<dyn Model>)
    };
    let kept = Some(keeping(store));
    let engine = Engine::start(Config::default(), byte_level_tokenizer(), kept, load);
    let (sender, expired) = mpsc::channel();
    engine.on_expired(move |namespace, agent| {
        drop(sender.send((namespace.clone(), agent.clone())));
    });
    drop(gate);
    assert_eq!(expired.recv_timeout(Duration::from_secs(60)), Ok((local(), id("a"))));
    engine.shutdown();
    assert!(expired.try_recv().is_err());
}

/// What the disk does not take is the newest that there is.
#[test]
fn an_agent_does_not_go_back_from_what_is_not_safe() {
    let (served, disk) = with_store();
    let first = said(&served, "a", 1, 300);
    disk.set_failing(Failing::Writes);
    let second = [first.as_slice(), &prompt(2, 20)].concat();
    let second = [second.as_slice(), served.ask(request_of("a", &second)).reply()].concat();
    assert_eq!(rollback(&served, "a", Some(1)), Err(AgentError::NotSaved(id("a"))));
    assert_eq!(past(&served, "a"), second);
    disk.set_failing(Failing::Nothing);
}

/// It would bring back what is gone for good.
#[test]
fn a_turn_does_not_go_on_from_what_was_forgotten_since() {
    let (served, _disk) = with_store();
    let history = said(&served, "a", 1, 300);
    let Recalled { past, mark } = recall(&served, "a");
    assert_eq!(&*past.expect("it has spoken").tokens, &history[..]);
    assert_eq!(forget(&served, "a"), Ok(()));
    let busy = Error::AgentBusy(id("a"));
    let again = read(&mut served.engine.submit_after(mark.clone(), request_of("a", &history)));
    assert_eq!(again.error(), &busy);
    assert_eq!(agent(&served, "a"), None);
    // Nor from what is another's of the same name.
    said(&served, "a", 1, 300);
    let again = read(&mut served.engine.submit_after(mark, request_of("a", &history)));
    assert_eq!(again.error(), &busy);
    let mark = recall(&served, "a").mark;
    let next = read(&mut served.engine.submit_after(mark, request_of("a", &history)));
    assert_eq!(next.admitted().source, Source::Hot);
}

/// Both would be answered, and the agent would know of one only.
#[test]
fn of_two_turns_that_go_on_from_the_same_one_is_refused() {
    for history in [Vec::new(), vec![TokenId(4); 300]] {
        let (served, _disk) = with_store();
        if !history.is_empty() {
            served.ask(request_of("a", &history));
        }
        let marks = [recall(&served, "a").mark, recall(&served, "a").mark];
        let tokens = [history.as_slice(), &prompt(2, 20)].concat();
        let answers = marks.map(|mark| served.engine.submit_after(mark, request_of("a", &tokens)));
        let [first, second] = answers.map(|mut stream| read(&mut stream));
        assert_eq!(first.outcome().choices.len(), 1);
        assert_eq!(second.error(), &Error::AgentBusy(id("a")));
        // One that comes later, too.
        let old = recall(&served, "a").mark;
        said(&served, "a", 3, 10);
        let late = read(&mut served.engine.submit_after(old, request_of("a", &tokens)));
        assert_eq!(late.error(), &Error::AgentBusy(id("a")));
    }
}

/// A prompt with an earlier reply in it whose client leaves before all of it is computed.
fn cut(served: &Served, before: &[TokenId], reply: &[TokenId]) {
    let pieces = vec![
        Piece::Tokens(before.to_vec()),
        Piece::Reply(Said::as_list(reply.into())),
        Piece::Tokens(prompt(50, 900)),
    ];
    served.model.forget();
    let request = Request { prompt: Prompt::new(pieces), ..request_of("a", before) };
    drop(served.ask_and_hold([request]));
    served.model.open();
    while agent(served, "a").is_none_or(|state| state.requests > 0) {
        std::thread::yield_now();
    }
}

/// Who asks with a long text and leaves takes nothing of the conversation along.
#[test]
fn an_agent_remembers_what_it_said_after_a_prompt_that_was_cut() {
    let (served, disk) = with_store();
    let history = said(&served, "a", 1, 300);
    let past = |served: &Served| recall(served, "a").past;
    let conversation = past(&served).expect("it has spoken");
    // Its reply is behind what was computed, or before that.
    for (number, before) in [(2, 700), (3, 100)] {
        cut(&served, &prompt(number, before), &prompt(4, 9));
        assert_eq!(past(&served), Some(conversation.clone()));
    }
    assert_eq!(agent(&served, "a").unwrap().heads.len(), 3);
    evict(&served, "a").unwrap();
    served.end();
    // Nothing on disk is taken for damaged.
    let served = on(&disk);
    assert_eq!(served.store().usage().unwrap().quarantine_files, 0);
    assert_eq!(agent(&served, "a").unwrap().heads.len(), 3);
    assert_eq!(past(&served), Some(conversation));
    let Past { tokens, .. } = past(&served).unwrap();
    cut(&served, &tokens[..300], &tokens[300..]);
    // One that goes on from it has it.
    assert_eq!(past(&served).expect("it has spoken").replies.first(), Some(&(300..308)));
    assert_eq!(source(&served, "a", &history), Source::Hot);
}

/// However many want to know: each takes the names, and then a page of them, on the thread that makes
/// the tokens.
#[test]
fn between_two_steps_one_list_takes_one_look() {
    let served = serve(Setup::default());
    said(&served, "a", 1, 10);
    served.model.forget();
    let long = Request { max_tokens: Some(40), ..request_of("b", &prompt(2, 10)) };
    let mut streams = served.ask_and_hold([long]);
    block_on(async {
        let list = || {
            let engine = served.engine.clone();
            tokio::spawn(async move { engine.agents(&local(), &ALL).await.unwrap().total })
        };
        let lists = [list(), list(), list()];
        for (step, told) in [(3, 0), (4, 1), (5, 1), (6, 2), (7, 2), (8, 3)] {
            // They ask, the engine answers before its next step, and they hear it.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            served.model.let_through(1);
            served.model.wait_for_step(step);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(lists.iter().filter(|list| list.is_finished()).count(), told);
        }
    });
    served.model.open();
    read(&mut streams[0]);
}

/// A question that has to wait would keep a thread that others need.
#[test]
fn a_question_is_refused_while_too_many_wait() {
    let served = serve(Setup::default());
    let long = Request { max_tokens: Some(40), ..request_of("b", &prompt(2, 10)) };
    let mut streams = served.ask_and_hold([long]);
    block_on(async {
        let ask = || {
            let engine = served.engine.clone();
            tokio::spawn(async move { engine.agent(&local(), &id("b")).await })
        };
        let all: Vec<_> = (0..5_000).map(|_| ask()).collect();
        // Not all of them run between two looks at the clock.
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        served.model.open();
        let mut refused = 0;
        for asked in all {
            match asked.await.unwrap() {
                Ok(state) => assert!(state.is_some()),
                Err(error) => {
                    let full = Error::QueueFull { waiting: 4_096 };
                    assert_eq!(error, AgentError::Engine(full));
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 5_000 - 4_096);
    });
    read(&mut streams[0]);
}
