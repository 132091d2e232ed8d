//! One process of fleetd: alive until it is killed, at any point where it touches the world.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// The life of one process.
#[derive(Default)]
pub struct Life {
    dead: AtomicBool,
    /// Dies when it has passed so many more points; 0: not planned.
    fuse: AtomicU64,
    died: Notify,
}

impl Life {
    pub fn is_over(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.died.notify_waiters();
    }

    /// It will die at the `points`-th touch from now.
    pub fn end_after(&self, points: u64) {
        self.fuse.store(points, Ordering::Relaxed);
    }

    /// Waits for the end.
    pub async fn over(&self) {
        while !self.is_over() {
            let died = self.died.notified();
            if self.is_over() {
                break;
            }
            died.await;
        }
    }

    /// A touch of the world. What is dead never gets past it.
    pub async fn point(&self) {
        match self.fuse.load(Ordering::Relaxed) {
            0 => {}
            1 => self.end(),
            left => self.fuse.store(left - 1, Ordering::Relaxed),
        }
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }
}
