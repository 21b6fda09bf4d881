//! Reads by Zipf's law, the same for the same seed. It does not know what answers
//! them.

use super::Start;

/// Which key is read next, and what is under it.
pub struct Load {
    /// The part of all reads that goes to this many of the hottest keys, less one.
    sums: Vec<f64>,
    values: Vec<bytes::Bytes>,
    pub warmed: usize,
    pub seed: u64,
    pub rate: u64,
}

impl Load {
    pub fn new(start: &Start) -> Self {
        let mut sum = 0.0;
        let mut sums: Vec<_> = (1..=start.keys)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        for part in &mut sums {
            *part /= sum;
        }
        // Enough values that do not compress; keys share them.
        let mut random = Random(start.seed);
        let value = |random: &mut Random| {
            let bytes = std::iter::repeat_with(|| random.next().to_le_bytes()).flatten();
            bytes.take(start.value_bytes).collect::<Vec<_>>().into()
        };
        Self {
            sums,
            values: (0..64).map(|_| value(&mut random)).collect(),
            warmed: start.warmed,
            seed: start.seed,
            rate: start.rate,
        }
    }

    pub fn part_of(&self, keys: usize) -> f64 {
        self.sums
            .get(keys.saturating_sub(1))
            .copied()
            .unwrap_or(1.0)
    }

    pub fn draw(&self, random: &mut Random) -> usize {
        let at = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        self.sums
            .partition_point(|sum| *sum < at)
            .min(self.sums.len() - 1)
    }

    pub fn value(&self, rank: usize) -> bytes::Bytes {
        let value = self.values.get(rank % self.values.len());
        value.cloned().unwrap_or_default()
    }
}

/// The name of the key of this rank: it does not tell the rank by its order.
pub fn key(rank: usize) -> String {
    let mut name = Random(rank as u64);
    format!("{:08x}-{rank}", name.next() >> 32)
}

/// Steele's SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
