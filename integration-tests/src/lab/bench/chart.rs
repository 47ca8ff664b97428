//! The rates as a picture: one group of bars for each work, one bar for each subject, from the least to the most of its
//! rounds a line.

use std::fmt::{self, Write as _};

use super::rate::{Rates, Run};
use super::subject::Subject;
use crate::oracle::grouped;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const BAR: f64 = 20.0;
const GAP: f64 = 26.0;
const TOP: f64 = 40.0;
/// Room for the figure behind a bar.
const RIGHT: f64 = 170.0;

/// An SVG of the rates.
pub(super) fn of(rates: &[Rates]) -> String {
    let mut svg = String::new();
    write(&mut svg, rates).expect("a string takes it");
    svg
}

fn write(svg: &mut String, rates: &[Rates]) -> fmt::Result {
    let bars: usize = rates.iter().map(|rates| rates.runs.len()).sum();
    let height = bars as f64 * BAR + rates.len() as f64 * GAP + TOP;
    let rate = |run: &Run| run.records_per_second;
    let spreads = || rates.iter().flat_map(|of| of.runs.keys().filter_map(|subject| of.spread(*subject, rate)));
    let most = spreads().map(|spread| spread.max).fold(1.0, f64::max);
    let x = |rate: f64| LEFT + rate / most * (WIDTH - LEFT - RIGHT);
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">"#
    )?;
    writeln!(svg, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##)?;
    writeln!(
        svg,
        r#"<text x="10" y="22" font-weight="bold">records a second: median of the rounds, line from least to most</text>"#
    )?;
    let mut y = TOP;
    for of in rates {
        writeln!(svg, r#"<text x="10" y="{}">{}</text>"#, y + 14.0, of.work.name)?;
        for subject in Subject::ALL {
            let Some(spread) = of.spread(subject, rate) else { continue };
            let (middle, width) = (y + BAR / 2.0, x(spread.median) - LEFT);
            writeln!(svg, r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#, LEFT - 8.0, y + 14.0, subject.name())?;
            writeln!(
                svg,
                r#"<rect x="{LEFT}" y="{}" width="{width:.1}" height="{}" fill="{}"/>"#,
                y + 2.0,
                BAR - 4.0,
                color(subject)
            )?;
            writeln!(
                svg,
                r##"<line x1="{:.1}" y1="{middle}" x2="{:.1}" y2="{middle}" stroke="#222222" stroke-width="2"/>"##,
                x(spread.min),
                x(spread.max)
            )?;
            writeln!(
                svg,
                r#"<text x="{:.1}" y="{}">{}</text>"#,
                x(spread.max) + 8.0,
                y + 14.0,
                grouped(spread.median as u64)
            )?;
            y += BAR;
        }
        y += GAP;
    }
    writeln!(svg, "</svg>")
}

fn color(subject: Subject) -> &'static str {
    match subject {
        Subject::HandLoop => "#9aa5b1",
        Subject::Processor => "#d9480f",
        Subject::KafkaStreams => "#4263eb",
    }
}
