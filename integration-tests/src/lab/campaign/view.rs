//! What people see while the campaign runs: a line a fault, and on a terminal a line that stays.

#![expect(clippy::print_stdout, reason = "this is a command line")]

use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Tells what happens.
#[derive(Debug)]
pub(super) struct View {
    started: Instant,
    /// Absent where the output is no terminal.
    bar: Option<ProgressBar>,
}

impl View {
    pub(super) fn new() -> Self {
        let bar = stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar.with_style(ProgressStyle::with_template("  {elapsed} {spinner} {msg}").expect("it is a constant"))
        });
        Self { started: Instant::now(), bar }
    }

    /// What stands at the bottom.
    pub(super) fn standing(&self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        }
    }

    /// Says that something happened.
    pub(super) fn event(&self, text: &str) {
        let line = format!("  {:6.1} s  {text}", self.started.elapsed().as_secs_f32());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => println!("{line}"),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
