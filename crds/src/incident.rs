//! Incident ids: which engagement of which kill switch a latch belongs to, and which latches a release frees.

use std::fmt;
use std::str::FromStr;

/// `<first 8 characters of the source's uid>-<its metadata.generation when first seen engaged>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId {
    /// First 8 characters of the uid of the ArbBot or ArbPolicy whose kill switch was engaged.
    pub source: String,
    /// `metadata.generation` of the source when it was first seen engaged.
    pub generation: i64,
}

/// Why a string is not an incident id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{value:?} is not an incident id: copy it from status.killSwitch.incidents[].id, for example 1b9d6bcd-7")]
pub struct IncidentIdError {
    value: String,
}

impl IncidentId {
    /// The id of an incident of the object with this uid.
    #[must_use]
    pub fn new(source_uid: &str, generation: i64) -> Self {
        Self { source: uid8(source_uid), generation }
    }

    /// Whether a release with this id frees a latch with the id `latch`: same source, and not a later engagement.
    #[must_use]
    pub fn releases(&self, latch: &Self) -> bool {
        self.source == latch.source && latch.generation <= self.generation
    }
}

/// The part of a uid that stands in incident ids.
#[must_use]
pub fn uid8(uid: &str) -> String {
    uid.chars().take(8).collect()
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.source, self.generation)
    }
}

impl FromStr for IncidentId {
    type Err = IncidentIdError;

    fn from_str(value: &str) -> Result<Self, IncidentIdError> {
        let error = || IncidentIdError { value: value.chars().take(40).collect() };
        let (source, generation) = value.split_once('-').ok_or_else(error)?;
        let generation: i64 = generation.parse().map_err(|_| error())?;
        if source.len() != 8 || !source.bytes().all(|b| b.is_ascii_alphanumeric()) || generation < 0 {
            return Err(error());
        }
        Ok(Self { source: source.to_owned(), generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> IncidentId {
        text.parse().unwrap()
    }

    #[test]
    fn a_release_frees_its_own_source_up_to_its_generation() {
        assert!(id("1b9d6bcd-7").releases(&id("1b9d6bcd-7")));
        assert!(id("1b9d6bcd-7").releases(&id("1b9d6bcd-5")), "observers may have seen an earlier generation");
        assert!(!id("1b9d6bcd-7").releases(&id("1b9d6bcd-8")), "a later engagement stays latched");
        assert!(!id("1b9d6bcd-7").releases(&id("aaaaaaaa-7")), "another source stays latched");
    }

    #[test]
    fn an_id_reads_back_what_it_writes_and_nothing_else() {
        assert_eq!(id("1b9d6bcd-7").to_string(), "1b9d6bcd-7");
        for wrong in ["", "1b9d6bcd", "1b9d6bcd-", "1b9d-7", "1b9d6bcd--7", "1b9d6bcd-x", "yes"] {
            assert!(wrong.parse::<IncidentId>().is_err(), "{wrong:?} was accepted");
        }
    }
}
