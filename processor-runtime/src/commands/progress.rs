//! What people see while something takes long: how far it is, how fast, and how long it will take.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the count is told, in steps: a power of two.
const TELL_EVERY: u64 = 1 << 12;

/// Shows how far it is, on standard error, and only where that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    done: u64,
}

impl Progress {
    /// Of about so many `what`.
    pub(super) fn of(total: u64, what: &str) -> Self {
        let bar = if stderr().is_terminal() && total > 0 { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let template = format!("  [{{bar:30}}] {{human_pos}} of {{human_len}} {what}, {{per_sec}}, {{eta}} left");
        let style = ProgressStyle::with_template(&template).expect("the template is a constant but for a plain word");
        Self { bar: bar.with_style(style), done: 0 }
    }

    /// One more is done.
    pub(super) fn step(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(TELL_EVERY) {
            self.bar.set_position(self.done);
        }
    }

    /// So many are done.
    pub(super) fn reach(&mut self, done: u64) {
        self.done = done;
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
