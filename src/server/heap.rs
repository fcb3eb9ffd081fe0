//! Gives memory back after a burst of connections. [`super::connections`] says when one is over.
//!
//! glibc returns the top of its heap to the system as soon as that is free. But it also keeps the pieces freed
//! last, some of each small size, at hand for their thread, and one such piece left high up by a burst pins
//! all the free memory below: 2,000 connections cost 25 MB for good. `malloc_trim(3)` would help and cannot
//! be called without `unsafe`; switching that cache off slows every request. So the cached pieces are
//! exchanged for low ones, once, when a burst is over. Other allocators lose nothing by it.

use std::hint::black_box;

/// Has the runtime's queue of ready tasks take its full size now, low in the heap: it never shrinks again, and
/// grown in a burst it would lie above all that the burst frees.
pub(super) async fn prepare(connections: usize) {
    // The queue doubles: one more than half is enough. It is in order, so the last to run is the last of all.
    let mut last = tokio::spawn(async {});
    for _ in 0..connections / 2 {
        last = tokio::spawn(async {});
    }
    let _ = last.await;
}

/// Fills the calling thread's cache with the lowest pieces of memory there are.
pub(super) fn settle() {
    // Again and again: freeing the highest pieces makes room for lower ones.
    for _ in 0..ROUNDS {
        consolidate();
        let sizes = (STEP..=LARGEST).step_by(STEP);
        let mut pieces: Vec<Vec<u8>> =
            sizes.flat_map(|size| (0..PIECES).map(move |_| Vec::with_capacity(size - STEP / 2))).collect();
        // They are freed in this order: the first fill the cache, the others go back to the heap.
        pieces.sort_unstable_by_key(|piece| piece.as_ptr().addr());
    }
    consolidate();
}

/// Freeing a large block makes glibc join its neighbours, look at the top of the heap and trim it.
fn consolidate() {
    drop(black_box(Vec::<u8>::with_capacity(LARGE)));
}

/// Two thirds are enough in trials of random bursts; all together take some milliseconds, most of them the kernel's for
/// taking the memory.
const ROUNDS: usize = 24;

/// The sizes that are cached lie 16 bytes apart, up to a kilobyte; 7 pieces of each, 16 from glibc 2.42 on.
const STEP: usize = 16;
const LARGEST: usize = 1040;
const PIECES: usize = 24;

/// Over the 64 KiB at which glibc joins, under the 128 KiB from which on blocks are not in the heap.
const LARGE: usize = 100 * 1024;
