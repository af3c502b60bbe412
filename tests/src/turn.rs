//! Turns: how many tests may trace at once, over all test processes of this build.

use std::fs::{File, TryLockError};

use crate::needs::{self, Missing};

/// The right to trace until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _slots: Vec<File>,
}

const SLOTS: usize = 2;

impl Turn {
    /// One of two places for tests that can stand a neighbour.
    ///
    /// # Errors
    ///
    /// When the test cannot trace here at all: not root, or no memtrace binary.
    pub fn shared() -> Result<Self, Missing> {
        can_trace()?;
        let mut slots = slots()?;
        for index in 0..SLOTS {
            match slots[index].try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        _slots: vec![slots.swap_remove(index)],
                    });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error.to_string()),
            }
        }
        let mine = std::process::id() as usize % SLOTS;
        let slot = slots.swap_remove(mine);
        slot.lock().map_err(|error| error.to_string())?;
        Ok(Self { _slots: vec![slot] })
    }

    /// All places, for tests that measure or take much memory.
    ///
    /// # Errors
    ///
    /// When the test cannot trace here at all: not root, or no memtrace binary.
    pub fn alone() -> Result<Self, Missing> {
        can_trace()?;
        let slots = slots()?;
        for slot in &slots {
            slot.lock().map_err(|error| error.to_string())?;
        }
        Ok(Self { _slots: slots })
    }
}

fn can_trace() -> Result<(), Missing> {
    needs::root()?;
    needs::memtrace().map(drop)
}

fn slots() -> Result<Vec<File>, Missing> {
    let folder = needs::work_folder();
    (0..SLOTS)
        .map(|index| {
            File::create(folder.join(format!("turn-{index}.lock")))
                .map_err(|error| error.to_string())
        })
        .collect()
}
