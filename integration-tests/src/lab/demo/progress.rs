//! What people see while the demo runs: a bar on a terminal, otherwise a line each second.

#![expect(clippy::print_stdout, reason = "this is a command line")]

use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::oracle::grouped;

const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Tells how far it is.
#[derive(Debug)]
pub(super) struct Progress {
    total: u64,
    started: Instant,
    /// Absent where the output is no terminal.
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Progress {
    /// Of so many readings.
    pub(super) fn new(total: u64) -> Self {
        let bar = stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
            let template = "  {elapsed:>4} [{bar:30}] {human_pos} of {human_len} averages, {msg}";
            bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant that parses"))
        });
        Self { total, started: Instant::now(), bar, last_line: None }
    }

    /// Shows the counts of now.
    pub(super) fn update(&mut self, readings: u64, averages: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("{} readings in", grouped(readings)));
                bar.set_position(averages);
            }
            None if self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) => {
                self.last_line = Some(Instant::now());
                self.line(readings, averages);
            }
            None => {}
        }
    }

    /// Says that something happened.
    pub(super) fn event(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f32();
        let line = format!("  {seconds:4.1} s  {text}");
        match &self.bar {
            Some(bar) => bar.println(line),
            None => println!("{line}"),
        }
    }

    /// Shows the counts of the end.
    pub(super) fn finish(&mut self, readings: u64, averages: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("{} readings in", grouped(readings)));
                bar.set_position(averages);
                bar.abandon();
            }
            None => self.line(readings, averages),
        }
    }

    fn line(&self, readings: u64, averages: u64) {
        let (readings, total) = (grouped(readings), grouped(self.total));
        self.event(&format!("{readings} of {total} readings in, {} averages out", grouped(averages)));
    }
}
