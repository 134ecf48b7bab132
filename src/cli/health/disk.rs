//! Where agents are kept: the folder, the store in it, the disk below it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use super::Finding;
use crate::cli::Context;
use crate::cli::output::human_bytes;
use crate::cli::store::{self, Access};
use crate::store::{Disk, Folder, Holder, Space, kept_free};

/// A few seconds of a disk that is too slow, and no time of one that is not.
const PROBE_BYTES: usize = 8 << 20;
/// A turn of 200 tokens writes about this much, and an answer waits for it.
const SPEED_MIN: f64 = 20e6;
const SPACE: &str = "space";
/// What others may do with a folder: nothing with the agents' own, not write in the one above.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;

pub fn findings(context: &Context) -> Vec<Finding> {
    let mut findings = vec![folder(context), opened(context)];
    let data_dir = std::path::absolute(&context.data_dir).unwrap_or(context.data_dir.clone());
    // What is not there yet will be on the disk of the folder above it.
    if let Some(there) = data_dir.ancestors().find(|folder| folder.is_dir()) {
        findings.extend([space(there), speed(there)]);
    }
    findings
}

fn folder(context: &Context) -> Finding {
    let (name, data_dir) = ("folders", &context.data_dir);
    let shown = data_dir.display();
    if !data_dir.is_dir() {
        return Finding::ok(
            name,
            format!("{shown} is not there yet; it is made when it is needed"),
        );
    }
    let cache = store::folder(context);
    for (folder, forbidden, what) in
        [(data_dir, OTHERS_WRITE, "written to"), (&cache, OTHERS, "looked into")]
    {
        let mode = match fs::metadata(folder) {
            Ok(metadata) => metadata.permissions().mode(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let hint = "make it readable for this user, or use another --data-dir";
                return Finding::fail(name, format!("{}: {error}", folder.display()), hint);
            }
        };
        if mode & forbidden != 0 {
            let finding = format!(
                "{} has mode {:o} and can be {what} by others",
                folder.display(),
                mode & 0o777
            );
            return Finding::warn(name, finding, format!("chmod 700 {}", folder.display()));
        }
    }
    Finding::ok(name, format!("{shown}, for this user alone"))
}

/// Looks at the store as one who only reads.
fn opened(context: &Context) -> Finding {
    let name = "store";
    let path = store::folder(context);
    let agents = match store::open(context, Access::Read).and_then(|store| Ok(store.agents()?)) {
        Ok(agents) => agents.len(),
        Err(failure) => {
            let hint = failure.hint().unwrap_or("use another --data-dir").to_owned();
            return Finding::fail(name, failure.message(), hint);
        }
    };
    let agents = match agents {
        1 => "1 agent".to_owned(),
        count => format!("{count} agents"),
    };
    match Folder::at(&path).and_then(|folder| folder.holder()) {
        Ok(Holder::Nobody) => Finding::ok(name, agents),
        Ok(Holder::Process(pid)) => {
            let who = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            Finding::warn(
                name,
                format!("{agents}; {who} has it"),
                "a second server needs another --data-dir; `--url` asks the one that runs",
            )
        }
        Err(error) => Finding::warn(
            name,
            format!("{agents}; who has it cannot be told: {error}"),
            "look at who may use the folder",
        ),
    }
}

fn space(there: &Path) -> Finding {
    match Folder::at(there).and_then(|folder| folder.space()) {
        Ok(space) => left(space),
        Err(error) => Finding::warn(
            SPACE,
            format!("{}: {error}", there.display()),
            "the disk does not tell; look yourself",
        ),
    }
}

fn left(space: Space) -> Finding {
    let kept = kept_free(space);
    let finding =
        format!("{} free of {}", human_bytes(space.free_bytes), human_bytes(space.total_bytes));
    match space.free_bytes < kept {
        true => {
            let kept = human_bytes(kept);
            let hint = format!(
                "agents are not saved below {kept} free: make room, or `semantic cache evict` some"
            );
            Finding::warn(SPACE, finding, hint)
        }
        false => Finding::ok(SPACE, finding),
    }
}

/// Writes a file, waits until it is safe from a power cut, and leaves nothing.
fn speed(there: &Path) -> Finding {
    let name = "disk";
    let probe = || {
        let mut file = tempfile::tempfile_in(there)?;
        let bytes = vec![0xa5; PROBE_BYTES];
        let started = Instant::now();
        file.write_all(&bytes)?;
        file.sync_all()?;
        io::Result::Ok(PROBE_BYTES as f64 / started.elapsed().as_secs_f64())
    };
    match probe() {
        Err(error) => Finding::fail(
            name,
            format!("{} cannot be written to: {error}", there.display()),
            "make the folder writable for this user, or use another --data-dir",
        ),
        Ok(speed) => {
            let finding = format!(
                "{} are written and synced at {}/s",
                human_bytes(PROBE_BYTES as u64),
                human_bytes(speed as u64)
            );
            match speed < SPEED_MIN {
                true => {
                    let hint = "answers wait until they are saved: put --data-dir on a faster disk";
                    Finding::warn(name, finding, hint)
                }
                false => Finding::ok(name, finding),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_short_where_the_store_stops_saving_and_not_before() {
        let shown = |total_bytes, free_bytes| {
            format!("{:?}", left(Space { total_bytes, free_bytes })).to_ascii_lowercase()
        };
        // A large disk keeps 5 GiB, a small one a twentieth.
        assert!(shown(2_000_000_000_000, 90_000_000_000).contains("ok"));
        let short = shown(2_000_000_000_000, 5_000_000_000);
        assert!(short.contains("warn"), "{short}");
        assert!(short.contains("below 5.4 gb free"), "{short}");
        assert!(shown(20_000_000_000, 1_100_000_000).contains("ok"));
        assert!(shown(20_000_000_000, 900_000_000).contains("below 1.0 gb free"));
    }
}
