//! Replication against hypercore's own, differentially: two folders hold different parts of the same feeds, drawn at
//! random. Ours syncs with JS, whose answers come late and out of order; afterwards both sides have to hold what two JS
//! peers hold after a sync of copies of the same two folders, down to the digest.

use crate::common;

use anyhow::{Context, Result, ensure};
use common::{Facts, Store, TIMEOUT, copy, js_facts};
use multifeed_testkit::js::{self, JsPeer};
use serde_json::{Value, json};

/// How many pairs of folders are tried; another seed is another pair.
const PAIRS: u32 = 8;

/// A xorshift generator, so that a failing pair can be made again.
struct Random(u32);

impl Random {
    fn new(seed: u32) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9) | 1);
        // Neighbouring seeds start alike.
        for _ in 0..16 {
            random.below(2);
        }
        random
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }
}

/// What `make.js` gets for the two folders.
fn folders(random: &mut Random, whole: bool) -> [Value; 2] {
    let mut sides = [Vec::new(), Vec::new()];
    for feed in 0..1 + random.below(3) {
        let count = random.pick(&[1, 2, 5, 16, 17, 33, 64, 100, 255, 300]);
        let batch = 1 + random.below(count);
        // Not 0: JS makes no `data` file for a copy of empty blocks alone, and then cannot serve it.
        let size = random.pick(&[1, 40, 1000]);
        let seed = format!("{:02x}", 16 + feed).repeat(32);
        let append = json!([{"count": count, "size": size, "seed": feed, "batch": batch}]);
        // Each block is on one side, on both, or, if holes are allowed, on none. In runs, mostly.
        let run = random.pick(&[1, 4, 32]);
        let mut have: [Vec<[u32; 2]>; 2] = Default::default();
        let mut start = 0;
        while start < count {
            let end = count.min(start + 1 + random.below(run));
            let who = random.below(if whole { 3 } else { 4 });
            // One block of each feed has to be known on each side, so that both offer it.
            for (side, have) in have.iter_mut().enumerate() {
                if who == side as u32 || who == 2 || start == 0 {
                    have.push([start, end]);
                }
            }
            start = end;
        }
        for (side, have) in sides.iter_mut().zip(have) {
            side.push(json!({"seed": seed, "append": append, "have": have}));
        }
    }
    sides.map(|copies| json!({"copies": copies}))
}

/// What two JS peers hold after they synced these two folders, live, as long as anything moves.
fn js_and_js(one: &Store, other: &Store, blocks: u64) -> Result<Vec<Facts>> {
    let (mut listener, address) = JsPeer::listen(&["--store", one.text(), "--live"])?;
    let mut dialer = JsPeer::spawn(&["--store", other.text(), "--live"])?;
    dialer.connect(address)?;
    listener.wait(0, blocks, TIMEOUT)?;
    dialer.wait(0, blocks, TIMEOUT)?;
    let facts = js_facts(&listener.feeds()?)?;
    ensure!(facts == js_facts(&dialer.feeds()?)?, "JS is not in sync with itself");
    Ok(facts)
}

/// How many different blocks the two folders hold.
fn union(specs: &[Value; 2]) -> u64 {
    let held = |copy: &Value| -> std::collections::BTreeSet<u64> {
        let ranges = copy["have"].as_array().into_iter().flatten();
        ranges.flat_map(|range| range[0].as_u64().unwrap_or(0)..range[1].as_u64().unwrap_or(0)).collect()
    };
    let copies = |spec: &Value| spec["copies"].as_array().cloned().unwrap_or_default();
    copies(&specs[0])
        .iter()
        .zip(&copies(&specs[1]))
        .map(|(one, other)| held(one).union(&held(other)).count() as u64)
        .sum()
}

fn pair(seed: u32, whole: bool, live: bool) -> Result<()> {
    let mut random = Random::new(seed);
    let specs = folders(&mut random, whole);
    let stores: [Store; 4] = [Store::new()?, Store::new()?, Store::new()?, Store::new()?];
    for (store, spec) in stores.iter().zip(&specs) {
        js::make(store.path(), spec)?;
    }
    copy(stores[0].path(), stores[2].path())?;
    copy(stores[1].path(), stores[3].path())?;
    let blocks = union(&specs);
    let expected = js_and_js(&stores[2], &stores[3], blocks)?;

    let (ours, theirs) = (&stores[0], &stores[1]);
    let reorder = seed.to_string();
    let mut options = vec!["--store", theirs.text(), "--delay-reads", "15", "--reorder", &reorder];
    let live_option: &[&str] = if live { &["--live"] } else { &[] };
    options.extend(live_option);
    let mut js = JsPeer::spawn(&options)?;
    let (server, address) = ours.serve(&[&["--once"], live_option].concat())?;
    js.connect(address)?;
    let held = |facts: &[Facts]| facts.iter().map(|feed| feed.downloaded).sum::<u64>();
    if live {
        js.wait(0, blocks, TIMEOUT)?;
        let mut server = server;
        // Its own missing blocks may have come before or after those of JS.
        let had: u64 = held_of(&specs[0]);
        if blocks > had {
            server.received(blocks - had)?;
        }
        server.signal("INT")?;
        server.ended(0)?;
    } else {
        let events = server.ended(0)?;
        let closed = events.last().context("no events")?;
        let length: u64 = expected.iter().map(|feed| feed.length).sum();
        ensure!(closed["missing"] == length - blocks, "{closed}");
        ensure!(js.event("ended")?["clean"] == true, "{}", js.history());
        // Its stream can end before its last blocks are on its disk.
        js.wait(0, blocks, TIMEOUT)?;
    }
    let js_side = js_facts(&js.feeds()?)?;
    js.close()?;
    let our_side = ours.checked()?;
    ensure!(held(&our_side) == blocks, "ours holds {} blocks of {blocks}: {our_side:#?}", held(&our_side));
    ensure!(our_side == expected, "ours differs from JS with JS:\n{our_side:#?}\n{expected:#?}");
    ensure!(js_side == expected, "JS differs from JS with JS:\n{js_side:#?}\n{expected:#?}");
    Ok(())
}

fn held_of(spec: &Value) -> u64 {
    union(&[spec.clone(), spec.clone()])
}

fn pairs(whole: bool, live: bool) -> Result<()> {
    (1..=PAIRS).try_for_each(|seed| pair(seed, whole, live).with_context(|| format!("seed {seed}")))
}

#[test]
fn folders_that_complete_each_other() -> Result<()> {
    pairs(true, false)
}

#[test]
fn folders_that_complete_each_other_live() -> Result<()> {
    pairs(true, true)
}

#[test]
fn folders_with_holes_that_neither_can_fill() -> Result<()> {
    pairs(false, true)
}

#[test]
fn folders_with_holes_that_neither_can_fill_when_only_ours_ends() -> Result<()> {
    pairs(false, false)
}
