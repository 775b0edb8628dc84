//! A session in a program that has no std: a crate that links it anywhere would bring a second panic handler and a
//! second allocator, and this would not link. An allocator cannot be written without `unsafe`, so this crate stands outside the
//! workspace and its lints.
#![no_std]

extern crate alloc;

use alloc::alloc::{GlobalAlloc, Layout};
use core::convert::Infallible;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use bytes::BytesMut;
use multifeed_proto::{Config, DEFAULT_ROOT_KEY, Role, Root, Session, Token};

const HEAP_BYTES: usize = 1 << 20;

/// Hands out memory once, and takes none back.
struct Bump {
    heap: core::cell::UnsafeCell<[u8; HEAP_BYTES]>,
    used: AtomicUsize,
}

// Safety: each byte of the heap is handed out once, by an atomic counter.
unsafe impl Sync for Bump {}

// Safety: what it returns is aligned as asked, lies inside the heap, and overlaps nothing that was returned before.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() + layout.align();
        let at = self.used.fetch_add(size, Ordering::Relaxed);
        if at.saturating_add(size) > HEAP_BYTES {
            return null_mut();
        }
        let start = self.heap.get().cast::<u8>().wrapping_add(at);
        start.wrapping_add(start.align_offset(layout.align()))
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: Bump = Bump { heap: core::cell::UnsafeCell::new([0; HEAP_BYTES]), used: AtomicUsize::new(0) };

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

struct Counter(u8);

impl rand_core::TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(4)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(4)
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for byte in dst {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Counter {}

/// Two sessions that shake hands: how many events they reported. Exported, so that nothing of it is left out.
#[unsafe(no_mangle)]
pub extern "C" fn multifeed_no_std_check() -> u32 {
    let session = |role, seed| Session::new(role, Config::default(), Duration::ZERO, &mut Counter(seed));
    let (mut a, mut b) = (session(Role::Initiator, 1), session(Role::Responder, 100));
    a.offer_feeds(Root::FIRST, &[DEFAULT_ROOT_KEY]).unwrap();
    b.open_channel(Token(1), DEFAULT_ROOT_KEY).unwrap();
    let mut events = 0;
    for _ in 0..8 {
        pass(&mut a, &mut b);
        pass(&mut b, &mut a);
        while a.poll_event().is_some() || b.poll_event().is_some() {
            events += 1;
        }
    }
    events
}

fn pass(from: &mut Session, to: &mut Session) {
    let mut out = BytesMut::new();
    from.poll_output(&mut out);
    if let Some(buf) = to.recv_buf() {
        buf.extend_from_slice(&out);
    }
    let _ = to.handle_input(Duration::ZERO);
}
