//! Little-endian numbers and short texts, one after the other in a row of bytes. Pure.

use super::Flaw;

/// Takes values from the front; [`Flaw::Length`] where there are too few bytes.
pub struct Reader<'a>(&'a [u8]);

pub struct Writer(Vec<u8>);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(Flaw::Length)?;
        self.0 = rest;
        Ok(*array)
    }

    pub fn u16(&mut self) -> Result<u16, Flaw> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Flaw> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Flaw> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn count(&mut self) -> Result<usize, Flaw> {
        Ok(self.u32()? as usize)
    }

    /// UTF-8 with its length before it.
    pub fn text(&mut self, bytes_max: usize) -> Result<&'a str, Flaw> {
        let bytes = usize::from(self.u16()?);
        if bytes > bytes_max {
            return Err(Flaw::Length);
        }
        std::str::from_utf8(self.take(bytes)?).map_err(|_| Flaw::Header)
    }

    pub fn skip(&mut self, bytes: usize) -> Result<(), Flaw> {
        self.take(bytes).map(drop)
    }

    /// Before a list is allocated: its bytes must be there.
    pub fn expect(&self, count: usize, bytes_each: usize) -> Result<(), Flaw> {
        match count.checked_mul(bytes_each) {
            Some(bytes) if bytes <= self.0.len() => Ok(()),
            _ => Err(Flaw::Length),
        }
    }

    /// Bytes that have not been taken.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Flaw> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Flaw::Length)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl Writer {
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer(Vec::with_capacity(bytes))
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub fn u16(&mut self, number: u16) {
        self.bytes(&number.to_le_bytes());
    }

    pub fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    pub fn u64(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("counts have limits"));
    }

    pub fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).expect("names have limits"));
        self.bytes(text.as_bytes());
    }

    pub fn written(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
