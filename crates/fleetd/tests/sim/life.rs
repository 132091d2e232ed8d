//! One process of fleetd: alive until it is killed, at any of its awaits and wherever it touches
//! the world; and it may stand still for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use fleetd::sim::{Process, TaskOf, Turn, task_of};
use tokio::sync::Notify;

use crate::chance::{Sim, lock};

/// The life of one process.
#[derive(Default)]
pub struct Life {
    sim: Option<Arc<Sim>>,
    dead: AtomicBool,
    /// Dies when it has passed so many more points; 0: not planned.
    fuse: AtomicU64,
    died: Notify,
    /// It stands still (SIGSTOP): its tasks wait here.
    still: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Life {
    pub fn new(sim: &Arc<Sim>) -> Arc<Life> {
        Arc::new(Life {
            sim: Some(Arc::clone(sim)),
            ..Life::default()
        })
    }

    /// Makes a future a part of this process.
    pub fn of<F: Future>(self: &Arc<Self>, future: F) -> TaskOf<F> {
        task_of(Arc::clone(self) as _, future)
    }

    /// Starts a task of this process.
    pub fn spawn<F>(self: &Arc<Self>, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::spawn(self.of(future))
    }

    pub fn is_over(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.died.notify_waiters();
        self.go_on();
    }

    /// It will die at the `points`-th touch of the world or await from now.
    pub fn end_after(&self, points: u64) {
        self.fuse.store(points, Ordering::Relaxed);
    }

    /// Nothing of it goes on, while time does.
    pub fn stand_still(&self) {
        self.still.store(true, Ordering::Relaxed);
    }

    pub fn go_on(&self) {
        self.still.store(false, Ordering::Relaxed);
        for waker in std::mem::take(&mut *lock(&self.waiting)) {
            waker.wake();
        }
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
        self.burn();
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }

    fn burn(&self) {
        match self.fuse.load(Ordering::Relaxed) {
            0 => {}
            1 => self.end(),
            left => self.fuse.store(left - 1, Ordering::Relaxed),
        }
    }
}

impl Process for Life {
    fn turn(&self, context: &Context<'_>) -> Turn {
        if self.is_over() {
            return Turn::Over;
        }
        if self.still.load(Ordering::Relaxed) {
            lock(&self.waiting).push(context.waker().clone());
            return Turn::Wait;
        }
        Turn::Run
    }

    fn awaits(&self) {
        self.burn();
    }

    fn panicked(&self, why: &str) {
        if let Some(sim) = &self.sim {
            sim.fail(why.to_owned());
        }
        self.end();
    }
}
