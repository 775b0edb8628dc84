//! A JS peer asks for blocks in random order. What a proof is made of above the leaves is read once, and not for each block.

use crate::common;

use std::io;

use common::{Random, blocks, create, create_copy};
use multifeed_core::{Answer, FileId, FileKind, MemoryStorage, Slot, Storage, prepare};
use multifeed_proto::Request;

const BLOCKS: u64 = 20_000;

/// A disk that counts what is read of trees.
struct Counted {
    disk: MemoryStorage,
    reads: u64,
    bytes: u64,
}

impl Storage for Counted {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.disk.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.disk.read_at(file, offset, buf)?;
        if file.kind == FileKind::Tree {
            self.reads += 1;
            self.bytes += count as u64;
        }
        Ok(count)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.disk.len(file)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.disk.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.disk.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.disk.sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.disk.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.disk.close()
    }
}

#[test]
fn blocks_asked_for_in_random_order_cost_a_read_of_the_tree_each() {
    let mut disk = Counted { disk: MemoryStorage::new(), reads: 0, bytes: 0 };
    let mut writer = create(&mut disk, 0, 1, None);
    writer.append(&mut disk, &blocks(1, 0..BLOCKS)).unwrap();
    writer.trim();
    let mut copy_disk = MemoryStorage::new();
    let mut copy = create_copy(&mut copy_disk, 0, 1);
    let mut left: Vec<u64> = (0..BLOCKS).collect();
    let mut random = Random(7);
    disk.reads = 0;
    while !left.is_empty() {
        let index = left.swap_remove(random.below(left.len() as u32) as usize);
        let request = Request { index, bytes: 0, hash: false, nodes: copy.digest(index) };
        let Answer::Data(data) = writer.answer(&mut disk, &request).unwrap() else { panic!("no answer to {index}") };
        copy.put(&mut copy_disk, prepare(data)).unwrap();
    }
    let (reads, bytes) = (disk.reads as f64 / BLOCKS as f64, disk.bytes / BLOCKS);
    assert!(reads < 1.5, "{reads} reads of {bytes} bytes in all for a block");
}
