//! Where a report goes: a file that is whole or not there, or stdout.

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

use crate::cli::beside::{Readers, beside, cannot_write};
use crate::cli::output::{self, Failure};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    File(PathBuf),
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Destination, String> {
        match text {
            "" => Err("it is empty".to_owned()),
            "-" => Ok(Destination::Stdout),
            path => Ok(Destination::File(path.into())),
        }
    }
}

impl Destination {
    /// Fails now if it cannot be written, rather than after minutes of measuring.
    pub fn check(&self) -> Result<(), Failure> {
        match self {
            Destination::Stdout => Ok(()),
            Destination::File(path) => beside(path, Readers::AsUsual).map(drop),
        }
    }

    pub fn write(&self, text: &str) -> Result<(), Failure> {
        let path = match self {
            Destination::Stdout => return output::data(text.as_bytes()),
            Destination::File(path) => path,
        };
        let mut file = beside(path, Readers::AsUsual)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all());
        written.map_err(|error| cannot_write(path, error))?;
        file.persist(path).map_err(|error| cannot_write(path, error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minus_is_stdout_and_nothing_is_no_file() {
        assert_eq!("-".parse(), Ok(Destination::Stdout));
        assert_eq!("a/-".parse(), Ok(Destination::File("a/-".into())));
        assert_eq!("".parse::<Destination>(), Err("it is empty".to_owned()));
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        let destination = Destination::File(path.clone());
        destination.check().ok().expect("it can be written");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        destination.write("a longer text").ok().expect("it can be written");
        destination.write("text").ok().expect("it can be written");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "text");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert!(Destination::File(folder.path().into()).check().is_err());
        assert!(Destination::File(folder.path().join("no/such")).check().is_err());
    }
}
