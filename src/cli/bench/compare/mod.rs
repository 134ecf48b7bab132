//! Ours beside any servers that speak OpenAI's chat: the same requests, one server after the other.
//!
//! Ours is started here; the others run already and are asked as they are. Each prompt begins like
//! no other, so that only second turns find what a server remembers.

mod endpoint;
mod events;
mod flags;
mod measure;
mod table;

use super::host::{Host, UNLIMITED};
use super::report::Section;
use super::rounds::load_note;
use super::setup::Setup;
use super::talk::Talk;
use crate::cli::output::Failure;
pub use endpoint::Endpoint;
pub use flags::UrlFlags;
use flags::{Named, OURS};
use measure::{Measured, Work};

/// The suite's.
pub const NAME: &str = "compare";

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let host = Host::new(setup)?;
    let server = host.serving("compare", &UNLIMITED)?;
    let ours = Endpoint::reach(Named {
        name: OURS.to_owned(),
        base: format!("http://{}", server.address),
        key: None,
        model: None,
    })?;
    let servers: Vec<&Endpoint> = std::iter::once(&ours).chain(&setup.servers).collect();
    let measured = rounds(&host, &servers);
    // Also after Ctrl-C, and what had been measured when something failed.
    for server in &setup.servers {
        server.delete_agents();
    }
    let measured = measured?;
    let mut notes: Vec<String> = setup.servers.iter().map(Endpoint::about).collect();
    notes.extend(table::notes(&servers, &measured));
    notes.extend(load_note(setup.threads()));
    Ok(Section { rows: table::rows(&servers, &measured), notes })
}

/// What each server did of each work: `measured[work][server]`.
type All = Vec<(Work, Vec<Measured>)>;

/// One round that is not counted, and then those that the user wants. In each all servers do a
/// work before the next; which of them begins changes.
fn rounds(host: &Host<'_>, servers: &[&Endpoint]) -> Result<All, Failure> {
    let (setup, talk) = (host.setup, Talk::new(host.setup)?);
    let mut all: All = measure::works(setup)
        .into_iter()
        .map(|work| (work, servers.iter().map(|_| Measured::default()).collect()))
        .collect();
    let runs = setup.sizes.runs;
    let progress = setup.progress(NAME, all.len() * (runs + 1));
    for round in 0..=runs {
        for (work, measured) in &mut all {
            for turn in 0..servers.len() {
                let server = (turn + round) % servers.len();
                setup.interrupt.check()?;
                let found = work.run(host, &talk, servers[server], round);
                measured[server].add(found, round);
            }
            progress.advance(1);
        }
    }
    Ok(all)
}
