//! Chunks come back as they were written, and nothing else comes back at all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::{
    state::checkpoint::{ChunkKey, record::tests::record},
    store::Incarnation,
};

fn place() -> Place {
    Place {
        checkpoint: CheckpointId::new(1),
        chunk: 7,
    }
}

fn life() -> Owner {
    Owner::Tenant(Incarnation::random())
}

fn encoded(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    records
        .iter()
        .for_each(|record| record.encode(&mut out).unwrap());
    out
}

fn built(place: &Place, owner: Owner, key: &ChunkKey, blocks: &[Vec<Record>]) -> (Bytes, Digested) {
    let mut chunk = Chunk::begin(place.clone());
    for records in blocks {
        chunk
            .push(owner, Component::Cache, 1, &encoded(records), key.sealing())
            .unwrap();
    }
    chunk.end()
}

/// All records, or what is wrong.
fn read(
    place: &Place,
    bytes: &Bytes,
    told: &Digested,
    key: &ChunkKey,
) -> Result<Vec<Record>, Damage> {
    let mut records = Vec::new();
    for block in blocks(place, bytes, told)? {
        for record in block.open(key.sealing())? {
            records.push(record?);
        }
    }
    Ok(records)
}

/// What a manifest would tell of these bytes, were they what was written.
fn told(bytes: &[u8], blocks: u32) -> Digested {
    Digested {
        bytes: bytes.len() as u64,
        sha256: sha256(bytes),
        blocks,
    }
}

fn some_blocks() -> impl Strategy<Value = Vec<Vec<Record>>> {
    prop::collection::vec(prop::collection::vec(record(), 1..8), 1..5)
}

proptest! {
    #[test]
    fn chunks_come_back(blocks_of in some_blocks()) {
        let (place, owner, key) = (place(), life(), ChunkKey::draw());
        let (bytes, digested) = built(&place, owner, &key, &blocks_of);
        let found = blocks(&place, &bytes, &digested).unwrap();
        prop_assert_eq!(found.len(), blocks_of.len());
        for (block, records) in found.iter().zip(&blocks_of) {
            prop_assert_eq!((block.owner, block.component, block.take), (owner, Component::Cache, 1));
            let back: Vec<_> = block.open(key.sealing()).unwrap().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&back, records);
        }
    }

    // Even where whoever changed a chunk changed the manifest as well, but has no key.
    #[test]
    fn a_flipped_bit_is_refused_even_where_its_sha_is_made_right(
        blocks_of in some_blocks(), at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let (place, key) = (place(), ChunkKey::draw());
        let (bytes, digested) = built(&place, life(), &key, &blocks_of);
        let mut flipped = bytes.to_vec();
        let at = at.index(flipped.len());
        flipped[at] ^= 1 << bit;
        let flipped = Bytes::from(flipped);
        prop_assert!(read(&place, &flipped, &digested, &key).is_err());
        prop_assert!(read(&place, &flipped, &told(&flipped, digested.blocks), &key).is_err());
    }

    #[test]
    fn a_cut_off_chunk_is_refused(blocks_of in some_blocks(), at in any::<prop::sample::Index>()) {
        let (place, key) = (place(), ChunkKey::draw());
        let (bytes, digested) = built(&place, life(), &key, &blocks_of);
        let cut = bytes.slice(..at.index(bytes.len()));
        prop_assert!(read(&place, &cut, &digested, &key).is_err());
        prop_assert!(read(&place, &cut, &told(&cut, digested.blocks), &key).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), begun in any::<bool>()) {
        let mut chunk = if begun { MAGIC.to_vec() } else { Vec::new() };
        chunk.extend_from_slice(&bytes);
        let chunk = Bytes::from(chunk);
        let place = place();
        if let Ok(found) = parse(&place, &chunk) {
            for block in found {
                prop_assert!(block.open(ChunkKey::draw().sealing()).is_err());
            }
        }
    }
}

#[test]
fn a_block_opens_in_its_place_alone() {
    let record = |version| Record {
        kind: super::super::Kind::Meters,
        path: Bytes::from_static(b"path"),
        version,
        expire_ms: None,
        value: Bytes::from(vec![b'v'; 500]),
    };
    let (here, owner, key) = (place(), life(), ChunkKey::draw());
    let two = [vec![record(1)], vec![record(2)]];
    let (bytes, digested) = built(&here, owner, &key, &two);
    assert_eq!(read(&here, &bytes, &digested, &key).unwrap().len(), 2);

    // The same chunk of another checkpoint, or of another number in this one.
    for elsewhere in [
        Place {
            checkpoint: CheckpointId::new(1),
            ..here.clone()
        },
        Place {
            chunk: 8,
            ..here.clone()
        },
    ] {
        assert!(read(&elsewhere, &bytes, &digested, &key).is_err());
    }

    // Its blocks in another order, and one of them twice.
    let one = HEAD_BYTES
        + u32::from_le_bytes(
            bytes[MAGIC.len() + 17..MAGIC.len() + 21]
                .try_into()
                .unwrap(),
        ) as usize;
    let (first, second) = bytes[MAGIC.len()..].split_at(one);
    for order in [[second, first], [first, first]] {
        let moved = Bytes::from([MAGIC.as_slice(), order[0], order[1]].concat());
        assert!(read(&here, &moved, &told(&moved, 2), &key).is_err());
    }

    // Without its last block, where only the number of blocks tells.
    let short = bytes.slice(..MAGIC.len() + one);
    let why = read(&here, &short, &told(&short, 2), &key).unwrap_err();
    assert!(why.to_string().contains("1 blocks, not 2"), "{why}");

    // Said to be another tenant's, of another component, or of another take.
    for (at, byte) in [
        (MAGIC.len(), 1),
        (MAGIC.len() + 10, 3),
        (MAGIC.len() + 12, 3),
    ] {
        let mut changed = bytes.to_vec();
        changed[at] ^= byte;
        let changed = Bytes::from(changed);
        assert!(read(&here, &changed, &told(&changed, 2), &key).is_err());
    }

    assert!(read(&here, &bytes, &digested, &ChunkKey::draw()).is_err());
}

#[test]
fn a_block_that_lies_about_its_size_costs_no_memory() {
    let (here, key) = (place(), ChunkKey::draw());
    let mut chunk = Chunk::begin(here.clone());
    chunk
        .push(
            Owner::Store,
            Component::Config,
            1,
            &[0; 4096],
            key.sealing(),
        )
        .unwrap();
    let (bytes, _) = chunk.end();
    let mut lying = bytes.to_vec();
    lying[MAGIC.len() + 13..MAGIC.len() + 17].copy_from_slice(&u32::MAX.to_le_bytes());
    let lying = Bytes::from(lying);
    let why = read(&here, &lying, &told(&lying, 1), &key).unwrap_err();
    assert!(why.to_string().contains("more than a block"), "{why}");
}
