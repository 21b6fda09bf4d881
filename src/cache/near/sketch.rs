//! How often keys were asked for of late, in a fixed number of small counters,
//! whether they are kept or not. It does not know a key, only its hash.

/// Counters of a key: the least of them tells, since other keys may raise each.
const ROWS: usize = 4;

/// Counters of a row in a block.
const WIDTH: usize = 16;

/// Counters of a block, row after row: a line of the processor's cache, so that a
/// key touches one.
const BLOCK: usize = ROWS * WIDTH;

/// Frequencies by hash. What was counted before counts half as much each time that
/// the sketch is aged.
#[derive(Debug)]
pub(super) struct Sketch {
    /// A power of two.
    blocks: Box<[Block]>,
    /// Uses counted, halved with the counters.
    counted: u64,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Block([u8; BLOCK]);

impl Sketch {
    /// One of at most so many bytes, but of one block at least.
    pub(super) fn of_bytes(bytes: usize) -> Self {
        let blocks = 1_usize << (bytes / BLOCK).max(1).ilog2();
        Self {
            blocks: vec![Block([0; BLOCK]); blocks].into(),
            counted: 0,
        }
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    /// About how often this hash was counted, 255 at most.
    pub(super) fn frequency(&self, hash: u64) -> u8 {
        match self.blocks.get(self.block(hash)) {
            Some(Block(counters)) => least(counters, places(hash)),
            None => 0,
        }
    }

    /// Counts a use, and ages all when so many were counted.
    pub(super) fn count(&mut self, hash: u64, age_at: u64) {
        let block = self.block(hash);
        if let Some(Block(counters)) = self.blocks.get_mut(block) {
            let places = places(hash);
            let least = least(counters, places);
            for at in places {
                // The others tell of more than this key already.
                if let Some(counter) = counters.get_mut(at).filter(|counter| **counter == least) {
                    *counter = counter.saturating_add(1);
                }
            }
        }
        self.counted += 1;
        if self.counted >= age_at {
            self.counted /= 2;
            for Block(counters) in &mut self.blocks {
                counters.iter_mut().for_each(|counter| *counter /= 2);
            }
        }
    }

    /// Sees to it that a hash is told as having been counted so often.
    pub(super) fn raise(&mut self, hash: u64, uses: u8) {
        let block = self.block(hash);
        if let Some(Block(counters)) = self.blocks.get_mut(block) {
            let places = places(hash);
            let before = least(counters, places);
            for at in places {
                if let Some(counter) = counters.get_mut(at) {
                    *counter = uses.max(*counter);
                }
            }
            self.counted += u64::from(uses.saturating_sub(before));
        }
    }

    fn block(&self, hash: u64) -> usize {
        usize::try_from(hash).unwrap_or(usize::MAX) & (self.blocks.len() - 1)
    }
}

/// Where the counters of a hash are in its block, one in each row; by other bits
/// than those that choose the block.
fn places(hash: u64) -> [usize; ROWS] {
    let [.., a, b] = (hash >> 40).to_be_bytes();
    let columns = [a >> 4, a & 15, b >> 4, b & 15].map(usize::from);
    let mut row = 0;
    columns.map(|column| {
        row += WIDTH;
        row - WIDTH + column
    })
}

fn least(counters: &[u8; BLOCK], places: [usize; ROWS]) -> u8 {
    let counters = places.map(|at| counters.get(at).copied().unwrap_or_default());
    counters.into_iter().min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a number into bits that look like a hash's.
    fn hash(number: u64) -> u64 {
        let mixed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    #[test]
    fn what_is_used_more_often_tells_more() {
        let mut sketch = Sketch::of_bytes(64 << 10);
        for number in 0..1_000 {
            for _ in 0..=number % 20 {
                sketch.count(hash(number), u64::MAX);
            }
        }
        let told = |number| u64::from(sketch.frequency(hash(number)));
        assert!((0..1_000).all(|number| told(number) > number % 20));
        let exact = (0..1_000).filter(|&number| told(number) == number % 20 + 1);
        assert!(exact.count() > 950, "few are told as more than they were");
    }

    #[test]
    fn counters_stop_at_their_most_and_age() {
        let mut sketch = Sketch::of_bytes(1);
        assert_eq!(sketch.bytes(), BLOCK);
        for _ in 0..300 {
            sketch.count(7, 1_000);
        }
        assert_eq!(sketch.frequency(7), 255);
        for _ in 0..699 {
            sketch.count(7, 1_000);
        }
        assert_eq!(sketch.frequency(7), 255);
        sketch.count(7, 1_000);
        assert_eq!((sketch.frequency(7), sketch.counted), (127, 500));
    }
}
