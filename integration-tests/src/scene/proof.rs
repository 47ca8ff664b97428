//! What must hold when everything is processed, whatever happened before.

use super::{Scene, StoreCopy, stores};
use crate::oracle;

impl Scene {
    /// Three witnesses and the offsets: outputs, the fold of the changelog, the stores on disk. Of the stores the newest
    /// copy of each task must be the final state; every other one, in whoever's directory, must be a past of it.
    ///
    /// # Panics
    /// If one of them says something else.
    pub fn verify(&self, workers: &[&str]) {
        let (input, output) = (self.read(&self.input()), self.read(&self.output()));
        let verdict = oracle::check_ledger(&input, &output);
        assert!(verdict.is_ok(), "{verdict}");
        assert_eq!(verdict.inputs, self.produced, "{verdict}");
        oracle::check_batches(&output).assert_ok();
        oracle::check_offsets(&self.committed(), &oracle::input_ends(&input)).assert_ok();

        let expected = oracle::expected_ledger_state(&input);
        let changelog = self.read(&self.changelog());
        let folded = oracle::fold_changelog(&changelog).expect("a changelog of accounts");
        oracle::check_ledger_state(&expected, &folded).assert_ok();
        let copies: Vec<StoreCopy> = workers.iter().flat_map(|worker| self.stores_of(worker)).collect();
        self.assert_pasts(&copies, &changelog);
        if !workers.is_empty() {
            oracle::check_ledger_state(&expected, &stores::newest(copies)).assert_ok();
        }
    }
}
