//! Many small byte strings in few large pieces of memory. Each on its own would be rounded up, and would keep the page
//! of memory that it shares with what was short-lived.

/// Bytes of one chunk; what is larger has a chunk of its own.
const CHUNK: usize = 64 * 1024;
/// Waste that is not worth a copy.
const TOLERATED: usize = 1024 * 1024;

/// Where a byte string is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    chunk: u32,
    start: u32,
    length: u32,
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Bytes that are not removed.
    live: usize,
}

/// Byte strings by their place.
#[derive(Debug, Default)]
pub struct Slab {
    chunks: Vec<Chunk>,
    /// The chunk that is being filled.
    open: usize,
    /// Chunks without memory.
    empty: Vec<usize>,
    allocated: usize,
    live: usize,
}

impl Slab {
    /// Keeps a copy. More than 4 GiB at once are cut off, and cannot be unpacked then.
    pub fn insert(&mut self, bytes: &[u8]) -> Place {
        let fits =
            self.chunks.get(self.open).is_some_and(|chunk| chunk.bytes.capacity() - chunk.bytes.len() >= bytes.len());
        if !fits {
            self.open_chunk(bytes.len().max(CHUNK));
        }
        let Some(chunk) = self.chunks.get_mut(self.open) else { return Place { chunk: 0, start: 0, length: 0 } };
        let place = Place { chunk: narrow(self.open), start: narrow(chunk.bytes.len()), length: narrow(bytes.len()) };
        chunk.bytes.extend_from_slice(bytes);
        chunk.live += bytes.len();
        self.live += bytes.len();
        place
    }

    fn open_chunk(&mut self, capacity: usize) {
        let chunk = Chunk { bytes: Vec::with_capacity(capacity), live: 0 };
        self.allocated += chunk.bytes.capacity();
        match self.empty.pop().and_then(|index| Some((index, self.chunks.get_mut(index)?))) {
            Some((index, place)) => {
                *place = chunk;
                self.open = index;
            }
            None => {
                self.open = self.chunks.len();
                self.chunks.push(chunk);
            }
        }
    }

    /// The bytes of a place that was not removed.
    #[must_use]
    pub fn get(&self, place: Place) -> &[u8] {
        let range = place.start as usize..(place.start as usize).saturating_add(place.length as usize);
        self.chunks.get(place.chunk as usize).and_then(|chunk| chunk.bytes.get(range)).unwrap_or_default()
    }

    /// Gives a place back.
    pub fn remove(&mut self, place: Place) {
        let index = place.chunk as usize;
        let Some(chunk) = self.chunks.get_mut(index) else { return };
        let length = place.length as usize;
        chunk.live = chunk.live.saturating_sub(length);
        self.live = self.live.saturating_sub(length);
        if chunk.live == 0 && index != self.open {
            self.allocated -= chunk.bytes.capacity();
            *chunk = Chunk::default();
            self.empty.push(index);
        }
    }

    /// Whether more is wasted than used. Then everything is to be inserted into a new slab.
    #[must_use]
    pub fn is_wasteful(&self) -> bool {
        self.allocated > 2 * self.live + TOLERATED
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_inserted_stays_whatever_else_is_removed(
            lengths in proptest::collection::vec(0_usize..20_000, 1..40),
            keep in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let strings: Vec<_> = lengths.iter().zip(1_u8..).map(|(length, byte)| vec![byte; *length]).collect();
            let mut slab = Slab::default();
            let mut held: Vec<Option<Place>> = Vec::new();
            for (index, string) in strings.iter().enumerate() {
                held.push(Some(slab.insert(string)));
                if !keep[index] && let Some(place) = held[index / 2].take() {
                    slab.remove(place);
                }
            }
            for (string, place) in strings.iter().zip(held) {
                if let Some(place) = place {
                    prop_assert_eq!(slab.get(place), string.as_slice());
                }
            }
        }
    }

    #[test]
    fn memory_is_given_back_with_the_last_string_of_a_chunk() {
        let mut slab = Slab::default();
        let places: Vec<_> = (0..1000).map(|_| slab.insert(&[7; 1024])).collect();
        assert!(slab.allocated >= 1000 * 1024);
        places.into_iter().for_each(|place| slab.remove(place));
        assert!(slab.allocated <= CHUNK && slab.live == 0, "{slab:?}");
        let again = slab.insert(b"again");
        assert_eq!(slab.get(again), b"again");
    }

    #[test]
    fn a_slab_of_holes_is_wasteful() {
        let mut slab = Slab::default();
        let places: Vec<_> = (0..4000).map(|_| slab.insert(&[7; 1024])).collect();
        assert!(!slab.is_wasteful());
        places.iter().enumerate().filter(|(index, _)| index % 8 != 0).for_each(|(_, place)| slab.remove(*place));
        assert!(slab.is_wasteful());
    }
}
