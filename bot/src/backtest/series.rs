//! Recorded market data as it is played to a bot: tables (CSV) and transcripts of `arb-bot capture`, one after the other in
//! time. Everything in a file is checked: a line that cannot be is named.

mod table;
#[cfg(test)]
mod tests;
mod transcript;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressBarIter, ProgressDrawTarget};
use k8s_openapi::jiff::Timestamp;

pub use self::table::Assumed;
use self::table::Table;
use self::transcript::Transcript;
use crate::exchange::{MarketEvent, Product, VenueEvent};

/// Longest line: a snapshot of a deep book has several million bytes.
const MAX_LINE: u64 = 32 << 20;

/// What happens at one moment of a series, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    pub at: Timestamp,
    /// Products as the exchange shows them from now on.
    pub products: Vec<Product>,
    /// What the account on paper hears.
    pub market: Vec<MarketEvent>,
    /// What the engine hears.
    pub events: Vec<VenueEvent>,
}

impl Moment {
    fn new(at: Timestamp) -> Self {
        Self { at, products: Vec::new(), market: Vec::new(), events: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.products.is_empty() && self.market.is_empty() && self.events.is_empty()
    }
}

/// Why a series cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    #[error("{path} cannot be read: {cause}")]
    Read { path: PathBuf, cause: io::Error },
    #[error("{path}, line {line}: {cause}")]
    Line { path: PathBuf, line: u64, cause: String },
    #[error("{path} has no .csv and no .jsonl file; `arb-bot capture` writes both")]
    Empty { path: PathBuf },
    #[error(
        "{path} has no price of {product}: give recordings of both products, or name the recorded ones in \
         spec.strategy.fundingCarry"
    )]
    NoPrice { path: PathBuf, product: String },
    #[error(
        "{} still goes on when {} has a price of {product}, at {at}: files of one market may follow each other, but not \
         overlap; leave one of them out, or cut one of them there", .paths[0].display(), .paths[1].display()
    )]
    Overlap { paths: [PathBuf; 2], product: String, at: Timestamp },
}

/// A file's lines, numbered; none is longer than it may be.
pub(super) struct Lines {
    path: PathBuf,
    from: BufReader<ProgressBarIter<File>>,
    number: u64,
}

impl Lines {
    fn open(path: &Path, progress: &ProgressBar) -> Result<Self, SeriesError> {
        let unreadable = |cause| SeriesError::Read { path: path.to_owned(), cause };
        let file = File::open(path).map_err(unreadable)?;
        progress.inc_length(file.metadata().map_err(unreadable)?.len());
        Ok(Self { path: path.to_owned(), from: BufReader::new(progress.wrap_read(file)), number: 0 })
    }

    fn next(&mut self) -> Result<Option<String>, SeriesError> {
        let mut text = String::new();
        let read = (&mut self.from).take(MAX_LINE).read_line(&mut text);
        let read = read.map_err(|cause| SeriesError::Read { path: self.path.clone(), cause })?;
        self.number += 1;
        if read as u64 == MAX_LINE {
            return Err(self.wrong("it is longer than any line of a recording".to_owned()));
        }
        Ok((read > 0).then_some(text))
    }

    fn wrong(&self, cause: String) -> SeriesError {
        SeriesError::Line { path: self.path.clone(), line: self.number, cause }
    }
}

/// Reads the lines of one file.
enum Reader {
    Table(Box<Table>),
    Transcript(Box<Transcript>),
}

impl Reader {
    fn new(path: &Path, lines: Lines, products: &[String; 2], assumed: Assumed) -> Self {
        match path.extension().is_some_and(|extension| extension == "jsonl") {
            true => Self::Transcript(Box::new(Transcript::new(lines, products))),
            false => Self::Table(Box::new(Table::new(lines, products, assumed))),
        }
    }

    fn next(&mut self) -> Result<Option<Moment>, SeriesError> {
        match self {
            Self::Table(table) => table.next(),
            Self::Transcript(transcript) => transcript.next(),
        }
    }
}

/// One file.
struct Source {
    path: PathBuf,
    reader: Reader,
    begins_at: Option<Timestamp>,
    next: Option<Moment>,
    /// Products of which it had a price.
    priced: BTreeSet<String>,
}

impl Source {
    fn next_at(&self) -> Option<Timestamp> {
        self.next.as_ref().map(|moment| moment.at)
    }
}

/// The moments of a file, or of all files of a directory, in time. At the same time the file that began first comes first,
/// and then the one that is first by name.
pub struct Series {
    path: PathBuf,
    products: [String; 2],
    sources: Vec<Source>,
    progress: ProgressBar,
}

impl Series {
    /// Opens a series of two products.
    ///
    /// # Errors
    /// There is no file, it cannot be read, or its first line is wrong.
    pub fn open(path: &Path, products: &[String; 2], assumed: Assumed) -> Result<Self, SeriesError> {
        let progress = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        let mut sources = Vec::new();
        for path in files(path)? {
            let mut reader = Reader::new(&path, Lines::open(&path, &progress)?, products, assumed);
            let next = reader.next()?;
            let begins_at = next.as_ref().map(|moment| moment.at);
            sources.push(Source { path, reader, begins_at, next, priced: BTreeSet::new() });
        }
        if sources.is_empty() {
            return Err(SeriesError::Empty { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), products: products.clone(), sources, progress })
    }

    /// How much of the files is read, in bytes; not drawn unless it is given a place.
    #[must_use]
    pub fn progress(&self) -> ProgressBar {
        self.progress.clone()
    }

    /// When the next moment is.
    #[must_use]
    pub fn starts_at(&self) -> Option<Timestamp> {
        self.sources.iter().filter_map(Source::next_at).min()
    }

    /// The next moment; None at the end.
    ///
    /// # Errors
    /// A line is wrong or cannot be read, or a product has prices of two files at once.
    pub fn advance(&mut self) -> Result<Option<Moment>, SeriesError> {
        let open = self.sources.iter().enumerate().filter(|(_, source)| source.next.is_some());
        let Some(earliest) =
            open.min_by_key(|(_, source)| (source.next_at(), source.begins_at)).map(|(index, _)| index)
        else {
            return Ok(None);
        };
        let source = &mut self.sources[earliest];
        let moment = source.next.take();
        source.next = source.reader.next()?;
        for (event, at) in moment.iter().flat_map(|moment| moment.events.iter().map(|event| (event, moment.at))) {
            if let VenueEvent::Touch { product, touch: Some(_) } = event {
                self.see_price(product, earliest, at)?;
            }
        }
        Ok(moment)
    }

    /// Takes in that a file has a price. Files of one market may follow each other, but not overlap: its trades would be
    /// told twice, and each file would take the other's book for its own.
    fn see_price(&mut self, product: &String, by: usize, at: Timestamp) -> Result<(), SeriesError> {
        let source = &mut self.sources[by];
        if !source.priced.contains(product) {
            source.priced.insert(product.clone());
        }
        let goes_on = |other: &Source| other.next_at().is_some_and(|next| next > at);
        let mut others = self.sources.iter().enumerate().filter(|(index, _)| *index != by).map(|(_, other)| other);
        match others.find(|other| other.priced.contains(product) && goes_on(other)) {
            None => Ok(()),
            Some(other) => {
                let paths = [other.path.clone(), self.sources[by].path.clone()];
                Err(SeriesError::Overlap { paths, product: product.clone(), at })
            }
        }
    }

    /// Whether there was a price of each product by now.
    ///
    /// # Errors
    /// There was none of one.
    pub fn has_prices(&self) -> Result<(), SeriesError> {
        let missing = |product: &String| SeriesError::NoPrice { path: self.path.clone(), product: product.clone() };
        let is_priced = |product: &&String| self.sources.iter().any(|source| source.priced.contains(*product));
        self.products.iter().find(|product| !is_priced(product)).map_or(Ok(()), |product| Err(missing(product)))
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, SeriesError> {
    let unreadable = |cause| SeriesError::Read { path: path.to_owned(), cause };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "csv" || extension == "jsonl") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
