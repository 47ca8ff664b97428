//! What must hold when everything is processed, whatever happened before.

use super::{Scene, StoreCopy, stores};
use crate::oracle::{self, State};

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
            let newest = oracle::decode_store(&stores::newest(copies)).expect("a store of accounts");
            oracle::check_ledger_state(&expected, &newest).assert_ok();
        }
    }

    /// Two witnesses of a store of any program: the fold of its changelog, and the copies on disk, of which the newest of
    /// each task must be the final state and every other one a past of it.
    ///
    /// # Panics
    /// If one of them says something else.
    pub fn verify_store(&self, store: &'static str, expected: &State, workers: &[&str]) {
        let changelog = self.read(&self.changelog_of(store));
        let folded = oracle::fold(&changelog).unwrap_or_else(|error| panic!("{store}: {error:#}"));
        let verdict = oracle::check_state(expected, &folded);
        assert!(verdict.is_ok(), "the changelog of {store}: {verdict}");
        let copies: Vec<StoreCopy> = workers.iter().flat_map(|worker| self.copies_of(worker, store)).collect();
        self.assert_pasts(&copies, &changelog);
        let verdict = oracle::check_state(expected, &stores::newest(copies));
        assert!(verdict.is_ok(), "{store} on disk: {verdict}");
    }
}
