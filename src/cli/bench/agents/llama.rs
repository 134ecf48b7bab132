//! llama.cpp's server in the race, with a client that knows how to save and restore its slots.
//!
//! The slots are as many as the memory allows. Whose turn it is gets the slot that it has, else the
//! one that was not used for the longest time, with what was saved of it brought back.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value as Json, json};

use super::client::{Answered, Asked, Client};
use super::plan::Sizes;
use super::process::{Process, free_port};
use super::race::{Contender, Room};
use crate::cli::bench::peer::CONTEXT_MULTIPLE;
use crate::cli::bench::peer_server::PeerProgram;
use crate::cli::bench::scratch::{self, Scratch};
use crate::cli::bench::setup::Setup;
use crate::cli::output::Failure;

/// When the client saves a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// After each turn, so that a kill loses nothing.
    Turn,
    /// When another agent takes it: fewer saves, but a kill loses what is in the slots.
    Switch,
}

/// What it runs under.
pub struct Terms<'a> {
    pub sizes: &'a Sizes,
    pub room: Room,
    pub saving: Saving,
}

pub struct Llama<'a> {
    setup: &'a Setup<'a>,
    program: &'a PeerProgram,
    saving: Saving,
    folder: PathBuf,
    log: PathBuf,
    /// Of each slot.
    context: usize,
    slots: Vec<Option<Occupant>>,
    /// Agents of which a slot was saved, the first of them first.
    saved: Vec<usize>,
    /// Counts what was asked.
    asked: usize,
    process: Option<Process>,
}

/// Whose conversation is in a slot.
#[derive(Clone, Copy)]
struct Occupant {
    agent: usize,
    is_saved: bool,
    /// When it was asked last.
    used: usize,
}

impl<'a> Llama<'a> {
    pub fn new(
        setup: &'a Setup<'_>,
        scratch: &Scratch,
        program: &'a PeerProgram,
        Terms { sizes, room, saving }: Terms<'_>,
    ) -> Result<Llama<'a>, Failure> {
        let name = format!("llama-{saving:?}-{room:?}");
        let folder = scratch.path(&name);
        std::fs::create_dir_all(&folder)?;
        Ok(Llama {
            setup,
            program,
            saving,
            log: scratch.path(&format!("{name}.log")),
            folder,
            context: (sizes.most_tokens() + 1).next_multiple_of(CONTEXT_MULTIPLE),
            slots: vec![None; room.agents(sizes)],
            saved: Vec::new(),
            asked: 0,
            process: None,
        })
    }

    fn flags(&self) -> String {
        let (slots, threads) = (self.slots.len(), self.setup.threads());
        let context = slots * self.context;
        // Without the cache in memory beside the slots: that would be KV memory, too.
        format!("-c {context} -np {slots} -t {threads} -fa on --cache-ram 0 --jinja")
    }

    fn client(&self) -> Result<&Client, Failure> {
        Ok(self.process.as_ref().context("llama-server does not run")?.client())
    }

    /// The slot that has the agent, or what can be brought back of it.
    fn slot(&mut self, agent: usize) -> Result<usize, Failure> {
        let has = |slot: &Option<Occupant>| slot.is_some_and(|it| it.agent == agent);
        if let Some(slot) = self.slots.iter().position(has) {
            return Ok(slot);
        }
        let slots = self.slots.iter().enumerate();
        let oldest = slots.min_by_key(|(_, slot)| slot.map_or(0, |it| it.used));
        let (slot, occupant) = oldest.map(|(slot, it)| (slot, *it)).context("there is no slot")?;
        if let Some(occupant) = occupant {
            self.save(slot, occupant)?;
        }
        if self.saved.contains(&agent) {
            self.act(slot, "restore", agent)?;
        } else if occupant.is_none() {
            self.share(slot)?;
        }
        Ok(slot)
    }

    /// What all agents have in common is there to go on from once one of them is: a slot that had
    /// another agent has it, an empty one gets it.
    fn share(&mut self, slot: usize) -> Result<(), Failure> {
        let other = self.slots.iter().position(Option::is_some);
        if self.saved.is_empty()
            && let Some(other) = other
            && let Some(occupant) = self.slots[other]
        {
            self.save(other, occupant)?;
        }
        match self.saved.first() {
            Some(&agent) => self.act(slot, "restore", agent),
            None => Ok(()),
        }
    }

    fn save(&mut self, slot: usize, occupant: Occupant) -> Result<(), Failure> {
        if occupant.is_saved {
            return Ok(());
        }
        self.act(slot, "save", occupant.agent)?;
        if !self.saved.contains(&occupant.agent) {
            self.saved.push(occupant.agent);
        }
        self.slots[slot] = Some(Occupant { is_saved: true, ..occupant });
        Ok(())
    }

    fn act(&self, slot: usize, action: &str, agent: usize) -> Result<(), Failure> {
        let path = format!("/slots/{slot}?action={action}");
        self.client()?.post(&path, &json!({ "filename": format!("{agent}.slot") }))?;
        Ok(())
    }
}

impl Contender for Llama<'_> {
    fn name(&self) -> String {
        let saving = match self.saving {
            Saving::Turn => "after each turn",
            Saving::Switch => "when another comes",
        };
        format!("llama-server, slots saved {saving}")
    }

    fn about(&self) -> String {
        format!("{}: {}, KV bits 16/16", self.name(), self.flags())
    }

    fn start(&mut self) -> Result<(), Failure> {
        let port = free_port()?;
        let mut command = self.program.command();
        command
            .args(self.flags().split(' '))
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .arg("--slot-save-path")
            .arg(&self.folder);
        let interrupt = &self.setup.interrupt;
        self.process = Some(Process::start(command, port, "/health", &self.log, interrupt)?);
        Ok(())
    }

    fn ask(
        &mut self,
        agent: usize,
        messages: &[Json],
        reply_tokens: usize,
    ) -> Result<Answered, Failure> {
        self.setup.interrupt.check()?;
        let started = Instant::now();
        let slot = self.slot(agent)?;
        let restored = started.elapsed();
        let further = json!({ "id_slot": slot, "cache_prompt": true, "ignore_eos": true });
        let asked = Asked { agent: "bench", messages, reply_tokens, further };
        let process = self.process.as_ref().context("llama-server does not run")?;
        let mut answered = process.chat(&asked)?;
        // The client waits for its slot as well.
        answered.ttft += restored;
        self.asked += 1;
        let occupant = Occupant { agent, is_saved: false, used: self.asked };
        self.slots[slot] = Some(occupant);
        if self.saving == Saving::Turn {
            self.save(slot, occupant)?;
        }
        Ok(answered)
    }

    fn kill(&mut self) -> Result<(), Failure> {
        self.slots.fill(None);
        self.process.take().map_or(Ok(()), Process::kill)
    }

    fn disk_bytes(&self) -> Result<u64, Failure> {
        Ok(scratch::bytes(&self.folder)?)
    }
}
