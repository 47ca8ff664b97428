//! The guard against becoming slower: a quick run's ratios beside those that were kept. Ratios are of one run each, so
//! that they can be compared from day to day, and from machine to machine of a kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A ratio may lose so much: machines are noisy, and a quick run is short.
const LOSS_MAX: f64 = 0.2;

/// Ratios by their name; of each, more is better.
pub(super) type Ratios = BTreeMap<String, f64>;

/// Keeps the ratios for later runs.
pub(super) fn keep(ratios: &Ratios, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(ratios).context("cannot write the ratios as JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// Shows the ratios beside those that were kept, and fails if one has lost too much.
pub(super) fn compare(ratios: &Ratios, path: &Path) -> Result<()> {
    let text = fs::read(path).with_context(|| {
        format!("cannot read {}: keep the ratios of this version with ./x bench --quick --keep-ratios", path.display())
    })?;
    let kept: Ratios = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    println!("\n| ratio | kept | now | |\n|---|---|---|---|");
    let mut lost = Vec::new();
    for (name, now) in ratios {
        let Some(before) = kept.get(name) else {
            println!("| {name} | | {now:.2} | new |");
            continue;
        };
        let change = (now / before - 1.0) * 100.0;
        println!("| {name} | {before:.2} | {now:.2} | {change:+.0} % |");
        if is_lost(*before, *now) {
            lost.push(name.as_str());
        }
    }
    let missing: Vec<&str> = kept.keys().filter(|name| !ratios.contains_key(*name)).map(String::as_str).collect();
    ensure!(missing.is_empty(), "not measured, though kept: {}. Start the benchmark as ./x bench", missing.join(", "));
    let what = lost.join(", ");
    ensure!(lost.is_empty(), "lost more than {:.0} %: {what}. If that is meant, keep the new ratios", LOSS_MAX * 100.0);
    Ok(())
}

fn is_lost(before: f64, now: f64) -> bool {
    now.is_nan() || now < before * (1.0 - LOSS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_ratio_that_has_lost_much_is_refused() {
        let directory = tempfile::tempdir().expect("a place for throw-away data");
        let path = directory.path().join("ratios.json");
        let ratios =
            |loop_, streams| Ratios::from([("to the loop".to_owned(), loop_), ("to Streams".to_owned(), streams)]);
        let refused = compare(&ratios(0.9, 4.0), &path).expect_err("nothing was kept");
        assert!(refused.to_string().contains("--keep-ratios"), "{refused}");
        keep(&ratios(0.9, 4.0), &path).expect("the disk has room");
        compare(&ratios(0.75, 5.0), &path).expect("noise");
        let refused = compare(&ratios(0.7, 5.0), &path).expect_err("a loss of 22 %");
        assert!(refused.to_string().contains("to the loop") && !refused.to_string().contains("Streams"), "{refused}");
        compare(&ratios(f64::NAN, 5.0), &path).expect_err("that is no number");
        let alone = Ratios::from([("to the loop".to_owned(), 0.9)]);
        let refused = compare(&alone, &path).expect_err("Streams was not measured");
        assert!(refused.to_string().contains("not measured, though kept: to Streams"), "{refused}");
    }
}
