//! Buffers for requests under way: the one that was given back last is the next to be taken.

use std::io;

use crate::sys::Mapping;

/// As many buffers as there are tags; only those that were ever taken use memory.
#[derive(Debug)]
pub struct Pool {
    memory: Mapping,
    /// Bytes of each.
    size: usize,
    /// Numbers of those at rest.
    free: Vec<u16>,
}

/// A buffer in use. It has no lifetime, since the kernel writes to it behind our back: whoever drops
/// the pool must know that nothing is in flight.
#[must_use]
#[derive(Debug)]
pub struct Buffer {
    number: u16,
    start: *mut u8,
}

// SAFETY: plain memory that no thread owns.
unsafe impl Send for Buffer {}

impl Pool {
    /// `count` buffers of `size` bytes.
    pub fn new(count: u16, size: usize) -> io::Result<Self> {
        let memory = Mapping::anonymous(usize::from(count) * size)?;
        Ok(Self { memory, size, free: (0..count).rev().collect() })
    }

    /// One that nobody uses. `None`: all are taken, which cannot be while each tag takes one at most.
    pub fn take(&mut self) -> Option<Buffer> {
        let number = self.free.pop()?;
        Some(Buffer { number, start: self.memory.start().wrapping_add(usize::from(number) * self.size) })
    }

    /// Take one back.
    pub fn give_back(&mut self, buffer: Buffer) {
        self.free.push(buffer.number);
    }

    /// Whether nobody has one.
    pub fn is_at_rest(&self) -> bool {
        self.free.len() == self.memory.len() / self.size
    }
}

impl Buffer {
    /// Its first byte.
    pub fn start(&self) -> *mut u8 {
        self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_is_used_next_and_none_twice() {
        let mut pool = Pool::new(3, 8192).unwrap();
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!(b.start().addr() - a.start().addr(), 8192);
        let last = b.start();
        pool.give_back(b);
        let (again, third) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!(again.start(), last);
        assert_ne!(third.start(), a.start());
        assert!(pool.take().is_none() && !pool.is_at_rest());
        [a, again, third].into_iter().for_each(|x| pool.give_back(x));
        assert!(pool.is_at_rest());
    }
}
