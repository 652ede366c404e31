//! The file systems of one guest, as they are shown: one alone at `/`, several as `/p1`, `/p2`, ….

use std::sync::{Arc, RwLock};

use crate::tree::Tree;

/// A file system that can be looked into.
#[derive(Clone)]
pub struct Mounted {
    /// `p1` … by partition number, or `disk`.
    pub name: Arc<str>,
    /// Its files. For a live volume this follows the guest.
    pub tree: Arc<dyn Tree>,
}

/// All of a guest's file systems. They may come and go while it runs.
#[derive(Default)]
pub struct Guest {
    volumes: RwLock<Arc<[Mounted]>>,
}

impl Guest {
    /// A guest with these file systems.
    pub fn new(volumes: Vec<Mounted>) -> Self {
        Self { volumes: RwLock::new(volumes.into()) }
    }

    /// The file systems now, in the order of their names' numbers.
    pub fn volumes(&self) -> Arc<[Mounted]> {
        self.volumes.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Replace them all.
    pub fn set(&self, volumes: Vec<Mounted>) {
        *self.volumes.write().unwrap_or_else(std::sync::PoisonError::into_inner) = volumes.into();
    }
}
