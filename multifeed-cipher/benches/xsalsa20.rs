//! XSalsa20 beside the crate `salsa20`: long calls, as for blocks of a feed, and short ones, as for single messages.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use multifeed_cipher::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};

const KEY: [u8; 32] = [7; 32];
const NONCE: [u8; 24] = [9; 24];

fn xsalsa20(c: &mut Criterion) {
    let mut group = c.benchmark_group("xsalsa20");
    for len in [16, 64, 100, 300, 1024, 65_536, 1 << 20] {
        group.throughput(Throughput::Bytes(len as u64));
        let mut data = vec![0; len];
        let mut ours = XSalsa20::new(&KEY, &NONCE);
        group.bench_function(BenchmarkId::new("multifeed-cipher", len), |b| {
            b.iter(|| ours.apply(&mut data));
        });
        let mut theirs = salsa20::XSalsa20::new(&KEY.into(), &NONCE.into());
        group.bench_function(BenchmarkId::new("salsa20", len), |b| {
            b.iter(|| theirs.apply_keystream(&mut data));
        });
    }
    group.finish();

    // A keystream of which no more than one short message is ever used: the worst case for making it ahead.
    let mut group = c.benchmark_group("new and 64 bytes");
    let mut data = [0; 64];
    group.bench_function("multifeed-cipher", |b| {
        b.iter(|| XSalsa20::new(&KEY, &NONCE).apply(&mut data));
    });
    group.bench_function("salsa20", |b| {
        b.iter(|| salsa20::XSalsa20::new(&KEY.into(), &NONCE.into()).apply_keystream(&mut data));
    });
    group.finish();
}

criterion_group!(benches, xsalsa20);
criterion_main!(benches);
