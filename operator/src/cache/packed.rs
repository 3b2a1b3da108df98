//! Objects of one kind differ in little: each is kept as its difference to a sample, the first that was seen.

use lz4_flex::block::{compress_with_dict, decompress_with_dict};

/// LZ4 looks no further back.
const WINDOW: usize = 64 * 1024;

/// What a store's objects are compressed against. It never changes, or nothing could be unpacked.
#[derive(Debug)]
pub struct Sample(Box<[u8]>);

impl Sample {
    /// A sample from the first object.
    #[must_use]
    pub fn new(first: &[u8]) -> Self {
        Self(first[..first.len().min(WINDOW)].into())
    }

    /// Compresses an object.
    #[must_use]
    pub fn pack(&self, json: &[u8]) -> Vec<u8> {
        compress_with_dict(json, &self.0)
    }

    /// The object again, which had this size. None: a defect, the bytes are not of this sample.
    #[must_use]
    pub fn unpack(&self, packed: &[u8], size: u32) -> Option<Vec<u8>> {
        decompress_with_dict(packed, size as usize, &self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_object_like_the_sample_takes_a_fraction_of_its_size() {
        let object = |name: &str| {
            let env: Vec<_> = (0..40).map(|i| format!("{{\"name\":\"VARIABLE_{i}\",\"value\":\"{i}\"}}")).collect();
            format!("{{\"name\":\"{name}\",\"env\":[{}]}}", env.join(",")).into_bytes()
        };
        let (first, second) = (object("first"), object("second"));
        let packed = Sample::new(&first).pack(&second);
        assert!(packed.len() * 20 < second.len(), "{} of {}", packed.len(), second.len());
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked_whatever_the_sample(sample: Vec<u8>, object: Vec<u8>) {
            let sample = Sample::new(&sample);
            prop_assert_eq!(sample.unpack(&sample.pack(&object), object.len() as u32), Some(object));
        }
    }
}
