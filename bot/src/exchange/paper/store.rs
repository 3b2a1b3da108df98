//! The paper account on the disk: a file of JSON lines, each one change as a whole. A line that a crash cut off did not
//! happen.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::account::{Account, PaperOrder};

/// Why the paper account cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("failed to {verb} {path}: {source}; check the ledger's directory and its permissions")]
    Disk { verb: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "line {line} of {path} cannot be read: {cause}; it is the record of a paper account: mend it from a backup, or \
         delete the ledger's directory to begin anew"
    )]
    Damaged { path: PathBuf, line: usize, cause: String },
}

/// The account with every order, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    pub account: Account,
    pub orders: BTreeMap<u64, PaperOrder>,
}

#[derive(Deserialize)]
struct Line {
    account: Account,
    orders: Vec<PaperOrder>,
}

#[derive(Serialize)]
struct LineRef<'a> {
    account: &'a Account,
    orders: Vec<&'a PaperOrder>,
}

/// The file, open to be written at its end.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    /// Length of what is whole and on the disk.
    length: u64,
    /// Lines that the disk has not taken.
    unwritten: Vec<u8>,
    /// Why they are not on the disk.
    pub problem: Option<String>,
}

impl Store {
    /// Opens the account, or a new one with this balance. What is known is written anew as one line.
    ///
    /// # Errors
    /// A whole line cannot be read, or the disk fails.
    pub fn open(path: PathBuf, balance: Decimal) -> Result<(Self, Book), StoreError> {
        let disk = |verb| {
            let path = path.clone();
            move |source| StoreError::Disk { verb, path, source }
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(disk("read")(error)),
        };
        let book = read(&path, &text, balance)?;
        let new = path.with_extension("jsonl.new");
        let mut file = File::create(&new).map_err(disk("create"))?;
        let line = line(&book.account, book.orders.values()).map_err(|error| disk("write")(error.into()))?;
        file.write_all(&line).and_then(|()| file.sync_all()).map_err(disk("write"))?;
        fs::rename(&new, &path).map_err(disk("replace"))?;
        if let Some(dir) = path.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(disk("write the directory of"))?;
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(disk("open"))?;
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        Ok((Self { path, file, length, unwritten: Vec::new(), problem: None }, book))
    }

    /// Makes a change durable. Where the disk fails, nothing is placed any more until it works.
    pub fn write<'a>(&mut self, account: &Account, orders: impl Iterator<Item = &'a PaperOrder>) {
        match line(account, orders) {
            Ok(line) => self.unwritten.extend(line),
            Err(error) => return self.failed(&error.into()),
        }
        self.flush();
    }

    /// Writes what the disk has not taken yet.
    pub fn flush(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let written = self.file.write_all(&self.unwritten).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += u64::try_from(self.unwritten.len()).unwrap_or_default();
                self.unwritten.clear();
                self.problem = None;
            }
            Err(error) => {
                // Half a line must not stand before the next one.
                let cut = self.file.set_len(self.length);
                self.failed(&cut.err().unwrap_or(error));
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        tracing::error!(path = %self.path.display(), %error, "the paper account is not written; it is tried again");
        self.problem = Some(format!("{}: {error}", self.path.display()));
    }
}

fn line<'a>(account: &Account, orders: impl Iterator<Item = &'a PaperOrder>) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&LineRef { account, orders: orders.collect() })?;
    line.push(b'\n');
    Ok(line)
}

fn read(path: &Path, text: &str, balance: Decimal) -> Result<Book, StoreError> {
    let mut book = Book { account: Account::opened_with(balance), orders: BTreeMap::new() };
    // What follows the last line's end was cut off by a crash.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (number, line) in whole.lines().enumerate() {
        let damaged = |error: serde_json::Error| StoreError::Damaged {
            path: path.to_owned(),
            line: number + 1,
            cause: error.to_string(),
        };
        let line: Line = serde_json::from_str(line).map_err(damaged)?;
        book.account = line.account;
        book.orders.extend(line.orders.into_iter().map(|order| (order.number, order)));
    }
    Ok(book)
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;

    #[test]
    fn a_line_that_was_cut_off_did_not_happen_and_one_that_is_damaged_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("paper.jsonl");
        let (mut store, mut book) = Store::open(path.clone(), dec!(5)).unwrap();
        assert_eq!(book.account.cash, dec!(5));
        book.account.cash = dec!(4);
        store.write(&book.account, std::iter::empty());
        // Another balance in the spec is not another account.
        assert_eq!(Store::open(path.clone(), dec!(9)).unwrap().1, book);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"account\":{\"opened_wi");
        fs::write(&path, &text).unwrap();
        assert_eq!(Store::open(path.clone(), dec!(9)).unwrap().1, book);
        fs::write(&path, "{}\n").unwrap();
        let error = Store::open(path, dec!(9)).unwrap_err().to_string();
        assert!(error.starts_with("line 1 of"), "{error}");
    }
    #[test]
    fn what_a_full_disk_did_not_take_is_written_once_it_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("paper.jsonl");
        let (mut store, mut book) = Store::open(path.clone(), dec!(5)).unwrap();
        // Takes no byte: /dev/full says that there is no space.
        let disk = std::mem::replace(&mut store.file, OpenOptions::new().append(true).open("/dev/full").unwrap());
        book.account.cash = dec!(4);
        store.write(&book.account, std::iter::empty());
        assert!(store.problem.is_some());
        store.file = disk;
        book.account.cash = dec!(3);
        store.write(&book.account, std::iter::empty());
        assert_eq!(store.problem, None);
        assert_eq!(Store::open(path, dec!(9)).unwrap().1, book);
    }
}
