//! The bounded queue between those who hear of changes and the thread that tells the kernel.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::stale::Stale;

/// When so many wait, they are forgotten and everything is invalidated instead.
const CAPACITY: usize = 65_536;

/// What the invalidating thread is to do next.
#[derive(PartialEq, Eq, Debug)]
pub enum Next {
    /// Invalidate these, in this order.
    These(VecDeque<Stale>),
    /// Invalidate everything that the kernel may know.
    All,
    /// Nothing came up in the time given.
    Idle,
    /// End.
    Closed,
}

/// A queue that never blocks those who fill it and never forgets that something was dropped.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Stale>,
    all: bool,
    closed: bool,
}

impl Queue {
    /// Add to it.
    pub fn push(&self, stale: impl IntoIterator<Item = Stale>) {
        let mut state = self.state();
        for one in stale {
            if state.all {
                break;
            }
            if one == Stale::All || state.waiting.len() >= CAPACITY {
                state.waiting.clear();
                state.all = true;
            } else {
                state.waiting.push_back(one);
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Take all that waits, or wait for something at most `patience`.
    pub fn next(&self, patience: Duration) -> Next {
        let state = self.state();
        let idle = |s: &mut State| s.waiting.is_empty() && !s.all && !s.closed;
        let waited = self.filled.wait_timeout_while(state, patience, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            Next::Closed
        } else if std::mem::take(&mut state.all) {
            Next::All
        } else if state.waiting.is_empty() {
            Next::Idle
        } else {
            Next::These(std::mem::take(&mut state.waiting))
        }
    }

    /// End it: from now on there is only [`Next::Closed`].
    pub fn close(&self) {
        self.state().closed = true;
        self.filled.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Node;

    fn attr(n: usize) -> Stale {
        Stale::Attr(Node(n as u64))
    }

    #[test]
    fn what_was_pushed_comes_out_in_order_and_once() {
        let queue = Queue::default();
        queue.push([attr(1), attr(2)]);
        queue.push([attr(3)]);
        assert_eq!(queue.next(Duration::ZERO), Next::These((1..4).map(attr).collect()));
        assert_eq!(queue.next(Duration::ZERO), Next::Idle);
    }

    #[test]
    fn an_overflow_becomes_everything_and_then_it_goes_on() {
        let queue = Queue::default();
        queue.push((0..=CAPACITY).map(attr));
        queue.push([attr(7)]);
        assert_eq!(queue.next(Duration::ZERO), Next::All);
        queue.push([attr(8)]);
        assert_eq!(queue.next(Duration::ZERO), Next::These([attr(8)].into()));
        queue.close();
        queue.push([attr(9)]);
        assert_eq!(queue.next(Duration::ZERO), Next::Closed);
    }
}
