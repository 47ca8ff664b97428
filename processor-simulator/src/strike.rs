//! Death in the middle of a turn: at a failpoint of the engine, the turn ends as if the process had been killed there.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use processor_runtime::failpoints::{Failpoint, strike_on_this_thread};

/// Where a worker is to die.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    pub(crate) at: Failpoint,
    /// How often it comes past that place before.
    pub(crate) passes_left: u32,
}

/// Where a worker has died.
#[derive(Debug)]
pub(crate) struct Killed(pub(crate) Failpoint);

thread_local! {
    static DUE: RefCell<Option<Strike>> = const { RefCell::new(None) };
    static LISTENS: Cell<bool> = const { Cell::new(false) };
}

/// Runs a part of a worker's life, which may end at the strike. One that was not met stays due.
pub(crate) fn run<T>(strike: &mut Option<Strike>, life: impl FnOnce() -> T) -> Result<T, Killed> {
    if strike.is_none() {
        return Ok(life());
    }
    if !LISTENS.replace(true) {
        strike_on_this_thread(pass);
    }
    DUE.set(strike.take());
    let lived = catch_unwind(AssertUnwindSafe(life));
    *strike = DUE.take();
    match lived {
        Ok(lived) => Ok(lived),
        Err(payload) => match payload.downcast::<Killed>() {
            Ok(killed) => Err(*killed),
            Err(payload) => resume_unwind(payload),
        },
    }
}

fn pass(point: Failpoint) {
    let due = DUE.with_borrow_mut(|due| match due {
        Some(Strike { at, passes_left: 0 }) if *at == point => due.take(),
        Some(Strike { at, passes_left }) if *at == point => {
            *passes_left -= 1;
            None
        }
        Some(_) | None => None,
    });
    if let Some(Strike { at, .. }) = due {
        // Without the panic hook: nobody is to be told.
        resume_unwind(Box::new(Killed(at)));
    }
}
